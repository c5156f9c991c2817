"""Patients of 12 x 40 x 40 voxels, and settings that learn them in a second."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from aslseg.config import (
    AdaptationConfig,
    NetworkConfig,
    RoiConfig,
    RunConfig,
    SamConfig,
    SpecialistConfig,
)
from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Mask, Volume
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project, select_cases
from aslseg.project.project import Project

GEOMETRY = Geometry.axis_aligned((12, 40, 40), (4.0, 2.0, 2.0))
LABELLED, UNLABELLED = ("c0", "c1"), ("c2", "c3", "c4")
VALIDATION, TEST = ("c5",), ("c6",)
NETWORK = NetworkConfig(channels=(4, 8, 8))
SPECIALIST = SpecialistConfig(
    iterations=12,
    batch_size=4,
    patch_size=32,
    learning_rate=0.01,
    ema_decay=0.5,
    network=NETWORK,
    roi=RoiConfig(pixel_mm=2.0),
)
ADAPTATION = AdaptationConfig(
    iterations=12,
    batch_size=4,
    patch_size=32,
    channels=(4, 8),
    versions=2,
    pixel_mm=2.0,
    learning_rate=0.01,
)


def tiny_config(**changes: Any) -> RunConfig:
    """Return settings for two rounds without SAM, with changes."""
    values: dict[str, Any] = {
        "rounds": 2,
        "patience": 2,
        "device": os.environ.get("ASLSEG_TEST_DEVICE", "cpu"),
        "organ": SPECIALIST,
        "lesion": SPECIALIST,
        "adaptation": ADAPTATION,
        "sam": SamConfig(model="none"),
    }
    return RunConfig(**{**values, **changes})


def ball(centre: tuple[float, float, float], radius_px: float) -> Mask:
    """Return a ball in `GEOMETRY`, whose slices are twice as far apart as its pixels."""
    k, j, i = np.indices(GEOMETRY.shape)
    distance = ((k - centre[0]) * 2) ** 2 + (j - centre[1]) ** 2 + (i - centre[2]) ** 2
    inside: Mask = distance <= radius_px**2
    return inside


def a_patient(seed: int) -> tuple[Volume, Labelmap]:
    """Draw a liver of about 100 HU with a tumour of about 10 HU, in -60 HU; noise of 10 HU."""
    rng = np.random.default_rng(seed)
    row, column = rng.integers(-2, 3, 2)
    liver = ball((6, 19 + row, 20 + column), 11)
    tumour = ball((6, 15 + 3 * (seed % 3), 20), 4) & liver
    voxels = rng.normal(-60.0, 10.0, GEOMETRY.shape).astype(np.float32)
    voxels[liver] += 160.0
    voxels[tumour] -= 90.0
    labels = liver.astype(np.uint8)
    labels[tumour] = 2
    return Volume(voxels, GEOMETRY), Labelmap(labels, GEOMETRY)


def write_patients(folder: Path) -> list[CaseFiles]:
    """Write seven patients with their truth beside them; the last one has none."""
    files = []
    for number in range(7):
        volume, labels = a_patient(number)
        image, truth = folder / f"ct{number}.nii.gz", folder / f"truth{number}.nii.gz"
        write_volume(volume, image)
        if f"c{number}" not in TEST:
            write_labelmap(labels, truth)
        files.append(CaseFiles(f"c{number}", image, truth if truth.exists() else None))
    return files


def a_tiny_project(folder: Path) -> Project:
    """Make a project that knows the labels of two patients to train on and one to validate on."""
    chosen = select_cases(
        write_patients(folder / "data"), labelled=LABELLED, validation=VALIDATION, test=TEST
    )
    return create_project(folder / "project", chosen)
