"""A data set made of code: CT-like abdomens whose livers and tumours are known to the voxel.

Meant for demonstrations and tests. It looks like portal-venous CT (air, fat, muscle, bone, organs
of nearly the liver's intensity, vessels, correlated noise, partial volume), but it is drawn from
simple shapes and says nothing about how well a method works on patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.phantom.body import draw_frame, draw_organs, paint_body, paint_organs
from aslseg.data.phantom.liver import (
    draw_liver,
    draw_tumours,
    liver_field,
    paint_liver,
    paint_tumour,
)
from aslseg.data.phantom.space import Canvas, Field, make_space
from aslseg.data.volume import Geometry, Labelmap, Labels, Shape3, Spacing3, Volume
from aslseg.events import Monitor

SHAPE: Shape3 = (40, 160, 192)
SPACING_MM: Spacing3 = (4.0, 2.0, 2.0)
LIVER, TUMOUR = 1, 2
AIR_HU, LOWEST_HU, HIGHEST_HU = -1000.0, -1024.0, 1500.0


@dataclass(frozen=True, slots=True)
class PhantomDataset:
    """Where a written phantom data set lies.

    Attributes:
        images: Folder of all volumes.
        labels: Folder of the label maps of labelled and validation cases, for a project.
        truth: Folder of the label maps of all other cases, for evaluation only.
        labelled: Ids of the cases to learn from.
        unlabelled: Ids of the cases whose label maps are in `truth`.
        validation: Ids of the cases that are held out.
    """

    images: Path
    labels: Path
    truth: Path
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    validation: tuple[str, ...]


def make_phantom(
    seed: int, shape: Shape3 = SHAPE, spacing_mm: Spacing3 = SPACING_MM
) -> tuple[Volume, Labelmap]:
    """Draw the CT of one made-up patient.

    The body has its natural size whatever the grid: for a small volume enlarge `spacing_mm`.

    Args:
        seed: The same seed gives the same patient; each has shapes, intensities and tumours of
            its own.
        shape: (D, H, W).
        spacing_mm: Voxel edge along (k, j, i).

    Returns:
        The image, int16 HU, and its labels: 1 liver, 2 tumour.
    """
    geometry = Geometry.axis_aligned(shape, spacing_mm)
    anatomy, acquisition = np.random.default_rng(seed).spawn(2)
    hu, labels = _draw_patient(geometry, anatomy)
    voxels = _acquire(hu, geometry.spacing_mm, acquisition)
    return Volume(voxels, geometry), Labelmap(labels, geometry)


def write_phantom_dataset(
    folder: Path,
    *,
    cases: int = 12,
    labelled: int = 2,
    validation: int = 3,
    seed: int = 0,
    monitor: Monitor | None = None,
) -> PhantomDataset:
    """Write a data set of phantoms as NIfTI files.

    Args:
        folder: Gets `images/`, `labels/` and `truth/`.
        cases: Number of volumes in all.
        labelled: How many of them are labelled for training.
        validation: How many are held out.
        seed: Of the data set; other seeds give other patients.
        monitor: Told of the progress.

    Raises:
        ValueError: When no case is labelled, or more are asked for than there are.
        StorageError: When the folder cannot be written.
    """
    if labelled < 1 or validation < 0 or labelled + validation > cases:
        msg = (
            f"{cases} cases cannot hold {labelled} labelled (at least 1) and {validation} held out."
        )
        raise ValueError(msg)
    data = _plan(folder, cases, labelled, validation)
    ids = (*data.labelled, *data.unlabelled, *data.validation)
    for number, case in enumerate((monitor or Monitor()).track(ids, "making phantoms")):
        volume, labels = make_phantom(1000 * seed + number)
        write_volume(volume, data.images / f"{case}.nii.gz")
        home = data.truth if case in data.unlabelled else data.labels
        write_labelmap(labels, home / f"{case}.nii.gz")
    return data


def _plan(folder: Path, cases: int, labelled: int, validation: int) -> PhantomDataset:
    ids = [f"phantom_{number:02d}" for number in range(1, cases + 1)]
    return PhantomDataset(
        images=folder / "images",
        labels=folder / "labels",
        truth=folder / "truth",
        labelled=tuple(ids[:labelled]),
        unlabelled=tuple(ids[labelled : cases - validation]),
        validation=tuple(ids[cases - validation :]),
    )


def _draw_patient(geometry: Geometry, rng: np.random.Generator) -> tuple[Field, Labels]:
    # One stream of chance for each part, so that a change of one leaves the others as they are.
    for_space, for_body, for_organs, for_liver, for_tumours = rng.spawn(5)
    space = make_space(geometry, for_space)
    canvas = Canvas(np.full(geometry.shape, AIR_HU, np.float32), space)
    frame = draw_frame(for_body)
    cavity = paint_body(canvas, frame, for_body)
    organs = draw_organs(for_organs)
    others = paint_organs(canvas, organs, cavity, for_organs)
    shape = draw_liver(for_liver, top_mm=frame.dome_mm)
    liver = liver_field(space, shape, cavity, others, for_liver)
    paint_liver(canvas, liver, cavity, organs, for_liver)
    labels = np.where(liver < 0.0, LIVER, 0).astype(np.uint8)
    for tumour in draw_tumours(space, liver, for_tumours):
        field = paint_tumour(canvas, tumour, liver, organs.liver_hu, for_tumours)
        labels[(field < 0.0) & (labels > 0)] = TUMOUR
    return canvas.hu, labels


def _acquire(hu: Field, spacing_mm: Spacing3, rng: np.random.Generator) -> NDArray[np.int16]:
    """Blur as a scanner does, and add noise whose grain is that of filtered back-projection."""
    seen = ndimage.gaussian_filter(hu, [0.45, 1.1 / spacing_mm[1], 1.1 / spacing_mm[2]])
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    fine = ndimage.gaussian_filter(noise, [0.35, 1.3 / spacing_mm[1], 1.3 / spacing_mm[2]])
    coarse = ndimage.gaussian_filter(noise, [0.35, 4.5 / spacing_mm[1], 4.5 / spacing_mm[2]])
    grain = fine - 0.85 * coarse
    grain *= rng.uniform(9.0, 14.0) / grain.std()
    quiet = np.where(seen < -900.0, 0.5, 1.0)
    rounded = np.rint(np.clip(seen + grain * quiet, LOWEST_HU, HIGHEST_HU))
    return np.asarray(rounded, dtype=np.int16)
