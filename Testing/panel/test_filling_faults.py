"""Filling of a first label and of a lesion where something breaks: a sentence, and nothing lost."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import start_filling, wait_for_engine
from lesion_reviewer import Reviewer
from test_label_filling import DRAWN as LABEL_SLICES
from test_label_filling import Beginner
from test_lesion_filling import DRAWN as LESION_SLICES
from test_lesion_filling import draw

from standin.harness import click, run_event_loop


class OwnLabel:
    """A first label whose liver is filled."""

    drawn = LABEL_SLICES

    def __init__(self, request: Any) -> None:
        self.person = Beginner(
            request.getfixturevalue("open_module")(), request.getfixturevalue("project")
        )
        self.person.draw(*self.drawn)
        self.logic = self.person.logic
        self.button = self.person.ui.fillLabelButton

    def shown(self) -> np.ndarray:
        return self.person.mask()

    def slices(self) -> list[int]:
        return self.logic.drawn_slices(self.person.node)


class OneLesion:
    """A lesion of a final label that is filled."""

    drawn = LESION_SLICES

    def __init__(self, request: Any) -> None:
        self.person: Reviewer = request.getfixturevalue("reviewer")
        draw(self.person, *self.drawn)
        self.logic = self.person.logic
        self.button = self.person.ui.lesionFillButton
        self.person.ui.lesionTable.selectRow(0)
        run_event_loop(0.3)

    def shown(self) -> np.ndarray:
        return self.person.shown

    def slices(self) -> list[int]:
        return self.logic.drawn_slices_of(0)


@pytest.fixture(params=[OwnLabel, OneLesion], ids=["own label", "lesion"])
def filler(request: pytest.FixtureRequest) -> Any:
    return request.param(request)


@pytest.fixture
def use_engine(filler: Any, tmp_path: Path) -> Callable[[str], Path]:
    """Let an engine of a mode fill, see `use_filling_engine`."""
    return partial(use_filling_engine, filler.logic, tmp_path)


def use_filling_engine(logic: Any, folder: Path, mode: str = "fill") -> Path:
    """Let `filling_engine.py` fill; it answers once the file is there that is returned."""
    go = folder / f"go-{mode}"
    logic.engine.close()
    script = str(Path(__file__).with_name("filling_engine.py"))
    logic.engine._python = [sys.executable, script, mode, str(go)]
    return go


def assert_unchanged_and_filled_next(
    filler: Any, before: np.ndarray, use_engine: Callable[[str], Path]
) -> None:
    """Nothing is lost, nothing half done, and the next press fills."""
    logic = filler.logic
    np.testing.assert_array_equal(filler.shown(), before)
    assert filler.slices() == filler.drawn
    assert not logic.to_undo.startswith("fill ")
    assert not logic.engine.is_busy
    use_engine("fill").touch()
    start_filling(filler.logic, filler.button)
    wait_for_engine(logic, 0.3)
    now = filler.shown()
    np.testing.assert_array_equal(now[filler.drawn], before[filler.drawn])
    assert (now != before).any()
    assert filler.slices() == filler.drawn
    logic.undo()
    run_event_loop(0.1)
    np.testing.assert_array_equal(filler.shown(), before)


def test_the_engine_is_killed(filler: Any, use_engine: Callable[[str], Path], dialogs: Any) -> None:
    before = filler.shown()
    use_engine("fill")
    start_filling(filler.logic, filler.button)
    os.kill(filler.logic.engine.pid, signal.SIGKILL)
    wait_for_engine(filler.logic, 0.3)
    dialogs.take("The engine was killed")
    assert_unchanged_and_filled_next(filler, before, use_engine)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        pytest.param("full", "the disk is full. Free some space", marks=pytest.mark.nightly),
        pytest.param("cut", "The engine ended", marks=pytest.mark.nightly),
        ("moved", "lies on other voxels than"),
        ("larger", "lies on other voxels than"),
    ],
)
def test_what_comes_is_no_answer(
    filler: Any, use_engine: Callable[[str], Path], dialogs: Any, mode: str, words: str
) -> None:
    before = filler.shown()
    use_engine(mode).touch()
    start_filling(filler.logic, filler.button)
    wait_for_engine(filler.logic, 0.3)
    dialogs.take(words)
    assert_unchanged_and_filled_next(filler, before, use_engine)


@pytest.mark.nightly
def test_the_disk_is_full_before_the_engine_is_asked(
    filler: Any,
    use_engine: Callable[[str], Path],
    dialogs: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ASLsegLib.scene import volumes

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = filler.shown()
    use_engine("fill").touch()
    with monkeypatch.context() as patch:
        patch.setattr(volumes, "_write_into", full)
        click(filler.button)
        wait_for_engine(filler.logic, 0.3)
    dialogs.take("No space left on device; free some space or choose another folder")
    assert_unchanged_and_filled_next(filler, before, use_engine)


@pytest.mark.nightly
def test_it_is_cancelled(filler: Any, use_engine: Callable[[str], Path]) -> None:
    before = filler.shown()
    use_engine("fill")
    start_filling(filler.logic, filler.button)
    filler.logic.cancel()
    wait_for_engine(filler.logic, 0.3)
    assert_unchanged_and_filled_next(filler, before, use_engine)


def test_a_scene_that_is_closed_meanwhile_gets_nothing(
    filler: Any, use_engine: Callable[[str], Path]
) -> None:
    go = use_engine("fill")
    start_filling(filler.logic, filler.button)
    slicer.mrmlScene.Clear(0)
    go.touch()
    wait_for_engine(filler.logic, 0.5)
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert not filler.logic.to_undo
