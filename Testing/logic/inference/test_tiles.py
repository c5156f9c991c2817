"""ROIs in tiles: all of a plane is covered, points find their way, overlaps are averaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aslseg.data.masks import BoundingBox
from aslseg.inference.classwise_sam import Tile, TileAggregator, planes_on, slice_of, tiles_of
from aslseg.preprocessing.roi import Roi


def a_roi(depth: int = 3, height: int = 20, width: int = 30, slices: int = 3) -> Roi:
    image = np.arange(depth * height * width, dtype=np.float32).reshape(depth, height, width)
    box = BoundingBox((4, 10, 5), (4 + slices, 10 + 2 * height, 5 + 3 * width))
    return Roi(image, None, None, box, (20, 100, 200), 1)


@given(st.integers(4, 50), st.integers(4, 50), st.sampled_from([8, 16, 32]))
def test_tiles_cover_every_pixel_with_as_few_as_possible(
    height: int, width: int, edge: int
) -> None:
    roi = a_roi(1, height, width)
    tiles = tiles_of(roi, edge)
    assert len(tiles) == -(-height // edge) * -(-width // edge)
    count = np.zeros((height, width), int)
    for tile in tiles:
        there, here = tile.inside((height, width))
        count[there] += 1
        np.testing.assert_array_equal(tile.cut(roi.image[0])[here], roi.image[0][there])
        assert tile.cut(roi.image[0]).shape == (edge, edge)
    assert count.min() >= 1


def test_a_tile_of_a_small_roi_has_it_in_its_middle() -> None:
    roi = a_roi(1, 4, 6)
    (tile,) = tiles_of(roi, 8)
    assert tile == Tile(-2, -1, 8)
    cut = tile.cut(roi.image[0])
    np.testing.assert_array_equal(cut[2:6, 1:7], roi.image[0])
    assert (cut[:2, 1] == roi.image[0, 0, 0]).all()  # the border is repeated


def test_points_go_to_the_slice_and_back() -> None:
    roi, tile = a_roi(), Tile(2, 7, 16)
    # A pixel of the ROI is 2 rows by 3 columns of the slice; the box begins at row 10, column 5.
    assert tile.to_slice((0.5, 0.5), roi) == (5 + 7.5 * 3, 10 + 2.5 * 2)
    for xy in [(0.5, 0.5), (3.25, 11.0), (15.5, 0.0)]:
        assert tile.from_slice(tile.to_slice(xy, roi), roi) == pytest.approx(xy)


def test_a_tile_holds_what_lies_on_it() -> None:
    tile = Tile(0, 0, 8)
    assert tile.holds((0.0, 7.9))
    assert not tile.holds((8.0, 1.0))
    assert not tile.holds((1.0, -0.1))


@pytest.mark.parametrize(
    ("depth", "slices", "expected"),
    [
        (3, 3, [4, 5, 6]),
        (2, 4, [5, 7]),  # the middles of planes of two slices each
        (4, 2, [4, 4, 5, 5]),
    ],
)
def test_planes_lie_on_slices(depth: int, slices: int, expected: list[int]) -> None:
    roi = a_roi(depth, slices=slices)
    assert [slice_of(plane, roi) for plane in range(depth)] == expected
    for k in expected:
        assert planes_on(k, roi) == [p for p, at in enumerate(expected) if at == k]


def test_a_slice_without_a_plane_is_predicted_by_the_nearest() -> None:
    assert planes_on(4, a_roi(2, slices=4)) == [0]
    assert planes_on(19, a_roi(2, slices=4)) == [1]


def test_overlapping_tiles_are_averaged_and_what_was_not_added_is_zero() -> None:
    roi = a_roi(2, 4, 6)
    aggregator = TileAggregator(roi, 2)
    for tile, value in ((Tile(0, 0, 4), 1.0), (Tile(0, 2, 4), 0.5)):
        aggregator.add(1, tile, np.full((2, 4, 4), value, np.float32))
    found = aggregator.mean()
    assert found.shape == (2, 2, 4, 6)
    assert not found[:, 0].any()
    np.testing.assert_array_equal(found[0, 1, 0], [1, 1, 0.75, 0.75, 0.5, 0.5])
