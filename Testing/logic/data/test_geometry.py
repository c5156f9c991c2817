"""Index and patient, one grid and another, boxes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from aslseg.data.geometry import fit_labels, ijk_to_ras, overlap, ras_to_ijk, resample_labels
from aslseg.data.masks import BoundingBox, box_of, crop, uncrop
from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import GeometryMismatchError


def moved(geometry: Geometry, ras_mm: tuple[float, float, float]) -> Geometry:
    affine = geometry.ijk_to_ras.copy()
    affine[:3, 3] += ras_mm
    return Geometry(geometry.shape, affine)


def turned(geometry: Geometry) -> Geometry:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", 10, degrees=True).as_matrix()
    return Geometry(geometry.shape, turn @ geometry.ijk_to_ras)


def test_the_first_voxel_lies_at_the_origin_and_the_next_one_edge_further(
    a_geometry: Geometry,
) -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    expected = [[0, 0, 0], [-1.5, 0, 0], [0, -2, 0], [0, 0, 4]]
    np.testing.assert_allclose(ijk_to_ras(points, a_geometry), expected)


@given(
    turn=st.integers(0, 10_000),
    mirror=st.sampled_from([1.0, -1.0]),
    spacing=st.tuples(*[st.floats(0.2, 10.0)] * 3),
    point=st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_ijk_to_ras_and_back_is_identity_on_oblique_and_mirrored_grids(
    turn: int, mirror: float, spacing: tuple[float, ...], point: tuple[float, ...]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=turn).as_matrix() * spacing * [mirror, 1, 1]
    affine[:3, 3] = (100.0, -250.0, 900.0)
    geometry = Geometry((3, 4, 5), affine)
    there_and_back = ras_to_ijk(ijk_to_ras(np.array([point]), geometry), geometry)
    np.testing.assert_allclose(there_and_back, [point], atol=1e-8)
    assert geometry.spacing_mm == pytest.approx(spacing[::-1])


def test_points_must_have_three_columns(a_geometry: Geometry) -> None:
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        ijk_to_ras(np.zeros(3), a_geometry)


def test_resampling_to_half_the_spacing_makes_eight_voxels_of_one() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 2, 3] = 2
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = (0.5, 0.5, -0.5)  # the corners of both grids agree
    fine = Geometry((8, 8, 8), affine)
    result = resample_labels(Labelmap(labels, Geometry.axis_aligned((4, 4, 4), (2, 2, 2))), fine)
    assert np.argwhere(result.labels).tolist() == [
        [k, j, i] for k in (2, 3) for j in (4, 5) for i in (6, 7)
    ]
    assert set(np.unique(result.labels)) == {0, 2}


def test_resampling_to_a_mirrored_grid_mirrors_the_array(a_small_labelmap: Labelmap) -> None:
    geometry = a_small_labelmap.geometry
    affine = geometry.ijk_to_ras @ np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (geometry.ijk_to_ras @ [geometry.shape[2] - 1, 0, 0, 1])[:3]
    result = resample_labels(a_small_labelmap, Geometry(geometry.shape, affine))
    np.testing.assert_array_equal(result.labels, a_small_labelmap.labels[:, :, ::-1])


def test_labels_on_the_same_grid_are_kept_as_they_are(a_small_labelmap: Labelmap) -> None:
    nearly = moved(a_small_labelmap.geometry, (1e-5, 0, 0))
    fitted = fit_labels(a_small_labelmap, nearly)
    assert fitted.labels is a_small_labelmap.labels
    assert fitted.geometry is nearly


def test_labels_of_a_cut_out_are_put_to_their_place(a_small_labelmap: Labelmap) -> None:
    geometry = a_small_labelmap.geometry
    part = a_small_labelmap.labels[1:5, 5:15, 6:18]
    affine = geometry.ijk_to_ras.copy()
    affine[:3, 3] = ijk_to_ras(np.array([[6, 5, 1]]), geometry)[0]
    cut_out = Labelmap(part, Geometry((4, 10, 12), affine))
    np.testing.assert_array_equal(fit_labels(cut_out, geometry).labels, a_small_labelmap.labels)


def test_labels_elsewhere_in_the_patient_are_refused(a_small_labelmap: Labelmap) -> None:
    elsewhere = moved(a_small_labelmap.geometry, (500.0, 0, 0))
    with pytest.raises(GeometryMismatchError, match=r"case\.nii\.gz lies elsewhere .* correct its"):
        fit_labels(a_small_labelmap, elsewhere, "case.nii.gz", same_size="header")


def test_labels_whose_foreground_misses_the_image_are_refused(a_small_labelmap: Labelmap) -> None:
    corner = moved(a_small_labelmap.geometry, (-34.0, 0, 0))
    assert overlap(a_small_labelmap.geometry, corner)
    with pytest.raises(GeometryMismatchError, match="No labelled voxel"):
        fit_labels(a_small_labelmap, corner, same_size="header")


def test_whatever_is_resampled_is_told_with_what_is_left_of_each_label(
    a_small_labelmap: Labelmap, caplog: pytest.LogCaptureFixture
) -> None:
    labels = (a_small_labelmap.labels > 0).astype(np.uint8)
    labels[:, :, :8][labels[:, :, :8] > 0] = 2  # 2 of 12 labelled columns, outside of the image
    half = moved(a_small_labelmap.geometry, (-18.0, 0, 0))  # 12 of 24 columns, 6 of 12 labelled
    with caplog.at_level(logging.WARNING):
        fitted = fit_labels(
            Labelmap(labels, a_small_labelmap.geometry), half, "a.nii", same_size="header"
        )
    assert np.count_nonzero(fitted.labels) == 4 * 10 * 6
    assert (
        "a.nii was resampled to the grid of its image; label 1 keeps 60 % of its volume; label 2 "
        "keeps 0 % of its volume"
    ) in caplog.text


SAME_SIZE = [
    pytest.param(lambda g: moved(g, (3.0, 0, 0)), "first voxels 3 mm apart", id="moved"),
    pytest.param(
        lambda g: Geometry(g.shape, np.eye(4)),
        "1 x 1 x 1 against 1.5 x 2 x 4 mm spacing, axes RAS against LPS",
        id="no header",
    ),
    pytest.param(
        lambda g: Geometry(g.shape, g.ijk_to_ras @ np.diag([-1.0, 1, 1, 1])),
        "axes RPS against LPS",
        id="mirrored",
    ),
    pytest.param(
        lambda g: Geometry(g.shape, g.ijk_to_ras @ np.diag([1.1, 1, 1, 1])),
        "1.65 x 2 x 4 against 1.5 x 2 x 4 mm spacing",
        id="other spacing",
    ),
    pytest.param(turned, "axes LPS tilted by 10.0 degrees against LPS", id="turned"),
]


@pytest.mark.parametrize(("change", "words"), SAME_SIZE)
def test_labels_of_the_very_size_of_the_image_on_another_grid_are_asked_about(
    a_small_labelmap: Labelmap,
    change: Callable[[Geometry], Geometry],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = a_small_labelmap.geometry
    odd = Labelmap(a_small_labelmap.labels, change(image))
    with pytest.raises(GeometryMismatchError) as refused:
        fit_labels(odd, image, "a.nii")
    assert f"a.nii has the size of its image but another grid ({words}" in str(refused.value)
    assert "--same-size voxels" in str(refused.value)
    fitted = fit_labels(odd, image, "a.nii", same_size="voxels")
    assert fitted.labels is odd.labels
    assert fitted.geometry is image
    assert "taken voxel by voxel, not by its header" in caplog.text


def test_labels_of_the_size_of_the_image_can_be_taken_by_their_header(
    a_small_labelmap: Labelmap,
) -> None:
    image = a_small_labelmap.geometry
    affine = image.ijk_to_ras @ np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (image.ijk_to_ras @ [image.shape[2] - 1, 0, 0, 1])[:3]
    mirrored = Labelmap(a_small_labelmap.labels[:, :, ::-1], Geometry(image.shape, affine))
    fitted = fit_labels(mirrored, image, same_size="header")
    np.testing.assert_array_equal(fitted.labels, a_small_labelmap.labels)


def test_an_empty_label_map_on_another_overlapping_grid_is_fine(a_geometry: Geometry) -> None:
    empty = Labelmap(np.zeros(a_geometry.shape, np.uint8), a_geometry)
    assert not fit_labels(empty, moved(a_geometry, (3.0, 0, 0))).labels.any()


def test_grids_that_only_touch_do_not_overlap() -> None:
    first = Geometry.axis_aligned((2, 2, 2))
    assert overlap(first, moved(first, (1.9, 0, 0)))
    assert not overlap(first, moved(first, (2.0, 0, 0)))


def test_the_box_of_a_mask_is_tight(a_small_labelmap: Labelmap) -> None:
    assert box_of(a_small_labelmap.labels == 2) == BoundingBox((2, 8, 9), (4, 11, 12))


def test_an_empty_mask_has_no_box() -> None:
    assert box_of(np.zeros((2, 3, 4), np.bool_)) is None


def test_a_margin_is_rounded_up_to_voxels_and_ends_at_the_array(
    a_small_labelmap: Labelmap,
) -> None:
    geometry = a_small_labelmap.geometry  # spacing 4, 2, 1.5
    box = box_of(a_small_labelmap.labels == 2, margin_mm=12.0, spacing_mm=geometry.spacing_mm)
    assert box == BoundingBox((0, 2, 1), (6, 17, 20))


@given(mask=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_crop_then_uncrop_is_identity(mask: np.ndarray) -> None:
    box = box_of(mask)
    if box is None:
        assert not mask.any()
        return
    cropped = crop(mask, box)
    assert cropped.shape == box.shape
    np.testing.assert_array_equal(uncrop(cropped, box, mask.shape), mask)


def test_uncropping_leaves_the_outside_zero() -> None:
    box = BoundingBox((0, 0, 0), (1, 1, 1))
    assert uncrop(np.array([[[7.0]]]), box, (1, 1, 2)).tolist() == [[[7.0, 0.0]]]


def test_boxes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="start < stop"):
        BoundingBox((0, 0, 0), (1, 0, 1))
    with pytest.raises(ValueError, match="leaves the array"):
        crop(np.zeros((2, 2, 2)), BoundingBox((0, 0, 0), (1, 1, 3)))
    with pytest.raises(ValueError, match="not what box"):
        uncrop(np.zeros((2, 2, 2)), BoundingBox((0, 0, 0), (1, 1, 1)), (2, 2, 2))
