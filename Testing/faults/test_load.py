"""A thousand cases, and a hundred volumes to learn from: neither time nor memory runs away."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aslseg.config import SamConfig
from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.project.case import Case, CaseFiles
from aslseg.project.case_reports import case_reports
from aslseg.project.create import create_project
from aslseg.project.project import Project, open_project
from aslseg.project.review import correct, reject, undo_last
from aslseg.storage import write_json_atomic
from faults import hooks, warm
from faults.campaigns import Campaign, count, is_full
from faults.checks import assert_calm
from faults.small import a_patient, small_config

pytestmark = pytest.mark.slow

LIMIT_S = 10.0
BIG = Geometry.axis_aligned((16, 160, 160), (5.0, 2.0, 2.0))
BIG_MIB = 16 * 160 * 160 * 4 / 2**20


def test_many_cases(campaign: Campaign, tmp_path: Path) -> None:
    """Times are of this process alone, so that other work on the machine does not count."""
    number = count(short=200, full=1000)
    project = _project_of(tmp_path, number)
    work: dict[str, Callable[[], object]] = {
        "open": lambda: open_project(project),
        "list": lambda: case_reports(open_project(project), None),
        "look for what is absent": lambda: open_project(project).problems(),
        "correct": lambda: correct(open_project(project), "c7", a_patient(8)[1]),
        "reject": lambda: reject(open_project(project), "c9"),
        "undo": lambda: undo_last(open_project(project)),
    }
    for name, do in work.items():
        with campaign.case(f"{name}, {number} cases"):
            began = time.process_time()
            do()
            seconds = time.process_time() - began
            assert seconds < LIMIT_S, f"took {seconds:.1f} s"
    with campaign.case(f"status, {number} cases"):
        ended = warm.aslseg("status", project)
        assert_calm(ended, codes=(0,), limit_s=60.0)
        assert f"{number - 3} unlabelled" in ended.out  # two at the start, and one corrected
    with campaign.case(f"decisions about all of {number} cases"):
        began = time.process_time()
        for case in open_project(project).unlabelled[:50]:
            reject(open_project(project), case.id)
        each = (time.process_time() - began) / 50
        assert each < 1.0, f"a decision takes {each:.2f} s"


def _project_of(folder: Path, number: int) -> Path:
    """Make a project of many cases that share the voxels of a few."""
    files = []
    for index in range(3):
        volume, labels = a_patient(index)
        image, truth = folder / f"ct{index}.nii.gz", folder / f"truth{index}.nii.gz"
        write_volume(volume, image)
        write_labelmap(labels, truth)
        files.append(CaseFiles(f"c{index}", image, truth if index < 2 else None))
    made = create_project(folder / "project", files)
    cases = list(made.cases)
    for index in range(3, number):
        image = folder / f"ct{index}.nii.gz"
        image.write_bytes((folder / "ct2.nii.gz").read_bytes())
        cases.append(Case(id=f"c{index}", image=Path("..", image.name)))
    _write(made, cases)
    return made.folder


def _write(project: Project, cases: list[Case]) -> None:
    write_json_atomic(
        project.folder / "project.json",
        {**project.model_dump(), "cases": [case.model_dump() for case in cases]},
    )


@pytest.mark.nightly
def test_memory_of_training_does_not_grow_with_the_volumes(
    campaign: Campaign, tmp_path: Path
) -> None:
    """Freed memory stays with the process (`tune_allocator`), whose peak so rises at first."""
    few, many = (10, 100) if is_full() else (10, 40)
    config = tmp_path / "settings.json"
    settings = small_config(
        rounds=1, sam=SamConfig(model="none"), crossfit_share=0.0, label_unlabelled=True
    )
    config.write_text(settings.model_dump_json())
    peaks = {}
    with campaign.case(f"{many} volumes against {few}"):
        for number in (few, many):
            project = _big_project(tmp_path / str(number), number)
            ended = warm.aslseg(
                *("train", project, "--config", config),
                setup=[(hooks.without_report,)],
                limit_s=900.0,
            )
            assert_calm(ended, codes=(0,), limit_s=900.0)
            peaks[number] = ended.peak_mib
        grown = peaks[many] - peaks[few]
        assert grown < 0.5 * (many - few) * BIG_MIB, peaks


def _big_project(folder: Path, number: int) -> Path:
    """Make a project of two labelled volumes and many others, of ten contents in turn.

    What a case takes goes by what is found in it: of the same ten, more take no more.
    """
    k, j, i = np.indices(BIG.shape)
    files = []
    for index in range(number):
        content = index % 10
        liver = (j - 80 - content % 5) ** 2 + (i - 80) ** 2 + 16 * (k - 8) ** 2 <= 40**2
        tumour = (j - 70) ** 2 + (i - 80 - content % 3) ** 2 + 16 * (k - 8) ** 2 <= 15**2
        voxels = np.random.default_rng(content).normal(-60.0, 10.0, BIG.shape).astype(np.float32)
        voxels += 160.0 * liver - 90.0 * (liver & tumour)
        voxels[0, 0, 0] = index  # no two images are the same
        image, truth = folder / f"ct{index}.nii.gz", folder / f"truth{index}.nii.gz"
        write_volume(Volume(voxels.astype(np.int16).astype(np.float32), BIG), image)
        if index < 2:
            labels = liver.astype(np.uint8) + (liver & tumour)
            write_labelmap(Labelmap(labels.astype(np.uint8), BIG), truth)
        files.append(CaseFiles(f"c{index}", image, truth if index < 2 else None))
    return create_project(folder / "project", files).folder
