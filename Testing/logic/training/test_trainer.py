"""A training that was stopped and went on ends with the very weights of one that did not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aslseg.distributed import WorkPart
from aslseg.errors import CancelledError, RunError, WeightsError
from aslseg.events import Event, Metric, Monitor, Progress
from aslseg.training import trainer as training
from aslseg.training.trainer import (
    Prefetch,
    Schedule,
    StepLoss,
    Trainer,
    spare_threads,
    step_generator,
)

CPU = torch.device("cpu")
SCHEDULE = Schedule("network", steps=9, learning_rate=0.05, seed=3, snapshots=(1 / 3, 2 / 3))


def a_module() -> nn.Module:
    """Return a small network with dropout and statistics, the same at every call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))


def step_loss_of(module: nn.Module) -> StepLoss:
    def step_loss(step: int, generator: torch.Generator, _: WorkPart) -> dict[str, Tensor]:
        inputs = torch.randn(8, 4, generator=generator)
        loss = (module(inputs)[:, 0] - inputs.sum(1)).square().mean()
        return {"loss": loss, "half": loss / 2}

    return step_loss


def a_trainer(
    folder: Path, module: nn.Module, schedule: Schedule = SCHEDULE, **hooks: Callable[[int], None]
) -> Trainer:
    return Trainer(module, schedule, CPU, folder, precise=True, **hooks)  # type: ignore[arg-type]


def train(folder: Path, schedule: Schedule = SCHEDULE) -> dict[str, Tensor]:
    module = a_module()
    a_trainer(folder, module, schedule).run(step_loss_of(module), Monitor())
    return module.state_dict()


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def stopping_after(trainer_steps: int) -> tuple[Monitor, Callable[[int], None]]:
    monitor = Monitor()

    def after_step(step: int) -> None:
        if step + 1 == trainer_steps:
            monitor.token.cancel()

    return monitor, after_step


def test_training_lowers_the_loss_and_leaves_no_state(tmp_path: Path) -> None:
    events: list[Event] = []
    module = a_module()
    schedule = Schedule("network", steps=61, learning_rate=0.05)
    a_trainer(tmp_path, module, schedule).run(step_loss_of(module), Monitor(events.append))
    losses = {e.step: e.value for e in events if isinstance(e, Metric) and e.name == "loss"}
    assert list(losses) == [0, 10, 20, 30, 40, 50, 60]
    assert losses[60] < losses[0] / 2
    assert {e.name for e in events if isinstance(e, Metric)} == {"loss", "half"}
    progress = [e for e in events if isinstance(e, Progress)]
    assert (progress[-1].task, progress[-1].step, progress[-1].of) == ("network", 61, 61)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("stop", [1, 4, 8, 9])
def test_a_stopped_training_goes_on_to_the_same_weights(
    tmp_path: Path, optimiser: str, stop: int
) -> None:
    schedule = Schedule("network", 9, 0.05, optimiser=optimiser, seed=3)
    unbroken = train(tmp_path, schedule)
    monitor, after_step = stopping_after(stop)
    module = a_module()
    stopped = a_trainer(tmp_path, module, schedule, after_step=after_step)
    with pytest.raises(CancelledError):
        stopped.run(step_loss_of(module), monitor)
    assert stopped.state_path.name == "network.training.safetensors"
    assert stopped.state_path.exists()
    torch.manual_seed(99)  # another process has another random state
    torch.rand(7)
    assert equal(train(tmp_path, schedule), unbroken)
    assert not stopped.state_path.exists()


def test_a_training_stopped_before_its_first_step_starts_anew(tmp_path: Path) -> None:
    unbroken = train(tmp_path)
    monitor, module = Monitor(), a_module()
    monitor.token.cancel()
    with pytest.raises(CancelledError):
        a_trainer(tmp_path, module).run(step_loss_of(module), monitor)
    assert equal(train(tmp_path), unbroken)


def test_a_training_that_died_goes_on_from_its_last_saved_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    unbroken = train(tmp_path)
    module, taken = a_module(), []

    def die(step: int) -> None:
        if step == 5:
            raise OSError("killed")  # noqa: EM101

    with pytest.raises(OSError, match="killed"):
        a_trainer(tmp_path, module, after_step=die).run(step_loss_of(module), Monitor())
    again = a_module()
    resumed = a_trainer(tmp_path, again, after_step=taken.append)
    resumed.run(step_loss_of(again), Monitor())
    assert taken == [4, 5, 6, 7, 8]
    assert equal(again.state_dict(), unbroken)


def test_progress_of_a_resumed_training_counts_the_steps_of_before(tmp_path: Path) -> None:
    monitor, after_step = stopping_after(4)
    module = a_module()
    with pytest.raises(CancelledError):
        a_trainer(tmp_path, module, after_step=after_step).run(step_loss_of(module), monitor)
    events: list[Event] = []
    again = a_module()
    a_trainer(tmp_path, again).run(step_loss_of(again), Monitor(events.append))
    progress = [(e.step, e.of) for e in events if isinstance(e, Progress)]
    assert progress[0] == (4, 9)
    assert progress[-1] == (9, 9)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Schedule("network", 12, 0.05, seed=3), id="steps"),
        pytest.param(Schedule("network", 9, 0.05, seed=4), id="seed"),
    ],
)
def test_the_state_of_another_training_is_refused(tmp_path: Path, other: Schedule) -> None:
    monitor, after_step = stopping_after(4)
    module = a_module()
    with pytest.raises(CancelledError):
        a_trainer(tmp_path, module, after_step=after_step).run(step_loss_of(module), monitor)
    with pytest.raises(RunError, match=r"belongs to other settings .* delete it"):
        train(tmp_path, other)


def test_a_state_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    monitor, after_step = stopping_after(4)
    module = a_module()
    trainer = a_trainer(tmp_path, module, after_step=after_step)
    with pytest.raises(CancelledError):
        trainer.run(step_loss_of(module), monitor)
    trainer.state_path.write_bytes(trainer.state_path.read_bytes()[:-40])
    with pytest.raises(WeightsError, match="damaged or cut off"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param(9, [(3, 0), (6, 1)], id="thirds"),
        pytest.param(3, [(1, 0), (2, 1)], id="three steps"),
        pytest.param(2, [(1, 0), (1, 1)], id="two steps"),
        pytest.param(1, [(1, 0), (1, 1)], id="one step"),
    ],
)
def test_every_snapshot_is_taken_however_short_the_schedule(
    tmp_path: Path, steps: int, expected: list[tuple[int, int]]
) -> None:
    module, done, taken = a_module(), [0], []

    def count(_: int) -> None:
        done[0] += 1

    schedule = Schedule("network", steps, 0.05, snapshots=(1 / 3, 2 / 3))
    trainer = a_trainer(
        tmp_path, module, schedule, after_step=count, snapshot=lambda n: taken.append((done[0], n))
    )
    trainer.run(step_loss_of(module), Monitor())
    assert taken == expected


def test_the_learning_rate_follows_its_schedule(tmp_path: Path) -> None:
    """With plain gradient descent on a slope of 1, a parameter falls by the learning rate."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    seen = []
    schedule = Schedule("network", 4, 0.1, weight_decay=0.0, optimiser="adamw")
    a_trainer(
        tmp_path, module, schedule, after_step=lambda _: seen.append(module.weight.item())
    ).run(lambda *_: {"loss": module.weight.sum()}, Monitor())
    steps = [before - after for before, after in zip([0.0, *seen], seen, strict=False)]
    # Adam on a constant slope goes by exactly the rate.
    assert steps == pytest.approx([0.1 * (1 - t / 4) ** 0.9 for t in range(4)], rel=1e-4)


def test_a_steep_loss_is_clipped(tmp_path: Path) -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    schedule = Schedule("network", 1, 0.1, weight_decay=0.0, optimiser="sgd")
    a_trainer(tmp_path, module, schedule).run(
        lambda *_: {"loss": 1000 * module.weight.sum()}, Monitor()
    )
    assert module.weight.item() == pytest.approx(-0.5)  # a gradient of norm 5, not 1000


def test_what_is_frozen_stays_as_it_is(tmp_path: Path) -> None:
    module = a_module()
    module[0].requires_grad_(False)  # type: ignore[index]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    a_trainer(tmp_path, module).run(step_loss_of(module), Monitor())
    after = module.state_dict()
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["3.weight"], after["3.weight"])
    with pytest.raises(ValueError, match="no trainable parameters"):
        a_trainer(tmp_path, a_module().requires_grad_(False))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training_in_words(tmp_path: Path, value: float) -> None:
    module = a_module()
    usual = step_loss_of(module)

    def step_loss(step: int, generator: torch.Generator, part: WorkPart) -> dict[str, Tensor]:
        loss = usual(step, generator, part)["loss"]
        return {"loss": loss * value if step == 2 else loss}

    with pytest.raises(RunError, match=r"network diverged at step 2.*Lower the learning rate"):
        a_trainer(tmp_path, module).run(step_loss, Monitor())


def test_a_gradient_that_is_no_number_ends_the_training_before_weights_are_spoilt(
    tmp_path: Path,
) -> None:
    """The root of 0 has a finite value and an infinite slope."""
    module = a_module()
    usual = step_loss_of(module)

    def step_loss(step: int, generator: torch.Generator, part: WorkPart) -> dict[str, Tensor]:
        loss = usual(step, generator, part)["loss"]
        return {"loss": loss + (loss - loss.detach()).sqrt() if step == 8 else loss}

    with pytest.raises(RunError, match=r"network diverged at step 8: the gradient .* Resuming"):
        a_trainer(tmp_path, module).run(step_loss, Monitor())
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def spoiling(module: nn.Module, at: int) -> Callable[[int], None]:
    def after_step(step: int) -> None:
        if step == at:
            next(module.parameters()).data[0, 0] = torch.nan

    return after_step


@pytest.mark.parametrize(
    ("step", "every"),
    [
        pytest.param(8, 250, id="after the last step"),
        pytest.param(2, 250, id="before a snapshot"),
        pytest.param(5, 2, id="before a state is written"),
    ],
)
def test_weights_that_are_no_numbers_end_their_own_stage_and_the_last_good_state_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, every: int
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", every)
    unbroken = train(tmp_path)
    module, kept = a_module(), []
    trainer = a_trainer(tmp_path, module, after_step=spoiling(module, step), snapshot=kept.append)
    with pytest.raises(RunError, match=rf"network diverged at step {step}: the weights are no num"):
        trainer.run(step_loss_of(module), Monitor())
    assert len(kept) == {8: 2, 5: 1, 2: 0}[step]
    assert trainer.state_path.exists() == (every < step)
    assert equal(train(tmp_path), unbroken)  # resumed where nothing is spoilt


def test_stopping_with_spoilt_weights_does_not_replace_a_good_state(tmp_path: Path) -> None:
    monitor, after_step = stopping_after(4)
    module = a_module()
    with pytest.raises(CancelledError):
        a_trainer(tmp_path, module, after_step=after_step).run(step_loss_of(module), monitor)
    good = (tmp_path / "network.training.safetensors").read_bytes()
    again = a_module()
    monitor, stop = stopping_after(6)

    def spoil_and_stop(step: int) -> None:
        spoiling(again, 5)(step)
        stop(step)

    with pytest.raises(RunError, match="the weights are no numbers"):
        a_trainer(tmp_path, again, after_step=spoil_and_stop).run(step_loss_of(again), monitor)
    assert (tmp_path / "network.training.safetensors").read_bytes() == good


def test_the_randomness_of_a_step_depends_on_seed_and_step_alone() -> None:
    def drawn(seed: int, step: int) -> tuple[Tensor, Tensor]:
        return torch.rand(3, generator=step_generator(seed, step)), torch.rand(3)

    first, again = drawn(1, 5), drawn(1, 5)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    for other in (drawn(1, 6), drawn(2, 5)):
        assert not torch.equal(first[0], other[0])
        assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_what_a_step_is_given_does_not_depend_on_threads(threads: int) -> None:
    prepared: list[int] = []

    def prepare(step: int, part: WorkPart) -> Tensor:
        prepared.append(step)
        assert not torch.is_autocast_enabled("cpu")
        generator = torch.Generator().manual_seed(10 * step + part.number)
        return torch.rand(2, generator=generator)

    halves = [WorkPart(0, 2), WorkPart(1, 2)]
    with (
        Prefetch(prepare, 5, threads) as batches,
        torch.autocast("cpu", torch.bfloat16),
    ):
        found = [batches(step, part) for step in range(2, 5) for part in halves]
    expected = [prepare(step, part) for step in range(2, 5) for part in halves]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert sorted(prepared[:6]) == [2, 2, 3, 3, 4, 4]


def test_coming_steps_are_prepared_beside_this_one() -> None:
    wanted, prepared = threading.Event(), threading.Event()

    def prepare(step: int, part: WorkPart) -> str:
        if step == 1:
            wanted.wait(60)
            prepared.set()
        return threading.current_thread().name

    with Prefetch(prepare, 2, 1) as batches:
        assert batches(0) != threading.current_thread().name
        wanted.set()
        assert prepared.wait(60)


def test_parts_of_a_batch_may_become_smaller_from_step_to_step() -> None:
    with Prefetch(lambda step, part: (step, part), 3, 2) as batches:
        assert batches(0, WorkPart(0, 1)) == (0, WorkPart(0, 1))
        assert [batches(1, WorkPart(n, 2)) for n in range(2)] == [
            (1, WorkPart(n, 2)) for n in range(2)
        ]
        assert batches(2, WorkPart(0, 2)) == (2, WorkPart(0, 2))


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_of_a_batch_is_that_of_its_step(threads: int) -> None:
    def prepare(step: int, _: WorkPart) -> int:
        if step == 1:
            msg = "damaged"
            raise RunError(msg)
        return step

    with Prefetch(prepare, 3, threads) as batches:
        assert batches(0) == 0
        with pytest.raises(RunError, match="damaged"):
            batches(1)
        assert batches(2) == 2


def test_a_processor_whose_cores_compute_has_no_thread_to_spare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "_cores", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert spare_threads(CPU) == 0
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert spare_threads(CPU) == 2
    assert spare_threads(torch.device("cuda")) == training.MOST_THREADS
