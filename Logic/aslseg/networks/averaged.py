"""Several networks of one stage as one: the mean of their probabilities (deep ensembles)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from aslseg.networks.checkpoints import load_checkpoint, load_tensors

_PREFIX = "networks."
"""Of a network's number, before the names of its weights; no network's own names begin so."""


class AveragedNetworks(nn.Module):
    """Networks whose probabilities are averaged (Lakshminarayanan et al., NeurIPS 2017).

    Args:
        networks: At least one, each from (B, C, *spatial) to (B, classes, *spatial) logits.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits whose softmax is the mean of the networks' (B, classes, *spatial)."""
        logs = torch.stack([one(inputs).float().log_softmax(1) for one in self.networks])
        return logs.logsumexp(0) - math.log(len(self.networks))


def network_of(module: nn.Module, number: int) -> nn.Module:
    """Return one of several averaged networks, counted from 0; a network alone is itself."""
    return module.networks[number] if isinstance(module, AveragedNetworks) else module


def joined(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the weights of several networks under the names that `AveragedNetworks` has."""
    return {
        f"{_PREFIX}{number}.{name}": tensor
        for number, state in enumerate(states)
        for name, tensor in state.items()
    }


def load_networks(build: Callable[[], nn.Module], path: Path, kind: str) -> nn.Module:
    """Load the network, or the averaged networks, that a checkpoint holds.

    Args:
        build: Builds one untrained network.
        path: The checkpoint.
        kind: What it must be.

    Raises:
        WeightsError: When the file is missing, damaged, or of networks of other sizes.
    """
    tensors = load_checkpoint(path, kind).tensors
    numbers = {name.split(".")[1] for name in tensors if name.startswith(_PREFIX)}
    network = AveragedNetworks([build() for _ in numbers]) if numbers else build()
    load_tensors(network, tensors, path)
    return network
