"""Steps of training equal plain ones: losses, and the weights that they lead to."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from plain_training import PlainMeanTeacher, PlainScSam, PlainStep
from speed_training import Compared, Turns, in_turns, liver

from aslseg.config import NetworkConfig, ScSamConfig, SpecialistConfig
from aslseg.methods.scsam import CoTraining
from aslseg.networks.unet import build_network
from aslseg.presets import PUBLISHED_METHODS, PUBLISHED_PARADIGMS
from aslseg.sam.classwise import ClasswiseSam
from aslseg.sam.model import ViTSizes, assemble_sam
from aslseg.sam.tuning import Adapter, tune
from aslseg.training.ssl.mean_teacher import MeanTeacher

SMALL_VIT = ViTSizes(dim=32, depth=2, heads=2, global_blocks=(1,), window=3)


def a_specialist(dimensions: int, edge: int) -> SpecialistConfig:
    return SpecialistConfig(
        iterations=20,
        batch_size=2,
        patch_size=edge,
        optimiser="sgd",
        learning_rate=0.01,
        network=NetworkConfig(dimensions=dimensions, channels=(4, 8, 8)),
        **PUBLISHED_PARADIGMS["mean_teacher"],
    )


def a_mean_teacher(dimensions: int) -> Compared:
    settings = a_specialist(dimensions, 16)
    ours = MeanTeacher(lambda: build_network(liver(), settings), settings)
    shape = (3, 16, 16) if dimensions == 2 else (1, 8, 16, 16)
    return Compared(ours, PlainMeanTeacher, shape, 2)


def a_scsam() -> Compared:
    settings = a_specialist(2, 64)
    # 8 x 8 tokens: windows of 3 are filled up at two edges.
    sam = tune(assemble_sam(SMALL_VIT, 128), "adapter", rank=4)
    for module in sam.modules():
        if isinstance(module, Adapter):  # its output starts at zero, which would hide a mix-up
            nn.init.normal_(module.up.weight, std=0.1)
    own = ScSamConfig(input_size=128, rank=4, **PUBLISHED_METHODS["scsam"])
    classwise = ClasswiseSam(sam, 2, learned_boxes=True)
    ours = CoTraining(lambda: build_network(liver(), settings), settings, classwise, own)
    return Compared(ours, PlainScSam, (3, 64, 64), 2)


def turns_of(compared: Compared, steps: int) -> tuple[Turns, PlainStep]:
    """Take steps of both in float32; return what they found, and the plain one."""
    kept: list[PlainStep] = []

    def plain(*args: Any) -> PlainStep:
        kept.append(compared.plain(*args))
        return kept[0]

    kind: Any = plain
    return in_turns(replace(compared, plain=kind), steps, precise=True), kept[0]


@pytest.mark.parametrize("kind", ["scsam", "mean_teacher in 2-D", "mean_teacher in 3-D"])
def test_a_step_has_loss_and_gradients_of_a_plain_one(kind: str) -> None:
    torch.manual_seed(0)
    compared = a_scsam() if kind == "scsam" else a_mean_teacher(int(kind[-3]))
    turns, plain = turns_of(compared, 1)
    assert turns.plain == pytest.approx(turns.ours, abs=1e-5)
    of_plain = dict(plain.module.named_parameters())
    trained = {n: p.grad for n, p in compared.ours.named_parameters() if p.grad is not None}
    assert trained
    assert trained.keys() == {n for n, p in of_plain.items() if p.grad is not None}
    for name, gradient in trained.items():
        torch.testing.assert_close(gradient, of_plain[name].grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_steps_lead_to_the_weights_of_plain_ones(dimensions: int) -> None:
    torch.manual_seed(0)
    compared = a_mean_teacher(dimensions)
    before = deepcopy(compared.ours.state_dict())
    turns, plain = turns_of(compared, 3)
    assert turns.plain == pytest.approx(turns.ours, abs=1e-5)
    for name, value in compared.ours.state_dict().items():
        torch.testing.assert_close(value, plain.module.state_dict()[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(value, before[name])


def test_steps_in_half_precision_stay_close_to_plain_ones() -> None:
    torch.manual_seed(0)
    turns = in_turns(a_mean_teacher(2), 3, precise=False)
    assert turns.plain == pytest.approx(turns.ours, abs=0.02)
