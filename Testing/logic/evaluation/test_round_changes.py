"""What a round changed: lesions that were kept, found and dropped, and their volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import GeometryMismatchError, RunError
from aslseg.evaluation.round_changes import CaseChange, changes_of, read_changes, write_changes
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from aslseg.targets import LIVER_TARGETS

GRID = Geometry.axis_aligned((4, 12, 12), (5.0, 2.0, 2.0))


def labels(*starts: tuple[int, int]) -> Labelmap:
    """Lesions of 2 x 2 voxels in slice 1."""
    found = np.ones(GRID.shape, np.uint8)
    for j, i in starts:
        found[1, j : j + 2, i : i + 2] = 2
    return Labelmap(found, GRID)


BEFORE, AFTER = labels((0, 0), (5, 5), (9, 9)), labels((1, 1), (9, 0))
EXPECTED = CaseChange("a", "tumour", kept=1, found=1, dropped=2, before_ml=0.24, after_ml=0.16)


def test_lesions_are_kept_found_and_dropped() -> None:
    assert changes_of("a", BEFORE, AFTER, LIVER_TARGETS) == [EXPECTED]
    assert changes_of("a", AFTER, BEFORE, LIVER_TARGETS)[0].found == 2


def a_run_of(folder: Path, *names: str) -> tuple[RunFolder, Project]:
    for number, name in enumerate(names):
        write_volume(
            Volume(np.full(GRID.shape, number, np.float32), GRID), folder / f"{name}.nii.gz"
        )
    files = [CaseFiles(name, folder / f"{name}.nii.gz") for name in names]
    project = create_project(folder / "project", files)
    return RunFolder(project.folder / "runs" / "a"), project


def test_a_prediction_on_other_voxels_than_its_image_is_compared_with_none(tmp_path: Path) -> None:
    run, project = a_run_of(tmp_path, "a")
    elsewhere = Geometry.axis_aligned(GRID.shape, (5.0, 2.0, 3.0))
    for number, grid in enumerate((GRID, elsewhere), start=1):
        write_labelmap(
            Labelmap(BEFORE.labels, grid), run.predictions(number, "a") / "refined.nii.gz"
        )
    with pytest.raises(GeometryMismatchError, match="other voxels than the image of its case"):
        write_changes(project, run, 2)


def test_the_table_of_a_round_is_written_and_read(tmp_path: Path) -> None:
    run, project = a_run_of(tmp_path, "a", "b")
    for number, one in enumerate((BEFORE, AFTER), start=1):
        write_labelmap(one, run.predictions(number, "a") / "refined.nii.gz")
    write_labelmap(BEFORE, run.predictions(2, "b") / "refined.nii.gz")
    path = write_changes(project, run, 2)
    assert read_changes(run, 2) == [EXPECTED]
    assert read_changes(run, 1) == []
    path.write_text(path.read_text(encoding="utf-8").replace("0.240", "much"), encoding="utf-8")
    with pytest.raises(RunError, match=r"changes\.csv is damaged"):
        read_changes(run, 2)
