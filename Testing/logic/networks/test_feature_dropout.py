"""Features are dropped by channel between encoder and decoder, and only there."""

from __future__ import annotations

import pytest
import torch
from monai.networks.blocks.dynunet_block import UnetUpBlock
from monai.networks.nets import DynUNet, UNet
from torch import Tensor, nn

from aslseg.networks.feature_dropout import dropped_features


def a_dynunet() -> nn.Module:
    torch.manual_seed(0)
    return DynUNet(2, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=(8, 8, 8)).eval()


def a_unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet(2, 1, 2, (8, 8, 8), (2, 2), norm="instance").eval()


each = pytest.mark.parametrize("build", [a_dynunet, a_unet])
INPUTS = torch.linspace(-1, 1, 512).view(2, 1, 16, 16)


@each
def test_the_output_differs_while_the_context_lasts_and_not_after(build: object) -> None:
    network: nn.Module = build()  # type: ignore[operator]
    before = network(INPUTS)
    torch.manual_seed(1)
    with dropped_features(network, 0.5):
        first, second = network(INPUTS), network(INPUTS)
    assert not torch.allclose(first, before)
    assert not torch.allclose(first, second)
    assert torch.equal(network(INPUTS), before)


@each
def test_no_share_changes_nothing(build: object) -> None:
    network: nn.Module = build()  # type: ignore[operator]
    with dropped_features(network, 0.0):
        inside = network(INPUTS)
    assert torch.equal(inside, network(INPUTS))


def test_the_decoder_sees_whole_channels_dropped_and_the_others_doubled() -> None:
    network = a_dynunet()
    seen: list[tuple[Tensor, Tensor]] = []
    ups = [module for module in network.modules() if isinstance(module, UnetUpBlock)]
    with dropped_features(network, 0.5):
        handles = [
            up.register_forward_pre_hook(lambda _, inputs: seen.append(inputs)) for up in ups
        ]
        network(INPUTS)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        full = network.get_submodule("input_block")(INPUTS)
        half = network.get_submodule("downsamples.0")(full)
        deep = network.get_submodule("bottleneck")(half)
    clean = {tuple(features.shape): features for features in (full, half)}
    assert len(seen) == 2
    for below, skip in seen:
        ratio = skip / clean[tuple(skip.shape)]
        kept = (skip.flatten(2).abs().sum(2) > 0).flatten()
        assert 0 < int(kept.sum()) < len(kept)
        doubled = torch.full_like(ratio.flatten(0, 1)[kept], 2.0)
        torch.testing.assert_close(ratio.flatten(0, 1)[kept], doubled)
        if below.shape == deep.shape:
            dropped = below.flatten(2).abs().sum(2) == 0
            assert dropped.any()
            torch.testing.assert_close(below[~dropped], 2 * deep[~dropped])


def test_a_network_without_levels_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="Conv2d has no levels"),
        dropped_features(nn.Conv2d(1, 2, 1), 0.5),
    ):
        pass
