"""How far the adaptation network is followed when no case was kept for validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from aslseg.config import AdaptationConfig, RunConfig
from aslseg.data.masks import BoundingBox
from aslseg.data.volume import Float32, Mask
from aslseg.networks.adaptation import (
    AdaptationNetwork,
    ProbabilityPair,
    adaptation_roi_settings,
    build_adaptation,
)
from aslseg.preprocessing.roi import Roi
from aslseg.project.create import create_project, select_cases
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from aslseg.runs import start_run
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training.adaptation_samples import TrainingSample
from aslseg.training.fusion import (
    SAM_WEIGHTS,
    SAM_WEIGHTS_OF_TUNED,
    CaseSamples,
    case_folds,
    cross_validated_weights,
)
from support.tiny_project import ADAPTATION, LABELLED, TEST, VALIDATION, tiny_config, write_patients
from support.whole_runs import at_step, results, stopped_and_resumed, weights_in

OF_LIVER = cascade_stages(LIVER_TARGETS)[0]
CONFIG = RunConfig(adaptation=AdaptationConfig(channels=(4, 8), context_slices=0))
SETTINGS, ROI_SETTINGS = CONFIG.adaptation, adaptation_roi_settings(OF_LIVER, CONFIG)
SHAPE = (6, 16, 16)
OF_RUN = tiny_config(rounds=1, adaptation=ADAPTATION.model_copy(update={"iterations": 24}))


def a_truth(*slices: int) -> Mask:
    """Return a square of 8 x 8 pixels on some slices."""
    truth = np.zeros(SHAPE, bool)
    truth[list(slices), 4:12, 4:12] = True
    return truth


def a_sample(
    truth: Mask, specialist: Float32 | None = None, sam: Float32 | None = None, first: int = 0
) -> TrainingSample:
    """Return a sample that begins at a slice; predictions are right where not given."""
    box = BoundingBox((first, 0, 0), (first + SHAPE[0], *SHAPE[1:]))
    numbers = np.arange(first, first + SHAPE[0], dtype=np.float32)
    image = np.broadcast_to(numbers[:, None, None], SHAPE)  # a slice is told by its brightness
    roi = Roi(image, None, truth.astype(np.uint8), box, (40, *SHAPE[1:]), 1)
    right = np.where(truth, 0.9, 0.1).astype(np.float32)
    return TrainingSample(
        roi,
        ProbabilityPair(right if specialist is None else specialist, right if sam is None else sam),
        1,
    )


def a_case(case_id: str, *samples: TrainingSample) -> CaseSamples:
    return CaseSamples(case_id, list(samples), list(samples[-1:]))


def slices_in(samples: list[TrainingSample]) -> set[float]:
    return {float(value) for sample in samples for value in np.unique(sample.roi.image)}


def network_that_adds(odds: float) -> AdaptationNetwork:
    network = build_adaptation(OF_LIVER, CONFIG)
    torch.nn.init.constant_(network.head.bias, odds)
    return network


# --- Folds ------------------------------------------------------------------------------------


def test_a_fold_is_validated_on_cases_that_it_does_not_train_on() -> None:
    samples = {name: [a_sample(a_truth(2)), a_sample(a_truth(3))] for name in "abc"}
    first, second = case_folds([a_case(name, *both) for name, both in samples.items()])
    assert first.train == samples["b"]  # groups are a, c and b
    assert first.validation == [samples["a"][1], samples["c"][1]]
    assert second.train == [*samples["a"], *samples["c"]]
    assert second.validation == [samples["b"][1]]


def test_a_single_case_is_divided_into_slices_that_its_samples_do_not_share() -> None:
    """Views of one volume may begin at different slices; a picture must not be on both sides."""
    early, late = a_sample(a_truth(1, 2, 3, 4)), a_sample(a_truth(0, 1, 2), first=2)
    folds = case_folds([CaseSamples("a", [early, late], [late])])
    # The target is on slices 1, 2, 3, 4 and 2, 3, 4 of the volume: the middle is 3.
    assert [(slices_in(fold.train), slices_in(fold.validation)) for fold in folds] == [
        ({4.0, 5.0, 6.0, 7.0}, {2.0, 3.0}),
        ({0.0, 1.0, 2.0, 3.0}, {4.0, 5.0, 6.0, 7.0}),
    ]
    for sample in (sample for fold in folds for sample in fold.validation):
        kept = sample.roi.image[:, 0, 0].astype(int) - 2
        np.testing.assert_array_equal(sample.roi.labels, a_truth(0, 1, 2)[kept])
        np.testing.assert_array_equal(sample.predictions.sam, late.predictions.sam[kept])


def test_where_one_group_shows_nothing_the_slices_of_the_others_are_divided() -> None:
    seen = a_case("a", a_sample(a_truth(2, 3)))
    folds = case_folds([seen, a_case("b", a_sample(a_truth(), first=10))])
    assert [(slices_in(fold.train), slices_in(fold.validation)) for fold in folds] == [
        ({3.0, 4.0, 5.0}, {0.0, 1.0, 2.0}),
        ({0.0, 1.0, 2.0}, {3.0, 4.0, 5.0}),
    ]


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param([a_case("a", a_sample(a_truth()))], id="one case without the target"),
        pytest.param([a_case("a", a_sample(a_truth(2)))], id="a target on one slice"),
        pytest.param([], id="no case"),
    ],
)
def test_where_nothing_can_be_validated_there_is_no_correction(cases: list[CaseSamples]) -> None:
    assert case_folds(cases) == []

    def never(number: int, learn: list[TrainingSample]) -> AdaptationNetwork:
        raise AssertionError

    assert cross_validated_weights(cases, never, SETTINGS, ROI_SETTINGS) == (0.5, 0.0)


# --- What is chosen -----------------------------------------------------------------------------


def chosen(
    network: AdaptationNetwork,
    *samples: TrainingSample,
    sam_weights: Sequence[float] = SAM_WEIGHTS,
) -> tuple[float, float]:
    cases = [a_case(str(number), sample) for number, sample in enumerate(samples)]
    return cross_validated_weights(cases, lambda *_: network, SETTINGS, ROI_SETTINGS, sam_weights)


def drawn_to_most(weight: float, patients: int, most: float = 1.0) -> float:
    """The mean of a weight over patients and of the most over four more."""
    return (weight * patients + most * 4) / (patients + 4)


def test_a_correction_that_harms_other_cases_is_not_followed() -> None:
    samples = [a_sample(a_truth(2, 3)), a_sample(a_truth(1, 2))]
    weights = chosen(network_that_adds(8.0), *samples)
    assert weights == pytest.approx((drawn_to_most(0.0, 2), 0.0))


def test_a_correction_that_mends_other_cases_is_followed() -> None:
    truth = a_truth(2, 3)
    timid = np.where(truth, 0.3, 0.01).astype(np.float32)  # log-odds -0.85 and -4 (cut off)
    sample = a_sample(truth, timid, timid)
    # A quarter of 2 is too little to lift -0.85 above 0, half of it is enough.
    for patients in (2, 12):
        weights = chosen(network_that_adds(2.0), *[sample] * patients)
        expected = (drawn_to_most(0.0, patients), 0.5 * patients / (patients + 4))
        assert weights == pytest.approx(expected)


def test_sam_which_did_not_see_the_cases_may_outweigh_the_specialist() -> None:
    truth = a_truth(2, 3)
    far_wrong = np.where(truth, 0.09, 0.91).astype(np.float32)  # as sure as SAM, and wrong
    weights = chosen(network_that_adds(0.0), *[a_sample(truth, far_wrong)] * 4)
    assert weights[0] == pytest.approx(drawn_to_most(0.75, 4))


def test_sam_which_was_tuned_on_the_cases_gets_no_more_than_an_equal_weight() -> None:
    truth = a_truth(2, 3)
    wrong = np.where(truth, 0.4, 0.6).astype(np.float32)
    far_wrong = np.where(truth, 0.09, 0.91).astype(np.float32)
    for specialist, best in ((wrong, 0.25), (far_wrong, 0.0)):
        samples = [a_sample(truth, specialist)] * 2
        found = chosen(network_that_adds(0.0), *samples, sam_weights=SAM_WEIGHTS_OF_TUNED)
        assert found[0] == pytest.approx(drawn_to_most(best, 2, 0.5))


# --- In a run -----------------------------------------------------------------------------------


def without_validation(folder: Path) -> Project:
    found = write_patients(folder / "data")
    chosen_cases = select_cases(found, labelled=LABELLED, test=[*VALIDATION, *TEST])
    return create_project(folder / "project", chosen_cases)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("no_validation")
    return start_run(without_validation(folder), OF_RUN, run_id="a")


@pytest.mark.slow
def test_a_run_without_validation_cases_is_cross_validated(run: RunFolder) -> None:
    for target in ("liver", "tumour"):
        _, facts = weights_in(run.round(1) / f"adaptation-{target}.safetensors")
        assert "cross-validation" in str(facts)
        for number in (1, 2):
            name = f"adaptation-{target}-fold-{number}.safetensors"
            assert (run.round(1) / "crossfit" / name).exists()


@pytest.mark.slow
def test_a_run_stopped_among_its_folds_goes_on_to_the_same_end(
    run: RunFolder, tmp_path: Path
) -> None:
    stages = ("adaptation-liver-fold-2", "adaptation-tumour")
    places = [at_step(stage, 10) for stage in stages]
    resumed = stopped_and_resumed(without_validation(tmp_path), OF_RUN, *places)
    assert results(resumed) == results(run)
