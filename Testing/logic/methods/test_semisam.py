"""SemiSAM: what SAM adds to a teacher's training, and that no defect of the release is here."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aslseg.config import (
    PromptConfig,
    RunConfig,
    SamConfig,
    SamCropConfig,
    SemiSamConfig,
    SpecialistConfig,
)
from aslseg.context import RunContext
from aslseg.data.images import read_labelmap, read_volume, write_labelmap, write_volume
from aslseg.data.volume import Labelmap, Volume
from aslseg.errors import ConfigError
from aslseg.events import Event, Monitor, Notice
from aslseg.inference.loading import required_sam_predictor, segment_volume
from aslseg.methods import semisam
from aslseg.methods.semisam import PseudoTarget, SamConsistency, click_consistency
from aslseg.networks.unet import build_network
from aslseg.preprocessing.augmentation import PatchTransform
from aslseg.preprocessing.patches import BatchSource, TrainingCase, pixels_under, slices_under
from aslseg.preprocessing.roi import build_roi
from aslseg.presets import PUBLISHED_METHODS
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project, select_cases
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from aslseg.prompts import SlicePrompts
from aslseg.runs import start_run
from aslseg.sam import patch_prompts, predictor
from aslseg.sam.clicks import ClickSequence, ClickTask
from aslseg.sam.decoder import Decoded
from aslseg.sam.embeddings import SliceFrame
from aslseg.targets import Target, cascade_stages
from aslseg.training.cascade import default_ssl_method
from aslseg.training.rounds import Round
from aslseg.training.sam_gate import gate_scores
from aslseg.training.ssl.mean_teacher import MeanTeacher
from aslseg.training.trainer import step_generator
from support.run_contexts import a_run_context
from support.tiny_project import (
    GEOMETRY,
    NETWORK,
    SPECIALIST,
    UNLABELLED,
    a_patient,
    a_tiny_project,
    tiny_config,
)
from support.whole_runs import (
    at_step,
    results,
    rows_of,
    run_with_noise_as_hidden_labels,
    stopped_and_resumed,
    use_small_sam,
)

SAM = SamConfig(model="vit_t", input_size=256)
STAGE = SPECIALIST.model_copy(update={"consistency_weight": 1.0, "iterations": 6, "batch_size": 2})
IN_3D = STAGE.model_copy(
    update={"network": NETWORK.model_copy(update={"dimensions": 3}), "patch_size": 16}
)
ATRIUM = (Target(name="atrium", value=1),)


def clicked(**changes: object) -> SemiSamConfig:
    """Return settings with the prompts of the release."""
    return SemiSamConfig(**{**PUBLISHED_METHODS["semisam"], **changes})


def semisam_config(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "method": "semisam",
        "rounds": 1,
        "sam": SAM,
        "organ": STAGE,
        "lesion": STAGE,
        "semisam": clicked(clicks=2, planes=2),
    }
    return tiny_config(**{**values, **changes})


# --- The term of a step ---------------------------------------------------------------------------


def a_context(tmp_path: Path, config: RunConfig) -> RunContext:
    return a_run_context(a_tiny_project(tmp_path), config)


def a_loss(
    context: RunContext, settings: SpecialistConfig, kind: type[SamConsistency] = SamConsistency
) -> SamConsistency:
    """Return a loss of the first stage in which SAM is prompted for classes 1 and 2."""
    stage = cascade_stages(context.targets)[0]
    sam = required_sam_predictor(context, tuning="none")
    return kind(context, sam, settings, stage, frozenset({1, 2}))


def a_sam_loss(
    tmp_path: Path, settings: SpecialistConfig = STAGE, **changes: object
) -> tuple[SamConsistency, BatchSource]:
    """Return a auxiliary that has met the unlabelled cases, and the source of their patches."""
    context = a_context(tmp_path, semisam_config(organ=settings, **changes))
    auxiliary = a_loss(context, settings)
    stage = cascade_stages(context.targets)[0]
    cases = [
        TrainingCase(build_roi(context.image(case), stage, settings), case_id=case.id)
        for case in context.unlabelled
    ]
    auxiliary.setup(cases)
    return auxiliary, BatchSource(cases, settings, 0, 1)


def a_student(batch_size: int, spatial: tuple[int, ...], classes: int = 2) -> Tensor:
    """Return probabilities of a blob in the middle of each patch, with a gradient."""
    at = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in spatial], indexing="ij")
    inside = sum(axis.square() for axis in at) < 0.3
    logits = torch.where(inside, 1.0, -1.0).expand(batch_size, 1, *spatial)
    others = [logits - 3.0] * (classes - 2)
    both = torch.cat([torch.zeros_like(logits), logits, *others], 1)
    return both.clone().requires_grad_()


both_dimensions = pytest.mark.parametrize("settings", [STAGE, IN_3D], ids=["2d", "3d"])
by_confidence = pytest.mark.parametrize("confidence", [False, True])


@both_dimensions
@by_confidence
def test_the_term_has_a_gradient(
    tmp_path: Path, settings: SpecialistConfig, confidence: bool
) -> None:
    """The released term was divided by its own sum: always 1, gradient 0."""
    auxiliary, source = a_sam_loss(
        tmp_path, settings, semisam=clicked(clicks=3, planes=2, confidence=confidence)
    )
    batch = source.batch(0)
    logits = a_student(len(batch.classes), batch.classes.shape[1:])
    term = auxiliary.loss(logits.softmax(1), batch, 0, step_generator(0, 0))
    (gradient,) = torch.autograd.grad(term, [logits])
    assert float(gradient.abs().sum()) > 1e-4
    pseudo_target = auxiliary.pseudo_target(
        logits.softmax(1).detach(), batch.locations, step_generator(0, 0)
    )
    assert float(gradient[(pseudo_target.weight == 0).expand_as(gradient)].abs().sum()) == 0.0


def test_the_term_is_the_weighted_squared_difference_to_sams_masks(tmp_path: Path) -> None:
    auxiliary, source = a_sam_loss(tmp_path)
    batch = source.batch(0)
    probability = a_student(2, (32, 32)).softmax(1)
    weight = torch.rand(2, 1, 32, 32)
    masks = torch.zeros_like(probability)
    masks[:, 0] = 1.0
    pseudo = PseudoTarget(masks, weight)

    class Fixed(SamConsistency):
        def pseudo_target(self, *_: object) -> PseudoTarget:  # type: ignore[override]
            return pseudo

    fixed = a_loss(auxiliary.context, auxiliary.settings, Fixed)
    term = fixed.loss(probability, batch, 0, step_generator(0, 0))
    squared = (2 * probability[:, 1].square() * weight[:, 0]).sum()
    expected = 0.5 * squared / (2 * weight.sum())
    assert float(term.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize(
    ("step", "teacher", "sam"),
    [
        (0, 0.00067, 0.05),
        (1500, 0.0060, 0.0366),
        (3000, 0.0287, 0.0143),
        (4500, 0.0732, 0.0030),
        (6000, 0.1, 0.00034),
    ],
)
def test_the_teachers_weight_rises_and_sams_falls_as_published(
    tmp_path: Path, step: int, teacher: float, sam: float
) -> None:
    settings = STAGE.model_copy(
        update={"iterations": 6000, "consistency_weight": 0.1, "rampup_share": 1.0}
    )
    context = a_context(tmp_path, semisam_config(organ=settings))
    auxiliary = a_loss(context, settings)
    stage = cascade_stages(context.targets)[0]
    paradigm = MeanTeacher(lambda: build_network(stage, settings), settings)
    assert paradigm.consistency_weight(step) == pytest.approx(teacher, rel=0.01)
    assert auxiliary.weight(step) == pytest.approx(sam, rel=0.02)


def test_consistent_masks_count_in_full_and_inconsistent_ones_do_not() -> None:
    sure, absent = torch.tensor(40.0), torch.tensor(-40.0)
    masks = [torch.stack([sure, sure, torch.tensor(0.0)]), torch.stack([sure, absent, sure])]
    # Probabilities: (1, 1), (1, 0) and (1/2, 1), with variances 0, 1/4 and 1/16.
    assert click_consistency(masks).tolist() == pytest.approx([1.0, 0.0, 0.75])
    assert click_consistency(masks[:1]).tolist() == [1.0, 1.0, 1.0]


# --- What SAM is query ----------------------------------------------------------------------------


def queries_of(
    auxiliary: SamConsistency, source: BatchSource, logits: Tensor
) -> list[semisam._Query]:
    planes = logits if logits.ndim == 5 else logits[:, :, None]
    foreground = planes.argmax(1).numpy()
    return auxiliary._queries(foreground, source.batch(0).locations, np.random.default_rng(0))


@both_dimensions
def test_sam_is_prompted_for_the_students_foreground_where_it_lies(
    tmp_path: Path, settings: SpecialistConfig
) -> None:
    auxiliary, source = a_sam_loss(tmp_path, settings)
    batch = source.batch(0)
    logits = a_student(len(batch.classes), batch.classes.shape[1:]).detach()
    queries = queries_of(auxiliary, source, logits)
    assert queries
    foreground = (logits.argmax(1) == 1).numpy()
    for query in queries:
        shown = (
            foreground[query.patch] if settings is STAGE else foreground[query.patch][query.plane]
        )
        np.testing.assert_array_equal(query.task.wanted, shown)
        assert not shown.all()  # the release query for everything
        location, known = (
            batch.locations[query.patch],
            auxiliary._cases[batch.locations[query.patch].case],
        )
        slices = slices_under(location, known.case.roi, settings.patch_size)
        torch.testing.assert_close(
            query.task.points, pixels_under(location, known.case.roi, settings.patch_size)
        )
        k = slices[query.plane]
        assert k is not None
        assert torch.equal(query.task.embedding, known.embeddings.stack([k])[0])


def test_of_a_block_sam_is_prompted_on_a_few_planes(tmp_path: Path) -> None:
    auxiliary, source = a_sam_loss(tmp_path, IN_3D, semisam=clicked(clicks=1, planes=3))
    logits = a_student(2, (16, 16, 16)).detach()
    planes = [(q.patch, q.plane) for q in queries_of(auxiliary, source, logits)]
    assert len(planes) == len(set(planes))
    assert 0 < max(sum(patch == n for patch, _ in planes) for n in (0, 1)) <= 3


def test_each_class_is_prompted_by_itself(tmp_path: Path) -> None:
    auxiliary, source = a_sam_loss(tmp_path)
    logits = a_student(2, (32, 32), classes=3).detach()
    logits[:, 2, 4:9, 4:9] = 9.0
    queries = queries_of(auxiliary, source, logits)
    assert [(q.patch, q.number) for q in queries] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert queries[1].task.wanted.sum() == 25


def test_where_the_student_finds_nothing_sam_is_not_prompted_and_the_term_is_zero(
    tmp_path: Path,
) -> None:
    auxiliary, source = a_sam_loss(tmp_path)
    batch = source.batch(0)
    logits = torch.zeros(2, 2, 32, 32)
    logits[:, 0] = 1.0
    logits.requires_grad_()
    pseudo_target = auxiliary.pseudo_target(
        logits.softmax(1).detach(), batch.locations, step_generator(0, 0)
    )
    assert not pseudo_target.weight.any()
    assert auxiliary.loss(logits.softmax(1), batch, 0, step_generator(0, 0)).item() == 0.0


def test_what_lies_beside_the_slice_does_not_count(tmp_path: Path) -> None:
    auxiliary, source = a_sam_loss(tmp_path, semisam=clicked(clicks=1, confidence=False))
    batch = source.batch(0)
    far = replace(batch.locations[0], transform=PatchTransform((0.0, 0.0)))
    probability = torch.zeros(1, 2, 32, 32)
    probability[:, 1] = 1.0
    pseudo_target = auxiliary.pseudo_target(probability, [far], step_generator(0, 0))
    assert pseudo_target.weight[0, 0, 20:, 20:].min() == 1.0
    assert pseudo_target.weight[0, 0, :14].max() == pseudo_target.weight[0, 0, :, :14].max() == 0.0


def test_sams_masks_are_put_where_they_were_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auxiliary, source = a_sam_loss(tmp_path, IN_3D, semisam=clicked(clicks=1, planes=2))
    batch = source.batch(0)
    logits = a_student(2, (16, 16, 16)).detach()
    sequences: list[ClickSequence] = []

    def obedient(_: object, tasks: list[ClickTask], *__: object) -> list[ClickSequence]:
        for task in tasks:
            sequence = ClickSequence(task)
            sequence.logits.append(torch.from_numpy(np.where(task.wanted, 3.0, -3.0)))
            sequences.append(sequence)
        return sequences

    monkeypatch.setattr(semisam, "simulate_clicks", obedient)
    pseudo_target = auxiliary.pseudo_target(
        logits.softmax(1), batch.locations, step_generator(0, 0)
    )
    prompted = (pseudo_target.weight > 0).flatten(3).any(-1)[:, 0]
    assert 0 < int(prompted.sum()) == len(sequences) <= 4
    student = torch.nn.functional.one_hot(logits.argmax(1), 2).movedim(-1, 1).float()
    here = prompted[:, None, :, None, None].expand_as(student)
    assert torch.equal(pseudo_target.masks[here], student[here])
    assert torch.equal(pseudo_target.masks.sum(1), torch.ones(2, 16, 16, 16))


def test_all_unlabelled_cases_are_met_and_none_of_their_labels_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunContext, "labels", None)  # whoever opens a label map now fails
    auxiliary, source = a_sam_loss(tmp_path)
    assert [known.case.case_id for known in auxiliary._cases] == list(UNLABELLED)
    assert {p.case for step in range(20) for p in source.batch(step).locations} == {0, 1, 2}


# --- Box and mask ---------------------------------------------------------------------------------


BOX_MASK = SemiSamConfig(gate=False, planes=2)
both_stages = pytest.mark.parametrize("stage_name", ["liver", "tumour"])


def a_box_mask_loss(tmp_path: Path, stage_name: str) -> tuple[SamConsistency, BatchSource]:
    """Return a loss that prompts with box and mask, of whole slices or of the parent's crop."""
    config = semisam_config(semisam=BOX_MASK)
    crop = SamCropConfig(region="parent", margin_mm=4.0)
    config = config.model_copy(update={"sam": SAM.model_copy(update={"crop": crop})})
    context = a_context(tmp_path, config)
    stages = {stage.name: stage for stage in cascade_stages(context.targets)}
    stage = stages[stage_name]
    sam = required_sam_predictor(context, tuning="none")
    auxiliary = SamConsistency(context, sam, STAGE, stage, frozenset({1}))
    cases = []
    for case in context.unlabelled:
        parent = a_patient(int(case.id[1:]))[1].labels > 0 if stage.inside else None
        roi = build_roi(context.image(case), stage, STAGE, parent=parent)
        cases.append(TrainingCase(roi, case_id=case.id))
    auxiliary.setup(cases)
    return auxiliary, BatchSource(cases, STAGE, 0, 1)


def obedient_decode(
    _: object, embedding: Tensor, prompts: list[SlicePrompts], frame: SliceFrame
) -> Decoded:
    """Answer each prompt with the very mask that it has, 8 inside and -8 outside."""
    assert all(prompt.box is not None and not prompt.points for prompt in prompts)
    masks = torch.from_numpy(np.stack([np.asarray(p.mask_logits) for p in prompts]))
    assert masks.shape[1:] == (frame.height, frame.width)
    return Decoded(masks.sign() * 8, masks)


@both_stages
def test_a_mask_goes_to_the_slice_and_its_answer_back_to_the_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage_name: str
) -> None:
    auxiliary, source = a_box_mask_loss(tmp_path, stage_name)
    monkeypatch.setattr(patch_prompts, "decode", obedient_decode)
    known = auxiliary._cases[0]
    assert (known.crop is not None) == (stage_name == "tumour")
    logits = a_student(2, (32, 32)).detach()
    for number in range(3):
        batch = source.batch(number)
        found = auxiliary.pseudo_target(logits.softmax(1), batch.locations, step_generator(0, 0))
        wanted = logits.argmax(1) == 1
        here = found.weight[:, 0] > 0  # within the slice, or the crop
        assert (found.weight[:, 0] > 0.9).float().mean() > 0.2
        answered, wanted = (found.masks[:, 1] > 0) & here, wanted & here
        assert float((answered & wanted).sum()) > 0.9 * float(wanted.sum()) > 0
        assert float((answered & ~wanted).sum()) < 0.15 * float(wanted.sum())


def test_of_two_components_each_has_a_prompt_and_too_small_ones_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counting(*arguments: object) -> Decoded:
        seen.append(len(arguments[2]))  # type: ignore[arg-type]
        return obedient_decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(patch_prompts, "decode", counting)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    points = torch.stack([x, y], -1) + 0.5
    wanted = np.zeros((32, 32), bool)
    wanted[4:8, 4:8] = wanted[20:28, 20:28] = wanted[0, 31] = True
    task = ClickTask(torch.zeros(256, 4, 4), SliceFrame(32, 32, 64), points, wanted)
    logits = patch_prompts.prompted_logits(torch.nn.Identity(), task, PromptConfig(min_area_px=4))
    assert logits is not None
    assert seen == [2]
    assert (logits[5:7, 5:7] > 0).all()
    assert (logits[21:27, 21:27] > 0).all()
    assert not (logits[0, 31] > 0).any()
    speck = replace(task, wanted=np.eye(32, dtype=bool)[::-1] & (points.numpy()[..., 0] < 2))
    assert patch_prompts.prompted_logits(torch.nn.Identity(), speck, PromptConfig()) is None


def test_a_turned_mask_lies_on_the_slice_where_its_pixels_do() -> None:
    """Of a patch turned by 90 degrees and half as fine, row 1 and column 3 is at x = 9, y = 13."""
    rows, columns = np.indices((8, 8))
    points = torch.from_numpy(np.stack([11 - 2.0 * rows, 7 + 2.0 * columns], -1))
    mask = np.zeros((8, 8), bool)
    mask[1, 3] = True
    found = patch_prompts.mask_on_slice(mask, points, (30, 20))
    y, x = np.nonzero(found)
    assert sorted(zip(x.tolist(), y.tolist(), strict=True)) == [(8, 12), (8, 13), (9, 12), (9, 13)]


def test_what_sam_is_sure_of_counts_more() -> None:
    logits = torch.tensor([0.0, math.log(3), -math.log(3), 40.0])
    assert semisam.certainty([torch.zeros(4), logits]).tolist() == pytest.approx([0, 0.5, 0.5, 1])


# --- The gate -------------------------------------------------------------------------------------


class AFixedModel:
    """A specialist that finds given masks."""

    def __init__(self, masks: dict[str, np.ndarray]) -> None:
        self.masks = masks
        self.specialist = self

    def predict(self, *_: object) -> dict[str, np.ndarray]:
        return {name: mask.astype(np.float32) for name, mask in self.masks.items()}


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    """Return a run whose out-of-fold models find the liver well and the tumour badly.

    SAM predicts the left half of each liver, and the true tumour.
    """
    context = a_context(tmp_path, semisam_config(semisam=SemiSamConfig(planes=2)))
    models, truths = {}, {}
    for case in context.labelled:
        labels = context.labels(case).labels
        shifted = np.roll(labels == 2, 2, axis=2)
        models[case.id] = AFixedModel({"liver": labels > 0, "tumour": shifted})
        truths[hash(context.image(case).voxels.tobytes())] = labels

    def answering(self: object, volume: Volume, prompts: list[SlicePrompts], *_: object) -> object:
        labels = truths[hash(volume.voxels.tobytes())]
        left = np.arange(labels.shape[2]) < 20
        full = {"liver": ((labels > 0) & left), "tumour": labels == 2}
        return {p.target: full[p.target].astype(np.float32) for p in prompts}

    monkeypatch.setattr(semisam, "cross_fitted_models", lambda *_: models)
    monkeypatch.setattr(predictor.VolumeSamPredictor, "predict", answering)
    return context


def test_sam_is_prompted_for_what_it_masks_better_than_specialists_that_never_saw_the_case(
    judged: RunContext,
) -> None:
    sam = required_sam_predictor(judged, tuning="none")
    this = Round(1, judged.folder.round(1), judged.folder.round(1))
    assert semisam.prompted_targets(judged, this, sam) == {"tumour"}
    models = semisam.cross_fitted_models(judged, None)  # type: ignore[arg-type]
    scores = gate_scores(judged, sam, models)
    assert scores["liver"].specialist == 1.0 > scores["liver"].sam > 0.5
    assert scores["tumour"].sam == 1.0 > scores["tumour"].specialist > 0.0


def test_a_target_that_is_not_found_is_not_prompted_for_and_a_notice_says_so(
    judged: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semisam, "cross_fitted_models", lambda *_: {})
    events: list[Event] = []
    context = replace(judged, monitor=Monitor(events.append))
    sam = required_sam_predictor(context, tuning="none")
    this = Round(1, context.folder.round(1), context.folder.round(1))
    assert semisam.prompted_targets(context, this, sam) == frozenset()
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert "SAM is not prompted for liver, tumour" in notice.message
    assert "semisam.gate=false" in notice.message


def test_a_closed_gate_leaves_the_paradigm_as_it_is(
    judged: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, object] = {}

    def building(_: object, __: object, build: object) -> None:
        for stage in cascade_stages(judged.targets):
            seen[stage.name] = build("mean_teacher", stage, STAGE)  # type: ignore[operator]

    monkeypatch.setattr(semisam, "run_with", building)
    semisam.run_round(judged, Round(1, judged.folder.round(1), judged.folder.round(1)))
    assert seen["liver"].auxiliary_losses == ()  # type: ignore[attr-defined]
    (loss,) = seen["tumour"].auxiliary_losses  # type: ignore[attr-defined]
    assert loss.prompted == {1}


@pytest.mark.slow
def test_a_gated_run_trains_and_writes_what_the_gate_has_seen(tmp_path: Path) -> None:
    config = semisam_config(semisam=SemiSamConfig(planes=2), seed=1)  # whose specialists find some
    run = start_run(a_tiny_project(tmp_path), config)
    text = (run.path / "events.jsonl").read_text(encoding="utf-8")
    assert '"gate_liver"' in text
    assert '"gate_tumour"' in text
    assert {row["source"] for row in rows_of(run.round(1) / "metrics.csv")} == {
        "specialist", "refined"
    }  # fmt: skip


def test_a_gate_without_box_and_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="set prompts to box_mask, or gate to false"):
        SemiSamConfig(prompts="clicks")


# --- Beside a teacher -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mean_teacher", "uncertainty_aware"])
@both_dimensions
def test_the_term_comes_on_top_of_what_the_teacher_does(
    tmp_path: Path, name: str, settings: SpecialistConfig
) -> None:
    auxiliary, source = a_sam_loss(tmp_path, settings)
    stage = cascade_stages(auxiliary.context.targets)[0]
    volume, labels = a_patient(0)
    roi = build_roi(volume, stage, settings, labels=labels, targets=auxiliary.context.targets)
    labelled = BatchSource([TrainingCase(roi)], settings, 0, 0).batch(0)

    weights = default_ssl_method(name, stage, settings).state_dict().keys()  # type: ignore[arg-type]

    def terms(guided: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        paradigm = default_ssl_method(name, stage, settings)  # type: ignore[arg-type]
        paradigm.auxiliary_losses = (auxiliary,) if guided else ()
        assert paradigm.state_dict().keys() == weights  # none of SAM's
        found = paradigm.loss(labelled, source.batch(0), 3, step_generator(0, 3))
        parts = torch.stack(list(found.named().values()))
        torch.testing.assert_close(found.total, parts.sum())
        return found.named()

    alone, together = terms(False), terms(True)
    assert together.keys() - alone.keys() == {"sam"}
    for key, value in alone.items():
        assert torch.equal(value, together[key])


def test_the_term_is_about_unlabelled_patches_alone(tmp_path: Path) -> None:
    auxiliary, source = a_sam_loss(tmp_path)
    stage = cascade_stages(auxiliary.context.targets)[0]
    paradigm = default_ssl_method("mean_teacher", stage, STAGE)
    paradigm.auxiliary_losses = (auxiliary,)
    seen: list[int] = []

    class Counting(SamConsistency):
        def loss(self, probability: Tensor, *_: object) -> Tensor:  # type: ignore[override]
            seen.append(len(probability))
            return probability.sum() * 0

    paradigm.auxiliary_losses = (a_loss(auxiliary.context, STAGE, Counting),)
    labelled, unlabelled = source.batch(1), source.batch(0)
    labelled = replace(labelled, inputs=labelled.inputs[:1], classes=labelled.classes[:1])
    labelled = replace(labelled, weight=labelled.weight[:1])
    paradigm.loss(labelled, unlabelled, 0, step_generator(0, 0))
    assert seen == [2]
    paradigm.loss(labelled, None, 0, step_generator(0, 0))
    assert seen == [2]


# --- Whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_small_sam(monkeypatch)
        built = []
        original = predictor.build_sam

        def counting(*args: object, **words: object) -> torch.nn.Module:
            built.append(args)
            return original(*args, **words)  # type: ignore[arg-type]

        monkeypatch.setattr(predictor, "build_sam", counting)
        torch.set_num_threads(1)
        project = a_tiny_project(tmp_path_factory.mktemp("semisam"))
        run = start_run(project, semisam_config(rounds=2), run_id="a")
        assert len(built) == 2  # once a round, not at every step
        return run


def test_a_run_writes_what_every_method_writes(finished: RunFolder) -> None:
    rows = rows_of(finished.round(2) / "metrics.csv")
    assert [(r["source"], r["target"]) for r in rows] == [
        (source, target) for source in ("specialist", "refined") for target in ("liver", "tumour")
    ]
    reliability = rows_of(finished.round(1) / "reliability.csv")
    assert {row["case"] for row in reliability} == set(UNLABELLED)
    for row in reliability:  # one source: the checkpoints' agreement is all there is
        assert row["prediction_agreement"] == ""
        assert row["score"] == row["checkpoint_agreement"]
    assert not list(finished.path.rglob("sam*.safetensors"))
    assert '"name": "sam"' in (finished.path / "events.jsonl").read_text(encoding="utf-8")


def test_segmenting_needs_no_sam(finished: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(predictor, "build_sam", refuse)
    image = finished.path.parents[2] / "data" / "ct6.nii.gz"
    segmented = segment_volume(finished, read_volume(image))
    assert segmented.sam is None
    assert segmented.specialist_alone
    written = read_labelmap(finished.path / "labels" / "c6.nii.gz")
    np.testing.assert_array_equal(segmented.refined.labels, written.labels)


@pytest.mark.slow
def test_noise_in_place_of_the_hidden_labels_changes_nothing(
    finished: RunFolder, tmp_path: Path
) -> None:
    """The released script clicked on the labels of the whole batch, unlabelled cases included."""
    run = run_with_noise_as_hidden_labels(tmp_path, semisam_config(rounds=2))
    assert results(run) == results(finished)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_end(finished: RunFolder, tmp_path: Path) -> None:
    places = [at_step(stage, 0) for stage in ("specialist-liver", "specialist-tumour")]
    run = stopped_and_resumed(a_tiny_project(tmp_path), semisam_config(rounds=2), *places)
    assert results(run) == results(finished)


def an_atrium_project(folder: Path) -> Project:
    """Make a project of one target and one labelled case."""
    files = []
    for number in range(4):
        volume, labels = a_patient(number)
        image, truth = folder / f"mr{number}.nii.gz", folder / f"truth{number}.nii.gz"
        write_volume(volume, image)
        write_labelmap(Labelmap((labels.labels > 0).astype(np.uint8), GEOMETRY), truth)
        files.append(CaseFiles(f"c{number}", image, truth))
    chosen = select_cases(files, labelled=["c0"], validation=["c3"])
    return create_project(folder / "project", chosen, ATRIUM)


@pytest.mark.slow
@pytest.mark.parametrize("paradigm", ["mean_teacher", "uncertainty_aware"])
@both_dimensions
def test_a_single_target_with_one_labelled_case_is_trained_on(
    tmp_path: Path, paradigm: str, settings: SpecialistConfig
) -> None:
    config = semisam_config(paradigm=paradigm, organ=settings)
    run = start_run(an_atrium_project(tmp_path), config)
    assert {row["target"] for row in rows_of(run.round(1) / "metrics.csv")} == {"atrium"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sam": SamConfig(model="none")}, "semisam needs SAM; set sam.model"),
        ({"paradigm": "cross_pseudo"}, "addition to a teacher; set paradigm to mean_teacher"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_words(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        start_run(a_tiny_project(tmp_path), semisam_config().model_copy(update=changes))


def test_the_baselines_are_a_method_too(tmp_path: Path) -> None:
    config = semisam_config(method="specialist", paradigm="supervised", sam=SamConfig(model="none"))
    run = start_run(a_tiny_project(tmp_path), config)
    stages = [row["source"] for row in rows_of(run.round(1) / "metrics.csv")]
    assert stages == ["specialist", "specialist", "refined", "refined"]
