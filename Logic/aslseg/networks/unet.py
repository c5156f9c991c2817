"""The specialist: one U-Net per stage, and the only place with their sizes."""

from __future__ import annotations

from monai.networks.nets import UNet
from torch import nn

from aslseg.config import SpecialistConfig
from aslseg.preprocessing.patches import image_channels
from aslseg.targets import CascadeStage


def input_channels(stage: CascadeStage, settings: SpecialistConfig) -> int:
    """Return the number of channels that a stage's network is given."""
    return image_channels(settings) + (stage.inside is not None)


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
