"""What is freed between volumes, and in the middle of one, is handed back."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from aslseg.config import RunConfig
from aslseg.data.volume import Geometry, Volume, give_back_memory
from aslseg.inference.cascade import Probabilities, Specialist
from aslseg.inference.ensemble import Ensemble
from aslseg.prompts import SlicePrompts
from aslseg.targets import LIVER_TARGETS

of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")

BLOCKS, BLOCK_VALUES = 2000, 10_000  # of 8 bytes: below what is mapped by itself
MOST_OF_FREED = 0.5 * 0.95 * BLOCKS * BLOCK_VALUES * 8


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def left_in_pieces() -> list[Any]:
    """Free 19 of 20 blocks, and return those between them."""
    return [np.ones(BLOCK_VALUES) for _ in range(BLOCKS)][::20]


@of_glibc
def test_what_was_freed_between_things_that_stay_is_given_back() -> None:
    kept = left_in_pieces()
    before = resident()
    give_back_memory()
    assert before - resident() > MOST_OF_FREED
    del kept


class LeavingSam:
    """Predicts nothing, and leaves freed memory between things that stay."""

    def propose_prompts(self, *_: Any) -> list[SlicePrompts]:
        return []

    def predict(self, *_: Any) -> Probabilities:
        self.kept = left_in_pieces()
        self.resident = resident()
        return {}


class MeasuringRule:
    """The specialist's probabilities; says what memory is resident when they are asked for."""

    def refine(
        self, _: Volume, specialist: Probabilities, sam: Probabilities | None
    ) -> Probabilities:
        self.resident = resident()
        return specialist


@of_glibc
def test_what_predictions_leave_is_given_back_before_they_are_refined() -> None:
    masks = {target.name: np.ones((2, 4, 4), np.bool_) for target in LIVER_TARGETS}
    volume = Volume(np.zeros((2, 4, 4)), Geometry.axis_aligned((2, 4, 4)), masks)
    specialist = Specialist({}, LIVER_TARGETS, RunConfig(), torch.device("cpu"))
    sam, rule = LeavingSam(), MeasuringRule()
    Ensemble(specialist, sam, rule, LIVER_TARGETS, RunConfig()).segment(volume)
    assert sam.resident - rule.resident > MOST_OF_FREED


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    give_back_memory()
