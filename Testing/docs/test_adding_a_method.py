"""The page on adding a method shows one that runs."""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest

from aslseg.inference.loading import LOADERS, specialist_ensemble
from aslseg.methods import METHODS
from aslseg.runs import start_run
from support.tiny_project import SPECIALIST, UNLABELLED, a_tiny_project, tiny_config
from support.whole_runs import rows_of

PAGE = Path(__file__).resolve().parents[2] / "Docs" / "adding-a-method.md"


def test_the_method_of_the_page_runs_from_its_first_step_to_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, registry = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.M
    )
    brightness = types.ModuleType("brightness")
    exec(compile(source, str(PAGE), "exec"), brightness.__dict__)
    for table in (METHODS, LOADERS):
        monkeypatch.setitem(table, "brightness", None)  # to be replaced, and restored
    names = {"METHODS": METHODS, "LOADERS": LOADERS, "specialist_ensemble": specialist_ensemble}
    exec(registry, {"brightness": brightness, **names})

    stage = SPECIALIST.model_copy(update={"iterations": 2})
    config = tiny_config(method="brightness", rounds=2, patience=2, organ=stage, lesion=stage)
    run = start_run(a_tiny_project(tmp_path), config)

    rows = rows_of(run.round(2) / "metrics.csv")
    assert {row["source"] for row in rows} == {"specialist", "refined"}
    assert {row["case"] for row in rows_of(run.round(1) / "reliability.csv")} == set(UNLABELLED)
    assert '"name": "brightness"' in (run.path / "events.jsonl").read_text(encoding="utf-8")
