"""The phantom is repeatable, varied, CT-like in its numbers, and honest about what it hides."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from aslseg.data.images import read_labelmap, read_volume
from aslseg.data.phantom.dataset import LIVER, TUMOUR, make_phantom, write_phantom_dataset
from aslseg.data.phantom.space import (
    EVERYWHERE,
    Canvas,
    capsule,
    ellipsoid,
    make_space,
    smooth_noise,
    union,
    without,
)
from aslseg.data.volume import Geometry, Labelmap, Volume

# The whole body on a coarse grid: quick, and the anatomy is the same.
SMALL = {"shape": (20, 64, 76), "spacing_mm": (8.0, 5.0, 5.0)}


@cache
def a_phantom(seed: int) -> tuple[Volume, Labelmap]:
    return make_phantom(seed, **SMALL)


def mean_hu(phantom: tuple[Volume, Labelmap], value: int) -> float:
    volume, labels = phantom
    return float(volume.voxels[labels.labels == value].mean())


def test_the_same_seed_gives_the_same_patient() -> None:
    first, again = a_phantom(3), make_phantom(3, **SMALL)
    np.testing.assert_array_equal(first[0].voxels, again[0].voxels)
    np.testing.assert_array_equal(first[1].labels, again[1].labels)


def test_another_seed_gives_another_liver() -> None:
    one, other = (a_phantom(seed)[1].labels > 0 for seed in (3, 4))
    overlap = 2.0 * (one & other).sum() / (one.sum() + other.sum())
    assert 0.5 < overlap < 0.95


def test_image_and_labels_lie_on_the_grid_that_was_asked_for() -> None:
    volume, labels = a_phantom(0)
    assert volume.geometry.shape == labels.geometry.shape == (20, 64, 76)
    assert volume.geometry.spacing_mm == pytest.approx((8.0, 5.0, 5.0))
    assert volume.voxels.dtype == np.int16
    assert labels.labels.dtype == np.uint8


@pytest.mark.parametrize("seed", range(4))
def test_liver_and_tumours_have_a_patients_size(seed: int) -> None:
    _, labels = a_phantom(seed)
    ml = labels.geometry.voxel_ml
    assert 900 < (labels.labels > 0).sum() * ml < 2200
    assert 1 < (labels.labels == TUMOUR).sum() * ml < 300
    assert set(np.unique(labels.labels)) == {0, LIVER, TUMOUR}


@pytest.mark.parametrize("seed", range(4))
def test_intensities_are_those_of_contrast_ct(seed: int) -> None:
    volume, _ = a_phantom(seed)
    assert 80 < mean_hu(a_phantom(seed), LIVER) < 135
    assert volume.voxels.min() >= -1024
    assert volume.voxels[0, 0].mean() == pytest.approx(-1000, abs=10)  # air in front of the body
    assert volume.voxels.max() > 300  # bone


def test_every_tumour_lies_inside_the_liver() -> None:
    _, labels = a_phantom(5)
    touched = ndimage.binary_dilation(labels.labels == TUMOUR) & (labels.labels != TUMOUR)
    assert (labels.labels[touched] == LIVER).mean() > 0.7


def test_some_tumours_are_darker_and_some_brighter_than_the_liver() -> None:
    contrasts = []
    for seed in range(6):
        volume, labels = a_phantom(seed)
        parts, count = ndimage.label(labels.labels == TUMOUR)
        hu = ndimage.median(volume.voxels, parts, range(1, count + 1))
        contrasts += list(np.asarray(hu) - mean_hu((volume, labels), LIVER))
    assert min(contrasts) < -15
    assert max(contrasts) > 15


def test_noise_is_correlated_between_neighbours() -> None:
    volume, _ = make_phantom(0, (4, 96, 96), (4.0, 1.0, 1.0))
    liverless = ndimage.uniform_filter(volume.voxels.astype(float), (1, 9, 9))
    grain = (volume.voxels - liverless)[:, 30:60, 30:60]
    assert (grain[..., 1:] * grain[..., :-1]).mean() > 0.2 * grain.var()


def test_a_written_data_set_hides_the_truth_of_unlabelled_cases(tmp_path: Path) -> None:
    data = write_phantom_dataset(tmp_path, cases=4, labelled=1, validation=1, seed=2)
    names = {folder: sorted(p.name[:10] for p in folder.iterdir()) for folder in tmp_path.iterdir()}
    assert names[data.images] == ["phantom_01", "phantom_02", "phantom_03", "phantom_04"]
    assert names[data.labels] == [*data.labelled, *data.validation] == ["phantom_01", "phantom_04"]
    assert names[data.truth] == [*data.unlabelled] == ["phantom_02", "phantom_03"]
    image = read_volume(data.images / "phantom_01.nii.gz")
    labels = read_labelmap(data.labels / "phantom_01.nii.gz")
    assert image.geometry.matches(labels.geometry)
    np.testing.assert_array_equal(labels.labels, make_phantom(2000)[1].labels)


@pytest.mark.parametrize(
    ("labelled", "validation"), [(0, 1), (3, 2), (1, -1)], ids=["none", "too many", "negative"]
)
def test_an_impossible_split_is_refused(tmp_path: Path, labelled: int, validation: int) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        write_phantom_dataset(tmp_path, cases=4, labelled=labelled, validation=validation)
    assert not list(tmp_path.iterdir())


class TestShapes:
    space = make_space(Geometry.axis_aligned((9, 9, 9)), np.random.default_rng(0))

    def straight(self) -> object:
        z, y, x = np.meshgrid(*[np.arange(-4.0, 5.0)] * 3, indexing="ij")
        axis = np.arange(-4.0, 5.0)
        return type(self.space)(x, y, z, (axis, axis, axis))

    def test_a_ball_of_radius_3_is_1_mm_away_from_a_point_at_4(self) -> None:
        field = ellipsoid(self.straight(), (0.0, 0.0, 0.0), (3.0, 3.0, 3.0))
        assert field[4, 4, 8] == pytest.approx(1.0, abs=1e-4)
        assert field[4, 4, 6] == pytest.approx(-1.0, abs=1e-4)

    def test_a_rod_ends_round(self) -> None:
        field = capsule(self.straight(), (-2.0, 0.0, 0.0), (2.0, 0.0, 0.0), 1.0)
        assert field[4, 4, 8] == pytest.approx(1.0)  # 2 mm beyond the end
        assert field[4, 7, 4] == pytest.approx(2.0)  # 3 mm beside the axis

    def test_a_blended_union_only_adds(self) -> None:
        one = ellipsoid(self.straight(), (-2.0, 0.0, 0.0), (2.0, 2.0, 2.0))
        two = ellipsoid(self.straight(), (2.0, 0.0, 0.0), (2.0, 2.0, 2.0))
        assert (union(one, two, 2.0) <= union(one, two)).all()
        np.testing.assert_array_equal(union(one, two), np.minimum(one, two))

    def test_a_hole_is_cut_with_its_gap(self) -> None:
        one = ellipsoid(self.straight(), (0.0, 0.0, 0.0), (4.0, 4.0, 4.0))
        hole = ellipsoid(self.straight(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        cut = without(one, hole, 1.5)
        assert cut[4, 4, 4] > 0
        assert cut[4, 4, 6] > 0  # 1 mm from the hole, within the gap
        assert cut[4, 4, 7] < 0  # 2 mm from it

    def test_an_edge_voxel_gets_its_share(self) -> None:
        canvas = Canvas(np.zeros((9, 9, 9), np.float32), self.straight())
        canvas.paint(
            ellipsoid(self.straight(), (0.0, 0.0, 0.0), (3.0, 3.0, 3.0)), 100.0, EVERYWHERE
        )
        assert canvas.hu[4, 4, 4] == 100.0
        assert canvas.hu[4, 4, 7] == pytest.approx(50.0, abs=0.1)
        assert canvas.hu[0, 0, 0] == 0.0

    def test_noise_has_about_unit_spread(self) -> None:
        axes = [np.linspace(-190, 190, 40)] * 3
        field = smooth_noise(np.random.default_rng(1), axes, scale_mm=20.0)
        assert field.shape == (40, 40, 40)
        assert 0.8 < field.std() < 1.2
