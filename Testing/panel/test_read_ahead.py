"""The next case is read while this one is looked at, and the last one leaves the scene."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import slicer
from harness import wait_for_files

from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.external_labels import add_external_labels
from aslseg.project.project import Project
from standin.harness import click, wait_until

GRID = Geometry.axis_aligned((40, 160, 160), (3.0, 1.5, 1.5))
ALONE = "ASLSEG_TEST_ALONE"
VOLUME_MIB = 40 * 160 * 160 * 2 / 2**20


def a_project(folder: Path, count: int) -> Project:
    """Make a project of so many cases, all with labels of another model."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[10:30, 40:120, 40:120] = 1
    labels[15:18, 60:66, 60:66] = 2
    files = []
    for number in range(count):
        voxels = np.full(GRID.shape, number, np.int16)
        voxels[labels > 0] += 100
        path = folder / "ct" / f"p{number:02d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(Volume(voxels, GRID), path)
        files.append(CaseFiles(path.name.split(".")[0], path))
        (folder / "out").mkdir(exist_ok=True)
        write_labelmap(Labelmap(labels, GRID), folder / "out" / path.name)
    project = create_project(folder / "project", files)
    add_external_labels(project, "nnU-Net", folder / "out")
    return project


class Reviewer:
    """A person in front of the panel who goes from case to case."""

    def __init__(self, widget: Any, folder: Path) -> None:
        self.logic, self.ui = widget.panel.logic, widget.panel.ui
        for name in ("cases", "review"):
            getattr(self.ui, f"{name}Section").collapsed = False
        self.logic.open_project(folder)
        self.rest()

    def rest(self) -> None:
        wait_for_files(self.logic, 0.05)

    def next(self) -> None:
        before = self.shown
        click(self.ui.nextButton)
        wait_until(lambda: self.shown not in ("", before), 60.0, "the next case is there")
        self.rest()

    def look(self) -> None:
        """Look at a case until the next one is read."""
        wait_until(lambda: not self.logic._ahead.is_busy, 60.0, "the next case is read")

    @property
    def shown(self) -> str:
        review = self.logic.lesion_review
        return "" if review is None else review.case_id


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of image files in the order in which they are read."""
    from aslseg.project import project

    seen: list[str] = []
    read = project.read_volume

    def noted(path: Path) -> Volume:
        seen.append(path.name.split(".")[0])
        return read(path)

    monkeypatch.setattr(project, "read_volume", noted)
    return seen


def test_the_next_case_is_read_before_it_is_asked_for(
    open_module: Callable[..., Any], tmp_path: Path, reads: list[str]
) -> None:
    person = Reviewer(open_module(), a_project(tmp_path, 3).folder)
    person.next()
    person.look()
    assert (person.shown, reads) == ("p00", ["p00", "p01"])
    assert person.logic.case_node("p01") is None
    person.next()
    person.look()
    assert (person.shown, reads) == ("p01", ["p00", "p01", "p02"])
    node = person.logic.case_node("p01")
    assert slicer.util.arrayFromVolume(node).max() == 101
    assert [row.target for row in person.logic.lesion_review.rows] == ["tumour"]


def test_what_changed_since_it_was_read_is_read_anew(
    open_module: Callable[..., Any], tmp_path: Path, reads: list[str]
) -> None:
    from aslseg.project.lesion_decisions import LesionDecision, boxed, put_lesion

    project = a_project(tmp_path, 2)
    person = Reviewer(open_module(), project.folder)
    person.next()
    person.look()
    lesion = np.zeros(GRID.shape, np.bool_)
    lesion[15:18, 60:66, 60:66] = True
    decision = LesionDecision("accepted", "tumour", boxed(lesion), boxed(lesion), "nnU-Net", 1)
    put_lesion(project, "p01", decision)  # another program
    person.next()
    assert reads == ["p00", "p01", "p01"]
    assert [row.state for row in person.logic.lesion_review.rows] == ["accepted"]


def test_a_case_that_was_read_before_a_decision_does_not_hide_it(
    open_module: Callable[..., Any], tmp_path: Path, reads: list[str]
) -> None:
    reviewer = Reviewer(open_module(), a_project(tmp_path, 2).folder)
    reviewer.next()
    reviewer.look()
    decided = reviewer.shown
    reviewer.logic.reject(decided)
    reviewer.next()
    assert reads == ["p00", "p01"]
    assert reviewer.logic.project.case(decided).status == "rejected"
    assert reviewer.logic.review_queue()[-1].case_id == decided


alone = pytest.mark.skipif(ALONE not in os.environ, reason="run below, in a process of its own")


@alone
def test_memory_over_forty_cases(open_module: Callable[..., Any], tmp_path: Path) -> None:
    person, memory_mib = Reviewer(open_module(), a_project(tmp_path, 40).folder), []
    for _ in range(40):
        person.next()
        person.look()
        memory_mib.append(psutil.Process().memory_info().rss / 2**20)
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") <= 2
    assert person.shown == "p39"
    assert memory_mib[-1] - memory_mib[9] < 10 * VOLUME_MIB


@alone
def test_memory_of_a_finished_case(open_module: Callable[..., Any], tmp_path: Path) -> None:
    person, gone = Reviewer(open_module(), a_project(tmp_path, 2).folder), []
    person.next()
    image = person.logic.case_node("p00").GetImageData()
    image.AddObserver("DeleteEvent", lambda *_: gone.append("p00"))
    del image
    click(person.ui.lesionAcceptButton)
    click(person.ui.lesionsDoneButton)
    person.rest()
    assert person.logic.project.case("p00").label is not None
    person.next()
    person.look()

    def is_gone() -> bool:
        gc.collect()
        return gone == ["p00"]

    wait_until(is_gone, 30.0, f"the volume of p00 is gone while {person.shown} is shown")


def test_memory_stays_flat_over_forty_cases_and_a_finished_one_leaves_it_with_its_voxels() -> None:
    """What tests before hold or have freed, in a process of all of them, is none of a review's."""
    tests = ("test_memory_over_forty_cases", "test_memory_of_a_finished_case")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0"]
    ran = subprocess.run(
        [*command, *(f"{__file__}::{name}" for name in tests)],
        env={**os.environ, ALONE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert "2 passed" in ran.stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_memory_that_a_case_leaves_in_pieces_goes_back_with_it(
    open_module: Callable[..., Any], tmp_path: Path
) -> None:
    person = Reviewer(open_module(), a_project(tmp_path, 3).folder)
    person.next()
    person.look()
    pieces = [np.ones(10_000) for _ in range(2000)]  # 80 kB each, as sections that are shown
    kept = pieces[::20]
    del pieces
    before = psutil.Process().memory_info().rss
    person.next()
    person.look()
    given_back = before - psutil.Process().memory_info().rss
    assert given_back > 0.5 * 1900 * kept[0].nbytes
