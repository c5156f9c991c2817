"""The specialist: one U-Net per stage, and the only place with their sizes."""

from __future__ import annotations

from monai.networks.nets import UNet
from torch import Tensor, nn

from aslseg.config import SpecialistConfig
from aslseg.preprocessing.patches import image_channels
from aslseg.targets import CascadeStage


def input_channels(stage: CascadeStage, settings: SpecialistConfig) -> int:
    """Return the number of channels that a stage's network is given."""
    return image_channels(settings) + (stage.inside is not None)


def padding_of(images: Tensor, stride: int) -> tuple[int, int, int, int]:
    """Return the padding (left, right, top, bottom) with which a U-Net of a stride can see images.

    Edges become multiples of the stride. Of an image no larger than the stride one pixel would be
    left on the coarsest level, which instance normalisation refuses: it is padded to two strides.

    Args:
        images: (..., h, w).
        stride: Of the whole network.
    """
    height, width = images.shape[-2:]
    least = 2 * stride if max(height, width) <= stride else stride
    right, bottom = (max(-edge % stride, least - edge) for edge in (width, height))
    return 0, right, 0, bottom


def build_network(stage: CascadeStage, settings: SpecialistConfig) -> nn.Module:
    """Build the untrained network of a stage.

    Returns:
        A MONAI U-Net from (B, C, *spatial) to (B, 1 + targets, *spatial) logits. Instance
        normalisation keeps patches of a batch independent of one another.
    """
    network = settings.network
    built: nn.Module = UNet(
        spatial_dims=network.dimensions,
        in_channels=input_channels(stage, settings),
        out_channels=1 + len(stage.targets),
        channels=network.channels,
        strides=(2,) * (len(network.channels) - 1),
        num_res_units=network.residual_units,
        norm="instance",
        dropout=network.dropout,
    )
    return built
