"""The parent ROIs that stages within them are trained with."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from aslseg.data.volume import Geometry, Mask, Volume
from aslseg.training.stage_cases import NEAR_MM, degraded_parents

GRID = Geometry.axis_aligned((6, 60, 60), (5.0, 2.0, 2.0))
VOLUME = Volume(np.zeros(GRID.shape, np.float32), GRID)


def an_organ() -> Mask:
    organ = np.zeros(GRID.shape, bool)
    organ[1:5, 20:35, 20:35] = True
    return organ


def test_worse_parent_rois_hold_the_true_one_and_something_around_it() -> None:
    organ = an_organ()
    for worse in degraded_parents(organ, VOLUME, "a", 0):
        assert not (organ & ~worse).any()
        assert (worse & ~organ).any()


def test_worse_parent_rois_reach_no_farther_than_what_is_near() -> None:
    organ = an_organ()
    distance_mm = ndimage.distance_transform_edt(~organ, (1e6, 2.0, 2.0))
    for worse in degraded_parents(organ, VOLUME, "a", 0):
        assert distance_mm[worse].max() <= NEAR_MM + 2.0


def test_the_worst_parent_roi_takes_in_all_that_is_near() -> None:
    organ = an_organ()
    _, worst = degraded_parents(organ, VOLUME, "a", 0)
    distance_mm = ndimage.distance_transform_edt(~organ[2], 2.0)
    assert worst[2][distance_mm < NEAR_MM - 2.0].all()


def test_the_draw_depends_on_case_and_seed_alone() -> None:
    organ = an_organ()

    def invented(case_id: str, seed: int) -> Mask:
        return degraded_parents(organ, VOLUME, case_id, seed)[0]

    np.testing.assert_array_equal(invented("a", 0), invented("a", 0))
    assert (invented("a", 0) != invented("b", 0)).any()
    assert (invented("a", 0) != invented("a", 1)).any()
