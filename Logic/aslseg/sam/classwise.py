"""A SAM that tells classes apart: one decoding per class, and a softmax over their masks.

Each class is prompted with points of its own and, if wanted, with two tokens that a small network
predicts from the image embedding, in place of a box. (SC-SAM, Vu et al., arXiv 2601.17934.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aslseg.data.volume import Mask
from aslseg.prompts import XY, interior_points
from aslseg.sam.decoder import decode_tokens
from aslseg.sam.embeddings import SliceFrame, input_size_of, prepare_slices
from aslseg.sam.model import CHANNELS

POSITIVE, NEGATIVE, ABSENT = 1, 0, -1
"""Labels of SAM's points; `ABSENT` is the padding of a class with fewer points."""
HIDDEN_CHANNELS = 64
"""Between the layers of a `LearnedBox`."""


@dataclass(frozen=True, slots=True)
class ClassPoints:
    """The point prompts of each class of each picture.

    Attributes:
        xy: (B, C, N, 2) in pixels of the picture; centres of pixels are at half numbers.
        labels: (B, C, N) `POSITIVE`, `NEGATIVE` or `ABSENT`.
    """

    xy: Tensor
    labels: Tensor


def random_points(
    classes: NDArray[np.int64], number: int, count: int, rng: np.random.Generator
) -> ClassPoints:
    """Draw pixels of each class, and as many of the rest.

    Args:
        classes: (B, h, w) class numbers.
        number: How many classes there are, the background included.
        count: Positive points of a class, and negative ones.
        rng: Source of randomness.
    """

    def draw(mask: Mask) -> list[XY]:
        pixels = np.flatnonzero(mask)
        chosen = rng.choice(pixels, min(count, len(pixels)), replace=False)
        return [(n % width + 0.5, n // width + 0.5) for n in chosen.tolist()]

    width = classes.shape[-1]

    drawn = [
        [_padded(draw(shown == c), draw(shown != c), count) for c in range(number)]
        for shown in classes
    ]
    return stacked_points(drawn)


def deep_points(mask: Mask, count: int) -> list[tuple[XY, int]]:
    """Return points deep within a mask and deep outside of it, without randomness.

    Args:
        mask: (h, w).
        count: Positive points, and negative ones.

    Returns:
        `2 * count` points with labels; `ABSENT` where the mask has not enough pixels.
    """
    return _padded(interior_points(mask, count), interior_points(~mask, count), count)


@cache
def points_of_nothing(edge: int, count: int) -> list[tuple[XY, int]]:
    """Return the points of a class that a picture shows nothing of: negative ones everywhere."""
    return deep_points(np.zeros((edge, edge), np.bool_), count)


def _padded(positive: Sequence[XY], negative: Sequence[XY], count: int) -> list[tuple[XY, int]]:
    points = [(xy, POSITIVE) for xy in positive]
    points += [((0.0, 0.0), ABSENT)] * (count - len(positive))
    points += [(xy, NEGATIVE) for xy in negative]
    return points + [((0.0, 0.0), ABSENT)] * (count - len(negative))


def stacked_points(given: Sequence[Sequence[Sequence[tuple[XY, int]]]]) -> ClassPoints:
    """Make tensors of points, given by picture and class; shorter lists are filled up."""
    most = max(len(points) for classes in given for points in classes)
    filled = [
        [[*points, *[((0.0, 0.0), ABSENT)] * (most - len(points))] for points in classes]
        for classes in given
    ]
    xy = torch.tensor([[[p for p, _ in points] for points in classes] for classes in filled])
    labels = torch.tensor([[[n for _, n in points] for points in classes] for classes in filled])
    size = (len(filled), len(filled[0]), most)  # also where there is no point
    return ClassPoints(xy.reshape(*size, 2).float(), labels.reshape(size).long())


class LearnedBox(nn.Module):
    """Predicts two tokens, in place of those of a box's corners, from an image embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(CHANNELS, HIDDEN_CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(HIDDEN_CHANNELS, HIDDEN_CHANNELS, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(HIDDEN_CHANNELS, CHANNELS, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.tell = nn.Sequential(
            nn.Linear(CHANNELS, 4 * CHANNELS), nn.GELU(), nn.Linear(4 * CHANNELS, 2 * CHANNELS)
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return (B, 2, 256) tokens for (B, 256, h, w) embeddings."""
        tokens: Tensor = self.tell(self.look(embeddings)).view(-1, 2, CHANNELS)
        return tokens


class ClasswiseSam(nn.Module):
    """SAM, prompted once per class.

    Args:
        sam: The model, tuned or to be tuned.
        classes: How many, the background included.
        learned_boxes: Whether each class has a `LearnedBox`.
    """

    def __init__(self, sam: nn.Module, classes: int, *, learned_boxes: bool) -> None:
        super().__init__()
        self.sam = sam
        self.classes = classes
        self.boxes = nn.ModuleList(LearnedBox() for _ in range(classes if learned_boxes else 0))

    def embed(self, pictures: Tensor) -> Tensor:
        """Return (B, 256, S/16, S/16) embeddings of (B, h, w) pictures in [0, 1], with gradient."""
        model: Any = self.sam
        embeddings: Tensor = model.image_encoder(prepare_slices(self.sam, pictures))
        return embeddings

    def decode(self, embeddings: Tensor, points: ClassPoints, edge: int) -> Tensor:
        """Return the masks of all classes, one channel each.

        Args:
            embeddings: (B, 256, S/16, S/16).
            points: Of the B pictures.
            edge: Of a picture, in pixels.

        Returns:
            (B, C, edge, edge) logits, for a softmax over the classes.
        """
        frame = SliceFrame(edge, edge, input_size_of(self.sam))
        sparse, dense = self._tokens(embeddings, points, frame)
        images = embeddings.float().repeat_interleave(self.classes, 0)
        masks = decode_tokens(self.sam, images, sparse, dense)
        masks = masks.view(len(embeddings), self.classes, *masks.shape[1:])
        return frame.mask_to_slice(masks.float())

    def _tokens(
        self, embeddings: Tensor, points: ClassPoints, frame: SliceFrame
    ) -> tuple[Tensor, Tensor]:
        model: Any = self.sam
        # segment_anything adds the half pixel that our coordinates have already.
        xy = (frame.to_input(points.xy) - 0.5).flatten(0, 1).to(embeddings.device)
        labels = points.labels.flatten(0, 1).to(embeddings.device)
        sparse, dense = model.prompt_encoder(points=(xy, labels), boxes=None, masks=None)
        if not self.boxes:
            return sparse, dense
        boxes = torch.stack([box(embeddings.float()) for box in self.boxes], 1).flatten(0, 1)
        # The last token stands for no box; here there is one.
        return torch.cat([sparse[:, :-1], boxes.to(sparse)], 1), dense
