"""The smallest project that goes through everything, SAM included, and how runs are compared."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aslseg.config import RunConfig, SamConfig
from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project, select_cases
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from support.tiny_project import ADAPTATION, SPECIALIST, tiny_config
from support.whole_runs import results

GEOMETRY = Geometry.axis_aligned((3, 32, 32), (4.0, 2.0, 2.0))
LABELLED, VALIDATION = ("c0", "c1"), ("c3",)


def small_config(**changes: Any) -> RunConfig:
    """Return settings of a run that takes a second or two."""
    few = {"iterations": 4, "batch_size": 1}
    values: dict[str, Any] = {
        "organ": SPECIALIST.model_copy(update=few),
        "lesion": SPECIALIST.model_copy(update=few),
        "adaptation": ADAPTATION.model_copy(update={**few, "versions": 1}),
        "sam": SamConfig(model="vit_t", input_size=128, iterations=2, batch_size=1, versions=1),
        "rounds": 2,
    }
    return tiny_config(**{**values, **changes})


def config_without_sam() -> RunConfig:
    """Return settings that take half of the time."""
    return small_config(sam=SamConfig(model="none"))


def a_patient(seed: int) -> tuple[Volume, Labelmap]:
    """Draw a disc of 100 HU (liver) with a disc of 10 HU in it (tumour), in noise of 10 HU."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices(GEOMETRY.shape)
    liver = (j - 15 - seed % 2) ** 2 + (i - 16) ** 2 + 4 * (k - 1) ** 2 <= 100
    tumour = (j - 12 - seed % 3) ** 2 + (i - 16) ** 2 <= 9
    voxels = rng.normal(-60.0, 10.0, GEOMETRY.shape).astype(np.float32)
    voxels[liver] += 160.0
    voxels[liver & tumour] -= 90.0
    labels = liver.astype(np.uint8)
    labels[liver & tumour] = 2
    return Volume(voxels, GEOMETRY), Labelmap(labels, GEOMETRY)


def write_patients(folder: Path, number: int) -> list[CaseFiles]:
    """Write patients with their truth beside them."""
    files = []
    for index in range(number):
        volume, labels = a_patient(index)
        image, truth = folder / f"ct{index}.nii.gz", folder / f"truth{index}.nii.gz"
        write_volume(volume, image)
        write_labelmap(labels, truth)
        files.append(CaseFiles(f"c{index}", image, truth))
    return files


@dataclass(frozen=True)
class Template:
    """A project that is made once and copied for each case.

    Attributes:
        folder: Holds `data`, `project`, and the settings of runs as JSON.
    """

    folder: Path

    @property
    def config(self) -> Path:
        """File of the settings."""
        return self.folder / "settings.json"

    def copy(self, folder: Path) -> Path:
        """Copy all of it, with its runs, to a new folder; return the project's."""
        shutil.copytree(self.folder, folder)
        return folder / "project"


def a_template(folder: Path, config: RunConfig | None = None, patients: int = 4) -> Template:
    """Make a project of patients, two of them labelled, one for validation."""
    chosen = select_cases(
        write_patients(folder / "data", patients), labelled=LABELLED, validation=VALIDATION
    )
    create_project(folder / "project", chosen)
    made = Template(folder)
    made.config.write_text((config or small_config()).model_dump_json())
    return made


def results_of(project: Project | Path, run_id: str = "a") -> dict[str, object]:
    """Return every file of a run whose content is no matter of time, weights bit by bit."""
    folder = project.folder if isinstance(project, Project) else project
    found = results(RunFolder(folder / "runs" / run_id))
    return {name: value for name, value in found.items() if not name.startswith("report")}
