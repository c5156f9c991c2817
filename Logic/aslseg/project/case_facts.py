"""What is measured of a case for the overview of cases, once for each state of its files.

It is kept in `cache/overview` of the project, which may be deleted at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage

from aslseg import run_names
from aslseg.data.images import stamp_of
from aslseg.data.orientation import axial_labelmap, axial_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import AslsegError, ProjectError
from aslseg.project.candidate_lesions import read_candidate_lesions, undecided
from aslseg.project.case import LESIONS, Case
from aslseg.project.lesion_decisions import read_lesions
from aslseg.project.predictions import read_prediction
from aslseg.project.run_tables import REFINED
from aslseg.reading import read_object
from aslseg.storage import atomic_path, write_json_atomic
from aslseg.targets import Target, region_mask, shown_targets

if TYPE_CHECKING:
    from aslseg.project.project import Project

logger = logging.getLogger(__name__)
PLACE = "cache/overview"
THUMBNAIL_PX = 96
WINDOW_HU = (-100.0, 240.0)
_COLOURS = np.array([[0, 0, 0], [40, 200, 140], [255, 190, 40], [90, 160, 255]], np.float32)
_TINT = 0.45


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """What is measured of a case.

    Attributes:
        stamp: Of the files that it was measured from.
        labelled: Names of the targets that the person's label shows.
        volumes_ml: By target, with what lies in it; of the person's label, else of the AI label
            with its lesions as they were decided about. Absent where that says nothing of a target.
        found: Lesions that the latest finished round found.
        decided: Of these, those that a person decided about.
        reliability: By target, from 0 to 1; absent where it was not judged.
    """

    stamp: str
    labelled: tuple[str, ...] = ()
    volumes_ml: dict[str, float] | None = None
    found: int = 0
    decided: int = 0
    reliability: dict[str, float] | None = None


_FACTS = TypeAdapter(CaseFacts)


def thumbnail_path(project: Project, case_id: str) -> Path:
    """Return where the thumbnail of a case is, if its facts are known."""
    return project.folder / PLACE / f"{case_id}.png"


def known_facts(project: Project, case: Case, predictions: Path | None) -> CaseFacts | None:
    """Return what was measured of a case; None if it never was, or a file has changed since.

    Args:
        project: With the case.
        case: The case.
        predictions: Folder of the round's predictions on it, or None.
    """
    path = project.folder / PLACE / f"{case.id}.json"
    if not path.exists():
        return None
    try:
        facts = _FACTS.validate_python(read_object(path, ProjectError, "delete it"))
    except (ProjectError, ValidationError) as error:
        logger.info("What was measured of %s is measured again: %s", case.id, error)
        return None
    return facts if facts.stamp == _stamp(project, case, predictions) else None


def measure_case(project: Project, case: Case, predictions: Path | None) -> CaseFacts:
    """Measure a case, write its thumbnail, and keep both.

    Raises:
        ImageError: When image or label map are missing or damaged, or what a run predicted lies on
            other voxels than the image.
        RunError: When a file of the predictions is damaged.
        StorageError: When the cache cannot be written.
    """
    stamp, image = _stamp(project, case, predictions), project.load_image(case)
    human = None if case.label is None else project.load_labels(case)
    shown = human or _refined(project, case, predictions, image.geometry)
    known = _predicted_targets(project, predictions)
    if human is not None:
        known = project.known_targets(case)
    found, decided = _lesions(project, case, predictions, image.geometry)
    facts = CaseFacts(
        stamp,
        () if human is None else shown_targets(human.labels, project.targets),
        None if shown is None else _volumes(shown, project.targets, known),
        found,
        decided,
        _reliability(predictions),
    )
    picture = thumbnail(image, shown, project.targets)
    path = thumbnail_path(project, case.id)
    with atomic_path(path) as temporary:
        sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(temporary))
    write_json_atomic(path.with_suffix(".json"), _FACTS.dump_python(facts, mode="json"))
    return facts


def thumbnail(image: Volume, labels: Labelmap | None, targets: tuple[Target, ...]) -> np.ndarray:
    """Draw the slice with the largest section of the innermost target, else the middle one.

    Args:
        image: In HU.
        labels: On its grid, or None.
        targets: All targets, parents first.

    Returns:
        (`THUMBNAIL_PX`, `THUMBNAIL_PX`, 3) uint8, in-plane true to scale.
    """
    axial = axial_volume(image)
    drawn = None if labels is None else axial_labelmap(labels).labels
    k = _section(drawn, targets)
    index = axial.voxels.shape[0] // 2 if k is None else k
    low, high = WINDOW_HU
    grey = np.clip((axial.voxels[index].astype(np.float32) - low) / (high - low), 0.0, 1.0)
    rgb = np.repeat(255.0 * grey[..., None], 3, axis=2)
    if drawn is not None:
        colours = _COLOURS[np.minimum(drawn[index], len(_COLOURS) - 1)]
        inside = drawn[index] > 0
        rgb[inside] = (1.0 - _TINT) * rgb[inside] + _TINT * colours[inside]
    return _square(rgb, axial.geometry.spacing_mm[1:])


def _section(drawn: np.ndarray | None, targets: tuple[Target, ...]) -> int | None:
    if drawn is None:
        return None
    for target in reversed(targets):
        areas = np.equal(drawn, target.value).sum(axis=(1, 2))
        if areas.any():
            return int(areas.argmax())
    return None


def _square(rgb: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Scale a slice (H, W, 3) into a square, with black beside what is not square."""
    size_mm = np.array(rgb.shape[:2]) * np.array(spacing_mm)
    size_px = np.maximum(1, np.round(THUMBNAIL_PX * size_mm / size_mm.max())).astype(int)
    zoomed = ndimage.zoom(rgb, (*(size_px / np.array(rgb.shape[:2])), 1.0), order=1)
    picture = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX, 3), np.uint8)
    height, width = (min(n, THUMBNAIL_PX) for n in zoomed.shape[:2])
    top, left = (THUMBNAIL_PX - height) // 2, (THUMBNAIL_PX - width) // 2
    part = np.clip(zoomed[:height, :width], 0.0, 255.0)
    picture[top : top + height, left : left + width] = part
    return picture


def _refined(
    project: Project, case: Case, predictions: Path | None, geometry: Geometry
) -> Labelmap | None:
    """Return the AI label of a case with its lesions as they were decided about, or None."""
    path = None if predictions is None else predictions / REFINED
    if path is None or not path.exists():
        return None
    found = read_prediction(path, geometry)
    return read_lesions(project, case.id).applied_to(found, project.targets)


def _volumes(
    labels: Labelmap, targets: tuple[Target, ...], known: Collection[str]
) -> dict[str, float]:
    return {
        target.name: float(region_mask(labels.labels, target, targets).sum())
        * labels.geometry.voxel_ml
        for target in targets
        if target.name in known
    }


def _lesions(
    project: Project, case: Case, predictions: Path | None, geometry: Geometry
) -> tuple[int, int]:
    """Return how many lesions were found in a case, and how many of these are decided."""
    if predictions is None or not (predictions / REFINED).exists():
        return 0, 0
    found = read_candidate_lesions(predictions, project.targets, geometry)
    shown = [one for one in found if one.shown]
    left = undecided(shown, read_lesions(project, case.id))
    return len(shown), len(shown) - len(left)


def _predicted_targets(project: Project, predictions: Path | None) -> Collection[str]:
    """Return the names of the targets that an AI label decides: all, but for another model's."""
    decided = _noted_targets(predictions)
    return decided if isinstance(decided, list) else [target.name for target in project.targets]


def _reliability(predictions: Path | None) -> dict[str, float] | None:
    """Return the reliability of each target that was judged, as `prediction.json` has it."""
    targets = _noted_targets(predictions)
    if not isinstance(targets, dict):
        return None
    scores = {name: _score(judged) for name, judged in targets.items()}
    return {name: score for name, score in scores.items() if score is not None}


def _noted_targets(predictions: Path | None) -> object:
    """Return what `prediction.json` says of targets.

    A run judges each, by name; labels of another model list those that they decide.
    """
    path = None if predictions is None else predictions / run_names.PREDICTION
    if path is None or not path.exists():
        return None
    remedy = "delete its folder and resume the run"
    return read_object(path, ProjectError, remedy).get("targets")


def _score(judged: object) -> float | None:
    """Return the mean of the two agreements that are known."""
    names = ("checkpoint_agreement", "prediction_agreement")
    values = [judged.get(name) for name in names] if isinstance(judged, dict) else []
    known = [float(value) for value in values if isinstance(value, int | float)]
    return sum(known) / len(known) if known else None


def _stamp(project: Project, case: Case, predictions: Path | None) -> str:
    """Return a text that changes when a file that is measured does."""
    paths = [project.image_path(case), project.folder / LESIONS / f"{case.id}.jsonl"]
    if case.label is not None:
        paths.append(project.label_path(case))
    paths += [project.folder / place for place in case.masks.values()]
    if predictions is not None:
        paths += [predictions / name for name in (REFINED, run_names.PREDICTION)]
    try:
        stamps = [stamp_of(path) if path.exists() else "" for path in paths]
    except AslsegError as error:
        return str(error)
    of_round = predictions.parents[1].name if predictions else ""
    return " ".join((of_round, *stamps, *case.label_targets))
