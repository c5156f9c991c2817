"""Averaged networks predict the mean of their probabilities, and come back from one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aslseg.errors import WeightsError
from aslseg.networks.averaged import (
    AveragedNetworks,
    TwoPasses,
    count_networks,
    joined,
    load_networks,
    network_of,
)
from aslseg.networks.checkpoints import Checkpoint, save_checkpoint


class Constant(nn.Module):
    """Predicts the same probabilities of two classes everywhere."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(probability).logit())

    def forward(self, inputs: Tensor) -> Tensor:
        there = self.logit.expand(inputs.shape[0], 1, *inputs.shape[2:])
        return torch.cat([torch.zeros_like(there), there], 1)


def test_the_probabilities_are_averaged_and_not_the_logits() -> None:
    both = AveragedNetworks([Constant(0.9), Constant(0.3)])
    found = both(torch.zeros(2, 1, 3, 4)).softmax(1)
    assert found.shape == (2, 2, 3, 4)
    torch.testing.assert_close(found[:, 1], torch.full((2, 3, 4), 0.6))
    torch.testing.assert_close(found.sum(1), torch.ones(2, 3, 4))


def test_networks_that_are_sure_of_opposites_give_no_infinity() -> None:
    both = AveragedNetworks([Constant(1.0 - 1e-7), Constant(1e-7)])
    assert both(torch.zeros(1, 1, 2, 2)).isfinite().all()


def test_averaged_networks_come_back_from_one_file(tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    states = [Constant(p).state_dict() for p in (0.9, 0.3)]
    save_checkpoint(path, Checkpoint("specialist", joined(states)))
    again = load_networks(lambda: Constant(0.5), path)
    found = [network_of(again, n).state_dict()["logit"].sigmoid() for n in (0, 1)]
    torch.testing.assert_close(torch.stack(found), torch.tensor([0.9, 0.3]))


def test_a_file_of_one_network_gives_that_network(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, Checkpoint("specialist", Constant(0.9).state_dict()))
    again = load_networks(lambda: Constant(0.5), path)
    assert isinstance(again, Constant)
    assert network_of(again, 1) is again


@pytest.mark.parametrize("first", [(0.9,), (0.9, 0.3)])
def test_two_passes_come_back_from_one_file(tmp_path: Path, first: tuple[float, ...]) -> None:
    path = tmp_path / "both.safetensors"
    *states, last = (Constant(p).state_dict() for p in (*first, 0.5))
    save_checkpoint(path, Checkpoint("specialist", joined(states, last)))
    again = load_networks(lambda: Constant(0.1), path)
    assert isinstance(again, TwoPasses)
    assert isinstance(again.first_pass, AveragedNetworks) == (len(first) > 1)
    assert count_networks(again) == len(first) + 1
    found = [network_of(again, n).state_dict()["logit"].sigmoid() for n in range(len(first) + 1)]
    torch.testing.assert_close(torch.stack(found), torch.tensor([*first, 0.5]))
    assert again.second_share == 1 / (len(first) + 1)


def test_a_file_that_lacks_one_of_the_networks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lacking.safetensors"
    state = joined([Constant(p).state_dict() for p in (0.9, 0.3, 0.5)])
    del state["networks.0.logit"]
    save_checkpoint(path, Checkpoint("specialist", state))
    with pytest.raises(WeightsError, match="holds a network of other sizes"):
        load_networks(lambda: Constant(0.5), path)
