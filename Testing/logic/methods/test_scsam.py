"""SC-SAM: what U-Net and SAM learn from each other, and whole runs of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aslseg.config import RunConfig, SamConfig, ScSamConfig, SpecialistConfig
from aslseg.data.images import read_labelmap, read_volume
from aslseg.inference import loading
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.loading import load_ensemble, segment_volume
from aslseg.methods import scsam
from aslseg.methods.scsam import CoTraining, mean_entropy
from aslseg.networks.unet import build_network
from aslseg.preprocessing.patches import Batch
from aslseg.presets import PUBLISHED_METHODS
from aslseg.project.run_folder import RunFolder
from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts
from aslseg.runs import start_run
from aslseg.sam.classwise import ClassPoints, ClasswiseSam
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training.recorded_network import LEAST_STEPS, STEPS_BEFORE, NetworkRecorder
from aslseg.training.rounds import read_prediction
from aslseg.training.trainer import step_generator
from recorded_networks import RecordingDouble
from sam_doubles import a_small_sam
from sam_methods import (
    MakeConfig,
    OwnSamChecks,
    dice_loss,
    even,
    gradient_norm,
    patches_of,
    rates_of,
)
from tiny_project import (
    NETWORK,
    SPECIALIST,
    TEST,
    UNLABELLED,
    a_tiny_project,
    tiny_config,
)
from whole_runs import (
    rows_of,
    weights_in,
)

OF_LIVER, OF_TUMOUR = cascade_stages(LIVER_TARGETS)
OWN = ScSamConfig(input_size=128, planes=2)
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
        sam, refined = read_prediction(folder, "sam"), read_prediction(folder, "refined")
        assert sam is not None
        assert refined is not None
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
    run = start_run(a_tiny_project(tmp_path), scsam_config(organ=IN_3D, lesion=IN_3D))
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
    own = ScSamConfig(input_size=128, learned_boxes=learned_boxes, tuning=tuning)  # type: ignore[arg-type]
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
