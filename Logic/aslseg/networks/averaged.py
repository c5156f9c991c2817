"""Several networks of one stage as one: those whose probabilities are averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from aslseg.networks.checkpoints import load_checkpoint, load_tensors

_NETWORKS, _FIRST, _SECOND = "networks", "first_pass", "second_pass"
"""Of modules, before the names of their weights; no network's own names begin so."""


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


class TwoPasses(nn.Module):
    """A network, and one that is given an image which depends on what the first one finds.

    There is no `forward`: the second one needs what the first one finds in the whole image.

    Args:
        first_pass: One network, or averaged ones.
        second_pass: Of the same inputs and outputs.
    """

    def __init__(self, first_pass: nn.Module, second_pass: nn.Module) -> None:
        super().__init__()
        self.first_pass, self.second_pass = first_pass, second_pass

    @property
    def second_share(self) -> float:
        """What the second one counts where probabilities of all networks are averaged."""
        return 1 / (count_networks(self.first_pass) + 1)


def count_networks(module: nn.Module) -> int:
    """Return how many networks a stage has."""
    if isinstance(module, TwoPasses):
        return count_networks(module.first_pass) + 1
    return len(module.networks) if isinstance(module, AveragedNetworks) else 1


def network_of(module: nn.Module, number: int) -> nn.Module:
    """Return one of a stage's networks, counted from 0, that of a second pass last.

    A network alone is itself.
    """
    if isinstance(module, TwoPasses):
        is_second = number == count_networks(module.first_pass)
        return module.second_pass if is_second else network_of(module.first_pass, number)
    return module.networks[number] if isinstance(module, AveragedNetworks) else module


def joined(
    states: Sequence[Mapping[str, Tensor]], second_pass: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return the weights of several networks under the names that their module has.

    Args:
        states: Of networks that are averaged, or of one.
        second_pass: Of the network of a second pass, if there is one.
    """
    averaged = {
        f"{_NETWORKS}.{number}.{name}": tensor
        for number, state in enumerate(states)
        for name, tensor in state.items()
    }
    if second_pass is None:
        return averaged
    first = averaged if len(states) > 1 else states[0]
    return {f"{_FIRST}.{name}": tensor for name, tensor in first.items()} | {
        f"{_SECOND}.{name}": tensor for name, tensor in second_pass.items()
    }


def load_networks(build: Callable[[], nn.Module], path: Path) -> nn.Module:
    """Load the network, the averaged networks, or the two passes that a checkpoint holds.

    Args:
        build: Builds one untrained network.
        path: The checkpoint of a specialist.

    Raises:
        WeightsError: When the file is missing, damaged, or of networks of other sizes.
    """
    tensors = load_checkpoint(path, "specialist").tensors
    names = {name.removeprefix(f"{_FIRST}.") for name in tensors}
    numbers = {name.split(".")[1] for name in names if name.startswith(f"{_NETWORKS}.")}
    network = AveragedNetworks([build() for _ in numbers]) if numbers else build()
    if any(name.startswith(f"{_SECOND}.") for name in tensors):
        network = TwoPasses(network, build())
    load_tensors(network, tensors, path)
    return network
