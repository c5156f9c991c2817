"""The networks of the specialist: one U-Net per stage, and the only place with their sizes."""

from __future__ import annotations

from typing import cast

from monai.networks.nets import DynUNet, UNet
from torch import nn

from aslseg.config import NetworkConfig, SpecialistConfig
from aslseg.preprocessing.roi import image_channels
from aslseg.targets import CascadeStage


def input_channels(stage: CascadeStage, settings: SpecialistConfig) -> int:
    """Return the number of channels that a stage's network is given."""
    return image_channels(settings) + (stage.inside is not None)


def build_network(stage: CascadeStage, settings: SpecialistConfig) -> nn.Module:
    """Build the untrained network of a stage.

    Returns:
        A network from (B, C, *spatial) to (B, 1 + targets, *spatial) logits. Instance
        normalisation keeps patches of a batch independent of one another.
    """
    channels, classes = input_channels(stage, settings), 1 + len(stage.targets)
    build = _dynunet if settings.network.architecture == "dynunet" else _unet
    return build(channels, classes, settings.network)


_NAMED_TWICE = ("input_block", "downsamples", "bottleneck", "upsamples")
"""Parts of a DynUNet that `skip_layers` has too; safetensors refuses weights of two names."""


def _dynunet(channels: int, classes: int, settings: NetworkConfig) -> nn.Module:
    """Return the network of nnU-Net (Isensee et al., Nature Methods 2021).

    The first level has the resolution of the input, normalisation has weights, and the last
    convolution gives the logits. Without deep supervision.
    """
    levels = len(settings.channels)
    network = DynUNet(
        spatial_dims=settings.dimensions,
        in_channels=channels,
        out_channels=classes,
        kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        filters=settings.channels,
        dropout=settings.dropout or None,
        norm_name=("INSTANCE", {"affine": True}),
    )
    for name in _NAMED_TWICE:
        delattr(network, name)
    return cast("nn.Module", network)


def _unet(channels: int, classes: int, settings: NetworkConfig) -> nn.Module:
    network: nn.Module = UNet(
        spatial_dims=settings.dimensions,
        in_channels=channels,
        out_channels=classes,
        channels=settings.channels,
        strides=(2,) * (len(settings.channels) - 1),
        num_res_units=settings.residual_units,
        norm="instance",
        dropout=settings.dropout or 0.0,
    )
    return network
