"""Each paradigm learns from unlabelled patches as its paper says, and from labels as all do."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aslseg.config import NetworkConfig, RoiConfig, SpecialistConfig, UniMatchConfig
from aslseg.config import SSLName as Name
from aslseg.distributed import WorkPart
from aslseg.errors import CancelledError
from aslseg.events import Monitor
from aslseg.networks.unet import build_network
from aslseg.preprocessing.patches import Batch, BatchSource, TrainingCase
from aslseg.preprocessing.roi import IGNORED, build_roi
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training.losses import supervised_loss
from aslseg.training.ssl import SSL_METHODS, build_ssl_method
from aslseg.training.ssl.base import SSLMethod
from aslseg.training.ssl.bidirectional_copy_paste import (
    BidirectionalCopyPaste,
    largest_components,
)
from aslseg.training.ssl.mean_teacher import UncertaintyAwareMeanTeacher
from aslseg.training.ssl.pseudo_labels import confident_labels, pseudo_label_loss
from aslseg.training.ssl.unimatch import UniMatch
from aslseg.training.trainer import Schedule, Trainer, step_generator
from support.tiny_project import SPECIALIST, a_patient

OF_LIVER, _ = cascade_stages(LIVER_TARGETS)
SETTINGS = SPECIALIST.model_copy(
    update={
        "iterations": 100,
        "batch_size": 2,
        "patch_size": 16,
        "uncertainty_passes": 2,
        # An untrained network is to be confident of something.
        "background_confidence": 0.5,
        "target_confidence": 0.5,
    }
)
IN_3D = SETTINGS.model_copy(update={"network": NetworkConfig(dimensions=3, channels=(4, 8, 8))})
RAMPED = 40  # steps, for the ramp takes 0.4 of the schedule
SEMI: tuple[Name, ...] = (
    "mean_teacher",
    "uncertainty_aware",
    "cross_pseudo",
    "unimatch",
    "bidirectional_copy_paste",
)
LOSSES = ("published", "confident")
both_dimensions = pytest.mark.parametrize("settings", [SETTINGS, IN_3D], ids=["2d", "3d"])
each = pytest.mark.parametrize("name", list(SSL_METHODS))
each_semi = pytest.mark.parametrize("name", SEMI)
each_loss = pytest.mark.parametrize("unlabelled_loss", LOSSES)


def sources(settings: SpecialistConfig) -> tuple[BatchSource, BatchSource]:
    """Return labelled patches of one patient and unlabelled ones of another."""
    cases = []
    for seed in (0, 1):
        volume, labels = a_patient(seed)
        roi = build_roi(volume, OF_LIVER, settings, labels=labels, targets=LIVER_TARGETS)
        cases.append(TrainingCase(roi if seed == 0 else replace(roi, labels=None)))
    return BatchSource(cases[:1], settings, 0, 0), BatchSource(cases[1:], settings, 0, 1)


def a_paradigm(name: Name, settings: SpecialistConfig = SETTINGS) -> SSLMethod:
    torch.manual_seed(0)
    return build_ssl_method(name, lambda: build_network(OF_LIVER, settings), settings)


def weights(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def size_of_gradient(loss: Tensor, module: nn.Module) -> float:
    found = torch.autograd.grad(
        loss, list(module.parameters()), retain_graph=True, allow_unused=True
    )
    return math.sqrt(sum(float(g.square().sum()) for g in found if g is not None))


# --- What all share -------------------------------------------------------------------------------


@each
@both_dimensions
def test_the_averaged_network_changes_by_averaging_alone(
    name: Name, settings: SpecialistConfig
) -> None:
    paradigm = a_paradigm(name, settings)
    labelled, unlabelled = sources(settings)
    asking = [p for p in paradigm.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(asking, 0.1)
    before = weights(paradigm.average)

    terms = paradigm.loss(labelled.batch(0), unlabelled.batch(0), RAMPED, step_generator(0, RAMPED))
    terms.total.backward()
    optimiser.step()

    assert all(p.grad is None and not p.requires_grad for p in paradigm.average.parameters())
    assert all(map(torch.equal, weights(paradigm.average), before))
    paradigm.after_step(RAMPED)
    decay = min(1 - 1 / (RAMPED + 1), settings.ema_decay)
    for kept, old, new in zip(
        weights(paradigm.average), before, weights(paradigm.student), strict=True
    ):
        torch.testing.assert_close(kept, decay * old + (1 - decay) * new)
    assert not all(map(torch.equal, weights(paradigm.average), before))


@each
@both_dimensions
def test_a_few_steps_on_one_patient_lower_the_supervised_loss(
    name: Name, settings: SpecialistConfig, tmp_path: Path
) -> None:
    paradigm = a_paradigm(name, settings)
    labelled, unlabelled = sources(settings)
    batch = labelled.batch(1000)

    def loss_now() -> float:
        with torch.no_grad():
            logits = paradigm.student.eval()(batch.inputs)
        return float(supervised_loss(logits, batch.classes))

    def step_loss(step: int, generator: torch.Generator, _: WorkPart) -> dict[str, Tensor]:
        terms = paradigm.loss(labelled.batch(step), unlabelled.batch(step), step, generator)
        return {"loss": terms.total}

    before = loss_now()
    trainer = Trainer(
        paradigm, Schedule("s", 12, 0.02), torch.device("cpu"), tmp_path, paradigm.after_step
    )
    trainer.run(step_loss, Monitor())
    assert loss_now() < 0.75 * before


@each
def test_a_stopped_training_goes_on_to_the_same_weights(name: Name, tmp_path: Path) -> None:
    labelled, unlabelled = sources(SETTINGS)

    def train(stop: int | None) -> SSLMethod:
        paradigm, monitor = a_paradigm(name), Monitor()

        def after_step(step: int) -> None:
            paradigm.after_step(step)
            if step + 1 == stop:
                monitor.token.cancel()

        def step_loss(step: int, generator: torch.Generator, _: WorkPart) -> dict[str, Tensor]:
            terms = paradigm.loss(labelled.batch(step), unlabelled.batch(step), step, generator)
            return {"loss": terms.total}

        schedule = Schedule("s", 5, 0.02, seed=1)
        trainer = Trainer(paradigm, schedule, torch.device("cpu"), tmp_path, after_step)
        trainer.run(step_loss, monitor)
        return paradigm

    unbroken = train(None).state_dict()
    with pytest.raises(CancelledError):
        train(3)
    resumed = train(None).state_dict()
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)


def test_changed_intensities_leave_the_parent_roi_as_it_is() -> None:
    paradigm = a_paradigm("mean_teacher")
    inputs = torch.randn(2, 4, 16, 16)  # three slices and the parent ROI
    for changed in (
        paradigm.perturb(inputs, step_generator(0, 0)),
        paradigm.noisy(inputs, step_generator(0, 0)),
    ):
        assert torch.equal(changed[:, 3], inputs[:, 3])
        assert not torch.equal(changed[:, :3], inputs[:, :3])


@each
def test_labelled_patches_are_changed_no_further_than_they_were_drawn(name: Name) -> None:
    settings = SETTINGS.model_copy(update={"perturbation_strength": 1.0})
    paradigm = a_paradigm(name, settings)
    labelled, unlabelled = (source.batch(0) for source in sources(settings))
    seen: list[Tensor] = []
    paradigm.student.register_forward_hook(lambda *call: seen.append(call[1][0]))
    paradigm.loss(labelled, unlabelled, 0, step_generator(0, 0))
    drawn = set(labelled.inputs.flatten().tolist())
    assert any(set(shown[: len(labelled.inputs)].flatten().tolist()) <= drawn for shown in seen)


def test_the_noise_of_the_teacher_is_cut_off_at_two_deviations() -> None:
    paradigm = a_paradigm("mean_teacher", SETTINGS.model_copy(update={"teacher_noise": 0.25}))
    noise = paradigm.noisy(torch.zeros(4, 3, 32, 32), step_generator(0, 0))
    assert noise.abs().max() == 0.5
    assert float(noise.std()) == pytest.approx(0.9594 * 0.25, abs=0.004)


def test_the_weight_of_the_unlabelled_term_is_ramped_over_its_share_of_the_schedule() -> None:
    paradigm = a_paradigm("mean_teacher", SETTINGS.model_copy(update={"consistency_weight": 0.1}))
    assert paradigm.consistency_weight(0) == pytest.approx(0.1 * math.exp(-5))
    assert paradigm.consistency_weight(RAMPED // 2) == pytest.approx(0.1 * math.exp(-1.25))
    assert paradigm.consistency_weight(RAMPED) == paradigm.consistency_weight(99) == 0.1
    at_once = a_paradigm("mean_teacher", SETTINGS.model_copy(update={"rampup_share": 0.0}))
    assert at_once.consistency_weight(0) == 1.0


# --- Labels alone ---------------------------------------------------------------------------------


@both_dimensions
def test_the_supervised_baseline_ignores_unlabelled_patches(settings: SpecialistConfig) -> None:
    labelled, unlabelled = sources(settings)
    paradigm = a_paradigm("supervised", settings)
    assert not paradigm.uses_unlabelled
    found = [
        paradigm.loss(labelled.batch(0), extra, RAMPED, step_generator(0, 0))
        for extra in (None, unlabelled.batch(0), unlabelled.batch(1))
    ]
    assert len({float(terms.total.detach()) for terms in found}) == 1
    assert all(float(terms.unlabelled.detach()) == 0.0 for terms in found)


@each
def test_a_wrong_label_of_weight_zero_changes_nothing(name: Name) -> None:
    batch = sources(SETTINGS)[0].batch(0)
    weight = torch.tensor([1.0, 0.0])
    wrong = batch.classes.clone()
    wrong[1] = 1 - wrong[1]
    right_loss, wrong_loss = (
        a_paradigm(name).loss(Batch(batch.inputs, classes, weight), None, 0, step_generator(0, 0))
        for classes in (batch.classes, wrong)
    )
    assert float(right_loss.total.detach()) == float(wrong_loss.total.detach())


# --- Unlabelled patches ---------------------------------------------------------------------------


@each_semi
@each_loss
@both_dimensions
def test_the_unlabelled_term_moves_the_student_once_it_is_ramped_up(
    name: Name, unlabelled_loss: str, settings: SpecialistConfig
) -> None:
    settings = settings.model_copy(update={"unlabelled_loss": unlabelled_loss})
    labelled, unlabelled = sources(settings)
    paradigm = a_paradigm(name, settings)
    assert paradigm.uses_unlabelled
    for parameter in paradigm.average.parameters():  # a teacher that is not the student
        parameter.data += 0.05 * torch.randn_like(parameter)
    sizes = []
    for step in (0, RAMPED):
        # At the end of the schedule UA-MT believes every voxel.
        terms = paradigm.loss(labelled.batch(0), unlabelled.batch(0), step, step_generator(0, 0))
        sizes.append(size_of_gradient(terms.unlabelled, paradigm.student))
    assert sizes[1] > 1e-5
    if name == "bidirectional_copy_paste":
        assert sizes[0] == 0.0  # labelled patches are mixed at first
    elif name != "uncertainty_aware":
        assert sizes[0] == pytest.approx(sizes[1] * math.exp(-5), rel=0.02)


@each_semi
def test_what_the_unlabelled_patches_are_matters(name: Name) -> None:
    labelled, unlabelled = sources(SETTINGS)
    paradigm = a_paradigm(name)
    first, second = (
        paradigm.loss(labelled.batch(0), extra, RAMPED, step_generator(0, 0))
        for extra in (unlabelled.batch(0), unlabelled.batch(1))
    )
    assert float(first.unlabelled.detach()) != float(second.unlabelled.detach())


@each_semi
def test_classes_of_unlabelled_patches_are_never_looked_at(name: Name) -> None:
    labelled, unlabelled = sources(SETTINGS)
    batch = unlabelled.batch(0)
    other = Batch(batch.inputs, torch.ones_like(batch.classes), batch.weight)
    first, second = (
        a_paradigm(name).loss(labelled.batch(0), extra, RAMPED, step_generator(0, 0))
        for extra in (batch, other)
    )
    assert float(first.total.detach()) == float(second.total.detach())


FLAT = SpecialistConfig(
    iterations=100,
    patch_size=8,
    perturbation_strength=0.0,
    teacher_noise=0.0,
    unlabelled_loss="published",
    consistency_weight=1.0,
    uncertainty_passes=2,
    unimatch=UniMatchConfig(feature_dropout=0.0),
    network=NetworkConfig(channels=(4, 8, 8)),
    roi=RoiConfig(context_slices=0),
)


def a_pixel_network(slope: float, bias: float = 0.0) -> Callable[[], nn.Module]:
    """Return a maker of networks whose second class has the log-odds slope * x + bias."""

    def build() -> nn.Module:
        layer = nn.Conv2d(1, 2, 1)
        layer.weight.data = torch.tensor([0.0, slope]).view(2, 1, 1, 1)
        layer.bias = nn.Parameter(torch.tensor([0.0, bias]))
        return layer

    return build


def a_batch(inputs: Tensor, label: int = 0) -> Batch:
    classes = torch.full((inputs.shape[0], *inputs.shape[2:]), label)
    return Batch(inputs, classes, torch.ones(len(inputs)))


def test_mean_teacher_is_the_squared_difference_to_the_averaged_network() -> None:
    paradigm = build_ssl_method("mean_teacher", a_pixel_network(0.0, math.log(3)), FLAT)
    paradigm.average.load_state_dict(a_pixel_network(0.0)().state_dict())
    batch = a_batch(torch.zeros(2, 1, 4, 4))
    terms = paradigm.loss(batch, batch, RAMPED, step_generator(0, 0))
    # The student says 3/4, the teacher 1/2, everywhere and in both classes.
    assert float(terms.unlabelled.detach()) == pytest.approx(1 / 16)
    assert float(terms.supervised.detach()) == pytest.approx(
        math.log(4) + 1 - 1 / (32 * 9 / 16 + 1)
    )


def test_uncertain_voxels_do_not_count() -> None:
    """Where x = 0 the teacher says 1/2 (ln 2 > 0.75 ln 2); where x = 3 it says 0.95."""
    paradigm = build_ssl_method("uncertainty_aware", a_pixel_network(1.0), FLAT)
    assert isinstance(paradigm, UncertaintyAwareMeanTeacher)
    inputs = torch.zeros(1, 1, 4, 4)
    inputs[..., 2:] = 3.0
    probability, mask = paradigm.teacher(inputs, 0, step_generator(0, 0))
    torch.testing.assert_close(probability[0, 1, 0], (inputs[0, 0, 0]).sigmoid())
    assert mask is not None
    assert mask.shape == (1, 1, 4, 4)
    assert mask[0, 0, 0].tolist() == [0.0, 0.0, 1.0, 1.0]
    end = FLAT.iterations
    _, at_the_end = paradigm.teacher(inputs + 0.1, end, step_generator(0, 0))
    assert at_the_end is not None
    assert at_the_end.min() == 1.0


def test_the_student_is_not_drawn_to_an_uncertain_teacher() -> None:
    paradigm = build_ssl_method("uncertainty_aware", a_pixel_network(1.0, 1.0), FLAT)
    paradigm.average.load_state_dict(a_pixel_network(1.0)().state_dict())
    sure, unsure = a_batch(torch.full((1, 1, 4, 4), 3.0)), a_batch(torch.zeros(1, 1, 4, 4))
    of_sure = paradigm.loss(sure, sure, 0, step_generator(0, 0)).unlabelled
    of_unsure = paradigm.loss(unsure, unsure, 0, step_generator(0, 0)).unlabelled
    assert size_of_gradient(of_sure, paradigm.student) > 0
    assert size_of_gradient(of_unsure, paradigm.student) == 0.0


def test_two_networks_learn_the_labels_of_each_other() -> None:
    paradigm = build_ssl_method("cross_pseudo", a_pixel_network(0.0, math.log(3)), FLAT)
    partner = paradigm.get_submodule("partner")
    partner.load_state_dict(a_pixel_network(0.0, -math.log(4))().state_dict())
    batch = a_batch(torch.zeros(1, 1, 4, 4))
    term = paradigm.loss(batch, batch, RAMPED, step_generator(0, 0)).unlabelled
    # The first predicts class 1 with 3/4, the second class 0 with 4/5; each gets the other's label.
    assert float(term.detach()) == pytest.approx(math.log(4) + math.log(5), rel=1e-5)
    bias = [network.bias for network in (paradigm.student, partner)]
    first, second = torch.autograd.grad(term, bias)  # type: ignore[arg-type]
    assert first[1] > 0  # class 1 becomes less probable for the first
    assert second[1] < 0  # and more probable for the second


def test_cross_pseudo_labels_are_not_differentiated() -> None:
    """Each network's gradient is that of cross entropy to a fixed label: p - y."""
    paradigm = build_ssl_method("cross_pseudo", a_pixel_network(0.0, math.log(3)), FLAT)
    partner = paradigm.get_submodule("partner")
    partner.load_state_dict(a_pixel_network(0.0, -math.log(4))().state_dict())
    batch = a_batch(torch.zeros(1, 1, 4, 4))
    term = paradigm.loss(batch, batch, RAMPED, step_generator(0, 0)).unlabelled
    (gradient,) = torch.autograd.grad(term, [paradigm.student.bias])  # type: ignore[list-item]
    torch.testing.assert_close(gradient, torch.tensor([0.25 - 1, 0.75]))


def test_without_unlabelled_patches_cross_pseudo_supervision_learns_from_labels() -> None:
    terms = a_paradigm("cross_pseudo").loss(
        sources(SETTINGS)[0].batch(0), None, RAMPED, step_generator(0, 0)
    )
    assert float(terms.unlabelled.detach()) == 0.0
    assert float(terms.supervised.detach()) > 0.0


def test_the_partner_starts_elsewhere_and_the_average_starts_at_the_student() -> None:
    paradigm = a_paradigm("cross_pseudo")
    partner = paradigm.get_submodule("partner")
    assert not all(map(torch.equal, weights(paradigm.student), weights(partner)))
    assert all(map(torch.equal, weights(paradigm.student), weights(paradigm.average)))
    assert copy.deepcopy(paradigm).state_dict().keys() == paradigm.state_dict().keys()


# --- Confident labels -----------------------------------------------------------------------------


THRESHOLDS = FLAT.model_copy(
    update={
        "unlabelled_loss": "confident",
        "background_confidence": 0.9,
        "target_confidence": 0.7,
    }
)


def test_each_class_has_a_threshold_of_its_own() -> None:
    foreground = torch.tensor([0.05, 0.15, 0.55, 0.7, 0.95])
    probability = torch.stack([1 - foreground, foreground])[None]
    labels = confident_labels(probability, THRESHOLDS)
    assert labels.tolist() == [[0, IGNORED, IGNORED, 1, 1]]


def test_confident_labels_are_learnt_as_labels_are_and_the_rest_is_left_out() -> None:
    logits = torch.zeros(1, 2, 1, 2, requires_grad=True)
    probability = torch.tensor([[[[0.2, 0.5]], [[0.8, 0.5]]]])
    loss = pseudo_label_loss(logits, probability, THRESHOLDS)
    # One of two voxels is known, as class 1: ln 2 / 2, and 1 - (2 * 0.5 + 1) / (0.25 + 1 + 1).
    assert float(loss.detach()) == pytest.approx(math.log(2) / 2 + 1 - 2 / 2.25)
    (gradient,) = torch.autograd.grad(loss, [logits])
    assert gradient[..., 1].abs().max() == 0.0
    certain = torch.tensor([[[[0.0, 1.0]]]])
    assert float(pseudo_label_loss(logits, probability, THRESHOLDS, certain).detach()) == 0.0


CE_PLUS_DICE = math.log(4 / 3) + 1 - (2 * 0.75 * 16 + 1) / (16 * (9 / 16 + 1) + 1)
"""Of 16 voxels of class 1 to which the student gives 3/4."""


def test_a_confident_teacher_is_learnt_from_on_unlabelled_patches_alone() -> None:
    paradigm = build_ssl_method("mean_teacher", a_pixel_network(0.0, math.log(3)), THRESHOLDS)
    paradigm.average.load_state_dict(a_pixel_network(0.0, math.log(4))().state_dict())
    batch = a_batch(torch.zeros(1, 1, 4, 4))
    terms = paradigm.loss(batch, batch, RAMPED, step_generator(0, 0))
    assert float(terms.unlabelled.detach()) == pytest.approx(CE_PLUS_DICE, rel=1e-5)
    assert terms.shares()["share_unlabelled"] == terms.unlabelled / terms.total
    alone = paradigm.loss(batch, None, RAMPED, step_generator(0, 0))
    assert float(alone.unlabelled.detach()) == 0.0
    paradigm.average.load_state_dict(a_pixel_network(0.0, math.log(2))().state_dict())
    unsure = paradigm.loss(batch, batch, RAMPED, step_generator(0, 0))
    assert float(unsure.unlabelled.detach()) == 0.0


def test_partners_that_are_not_confident_do_not_teach_each_other() -> None:
    paradigm = build_ssl_method("cross_pseudo", a_pixel_network(0.0, math.log(3)), THRESHOLDS)
    partner = paradigm.get_submodule("partner")
    partner.load_state_dict(a_pixel_network(0.0, -math.log(4))().state_dict())
    batch = a_batch(torch.zeros(1, 1, 4, 4))
    term = paradigm.loss(batch, batch, RAMPED, step_generator(0, 0)).unlabelled
    # 4/5 is not enough of the background for the first; 3/4 is of class 1 for the second.
    dice = 1 - (2 * 0.2 * 16 + 1) / (16 * (0.04 + 1) + 1)
    assert float(term.detach()) == pytest.approx(math.log(5) + dice, rel=1e-5)


# --- UniMatch -------------------------------------------------------------------------------------


def test_unimatch_has_the_released_loss() -> None:
    """Four times (L_x + L_s1 / 4 + L_s2 / 4 + L_fp / 2) / 2, L_x being half of CE + Dice."""
    settings = FLAT.model_copy(update={"target_confidence": 0.7})
    paradigm = build_ssl_method("unimatch", a_pixel_network(0.0, math.log(3)), settings)
    batch = a_batch(torch.zeros(1, 1, 4, 4), label=1)
    terms = paradigm.loss(batch, batch, RAMPED, step_generator(0, 0))
    # The student says class 1 with 3/4 and is confident of it. Dice of class 1: 1 - 1.5 / 1.5625;
    # of class 0: 1. Its mean is the loss of each of the three streams.
    stream = (1 - 1.5 / 1.5625 + 1) / 2
    of_labels = CE_PLUS_DICE / 2
    released = (of_labels + stream / 4 + stream / 4 + stream / 2) / 2
    assert float(terms.total.detach()) == pytest.approx(4 * released, rel=1e-4)
    strict = FLAT.model_copy(update={"target_confidence": 0.95})
    unsure = build_ssl_method("unimatch", a_pixel_network(0.0, math.log(3)), strict)
    nothing = unsure.loss(batch, batch, RAMPED, step_generator(0, 0)).unlabelled
    assert float(nothing.detach()) == 0.0


def test_confident_unimatch_learns_its_labels_as_it_learns_those_of_a_human() -> None:
    paradigm = build_ssl_method("unimatch", a_pixel_network(0.0, math.log(3)), THRESHOLDS)
    batch = a_batch(torch.zeros(1, 1, 4, 4), label=1)
    terms = paradigm.loss(batch, batch, RAMPED, step_generator(0, 0))
    assert float(terms.unlabelled.detach()) == pytest.approx(CE_PLUS_DICE, rel=1e-5)


@each_loss
def test_a_cutmix_box_brings_the_label_of_the_patch_that_it_is_of(unlabelled_loss: str) -> None:
    settings = FLAT.model_copy(
        update={
            "unlabelled_loss": unlabelled_loss,
            "patch_size": 16,
            "unimatch": UniMatchConfig(cutmix_share=1.0),
        }
    )
    paradigm = build_ssl_method("unimatch", a_pixel_network(1.0), settings)
    assert isinstance(paradigm, UniMatch)
    inputs = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16)  # patch n has the value n
    labels = inputs[:, 0].long() * 10
    labelled = Batch(inputs + 4, labels + 40, torch.ones(4))
    sources: set[int] = set()
    for step in range(20):
        mixed, classes = paradigm.strong(labelled, inputs, labels, step_generator(0, step))
        assert torch.equal((mixed[:, 0] * 10).long(), classes)
        assert (mixed[:, 0] != inputs[:, 0]).flatten(1).any(1).all()
        sources |= set(mixed.unique().int().tolist())
    assert sources == set(range(4 if unlabelled_loss == "published" else 8))


def test_the_strong_streams_are_changed_beyond_how_patches_are_drawn_and_each_otherwise() -> None:
    settings = SETTINGS.model_copy(update={"perturbation_strength": 1.0})
    paradigm = a_paradigm("unimatch", settings)
    batch = sources(settings)[1].batch(0)
    seen: list[Tensor] = []
    paradigm.student.register_forward_hook(lambda *call: seen.append(call[1][0]))
    paradigm.loss(batch, batch, RAMPED, step_generator(0, 0))
    of_labels, weak, dropped, first, second = seen
    assert torch.equal(weak, batch.inputs)
    assert torch.equal(dropped, batch.inputs)
    assert not torch.equal(first, second)
    assert torch.equal(of_labels, batch.inputs)


# --- Bidirectional copy-paste ---------------------------------------------------------------------


def paste_loss(p: float, y: int, voxels: int) -> float:
    """Return CE + Dice of voxels of class y to whose class 1 the student gives p."""
    dice = 1 - (2 * p * y * voxels + 1) / ((p * p + y) * voxels + 1)
    return -math.log(p if y else 1 - p) + dice


def test_copy_paste_has_the_published_loss() -> None:
    """Of both ways the mean of S(labelled part) + alpha S(pseudo-labelled part)."""
    paradigm = build_ssl_method("bidirectional_copy_paste", a_pixel_network(0.0, math.log(3)), FLAT)
    paradigm.average.load_state_dict(a_pixel_network(0.0, -math.log(4))().state_dict())
    labelled, unlabelled = (a_batch(torch.zeros(2, 1, 4, 4), label) for label in (1, 1))
    terms = paradigm.loss(labelled, unlabelled, RAMPED, step_generator(0, 0))
    # Two thirds of 4 pixels are 2: the box has 4 of 16. The teacher says class 0.
    inside, around = 4, 12
    of_labels = (paste_loss(0.75, 1, inside) + paste_loss(0.75, 1, around)) / 2
    of_teacher = (paste_loss(0.75, 0, around) + paste_loss(0.75, 0, inside)) / 2
    assert float(terms.supervised.detach()) == pytest.approx(of_labels, rel=1e-5)
    assert float(terms.unlabelled.detach()) == pytest.approx(0.5 * of_teacher, rel=1e-5)


def test_the_labelled_part_lies_in_the_box_in_one_half_and_around_it_in_the_other() -> None:
    paradigm = build_ssl_method("bidirectional_copy_paste", a_pixel_network(1.0), FLAT)
    seen: list[Tensor] = []
    paradigm.student.register_forward_hook(lambda *call: seen.append(call[1][0]))
    labelled, unlabelled = a_batch(torch.ones(3, 1, 4, 4)), a_batch(torch.zeros(3, 1, 4, 4))
    paradigm.loss(labelled, unlabelled, RAMPED, step_generator(0, 0))
    first, second = seen
    assert [int(patch.sum()) for patch in first] == [4, 4]
    assert [int(patch.sum()) for patch in second] == [12]
    assert torch.equal(first[0], 1 - second[0])


def test_a_single_patch_is_mixed_one_way() -> None:
    paradigm = build_ssl_method("bidirectional_copy_paste", a_pixel_network(0.0, math.log(3)), FLAT)
    batch = a_batch(torch.zeros(1, 1, 4, 4), label=1)
    terms = paradigm.loss(batch, batch, RAMPED, step_generator(0, 0))
    assert float(terms.supervised.detach()) == pytest.approx(paste_loss(0.75, 1, 4), rel=1e-5)


def test_labelled_patches_are_mixed_with_each_other_at_first() -> None:
    paradigm = build_ssl_method("bidirectional_copy_paste", a_pixel_network(0.0, math.log(3)), FLAT)
    seen: list[Tensor] = []
    paradigm.student.register_forward_hook(lambda *call: seen.append(call[1][0]))
    inputs = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    labelled = Batch(inputs, inputs[:, 0].long(), torch.ones(2))
    before = paradigm.loss(labelled, labelled, 24, step_generator(0, 0))
    assert [int(patch.sum()) for patch in seen[0]] == [12, 4]
    assert float(before.unlabelled.detach()) == 0.0
    # In the boxes 4 voxels are of class 0 and 4 of class 1, around them 12 of each.
    cross_entropy = (math.log(4 / 3) + math.log(4)) / 2
    of_boxes, of_rest = (
        cross_entropy + 1 - (2 * 0.75 * n + 1) / (2 * n * 9 / 16 + n + 1) for n in (4, 12)
    )
    assert float(before.supervised.detach()) == pytest.approx((of_boxes + of_rest) / 2, rel=1e-5)
    after = paradigm.loss(labelled, labelled, 25, step_generator(0, 0))
    assert float(after.unlabelled.detach()) > 0.0


def test_the_first_pseudo_labels_are_those_of_the_student_and_not_of_its_first_steps() -> None:
    paradigm = build_ssl_method("bidirectional_copy_paste", a_pixel_network(1.0), FLAT)
    bias = []
    for step, value in ((23, 8.0), (24, 4.0), (25, 2.0), (26, 1.0)):
        paradigm.student.bias.data[1] = value  # type: ignore[union-attr, operator, index]
        paradigm.after_step(step)
        bias.append(float(paradigm.average.bias[1]))  # type: ignore[index, arg-type]
    assert bias == [8.0, 4.0, 2.0, 1.5]  # an average begins after a quarter of 100 steps


def test_of_each_class_the_largest_component_is_kept() -> None:
    labels = torch.tensor([[[1, 1, 0, 1], [0, 0, 0, 0], [2, 0, 2, 2], [0, 0, 0, 2]]])
    kept = largest_components(labels, 3)
    assert kept.tolist() == [[[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 2, 2], [0, 0, 0, 2]]]
    assert not largest_components(torch.zeros_like(labels), 3).any()


@pytest.mark.parametrize("parent", [False, True])
def test_several_components_stay_within_a_parent(parent: bool) -> None:
    paradigm = build_ssl_method("bidirectional_copy_paste", a_network_of_channels(1 + parent), FLAT)
    assert isinstance(paradigm, BidirectionalCopyPaste)
    inputs = torch.full((1, 1 + parent, 4, 4), -3.0)
    inputs[0, 0, 0, 0] = inputs[0, 0, 2, 2:] = 3.0
    found = paradigm.pseudo_labels(inputs)
    assert int(found.sum()) == (3 if parent else 2)


def test_where_the_teacher_is_not_confident_nothing_is_learnt() -> None:
    paradigm = build_ssl_method("bidirectional_copy_paste", a_pixel_network(1.0), THRESHOLDS)
    assert isinstance(paradigm, BidirectionalCopyPaste)
    inputs = torch.tensor([-3.0, -1.0, 0.5, 3.0]).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    assert paradigm.pseudo_labels(inputs)[0, 0].tolist() == [0, IGNORED, IGNORED, 1]


def a_network_of_channels(channels: int) -> Callable[[], nn.Module]:
    """Return a maker of networks whose second class has the first channel as its log-odds."""

    def build() -> nn.Module:
        layer = nn.Conv2d(channels, 2, 1, bias=False)
        layer.weight.data.zero_()
        layer.weight.data[1, 0] = 1.0
        return layer

    return build
