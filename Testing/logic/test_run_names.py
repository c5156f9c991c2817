"""Names of the files of a run are in one module, so that who fetches them knows who writes them."""

from __future__ import annotations

import ast
from pathlib import Path, PurePosixPath

import pytest

from aslseg import run_names

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {"labels", "start", "gate", "samples", "predictions", "pseudo", "prompts.json"}
"""Words that are names of other things too."""
OF_SESSIONS = {"events.jsonl", "log.txt", "lock"}
"""Names that a session of an engine and a benchmark have as well, in folders of their own."""


def strings_of(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def test_no_other_module_spells_the_name_of_a_file_of_a_run() -> None:
    values = [v for name, v in vars(run_names).items() if name.isupper() and isinstance(v, str)]
    names = set(values) - ELSEWHERE - OF_SESSIONS
    assert {"config.json", "round.json", "crossfit", "rois", "sam-samples"} <= names
    paths = [*ROOT.glob("Logic/aslseg/**/*.py"), *ROOT.glob("SlicerASLseg/**/*.py")]
    spelt = {
        path.relative_to(ROOT).as_posix(): found
        for path in paths
        if path.name != "run_names.py" and (found := strings_of(path) & names)
    }
    assert spelt == {}


@pytest.mark.parametrize(
    ("path", "lies"),
    [
        ("round-01/rois/c1/image.npy", True),
        ("round-01/baseline/rois-second-pass/c1/roi.json", True),
        ("round-01/gate/alone/specialist-liver.safetensors", True),
        ("round-01/predictions/rois/prediction.json", False),
        ("round-01/rois", False),
        ("config.json", False),
    ],
)
def test_folders_below_predictions_are_cases(path: str, lies: bool) -> None:
    assert run_names.lies_in(PurePosixPath(path), run_names.FOR_TRAINING) is lies
