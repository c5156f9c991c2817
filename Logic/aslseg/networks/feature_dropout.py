"""Perturbation of a U-Net's features: whole channels of what its encoder gives are dropped.

After UniMatch (Yang et al., CVPR 2023): the decoder sees perturbed features of all levels, the
encoder does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from monai.networks.blocks.dynunet_block import UnetUpBlock
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets.dynunet import DynUNet, DynUNetSkipLayer
from torch import Tensor, nn


@contextmanager
def dropped_features(network: nn.Module, share: float) -> Iterator[None]:
    """Drop channels between encoder and decoder while the context lasts.

    Args:
        network: Holding a MONAI DynUNet or U-Net; it may hold neither if `share` is 0.
        share: Of the channels of each level, dropped with equal chance for each element of a batch;
            the others are scaled by 1 / (1 - share). Drawn from torch's global generator.

    Raises:
        ValueError: When the network has no levels between which features could be dropped.
    """

    def drop(features: Tensor) -> Tensor:
        return torch.feature_dropout(features, share, train=True)

    def of_skip_input(_: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return inputs[0], drop(inputs[1])

    def of_skip_output(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        channels = inputs[0].shape[1]
        return torch.cat([drop(output[:, :channels]), output[:, channels:]], 1)

    def of_output(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return drop(output)

    handles = [m.register_forward_hook(of_output) for m in _bottlenecks(network)]
    for module in network.modules():
        if isinstance(module, UnetUpBlock):
            handles.append(module.register_forward_pre_hook(of_skip_input))
        elif isinstance(module, SkipConnection):
            handles.append(module.register_forward_hook(of_skip_output))
    if not handles and share > 0:
        msg = f"{type(network).__name__} has no levels whose features could be dropped."
        raise ValueError(msg)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _bottlenecks(network: nn.Module) -> list[nn.Module]:
    """Return the deepest level of each U-Net: what no connection goes past."""
    found: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, DynUNet):
            level = module.skip_layers
            while isinstance(level, DynUNetSkipLayer):
                level = level.next_layer
            found.append(level)
        elif isinstance(module, SkipConnection) and not any(
            isinstance(inner, SkipConnection) for inner in module.submodule.modules()
        ):
            found.append(module.submodule)
    return found
