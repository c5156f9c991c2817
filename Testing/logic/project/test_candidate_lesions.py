"""The voxels of candidates: of the refined label those that are nearest, else the core."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.images import write_labelmap
from aslseg.data.masks import BoundingBox
from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import RunError
from aslseg.project.candidate_lesions import (
    candidate_lesions,
    lesion_in,
    read_candidate_lesions,
    undecided,
)
from aslseg.project.candidate_table import CandidateRow, write_candidates
from aslseg.project.lesion_decisions import BoxedMask, CaseLesions, LesionDecision, boxed
from aslseg.targets import LIVER_TARGETS

GRID = Geometry.axis_aligned((3, 10, 20))


def row(number: int, *, accepted: bool, probability: float = 0.75) -> CandidateRow:
    return CandidateRow(
        "a", "tumour", number, (0, 0, 0), (0, 0, 0), 1.0, probability, 0.5, accepted,
        {"sam_overlap": math.nan},
    )  # fmt: skip


def maps() -> tuple[Labelmap, Labelmap]:
    """A row of lesion voxels with two cores in it, a rejected core, and a lesion without one."""
    refined, cores = np.ones(GRID.shape, np.uint8), np.zeros(GRID.shape, np.uint8)
    refined[1, 2, 0:10] = 2
    cores[1, 2, 1], cores[1, 2, 8] = 1, 2
    cores[1, 6, 0:3] = 3
    refined[1, 9, 15:19] = 2
    return Labelmap(refined, GRID), Labelmap(cores, GRID)


ROWS = [row(1, accepted=True), row(2, accepted=True), row(3, accepted=False)]


def test_of_what_is_shown_a_lesion_has_the_voxels_that_are_nearest_to_it() -> None:
    shown = np.zeros(GRID.shape, np.bool_)
    shown[1, 2, 0:12] = shown[1, 6, 3] = True
    lesion, other, gone = (
        BoxedMask(BoundingBox((1, j, i), (2, j + 1, i + 2)), np.ones((1, 1, 2), np.bool_))
        for j, i in ((2, 1), (2, 8), (8, 0))
    )
    found = lesion_in(boxed(shown), lesion, [other, gone])
    assert found is not None
    assert (found.box.start, found.box.stop) == ((1, 2, 0), (2, 3, 6))
    assert found.mask.all()
    assert lesion_in(boxed(shown), gone, [lesion, other]) is None
    assert lesion_in(None, lesion, []) is None
    same = lesion_in(lesion, lesion, [other])
    assert lesion.equals(same)
    assert not lesion.equals(other)
    assert not lesion.equals(None)


def test_each_candidate_has_the_voxels_nearest_to_its_core() -> None:
    refined, cores = maps()
    found = candidate_lesions(refined, ROWS, cores, LIVER_TARGETS)
    by_number = {one.row.number if one.row else 0: one for one in found}
    boxes = {
        number: (one.voxels.box.start, one.voxels.box.stop) for number, one in by_number.items()
    }
    assert boxes == {
        1: ((1, 2, 0), (2, 3, 5)),
        2: ((1, 2, 5), (2, 3, 10)),
        3: ((1, 6, 0), (2, 7, 3)),
        0: ((1, 9, 15), (2, 10, 19)),
    }
    assert {n: one.shown for n, one in by_number.items()} == {0: True, 1: True, 2: True, 3: False}
    assert [one.voxels.voxels for one in found] == [5, 5, 4, 3]


def test_a_method_that_decides_about_no_candidates_has_the_parts_of_its_label() -> None:
    refined, _ = maps()
    found = candidate_lesions(refined, [], None, LIVER_TARGETS)
    assert [(one.voxels.voxels, one.row, one.shown) for one in found] == [
        (10, None, True),
        (4, None, True),
    ]


def test_an_organ_alone_has_no_candidates() -> None:
    refined, cores = maps()
    assert candidate_lesions(refined, ROWS, cores, LIVER_TARGETS[:1]) == []


@pytest.mark.parametrize(("covered", "left"), [(2, 4), (3, 3), (5, 3)])
def test_what_is_covered_by_half_is_decided(covered: int, left: int) -> None:
    refined, cores = maps()
    found = candidate_lesions(refined, ROWS, cores, LIVER_TARGETS)
    box = BoundingBox((1, 2, 0), (2, 3, covered))
    mask = BoxedMask(box, np.ones(box.shape, np.bool_))
    lesions = CaseLesions("a", {1: LesionDecision("added", "tumour", None, mask)})
    assert len(undecided(found, lesions)) == left
    other = CaseLesions("a", {1: LesionDecision("added", "cyst", None, mask)})
    assert len(undecided(found, other)) == 4


def test_candidates_are_read_from_the_folder_of_a_case(tmp_path: Path) -> None:
    refined, cores = maps()
    with pytest.raises(RunError, match="no final label to review"):
        read_candidate_lesions(tmp_path, LIVER_TARGETS, GRID)
    write_labelmap(refined, tmp_path / "refined.nii.gz")
    assert len(read_candidate_lesions(tmp_path, LIVER_TARGETS, GRID)) == 2
    write_candidates(tmp_path, ROWS, cores, ["sam_overlap"])
    assert len(read_candidate_lesions(tmp_path, LIVER_TARGETS, GRID)) == 4
    write_candidates(tmp_path, [*ROWS, row(256, accepted=True)], cores, ["sam_overlap"])
    with pytest.raises(RunError, match="more than can be shown one by one"):
        read_candidate_lesions(tmp_path, LIVER_TARGETS, GRID)
