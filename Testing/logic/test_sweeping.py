"""What a killed process left half written goes at the next start; what somebody writes stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aslseg.config import RunConfig
from aslseg.events import Monitor
from aslseg.leftovers import STALE_AFTER_S, sweep
from aslseg.project.lock import changing
from aslseg.project.run_folder import create_run
from aslseg.project.running import running
from aslseg.storage import temporary_beside, this_computer

WRITE_AND_WAIT = """
import sys
from pathlib import Path
from aslseg.storage import atomic_folder, atomic_path
with atomic_folder(Path(sys.argv[1]) / "export") as export, \\
        atomic_path(Path(sys.argv[1]) / "status.json") as status:
    (export / "patient.nii.gz").write_text("half")
    status.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def a_writer(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "Logic")},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def of_another(folder: Path, *, computer: str, pid: int, process: str = "0" * 8) -> Path:
    """Make a file as another process of some computer leaves it."""
    path = folder / f".aslseg-{computer}-{pid}-{process}-00000000-status.json"
    path.write_text("half")
    return path


def test_files_of_a_living_process_stay_and_those_of_a_killed_one_go(tmp_path: Path) -> None:
    with a_writer(tmp_path) as process:
        assert len(names(tmp_path)) == 2
        assert sweep(tmp_path) == []
        assert len(names(tmp_path)) == 2
        process.kill()
    assert len(sweep(tmp_path)) == 2
    assert names(tmp_path) == []


def test_own_files_stay(tmp_path: Path) -> None:
    path = temporary_beside(tmp_path / "a.json")
    path.write_text("half")
    assert sweep(tmp_path) == []
    assert path.exists()


def test_files_of_a_process_whose_number_is_mine_now_go(tmp_path: Path) -> None:
    of_another(tmp_path, computer=this_computer(), pid=os.getpid())
    assert len(sweep(tmp_path)) == 1


@pytest.mark.parametrize(("age_s", "left"), [(60.0, 1), (STALE_AFTER_S + 60, 0)])
def test_files_of_another_computer_go_after_a_day(tmp_path: Path, age_s: float, left: int) -> None:
    path = of_another(tmp_path, computer="f" * 8, pid=1)
    os.utime(path, (time.time() - age_s,) * 2)
    sweep(tmp_path)
    assert len(names(tmp_path)) == left


@pytest.mark.parametrize(
    "name", [".status-0a1b2c3d.json", ".aslseg-mine", "aslseg-0-1-2-3-a", ".hidden", "case.nii.gz"]
)
def test_files_of_other_names_are_nobodys_to_delete(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert sweep(tmp_path, deep=True) == []
    assert names(tmp_path) == [name]


def test_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept = of_another(elsewhere, computer=this_computer(), pid=os.getpid())
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "link").symlink_to(elsewhere)
    assert sweep(tmp_path / "project", deep=True) == []
    assert kept.exists()


def test_a_run_begins_without_what_an_earlier_one_left(tmp_path: Path) -> None:
    run = create_run(tmp_path, RunConfig(), "a")
    (run.path / "round-01").mkdir()
    for folder in (tmp_path, run.path, run.path / "round-01"):
        of_another(folder, computer=this_computer(), pid=os.getpid())
    with running(run, Monitor()):
        assert not list(tmp_path.rglob(".aslseg-*"))


def test_a_change_of_a_project_begins_without_what_an_earlier_one_left(tmp_path: Path) -> None:
    (tmp_path / "labels" / "history").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "labels", tmp_path / "labels" / "history"):
        of_another(folder, computer=this_computer(), pid=os.getpid())
    with changing(tmp_path):
        assert not list(tmp_path.rglob(".aslseg-*"))
