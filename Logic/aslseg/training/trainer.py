"""The loop that trains any network: steps, schedule, progress, cancel, and resuming exactly.

Batch and noise of step t depend on (seed, t) alone, and the state between two steps is written
whole, so a run that stopped and went on ends with the very weights of one that did not.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aslseg.distributed import WHOLE, WorkPart, gathered, my_part
from aslseg.errors import CancelledError, DeviceError, RunError
from aslseg.events import Monitor
from aslseg.networks.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from aslseg.networks.device import are_finite, mixed_precision
from aslseg.training.gpu_memory import free_bytes, parts_that_fit
from aslseg.training.losses import polynomial_decay, warm_up
from aslseg.training.recorded_network import NetworkRecorder

SAVE_EVERY = 250


REPORT_EVERY = 10


GRADIENT_NORM = 5.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Length and learning rate of a training.

    Attributes:
        name: Of the training, in progress events, metrics and file names.
        steps: Optimiser steps.
        learning_rate: At the start; falls as (1 - t/T)^0.9.
        weight_decay: Of the optimiser.
        optimiser: `adamw` or `sgd`.
        seed: Of the whole run.
        snapshots: Parts of the schedule after which the weights are kept.
    """

    name: str
    steps: int
    learning_rate: float
    weight_decay: float = 1e-4
    optimiser: str = "adamw"
    seed: int = 0
    snapshots: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerSpec:
    """Parameters of one optimiser, and its settings.

    Attributes:
        parameters: That require a gradient.
        optimiser: `adamw` or `sgd`.
        learning_rate: At the start.
        weight_decay: Of the optimiser.
        power: The rate falls as (1 - t/T) to this power.
        warmup: Steps over which the rate rises linearly at the start.
    """

    parameters: Sequence[nn.Parameter]
    optimiser: str
    learning_rate: float
    weight_decay: float
    power: float = 0.9
    warmup: int = 0

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step."""
        risen = warm_up(step, self.warmup)
        return self.learning_rate * risen * polynomial_decay(step, steps, self.power)


Prepared = TypeVar("Prepared")


StepLoss = Callable[[int, torch.Generator, WorkPart], dict[str, Tensor]]
"""From step, generator and part of the batch to the named terms of that part.

`loss` is the one that is differentiated. Without `Trainer.most_parts` the part is the whole batch.
"""


@dataclass
class Trainer:
    """Trains the parameters of a module that require a gradient.

    Attributes:
        module: Everything whose state must survive a stop.
        schedule: Length and learning rate.
        device: Where the module is; on CUDA the steps run in mixed precision.
        folder: Where the state between two steps is written.
        after_step: Called with the number of each step that was taken.
        snapshot: Called with the number of the snapshot, when one is due.
        precise: Compute in float32 throughout.
        configure_optimizers: Parameter groups with their optimisers; one for all as the schedule
            says, if none are given.
        most_parts: Into how many parts a batch may be divided: over processes that share the
            training, and one after the other where memory is short. The gradient is the mean of
            theirs.
        recorder: Calls the module's networks in the loss; it is told of each step.
    """

    module: nn.Module
    schedule: Schedule
    device: torch.device
    folder: Path
    after_step: Callable[[int], None] = lambda _: None
    snapshot: Callable[[int], None] = lambda _: None
    precise: bool = False
    configure_optimizers: Sequence[OptimizerSpec] = ()
    most_parts: int = 1
    recorder: NetworkRecorder | None = None

    def __post_init__(self) -> None:
        """Build the optimisers over the trainable parameters."""
        self._specs = self.configure_optimizers or (_default_optimizer(self.module, self.schedule),)
        self._optimisers = [_build_optimiser(spec, self.schedule) for spec in self._specs]
        steps = self.schedule.steps
        self._due = [max(1, round(share * steps)) for share in self.schedule.snapshots]
        self._rank = my_part()
        self._divided = 1  # how many parts of a batch this process computes one after the other

    @property
    def state_path(self) -> Path:
        """The file that a stopped training is resumed from."""
        return self.folder / f"{self.schedule.name}.training.safetensors"

    def run(self, step_loss: StepLoss, monitor: Monitor) -> None:
        """Take the remaining steps, then remove the state file.

        Processes that share the training all take part; the first one writes.

        Raises:
            DeviceError: When not even the smallest part of a batch fits into memory.
            CancelledError: When asked to stop; the state is written first.
            RunError: When loss, gradient or weights are no longer numbers; the state that was
                written last, which is good, stays.
        """
        done = self._resume()
        self._agree(done)
        terms = self._terms_of(step_loss)
        self._fit_memory(done, terms, monitor)
        steps = monitor.track(
            range(done, self.schedule.steps), self.schedule.name, self.schedule.steps, done
        )
        finished = done
        try:
            for step in steps:
                self._step(step, terms, monitor)
                finished = step + 1
                if finished % SAVE_EVERY == 0:
                    self._save(finished)
        except CancelledError:
            self._save(finished)
            raise
        self._require_finite(self.schedule.steps - 1)
        if self._rank.is_first:
            self.state_path.unlink(missing_ok=True)

    def _agree(self, done: int) -> None:
        """Make sure that all processes go on from the same step."""
        if len(set(gathered(done))) > 1:
            msg = (
                f"Processes see different states of {self.state_path}; put the project on a disk "
                "that all of them share."
            )
            raise RunError(msg)

    def _terms_of(self, step_loss: StepLoss) -> nn.Module:
        """Return a module whose call is the step's loss; gradients are shared where others help."""
        terms: nn.Module = _Terms(self.module, step_loss)
        if self._rank.of > 1:
            with warnings.catch_warnings(category=FutureWarning, action="ignore"):
                # Later versions of torch name it otherwise, and earlier ones know this name alone.
                terms = DistributedDataParallel(
                    terms, broadcast_buffers=False, find_unused_parameters=True
                )
        return terms

    def _fit_memory(self, step: int, terms: nn.Module, monitor: Monitor) -> None:
        """Divide batches that would not fit into the memory of a graphics card."""
        parts = 1
        if self.device.type == "cuda" and self._most_divided > 1:
            found = parts_that_fit(
                lambda parts: self._peak_bytes(step, terms, parts),
                free_bytes(self.device),
                self._most_divided,
            )
            parts = found.parts
            if parts > 1:
                monitor.warn(f"{self.schedule.name}: {found.in_words}")
        self._divided = max(gathered(parts))

    @property
    def _most_divided(self) -> int:
        return max(1, self.most_parts // self._rank.of)

    def _peak_bytes(self, step: int, terms: nn.Module, parts: int) -> int:
        """Return what a step takes of a graphics card's memory; nothing is changed by it."""
        buffers = {name: value.clone() for name, value in self.module.named_buffers()}
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        with self._unshared(terms):
            self._backward(step, terms, WorkPart(0, parts), 1)
        peak = torch.cuda.max_memory_allocated(self.device) - before
        for name, value in self.module.named_buffers():
            value.copy_(buffers[name])
        self._zero_gradients()
        # AdamW keeps two values for each weight; they are there from the first step on.
        trained = sum(p.numel() * p.element_size() for s in self._specs for p in s.parameters)
        return peak + (0 if self._optimisers[0].state else 2 * trained)

    def _step(self, step: int, terms_of: nn.Module, monitor: Monitor) -> None:
        for spec, optimiser in zip(self._specs, self._optimisers, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = spec.rate(step, self.schedule.steps)
        terms = self._gradients(step, terms_of, monitor)
        self._descend(step)
        self.after_step(step)
        if step % REPORT_EVERY == 0:
            for name, value in terms.items():
                monitor.metric(name, float(value.detach()), step, task=self.schedule.name)
        for number, due in enumerate(self._due):
            if due == step + 1:
                self._require_finite(step)
                if self._rank.is_first:
                    self.snapshot(number)

    def _gradients(self, step: int, terms: nn.Module, monitor: Monitor) -> dict[str, Tensor]:
        """Compute the gradients of a batch, in more parts if memory turns out to be short."""
        while True:
            try:
                return self._part_after_part(step, terms)
            except torch.cuda.OutOfMemoryError as error:
                undividable = self._rank.of > 1 or self._divided * 2 > self._most_divided
                if undividable and not self._is_recorded:
                    msg = (
                        f"{self.schedule.name} does not fit into the memory of the graphics card; "
                        "choose a smaller batch_size, patch_size or SAM, or close other programs."
                    )
                    raise DeviceError(msg) from error
            self._make_room(step, monitor)

    @property
    def _is_recorded(self) -> bool:
        return self.recorder is not None and self.recorder.holds_memory

    def _make_room(self, step: int, monitor: Monitor) -> None:
        """Give up recordings of networks, or else divide batches further."""
        self._zero_gradients()
        if self.recorder is not None and self._is_recorded:
            self.recorder.give_up("the graphics card ran out of memory.")
            return
        self._divided *= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        monitor.warn(
            f"{self.schedule.name}: the graphics card ran out of memory; from step {step} on "
            f"each batch is computed in {self._divided} parts, one after the other."
        )

    def _part_after_part(self, step: int, terms: nn.Module) -> dict[str, Tensor]:
        self._zero_gradients()
        if self.recorder is not None:
            left = self.schedule.steps - step
            self.recorder.begin_step(left, undivided=self._divided == 1)
        shares = min(self._rank.of, self.most_parts)
        first, of = self._rank.number % shares * self._divided, shares * self._divided
        found = []
        for n in range(self._divided):
            last = n == self._divided - 1
            with nullcontext() if last else self._unshared(terms):
                found.append(self._backward(step, terms, WorkPart(first + n, of), self._divided))
        if len(found) == 1:
            return found[0]
        return {name: torch.stack([one[name] for one in found]).mean(0) for name in found[0]}

    def _backward(
        self, step: int, terms: nn.Module, part: WorkPart, parts: int
    ) -> dict[str, Tensor]:
        """Add the gradients of a part of a batch, one of several; return its terms."""
        generator = step_generator(self.schedule.seed, step, part)
        self.module.train()
        # bfloat16 has float32's range, so neither GPU nor CPU needs a loss scale.
        mixed = not self.precise and mixed_precision(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            found: dict[str, Tensor] = terms(step, generator, part)
        loss = found["loss"]
        if not torch.isfinite(loss):
            raise self._diverged(step, "the loss is not a number")
        (loss / parts if parts > 1 else loss).backward()  # type: ignore[no-untyped-call, unused-ignore]
        return {name: value.detach() for name, value in found.items()}

    def _unshared(self, terms: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which gradients are added up here, and not shared yet."""
        return terms.no_sync() if isinstance(terms, DistributedDataParallel) else nullcontext()

    def _zero_gradients(self) -> None:
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)

    def _descend(self, step: int) -> None:
        """Take a step of all optimisers, unless a gradient is not finite."""
        for spec in self._specs:
            norm = nn.utils.clip_grad_norm_(spec.parameters, GRADIENT_NORM)
            if not torch.isfinite(norm):
                raise self._diverged(step, "the gradient is not a number")
        for optimiser in self._optimisers:
            optimiser.step()

    def _require_finite(self, step: int) -> None:
        if not are_finite(self.module.state_dict().values()):
            raise self._diverged(step, "the weights are no numbers")

    def _diverged(self, step: int, how: str) -> RunError:
        kept = " Resuming goes on from the last state that was good." if step else ""
        msg = (
            f"Training of {self.schedule.name} diverged at step {step}: {how}. Lower the learning "
            f"rate, or look for damaged images.{kept}"
        )
        return RunError(msg)

    def _save(self, finished: int) -> None:
        self._require_finite(max(finished - 1, 0))
        if not self._rank.is_first:
            return
        tensors = {f"module.{k}": v for k, v in self.module.state_dict().items()}
        for name, optimiser in self._named_optimisers():
            for number, values in optimiser.state_dict()["state"].items():
                for key, value in values.items():
                    tensors[f"{name}.{number}.{key}"] = torch.as_tensor(value)
        facts = {"step": finished, "steps": self.schedule.steps, "seed": self.schedule.seed}
        save_checkpoint(self.state_path, Checkpoint("training", tensors, facts))

    def _resume(self) -> int:
        if not self.state_path.exists():
            return 0
        saved = load_checkpoint(self.state_path, "training")
        expected = {"steps": self.schedule.steps, "seed": self.schedule.seed}
        if any(saved.config.get(key) != value for key, value in expected.items()):
            msg = (
                f"{self.state_path} belongs to other settings (steps or seed differ); "
                "delete it to start this stage again."
            )
            raise RunError(msg)
        try:
            self.module.load_state_dict(_part(saved.tensors, "module."))
            for name, optimiser in self._named_optimisers():
                _restore(optimiser, _part(saved.tensors, f"{name}."))
            return int(saved.config["step"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            msg = f"{self.state_path} does not fit this stage; delete it to start the stage again."
            raise RunError(msg) from error

    def _named_optimisers(self) -> list[tuple[str, torch.optim.Optimizer]]:
        names = ["optimiser", *(f"optimiser{n}" for n in range(1, len(self._optimisers)))]
        return list(zip(names, self._optimisers, strict=True))


def _restore(optimiser: torch.optim.Optimizer, saved: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    whole = optimiser.state_dict()
    whole["state"] = state
    optimiser.load_state_dict(whole)


class _Terms(nn.Module):
    """The loss of a step as the call of a module, whose gradients can be shared."""

    def __init__(self, module: nn.Module, step_loss: StepLoss) -> None:
        super().__init__()
        self.module = module
        self._step_loss = step_loss

    def forward(self, step: int, generator: torch.Generator, part: WorkPart) -> dict[str, Tensor]:
        return self._step_loss(step, generator, part)


MOST_THREADS = 4
"""Of a training, that prepare batches."""


def spare_threads(device: torch.device) -> int:
    """Return how many threads may prepare batches: none where the step needs all cores."""
    busy = torch.get_num_threads() if device.type == "cpu" else 1
    return min(MOST_THREADS, max(0, _cores() - busy))


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Prefetch(Generic[Prepared]):
    """Calls a function for a step, and in threads for the steps that follow.

    Patches are cut on the processor: where a graphics card computes, it would wait for them, and
    where cores are to spare, these would.

    What it returns depends on step and part alone, and so does what a call returns, whatever the
    number of threads. Leaving the context ends them.

    Args:
        prepare: From a step and a part of its batch to what the step needs; may be called by
            several threads at once. The call of a step raises what it raises.
        steps: How many there are; none is prepared beyond.
        threads: How many; with none the function is called when its result is wanted.
    """

    def __init__(
        self, prepare: Callable[[int, WorkPart], Prepared], steps: int, threads: int
    ) -> None:
        self._prepare = prepare
        self._steps = steps
        self._threads = threads
        cards = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        self._pool = ThreadPoolExecutor(max(1, threads), "batches", _use_card, (cards,))
        self._coming: dict[tuple[int, WorkPart], Future[Prepared]] = {}

    def __enter__(self) -> Prefetch[Prepared]:
        """Start nothing yet: the first call does."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for what is being prepared, and end the threads."""
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, step: int, part: WorkPart = WHOLE) -> Prepared:
        """Return what a part of a step's batch needs; next wanted is that part of the next step."""
        if not self._threads:
            return self._prepared(step, part)
        for number in range(step, min(step + self._threads + 1, self._steps)):
            if (number, part) not in self._coming:
                self._coming[number, part] = self._pool.submit(self._prepared, number, part)
        found = self._coming.pop((step, part)).result()
        for key in [key for key in self._coming if key[0] < step]:  # parts that were not wanted
            self._coming.pop(key).cancel()
        return found

    def settle(self) -> None:
        """Wait until no thread prepares anything; none does before the next call."""
        wait(self._coming.values())

    def _prepared(self, step: int, part: WorkPart) -> Prepared:
        # Without mixed precision, as in threads, where it is not on.
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return self._prepare(step, part)


def network_recorder(
    name: str, device: torch.device, batches: Prefetch[Prepared]
) -> AbstractContextManager[NetworkRecorder | None]:
    """Return what records the networks of a training: on CUDA, by a process that trains alone.

    Processes that share a training exchange gradients while these are computed.
    """
    if device.type != "cuda" or my_part().of > 1:
        return nullcontext()
    return NetworkRecorder(name, batches.settle)


def _use_card(cards: list[int]) -> None:
    """Let a thread use the graphics card of the thread that starts it; each has its own choice."""
    for card in cards:
        torch.cuda.set_device(card)


def step_generator(seed: int, step: int, part: WorkPart = WHOLE) -> torch.Generator:
    """Return the source of randomness of a step, or of a part of it, and seed dropout with it.

    Dropout layers draw from torch's global generators; seeding these per step as well is what makes
    a resumed run equal to an uninterrupted one.
    """
    mixed = (seed * 1_000_003 + step + part.number * 998_244_353) % (2**63 - 1)
    torch.manual_seed(mixed)
    return torch.Generator().manual_seed(mixed)


def _default_optimizer(module: nn.Module, schedule: Schedule) -> OptimizerSpec:
    parameters = [p for p in module.parameters() if p.requires_grad]
    return OptimizerSpec(
        parameters, schedule.optimiser, schedule.learning_rate, schedule.weight_decay
    )


def _build_optimiser(spec: OptimizerSpec, schedule: Schedule) -> torch.optim.Optimizer:
    if not spec.parameters:
        msg = f"{schedule.name} has no trainable parameters."
        raise ValueError(msg)
    rate, decay = spec.learning_rate, spec.weight_decay
    # On a CPU a third of the time. (A TorchVersion compares itself with a text as versions.)
    fused = torch.__version__ >= "2.5" and spec.parameters[0].device.type in ("cpu", "cuda")
    if spec.optimiser == "sgd":
        return torch.optim.SGD(spec.parameters, rate, momentum=0.9, weight_decay=decay, fused=fused)
    return torch.optim.AdamW(spec.parameters, rate, weight_decay=decay, fused=fused)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
