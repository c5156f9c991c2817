"""In which numbers SAM's encoder computes: tried once per computer, and the same masks in both."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from aslseg.config import SamConfig
from aslseg.data.volume import Geometry, Volume
from aslseg.sam import precision
from aslseg.sam.embeddings import embed_slices
from aslseg.sam.precision import Trial, choose_precision, try_bfloat16
from aslseg.sam.predictor import VolumeSamPredictor
from support.sam_doubles import a_small_sam

SETTINGS = SamConfig(input_size=128)
GOOD = Trial(dice=0.995, float32_s=0.4, bfloat16_s=0.2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path))
    return tmp_path


def try_once(
    monkeypatch: pytest.MonkeyPatch, trial: Trial, *, has_bfloat16: bool = True
) -> list[int]:
    tried: list[int] = []

    def found(*_: object) -> Trial:
        tried.append(1)
        return trial

    monkeypatch.setattr(precision, "try_bfloat16", found)
    monkeypatch.setattr(precision, "mixed_precision", lambda _: has_bfloat16)
    return tried


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        pytest.param(GOOD, torch.bfloat16, id="same masks"),
        pytest.param(Trial(0.985, 0.4, 0.2), torch.float32, id="other masks"),
        pytest.param(Trial(0.999, 0.2, 0.3), torch.bfloat16, id="same masks, slow this once"),
    ],
)
def test_half_precision_is_used_where_masks_stay_whatever_the_clock_says(
    trial: Trial,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried = try_once(monkeypatch, trial)
    sam = a_small_sam()
    with caplog.at_level(logging.INFO):
        chosen = [choose_precision(sam, SETTINGS) for _ in range(2)]
    assert chosen == [expected, expected]
    assert tried == [1], "it is tried once per computer"
    assert f"Dice {trial.dice:.4f}" in caplog.text


def test_another_input_size_is_tried_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = try_once(monkeypatch, GOOD)
    for size in (128, 256, 128):
        choose_precision(a_small_sam(), SETTINGS.model_copy(update={"input_size": size}))
    assert len(tried) == 2


def test_another_network_of_the_same_name_is_tried_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = try_once(monkeypatch, GOOD)
    for value in (0.0, 1.0, 0.0):
        sam = a_small_sam()
        torch.nn.init.constant_(next(sam.image_encoder.parameters()), value)
        choose_precision(sam, SETTINGS)
    assert len(tried) == 2


def test_a_damaged_result_is_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = try_once(monkeypatch, GOOD)
    choose_precision(a_small_sam(), SETTINGS)
    (kept,) = cache.glob("precision-*.json")
    kept.write_text('{"dice": "high"}', encoding="utf-8")
    assert choose_precision(a_small_sam(), SETTINGS) == torch.bfloat16
    assert len(tried) == 2


def test_a_processor_without_bfloat16_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = try_once(monkeypatch, GOOD, has_bfloat16=False)
    assert choose_precision(a_small_sam(), SETTINGS) == torch.float32
    assert tried == []


@pytest.mark.parametrize(
    ("wish", "expected"), [("float32", torch.float32), ("half", torch.bfloat16)]
)
def test_a_person_may_choose(
    wish: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = try_once(monkeypatch, GOOD)
    chosen = choose_precision(a_small_sam(), SETTINGS.model_copy(update={"precision": wish}))
    assert (chosen, tried) == (expected, [])


def test_the_trial_compares_masks_and_times_both(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[torch.dtype] = []

    def watched(sam: torch.nn.Module, slices01: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        encoded.append(dtype)
        return embed_slices(sam, slices01, dtype)

    monkeypatch.setattr(precision, "embed_slices", watched)
    trial = try_bfloat16(a_small_sam(), SETTINGS)
    assert set(encoded) == {torch.float32, torch.bfloat16}
    assert 0.9 < trial.dice <= 1
    assert min(trial.float32_s, trial.bfloat16_s) > 0


def test_embeddings_in_half_precision_are_those_in_full_within_three_percent() -> None:
    sam, slices01 = a_small_sam(), torch.rand(2, 40, 60)
    whole = embed_slices(sam, slices01).float()
    half = embed_slices(sam, slices01, torch.bfloat16).float()
    assert 0 < (half - whole).norm() / whole.norm() < 0.03


def test_embeddings_of_one_precision_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    volume = Volume(np.zeros((2, 32, 32), np.int16), Geometry.axis_aligned((2, 32, 32)))
    folders = {
        VolumeSamPredictor(a_small_sam(), SETTINGS, tmp_path, dtype).embeddings(volume, [0]).folder
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert len(folders) == 2
