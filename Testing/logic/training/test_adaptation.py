"""The adaptation network: untrained it is the mean, trained it deletes and restores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from aslseg.config import AdaptationConfig, RunConfig, SpecialistConfig
from aslseg.data.masks import BoundingBox
from aslseg.data.volume import Geometry, Mask, Volume
from aslseg.events import Monitor
from aslseg.inference.refinement import Refiner, refine_roi, roi_terms
from aslseg.networks.adaptation import (
    AdaptationNetwork,
    FusionWeights,
    ProbabilityPair,
    adaptation_roi_settings,
    build_adaptation,
    log_odds,
    prediction_channels,
)
from aslseg.preprocessing.roi import Roi
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training.adaptation import (
    adaptation_loss,
    train_adaptation,
    untrained_adaptation,
)
from aslseg.training.adaptation_samples import AdaptationSampler, TrainingSample
from aslseg.training.fusion import FusionTerms, best_weights, validated_weights

OF_LIVER, OF_TUMOUR = cascade_stages(LIVER_TARGETS)
TUMOUR = OF_TUMOUR.targets[0]
SHAPE = (8, 48, 48)
PLACES = [(row, column) for row in (10, 24, 38) for column in (10, 24, 38)]
CONFIG = RunConfig(
    adaptation=AdaptationConfig(
        iterations=80,
        batch_size=8,
        patch_size=32,
        channels=(8, 16),
        learning_rate=0.01,
        intensity_strength=0.3,
    )
)
SETTINGS = CONFIG.adaptation
ROI_SETTINGS = adaptation_roi_settings(OF_TUMOUR, CONFIG)


def lesions(*places: int) -> Mask:
    """Return balls of 4 pixels at some of nine places."""
    k, j, i = np.indices(SHAPE)
    found = np.zeros(SHAPE, bool)
    for row, column in (PLACES[place] for place in places):
        found |= ((k - 4) * 2) ** 2 + (j - row) ** 2 + (i - column) ** 2 <= 16
    return found


def a_roi(seed: int, *places: int) -> Roi:
    """Return an ROI in which lesions are brighter than the noise around them."""
    truth = lesions(*places)
    image = np.random.default_rng(seed).normal(0.0, 0.5, SHAPE).astype(np.float32)
    image[truth] += 3.0
    organ, box = np.ones(SHAPE, np.float32), BoundingBox((0, 0, 0), SHAPE)
    return Roi(image, organ, truth.astype(np.uint8), box, SHAPE, neighbour=1)


def predictions(*places: int) -> ProbabilityPair:
    """Return two predictions that show the lesions at some places with probability 0.9."""
    probabilities = np.where(lesions(*places), 0.9, 0.1).astype(np.float32)
    return ProbabilityPair(probabilities, probabilities)


def samples() -> list[TrainingSample]:
    """Return samples in which one of four lesions is missed and one invented."""
    drawn = [np.random.default_rng(seed).permutation(9).tolist() for seed in range(6)]
    return [
        TrainingSample(a_roi(seed, *places[:4]), predictions(*places[1:5]), 1)
        for seed, places in enumerate(drawn)
    ]


def untrained() -> AdaptationNetwork:
    return untrained_adaptation(OF_TUMOUR, CONFIG, torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> AdaptationNetwork:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("adaptation")
    return train_adaptation(
        "adaptation-tumour", untrained(), OF_TUMOUR, samples(), CONFIG, folder, Monitor()
    )


HELD_OUT = a_roi(100, 0, 4, 5)
PREDICTED_OF_HELD_OUT = predictions(0, 4, 8)  # 5 is missed, 8 invented


# --- Untrained ------------------------------------------------------------------------------------


@pytest.mark.parametrize("neighbours", [0, 1])
def test_an_untrained_network_returns_the_mean_log_odds_of_the_predictions(neighbours: int) -> None:
    settings = SETTINGS.model_copy(update={"context_slices": neighbours})
    network = AdaptationNetwork(4, settings)
    probabilities = torch.rand(2, 2, 2 * neighbours + 1, 16, 16) * 0.9 + 0.05
    found = network(torch.randn(2, 4, 16, 16), probabilities)
    specialist, sam = probabilities[:, 0, neighbours], probabilities[:, 1, neighbours]
    expected = (specialist.logit() + sam.logit()) / 2
    torch.testing.assert_close(found, expected)


def test_an_untrained_network_leaves_a_volume_to_the_predictions() -> None:
    network = build_adaptation(OF_TUMOUR, CONFIG)
    probabilities = ProbabilityPair(
        np.full(SHAPE, 0.9, np.float32), np.full(SHAPE, 0.5, np.float32)
    )
    refined = refine_roi(network, HELD_OUT, probabilities, SETTINGS, ROI_SETTINGS)
    assert refined.shape == SHAPE
    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined, 0.75, rtol=1e-5)  # the root of 9 to 1 is 3 to 1


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, -4.0), (0.01, -4.0), (0.25, -math.log(3)), (0.5, 0.0), (0.9, math.log(9)), (1.0, 4.0)],
)
def test_no_prediction_is_beyond_correction(probability: float, expected: float) -> None:
    assert float(log_odds(torch.tensor(probability))) == pytest.approx(expected, abs=1e-5)


def test_the_first_step_already_moves_the_correction() -> None:
    network = AdaptationNetwork(4, SETTINGS)
    logits = network(torch.randn(2, 4, 16, 16), torch.rand(2, 2, 3, 16, 16))
    adaptation_loss(logits, torch.ones(2, 16, 16, dtype=torch.long)).backward()
    assert network.head.weight.grad is not None
    assert network.head.weight.grad.abs().max() > 0


def test_a_blend_weighs_sam_and_the_correction() -> None:
    network = AdaptationNetwork(4, SETTINGS)
    torch.nn.init.constant_(network.head.bias, 2.0)
    probabilities = torch.full((1, 2, 3, 16, 16), 0.5)
    probabilities[:, 1] = 0.75  # SAM: log-odds ln 3
    image = torch.randn(1, 4, 16, 16)
    assert network.fusion_weights == (0.5, 1.0)
    torch.testing.assert_close(
        network(image, probabilities), torch.full((1, 16, 16), math.log(3) / 2 + 2.0)
    )
    network.set_fusion_weights(FusionWeights(0.25, 0.5))
    torch.testing.assert_close(
        network(image, probabilities), torch.full((1, 16, 16), math.log(3) / 4 + 1.0)
    )
    again = AdaptationNetwork(4, SETTINGS)
    again.load_state_dict(network.state_dict())
    assert again.fusion_weights == (0.25, 0.5)


# --- Trained --------------------------------------------------------------------------------------


def test_after_a_second_of_training_an_invented_lesion_is_deleted(
    trained: AdaptationNetwork,
) -> None:
    refined = refine_roi(trained, HELD_OUT, PREDICTED_OF_HELD_OUT, SETTINGS, ROI_SETTINGS)
    assert (PREDICTED_OF_HELD_OUT.specialist[lesions(8)] > 0.5).all()
    assert not (refined[lesions(8)] > 0.5).any()


def test_after_a_second_of_training_a_missed_lesion_is_restored(
    trained: AdaptationNetwork,
) -> None:
    refined = refine_roi(trained, HELD_OUT, PREDICTED_OF_HELD_OUT, SETTINGS, ROI_SETTINGS)
    assert not (PREDICTED_OF_HELD_OUT.specialist[lesions(5)] > 0.5).any()
    assert (refined[lesions(5)] > 0.5).mean() > 0.85


def test_after_a_second_of_training_what_was_right_stays_right(
    trained: AdaptationNetwork,
) -> None:
    refined = refine_roi(trained, HELD_OUT, PREDICTED_OF_HELD_OUT, SETTINGS, ROI_SETTINGS) > 0.5
    truth = lesions(0, 4, 5)
    assert 2 * (refined & truth).sum() / (refined.sum() + truth.sum()) > 0.93
    assert refined[lesions(0, 4)].mean() > 0.95


def test_training_leaves_no_file_and_repeats_bit_by_bit(
    trained: AdaptationNetwork, tmp_path: Path
) -> None:
    torch.manual_seed(12)
    again = train_adaptation(
        "adaptation-tumour", untrained(), OF_TUMOUR, samples(), CONFIG, tmp_path, Monitor()
    )
    first, second = trained.state_dict(), again.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(3, 9, 13), (9, 16, 18), (1, 1, 1), (2, 2, 1)])
@pytest.mark.parametrize("mirror", [False, True])
def test_rois_of_any_size_are_refined_where_they_are(
    shape: tuple[int, int, int], mirror: bool
) -> None:
    """Untrained, the odds of the predictions must come back voxel by voxel."""
    rng = np.random.default_rng(0)
    image, organ = rng.random(shape, np.float32), np.ones(shape, np.float32)
    roi = Roi(image, organ, None, BoundingBox((0, 0, 0), shape), shape, 1)
    probabilities = ProbabilityPair(rng.random(shape, np.float32), rng.random(shape, np.float32))
    network = build_adaptation(OF_TUMOUR, CONFIG)
    roi_settings = ROI_SETTINGS.model_copy(update={"mirror": mirror})
    specialist, sam, correction = roi_terms(network, roi, probabilities, SETTINGS, roi_settings)
    for odds, probability in ((specialist, probabilities.specialist), (sam, probabilities.sam)):
        expected = log_odds(torch.from_numpy(probability)).numpy()
        np.testing.assert_allclose(odds, expected, atol=1e-5)
    assert not correction.any()


# --- What it is trained on -----------------------------------------------------------------------


def test_predictions_are_given_on_neighbouring_slices() -> None:
    depth = np.repeat(np.arange(8, dtype=np.float32) / 10, 4).reshape(8, 2, 2)
    probabilities = ProbabilityPair(depth, 1 - depth)
    found = prediction_channels(probabilities, 3, 1, 2)
    assert found.shape == (2, 3, 2, 2)
    np.testing.assert_allclose(found[:, :, 0, 0], [[0.1, 0.3, 0.5], [0.9, 0.7, 0.5]])
    at_the_end = prediction_channels(probabilities, 7, 1, 2)
    np.testing.assert_allclose(at_the_end[0, :, 0, 0], [0.5, 0.7, 0.7])


def a_source(settings: AdaptationConfig = SETTINGS, seed: int = 0) -> AdaptationSampler:
    return AdaptationSampler(samples()[:2], settings, ROI_SETTINGS, seed)


def test_a_batch_of_samples_depends_on_its_number_alone() -> None:
    source = a_source()
    seen = [source.batch(step) for step in range(3)]
    again = a_source().batch(2)
    assert all(map(torch.equal, seen[2], again))
    assert not torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][0], a_source(seed=1).batch(0)[0])
    image, probabilities, truth = again
    assert (image.shape, probabilities.shape) == ((8, 4, 32, 32), (8, 2, 3, 32, 32))
    assert truth.shape == (8, 32, 32)
    assert set(truth.unique().tolist()) == {0, 1}


def test_image_predictions_and_truth_of_a_sample_lie_upon_each_other() -> None:
    right = TrainingSample(HELD_OUT, predictions(0, 4, 5), 1)
    mirrored = ROI_SETTINGS.model_copy(update={"mirror": True})
    _, probabilities, truth = AdaptationSampler([right], SETTINGS, mirrored, 0).batch(0)
    middle = probabilities[:, 0, 1]
    sure = (middle < 0.15) | (middle > 0.85)
    assert torch.equal((middle > 0.5).long()[sure], truth[sure])
    assert truth.any()


def test_some_samples_hide_the_image_and_never_the_parent_roi() -> None:
    settings = SETTINGS.model_copy(update={"batch_size": 80})
    image, _, _ = a_source(settings).batch(0)
    blind = image[:, :3].abs().amax((1, 2, 3)) == 0
    assert 8 < int(blind.sum()) < 35  # a quarter of 80
    assert (image[:, 3].amax((1, 2)) > 0.99).all()


def test_a_network_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one training sample"):
        AdaptationSampler([], SETTINGS, ROI_SETTINGS, 0)


def test_the_loss_of_four_pixels_is_that_of_the_formula() -> None:
    truth = torch.tensor([[[1, 1], [0, 0]]])
    # p = 1/2: cross entropy ln 2 of weights 3, 3, 1, 1; Dice 1 - (2 + 1) / (1 + 2 + 1).
    loss = adaptation_loss(torch.zeros(1, 2, 2), truth)
    assert float(loss) == pytest.approx(2 * math.log(2) + 0.25)


# --- How far it is followed -----------------------------------------------------------------------


def some_terms(**odds: Mask) -> FusionTerms:
    """Return parts whose log-odds are +-3 where a mask says so; the rest of the truth is 3."""
    signs = {name: np.where(mask, 3.0, -3.0).astype(np.float32) for name, mask in odds.items()}
    return FusionTerms(signs["specialist"], signs["sam"], 2 * signs["correction"], odds["truth"])


RIGHT, WRONG = lesions(0, 1), lesions(7, 8)


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        pytest.param({"specialist", "sam", "correction"}, (0.0, 0.0), id="all: the simplest"),
        pytest.param({"specialist"}, (0.0, 0.0), id="specialist alone"),
        pytest.param({"sam"}, (0.75, 0.0), id="SAM alone"),
        pytest.param({"correction"}, (0.0, 1.0), id="correction alone"),
        pytest.param({"sam", "correction"}, (0.75, 0.0), id="all but the specialist"),
    ],
)
def test_a_blend_follows_who_is_right(right: set[str], expected: tuple[float, float]) -> None:
    probabilities = {
        name: RIGHT if name in right else WRONG for name in ("specialist", "sam", "correction")
    }
    assert best_weights([some_terms(**probabilities, truth=RIGHT)]) == expected


def test_a_correction_that_harms_the_validation_cases_is_not_followed(
    trained: AdaptationNetwork,
) -> None:
    network = build_adaptation(OF_TUMOUR, CONFIG)
    network.load_state_dict(trained.state_dict())
    dark = Roi(
        -HELD_OUT.image, HELD_OUT.parent, HELD_OUT.labels, HELD_OUT.box, HELD_OUT.volume_shape, 1
    )
    harmful = TrainingSample(dark, predictions(0, 4, 5), 1)
    assert validated_weights(network, [harmful], SETTINGS, ROI_SETTINGS)[1] == 0.0
    helpful = TrainingSample(HELD_OUT, PREDICTED_OF_HELD_OUT, 1)
    assert validated_weights(network, [helpful], SETTINGS, ROI_SETTINGS)[1] > 0.0


# --- All targets together -------------------------------------------------------------------------

GRID = Geometry.axis_aligned((4, 24, 24), (3.0, 1.5, 1.5))


def a_refiner() -> Refiner:
    networks = {
        "liver": build_adaptation(OF_LIVER, CONFIG),
        "tumour": build_adaptation(OF_TUMOUR, CONFIG),
    }
    return Refiner(networks, LIVER_TARGETS, CONFIG)


def probability_in(slices: slice, probability: float) -> np.ndarray:
    values = np.full(GRID.shape, 0.1, np.float32)
    values[:, slices, slices] = probability
    return values


def test_contents_are_refined_within_the_refined_parent_roi() -> None:
    volume = Volume(np.zeros(GRID.shape, np.float32), GRID)
    liver, tumour = probability_in(slice(2, 12), 0.9), probability_in(slice(8, 22), 0.9)
    probabilities = {"liver": liver, "tumour": tumour}
    refined = a_refiner().refine(volume, probabilities, probabilities)
    np.testing.assert_array_equal(refined["liver"] > 0.5, liver > 0.5)
    found = np.flatnonzero((refined["tumour"] > 0.5)[1, 9])
    assert found.tolist() == list(range(8, 14))  # two pixels of 1.5 mm beyond the liver


def test_where_sam_has_no_prompt_it_predicts_nothing() -> None:
    volume = Volume(np.zeros(GRID.shape, np.float32), GRID)
    probabilities = {
        "liver": probability_in(slice(2, 12), 0.9),
        "tumour": probability_in(slice(4, 8), 0.9),
    }
    refined = a_refiner().refine(volume, probabilities, {"liver": probabilities["liver"]})
    assert (refined["liver"] > 0.5).any()
    assert not (refined["tumour"] > 0.5).any()  # ln 9 and -4
    alone = a_refiner().refine(volume, probabilities, None)
    np.testing.assert_allclose(alone["tumour"][1, 5, 5], 0.9, atol=1e-3)


def test_without_a_parent_roi_there_are_no_contents() -> None:
    volume = Volume(np.zeros(GRID.shape, np.float32), GRID)
    nothing = {
        "liver": probability_in(slice(2, 12), 0.1),
        "tumour": probability_in(slice(4, 8), 0.9),
    }
    refined = a_refiner().refine(volume, nothing, nothing)
    assert not refined["tumour"].any()
    assert refined["tumour"].shape == GRID.shape


def test_the_network_sees_slices_at_its_own_pixel_even_beside_a_3d_specialist() -> None:
    in_3d = {"network": {"dimensions": 3, "channels": [4, 8, 8]}, "roi": {"pixel_mm": 3.0}}
    config = RunConfig.model_validate({"organ": in_3d, "adaptation": {"pixel_mm": 1.25}})
    settings: SpecialistConfig = adaptation_roi_settings(OF_LIVER, config)
    assert settings.network.dimensions == 2
    assert settings.roi.pixel_mm == 1.25
