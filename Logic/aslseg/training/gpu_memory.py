"""Whether a step fits into the memory of a graphics card, before the training begins.

What a step takes grows linearly with its batch: weights and gradients once, activations for each
patch. Two small parts of a batch are tried, and the line through them tells the rest. (Ours.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

USABLE = 0.9
"""Part of the free memory that a step may take: the allocator leaves gaps."""


@dataclass(frozen=True, slots=True)
class FittingParts:
    """Into how many parts a batch is divided, and why.

    Attributes:
        parts: 1, 2, 4 and so on; computed one after the other.
        needed_bytes: Of the whole batch.
        free_bytes: Of the graphics card.
    """

    parts: int
    needed_bytes: float
    free_bytes: int

    @property
    def in_words(self) -> str:
        """What a person reads where the batch is divided."""
        needed, free = (f"{value / 1e9:.1f} GB" for value in (self.needed_bytes, self.free_bytes))
        return (
            f"a batch would take about {needed} of the graphics card's memory, and {free} are "
            f"free; each is computed in {self.parts} parts, one after the other."
        )


def parts_that_fit(peak_of: Callable[[int], int], free: int, most: int) -> FittingParts:
    """Find out into how many parts a batch has to be divided to fit into memory.

    Args:
        peak_of: Tries one part of so many, and returns the bytes that it took.
        free: Bytes that are free.
        most: Into how many parts it may be divided, at least 2.

    Returns:
        As few parts as fit; as many as are allowed where none seem to.
    """
    smallest = 1 << (most.bit_length() - 1)
    small, double = peak_of(smallest), peak_of(smallest // 2)
    per_batch = max(double - small, 0) * smallest
    once = small - per_batch / smallest
    parts = 1
    while parts < smallest and once + per_batch / parts > USABLE * free:
        parts *= 2
    return FittingParts(parts, once + per_batch, free)


def free_bytes(device: torch.device) -> int:
    """Return how much of a graphics card's memory this process can still take."""
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + unused
