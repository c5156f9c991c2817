"""Docs/slicer-python.md is true: its blocks run, one after the other."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import slicer
from trained import overrides_of, small_settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "Docs" / "slicer-python.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def module(scene: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the module's folder on the path, as Slicer does."""
    monkeypatch.syspath_prepend(str(ROOT / "SlicerASLseg"))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("ASLseg", "ASLsegLib")]:
        del sys.modules[name]


def test_the_script_page_does_what_it_says(module: Any, tmp_path: Path, capsys: Any) -> None:
    settings = overrides_of(small_settings("none", iterations=4))
    names = {"slicer": slicer, "folder": tmp_path / "phantoms", "settings": settings}
    for block in blocks():
        exec(compile(block, str(PAGE), "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "labelled"
    assert lines[2] == "done"
    assert "refined" in lines[3]
    assert lines[4] == "liver"
    folder = tmp_path / "phantoms"
    assert (folder / "refined.nii.gz").exists()
    assert (folder / "Dataset001_Liver" / "dataset.json").exists()
    assert names["logic"].project.case(names["waiting"][0].case_id).label is None


def test_the_page_has_blocks() -> None:
    assert len(blocks()) == 10
