"""The lesions of a case as a person reviews them: measured, with what is in doubt, in that order.

Measures and their limits are ours unless another source is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aslseg.data.geometry import ijk_to_ras
from aslseg.data.masks import BoundingBox, crop
from aslseg.data.orientation import to_slices
from aslseg.data.volume import Geometry, Labels, Mask, Volume
from aslseg.evaluation.lesion_matching import LEAST_LESION_ML
from aslseg.evaluation.measurements import axial_diameters_mm
from aslseg.evaluation.metrics import DISPUTED_DICE, dice
from aslseg.project.candidate_lesions import (
    CandidateLesion,
    read_candidate_lesions,
    undecided,
)
from aslseg.project.lesion_decisions import (
    BoxedMask,
    CaseLesions,
    LesionDecision,
    boxed,
    read_lesions,
)
from aslseg.project.predictions import read_predictions
from aslseg.project.project import Project
from aslseg.project.review import refined_path
from aslseg.project.run_folder import RunFolder
from aslseg.targets import Target, region_mask

NEAR_THRESHOLD = 1.0
"""Log-odds from the threshold within which a candidate's probability decides little."""
MARGIN_MM = 5.0
"""Around a lesion, for the agreement of predictions there."""


@dataclass(frozen=True, slots=True)
class AxialSize:
    """The largest axial section of a lesion.

    Attributes:
        slice_index: Its number along the file's axis of axial slices.
        centre_ras: Mean of its voxel centres, RAS in mm.
        long_mm: Its long diameter.
        short_mm: Its short diameter.
    """

    slice_index: int
    centre_ras: tuple[float, float, float]
    long_mm: float
    short_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class ReviewedLesion:
    """One lesion of a case, decided about or not.

    Attributes:
        target: Name of the target.
        parent: Name of the target that it lies in.
        number: Of a decision; 0 while it is undecided.
        state: What was decided, or `undecided`.
        voxels: What is shown of it: the lesion, or what was taken out.
        found: The candidate's voxels; None of an added lesion.
        shown: Whether the refined label has it.
        volume_ml: Of `voxels`.
        size: Of its largest axial section.
        mean_hu: Mean of the image in `voxels`.
        agreement: Least Dice of two predictions in its surroundings; None with fewer than two.
        probability: Of being a lesion, by the run; None where it judged none.
        doubt: From 0 to 1; what comes first is asked about first.
        reasons: Why it is in doubt, in words; none where it is not.
        candidate: Its number in the run's table; 0 where it has none.
        outside: What of it a person drew outside of its parent, which is none of the parent when
            the lesion is taken out; None for nothing.
    """

    target: str
    parent: str
    number: int
    state: str
    voxels: BoxedMask
    found: BoxedMask | None
    shown: bool
    volume_ml: float
    size: AxialSize
    mean_hu: float
    agreement: float | None = None
    probability: float | None = None
    doubt: float = 0.0
    reasons: tuple[str, ...] = ()
    candidate: int = 0
    outside: BoxedMask | None = None


def read_review(
    project: Project,
    run: RunFolder,
    case_id: str,
    image: Volume,
    *,
    round_number: int | None = None,
) -> tuple[list[ReviewedLesion], CaseLesions]:
    """Read what a run found in a case, and what a person decided about it.

    Args:
        project: The project.
        run: Whose candidates are reviewed.
        case_id: The case.
        image: Of the case, as it is stored.
        round_number: Of the candidates; the best round when None.

    Returns:
        As `lesions_to_review`, and the decisions that hold.

    Raises:
        RunError: When the run has no refined label of the case, or a table is damaged.
        ProjectError: When there is no such case, or its file of decisions is damaged.
        ImageError: When a label map is damaged, or lies on other voxels than the image.
    """
    folder = refined_path(run, case_id, round_number).parent
    candidates = read_candidate_lesions(folder, project.targets, image.geometry)
    lesions = read_lesions(project, case_id)
    found = read_predictions(folder, image.geometry)
    predictions = {source: labelmap.labels for source, labelmap in found.items()}
    return lesions_to_review(image, candidates, lesions, project.targets, predictions), lesions


def lesions_to_review(
    volume: Volume,
    candidates: Sequence[CandidateLesion],
    lesions: CaseLesions,
    targets: Sequence[Target],
    predictions: Mapping[str, Labels],
) -> list[ReviewedLesion]:
    """Return the lesions of a case: undecided ones, the most doubtful first, then decided ones.

    Candidates that the run rejected come after those that are shown: few of them are lesions.

    Args:
        volume: The image as it is stored.
        candidates: Of the run.
        lesions: Decisions that hold.
        targets: All targets.
        predictions: Label maps (D, H, W) of the run by source, for their agreement.
    """
    by_name = {target.name: target for target in targets}
    open_ones = [
        _of_candidate(volume, one, by_name[one.target], predictions)
        for one in undecided(candidates, lesions)
    ]
    refined = predictions.get("refined")
    done = [
        replace(
            of_decision(volume, number, one, by_name[one.target]),
            outside=_outside(one, by_name, targets, refined),
        )
        for number, one in lesions.decisions.items()
        if one.target in by_name
    ]
    order = sorted(open_ones, key=lambda one: (not one.shown, -one.doubt, -one.volume_ml))
    return [*order, *done]


def of_decision(
    volume: Volume, number: int, decision: LesionDecision, target: Target
) -> ReviewedLesion:
    """Measure a lesion that was decided about.

    Args:
        volume: The image as it is stored.
        number: Of the lesion.
        decision: About it.
        target: Its target.
    """
    voxels = decision.masks[-1]
    return ReviewedLesion(
        target=target.name,
        parent=target.inside or "",
        number=number,
        state=decision.what,
        voxels=voxels,
        found=decision.found,
        shown=decision.final is not None,
        candidate=decision.candidate,
        **_measures(volume, voxels),
    )


def with_voxels(volume: Volume, lesion: ReviewedLesion, voxels: BoxedMask) -> ReviewedLesion:
    """Return a lesion that is shown with other voxels than before, measured anew.

    Args:
        volume: The image as it is stored.
        lesion: The lesion before.
        voxels: What is shown of it.
    """
    return replace(lesion, voxels=voxels, shown=True, **_measures(volume, voxels))


def _outside(
    decision: LesionDecision,
    by_name: Mapping[str, Target],
    targets: Sequence[Target],
    refined: Labels | None,
) -> BoxedMask | None:
    """Return what of a lesion the refined label has outside of its parent."""
    parent = by_name.get(by_name[decision.target].inside or "")
    if decision.final is None or parent is None or refined is None:
        return None
    region = region_mask(crop(refined, decision.final.box), parent, targets)
    return boxed(decision.final.mask & ~region, decision.final.box.start)


def _of_candidate(
    volume: Volume, candidate: CandidateLesion, target: Target, predictions: Mapping[str, Labels]
) -> ReviewedLesion:
    voxels, row = candidate.voxels, candidate.row
    agreement = _agreement(voxels, target, predictions, volume.geometry)
    distance = None if row is None else abs(_odds(row.probability) - _odds(row.threshold))
    measures = _measures(volume, voxels)
    parts = [] if distance is None else [math.exp(-distance)]
    parts += [] if agreement is None else [1 - agreement]
    return ReviewedLesion(
        target=target.name,
        parent=target.inside or "",
        number=0,
        state="undecided",
        voxels=voxels,
        found=voxels,
        shown=candidate.shown,
        agreement=agreement,
        probability=None if row is None else row.probability,
        doubt=sum(parts) / len(parts) if parts else 1.0,
        reasons=_reasons(candidate, distance, agreement, measures["volume_ml"]),
        candidate=0 if row is None else row.number,
        **measures,
    )


def _measures(volume: Volume, voxels: BoxedMask) -> dict[str, Any]:
    return {
        "volume_ml": voxels.voxels * volume.geometry.voxel_ml,
        "size": axial_size(voxels, volume.geometry),
        "mean_hu": float(crop(volume.voxels, voxels.box)[voxels.mask].mean(dtype=np.float64)),
    }


def _reasons(
    candidate: CandidateLesion, distance: float | None, agreement: float | None, volume_ml: float
) -> tuple[str, ...]:
    found = []
    row = candidate.row
    if row is not None and distance is not None and distance < NEAR_THRESHOLD:
        found.append(f"probability {row.probability:.2f} is near the limit {row.threshold:.2f}")
    elif row is not None and not row.accepted:
        found.append(f"rejected by the run (probability {row.probability:.2f})")
    if agreement is not None and agreement < DISPUTED_DICE:
        found.append(f"predictions overlap by Dice {agreement:.2f} only")
    if row is not None and row.features.get("sam_overlap") == 0:
        found.append("SAM finds nothing of it")
    if volume_ml < LEAST_LESION_ML:
        found.append(f"smaller than {LEAST_LESION_ML} ml")
    return tuple(found)


def axial_size(voxels: BoxedMask, geometry: Geometry) -> AxialSize:
    """Measure a lesion on its largest axial section, see `measurements.axial_diameters_mm`.

    Args:
        voxels: The lesion.
        geometry: Of the image as it is stored.
    """
    box = voxels.box
    long_mm, short_mm, index = axial_diameters_mm(
        voxels.mask, Geometry(box.shape, geometry.ijk_to_ras)
    )
    axis = to_slices(geometry).axes[0]
    kji = np.argwhere(voxels.mask) + np.asarray(box.start)
    index += box.start[axis]
    centre_kji = kji[kji[:, axis] == index].mean(axis=0)
    r, a, s = ijk_to_ras(centre_kji[None, ::-1], geometry)[0].tolist()
    return AxialSize(index, (r, a, s), long_mm, short_mm)


def _agreement(
    voxels: BoxedMask, target: Target, predictions: Mapping[str, Labels], geometry: Geometry
) -> float | None:
    """Return the least Dice of two predictions in the surroundings of a lesion."""
    if len(predictions) < 2:
        return None
    box = _widened(voxels.box, geometry)
    masks: list[Mask] = [crop(labels, box) == target.value for labels in predictions.values()]
    pairs = [(a, b) for n, a in enumerate(masks) for b in masks[n + 1 :]]
    return min(dice(first, second) for first, second in pairs)


def _widened(box: BoundingBox, geometry: Geometry) -> BoundingBox:
    margins = [math.ceil(MARGIN_MM / edge_mm) for edge_mm in geometry.spacing_mm]
    k, j, i = (max(n - m, 0) for n, m in zip(box.start, margins, strict=True))
    d, h, w = (min(n + m, s) for n, m, s in zip(box.stop, margins, geometry.shape, strict=True))
    return BoundingBox((k, j, i), (d, h, w))


def _odds(probability: float) -> float:
    known = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(known / (1 - known))
