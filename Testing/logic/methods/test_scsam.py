"""SC-SAM: what U-Net and SAM learn from each other, and whole runs of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from aslseg.config import RunConfig, SamConfig, ScSamConfig, SpecialistConfig
from aslseg.context import RunContext
from aslseg.data.images import read_labelmap, read_volume
from aslseg.data.volume import Labelmap, Volume
from aslseg.errors import RunError
from aslseg.events import Event, Monitor, Notice, Progress
from aslseg.inference import loading
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.loading import load_ensemble, segment_volume
from aslseg.methods import scsam
from aslseg.methods.aslseg import training_plan_of
from aslseg.methods.scsam import CoTraining, mean_entropy
from aslseg.networks.unet import build_network
from aslseg.preprocessing.patches import Batch
from aslseg.presets import PUBLISHED_METHODS
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import (
    CO_TRAINING_COLUMNS,
    CoTrainingDice,
    is_co_trained,
    read_co_training,
    write_table,
)
from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts
from aslseg.run_names import CO_TRAINING
from aslseg.runs import start_run
from aslseg.sam.classwise import ClassPoints, ClasswiseSam
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training import co_training_gate
from aslseg.training.cascade import CascadeTrainingPlan
from aslseg.training.co_training_gate import ALONE, passes_gate
from aslseg.training.recorded_network import LEAST_STEPS, STEPS_BEFORE, NetworkRecorder
from aslseg.training.rounds import Round
from aslseg.training.run_plan import planned_steps
from aslseg.training.trainer import step_generator
from support.recorded_networks import RecordingDouble
from support.run_contexts import a_run_context
from support.sam_doubles import a_small_sam
from support.sam_methods import (
    MakeConfig,
    OwnSamChecks,
    dice_loss,
    even,
    gradient_norm,
    patches_of,
    rates_of,
)
from support.tiny_project import (
    LABELLED,
    NETWORK,
    SPECIALIST,
    TEST,
    UNLABELLED,
    a_tiny_project,
    tiny_config,
)
from support.whole_runs import (
    at_step,
    ensemble_with_small_sam,
    prediction_in,
    results,
    rows_of,
    stopped_and_resumed,
    use_small_sam,
    weights_in,
)

OF_LIVER, OF_TUMOUR = cascade_stages(LIVER_TARGETS)
OWN = ScSamConfig(input_size=128, planes=2, gate=False)
PUBLISHED = ScSamConfig(input_size=128, planes=2, **PUBLISHED_METHODS["scsam"])
STAGE = SPECIALIST.model_copy(
    update={
        "iterations": 4,
        "batch_size": 2,
        "patch_size": 40,
        # Untrained networks are to be confident of something.
        "background_confidence": 0.5,
        "target_confidence": 0.5,
    }
)
IN_3D = STAGE.model_copy(
    update={"network": NETWORK.model_copy(update={"dimensions": 3}), "patch_size": 16}
)
CPU = torch.device("cpu")


def scsam_config(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "method": "scsam",
        "rounds": 1,
        "organ": STAGE,
        "lesion": STAGE,
        "sam": SamConfig(model="vit_t"),
        "scsam": OWN,
    }
    return tiny_config(**{**values, **changes})


def a_context(folder: Path, config: RunConfig) -> RunContext:
    return a_run_context(a_tiny_project(folder), config, "a")


def a_co_training(
    settings: SpecialistConfig = STAGE, own: ScSamConfig = PUBLISHED, stage: object = OF_LIVER
) -> CoTraining:
    torch.manual_seed(0)
    sam = ClasswiseSam(a_small_sam(input_size=128), 2, learned_boxes=own.learned_boxes)
    return CoTraining(
        lambda: build_network(stage, settings),  # type: ignore[arg-type]
        settings,
        sam,
        own,
    )


def a_batch(settings: SpecialistConfig = STAGE, seed: int = 0, channels: int = 3) -> Batch:
    return patches_of(settings, seed, channels)


both_dimensions = pytest.mark.parametrize("settings", [STAGE, IN_3D], ids=["2d", "3d"])


def gradient_of(loss: Tensor, module: torch.nn.Module) -> float:
    return gradient_norm(loss, module.parameters())


# --- One step -------------------------------------------------------------------------------------


@both_dimensions
def test_each_learns_the_others_hard_map_and_nothing_flows_back(
    settings: SpecialistConfig,
) -> None:
    paradigm = a_co_training(settings)
    terms = paradigm.loss(a_batch(settings), a_batch(settings, 1), 1, step_generator(0, 0))
    assert gradient_of(terms.unlabelled, paradigm.student) > 1e-4
    assert gradient_of(terms.unlabelled, paradigm.sam_predictor) == 0.0
    assert gradient_of(terms.further["sam_loss"], paradigm.sam_predictor) > 1e-6
    assert gradient_of(terms.further["sam_loss"], paradigm.student) == 0.0
    assert gradient_of(terms.supervised, paradigm.student) > 0
    assert gradient_of(terms.supervised, paradigm.sam_predictor) > 0
    assert gradient_of(terms.further["entropy"], paradigm.sam_predictor) == 0.0
    assert gradient_of(terms.further["entropy"], paradigm.student) > 0


def test_the_unet_is_recorded_and_sam_is_not() -> None:
    losses = []
    for record in (False, True):
        paradigm, double = a_co_training(), RecordingDouble()
        recorder = NetworkRecorder("s", lambda: None, double)
        paradigm.recorder = recorder if record else None
        for step in range(STEPS_BEFORE + 2):
            recorder.begin_step(LEAST_STEPS, undivided=True)
            terms = paradigm.loss(a_batch(), a_batch(seed=1), step, step_generator(0, step))
            paradigm.zero_grad(set_to_none=True)
            terms.total.backward()
        losses.append(
            [float(terms.total.detach()), *(p.grad for p in paradigm.student.parameters())]
        )
        assert [passes.network for passes in double.made] == [paradigm.student] * record
        assert double.replays == [2] * record
    torch.testing.assert_close(losses[1], losses[0])


def test_only_sams_side_is_ramped() -> None:
    settings = STAGE.model_copy(update={"iterations": 40000})
    paradigm = a_co_training(settings)
    weights = [paradigm.sam_weight(step) for step in (0, 5000, 10000, 40000)]
    assert weights == pytest.approx([0.0067, math.exp(-1.25), 1.0, 1.0], abs=1e-4)
    first, later = (
        paradigm.loss(a_batch(), a_batch(seed=1), step, step_generator(0, 0)) for step in (0, 20000)
    )
    ratio = float(first.further["sam_loss"].detach() / later.further["sam_loss"].detach())
    assert ratio == pytest.approx(math.exp(-5), rel=1e-3)
    assert float(first.unlabelled.detach()) == pytest.approx(float(later.unlabelled.detach()))


def test_the_mutual_losses_are_those_of_labels_with_full_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """U-Net and SAM are put in by hand, so that every term has a known value."""
    paradigm = a_co_training()
    # The U-Net says class 1 with 3/4, SAM class 0 with 4/5, in every pixel of every patch.
    unet, sam = even(math.log(3), 4, 40), even(-math.log(4), 4, 40)
    monkeypatch.setattr(paradigm.student, "forward", lambda _: unet)
    monkeypatch.setattr(paradigm, "predict", lambda *_: sam)
    n = 2 * 40 * 40
    batch = replace(a_batch(), classes=torch.ones(2, 40, 40, dtype=torch.long))
    end = STAGE.iterations
    terms = paradigm.loss(batch, a_batch(seed=1), end, step_generator(0, 0))
    right = -math.log(3 / 4) + dice_loss(0.75, 1, n)
    wrong = -math.log(1 / 5) + dice_loss(0.2, 1, n)
    assert float(terms.supervised) == pytest.approx(right + wrong, rel=1e-4)
    # The U-Net is told SAM's class 0, SAM the U-Net's class 1.
    assert float(terms.unlabelled) == pytest.approx(math.log(4) + dice_loss(0.75, 0, n), rel=1e-4)
    assert float(terms.further["sam_loss"]) == pytest.approx(wrong, rel=1e-4)
    bits = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert float(terms.further["entropy"]) == pytest.approx(0.9 * bits, rel=1e-4)


def test_each_is_told_only_what_the_other_is_confident_of(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = STAGE.model_copy(
        update={"background_confidence": 0.9, "target_confidence": 0.7, "rampup_share": 0.0}
    )
    paradigm = a_co_training(settings, PUBLISHED.model_copy(update={"confident": True}))
    # The U-Net says class 1 with 3/4, SAM class 0 with 4/5.
    unet, sam = even(math.log(3), 4, 40), even(-math.log(4), 4, 40)
    monkeypatch.setattr(paradigm.student, "forward", lambda _: unet)
    monkeypatch.setattr(paradigm, "predict", lambda *_: sam)
    terms = paradigm.loss(a_batch(), a_batch(seed=1), 4, step_generator(0, 0))
    assert float(terms.unlabelled) == 0.0
    wrong = math.log(5) + dice_loss(0.2, 1, 2 * 40 * 40)
    assert float(terms.further["sam_loss"]) == pytest.approx(wrong, rel=1e-4)


def test_in_the_warm_up_labels_alone_are_trained_on() -> None:
    paradigm = a_co_training(own=PUBLISHED.model_copy(update={"warmup_share": 0.5}))
    early, late = (
        paradigm.loss(a_batch(), a_batch(seed=1), step, step_generator(0, 0)) for step in (1, 2)
    )
    assert float(early.unlabelled.detach()) == 0.0
    assert early.further.keys() == {"entropy"}
    assert gradient_of(early.supervised, paradigm.sam_predictor) > 0
    assert float(late.unlabelled.detach()) > 0.0
    assert paradigm.sam_weight(2) == pytest.approx(math.exp(-5))  # the ramp begins afterwards
    assert paradigm.sam_weight(3) == 1.0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_so_large_a_part_of_the_patches_is_given_without_points(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    paradigm = a_co_training(own=PUBLISHED.model_copy(update={"dropped_points": share}))
    seen: list[Tensor] = []

    def decoding(_: Tensor, points: ClassPoints, edge: int) -> Tensor:
        seen.append(points.labels)
        return torch.zeros(len(points.labels), 2, edge, edge)

    monkeypatch.setattr(paradigm.sam_predictor, "embed", lambda pictures: pictures)
    monkeypatch.setattr(paradigm.sam_predictor, "decode", decoding)
    classes = (torch.arange(40) > 20).long().expand(60, 40, 40)
    paradigm.predict(torch.zeros(60, 3, 40, 40), classes, step_generator(0, 0))
    absent = (seen[0] == -1).flatten(1)
    assert torch.equal(absent.any(1), absent.all(1))  # all points of a patch, or none
    assert float(absent.all(1).float().mean()) == pytest.approx(share, abs=0.2)
    assert share not in (0.0, 1.0) or float(absent.all(1).float().mean()) == share


def test_patches_that_show_the_target_come_first_in_a_part_of_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paradigm = a_co_training(STAGE.model_copy(update={"lesion_share": 0.5}))
    found = torch.tensor([0, 3, 0, 9, 0, 1, 0, 0])
    probability = torch.zeros(8, 2, 4, 4)
    probability[:, 0] = 0.5
    for patch, pixels in enumerate(found):
        probability[patch, 1].view(-1)[:pixels] = 1.0
    monkeypatch.setattr(scsam, "predicted", lambda *_: probability)
    inputs = torch.arange(8.0).view(8, 1, 1, 1)
    drawn = Batch(inputs, torch.zeros(8, 1, 1, dtype=torch.long), torch.arange(8.0))
    chosen = paradigm.richest(drawn, 4)
    assert chosen.inputs.flatten().tolist() == [3.0, 1.0, 0.0, 2.0]
    assert chosen.weight.tolist() == [3.0, 1.0, 0.0, 2.0]
    assert paradigm.richest(drawn, 8) is drawn
    probability[:, 1] = 0.0
    assert paradigm.richest(drawn, 4).inputs.flatten().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_entropy_is_one_where_nothing_is_known_whatever_the_number_of_classes() -> None:
    for classes in (2, 3, 5):
        assert float(mean_entropy(torch.zeros(1, classes, 4, 4))) == pytest.approx(1.0, abs=1e-4)


def test_points_are_of_the_unets_map_on_all_patches_never_of_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paradigm, seen = a_co_training(), []
    original: Callable[..., ClassPoints] = scsam.random_points

    def recording(classes: np.ndarray, *rest: object) -> ClassPoints:
        seen.append((classes, rest[0], rest[1]))
        return original(classes, *rest)

    monkeypatch.setattr(scsam, "random_points", recording)
    kept: list[Tensor] = []
    student = paradigm.student
    hook = student.register_forward_hook(lambda *args: kept.append(args[2]))
    paradigm.loss(a_batch(), a_batch(seed=1), 0, step_generator(0, 0))
    hook.remove()
    ((classes, number, count),) = seen
    np.testing.assert_array_equal(classes, kept[0].argmax(1).numpy())
    assert (len(classes), number, count) == (4, 2, 5)


def test_classes_of_unlabelled_patches_are_never_looked_at() -> None:
    batch = a_batch(seed=1)
    other = replace(batch, classes=1 - batch.classes)
    first, second = (
        a_co_training().loss(a_batch(), extra, 1, step_generator(0, 0)) for extra in (batch, other)
    )
    assert float(first.total.detach()) == float(second.total.detach())


def test_both_networks_see_the_same_changed_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    paradigm = a_co_training()
    seen: dict[str, Tensor] = {}
    embed = paradigm.sam_predictor.embed

    def embedding(pictures: Tensor) -> Tensor:
        seen["sam"] = pictures
        return embed(pictures)

    monkeypatch.setattr(paradigm.sam_predictor, "embed", embedding)
    paradigm.student.register_forward_hook(lambda *args: seen.update(unet=args[1][0]))
    paradigm.loss(a_batch(), a_batch(seed=1), 0, step_generator(0, 0))
    middle = seen["unet"][:, 1]
    torch.testing.assert_close(seen["sam"], ((middle + 2) / 4).clamp(0, 1))


def test_unlabelled_patches_are_changed_more_than_labelled_ones() -> None:
    paradigm = a_co_training(STAGE.model_copy(update={"perturbation_strength": 0.3}))
    batch = replace(a_batch(), inputs=torch.linspace(-1, 1, 40).expand(2, 3, 40, 40).clone())
    ways = [
        (paradigm.changed(batch, batch, step_generator(0, step)) - batch.inputs.repeat(2, 1, 1, 1))
        for step in range(30)
    ]
    weak, strong = torch.stack(ways).abs().mean((0, 2, 3, 4)).view(2, 2).mean(1).tolist()
    assert strong > 1.5 * weak > 0


def test_holes_and_noise_leave_the_parent_roi_but_warps_move_it() -> None:
    settings = STAGE.model_copy(update={"roi": STAGE.roi.model_copy(update={"context_slices": 0})})
    paradigm = a_co_training(settings, stage=OF_TUMOUR)
    inputs = torch.linspace(0, 1, 40).expand(2, 2, 40, 40).clone()
    batch = Batch(inputs, torch.zeros(2, 40, 40, dtype=torch.long), torch.ones(2))
    moved = []
    for step in range(6):
        changed = paradigm.changed(batch, batch, step_generator(0, step))
        assert torch.equal(changed[:2, 1], inputs[:, 1])
        moved.append(float((changed[2:, 1] - inputs[:, 1]).abs().max()))
    assert max(moved) > 0.01


def test_blocks_are_shown_plane_by_plane() -> None:
    paradigm = a_co_training(IN_3D)
    block = torch.arange(16.0).view(1, 1, 16, 1, 1).expand(2, 1, 16, 16, 16)
    classes, weight = block[:, 0].long(), torch.tensor([1.0, 0.5])
    planes = paradigm.planes(
        (block, block.expand(2, 3, 16, 16, 16), classes, weight), step_generator(0, 0)
    )
    assert [tuple(p.shape) for p in planes] == [(4, 1, 16, 16), (4, 3, 16, 16), (4, 16, 16), (4,)]
    assert planes[3].tolist() == [1.0, 1.0, 0.5, 0.5]
    shown = planes[0][:, 0, 0, 0].tolist()
    assert shown[:2] == shown[2:]
    assert len(set(shown)) == 2
    assert planes[2][:, 0, 0].tolist() == shown


def test_each_has_an_optimiser_of_its_own_whose_rate_falls_linearly(tmp_path: Path) -> None:
    settings = STAGE.model_copy(
        update={"optimiser": "sgd", "learning_rate": 0.01, "weight_decay": 1e-4}
    )
    paradigm = a_co_training(settings)
    unet, sam = paradigm.configure_optimizers()
    assert (unet.optimiser, unet.learning_rate, unet.weight_decay) == ("sgd", 0.01, 1e-4)
    assert (sam.optimiser, sam.learning_rate, sam.weight_decay) == ("adamw", 1e-4, 0.0)
    assert unet.power == sam.power == 1.0
    moved = {id(p) for learner in (unet, sam) for p in learner.parameters}
    assert moved == {id(p) for p in paradigm.parameters() if p.requires_grad}
    rates = rates_of(paradigm, 4, tmp_path)
    assert [r[0] for r in rates] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert [r[1] for r in rates] == pytest.approx([1e-4, 7.5e-5, 5e-5, 2.5e-5])


# --- The gate -------------------------------------------------------------------------------------

GATED = OWN.model_copy(update={"gate": True})
TASKS = [f"{name}-{fold}-liver" for name in ("cross-fitted", ALONE) for fold in (1, 2)]


class AFixedModel:
    """A specialist, or SAM and specialist, with known label maps; `by` tells which of both."""

    folder = Path("none")

    def __init__(self, by: str, labels: dict[bytes, np.ndarray]) -> None:
        self.by, self.labels, self.specialist = by, labels, self

    def segment(self, volume: Volume, *_: object) -> object:
        found = Labelmap(self.labels[volume.voxels.tobytes()], volume.geometry)
        return SimpleNamespace(refined=found) if self.by == "sam" else found


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Notice]]:
    """Return a function that asks the gate, with what each way of training finds of the cases."""
    context = a_context(tmp_path, scsam_config(scsam=GATED))
    this = Round(1, context.folder.round(1), context.folder.round(1))

    def ask(sam: Callable[[np.ndarray], np.ndarray], passes: bool) -> list[Notice]:
        truths = {
            context.image(case).voxels.tobytes(): context.labels(case).labels
            for case in context.labelled
        }
        by_sam = AFixedModel("sam", {key: sam(labels) for key, labels in truths.items()})
        # The specialist alone finds the upper half of everything.
        upper = {key: np.where(np.arange(40) < 20, labels, 0) for key, labels in truths.items()}

        def cross_fitted(_: object, plan: CascadeTrainingPlan, name: str = "") -> dict[str, object]:
            assert plan.pseudo == plan.start == {}
            model = AFixedModel("alone", upper) if name == ALONE else by_sam
            return {case.id: model for case in context.labelled}

        monkeypatch.setattr(co_training_gate, "cross_fitted_models", cross_fitted)
        told: list[Event] = []
        listening = replace(context, monitor=Monitor(told.append))
        plan = training_plan_of(context, this, scsam.co_training(context))
        assert passes_gate(listening, this, plan, lambda *_: by_sam) is passes  # type: ignore[arg-type, return-value]
        return [event for event in told if isinstance(event, Notice)]

    return ask


def test_the_gate_opens_where_sam_finds_more_of_cases_that_it_never_saw(
    judge: Callable[..., list[Notice]], tmp_path: Path
) -> None:
    assert judge(lambda truth: truth, True) == []
    rows = read_co_training(tmp_path / "project" / "runs" / "a" / "round-01")
    assert rows is not None
    assert [(row.case, row.target) for row in rows] == [
        (case, target) for case in LABELLED for target in ("liver", "tumour")
    ]
    assert {row.sam for row in rows} == {1.0}
    assert all(0.3 < row.specialist < 0.9 for row in rows)


def test_a_sam_that_finds_less_teaches_nobody_and_a_notice_says_so(
    judge: Callable[..., list[Notice]],
) -> None:
    (notice,) = judge(np.zeros_like, False)
    assert "trained alone" in notice.message
    assert re.search(r"0\.000 for 0\.\d+ \(liver\), 0\.000 for 0\.\d+ \(tumour\)", notice.message)
    assert "scsam.gate=false" in notice.message


def test_a_sam_that_finds_more_of_one_target_and_less_of_another_teaches_nobody(
    judge: Callable[..., list[Notice]],
) -> None:
    """A part of the liver is no great loss, and the whole tumour would be a great gain."""
    (notice,) = judge(lambda truth: np.where((truth == 2) | (np.arange(40) < 18), truth, 0), False)
    assert "(liver)" in notice.message
    assert "(tumour)" not in notice.message


def test_an_equal_sam_teaches_nobody_either(judge: Callable[..., list[Notice]]) -> None:
    upper = lambda truth: np.where(np.arange(40) < 20, truth, 0)  # noqa: E731
    assert len(judge(upper, False)) == 1


def test_without_another_labelled_patient_the_specialist_is_trained_alone_and_a_notice_says_so(
    tmp_path: Path,
) -> None:
    context = a_context(tmp_path, scsam_config(scsam=GATED, crossfit_share=0.0))
    told: list[Event] = []
    context = replace(context, monitor=Monitor(told.append))
    this = Round(1, context.folder.round(1), context.folder.round(1))
    plan = training_plan_of(context, this, scsam.co_training(context))
    assert not passes_gate(context, this, plan, lambda *_: None)  # type: ignore[arg-type, return-value]
    (notice,) = [event for event in told if isinstance(event, Notice)]
    assert "no labelled patient is left" in notice.message
    assert "crossfit_share" in notice.message


def test_later_rounds_do_as_the_first_until_labels_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = a_context(tmp_path, scsam_config(scsam=GATED, rounds=3))
    run, asked = context.folder, list[int]()
    monkeypatch.setattr(co_training_gate, "cross_fitted_models", lambda *_: {})

    def scores(*_: object) -> list[CoTrainingDice]:
        asked.append(len(asked))
        return [CoTrainingDice("c0", "liver", 0.5, 0.4 + 0.2 * len(asked))]

    monkeypatch.setattr(co_training_gate, "held_out_scores", scores)

    def passes(number: int) -> bool:
        this = Round(number, run.round(number), run.round(number))
        plan = training_plan_of(context, this, scsam.co_training(context))
        return passes_gate(context, this, plan, lambda *_: None)  # type: ignore[arg-type, return-value]

    assert [passes(1), passes(1), passes(2)] == [True] * 3
    assert asked == [0]
    assert is_co_trained(run.round(2))
    run.write_status(retrained_rounds=[1, 3])
    assert passes(3)
    assert asked == [0, 1]


def test_a_round_that_an_earlier_version_began_goes_on_with_sam(tmp_path: Path) -> None:
    context = a_context(tmp_path, scsam_config(scsam=GATED, crossfit_share=0.0))
    this = Round(1, context.folder.round(1), context.folder.round(1))
    this.folder.mkdir(parents=True)
    (this.folder / "specialist-liver.training.safetensors").touch()
    plan = training_plan_of(context, this, scsam.co_training(context))
    assert passes_gate(context, this, plan, lambda *_: None)  # type: ignore[arg-type, return-value]
    assert not (this.folder / CO_TRAINING).exists()


def test_a_round_that_nothing_was_asked_about_is_co_trained(tmp_path: Path) -> None:
    assert read_co_training(tmp_path) is None
    assert is_co_trained(tmp_path)
    write_table(tmp_path / CO_TRAINING, CO_TRAINING_COLUMNS, [])
    assert not is_co_trained(tmp_path)
    (tmp_path / CO_TRAINING).write_text("case,target,specialist,sam\nc0,liver,0.5,much\n")
    with pytest.raises(RunError, match=r"co_training\.csv is damaged"):
        is_co_trained(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param((0.62, 0.74), (0.57, 0.75), True, id="ahead on both"),
        pytest.param((0.594, 0.747), (0.614, 0.592), False, id="ahead in the mean, by chance"),
        pytest.param((0.8, 0.7), (0.8, 0.7), False, id="behind"),
    ],
)
def test_sam_has_to_be_ahead_by_more_than_chance_may_give(
    tmp_path: Path, first: tuple[float, float], second: tuple[float, float], expected: bool
) -> None:
    """With two patients a mean is ahead easily: on draw 5 of the hippocampus both then lost."""
    rows = [CoTrainingDice("a", "liver", *first), CoTrainingDice("b", "liver", *second)]
    write_table(tmp_path / CO_TRAINING, CO_TRAINING_COLUMNS, map(asdict, rows))
    assert is_co_trained(tmp_path) == expected


def test_a_round_with_a_sam_was_co_trained_whatever_the_rule_was_then(tmp_path: Path) -> None:
    rows = [CoTrainingDice("a", "liver", 0.5, 0.7), CoTrainingDice("b", "liver", 0.5, 0.49)]
    write_table(tmp_path / CO_TRAINING, CO_TRAINING_COLUMNS, map(asdict, rows))
    assert not is_co_trained(tmp_path)
    (tmp_path / "sam-liver.safetensors").touch()
    assert is_co_trained(tmp_path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, list[Event]]:
    """Return a finished run whose gate stayed shut, and what it told."""
    told: list[Event] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_small_sam(monkeypatch)
        worse = [CoTrainingDice("c0", "liver", 0.8, 0.7)]
        monkeypatch.setattr(co_training_gate, "held_out_scores", lambda *_: worse)
        torch.set_num_threads(1)
        project = a_tiny_project(tmp_path_factory.mktemp("alone"))
        run = start_run(
            project,
            scsam_config(scsam=GATED, paradigm="supervised", rounds=2, patience=2),
            Monitor(told.append, interval_s=0.0),
            run_id="a",
        )
    return run, told


@pytest.mark.slow
def test_a_shut_gate_leaves_the_specialist_as_it_is(
    alone: tuple[RunFolder, list[Event]], tmp_path: Path
) -> None:
    run, _ = alone
    config = scsam_config(method="specialist", paradigm="supervised", rounds=2, patience=2)
    specialist = start_run(a_tiny_project(tmp_path), config, run_id="a")
    own = results(run)
    for number in (1, 2):
        table = own.pop(f"round-{number:02d}/{CO_TRAINING}")
        assert table.decode().splitlines()[1:] == ["c0,liver,0.8,0.7"]  # type: ignore[attr-defined]
    expected = results(specialist)
    assert own.keys() == expected.keys()
    assert {n: v for n, v in own.items() if n != "report.html"} == {
        n: v for n, v in expected.items() if n != "report.html"
    }


@pytest.mark.slow
def test_a_run_with_a_shut_gate_is_loaded_without_sam(
    alone: tuple[RunFolder, list[Event]],
) -> None:
    run, _ = alone
    volume = read_volume(run.path.parents[2] / "data" / "ct6.nii.gz")
    ensemble = ensemble_with_small_sam(run)
    assert ensemble.sam_predictor is None
    written = read_labelmap(run.path / "labels" / "c6.nii.gz")
    np.testing.assert_array_equal(ensemble.segment(volume).refined.labels, written.labels)


@pytest.mark.slow
def test_the_gate_trains_both_ways_in_the_steps_of_the_plan_once(
    alone: tuple[RunFolder, list[Event]],
) -> None:
    run, told = alone
    begun = {(e.round, e.task, e.of): None for e in told if isinstance(e, Progress) and e.step == 0}
    plan = planned_steps(run.config, open_project(run.path.parents[1]))
    planned = [(step.round, step.task, step.units) for step in plan]
    assert [step for step in begun if step in planned] == planned
    assert [task for number, task, _ in planned if number == 1 and task in TASKS] == TASKS
    assert not [task for number, task, _ in planned if number == 2 and task in TASKS]
    assert not (run.round(1) / "gate").exists()


@pytest.mark.slow
def test_a_gate_that_is_really_asked_leaves_what_its_table_says_also_after_a_stop(
    tmp_path: Path,
) -> None:
    stage = STAGE.model_copy(update={"iterations": 2})
    config = scsam_config(scsam=GATED, organ=stage, lesion=stage, paradigm="supervised")
    run = start_run(a_tiny_project(tmp_path / "once"), config, run_id="a")
    stopped = stopped_and_resumed(
        a_tiny_project(tmp_path / "stopped"), config, at_step(f"{ALONE}-1-liver", 0)
    )
    assert results(stopped) == results(run)
    rows = read_co_training(run.round(1))
    assert rows is not None
    assert {(row.case, row.target) for row in rows} == {
        (case, target) for case in LABELLED for target in ("liver", "tumour")
    }
    assert all(0.0 <= value <= 1.0 for row in rows for value in (row.specialist, row.sam))
    trained = {path.name for path in run.round(1).glob("sam-*.safetensors")}
    assert bool(trained) == is_co_trained(run.round(1))


# --- Whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def make_config() -> MakeConfig:
    return scsam_config


class TestWholeRuns(OwnSamChecks):
    needed = "sam-tumour"


def test_sams_label_is_the_methods_and_the_unets_is_reported(finished: RunFolder) -> None:
    rows = rows_of(finished.round(1) / "metrics.csv")
    assert [(r["source"], r["target"]) for r in rows] == [
        (source, target)
        for source in ("specialist", "sam", "refined")
        for target in ("liver", "tumour")
    ]
    for name in (*UNLABELLED, *TEST):
        folder = finished.round(1) / "predictions" / name
        sam, refined = prediction_in(folder, "sam"), prediction_in(folder, "refined")
        np.testing.assert_array_equal(sam.labels, refined.labels)
    for row in rows_of(finished.round(1) / "reliability.csv"):
        assert row["prediction_agreement"] != ""


def test_what_was_trained_of_sam_is_kept_stage_by_stage(finished: RunFolder) -> None:
    names = {path.name for path in finished.round(1).glob("sam-*.safetensors")}
    assert names == {"sam-liver.safetensors", "sam-tumour.safetensors"}


def test_sam_is_prompted_on_every_slice_with_points_from_the_unets_map(
    finished: RunFolder, ensemble: Ensemble
) -> None:
    volume = read_volume(finished.path.parents[2] / "data" / "ct6.nii.gz")
    segmented = ensemble.segment(volume)
    liver = [prompt for prompt in segmented.prompts if prompt.target == "liver"]
    assert [prompt.slice_index for prompt in liver] == list(range(12))
    predicted = ensemble.specialist.predict(volume)["liver"] > 0.5
    sure = 0
    for prompt in liver:
        for point in prompt.points:
            x, y = (int(at) for at in point.xy)
            assert predicted[prompt.slice_index, y, x] == point.positive
            sure += point.positive
    assert sure > 20


def test_prompting_one_slice_predicts_that_slice(finished: RunFolder, ensemble: Ensemble) -> None:
    volume = read_volume(finished.path.parents[2] / "data" / "ct6.nii.gz")
    segmented = ensemble.segment(volume)
    assert ensemble.sam_predictor is not None
    one = [p for p in segmented.prompts if p.slice_index == 6 and p.target == "liver"]
    sam_probabilities = ensemble.sam_predictor.predict(volume, one)
    assert sam_probabilities.keys() == {"liver"}
    np.testing.assert_allclose(
        sam_probabilities["liver"][6], segmented.probabilities["liver"][6], atol=1e-5
    )
    assert not sam_probabilities["liver"][:6].any()
    other = SlicePrompts(6, "liver", 5, points=(PointPrompt((3.0, 3.0)),))
    moved = ensemble.sam_predictor.predict(volume, [other])["liver"][6]
    assert not np.allclose(moved, sam_probabilities["liver"][6])
    boxed = SlicePrompts(6, "liver", box=BoxPrompt((10.0, 10.0, 30.0, 30.0)))
    assert ensemble.sam_predictor.predict(volume, [boxed])["liver"][6].any()
    assert ensemble.sam_predictor.predict(volume, []) == {}


@pytest.mark.slow
def test_the_second_round_goes_on_with_the_sam_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = scsam.load_classwise

    def recording(sam: ClasswiseSam, path: Path) -> None:
        read.append(f"{path.parent.name}/{path.name}")
        original(sam, path)

    for module in (scsam, loading):  # where training starts from it, and where it segments
        monkeypatch.setattr(module, "load_classwise", recording)
    stage = STAGE.model_copy(update={"iterations": 2})
    run = start_run(
        a_tiny_project(tmp_path), scsam_config(rounds=2, patience=2, organ=stage, lesion=stage)
    )
    first, second = run.round(1).name, run.round(2).name
    of_first = [f"{first}/sam-liver.safetensors", f"{first}/sam-tumour.safetensors"]
    of_second = [f"{second}/sam-liver.safetensors", f"{second}/sam-tumour.safetensors"]
    assert read == [*of_first, *of_first, *of_second]


@pytest.mark.slow
def test_volumes_are_trained_on_in_blocks_too(tmp_path: Path) -> None:
    # SAM is asked patch by patch: small ones are many.
    stage = IN_3D.model_copy(update={"iterations": 1, "patch_size": 32})
    run = start_run(a_tiny_project(tmp_path), scsam_config(organ=stage, lesion=stage))
    segmented = segment_volume(run, read_volume(tmp_path / "data" / "ct6.nii.gz"))
    written = read_labelmap(run.path / "labels" / "c6.nii.gz")
    np.testing.assert_array_equal(segmented.refined.labels, written.labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learned_boxes", "tuning"), [(False, "adapter"), (True, "lora"), (True, "decoder")]
)
def test_learned_boxes_and_adapters_can_be_left_out(
    tmp_path: Path, learned_boxes: bool, tuning: str
) -> None:
    changes = {"learned_boxes": learned_boxes, "tuning": tuning}
    own = OWN.model_copy(update=changes)
    stage = STAGE.model_copy(update={"iterations": 1})
    run = start_run(a_tiny_project(tmp_path), scsam_config(scsam=own, organ=stage, lesion=stage))
    names = set(weights_in(run.round(1) / "sam-liver.safetensors")[0])
    assert any(name.startswith("boxes.") for name in names) == learned_boxes
    assert any("adapter" in name for name in names) == (tuning == "adapter")
    assert any("low_rank" in name for name in names) == (tuning == "lora")


@pytest.mark.slow
@pytest.mark.parametrize("learned_boxes", [False, True])
def test_a_sam_without_points_predicts_wherever_it_is_asked(
    tmp_path: Path, learned_boxes: bool
) -> None:
    own = OWN.model_copy(update={"points": 0, "learned_boxes": learned_boxes})
    stage = STAGE.model_copy(update={"iterations": 2})
    run = start_run(a_tiny_project(tmp_path), scsam_config(scsam=own, organ=stage, lesion=stage))
    volume = read_volume(tmp_path / "data" / "ct6.nii.gz")
    ensemble = load_ensemble(run)
    segmented = ensemble.segment(volume)
    liver = [prompt for prompt in segmented.prompts if prompt.target == "liver"]
    assert [prompt.slice_index for prompt in liver] == list(range(12))
    assert not any(prompt.points for prompt in liver)
    written = read_labelmap(run.path / "labels" / "c6.nii.gz")
    np.testing.assert_array_equal(segmented.refined.labels, written.labels)
    assert ensemble.sam_predictor is not None
    asked = [p for p in liver if p.slice_index == 6]
    clicked = [SlicePrompts(6, "liver", 0, points=(PointPrompt((20.0, 20.0)),))]
    plain, moved = (ensemble.sam_predictor.predict(volume, p)["liver"][6] for p in (asked, clicked))
    np.testing.assert_allclose(plain, segmented.probabilities["liver"][6], atol=1e-5)
    assert not np.allclose(plain, moved)  # a person's click still counts
