"""Prompts and target masks of SAM's tuning, and the samples of the adaptation network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aslseg.config import PromptConfig, SamConfig
from aslseg.context import LabelledVolume, RunContext
from aslseg.data.volume import Geometry, Labelmap, Mask, Volume
from aslseg.events import Monitor
from aslseg.inference.cascade import Specialist
from aslseg.inference.ensemble import sam_probabilities_of
from aslseg.inference.loading import TrainedCascade
from aslseg.networks.checkpoints import adaptation_path
from aslseg.networks.unet import build_network
from aslseg.prompts import BoxPrompt, SlicePrompts, propose_prompts
from aslseg.sam.predictor import VolumeSamPredictor, volume_digest
from aslseg.sam.tuning import trainable_state, tune
from aslseg.targets import LIVER_TARGETS, Target, cascade_stages
from aslseg.training import adaptation, held_out
from aslseg.training.adaptation import train_refiner
from aslseg.training.adaptation_samples import training_samples_of
from aslseg.training.cascade import scheduled
from aslseg.training.cross_fitting import OutOfFoldModel
from aslseg.training.mask_corruption import pseudo_labels_of, soften, synthetic_masks
from aslseg.training.sam_tuning import (
    PromptSample,
    SamTrainingCase,
    mask_loss,
    prompt_samples_from,
    sam_training_case,
    tuning_loss,
    with_embeddings,
)
from support.run_contexts import a_run_context
from support.sam_doubles import a_small_sam
from support.tiny_project import GEOMETRY, a_patient, a_tiny_project, tiny_config

SHAPE = (3, 30, 30)
EXACT = SamConfig(prompts=PromptConfig(box_margin_px=0.0))


def squares(*corners: tuple[int, int], k: int = 1, edge: int = 5) -> Mask:
    mask = np.zeros(SHAPE, bool)
    for row, column in corners:
        mask[k, row : row + edge, column : column + edge] = True
    return mask


def samples_of(pseudo: Mask, truth: Mask, settings: SamConfig = EXACT) -> list[PromptSample]:
    return prompt_samples_from(pseudo, truth, "tumour", settings, np.random.default_rng(0))


@pytest.fixture(scope="module")
def patient() -> LabelledVolume:
    volume, labels = a_patient(0)
    return LabelledVolume("c0", volume, labels)


# --- Target masks ---------------------------------------------------------------------------------

prompted = pytest.mark.parametrize(
    "settings",
    [
        EXACT,
        EXACT.model_copy(update={"prompts": PromptConfig(use_mask=False, jitter_share=0.0)}),
    ],
    ids=["with a mask", "with a box alone"],
)


@prompted
def test_the_target_mask_of_an_invented_component_is_empty(settings: SamConfig) -> None:
    (sample,) = samples_of(squares((20, 20)), squares((3, 3)), settings)
    assert sample.truth.shape == SHAPE[1:]
    assert not sample.truth.any()


@prompted
def test_the_target_mask_is_the_whole_true_component_of_that_slice(settings: SamConfig) -> None:
    truth = squares((3, 3), (20, 20)) | squares((3, 3), k=2)
    (sample,) = samples_of(squares((5, 5), edge=3), truth, settings)
    assert sample.prompt.slice_index == 1
    np.testing.assert_array_equal(sample.truth, squares((3, 3))[1])


@prompted
def test_a_component_that_bridges_two_true_ones_asks_for_both(settings: SamConfig) -> None:
    bridge = np.zeros(SHAPE, bool)
    bridge[1, 4:7, 3:20] = True
    truth = squares((3, 3), (3, 15))
    (sample,) = samples_of(bridge, truth, settings)
    np.testing.assert_array_equal(sample.truth, truth[1])


def test_each_component_of_each_slice_is_a_prompt_sample() -> None:
    pseudo = squares((3, 3), (20, 20)) | squares((3, 3), k=2)
    samples = samples_of(pseudo, pseudo)
    assert [(q.prompt.slice_index, q.prompt.component) for q in samples] == [
        (1, 0),
        (1, 1),
        (2, 0),
    ]
    assert [int(q.truth.sum()) for q in samples] == [25, 25, 25]
    assert {s.prompt.target for s in samples} == {"tumour"}


def test_an_empty_pseudo_label_asks_nothing() -> None:
    assert samples_of(np.zeros(SHAPE, bool), squares((3, 3))) == []


def test_boxes_of_questions_are_jittered_with_the_draw() -> None:
    pseudo = squares((10, 10), edge=10)

    def boxes(seed: int) -> list[object]:
        found = prompt_samples_from(pseudo, pseudo, "t", EXACT, np.random.default_rng(seed))
        return [q.prompt.box for q in found]

    assert boxes(0) == boxes(0) != boxes(1)


# --- Synthetic pseudo-labels ----------------------------------------------------------------------


def test_synthetic_masks_are_damaged_regions_of_every_target(patient: LabelledVolume) -> None:
    truth = {"liver": patient.labels.labels > 0, "tumour": patient.labels.labels == 2}
    damaged = 0
    for seed in range(6):
        masks = synthetic_masks(patient, LIVER_TARGETS, np.random.default_rng(seed))
        assert set(masks) == {"liver", "tumour"}
        damaged += sum(not np.array_equal(masks[name], truth[name]) for name in truth)
    assert damaged >= 8


def test_tumours_are_invented_in_the_liver_alone(patient: LabelledVolume) -> None:
    """Boundaries move by 5 mm at most, so what lies farther out would be an invention."""
    liver = patient.labels.labels > 0
    k, j, i = np.nonzero(liver)
    for seed in range(30):
        masks = synthetic_masks(patient, LIVER_TARGETS, np.random.default_rng(seed))
        for point in np.argwhere(masks["tumour"] & ~liver):
            in_slice = k == point[0]
            distance = np.hypot(j[in_slice] - point[1], i[in_slice] - point[2])
            assert distance.size
            assert distance.min() * 2.0 <= 10.1


def test_soft_masks_are_probabilities_that_are_never_quite_sure() -> None:
    mask = squares((10, 10), edge=8)
    soft = soften({"tumour": mask})["tumour"]
    assert soft.dtype == np.float32
    assert (soft.min(), soft.max()) == (pytest.approx(0.02), pytest.approx(0.98))
    np.testing.assert_array_equal((soft > 0.5)[1, 11:17, 11:17], mask[1, 11:17, 11:17])
    assert soft[[0, 2]].max() == pytest.approx(0.02)
    assert soft[1, 10, 14] == pytest.approx(0.7, abs=0.05)  # a pixel at the boundary


def test_pseudo_labels_of_a_case_repeat_and_differ_between_cases(
    patient: LabelledVolume,
) -> None:
    config = tiny_config()
    first, again = (pseudo_labels_of(patient, LIVER_TARGETS, config) for _ in range(2))
    assert len(first) == config.adaptation.versions == 2
    other_case = LabelledVolume("case_with_the_same_end_c0", patient.volume, patient.labels)
    other_seed = pseudo_labels_of(patient, LIVER_TARGETS, tiny_config(seed=1))
    for name in ("liver", "tumour"):
        assert all(np.array_equal(a[name], b[name]) for a, b in zip(first, again, strict=True))

    def same(other: list[dict[str, Any]]) -> bool:
        return all(np.array_equal(a["liver"], b["liver"]) for a, b in zip(first, other))  # noqa: B905

    assert not same(pseudo_labels_of(other_case, LIVER_TARGETS, config))
    assert not same(other_seed)


def test_a_training_case_has_prompts_of_the_truth_and_of_corrupted_labels(
    patient: LabelledVolume,
) -> None:
    settings = SamConfig(versions=2, prompts=PromptConfig(jitter_share=0.0))
    training_case = sam_training_case(patient, LIVER_TARGETS, settings, seed=0)
    assert set(training_case.samples) == {"liver", "tumour"}
    truth = patient.labels.labels > 0
    slices = np.flatnonzero(truth.any((1, 2)))
    of_truth = training_case.samples["liver"][: len(slices)]
    for sample, k in zip(of_truth, slices, strict=True):
        np.testing.assert_array_equal(sample.truth, truth[k])
    assert len(training_case.samples["liver"]) > len(slices)
    tumour = training_case.samples["tumour"]
    assert any(not sample.truth.any() for sample in tumour)  # something was invented
    assert any(sample.truth.any() for sample in tumour)


# --- Prompts in use -------------------------------------------------------------------------------


def probability_where(mask: Mask, probability: float) -> np.ndarray:
    return np.where(mask, probability, 0.0).astype(np.float32)


def test_a_parent_roi_is_proposed_as_its_one_body_and_contents_from_a_low_threshold() -> None:
    liver = squares((5, 5), edge=15)
    speck = squares((25, 25))
    doubtful, too_doubtful = squares((8, 8)), squares((14, 14))
    probabilities = {
        "liver": probability_where(liver | speck, 0.9),
        "tumour": probability_where(doubtful, 0.3) + probability_where(too_doubtful, 0.2),
    }
    prompts = propose_prompts(probabilities, LIVER_TARGETS, EXACT)
    boxes = {(p.target, p.box.xyxy) for p in prompts if p.box}
    assert boxes == {("liver", (5, 5, 20, 20)), ("tumour", (8, 8, 13, 13))}
    assert len(prompts) == 2


def test_a_doubtful_parent_roi_is_not_proposed() -> None:
    probabilities = {
        "liver": probability_where(squares((5, 5)), 0.5),
        "tumour": np.zeros(SHAPE, np.float32),
    }
    assert propose_prompts(probabilities, LIVER_TARGETS, EXACT) == []


def test_proposals_repeat() -> None:
    probabilities = {
        "liver": probability_where(squares((5, 5)), 0.9),
        "tumour": np.zeros(SHAPE, np.float32),
    }
    first, again = (propose_prompts(probabilities, LIVER_TARGETS, SamConfig()) for _ in range(2))
    assert [p.to_json() for p in first] == [p.to_json() for p in again]


class Yes:
    """A SAM that predicts the box of each prompt, and remembers its prompts."""

    def __init__(self) -> None:
        self.settings = EXACT
        self.prompts: list[SlicePrompts] = []

    def propose_prompts(
        self, _: Volume, probabilities: dict[str, Any], targets: tuple[Target, ...]
    ) -> list[SlicePrompts]:
        return propose_prompts(probabilities, targets, self.settings)

    def predict(self, volume: Volume, prompts: list[SlicePrompts], _: object) -> dict[str, Any]:
        self.prompts = prompts
        found = {p.target: np.zeros(volume.geometry.shape, np.float32) for p in prompts}
        for prompt in prompts:
            assert prompt.box is not None
            left, top, right, bottom = map(round, prompt.box.xyxy)
            found[prompt.target][prompt.slice_index, top:bottom, left:right] = 0.9
        return found


def test_a_target_without_prompts_is_predicted_as_empty() -> None:
    volume = Volume(np.zeros(SHAPE, np.float32), Geometry.axis_aligned(SHAPE))
    probabilities = {
        "liver": probability_where(squares((5, 5)), 0.9),
        "tumour": np.zeros(SHAPE, np.float32),
    }
    double: Any = Yes()
    found = sam_probabilities_of(double, volume, probabilities, LIVER_TARGETS, Monitor())
    np.testing.assert_array_equal(found["liver"] > 0.5, squares((5, 5)))
    assert found["tumour"].shape == SHAPE
    assert not found["tumour"].any()


# --- Samples --------------------------------------------------------------------------------------


def test_samples_hold_roi_truth_and_predictions_on_one_grid(patient: LabelledVolume) -> None:
    config = tiny_config()
    probabilities = pseudo_labels_of(patient, LIVER_TARGETS, config)[0]
    sam = {name: 1 - probability for name, probability in probabilities.items()}
    samples = training_samples_of(patient, LIVER_TARGETS, config, probabilities, sam)
    assert set(samples) == {"liver", "tumour"}
    for sample in samples.values():
        shape = sample.roi.image.shape
        assert sample.predictions.specialist.shape == sample.predictions.sam.shape == shape
        assert sample.roi.labels is not None
        assert sample.roi.labels.shape == shape
        np.testing.assert_allclose(
            sample.predictions.specialist + sample.predictions.sam, 1, atol=1e-5
        )
        assert sample.number == 1
    # The tumour is looked at in a box around the true liver, at 2 mm as the patient's own pixels.
    box = samples["tumour"].roi.box
    np.testing.assert_array_equal(
        samples["tumour"].roi.labels, patient.labels.labels[box.slices] == 2
    )
    np.testing.assert_array_equal(samples["liver"].roi.labels, patient.labels.labels > 0)


def test_a_case_without_a_parent_roi_gives_no_sample_of_contents() -> None:
    volume, _ = a_patient(0)
    healthy = LabelledVolume("c1", volume, Labelmap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY))
    probabilities = {name: np.zeros(GEOMETRY.shape, np.float32) for name in ("liver", "tumour")}
    assert set(
        training_samples_of(healthy, LIVER_TARGETS, tiny_config(), probabilities, probabilities)
    ) == {"liver"}


# --- SAM itself -----------------------------------------------------------------------------------


def test_the_loss_of_four_pixels_is_that_of_the_formula() -> None:
    """p = 1/2: Dice 1 - (2 * 1 + 1) / (1 + 2 + 1); ln 2, over 2 * 4 + 400 pixels of 4."""
    target = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    expected = 0.8 * 0.25 + 0.2 * math.log(2) * 4 / 408
    assert float(mask_loss(torch.zeros(1, 2, 2), target)) == pytest.approx(expected)


def test_an_empty_mask_has_the_least_loss_for_an_empty_target_mask() -> None:
    empty = torch.zeros(1, 8, 8)
    is_empty, full = torch.full((1, 8, 8), -20.0), torch.full((1, 8, 8), 20.0)
    assert float(mask_loss(is_empty, empty)) == pytest.approx(0.0, abs=1e-6)
    assert float(mask_loss(full, empty)) > 0.7


def a_predictor(cache: Path, tuning: str = "decoder") -> VolumeSamPredictor:
    settings = SamConfig.model_validate(
        {"input_size": 256, "tuning": tuning, "batch_size": 4, "window_hu": (-100, 200)}
    )
    sam = a_small_sam("tiny", 256)
    tune(sam, settings.tuning, rank=2)
    return VolumeSamPredictor(sam, settings, cache)


def a_prompt_sample(k: int = 6, target: str = "liver") -> PromptSample:
    mask = np.zeros(GEOMETRY.shape[1:], bool)
    mask[10:30, 10:30] = True
    return PromptSample(SlicePrompts(k, target, box=BoxPrompt((10, 10, 30, 30))), mask)


def test_sam_predicts_where_it_was_prompted_and_nowhere_else(tmp_path: Path) -> None:
    volume, _ = a_patient(0)
    sam_predictor = a_predictor(tmp_path)
    prompts = [
        a_prompt_sample(5).prompt,
        a_prompt_sample(7).prompt,
        a_prompt_sample(7, "tumour").prompt,
    ]
    found = sam_predictor.predict(volume, prompts)
    assert set(found) == {"liver", "tumour"}
    assert np.flatnonzero(found["liver"].any((1, 2))).tolist() == [5, 7]
    assert np.flatnonzero(found["tumour"].any((1, 2))).tolist() == [7]
    assert found["liver"].dtype == np.float32
    assert 0.0 <= found["liver"].min() <= found["liver"].max() <= 1.0
    assert sam_predictor.predict(volume, []) == {}


def test_of_several_prompts_for_a_target_the_most_probable_mask_counts(tmp_path: Path) -> None:
    volume, _ = a_patient(0)
    sam_predictor = a_predictor(tmp_path)
    first = a_prompt_sample().prompt
    second = SlicePrompts(6, "liver", 1, BoxPrompt((2, 2, 12, 20)))
    together = sam_predictor.predict(volume, [first, second])["liver"]
    alone = [sam_predictor.predict(volume, [prompt])["liver"] for prompt in (first, second)]
    np.testing.assert_allclose(together, np.maximum(*alone), atol=1e-5)


@pytest.mark.parametrize("tuning", ["decoder", "lora", "adapter"])
def test_the_loss_moves_every_part_of_sam_that_is_tuned(tmp_path: Path, tuning: str) -> None:
    sam_predictor = a_predictor(tmp_path, tuning)
    volume, _ = a_patient(0)
    training_case = with_embeddings(
        sam_predictor, SamTrainingCase(volume, {"liver": [a_prompt_sample()], "tumour": []})
    )
    assert set(training_case.embeddings) == ({None} if tuning == "decoder" else set())
    sam_predictor.sam.train()
    tuning_loss(sam_predictor, training_case, np.random.default_rng(0)).backward()
    tuned = trainable_state(sam_predictor.sam)
    moved = [
        name
        for name, parameter in sam_predictor.sam.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    ]
    assert set(moved) <= set(tuned)
    assert any(name.startswith("mask_decoder") for name in moved)
    assert any("image_encoder" in name for name in moved) == (tuning != "decoder")


def test_targets_are_sampled_equally_often(tmp_path: Path) -> None:
    """One tumour sample beside ten of the liver is drawn in every other place."""
    sam_predictor = a_predictor(tmp_path)
    volume, _ = a_patient(0)
    seen: list[str] = []
    samples = {"liver": [a_prompt_sample()] * 10, "tumour": [a_prompt_sample(6, "tumour")]}
    training_case = with_embeddings(sam_predictor, SamTrainingCase(volume, samples))

    class Spy(np.random.Generator):
        def integers(self, count: Any, *_: Any, **__: Any) -> Any:
            seen.append("liver" if count == 10 else "tumour")
            return 0

    tuning_loss(sam_predictor, training_case, Spy(np.random.PCG64(0)))
    assert seen == ["liver", "tumour", "liver", "tumour"]


def test_embeddings_are_those_of_the_volume_and_of_the_window(tmp_path: Path) -> None:
    volume, _ = a_patient(0)
    other, _ = a_patient(1)
    assert volume_digest(volume) != volume_digest(other)
    assert volume_digest(volume) == volume_digest(Volume(volume.voxels.copy(), GEOMETRY))
    sam_predictor = a_predictor(tmp_path)
    calls = []

    def encode(_: Any, inputs: tuple[torch.Tensor]) -> None:
        calls.append(len(inputs[0]))

    encoder: Any = sam_predictor.sam
    encoder.image_encoder.register_forward_pre_hook(encode)
    for chosen in (volume, volume, other):
        sam_predictor.embeddings(chosen, [5, 6])
    assert sum(calls) == 4
    wider = VolumeSamPredictor(
        sam_predictor.sam,
        sam_predictor.settings.model_copy(update={"window_hu": (-200, 300)}),
        tmp_path,
    )
    wider.embeddings(volume, [5, 6])
    assert sum(calls) == 6


def test_a_labelmap_of_the_truth_asks_about_nothing_else(patient: LabelledVolume) -> None:
    empty = LabelledVolume(
        "c1", patient.volume, Labelmap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY)
    )
    training_case = sam_training_case(empty, LIVER_TARGETS, SamConfig(versions=3), seed=0)
    assert training_case.samples["tumour"] == []  # no liver, so nowhere to invent a tumour


# --- Who predicts what ----------------------------------------------------------------------------


def a_context(folder: Path) -> RunContext:
    """Return what a run of a tiny project begins with."""
    return a_run_context(a_tiny_project(folder), tiny_config())


def test_what_a_case_is_asked_without_its_label_is_answered_without_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of SAM chosen on its own training cases would be too high."""
    torch.manual_seed(0)
    context = a_context(tmp_path)
    stages = cascade_stages(context.targets)
    networks = {s.name: build_network(s, scheduled(context.config, s)).eval() for s in stages}
    specialist = Specialist(networks, context.targets, context.config, context.device)
    trained = TrainedCascade(specialist, (specialist,))
    models = {
        case.id: OutOfFoldModel(trained, frozenset({case.id}), tmp_path)
        for case in context.labelled
    }
    tuned, asked = a_small_sam(), []
    without = {case_id: a_small_sam() for case_id in models}

    def sam_without(_: RunContext, model: OutOfFoldModel, *__: object) -> VolumeSamPredictor:
        (case_id,) = model.fold
        return without[case_id]

    def answer(sam: VolumeSamPredictor, volume: Volume, specialist: Any, *_: object) -> Any:
        asked.append(sam)
        return specialist

    monkeypatch.setattr(adaptation, "cross_fitted_sam", sam_without)
    for module in (adaptation, held_out):
        monkeypatch.setattr(module, "sam_probabilities_of", answer)
    train_refiner(context, trained, tuned, tmp_path, models)
    before = asked.index(without["c0"])
    assert before > 1
    of_training = [sam for case in models for sam in [*[tuned] * before, without[case]]]
    assert asked == [*of_training, tuned]  # which one validation case is asked with


def test_sam_is_cross_fitted_once_for_the_cases_of_a_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = a_context(tmp_path)
    nothing = TrainedCascade(Specialist({}, (), context.config, context.device), ())
    monkeypatch.setattr(adaptation, "predict_held_out", lambda *_: [])
    both = frozenset(case.id for case in context.labelled)
    fitted, asked = [], []

    def sam_without(_: RunContext, model: OutOfFoldModel, *__: object) -> VolumeSamPredictor:
        fitted.append(model.fold)
        return a_small_sam()

    monkeypatch.setattr(adaptation, "cross_fitted_sam", sam_without)
    monkeypatch.setattr(adaptation, "pseudo_labels_of", lambda *_: [])
    monkeypatch.setattr(adaptation, "_add_samples", lambda *_: None)
    monkeypatch.setattr(adaptation, "predict_sam_held_out", lambda *given: asked.append(given[-1]))
    models = dict.fromkeys(both, OutOfFoldModel(nothing, both, tmp_path))
    adaptation._training_samples(context, nothing, a_small_sam(), models, tmp_path)
    assert fitted == [both]
    assert len(asked) == len(both) > 1
    assert len({id(sam) for sam in asked}) == 1


def test_samples_that_an_ended_process_left_go_though_all_networks_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = a_context(tmp_path)
    nothing = TrainedCascade(Specialist({}, (), context.config, context.device), ())
    for target in context.targets:
        adaptation_path(tmp_path, target).touch()
    left = tmp_path / "samples" / "c0-liver-1" / "image.npy"
    left.parent.mkdir(parents=True)
    left.touch()
    monkeypatch.setattr(adaptation, "load_refiner", lambda *_: None)
    train_refiner(context, nothing, None, tmp_path)
    assert not left.parent.parent.exists()
