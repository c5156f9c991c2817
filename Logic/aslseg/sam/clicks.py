"""Simulated clicks of a person: where the prediction is wrong, positive where it lacks the target.

The rule is that of SAM-Med3D and SemiSAM: the first clicks lie deep in the larger of false negative
and false positive region, later ones anywhere in either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.data.volume import FloatArray, Mask
from aslseg.sam.decoder import decode_tokens
from aslseg.sam.embeddings import SliceFrame

DEEP_CLICKS = 2
"""How many clicks go into the middle of the larger error."""


@dataclass(frozen=True, slots=True)
class Click:
    """A pixel, and whether it belongs to the target.

    Attributes:
        index: (row, column), or (plane, row, column).
        positive: True for a false negative, False for a false positive.
    """

    index: tuple[int, ...]
    positive: bool


def next_click(
    wanted: Mask, predicted: Mask, number: int, rng: np.random.Generator
) -> Click | None:
    """Simulate the next click of a person who corrects a predicted mask.

    Args:
        wanted: (H, W) the true mask.
        predicted: (H, W) the latest prediction; empty before the first click.
        number: How many clicks were made before this one.
        rng: Draws the pixel.

    Returns:
        The click, or None when nothing is wrong.
    """
    missed, invented = wanted & ~predicted, predicted & ~wanted
    if not (missed.any() or invented.any()):
        return None
    if number < DEEP_CLICKS:
        pixels = _middle_of_the_larger(missed, invented)
    else:
        pixels = np.argwhere(missed | invented)
    drawn = tuple(int(n) for n in pixels[rng.integers(len(pixels))])
    return Click(drawn, bool(wanted[drawn]))


def _middle_of_the_larger(missed: Mask, invented: Mask) -> NDArray[np.int64]:
    depths = [_depth(missed), _depth(invented)]
    depth = max(depths, key=lambda d: float(d.max()))
    return np.argwhere(depth > depth.max() / 2)


def _depth(mask: Mask) -> FloatArray:
    """Return each pixel's distance to what is outside of the mask; beyond the array is outside."""
    framed = np.pad(mask, 1)
    inner = tuple(slice(1, -1) for _ in mask.shape)
    depth: FloatArray = ndimage.distance_transform_edt(framed)[inner]
    return depth


MASK_THRESHOLD = 0.5
"""On SAM's logits: above is inside (the value of the SemiSAM release)."""


@dataclass(frozen=True, slots=True, eq=False)
class ClickTask:
    """A mask that simulated clicks lead SAM to.

    Attributes:
        embedding: (256, h, w) of the slice.
        frame: How the slice lies in SAM's input.
        points: (rows, columns, 2) the point (x, y) of the slice under each pixel of the mask.
        wanted: (rows, columns) the mask that the clicks lead to.
    """

    embedding: Tensor
    frame: SliceFrame
    points: Tensor
    wanted: Mask


@dataclass(slots=True, eq=False)
class ClickSequence:
    """The clicks of a task and SAM's predictions so far.

    Attributes:
        task: With the wanted mask.
        clicks: In order.
        low_res: (4 h, 4 w) SAM's latest logits; None before the first click.
        logits: (rows, columns) under the pixels of the wanted mask, one per click.
    """

    task: ClickTask
    clicks: list[Click] = field(default_factory=list)
    low_res: Tensor | None = None
    logits: list[Tensor] = field(default_factory=list)

    @property
    def predicted(self) -> Mask:
        """The latest mask, (rows, columns); empty before the first click."""
        if not self.logits:
            return np.zeros(self.task.wanted.shape, np.bool_)
        mask: Mask = (self.logits[-1] > MASK_THRESHOLD).cpu().numpy()
        return mask

    def add(self, low_res: Tensor) -> None:
        """Store SAM's logits (4 h, 4 w) after the latest click."""
        self.low_res = low_res
        self.logits.append(logits_under(low_res, self.task))


@torch.no_grad()
def simulate_clicks(
    sam: nn.Module, tasks: Sequence[ClickTask], clicks: int, rng: np.random.Generator
) -> list[ClickSequence]:
    """Lead SAM to masks by simulated clicks.

    At each step SAM is given all clicks so far and, from the second on, its previous logits. A
    sequence ends early when nothing is wrong any more.

    Args:
        sam: The model.
        tasks: One per mask; slices may differ, SAM's input size may not.
        clicks: At most so many for each.
        rng: Draws their pixels.
    """
    sequences = [ClickSequence(task) for task in tasks]
    for number in range(clicks):
        active = [sequence for sequence in sequences if _next_clicks(sequence, number, rng)]
        if not active:
            break
        for sequence, low_res in zip(active, _mask_logits(sam, active), strict=True):
            sequence.add(low_res)
    return sequences


def _next_clicks(sequence: ClickSequence, number: int, rng: np.random.Generator) -> bool:
    """Add a click where the prediction is wrong; False when nothing is."""
    if len(sequence.clicks) < number:
        return False
    click = next_click(sequence.task.wanted, sequence.predicted, number, rng)
    if click is not None:
        sequence.clicks.append(click)
    return click is not None


def _mask_logits(sam: nn.Module, sequences: Sequence[ClickSequence]) -> Tensor:
    model: Any = sam
    device = model.device
    embeddings = torch.stack([sequence.task.embedding for sequence in sequences])
    images = embeddings.to(device, torch.float32)
    xy = torch.stack([_in_input(sequence) for sequence in sequences]).to(device)
    labels = torch.tensor([[int(c.positive) for c in sequence.clicks] for sequence in sequences])
    previous = [sequence.low_res for sequence in sequences if sequence.low_res is not None]
    masks = torch.stack(previous)[:, None] if previous else None
    # Public call for tokens; the dense part of several prompts is theirs alone.
    sparse, dense = model.prompt_encoder(points=(xy, labels.to(device)), boxes=None, masks=masks)
    return decode_tokens(sam, images, sparse, dense.expand_as(images))


def _in_input(sequence: ClickSequence) -> Tensor:
    xy = torch.stack([sequence.task.points[click.index] for click in sequence.clicks])
    # segment_anything adds the half pixel that our coordinates have already.
    return sequence.task.frame.to_input(xy) - 0.5


def logits_under(low_res: Tensor, task: ClickTask) -> Tensor:
    """Return SAM's logits under the pixels of a mask: (4 h, 4 w) -> (rows, columns)."""
    return sampled_at(low_res, task.frame.to_input(task.points.to(low_res)) / task.frame.input_size)


def sampled_at(values: Tensor, points: Tensor) -> Tensor:
    """Interpolate values linearly between the centres of their pixels.

    Args:
        values: (h, w); the border is repeated beyond it.
        points: (rows, columns, 2) as parts (x, y) of its width and height.

    Returns:
        (rows, columns).
    """
    grid = points[None] * 2 - 1
    return F.grid_sample(
        values[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )[0, 0]
