"""The adaptation network: what SAM returned, repaired in the light of image and specialist.

It *corrects* rather than predicts. Both voices, specialist and SAM, are averaged in log-odds, and
a small U-Net that sees image, container and both voices on neighbouring slices adds a correction to
that. Its last layer starts at zero, so an untrained network returns the plain average, and it is
free to delete a lesion that both voices name and to restore one that both missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from aslseg.config import AdaptationConfig, RunConfig, SpecialistConfig
from aslseg.data.volume import Float32
from aslseg.preprocessing.patches import image_channels
from aslseg.preprocessing.roi import Roi, from_volume
from aslseg.targets import CascadeStage

LOGIT_LIMIT = 4.0

Odds = TypeVar("Odds", Tensor, Float32)


NO_PREDICTION_SHARE = 0.25
"""Part of the lessons in which the image is hidden, so that the voices themselves are weighed."""


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilityPair:
    """What specialist and SAM say about one target, on a view.

    Attributes:
        specialist: (d, h, w) probability.
        sam: The same of SAM; zero where SAM was not asked.
    """

    specialist: Float32
    sam: Float32


class AdaptationNetwork(nn.Module):
    """Adds a learned correction to the averaged log-odds of the voices.

    Args:
        image_channels: Channels of image and container.
        settings: Levels and neighbours.
    """

    def __init__(self, image_channels: int, settings: AdaptationConfig) -> None:
        super().__init__()
        self.voice_channels = 2 * (2 * settings.predictions + 1)
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

    def forward(self, image: Tensor, predictions: Tensor) -> Tensor:
        """Return the corrected log-odds.

        Args:
            image: (B, C, h, w) intensities and container.
            predictions: (B, 2, n, h, w) probabilities of specialist and SAM on n slices.

        Returns:
            (B, h, w) logits of the middle slice.
        """
        share, strength = self.blend
        specialist, sam, correction = self.parts(image, predictions)
        return fuse(specialist, sam, share, correction, strength)

    def parts(self, image: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-odds of specialist and SAM, and the correction, each (B, h, w)."""
        odds = log_odds(predictions)
        specialist, sam = odds[:, :, odds.shape[2] // 2].unbind(1)
        features = self.body(torch.cat([image, odds.flatten(1, 2) / LOGIT_LIMIT], 1))
        return specialist, sam, self.head(features)[:, 0]


def fuse(
    specialist: Odds, sam: Odds, share: float, correction: Odds | None = None, strength: float = 0.0
) -> Odds:
    """Return `(1 - share) * specialist + share * sam + strength * correction`, in log-odds.

    Args:
        specialist: Log-odds of the specialist.
        sam: Log-odds of SAM, of the same shape.
        share: Weight of SAM beside the specialist, in [0, 1].
        correction: Of the adaptation network, of the same shape; None for none.
        strength: Weight of the correction.
    """
    averaged = (1 - share) * specialist + share * sam
    return averaged if correction is None else averaged + strength * correction


def log_odds(probability: Tensor) -> Tensor:
    """Return log(p / (1 - p)), cut off at +-4 so that no voice is beyond correction."""
    limit = 1 / (1 + np.exp(LOGIT_LIMIT))
    return torch.logit(probability.float(), eps=float(limit))


def prediction_channels(predictions: ProbabilityPair, k: int, reach: int, step: int) -> Float32:
    """Return both voices on slice `k` and its neighbours: (2, 2 reach + 1, h, w)."""
    wanted = np.clip(k + step * np.arange(-reach, reach + 1), 0, len(predictions.sam) - 1)
    return np.stack(
        [np.asarray(predictions.specialist)[wanted], np.asarray(predictions.sam)[wanted]]
    )


def build_adaptation(stage: CascadeStage, config: RunConfig) -> AdaptationNetwork:
    """Build the untrained adaptation network of a stage's targets."""
    settings = adaptation_roi_settings(stage, config)
    channels = image_channels(settings) + (stage.inside is not None)
    return AdaptationNetwork(channels, config.adaptation)


def probabilities_on_roi(roi: Roi, specialist: Float32, sam: Float32) -> ProbabilityPair:
    """Bring both voices into a view; without SAM the specialist speaks for both."""
    return ProbabilityPair(from_volume(specialist, roi), from_volume(sam, roi))


def adaptation_roi_settings(stage: CascadeStage, config: RunConfig) -> SpecialistConfig:
    """Return how the adaptation network sees a stage: in slices, at its own pixel."""
    settings = config.stage(stage.inside.name if stage.inside else None)
    return settings.model_copy(
        update={
            "roi": settings.roi.model_copy(update={"pixel_mm": config.adaptation.pixel_mm}),
            "network": settings.network.model_copy(update={"dimensions": 2}),
        }
    )
