"""The adaptation network: a correction of the fused predictions of specialist and SAM.

The log-odds of specialist and SAM are averaged, and a small U-Net adds a correction. Its input is
the image, the parent mask, and both predictions on neighbouring slices. Its last layer starts at
zero, so an untrained network returns the plain average; it can delete a lesion that both predict
and restore one that both missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from monai.networks.nets import UNet
from numpy.typing import NDArray
from torch import Tensor, nn

from aslseg.config import AdaptationConfig, RunConfig, SpecialistConfig
from aslseg.data.volume import Float32
from aslseg.preprocessing.roi import Roi, from_volume, image_channels, resample
from aslseg.targets import CascadeStage

LOGIT_LIMIT = 4.0

Odds = TypeVar("Odds", Tensor, Float32)


KEPT_SLICES = 64
"""Of a volume that is resampled slice by slice: more than any slice and its neighbours."""


HIDDEN_IMAGE_SHARE = 0.25
"""Part of the training patches whose image is zeroed, so that the predictions are weighed too."""


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilityPair:
    """Predictions of one target on an ROI.

    Attributes:
        specialist: (d, h, w) probability of the specialist.
        sam: (d, h, w) probability of SAM; zero where it had no prompt.
    """

    specialist: Float32 | RoiSlices
    sam: Float32 | RoiSlices


class RoiSlices:
    """A probability of a volume on the pixels of an ROI that is not resampled in depth.

    Slices are resampled when they are asked for; the latest ones are kept.

    Args:
        values: (D, H, W).
        roi: With slices of the volume.
    """

    def __init__(self, values: Float32, roi: Roi) -> None:
        self._source = roi.turn.array(values)[roi.box.slices]
        self._shape = roi.image.shape
        self._latest: dict[int, Float32] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, wanted: slice | NDArray[np.integer[Any]]) -> Float32:
        """Return (n, h, w) of some slices."""
        numbers = np.arange(len(self))[wanted].tolist()
        missing = [n for n in dict.fromkeys(numbers) if n not in self._latest]
        if missing:
            found = resample(self._source[missing], (len(missing), *self._shape[1:]), "linear")
            self._latest.update(zip(missing, found, strict=True))
        result = np.stack([self._latest[n] for n in numbers])
        for n in list(self._latest)[:-KEPT_SLICES]:
            del self._latest[n]
        return result


class AdaptationNetwork(nn.Module):
    """Adds a correction to the weighted log-odds of specialist and SAM.

    Args:
        image_channels: Channels of image and parent mask.
        settings: Levels and neighbours.
    """

    def __init__(self, image_channels: int, settings: AdaptationConfig) -> None:
        super().__init__()
        features = settings.channels[0]
        self.body = UNet(
            spatial_dims=2,
            in_channels=image_channels + 2 * (2 * settings.context_slices + 1),
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
    def fusion_weights(self) -> FusionWeights:
        """The weights of the fusion, which are part of the state."""
        return FusionWeights(*self.get_buffer("_blend").tolist())

    def set_fusion_weights(self, weights: FusionWeights) -> None:
        """Set the weights of the fusion."""
        self.get_buffer("_blend").copy_(torch.tensor(weights))

    def forward(self, image: Tensor, predictions: Tensor) -> Tensor:
        """Return the corrected log-odds.

        Args:
            image: (B, C, h, w) intensities and parent mask.
            predictions: (B, 2, n, h, w) probabilities of specialist and SAM on n slices.

        Returns:
            (B, h, w) logits of the middle slice.
        """
        specialist, sam, correction = self.terms(image, predictions)
        return fuse(specialist, sam, self.fusion_weights, correction)

    def terms(self, image: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-odds of specialist and SAM, and the correction, each (B, h, w)."""
        odds = log_odds(predictions)
        specialist, sam = odds[:, :, odds.shape[2] // 2].unbind(1)
        features = self.body(torch.cat([image, odds.flatten(1, 2) / LOGIT_LIMIT], 1))
        return specialist, sam, self.head(features)[:, 0]


class FusionWeights(NamedTuple):
    """Weights of the sum that `fuse` returns.

    Attributes:
        sam: Of SAM beside the specialist, in [0, 1].
        correction: Of the adaptation network's correction.
    """

    sam: float
    correction: float


def fuse(
    specialist: Odds, sam: Odds, weights: FusionWeights, correction: Odds | None = None
) -> Odds:
    """Return `(1 - w.sam) * specialist + w.sam * sam + w.correction * correction`, in log-odds.

    Args:
        specialist: Log-odds of the specialist.
        sam: Log-odds of SAM, of the same shape.
        weights: The weights w.
        correction: Of the adaptation network, of the same shape; None for none.
    """
    averaged = (1 - weights.sam) * specialist + weights.sam * sam
    return averaged if correction is None else averaged + weights.correction * correction


def log_odds(probability: Tensor) -> Tensor:
    """Return log(p / (1 - p)), clipped to +-4, within reach of a correction.

    Args:
        probability: Any shape, in [0, 1].

    Returns:
        Of the same shape, float32.
    """
    limit = 1 / (1 + np.exp(LOGIT_LIMIT))
    return torch.logit(probability.float(), eps=float(limit))


def prediction_channels(predictions: ProbabilityPair, k: int, reach: int, step: int) -> Float32:
    """Return both probabilities on slice `k` and its neighbours: (2, 2 reach + 1, h, w)."""
    wanted = np.clip(k + step * np.arange(-reach, reach + 1), 0, len(predictions.sam) - 1)
    return np.stack([predictions.specialist[wanted], predictions.sam[wanted]])


def build_adaptation(stage: CascadeStage, config: RunConfig) -> AdaptationNetwork:
    """Build the untrained adaptation network of a stage's targets."""
    settings = adaptation_roi_settings(stage, config)
    channels = image_channels(settings) + (stage.inside is not None)
    return AdaptationNetwork(channels, config.adaptation)


def probabilities_on_roi(roi: Roi, specialist: Float32, sam: Float32) -> ProbabilityPair:
    """Resample the probabilities (D, H, W) of specialist and SAM to an ROI."""
    return ProbabilityPair(from_volume(specialist, roi), from_volume(sam, roi))


def adaptation_roi_settings(stage: CascadeStage, config: RunConfig) -> SpecialistConfig:
    """Return the settings of a stage with the adaptation network's pixel size, in 2-D."""
    settings = config.stage(stage.parent_name)
    return settings.model_copy(
        update={
            "roi": settings.roi.model_copy(update={"pixel_mm": config.adaptation.pixel_mm}),
            "network": settings.network.model_copy(update={"dimensions": 2}),
        }
    )
