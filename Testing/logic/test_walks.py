"""How far one has to read: the files of the library that a volume and a labelled case go through.

The numbers are counts of files of which a function runs (`support/walk.py`); a file that only gives
names or types does not count. Docs/design.md names the files that take a step, in their order; the
others are entered for values (settings, targets, geometry, masks), events, and checks.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from aslseg.config import SamConfig
from aslseg.data.images import read_volume, write_labelmap
from aslseg.project.run_folder import RunFolder
from aslseg.runs import start_run
from aslseg.training.trainer import Trainer
from support.tiny_project import SPECIALIST, a_tiny_project, tiny_config
from support.walk import entered_files
from support.whole_runs import ensemble_with_small_sam, run_with_small_sam, use_small_sam

STAGE = SPECIALIST.model_copy(update={"iterations": 1})
CONFIG = tiny_config(
    rounds=1,
    crossfit_share=0.0,
    organ=STAGE,
    lesion=STAGE,
    sam=SamConfig(model="vit_t", input_size=112, iterations=1, batch_size=2),
    adaptation=tiny_config().adaptation.model_copy(update={"iterations": 1, "versions": 1}),
)


DESIGN = Path(__file__).parents[2] / "Docs" / "design.md"
BEFORE_THE_VOLUME = {
    "aslseg/cli/runs.py",
    "aslseg/batch.py",
    "aslseg/inference/loading.py",
    "aslseg/inference/prediction_cache.py",
}


def files_named_in(section: str, until: str = "\n## ") -> set[str]:
    """Return the files of the library that a section of Docs/design.md names up to some words."""
    text = text_of(section).split(until, 1)[0]
    return {f"aslseg/{name}" for name in re.findall(r"`([\w/]+\.py)`", text)}


def most_files(section: str) -> int:
    """Return how many files are entered, as the section says."""
    return int(re.findall(r"functions of (\d+) files run", text_of(section))[0])


def text_of(section: str) -> str:
    text = DESIGN.read_text(encoding="utf-8").split(f"\n## {section}", 1)[1]
    return text.split("\n## ", 1)[0]


class FirstStepError(Exception):
    """The first step of training is done."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_with_small_sam(tmp_path_factory.mktemp("walk"), CONFIG)


def image_of(run: RunFolder) -> Path:
    return run.path.parents[2] / "data" / "ct6.nii.gz"


def test_a_volume_goes_through_few_files(run: RunFolder, tmp_path: Path) -> None:
    ensemble = ensemble_with_small_sam(run)
    with entered_files() as entered:
        found = ensemble.segment(read_volume(image_of(run)))
        write_labelmap(found.refined, tmp_path / "labels.nii.gz")
    assert found.sam is not None
    assert found.prompts, "SAM had nothing to do"
    steps = files_named_in("The way of a volume") - BEFORE_THE_VOLUME
    assert steps <= entered
    assert len(steps) <= 14
    assert len(entered) <= most_files("The way of a volume"), sorted(entered)


def test_a_labelled_case_goes_through_few_files_to_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_sam(monkeypatch)
    project = a_tiny_project(tmp_path)
    step = Trainer._step

    def first_step(*args: Any, **named: Any) -> Mapping[str, float]:
        step(*args, **named)
        raise FirstStepError

    monkeypatch.setattr(Trainer, "_step", first_step)
    torch.set_num_threads(1)
    with entered_files() as entered, pytest.raises(FirstStepError):
        start_run(project, CONFIG, run_id="a")
    steps = files_named_in("The way of a labelled case", until="first step")
    assert steps <= entered
    assert len(steps) <= 14
    assert len(entered) <= most_files("The way of a labelled case"), sorted(entered)


def test_segmenting_imports_nothing_that_trains(run: RunFolder, tmp_path: Path) -> None:
    project = run.path.parents[1]
    words = [str(word) for word in ("segment", project, image_of(run), "-o", tmp_path)]
    script = f"""
import sys
from pathlib import Path
from aslseg.cli.main import app
from aslseg.sam import predictor
from support.sam_doubles import a_small_sam
predictor.build_sam = lambda *_, input_size, **__: a_small_sam("tiny", input_size)
predictor.get_weights = lambda *_, **__: Path("none")
app({words!r}, standalone_mode=False)
print([name for name in sys.modules if name.startswith(("aslseg.training", "aslseg.methods"))])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert (tmp_path / "ct6.nii.gz").exists()
    assert done.stdout.splitlines()[-1] == "[]"
