"""Clicks as a person would make them: where the answer is wrong, with the sign that mends it.

The rule is that of SAM-Med3D and SemiSAM: of what is missing and what is too much, the first clicks
go deep into the larger error; later ones go anywhere into what is wrong.
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
    """A pixel, and whether it belongs to what is meant.

    Attributes:
        index: (row, column), or (plane, row, column).
        positive: True for what was missed, False for what was taken in wrongly.
    """

    index: tuple[int, ...]
    positive: bool


def next_click(wanted: Mask, answer: Mask, number: int, rng: np.random.Generator) -> Click | None:
    """Simulate the next click of a person who wants a mask and was shown an answer.

    Args:
        wanted: What is meant.
        answer: What was answered so far; empty before the first click.
        number: How many clicks were made before this one.
        rng: Draws the pixel.

    Returns:
        The click, or None when nothing is wrong.
    """
    missed, invented = wanted & ~answer, answer & ~wanted
    if not (missed.any() or invented.any()):
        return None
    if number < DEEP_CLICKS:
        places = _middle_of_the_larger(missed, invented)
    else:
        places = np.argwhere(missed | invented)
    drawn = tuple(int(n) for n in places[rng.integers(len(places))])
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
    """What one conversation is about.

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
    """What was said so far about one topic.

    Attributes:
        topic: What it is about.
        clicks: In order.
        low_res: (4 h, 4 w) SAM's latest logits; None before the first click.
        answers: (rows, columns) logits under the pixels of the wanted mask, one per click.
    """

    topic: ClickTask
    clicks: list[Click] = field(default_factory=list)
    low_res: Tensor | None = None
    answers: list[Tensor] = field(default_factory=list)

    @property
    def answer(self) -> Mask:
        """The mask that SAM answered with so far."""
        if not self.answers:
            return np.zeros(self.topic.wanted.shape, np.bool_)
        mask: Mask = (self.answers[-1] > MASK_THRESHOLD).cpu().numpy()
        return mask

    def hear(self, low_res: Tensor) -> None:
        """Take in SAM's answer to the latest click."""
        self.low_res = low_res
        self.answers.append(logits_under(low_res, self.topic))


@torch.no_grad()
def simulate_clicks(
    sam: nn.Module, topics: Sequence[ClickTask], clicks: int, rng: np.random.Generator
) -> list[ClickSequence]:
    """Lead SAM to masks by simulated clicks.

    At each step SAM is given all clicks so far and, from the second on, its previous logits. A
    conversation ends early when nothing is wrong any more.

    Args:
        sam: The model.
        topics: One per mask; slices may differ, SAM's input size may not.
        clicks: At most so many for each.
        rng: Draws their places.
    """
    talks = [ClickSequence(topic) for topic in topics]
    for number in range(clicks):
        active = [talk for talk in talks if _next_clicks(talk, number, rng)]
        if not active:
            break
        for talk, low_res in zip(active, _mask_logits(sam, active), strict=True):
            talk.hear(low_res)
    return talks


def _next_clicks(talk: ClickSequence, number: int, rng: np.random.Generator) -> bool:
    """Add a click where the answer is wrong; False when there is nothing to mend."""
    if len(talk.clicks) < number:
        return False
    click = next_click(talk.topic.wanted, talk.answer, number, rng)
    if click is not None:
        talk.clicks.append(click)
    return click is not None


def _mask_logits(sam: nn.Module, talks: Sequence[ClickSequence]) -> Tensor:
    known: Any = sam
    device = known.device
    images = torch.stack([talk.topic.embedding for talk in talks]).to(device, torch.float32)
    xy = torch.stack([_in_input(talk) for talk in talks]).to(device)
    labels = torch.tensor([[int(c.positive) for c in talk.clicks] for talk in talks])
    previous = [talk.low_res for talk in talks if talk.low_res is not None]
    masks = torch.stack(previous)[:, None] if previous else None
    # Public call for tokens; the dense part of several prompts is theirs alone.
    sparse, dense = known.prompt_encoder(points=(xy, labels.to(device)), boxes=None, masks=masks)
    return decode_tokens(sam, images, sparse, dense.expand_as(images))


def _in_input(talk: ClickSequence) -> Tensor:
    xy = torch.stack([talk.topic.points[click.index] for click in talk.clicks])
    # segment_anything adds the half pixel that our coordinates have already.
    return talk.topic.frame.to_input(xy) - 0.5


def logits_under(low_res: Tensor, topic: ClickTask) -> Tensor:
    """Return SAM's logits under the pixels of a mask: (4 h, 4 w) -> (rows, columns)."""
    at = topic.frame.to_input(topic.points.to(low_res)) / topic.frame.input_size * 2 - 1
    sampled = F.grid_sample(
        low_res[None, None], at[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0, 0]
