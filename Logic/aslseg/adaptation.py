"""The adaptation network: what SAM returned, repaired in the light of image and specialist.

It *corrects* rather than predicts. Both voices, specialist and SAM, are averaged in log-odds, and
a small U-Net that sees image, container and both voices on neighbouring slices adds a correction to
that. Its last layer starts at zero, so an untrained network returns the plain average, and it is
free to delete a lesion that both voices name and to restore one that both missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.augment import cut_patch, draw_placement
from aslseg.batches import image_channels, slice_channels
from aslseg.config import AdaptationConfig, SpecialistConfig
from aslseg.losses import soft_dice_loss
from aslseg.views import Float32, View
from aslseg.volume import Mask

LOGIT_LIMIT = 4.0
BLIND_SHARE = 0.25
"""Part of the lessons in which the image is hidden, so that the voices themselves are weighed."""


@dataclass(frozen=True, slots=True, eq=False)
class Voices:
    """What specialist and SAM say about one target, on a view.

    Attributes:
        specialist: (d, h, w) probability.
        sam: The same of SAM; zero where SAM was not asked.
    """

    specialist: Float32
    sam: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """One training volume of the adaptation network.

    Attributes:
        view: Image and labels.
        voices: Of a synthetic pseudo-label, and of SAM when prompted by it.
        number: The target's class number in the view's labels.
    """

    view: View
    voices: Voices
    number: int

    @property
    def truth(self) -> Mask:
        """(d, h, w) the target, as a person labelled it."""
        truth: Mask = np.asarray(self.view.labels) == self.number
        return truth


class AdaptationNetwork(nn.Module):
    """Adds a learned correction to the averaged log-odds of the voices.

    Args:
        image_channels: Channels of image and container.
        settings: Levels and neighbours.
    """

    def __init__(self, image_channels: int, settings: AdaptationConfig) -> None:
        super().__init__()
        self.voice_channels = 2 * (2 * settings.voices + 1)
        features = settings.channels[0]
        self.body = UNet(
            spatial_dims=2,
            in_channels=image_channels + self.voice_channels,
            out_channels=features,
            channels=settings.channels,
            strides=(2,) * (len(settings.channels) - 1),
            num_res_units=2,
            norm="instance",
        )
        self.head = nn.Conv2d(features, 1, 1)
        nn.init.zeros_(self.head.weight)
        self.head.bias = nn.Parameter(torch.zeros(1))

        self.register_buffer("_blend", torch.tensor([0.5, 1.0]))

    @property
    def blend(self) -> tuple[float, float]:
        """SAM's share beside the specialist, and the strength of the correction."""
        share, strength = self.get_buffer("_blend").tolist()
        return share, strength

    def set_blend(self, share: float, strength: float) -> None:
        """Follow SAM and the correction to this extent from now on."""
        self.get_buffer("_blend").copy_(torch.tensor([share, strength]))

    def forward(self, image: Tensor, voices: Tensor) -> Tensor:
        """Return the corrected log-odds.

        Args:
            image: (B, C, h, w) intensities and container.
            voices: (B, 2, n, h, w) probabilities of specialist and SAM on n neighbouring slices.

        Returns:
            (B, h, w) logits of the middle slice.
        """
        share, strength = self.blend
        specialist, sam, correction = self.parts(image, voices)
        return (1 - share) * specialist + share * sam + strength * correction

    def parts(self, image: Tensor, voices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-odds of specialist and SAM, and the correction, each (B, h, w)."""
        odds = log_odds(voices)
        specialist, sam = odds[:, :, odds.shape[2] // 2].unbind(1)
        features = self.body(torch.cat([image, odds.flatten(1, 2) / LOGIT_LIMIT], 1))
        return specialist, sam, self.head(features)[:, 0]


def log_odds(probability: Tensor) -> Tensor:
    """Return log(p / (1 - p)), cut off at +-4 so that no voice is beyond correction."""
    limit = 1 / (1 + np.exp(LOGIT_LIMIT))
    return torch.logit(probability.float(), eps=float(limit))


def voice_channels(voices: Voices, k: int, reach: int, step: int) -> Float32:
    """Return both voices on slice `k` and its neighbours: (2, 2 reach + 1, h, w)."""
    wanted = np.clip(k + step * np.arange(-reach, reach + 1), 0, len(voices.sam) - 1)
    return np.stack([np.asarray(voices.specialist)[wanted], np.asarray(voices.sam)[wanted]])


class LessonSource:
    """Draws training patches, half of them where the pseudo-label is wrong.

    Args:
        lessons: Volumes to draw from, equally likely.
        settings: Of the adaptation network.
        view_settings: Of the stage that the views belong to.
        seed: Of the run.
    """

    def __init__(
        self,
        lessons: list[Lesson],
        settings: AdaptationConfig,
        view_settings: SpecialistConfig,
        seed: int,
    ) -> None:
        if not lessons:
            msg = "The adaptation network needs at least one lesson."
            raise ValueError(msg)
        self._lessons = lessons
        self._settings = settings
        self._view_settings = view_settings
        self._seed = seed
        self._spots = [_error_spots(lesson) for lesson in lessons]

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return image (B, C, h, w), voices (B, 2, n, h, w) and truth (B, h, w) of a step."""
        rng = np.random.default_rng([self._seed, 7, step])
        drawn = [self._draw(rng) for _ in range(self._settings.batch_size)]
        image, voices, truth = zip(*drawn, strict=True)
        return torch.stack(image), torch.stack(voices), torch.stack(truth)

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        number = int(rng.integers(len(self._lessons)))
        lesson, spots = self._lessons[number], self._spots[number]
        if len(spots) and rng.random() < 0.5:
            k, y, x = spots[rng.integers(len(spots))]
        else:
            k, y, x = rng.integers(lesson.view.image.shape)
        edge = self._settings.patch_size
        place = draw_placement((float(y), float(x)), rng)
        reach = self._settings.voices
        image = cut_patch(slice_channels(lesson.view, int(k), self._view_settings), place, edge)
        if rng.random() < BLIND_SHARE:
            image[: image_channels(self._view_settings)] = 0.0
        voices = voice_channels(lesson.voices, int(k), reach, lesson.view.neighbour)
        cut = cut_patch(voices.reshape(-1, *voices.shape[2:]), place, edge)
        labels = np.asarray(lesson.view.labels)[int(k)][None] == lesson.number
        truth = cut_patch(labels, place, edge, nearest=True)[0]
        drawn = image, cut.reshape(2, -1, edge, edge), truth.round().long()
        if self._view_settings.mirror and rng.random() < 0.5:
            return drawn[0].flip(-1), drawn[1].flip(-1), drawn[2].flip(-1)
        return drawn


def adaptation_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return cross entropy plus Dice, with small components counting as much as large ones.

    Args:
        logits: (B, h, w).
        truth: (B, h, w) of 0 and 1.
    """
    logits = logits.float()
    probability = logits.sigmoid()
    weight = 1.0 + 2.0 * truth.to(logits)
    cross = F.binary_cross_entropy_with_logits(logits, truth.to(logits), weight)
    both = torch.stack([1 - probability, probability], 1)
    return cross + soft_dice_loss(both, truth)


def _error_spots(lesson: Lesson) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    truth = lesson.truth
    said = np.asarray(lesson.voices.specialist) > 0.5
    sam = np.asarray(lesson.voices.sam) > 0.5
    spots = np.argwhere((truth != said) | (truth != sam) | truth)
    if len(spots) > 20_000:
        spots = spots[:: len(spots) // 20_000 + 1]
    return spots.astype(np.int64)
