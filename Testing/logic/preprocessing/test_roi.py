"""What a stage sees of a volume, and the way back to the volume's own voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aslseg.config import NetworkConfig, RoiConfig, SpecialistConfig
from aslseg.data.volume import Geometry, Labelmap, Mask, Volume
from aslseg.preprocessing.roi import (
    IGNORED,
    build_roi,
    from_volume,
    load_roi,
    resample,
    save_roi,
    to_volume,
)
from aslseg.targets import LIVER_TARGETS, CascadeStage, Target, cascade_stages

OF_LIVER, OF_TUMOUR = cascade_stages(LIVER_TARGETS)
GRID = Geometry.axis_aligned((6, 20, 24), (4.0, 2.0, 1.5))


def settings(dimensions: int = 2, **roi: float | tuple[float, float]) -> SpecialistConfig:
    network = NetworkConfig(dimensions=3 if dimensions == 3 else 2, channels=(4, 8, 8))
    return SpecialistConfig(network=network, patch_size=16, roi=RoiConfig.model_validate(roi))


def smooth_values() -> np.ndarray:
    """Return (6, 20, 24) values that are linear in position, so that no resampling blurs them."""
    k, j, i = np.indices(GRID.shape)
    return (0.05 * k + 0.02 * j + 0.01 * i).astype(np.float32)


def test_the_whole_image_is_seen_in_its_window() -> None:
    voxels = np.full(GRID.shape, 75.0, np.float32)
    voxels[0], voxels[1], voxels[2] = -500.0, 1000.0, 162.5
    roi = build_roi(
        Volume(voxels, GRID), OF_LIVER, settings(pixel_mm=2.0, window_hu=(-100.0, 250.0))
    )
    assert roi.parent is None
    assert roi.labels is None
    assert roi.image.dtype == np.float32
    assert roi.image[:4, 5, 5].tolist() == [-4.0, 4.0, 1.0, 0.0]
    assert roi.inputs[0, :4, 5, 5].tolist() == [-2.0, 2.0, 1.0, 0.0]
    assert roi.limits == (-2.0, 2.0)
    assert roi.box.slices == (slice(0, 6), slice(0, 20), slice(0, 24))


@pytest.mark.parametrize(
    ("dimensions", "pixel_mm", "slice_mm", "shape"),
    [
        pytest.param(2, 2.0, 3.0, (6, 20, 18), id="slices keep their number"),
        pytest.param(2, 4.0, 3.0, (6, 10, 9), id="coarser"),
        pytest.param(2, 1.0, 3.0, (6, 40, 36), id="finer"),
        pytest.param(3, 2.0, 3.0, (8, 20, 18), id="volumes have slices of their own"),
        pytest.param(3, 2.0, 100.0, (1, 20, 18), id="never less than one"),
    ],
)
def test_the_working_grid_has_the_pixel_of_the_settings(
    dimensions: int, pixel_mm: float, slice_mm: float, shape: tuple[int, int, int]
) -> None:
    volume = Volume(np.zeros(GRID.shape, np.float32), GRID)
    chosen = settings(dimensions, pixel_mm=pixel_mm, slice_mm=slice_mm)
    assert build_roi(volume, OF_LIVER, chosen).image.shape == shape


@pytest.mark.parametrize(
    ("spacing_mm", "neighbour"), [(1.0, 3), (0.7, 4), (2.0, 2), (5.0, 1), (8.0, 1)]
)
def test_neighbours_are_whole_slices_away_and_at_least_one(
    spacing_mm: float, neighbour: int
) -> None:
    geometry = Geometry.axis_aligned((6, 8, 8), (spacing_mm, 2.0, 2.0))
    volume = Volume(np.zeros(geometry.shape, np.float32), geometry)
    assert build_roi(volume, OF_LIVER, settings(context_mm=3.0)).neighbour == neighbour


def an_organ() -> Mask:
    organ = np.zeros(GRID.shape, bool)
    organ[2:4, 8:14, 9:17] = True
    return organ


def test_contents_are_seen_in_a_box_around_their_parent_roi() -> None:
    volume = Volume(smooth_values() * 1000, GRID)
    roi = build_roi(volume, OF_TUMOUR, settings(pixel_mm=2.0, margin_mm=4.0), parent=an_organ())
    assert (roi.box.start, roi.box.stop) == ((1, 6, 6), (5, 16, 20))
    assert roi.image.shape == (4, 10, 10)  # 14 columns of 1.5 mm are 10.5 pixels of 2 mm
    assert roi.parent is not None
    assert roi.parent.shape == roi.image.shape
    assert roi.inputs.shape == (2, 4, 10, 10)
    assert 0.0 <= roi.parent.min() < roi.parent.max() <= 1.0


def test_a_file_that_was_saturated_limits_what_is_seen_of_it() -> None:
    voxels = np.clip(smooth_values() * 1000, 0.0, 250.0)
    chosen = settings(window_hu=(-100.0, 300.0))
    assert build_roi(Volume(voxels, GRID), OF_LIVER, chosen).limits == (-1.0, 1.5)
    roi = build_roi(Volume(voxels, GRID), OF_TUMOUR, settings(), parent=an_organ())
    assert roi.limits[1] == pytest.approx(float(roi.image.max()))


def test_contents_are_seen_as_deviations_from_their_parent_roi() -> None:
    """Half of the organ is 95, half 105: centre 100, deviation 5; 60 outside."""
    voxels = np.full(GRID.shape, 60.0, np.float32)
    voxels[an_organ()] = np.where(np.arange(96) % 2, 105.0, 95.0)
    chosen = settings(pixel_mm=1.0, margin_mm=4.0, least_scale_hu=1.0)
    geometry = Geometry.axis_aligned(GRID.shape)
    roi = build_roi(Volume(voxels, geometry), OF_TUMOUR, chosen, parent=an_organ())
    inside = an_organ()[roi.box.slices]
    np.testing.assert_allclose(np.abs(roi.image[inside]), 1 / 1.4826, rtol=1e-5)
    np.testing.assert_allclose(roi.image[~inside], -40 / (5 * 1.4826), rtol=1e-5)


def test_the_phase_of_contrast_does_not_matter_to_contents() -> None:
    voxels = smooth_values() * 100
    chosen = settings(pixel_mm=2.0, least_scale_hu=1.0)
    early = build_roi(Volume(voxels, GRID), OF_TUMOUR, chosen, parent=an_organ())
    late = build_roi(Volume(1.5 * voxels + 40, GRID), OF_TUMOUR, chosen, parent=an_organ())
    np.testing.assert_allclose(early.image, late.image, atol=1e-4)


def test_noise_in_a_uniform_parent_roi_is_not_blown_up() -> None:
    """The deviation of 5 counts as the least scale of 20: 60 - 100 becomes -2, not -5.4."""
    voxels = np.full(GRID.shape, 60.0, np.float32)
    voxels[an_organ()] = np.where(np.arange(96) % 2, 105.0, 95.0)
    chosen = settings(pixel_mm=1.0, margin_mm=4.0, least_scale_hu=20.0)
    volume = Volume(voxels, Geometry.axis_aligned(GRID.shape))
    roi = build_roi(volume, OF_TUMOUR, chosen, parent=an_organ())
    inside = an_organ()[roi.box.slices]
    np.testing.assert_allclose(roi.image[~inside], -2.0, rtol=1e-5)


@pytest.mark.parametrize("organ", [None, np.zeros(GRID.shape, bool)], ids=["absent", "empty"])
def test_contents_need_their_parent_roi(organ: Mask | None) -> None:
    volume = Volume(np.zeros(GRID.shape, np.float32), GRID)
    with pytest.raises(ValueError, match="Stage tumour needs a mask of 'liver'"):
        build_roi(volume, OF_TUMOUR, settings(), parent=organ)


def test_labels_become_the_classes_of_a_stage() -> None:
    spleen = Target(name="spleen", value=7)
    targets = (*LIVER_TARGETS, spleen)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[1, 2:8, 2:8], labels[1, 4:6, 4:6], labels[1, 12:18, 12:18] = 1, 2, 7
    volume, labelmap = Volume(smooth_values(), GRID), Labelmap(labels, GRID)
    chosen = settings(pixel_mm=1.5)
    outer, inner = cascade_stages(targets)
    roi = build_roi(volume, outer, chosen, labels=labelmap, targets=targets)
    assert roi.labels is not None
    assert roi.labels.dtype == np.uint8
    column = roi.labels[1, :, 5]  # through liver and tumour: both are liver here
    assert set(column.tolist()) == {0, 1}
    assert set(np.unique(roi.labels).tolist()) == {0, 1, 2}
    region = np.isin(labels, (1, 2))
    within = build_roi(volume, inner, chosen, parent=region, labels=labelmap, targets=targets)
    assert within.labels is not None
    assert set(np.unique(within.labels).tolist()) == {0, 1}


def test_doubtful_voxels_are_marked_whatever_their_label() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[1, 2:8, 2:8] = 1
    ignored = np.zeros(GRID.shape, bool)
    ignored[1, 6:10, 2:8] = True
    roi = build_roi(
        Volume(smooth_values(), GRID),
        OF_LIVER,
        settings(pixel_mm=1.5),
        labels=Labelmap(labels, GRID),
        ignored=ignored,
        targets=LIVER_TARGETS,
    )
    assert roi.labels is not None
    assert set(roi.labels[1, :, 5].tolist()) == {0, 1, IGNORED}
    assert set(np.unique(roi.labels[0]).tolist()) == {0}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_on_its_own_grid_a_roi_goes_back_and_forth_unchanged(dimensions: int) -> None:
    geometry = Geometry.axis_aligned(GRID.shape)
    volume = Volume(np.zeros(GRID.shape, np.float32), geometry)
    chosen = settings(dimensions, pixel_mm=1.0, slice_mm=1.0, margin_mm=3.0)
    values = np.random.default_rng(0).random(GRID.shape, np.float32)
    for roi in (
        build_roi(volume, OF_LIVER, chosen),
        build_roi(volume, OF_TUMOUR, chosen, parent=an_organ()),
    ):
        seen = from_volume(values, roi)
        np.testing.assert_array_equal(seen, values[roi.box.slices])
        back = to_volume(np.stack([seen, 1 - seen]), roi)
        expected = np.zeros(GRID.shape, np.float32)
        expected[roi.box.slices] = values[roi.box.slices]
        np.testing.assert_array_equal(back[0], expected)
        assert back.shape == (2, *GRID.shape)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("pixel_mm", [1.0, 2.5])
def test_on_an_anisotropic_grid_nothing_is_shifted(dimensions: int, pixel_mm: float) -> None:
    """A linear image survives the way to another grid and back but for its margin."""
    volume = Volume(np.zeros(GRID.shape, np.float32), GRID)
    values = smooth_values()
    chosen = settings(dimensions, pixel_mm=pixel_mm, slice_mm=3.0)
    roi = build_roi(volume, OF_LIVER, chosen)
    back = to_volume(from_volume(values, roi)[None], roi)[0]
    inner = (slice(1, -1), slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(back[inner], values[inner], atol=2e-3)


@pytest.mark.parametrize("pixel_mm", [1.0, 1.5, 3.0])
def test_a_mask_comes_back_where_it_was(pixel_mm: float) -> None:
    volume = Volume(np.zeros(GRID.shape, np.float32), GRID)
    organ = an_organ()
    chosen = settings(pixel_mm=pixel_mm, margin_mm=6.0)
    roi = build_roi(volume, OF_TUMOUR, chosen, parent=organ)
    assert roi.parent is not None
    back = to_volume(roi.parent[None], roi)[0] > 0.5
    assert 2 * (back & organ).sum() / (back.sum() + organ.sum()) > 0.95


def test_nearest_resampling_makes_no_new_values() -> None:
    labels = np.random.default_rng(0).choice([0, 3, 7], (4, 9, 11)).astype(np.uint8)
    for shape in ((4, 5, 5), (6, 20, 23), (4, 9, 11)):
        found = resample(labels, shape, "nearest")
        assert found.shape == shape
        assert set(np.unique(found).tolist()) <= {0.0, 3.0, 7.0}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", ["linear", "nearest"])
def test_an_array_that_may_only_be_read_is_resampled_without_a_warning(how: str) -> None:
    values = np.arange(4 * 6 * 6, dtype=np.float32).reshape(4, 6, 6)
    wanted = resample(values, (4, 3, 3), how)
    values.flags.writeable = False
    np.testing.assert_array_equal(resample(values, (4, 3, 3), how), wanted)


def test_shrinking_smooths_instead_of_skipping() -> None:
    stripes = np.zeros((1, 4, 32), np.float32)
    stripes[..., ::2] = 1.0
    found = resample(stripes, (1, 4, 8), "linear")
    np.testing.assert_allclose(found[0, 1, 1:-1], 0.5, atol=0.05)


@pytest.mark.parametrize("stage", [OF_LIVER, OF_TUMOUR], ids=["image", "parent"])
@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "unlabelled"])
def test_a_saved_roi_is_opened_without_being_read(
    tmp_path: Path, stage: CascadeStage, labelled: bool
) -> None:
    labels = Labelmap(an_organ().astype(np.uint8) * 2, GRID)
    roi = build_roi(
        Volume(smooth_values(), GRID),
        stage,
        settings(pixel_mm=2.0),
        parent=None if stage.inside is None else an_organ(),
        labels=labels if labelled else None,
        targets=LIVER_TARGETS,
    )
    save_roi(roi, tmp_path / "roi")
    opened = load_roi(tmp_path / "roi")
    assert isinstance(opened.image, np.memmap)
    for name in ("image", "parent", "labels"):
        kept, found = getattr(roi, name), getattr(opened, name)
        assert (kept is None) == (found is None)
        if kept is not None:
            np.testing.assert_array_equal(kept, found)
            assert kept.dtype == found.dtype
    facts = ("box", "volume_shape", "neighbour")
    assert [getattr(roi, f) for f in facts] == [getattr(opened, f) for f in facts]


def test_a_roi_without_labels_does_not_find_those_of_another(tmp_path: Path) -> None:
    volume, labels = Volume(smooth_values(), GRID), Labelmap(an_organ().astype(np.uint8), GRID)
    labelled = build_roi(volume, OF_LIVER, settings(), labels=labels, targets=LIVER_TARGETS)
    save_roi(labelled, tmp_path / "roi")
    save_roi(build_roi(volume, OF_LIVER, settings()), tmp_path / "roi")
    assert load_roi(tmp_path / "roi").labels is None
