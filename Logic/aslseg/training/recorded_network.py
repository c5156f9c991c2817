"""Passes of a network that are recorded once, as CUDA graphs, and replayed in each later step.

A graphics card computes the hundreds of kernels of a small network faster than a processor starts
them one by one; a recording starts all of them at once. It reads its inputs from, and writes its
outputs and gradients to, memory of its own, which the next replay overwrites. So within a step one
call of a network is replayed at most, and each other one goes to the network itself.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import cast

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Passes = Callable[[Tensor], Tensor]
"""A network's forward pass, and the backward pass of what it returns."""

STEPS_BEFORE = 3
"""In which a network was called with inputs of one shape, before it is recorded for these."""

LEAST_STEPS = 50
"""That must be left of a training: recording takes about as long as it then saves."""

DROPOUT = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def record_passes(network: nn.Module, inputs: Tensor) -> Passes:
    """Record both passes of a network on CUDA, in the precision that is on.

    No other thread may use the card meanwhile. Weights are read where they lie, and converted
    within the recording, so that steps of an optimiser show. Neither weights, their `grad` nor the
    network's own call are changed.

    Args:
        network: In training mode, without buffers or dropout.
        inputs: Of the shape and type that all later ones have; no gradient of them is computed.

    Raises:
        RuntimeError: When memory is short (`torch.cuda.OutOfMemoryError`), or something in the
            network cannot be recorded.
    """
    _expect_two_streams()
    precision = torch.autocast("cuda", enabled=torch.is_autocast_enabled(), cache_enabled=False)
    # A recording that fails leaves its own stream on; with this one it does not stay so.
    with torch.cuda.stream(torch.cuda.current_stream()), precision:
        passes = torch.cuda.make_graphed_callables(
            _Whole(network), (inputs.detach().clone(),), allow_unused_input=True
        )
    return cast("Passes", passes)


def _expect_two_streams() -> None:
    """Let torch not warn of gradients that are taken over in the stream of the recording."""
    warn = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)
    if warn is not None:  # from torch 2.10 on
        warn(False)


class _Whole(nn.Module):
    """Stands for a network where torch puts the recorded call in place of `forward`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.network(inputs)
        return found


@dataclass(slots=True, eq=False)
class _Called:
    """In how many steps a network was called with inputs of a kind, and its recording for these."""

    shape: torch.Size
    dtype: torch.dtype
    steps: int = 0
    passes: Passes | None = None

    def fits(self, inputs: Tensor) -> bool:
        return self.shape == inputs.shape and self.dtype == inputs.dtype


class NetworkRecorder:
    """Calls the networks of a training, by their recordings where that changes no result.

    A call is replayed if it is the first one of the network in a step with an undivided batch, in
    training mode and with gradients, on inputs of the recorded shape. A network that is then asked
    for another shape is recorded anew. One with dropout or buffers is not recorded: what is drawn
    or counted while recording would differ in a training that was resumed.

    Leaving the context frees the recordings; from then on networks are called themselves.

    Args:
        name: Of the training, for the log.
        settle: Returns once no other thread uses the card; until the next step none may again.
        record: Records a network, as `record_passes` does.
    """

    def __init__(
        self,
        name: str,
        settle: Callable[[], None],
        record: Callable[[nn.Module, Tensor], Passes] = record_passes,
    ) -> None:
        self._name = name
        self._settle = settle
        self._record = record
        self._called: dict[nn.Module, _Called] = {}
        self._in_step: set[nn.Module] = set()
        self._steps_left = 0
        self._open = False
        self._given_up = False

    def __enter__(self) -> NetworkRecorder:
        """Record nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the recordings."""
        self._close()

    @property
    def holds_memory(self) -> bool:
        """Whether anything is recorded."""
        return any(called.passes is not None for called in self._called.values())

    def begin_step(self, steps_left: int, *, undivided: bool) -> None:
        """Begin a step; its gradients are None. Before the first one nothing is recorded.

        Args:
            steps_left: Of the training, with this one.
            undivided: Whether a single backward pass gives the step's gradients.
        """
        self._steps_left, self._open = steps_left, undivided and not self._given_up
        self._in_step.clear()

    def __call__(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Return what a network gives, (B, ...), for inputs (B, ...).

        Args:
            network: One that the training changes, without hooks that are there for a time.
            inputs: On the network's device.
        """
        trained = network.training and torch.is_grad_enabled() and not inputs.requires_grad
        passes = None
        if self._open and trained and network not in self._in_step:
            self._in_step.add(network)
            passes = self._passes_of(network, inputs)
        found: Tensor = network(inputs) if passes is None else passes(inputs)
        return found

    def give_up(self, reason: str) -> None:
        """Free the recordings, and record nothing from here on; the log says why."""
        self._close()
        logger.warning(
            "%s: networks are not recorded, and steps take longer: %s", self._name, reason
        )

    def _close(self) -> None:
        were_recorded = self.holds_memory
        self._given_up, self._open = True, False
        self._called.clear()
        if were_recorded:
            _free()

    def _passes_of(self, network: nn.Module, inputs: Tensor) -> Passes | None:
        """Return the recording for inputs, made now if it is time; None where there is none."""
        called = self._called.get(network)
        if called is None or not called.fits(inputs):
            called = self._called[network] = _Called(inputs.shape, inputs.dtype)
        called.steps += 1
        due = called.steps == STEPS_BEFORE + 1 and self._steps_left >= LEAST_STEPS
        if due and _repeats(network):
            called.passes = self._recorded(network, inputs)
        return called.passes

    def _recorded(self, network: nn.Module, inputs: Tensor) -> Passes | None:
        self._settle()
        _free()
        try:
            passes = self._record(network, inputs)
        except RuntimeError as error:  # of memory that is short, too
            reason = str(error)
        else:
            shape = " x ".join(map(str, inputs.shape))
            logger.info("%s: the network is recorded, for inputs of %s.", self._name, shape)
            return passes
        self.give_up(reason)
        return None


def _repeats(network: nn.Module) -> bool:
    """Tell whether calls of a network change nothing and draw nothing."""
    draws = any(isinstance(m, DROPOUT) and m.p > 0 for m in network.modules())
    return not draws and next(network.buffers(), None) is None


def _free() -> None:
    """Free recordings that nothing refers to; torch's classes of them refer to themselves."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
