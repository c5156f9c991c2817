"""A double of recorded passes for the processor: wrong where CUDA graphs would be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Passes:
    """Both passes of a network, with one memory for outputs and gradients, as CUDA graphs have.

    Each call overwrites what the one before it returned, and the backward pass is of the last call.
    """

    def __init__(self, network: nn.Module, inputs: Tensor) -> None:
        self.network, self.shape = network, inputs.shape
        self.weights = [p for p in network.parameters() if p.requires_grad]
        self.gradients = [torch.full_like(weight, torch.nan) for weight in self.weights]
        self.graph, self.output, self.calls = Tensor(), Tensor(), 0

    def __call__(self, inputs: Tensor) -> Tensor:
        assert inputs.shape == self.shape
        self.calls += 1
        found: Tensor = _Replay.apply(self, inputs, *self.weights)  # type: ignore[no-untyped-call]
        return found


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, passes: Passes, inputs: Tensor, *_: Tensor) -> Tensor:
        ctx.passes = passes
        with torch.enable_grad():
            passes.graph = passes.network(inputs)
        if not passes.output.numel():
            passes.output = passes.graph.detach().clone()
        passes.output.copy_(passes.graph.detach())
        return passes.output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        passes = ctx.passes
        found = torch.autograd.grad(passes.graph, passes.weights, gradients[0])
        for memory, new in zip(passes.gradients, found, strict=True):
            memory.copy_(new)
        return None, None, *(memory.detach() for memory in passes.gradients)


class RecordingDouble:
    """Records networks with `Passes`, and keeps them.

    Args:
        error: Raised in place of recording.
    """

    def __init__(self, error: RuntimeError | None = None) -> None:
        self.error = error
        self.asked = 0
        self.made: list[Passes] = []

    def __call__(self, network: nn.Module, inputs: Tensor) -> Passes:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.made.append(Passes(network, inputs))
        return self.made[-1]

    @property
    def replays(self) -> list[int]:
        """How often each recording was replayed."""
        return [passes.calls for passes in self.made]
