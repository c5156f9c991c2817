"""Which voxels each lesion candidate of a run has: what a person decides about, one by one.

All of it is ours. The map of candidates holds their cores only. A candidate that the run accepted
has what the refined label shows of it: connected voxels belong to the nearest core. One that was
rejected has its core. What the refined label shows without any candidate, for a method that decides
about none, is a candidate of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.data.masks import box_of, crop, label_components
from aslseg.data.volume import Geometry, Labelmap, Labels, Mask
from aslseg.errors import RunError
from aslseg.project.candidate_table import CandidateRow, read_candidate_map, read_candidates
from aslseg.project.lesion_decisions import ENOUGH_DECIDED, BoxedMask, CaseLesions, boxed
from aslseg.project.predictions import read_prediction
from aslseg.project.run_tables import REFINED
from aslseg.targets import Target, lesion_targets


@dataclass(frozen=True, slots=True, eq=False)
class CandidateLesion:
    """A candidate with its voxels.

    Attributes:
        target: Name of the target.
        voxels: On the grid of the image.
        shown: Whether the refined label has it.
        row: What the run says of it; None where it decided about no candidates.
    """

    target: str
    voxels: BoxedMask
    shown: bool
    row: CandidateRow | None = None


def read_candidate_lesions(
    folder: Path, targets: Sequence[Target], geometry: Geometry
) -> list[CandidateLesion]:
    """Read the candidates of a case with their voxels, largest first.

    Args:
        folder: Of the case's predictions.
        targets: All targets.
        geometry: Of the case's image.

    Raises:
        RunError: When there is no refined label, the table is damaged, or it has more candidates
            than the map can show.
        ImageError: When a label map is damaged, or lies on other voxels than the image.
    """
    path = folder / REFINED
    if not path.exists():
        msg = f"{folder} has no final label to review; train or resume the run."
        raise RunError(msg)
    refined, rows = read_prediction(path, geometry), read_candidates(folder)
    cores = read_candidate_map(folder, geometry)
    if any(row.number > np.iinfo(np.uint8).max for row in rows):
        msg = (
            f"{folder} has {len(rows)} candidates, more than can be shown one by one; raise "
            "candidates.threshold and train again, or review the case as a whole."
        )
        raise RunError(msg)
    return candidate_lesions(refined, rows, cores, targets)


def candidate_lesions(
    refined: Labelmap,
    rows: Sequence[CandidateRow],
    cores: Labelmap | None,
    targets: Sequence[Target],
) -> list[CandidateLesion]:
    """Return the candidates with their voxels, largest first.

    Args:
        refined: The refined label.
        rows: The table of candidates.
        cores: The map of candidates, on the same grid; None without any.
        targets: All targets.
    """
    numbers = np.zeros_like(refined.labels) if cores is None else cores.labels
    lesions = [
        lesion
        for target in lesion_targets(targets)
        for lesion in _of_target(
            refined.labels == target.value,
            numbers,
            [row for row in rows if row.target == target.name],
            target.name,
        )
    ]
    return sorted(lesions, key=lambda lesion: -lesion.voxels.voxels)


def lesion_in(
    shown: BoxedMask | None, lesion: BoxedMask, others: Sequence[BoxedMask]
) -> BoxedMask | None:
    """Return what a label shows of a lesion: connected voxels belong to the nearest lesion.

    Args:
        shown: All that the label shows of the lesion's target; None for nothing.
        lesion: The lesion as it was before the label was changed.
        others: Other lesions of the target; what they share with `lesion` is `lesion`'s.
    """
    if shown is None:
        return None
    seeds = np.zeros(shown.box.shape, np.int32)
    for other in others:
        seeds[other.within(shown.box)] = 2
    seeds[lesion.within(shown.box)] = 1
    owners, _ = nearest_seeds(shown.mask, seeds)
    return boxed(owners == 1, shown.box.start)


def undecided(candidates: Sequence[CandidateLesion], lesions: CaseLesions) -> list[CandidateLesion]:
    """Return the candidates of which decisions cover less than half: nobody decided about them."""
    return [one for one in candidates if _share_decided(one, lesions) < ENOUGH_DECIDED]


def _share_decided(candidate: CandidateLesion, lesions: CaseLesions) -> float:
    voxels = candidate.voxels
    covered = np.zeros(voxels.box.shape, np.bool_)
    for decision in lesions.decisions.values():
        for mask in decision.masks if decision.target == candidate.target else ():
            covered |= mask.within(voxels.box)
    return int((covered & voxels.mask).sum()) / voxels.voxels


def _of_target(
    shown: Mask, numbers: Labels, rows: Sequence[CandidateRow], name: str
) -> Iterator[CandidateLesion]:
    by_number = {row.number: row for row in rows}
    own = np.zeros(256, np.bool_)
    own[list(by_number)] = True
    box = box_of(shown | own[numbers])
    if box is None:
        return
    shown, seeds = crop(shown, box), _numbers_where(own)[crop(numbers, box)]
    accepted = np.zeros(256, np.bool_)
    accepted[[number for number, row in by_number.items() if row.accepted]] = True
    kept = _numbers_where(accepted)[seeds]
    owners, alone = nearest_seeds(shown | (kept > 0), kept)
    for number, row in by_number.items():
        voxels = owners == number if row.accepted else (seeds == number) & (owners == 0)
        lesion = boxed(voxels, box.start)
        if lesion is not None:
            yield CandidateLesion(name, lesion, bool((voxels & shown).any()), row)
    for number in alone:
        lesion = boxed(owners == number, box.start)
        if lesion is not None:
            yield CandidateLesion(name, lesion, shown=True)


def _numbers_where(chosen: Mask) -> NDArray[np.int32]:
    """Return a table (256,) that leaves chosen numbers as they are and makes others 0."""
    return np.where(chosen, np.arange(256, dtype=np.int32), np.int32(0))


def nearest_seeds(mask: Mask, seeds: NDArray[np.int32]) -> tuple[NDArray[np.int32], list[int]]:
    """Give each voxel of a mask the number of the nearest seed that it is connected with.

    Args:
        mask: (D, H, W).
        seeds: Of the mask's shape; 0 is none.

    Returns:
        The numbers, and those above 255 and all seeds that parts without a seed have got.
    """
    owners, alone = np.zeros(mask.shape, np.int32), []
    highest = max(255, int(seeds.max(initial=0)))
    parts, _ = label_components(mask)
    for part, place in enumerate(ndimage.find_objects(parts), start=1):
        inside = parts[place] == part
        present = np.unique(seeds[place][inside])
        present = present[present > 0]
        if len(present) == 0:
            alone.append(highest + part)
            owners[place][inside] = highest + part
        elif len(present) == 1:
            owners[place][inside] = present[0]
        else:
            there = np.where(inside, seeds[place], 0)
            where = ndimage.distance_transform_edt(
                there == 0, return_distances=False, return_indices=True
            )
            owners[place][inside] = there[tuple(where)][inside]
    return owners, alone
