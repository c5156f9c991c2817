"""Docs/slicer-python.md is true: its blocks run, one after the other."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slicer
from harness import use_brief_engine
from trained import overrides_of, small_settings

from standin.harness import run_event_loop

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "Docs" / "slicer-python.md"
SETTINGS = 'settings = {"rounds": 1, "sam": {"model": "none"}}'


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def module(scene: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the module's folder on the path, as Slicer does."""
    monkeypatch.syspath_prepend(str(ROOT / "SlicerASLseg"))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("ASLseg", "ASLsegLib")]:
        del sys.modules[name]


@pytest.fixture
def folder(application: Any) -> Iterator[Path]:
    """The folder that the page works in."""
    place = Path(slicer.app.temporaryPath) / "liver-study"
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_the_script_page_does_what_it_says(module: Any, folder: Path, capsys: Any) -> None:
    names: dict[str, Any] = {"slicer": slicer}
    for block in blocks():
        if SETTINGS in block:  # they would learn for minutes
            names["settings"] = overrides_of(small_settings("none", iterations=4))
        if "logic" in names:
            use_brief_engine(names["logic"])
        exec(compile(block.replace(SETTINGS, ""), str(PAGE), "exec"), names)
    assert "settings" in names
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "labelled"
    assert lines[2] == "done"
    assert "refined" in lines[3]
    assert lines[4] == "liver"
    assert names["folder"] == folder
    assert (folder / "refined.nii.gz").exists()
    assert (folder / "Dataset001_Liver" / "dataset.json").exists()
    assert names["logic"].project.case(names["waiting"][0].case_id).label is None


def test_the_page_has_blocks() -> None:
    assert len(blocks()) == 10


def test_the_logic_of_the_panel_shows_there_what_it_does(panel: Any, project: Path) -> None:
    logic = slicer.modules.ASLsegWidget.logic
    assert logic is panel.logic
    logic.open_project(project)
    run_event_loop(0.1)
    assert panel.ui.casesTable.rowCount == len(logic.project.cases) > 0
