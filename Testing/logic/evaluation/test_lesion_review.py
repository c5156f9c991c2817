"""Lesions as a person reviews them: sizes computed by hand, doubts in words and in order."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.data.masks import BoundingBox
from aslseg.data.volume import Geometry, Volume
from aslseg.evaluation.lesion_review import axial_size, lesions_to_review
from aslseg.project.candidate_lesions import CandidateLesion
from aslseg.project.candidate_table import CandidateRow
from aslseg.project.lesion_decisions import BoxedMask, CaseLesions, LesionDecision
from aslseg.targets import LIVER_TARGETS

GRID = Geometry.axis_aligned((5, 30, 30), (4.0, 2.0, 2.0))


def cuboid(start: tuple[int, int, int], shape: tuple[int, int, int]) -> BoxedMask:
    k, j, i = (first + n for first, n in zip(start, shape, strict=True))
    return BoxedMask(BoundingBox(start, (k, j, i)), np.ones(shape, np.bool_))


def candidate(
    mask: BoxedMask, probability: float, *, sam_overlap: float = 0.9, number: int = 1
) -> CandidateLesion:
    row = CandidateRow(
        "a", "tumour", number, (0, 0, 0), (0, 0, 0), 1.0, probability, 0.5, probability > 0.5,
        {"sam_overlap": sam_overlap},
    )  # fmt: skip
    return CandidateLesion("tumour", mask, shown=probability > 0.5, row=row)


def test_diameters_are_those_of_the_largest_section() -> None:
    mask = cuboid((0, 10, 10), (3, 4, 10))
    mask.mask[0, :, 3:] = False
    mask.mask[2, 1:] = False
    size = axial_size(mask, GRID)
    assert size.slice_index == 1
    # Centres of 10 x 4 voxels of 2 mm are sqrt(18^2 + 6^2) apart, and a voxel reaches 2 mm farther.
    assert size.long_mm == pytest.approx(np.hypot(18, 6) + 2, abs=0.2)
    assert 6 <= size.short_mm < size.long_mm
    assert size.centre_ras == pytest.approx((-(10 + 4.5) * 2, -(10 + 1.5) * 2, 4.0))


def test_slices_are_axial_ones_also_where_the_file_has_others() -> None:
    sagittal = Geometry(
        (30, 5, 30), np.array([[0, 0, -2.0, 0], [-2.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 0, 1]])
    )
    size = axial_size(cuboid((10, 1, 10), (4, 2, 10)), sagittal)
    assert size.slice_index == 1
    assert size.long_mm == pytest.approx(np.hypot(18, 6) + 2, abs=0.2)


def a_volume() -> Volume:
    voxels = np.full(GRID.shape, 100, np.int16)
    voxels[1:3, 2:12, 2:12] = 40
    return Volume(voxels, GRID)


def test_the_most_doubtful_come_first_and_say_why() -> None:
    big, small = cuboid((1, 2, 2), (2, 10, 10)), cuboid((3, 20, 20), (1, 2, 2))
    sure = candidate(big, 0.99)
    near = candidate(small, 0.55, sam_overlap=0.0, number=2)
    same = np.ones(GRID.shape, np.uint8)
    big.write(same, 2)
    other = same.copy()
    small.write(other, 2)
    found = lesions_to_review(
        a_volume(), [sure, near], CaseLesions("a"), LIVER_TARGETS,
        {"specialist": other, "refined": same},
    )  # fmt: skip
    first, last = found
    assert (first.candidate, last.candidate) == (2, 1)
    assert first.doubt > 0.8 > 0.1 > last.doubt
    assert first.reasons == (
        "probability 0.55 is near the limit 0.50",
        "predictions overlap by Dice 0.00 only",
        "SAM finds nothing of it",
        "smaller than 0.5 ml",
    )
    assert last.reasons == ()
    assert last.agreement == 1.0
    assert last.volume_ml == pytest.approx(200 * 16 / 1000)
    assert (first.mean_hu, last.mean_hu) == (100.0, 40.0)
    assert (last.parent, last.state, last.shown, first.shown) == ("liver", "undecided", True, True)


def test_what_the_run_left_out_comes_after_what_is_shown() -> None:
    sure = candidate(cuboid((1, 2, 2), (2, 10, 10)), 0.99)
    near = candidate(cuboid((3, 20, 20), (1, 2, 2)), 0.49, number=2)
    far = candidate(cuboid((3, 10, 10), (1, 2, 2)), 0.02, number=3)
    found = lesions_to_review(a_volume(), [far, near, sure], CaseLesions("a"), LIVER_TARGETS, {})
    assert [one.candidate for one in found] == [1, 2, 3]


def test_a_clear_rejection_is_named() -> None:
    mask = cuboid((1, 2, 2), (2, 10, 10))
    (found,) = lesions_to_review(
        a_volume(), [candidate(mask, 0.02)], CaseLesions("a"), LIVER_TARGETS, {}
    )
    assert found.reasons == ("rejected by the run (probability 0.02)",)
    assert found.agreement is None


def test_what_a_run_does_not_judge_is_all_in_doubt() -> None:
    one = CandidateLesion("tumour", cuboid((1, 2, 2), (2, 10, 10)), shown=True)
    (found,) = lesions_to_review(a_volume(), [one], CaseLesions("a"), LIVER_TARGETS, {})
    assert (found.doubt, found.probability, found.reasons) == (1.0, None, ())


def test_decided_lesions_come_last_and_candidates_of_theirs_not_at_all() -> None:
    gone, new = cuboid((1, 2, 2), (2, 10, 10)), cuboid((3, 20, 20), (1, 4, 4))
    lesions = CaseLesions(
        "a",
        {
            1: LesionDecision("deleted", "tumour", gone, None, candidate=1),
            2: LesionDecision("added", "tumour", None, new),
        },
    )
    rest = candidate(cuboid((1, 20, 2), (1, 5, 5)), 0.7, number=2)
    found = lesions_to_review(a_volume(), [candidate(gone, 0.8), rest], lesions, LIVER_TARGETS, {})
    assert [(one.state, one.number, one.shown) for one in found] == [
        ("undecided", 0, True),
        ("deleted", 1, False),
        ("added", 2, True),
    ]
    assert found[1].mean_hu == 40.0
