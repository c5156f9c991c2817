"""Copies on a coarser grid cover the same extent, and held-out labels are not among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aslseg.benchmark.data import (
    AS_GIVEN,
    BenchmarkData,
    Grid,
    coarser,
    on_grid,
    project_showing,
)
from aslseg.benchmark.draws import one_draw
from aslseg.benchmark.experiments import BenchmarkSetup, Experiment, finished, run_experiment
from aslseg.benchmark.scoring import CasePrediction, held_out_rows
from aslseg.data.geometry import ijk_to_ras
from aslseg.data.images import read_labelmap, read_volume, write_labelmap, write_volume
from aslseg.data.orientation import Turn
from aslseg.data.volume import Geometry, Volume
from aslseg.project.case import CaseFiles
from support.tiny_benchmark import HELD_OUT, a_preset, an_experiment, data_in
from support.tiny_project import a_patient, write_patients

GRID = Grid(spacing_mm=(8.0, 4.0, 4.0))  # twice that of the patients
IGNORED = 3


@pytest.fixture
def data(tmp_path: Path) -> BenchmarkData:
    return data_in(tmp_path)


def corners_ras(geometry: Geometry) -> np.ndarray:
    """Outer corners of the grid, half a voxel beyond the centres of the outermost voxels."""
    depth, height, width = geometry.shape
    corners_ijk = [
        [i, j, k]
        for i in (-0.5, width - 0.5)
        for j in (-0.5, height - 0.5)
        for k in (-0.5, depth - 0.5)
    ]
    return ijk_to_ras(np.array(corners_ijk), geometry)


def test_a_coarser_grid_covers_the_same_extent_of_an_oblique_volume() -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    affine[:3, :3] *= [0.7, 0.7, 3.0]
    affine[:3, 3] = [-100, 20, 5]
    geometry = Geometry((31, 50, 41), affine)
    grid = coarser(geometry, (5.0, 2.0, 2.0))
    assert grid.shape == (18, 17, 14)  # 31 x 3 / 5 = 18.6; 50 x 0.35 = 17.5; 41 x 0.35 = 14.35
    assert all(new >= least for new, least in zip(grid.spacing_mm, (5.0, 2.0, 2.0), strict=True))
    np.testing.assert_allclose(corners_ras(grid), corners_ras(geometry), atol=1e-9)


def test_axes_that_are_coarse_enough_stay_as_they_are() -> None:
    geometry = Geometry.axis_aligned((12, 40, 40), (10.0, 3.0, 1.0))
    grid = coarser(geometry, (5.0, 2.0, 2.0))
    assert grid.shape == (12, 40, 20)
    assert grid.spacing_mm == pytest.approx((10.0, 3.0, 2.0))


def test_voxels_of_a_copy_are_means_and_keep_their_type(
    tmp_path: Path, data: BenchmarkData
) -> None:
    columns = np.arange(40, dtype=np.int16)[None, None].repeat(12, 0).repeat(40, 1)
    image = data.cases[0].image
    write_volume(Volume(columns, read_volume(image).geometry), image)
    copies = on_grid(data, tmp_path / "copies", Grid((8.0, 2.0, 2.0)))
    copy = read_volume(copies.cases[0].image)
    assert copy.voxels.dtype == np.int16
    np.testing.assert_array_equal(copy.voxels, columns[:6])  # columns do not change along k
    halved = on_grid(data, tmp_path / "halved", Grid((4.0, 2.0, 4.0)))
    middle = read_volume(halved.cases[0].image).voxels[0, 0, 2:-2]
    np.testing.assert_allclose(middle, np.arange(40).reshape(20, 2).mean(1)[2:-2], atol=0.51)


def test_a_copy_is_coarser_along_axial_axes_and_stored_as_its_image(
    tmp_path: Path, data: BenchmarkData
) -> None:
    """Stored by columns: the slices of 8 mm are those of the second axis."""
    sagittal = Turn((2, 0, 1), (True, True, False))
    case = data.cases[0]
    volume = read_volume(case.image)
    stored = replace(case, image=tmp_path / "sagittal.nii.gz", label=None)
    write_volume(sagittal.volume(volume), stored.image)
    made = on_grid(replace(data, cases=(stored,)), tmp_path / "s", GRID).cases[0]
    axial = on_grid(replace(data, cases=(case,)), tmp_path / "a", GRID).cases[0]
    copy, expected = read_volume(made.image), sagittal.volume(read_volume(axial.image))
    np.testing.assert_array_equal(copy.voxels, expected.voxels)
    assert copy.geometry.matches(expected.geometry)


def test_the_labels_of_held_out_cases_are_not_copied(tmp_path: Path, data: BenchmarkData) -> None:
    copies = on_grid(data, tmp_path / "copies", GRID)
    for case in copies.cases:
        assert (case.label is None) == (case.id in HELD_OUT)
        if case.label is not None:
            assert read_labelmap(case.label).geometry.shape == (6, 20, 20)
    assert not [*(tmp_path / "copies" / "labels").glob("c[45]*")]


def test_copies_are_made_once(tmp_path: Path, data: BenchmarkData) -> None:
    first = on_grid(data, tmp_path / "copies", GRID)
    times = [case.image.stat().st_mtime_ns for case in first.cases]
    again = on_grid(data, tmp_path / "copies", GRID)
    assert again == first
    assert [case.image.stat().st_mtime_ns for case in again.cases] == times


def test_no_change_leaves_the_cases_as_they_are(tmp_path: Path, data: BenchmarkData) -> None:
    assert on_grid(data, tmp_path / "copies", AS_GIVEN) is data
    assert not (tmp_path / "copies").exists()


def test_coarse_runs_are_scored_on_the_voxels_of_the_given_images(
    tmp_path: Path, data: BenchmarkData
) -> None:
    preset = replace(a_preset(), grid=GRID)
    setup = BenchmarkSetup(tmp_path, data, preset, on_grid(data, tmp_path / "data", GRID))
    experiment = an_experiment("supervised")
    run_experiment(setup, experiment)
    found = read_labelmap(setup.labels_folder(experiment) / "c4.nii.gz").labels > 0
    carried = found[::2, ::2, ::2].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(found, carried)
    truth = data.truth("c4").labels > 0
    overlap = 2 * (carried & truth).sum() / (carried.sum() + truth.sum())
    row = bench_rows(setup, experiment)["c4", "liver"]
    assert overlap > 0.3
    assert row["dice"] == pytest.approx(overlap, abs=1e-4)


def bench_rows(
    setup: BenchmarkSetup, experiment: Experiment
) -> dict[tuple[str, str], dict[str, float]]:
    rows = finished(setup, [experiment])[experiment]["rows"]
    return {(row["case"], row["target"]): row for row in rows}


def test_intensities_are_brought_to_a_common_range(tmp_path: Path, data: BenchmarkData) -> None:
    values = np.arange(12 * 40 * 40, dtype=np.float32).reshape(12, 40, 40)
    image = data.cases[0].image
    write_volume(Volume(values, read_volume(image).geometry), image)
    made = on_grid(data, tmp_path / "copies", Grid(percentiles=(10.0, 90.0))).cases[0]
    copy = read_volume(made.image).voxels
    low, high = np.percentile(values, (10, 90))
    expected = np.clip((values - low) / (high - low) * 100, 0, 100)
    np.testing.assert_allclose(copy, expected, atol=1e-3)


@pytest.fixture
def partly_seen(tmp_path: Path) -> BenchmarkData:
    """Cases whose first six slices nobody looked at, but for c1, as nnU-Net's ignore label says."""
    cases = write_patients(tmp_path / "data")[:6]
    for case in cases:
        label = read_labelmap(given_label(case))
        if case.id != "c1":
            label.labels[:6] = IGNORED
        write_labelmap(label, given_label(case))
    return one_draw([replace(case, ignored=IGNORED) for case in cases], HELD_OUT, ("c0", "c1"))


def given_label(case: CaseFiles) -> Path:
    assert case.label is not None
    return case.label


def test_slices_that_nobody_looked_at_stay_so_in_copies(
    tmp_path: Path, partly_seen: BenchmarkData
) -> None:
    copies = on_grid(partly_seen, tmp_path / "copies", GRID)
    project = project_showing(copies, tmp_path / "project", "given", 2)
    assert project.case("c0").complete_slices == (3, 4, 5)
    assert project.case("c1").complete_slices is None


def test_what_nobody_looked_at_is_not_scored(tmp_path: Path, partly_seen: BenchmarkData) -> None:
    whole = a_patient(4)[1]
    sure = {"liver": whole.labels > 0, "tumour": whole.labels == 2}
    wrong = CasePrediction(whole, {name: np.float32(mask) for name, mask in sure.items()})
    data = replace(partly_seen, held_out=("c4",))
    rows = held_out_rows(data, lambda _: wrong, tmp_path / "labels")
    assert [row["dice"] for row in rows] == [1.0, 1.0]
    assert rows[0]["true_ml"] == pytest.approx((whole.labels[6:] > 0).sum() * 0.016, abs=1e-3)
    assert rows[1]["false_positives"] == 0
    assert not rows[1]["lesions"]["false_with"]
    kept = read_labelmap(tmp_path / "labels" / "c4.nii.gz").labels
    np.testing.assert_array_equal(kept, whole.labels)
