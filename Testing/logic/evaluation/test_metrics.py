"""Scores against numbers worked out by hand, against MONAI, and against a published evaluation."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st

from aslseg.data.volume import Geometry, Labelmap, Mask, Spacing3
from aslseg.errors import GeometryMismatchError
from aslseg.evaluation.metrics import (
    detect_lesions,
    dice,
    jaccard,
    score_labels,
    surface_distances,
)
from aslseg.targets import LIVER_TARGETS

MM: Spacing3 = (3.0, 2.0, 1.0)


def block(start: tuple[int, int, int], size: tuple[int, int, int], side: int = 12) -> Mask:
    mask = np.zeros((side, side, side), np.bool_)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


def distances_of(predicted: Mask, truth: Mask, mm: Spacing3 = MM) -> tuple[float, float]:
    found = surface_distances(predicted, truth, mm)
    return found.hd95_mm, found.average_mm


NOTHING = block((0, 0, 0), (0, 0, 0))
CUBE = block((4, 4, 4), (3, 3, 3))
VOXEL = block((5, 5, 5), (1, 1, 1))


@pytest.mark.parametrize(
    ("predicted", "truth", "scores"),
    [
        pytest.param(CUBE, CUBE, (1.0, 1.0), id="same"),
        pytest.param(block((4, 4, 5), (3, 3, 3)), CUBE, (2 / 3, 0.5), id="shifted by one"),
        pytest.param(VOXEL, CUBE, (2 / 28, 1 / 27), id="too small"),
        pytest.param(CUBE, VOXEL, (2 / 28, 1 / 27), id="too large"),
        pytest.param(block((0, 0, 0), (3, 3, 3)), CUBE, (0.0, 0.0), id="elsewhere"),
        pytest.param(NOTHING, NOTHING, (1.0, 1.0), id="both empty"),
        pytest.param(NOTHING, CUBE, (0.0, 0.0), id="prediction empty"),
        pytest.param(CUBE, NOTHING, (0.0, 0.0), id="truth empty"),
    ],
)
def test_overlap(predicted: Mask, truth: Mask, scores: tuple[float, float]) -> None:
    assert (dice(predicted, truth), jaccard(predicted, truth)) == pytest.approx(scores)


@pytest.mark.parametrize(
    ("predicted", "truth", "distances"),
    [
        pytest.param(CUBE, CUBE, (0.0, 0.0), id="same"),
        # One voxel against another three slices further: 3 x 3 mm, both ways.
        pytest.param(VOXEL, block((8, 5, 5), (1, 1, 1)), (9.0, 9.0), id="voxels, along k"),
        pytest.param(VOXEL, block((5, 7, 5), (1, 1, 1)), (4.0, 4.0), id="voxels, along j"),
        pytest.param(VOXEL, block((5, 7, 8), (1, 1, 1)), (5.0, 5.0), id="voxels, 3-4-5"),
        # A voxel and a row of it and three more: 0 one way; 0, 1, 2, 3 mm the other.
        pytest.param(VOXEL, block((5, 5, 5), (1, 1, 4)), (2.85, 6 / 5), id="row"),
        pytest.param(NOTHING, NOTHING, (0.0, 0.0), id="both empty"),
        pytest.param(NOTHING, CUBE, (math.nan,) * 2, id="prediction empty"),
        pytest.param(CUBE, NOTHING, (math.nan,) * 2, id="truth empty"),
    ],
)
def test_surface_distances(predicted: Mask, truth: Mask, distances: tuple[float, ...]) -> None:
    assert distances_of(predicted, truth) == pytest.approx(distances, nan_ok=True)
    assert distances_of(truth, predicted) == pytest.approx(distances, nan_ok=True)


@pytest.mark.parametrize("mm", [1, 4])
def test_a_slab_shifted_by_some_mm_lies_that_far_away(mm: int) -> None:
    whole = (12, 12, 3)
    found = distances_of(block((0, 0, 2), whole), block((0, 0, 2 + mm), whole), (1.0, 1.0, 1.0))
    # Each face meets the nearer face of the other slab; the outer ones are `mm` away.
    nearest = {1: (1.0, 1.0), 4: (4.0, 3.0)}[mm]
    assert found == pytest.approx(nearest)


def test_the_inside_of_a_mask_is_no_surface() -> None:
    distances = surface_distances(CUBE, VOXEL, (1.0, 1.0, 1.0))
    assert distances.to_truth.size == 26
    assert distances.to_predicted.tolist() == [1.0]


def test_the_edge_of_the_scan_is_no_surface() -> None:
    cut = block((0, 4, 4), (3, 3, 3))
    assert surface_distances(cut, CUBE, MM).to_truth.size == 3 * 9 - 2  # two of the core are inside


def test_a_mask_that_fills_the_scan_still_has_distances() -> None:
    everything = np.ones((4, 4, 4), np.bool_)
    assert distances_of(everything, everything) == (0.0, 0.0)
    assert math.isfinite(distances_of(everything, everything & CUBE[3:7, 3:7, 3:7])[0])


@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 0.6))
def test_distances_agree_with_those_of_monai(seed: int, share: float) -> None:
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    masks = np.random.default_rng(seed).random((2, 7, 8, 9)) < share
    masks[:, 3, 4, 4] = True
    predicted, truth = np.pad(masks, ((0, 0), *[(1, 1)] * 3))
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth)]
    options = {"include_background": True, "spacing": list(MM)}
    percentile = monai.compute_hausdorff_distance(*pair, percentile=95, **options).item()
    average = monai.compute_average_surface_distance(*pair, symmetric=True, **options).item()
    assert distances_of(predicted, truth) == pytest.approx((percentile, average), abs=1e-4)


@given(seed=st.integers(0, 10_000))
def test_scores_do_not_depend_on_empty_space_around(seed: int) -> None:
    masks = np.random.default_rng(seed).random((2, 4, 5, 6)) < 0.3
    near = np.pad(masks, ((0, 0), *[(1, 1)] * 3))
    far = np.pad(masks, ((0, 0), (7, 2), (1, 9), (4, 4)))
    assert distances_of(*near) == pytest.approx(distances_of(*far), nan_ok=True)
    assert detect_lesions(*near) == detect_lesions(*far)
    assert dice(*near) == dice(*far)


def test_masks_of_different_shape_or_type_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        dice(CUBE, CUBE[1:])
    with pytest.raises(TypeError, match="must be bool"):
        dice(CUBE, CUBE.astype(np.uint8))


@pytest.mark.parametrize(
    ("predicted", "truth", "counts"),
    [
        pytest.param(CUBE, CUBE, (1, 1, 0), id="found"),
        pytest.param(NOTHING, CUBE, (1, 0, 0), id="missed"),
        pytest.param(CUBE, NOTHING, (0, 0, 1), id="invented"),
        pytest.param(NOTHING, NOTHING, (0, 0, 0), id="none"),
        pytest.param(VOXEL, CUBE, (1, 0, 0), id="1 of 27 voxels: a touch"),
        pytest.param(block((4, 4, 4), (1, 1, 3)), CUBE, (1, 1, 0), id="3 of 27 voxels"),
        pytest.param(CUBE, VOXEL, (1, 1, 1), id="vast over small"),
        pytest.param(
            CUBE | block((0, 0, 0), (2, 2, 2)),
            CUBE | block((9, 9, 9), (2, 2, 2)),
            (2, 1, 1),
            id="one of each",
        ),
    ],
)
def test_lesions_are_counted(predicted: Mask, truth: Mask, counts: tuple[int, int, int]) -> None:
    lesions = detect_lesions(predicted, truth)
    assert (lesions.true, lesions.found, lesions.false_positives) == counts


def test_lesions_that_share_a_corner_are_one() -> None:
    truth = block((0, 0, 0), (2, 2, 2)) | block((2, 2, 2), (2, 2, 2))
    assert detect_lesions(truth, truth).true == 1


def test_a_tumour_counts_for_the_liver_and_for_itself(a_small_labelmap: Labelmap) -> None:
    forgotten = Labelmap(np.minimum(a_small_labelmap.labels, 1), a_small_labelmap.geometry)
    liver, tumour = score_labels(forgotten, a_small_labelmap, LIVER_TARGETS)
    assert (liver.target, liver.dice, liver.hd95_mm, liver.assd_mm) == ("liver", 1.0, 0.0, 0.0)
    assert liver.volume_ml == pytest.approx(4 * 10 * 12 * 4 * 2 * 1.5 / 1000)
    assert (tumour.target, tumour.dice, tumour.jaccard, tumour.volume_ml) == ("tumour", 0, 0, 0)
    assert math.isnan(tumour.hd95_mm)
    assert (tumour.lesions_true, tumour.lesions_found, tumour.false_positives) == (1, 0, 0)


def test_label_maps_on_different_grids_are_not_compared(a_small_labelmap: Labelmap) -> None:
    other = Labelmap(a_small_labelmap.labels, Geometry.axis_aligned(a_small_labelmap.labels.shape))
    with pytest.raises(GeometryMismatchError, match="different grids"):
        score_labels(other, a_small_labelmap, LIVER_TARGETS)


@pytest.mark.shared
def test_the_chaos_pair_has_its_published_figures(shared_folder: Path) -> None:
    def read(name: str) -> Mask:
        path = shared_folder / "data" / "chaos_ct_liver" / f"{name}.nii.gz"
        mask: Mask = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
        return mask

    predicted, truth = read("liver_sample_seg"), read("liver_gt")
    began = time.perf_counter()
    distances = surface_distances(predicted, truth, (2.0, 0.7265625, 0.7265625))
    assert time.perf_counter() - began < 5.0  # about 0.2 s; distance maps of the whole take minutes
    assert dice(predicted, truth) == pytest.approx(0.978, abs=5e-4)
    assert distances.average_mm == pytest.approx(0.734, abs=5e-4)
    assert max(distances.to_truth.max(), distances.to_predicted.max()) == pytest.approx(14.0)
