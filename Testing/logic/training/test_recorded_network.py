"""A recorded network is replayed where that changes no result, and is called itself elsewhere."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aslseg.config import SpecialistConfig, SSLName
from aslseg.context import RunContext
from aslseg.distributed import WorkPart
from aslseg.errors import CancelledError, DeviceError
from aslseg.events import Event, Monitor, Notice
from aslseg.networks.unet import build_network
from aslseg.preprocessing.patches import BatchSource, TrainingCase
from aslseg.preprocessing.roi import build_roi
from aslseg.project.run_folder import create_run
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training import cascade, recorded_network
from aslseg.training import trainer as trainer_module
from aslseg.training.cascade import CascadeTrainingPlan, train_cascade
from aslseg.training.recorded_network import (
    LEAST_STEPS,
    STEPS_BEFORE,
    NetworkRecorder,
    record_passes,
)
from aslseg.training.ssl import SSL_METHODS, build_ssl_method
from aslseg.training.ssl.base import SSLMethod
from aslseg.training.trainer import Prefetch, Schedule, Trainer, network_recorder
from support.recorded_networks import RecordingDouble
from support.tiny_project import SPECIALIST, a_patient, a_tiny_project, tiny_config

DEVICE = torch.device(os.environ.get("ASLSEG_TEST_DEVICE", "cpu"))
on_a_card = pytest.mark.skipif(
    DEVICE.type != "cuda", reason="CUDA graphs need a graphics card: set ASLSEG_TEST_DEVICE=cuda"
)
each = pytest.mark.parametrize("name", list(SSL_METHODS))
OF_LIVER, _ = cascade_stages(LIVER_TARGETS)
SETTINGS = SPECIALIST.model_copy(
    update={
        "iterations": 100,
        "batch_size": 4,
        "patch_size": 16,
        "uncertainty_passes": 2,
        "background_confidence": 0.5,
        "target_confidence": 0.5,
    }
)


def nothing() -> None:
    return None


class Steps:
    """Steps of a training, with a recorder and what it records."""

    def __init__(self, network: nn.Module, error: RuntimeError | None = None) -> None:
        self.network = network
        self.double = RecordingDouble(error)
        self.settled = 0
        self.recorder = NetworkRecorder("training", self._settle, self.double)
        self.plain: list[torch.Size] = []
        network.register_forward_hook(lambda _, inputs, __: self.plain.append(inputs[0].shape))

    def _settle(self) -> None:
        assert self.double.asked == self.settled
        self.settled += 1

    def take(self, *batches: Tensor, left: int = LEAST_STEPS, undivided: bool = True) -> None:
        """Take a step with a call for each batch, of whose outputs the sum is the loss."""
        self.network.zero_grad(set_to_none=True)
        self.recorder.begin_step(left, undivided=undivided)
        found = [self.recorder(self.network, batch) for batch in batches]
        sum(each.square().sum() for each in found).backward()  # type: ignore[union-attr]


def a_network(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *more, nn.Tanh(), nn.Linear(6, 1))


def a_batch(size: int = 2) -> Tensor:
    return torch.linspace(-1, 1, 4 * size).view(size, 4)


def gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


@pytest.fixture
def repeatable() -> Iterator[None]:
    """Let convolutions of a card give the same sums each time."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


# --- When a network is recorded -------------------------------------------------------------------


def test_a_network_is_recorded_once_after_some_steps_and_replayed_from_there() -> None:
    steps = Steps(a_network())
    for _ in range(STEPS_BEFORE):
        steps.take(a_batch())
    assert not steps.double.asked
    assert not steps.recorder.holds_memory
    for _ in range(5):
        steps.take(a_batch())
    assert steps.double.replays == [5]
    assert steps.settled == 1
    assert steps.recorder.holds_memory


def test_a_short_training_is_not_recorded() -> None:
    steps = Steps(a_network())
    for left in range(LEAST_STEPS + STEPS_BEFORE - 1, 0, -1):
        steps.take(a_batch(), left=left)
    assert not steps.double.asked
    longer = Steps(a_network())
    for left in range(LEAST_STEPS + STEPS_BEFORE, 0, -1):
        longer.take(a_batch(), left=left)
    assert longer.double.replays == [LEAST_STEPS]


@pytest.mark.parametrize(
    ("layer", "recorded"),
    [
        (nn.Dropout(0.1), False),
        (nn.Dropout(0.0), True),
        (nn.BatchNorm1d(6), False),
        (nn.LayerNorm(6), True),
    ],
)
def test_a_network_that_draws_or_counts_is_not_recorded(layer: nn.Module, recorded: bool) -> None:
    steps = Steps(a_network(layer))
    for _ in range(STEPS_BEFORE + 2):
        steps.take(a_batch())
    assert steps.double.replays == ([2] if recorded else [])


def test_another_shape_is_recorded_anew_if_it_stays() -> None:
    steps = Steps(a_network())
    for size in [2] * 5 + [3] * 6:
        steps.take(a_batch(size))
    assert steps.double.replays == [2, 3]
    assert steps.settled == 2


def test_shapes_that_change_from_step_to_step_are_never_recorded() -> None:
    steps = Steps(a_network())
    for n in range(12):
        steps.take(a_batch(2 + n % 2))
    assert not steps.double.asked


def test_a_network_whose_recording_fails_is_called_itself_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = a_network()
    steps = Steps(network, torch.cuda.OutOfMemoryError("CUDA out of memory."))
    with caplog.at_level(logging.INFO, recorded_network.__name__):
        for _ in range(STEPS_BEFORE + 4):
            steps.take(a_batch())
    assert steps.double.asked == 1
    assert len(steps.plain) == STEPS_BEFORE + 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "training: networks are not recorded" in caplog.text
    assert "CUDA out of memory." in caplog.text


def test_the_log_says_what_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps(a_network())
    with caplog.at_level(logging.INFO, recorded_network.__name__):
        for _ in range(STEPS_BEFORE + 2):
            steps.take(a_batch())
    assert caplog.messages == ["training: the network is recorded, for inputs of 2 x 4."]


def test_a_processor_and_processes_that_share_a_training_record_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Prefetch(lambda step, _: step, 1, 0) as batches:
        on_cpu = network_recorder("s", torch.device("cpu"), batches)
        assert isinstance(on_cpu, nullcontext)
        on_cuda = network_recorder("s", torch.device("cuda"), batches)
        assert isinstance(on_cuda, NetworkRecorder)
        monkeypatch.setattr(trainer_module, "my_part", lambda: WorkPart(0, 2))
        shared = network_recorder("s", torch.device("cuda"), batches)
        assert isinstance(shared, nullcontext)


# --- Which calls are replayed ---------------------------------------------------------------------


def recorded_steps() -> Steps:
    steps = Steps(a_network())
    for _ in range(STEPS_BEFORE + 1):
        steps.take(a_batch())
    assert steps.double.replays == [1]
    steps.plain.clear()
    return steps


def test_the_second_call_of_a_step_goes_to_the_network_and_gradients_are_those_of_both() -> None:
    steps = recorded_steps()
    other = a_batch().flip(0, 1) * 2
    steps.take(a_batch(), other)
    assert steps.double.replays == [2]
    assert len(steps.plain) == 2  # one of them within the double
    plain = a_network()
    (plain(a_batch()).square().sum() + plain(other).square().sum()).backward()
    torch.testing.assert_close(gradients(steps.network), gradients(plain))


@pytest.mark.parametrize("of", ["shape", "type", "gradient", "eval", "no_grad", "divided"])
def test_other_calls_go_to_the_network(of: str) -> None:
    steps = recorded_steps()
    steps.recorder.begin_step(LEAST_STEPS, undivided=of != "divided")
    steps.network.train(of != "eval")
    inputs = a_batch(3 if of == "shape" else 2).requires_grad_(of == "gradient")
    if of == "type":
        inputs = inputs.double()
        steps.network.double()
    with torch.set_grad_enabled(of != "no_grad"):
        found = steps.recorder(steps.network, inputs)
    assert steps.double.replays == [1]
    torch.testing.assert_close(found, steps.network(inputs))


def test_what_is_tried_before_the_first_step_goes_to_the_network() -> None:
    steps = Steps(a_network())
    for _ in range(2 * STEPS_BEFORE):
        steps.recorder(steps.network, a_batch())
    assert not steps.double.asked


def test_networks_of_a_step_have_recordings_of_their_own() -> None:
    first, second = a_network(), a_network()
    double = RecordingDouble()
    recorder = NetworkRecorder("training", nothing, double)
    for _ in range(STEPS_BEFORE + 2):
        recorder.begin_step(LEAST_STEPS, undivided=True)
        (recorder(first, a_batch()) * recorder(second, a_batch())).sum().backward()
    assert [passes.network for passes in double.made] == [first, second]
    assert double.replays == [2, 2]


def test_the_memory_is_given_back_at_the_end() -> None:
    steps = Steps(a_network())
    with steps.recorder:
        for _ in range(STEPS_BEFORE + 1):
            steps.take(a_batch())
        assert steps.recorder.holds_memory
    assert not steps.recorder.holds_memory
    for _ in range(STEPS_BEFORE + 1):
        steps.take(a_batch())
    assert steps.double.replays == [1]


def test_the_network_and_its_copies_stay_as_they_are() -> None:
    steps = recorded_steps()
    plain = a_network()
    assert list(steps.network.state_dict()) == list(plain.state_dict())
    copied = copy.deepcopy(steps.network).eval()
    torch.testing.assert_close(copied(a_batch()), plain(a_batch()))
    assert steps.double.replays == [1]


# --- In a training --------------------------------------------------------------------------------


def test_a_card_without_memory_frees_the_recordings_before_batches_are_divided(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, double, events = a_network(), RecordingDouble(), list[Event]()
    recorder = NetworkRecorder("training", nothing, double)
    sizes: list[int] = []

    def step_loss(step: int, _: torch.Generator, part: WorkPart) -> dict[str, Tensor]:
        inputs = part.share(a_batch(4))
        found = recorder(network, inputs)
        sizes.append(len(inputs))
        if step == 10 and (recorder.holds_memory or len(inputs) > 2):
            msg = "CUDA out of memory."
            raise torch.cuda.OutOfMemoryError(msg)
        return {"loss": found.square().mean()}

    def run(most_parts: int) -> None:
        schedule = Schedule("training", LEAST_STEPS + 12, 0.01)
        cpu = torch.device("cpu")
        trainer = Trainer(
            network, schedule, cpu, tmp_path, precise=True, most_parts=most_parts, recorder=recorder
        )
        trainer.run(step_loss, Monitor(events.append))

    run(most_parts=4)
    assert double.replays == [8]
    assert "networks are not recorded, and steps take longer: the graphics card" in caplog.text
    assert sizes[:10] == [4] * 10
    assert sizes[10:14] == [4, 4, 2, 2]
    assert [e.message for e in events if isinstance(e, Notice)] == [
        "training: the graphics card ran out of memory; from step 10 on each batch is computed in "
        "2 parts, one after the other."
    ]
    with pytest.raises(DeviceError, match="does not fit"):
        run(most_parts=1)


def sources() -> tuple[BatchSource, BatchSource]:
    """Return labelled patches of one patient and unlabelled ones of another."""
    cases = []
    for seed in (0, 1):
        volume, labels = a_patient(seed)
        roi = build_roi(volume, OF_LIVER, SETTINGS, labels=labels, targets=LIVER_TARGETS)
        cases.append(TrainingCase(roi if seed == 0 else replace(roi, labels=None)))
    return (
        BatchSource(cases[:1], SETTINGS, 0, 0, device=DEVICE),
        BatchSource(cases[1:], SETTINGS, 0, 1, device=DEVICE),
    )


def a_method(name: SSLName, settings: SpecialistConfig = SETTINGS) -> SSLMethod:
    torch.manual_seed(0)
    method = build_ssl_method(name, lambda: build_network(OF_LIVER, settings), settings)
    return method.to(DEVICE)


class Training:
    """A training of a paradigm, with the losses of its steps."""

    def __init__(
        self, name: SSLName, folder: Path, steps: int, recorder: NetworkRecorder | None
    ) -> None:
        self.method = a_method(name)
        self.method.recorder = self.recorder = recorder
        self.folder, self.steps = folder, steps
        self.losses: list[float] = []
        self.stop: int | None = None

    def run(self, *, precise: bool = True) -> Training:
        labelled, unlabelled = sources()
        monitor = Monitor()

        def after_step(step: int) -> None:
            self.method.after_step(step)
            if step + 1 == self.stop:
                monitor.token.cancel()

        def step_loss(step: int, generator: torch.Generator, _: WorkPart) -> dict[str, Tensor]:
            extra = unlabelled.batch(step) if self.method.uses_unlabelled else None
            # The later part of the schedule, in which all terms count.
            terms = self.method.loss(labelled.batch(step), extra, 40 + step, generator)
            self.losses.append(float(terms.total.detach()))
            return {"loss": terms.total}

        Trainer(
            self.method,
            Schedule("s", self.steps, 0.005, seed=1),
            DEVICE,
            self.folder,
            after_step,
            precise=precise,
            recorder=self.recorder,
        ).run(step_loss, monitor)
        return self


def closely(first: SSLMethod, second: SSLMethod, *, share: float) -> bool:
    """Whether weights differ by no more than a share of their size."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(float((a - b).norm()) <= share * float(b.norm()) + 1e-6 for a, b in pairs)


@each
@pytest.mark.usefixtures("repeatable")
def test_each_paradigm_ends_with_the_weights_of_plain_networks(
    name: SSLName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_network, "LEAST_STEPS", 1)
    double = RecordingDouble()
    recorder = NetworkRecorder("s", nothing, double)
    plain = Training(name, tmp_path, 10, None).run()
    recorded = Training(name, tmp_path, 10, recorder).run()
    assert double.replays == [10 - STEPS_BEFORE] * (2 if name == "cross_pseudo" else 1)
    assert recorded.losses == pytest.approx(plain.losses, rel=1e-3)
    assert closely(recorded.method, plain.method, share=1e-3)


def test_nothing_is_prepared_beside_a_recording() -> None:
    done: list[int] = []

    def prepare(step: int, _: WorkPart) -> int:
        if step:
            torch.randn(300, 300).inverse()
        done.append(step)
        return step

    with Prefetch(prepare, 9, 3) as batches:
        assert batches(0) == 0
        batches.settle()
        assert sorted(done) == [0, 1, 2, 3]


# --- On a graphics card ---------------------------------------------------------------------------


@on_a_card
@pytest.mark.usefixtures("repeatable")
@pytest.mark.parametrize("mixed", [True, False])
def test_recorded_gradients_are_those_of_the_network(mixed: bool) -> None:
    network = a_method("supervised").student
    labelled, _ = sources()
    with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        passes = record_passes(network, labelled.batch(0).inputs)
    for step in range(1, 4):
        inputs = labelled.batch(step).inputs
        found = []
        for call in (network, passes):
            network.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
                logits = call(inputs).float()
            logits.softmax(1).square().mean().backward()
            found.append([logits.detach().clone(), *gradients(network)])
        for plain, recorded in zip(*found, strict=True):
            assert float(plain.norm()) > 0
            assert float((recorded - plain).norm()) <= 0.01 * float(plain.norm())
        with torch.no_grad():  # as an optimiser does, in place
            for weight in network.parameters():
                weight.mul_(1.05)


@on_a_card
@pytest.mark.usefixtures("repeatable")
@each
def test_losses_of_each_paradigm_are_those_of_plain_networks_on_a_card(
    name: SSLName,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    steps = LEAST_STEPS + 10
    plain = Training(name, tmp_path, steps, None).run(precise=False)
    with (
        NetworkRecorder("s", torch.cuda.synchronize) as recorder,
        caplog.at_level(logging.INFO, recorded_network.__name__),
    ):
        recorded = Training(name, tmp_path, steps, recorder).run(precise=False)
        assert recorder.holds_memory
    assert all("is recorded" in message for message in caplog.messages)
    assert len(caplog.messages) == (2 if name == "cross_pseudo" else 1)
    assert not [str(w.message) for w in recwarn if "stream" in str(w.message)]
    # bfloat16 has three digits; sums of gradients are taken in any order.
    first = slice(STEPS_BEFORE, STEPS_BEFORE + 10)
    assert recorded.losses[first] == pytest.approx(plain.losses[first], rel=0.02, abs=0.01)
    assert sum(recorded.losses[-10:]) == pytest.approx(sum(plain.losses[-10:]), rel=0.1)
    assert sum(recorded.losses[-10:]) < sum(recorded.losses[:10])


@on_a_card
@pytest.mark.usefixtures("repeatable")
def test_a_resumed_training_is_recorded_again_and_ends_like_one_that_never_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def train(stop: int | None) -> Training:
        with NetworkRecorder("s", torch.cuda.synchronize) as recorder:
            training = Training("mean_teacher", tmp_path, LEAST_STEPS + 30, recorder)
            training.stop = stop
            return training.run(precise=True)

    with caplog.at_level(logging.INFO, recorded_network.__name__):
        unbroken = train(None)
        with pytest.raises(CancelledError):
            train(10)
        resumed = train(None)
    assert caplog.messages == ["s: the network is recorded, for inputs of 8 x 3 x 16 x 16."] * 3
    assert resumed.losses == pytest.approx(unbroken.losses[10:], rel=0.02, abs=0.01)
    assert closely(resumed.method, unbroken.method, share=0.05)


@on_a_card
@pytest.mark.usefixtures("repeatable")
def test_a_training_goes_on_when_a_recording_finds_no_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def without_memory(network: nn.Module, inputs: Tensor) -> Callable[[Tensor], Tensor]:
        torch.cuda.set_per_process_memory_fraction(1e-6)
        try:
            return record_passes(network, inputs)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    recorder = NetworkRecorder("s", torch.cuda.synchronize, without_memory)
    plain = Training("mean_teacher", tmp_path, LEAST_STEPS + 10, None).run()
    training = Training("mean_teacher", tmp_path, LEAST_STEPS + 10, recorder).run()
    assert "networks are not recorded" in caplog.text
    assert "memory" in caplog.text
    assert training.losses[:20] == pytest.approx(plain.losses[:20], rel=0.02, abs=0.01)
    with NetworkRecorder("s", torch.cuda.synchronize) as later:
        Training("mean_teacher", tmp_path, LEAST_STEPS + 10, later).run()
        assert later.holds_memory


@on_a_card
@pytest.mark.usefixtures("repeatable")
def test_both_stages_of_a_cascade_are_recorded_and_free_their_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = a_tiny_project(tmp_path)
    longer = SPECIALIST.model_copy(update={"iterations": LEAST_STEPS + 30})
    config = tiny_config(organ=longer, lesion=longer)
    run = create_run(project.folder, config)
    context = RunContext(project, config, run, DEVICE, Monitor())

    def reserved_after(name: str) -> int:
        train_cascade(context, CascadeTrainingPlan(tmp_path / name, "mean_teacher", {}, {}))
        recorded_network._free()
        return torch.cuda.memory_reserved()

    with caplog.at_level(logging.INFO, recorded_network.__name__):
        first, second = reserved_after("first"), reserved_after("second")
        assert len(caplog.messages) == 4
        assert all("is recorded" in message for message in caplog.messages)
        assert second <= first
        caplog.clear()
        monkeypatch.setattr(cascade, "network_recorder", lambda *_: nullcontext())
        reserved_after("plain")
        assert not caplog.messages
