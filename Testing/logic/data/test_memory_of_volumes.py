"""What is done slice by slice, for the sake of memory, has the result of what is done at once."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import psutil
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from aslseg.config import AdaptationConfig, RunConfig
from aslseg.data.masks import fill_holes_2d, mask_where, parent_mask, voxel_counts
from aslseg.data.volume import Geometry, Volume, zeros
from aslseg.inference.candidates import Evidence
from aslseg.inference.postprocessing import labels_from
from aslseg.inference.refinement import Refiner
from aslseg.networks.adaptation import RoiSlices, build_adaptation
from aslseg.preprocessing.roi import build_roi, from_volume, resample
from aslseg.prompts import (
    MASK_LOGIT,
    BoxPrompt,
    SlicePrompts,
    mask_to_logits,
    proposed_masks,
)
from aslseg.targets import LIVER_TARGETS, cascade_stages

DEEP = (37, 24, 30)
"""More slices than are done at once, and no multiple of them."""


def random(shape: tuple[int, ...] = DEEP) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system counts otherwise")
def test_zeros_take_memory_where_they_are_written_and_give_it_back() -> None:
    mebibytes, process = 1 << 20, psutil.Process()
    before = process.memory_info().rss
    values = zeros((256, 512, 512))  # 256 MiB
    assert float(values[100:102].max()) == 0.0  # read, and not written
    assert process.memory_info().rss - before < 16 * mebibytes
    values[:64] = 1.0
    assert 56 * mebibytes < process.memory_info().rss - before < 80 * mebibytes
    del values
    assert process.memory_info().rss - before < 16 * mebibytes


@pytest.mark.parametrize("shape", [(3, 4, 5), (256, 256, 256)])
def test_zeros_are_writable_float32_of_the_shape(shape: tuple[int, ...]) -> None:
    values = zeros(shape)
    assert (values.shape, values.dtype) == (shape, np.float32)
    values[-1, -1, -1] = 2.0
    assert values[-1].sum() == 2.0


@pytest.mark.parametrize("shape", [DEEP, DEEP[1:]])
def test_a_mask_of_a_few_slices_at_a_time_is_that_of_all_at_once(shape: tuple[int, ...]) -> None:
    one, other = random(shape), random(shape)[::-1]
    assert np.array_equal(mask_where(np.greater, one, other), one > other)
    assert not mask_where(np.greater, one, one).any()


LONG = Volume(np.zeros((1024, 16, 16), np.int16), Geometry.axis_aligned((1024, 16, 16), (2.0,) * 3))
"""A scan of which the organ takes an eighth."""


def of_long_scan(start: float) -> np.ndarray:
    """Return a probability that is 0.9 in an organ and at both ends, and nowhere zero."""
    probability = np.full(LONG.geometry.shape, start, np.float32)
    probability[[0, -1], [0, -1], [0, -1]] = 0.9
    probability[400:528, 4:12, 4:12] = 0.9
    return probability


LIVER = LIVER_TARGETS[:1]
BOTH = {"liver": of_long_scan(1e-6), "tumour": of_long_scan(1e-5)}
FINE = RunConfig(adaptation=AdaptationConfig(channels=(4, 8), pixel_mm=2.0))


REFINER = Refiner({"liver": build_adaptation(cascade_stages(LIVER)[0], FINE)}, LIVER, FINE)


def refined() -> None:
    assert REFINER.refine(LONG, {"liver": BOTH["liver"]}, None)["liver"].max() > 0.5


def labelled() -> None:
    assert labels_from(BOTH, LIVER_TARGETS, LONG, 0.01).labels.max() == 2


def found_parent() -> None:
    assert parent_mask(LONG, "liver", BOTH["liver"]).any()


def prompted() -> None:
    assert proposed_masks(BOTH, LIVER_TARGETS, FINE.sam)["tumour"].any()


def with_candidates() -> None:
    evidence = Evidence(BOTH["liver"], zeros(LONG.geometry.shape, np.bool_), (BOTH["tumour"],))
    assert evidence.region_above(0.3) is not None


@pytest.mark.parametrize(
    ("step", "most_bytes"),
    [(found_parent, 0.5), (prompted, 0.5), (with_candidates, 0.5), (labelled, 0.5), (refined, 3.0)],
)
def test_a_step_of_a_long_scan_holds_few_bytes_a_voxel(
    step: Callable[[], None], most_bytes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what `zeros` gives, which takes memory where it is written."""
    monkeypatch.setattr("aslseg.data.volume._LARGE_BYTES", 1)
    step()  # what is allocated once
    tracemalloc.start()
    try:
        step()
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < most_bytes * LONG.voxels.size


def test_voxels_are_counted_as_bincount_counts_them() -> None:
    numbers = (random() * 7).astype(np.int32)
    assert np.array_equal(voxel_counts(numbers), np.bincount(numbers.ravel()))
    padded = np.bincount(numbers.ravel(), minlength=12)
    assert np.array_equal(voxel_counts(numbers.astype(np.uint8), 12), padded)


def test_holes_are_filled_in_each_slice_of_a_deep_mask() -> None:
    mask = random() > 0.45
    expected = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    assert np.array_equal(fill_holes_2d(mask), expected)
    assert not np.array_equal(expected, mask)


@pytest.mark.parametrize("shape", [(37, 11, 50), (19, 11, 50), (37, 24, 30)])
def test_resampling_a_deep_array_is_that_of_all_slices_at_once(shape: tuple[int, ...]) -> None:
    tensor = torch.from_numpy(random())
    if shape[1:] != DEEP[1:]:
        tensor = F.interpolate(
            tensor[:, None], shape[1:], mode="bilinear", align_corners=False, antialias=True
        )[:, 0]
    if shape[0] != DEEP[0]:
        deep = F.interpolate(tensor[None, None], shape, mode="trilinear", align_corners=False)
        tensor = deep[0, 0]
    assert np.array_equal(resample(random(), shape, "linear"), tensor.numpy())
    written = np.full(shape, np.nan, np.float32)
    resample(random(), shape, "linear", out=written)
    assert np.array_equal(written, tensor.numpy())


def test_slices_of_a_probability_on_a_roi_are_those_of_the_whole() -> None:
    geometry = Geometry.axis_aligned(DEEP, (3.0, 1.0, 1.0))
    stage = cascade_stages(LIVER_TARGETS)[0]
    roi = build_roi(Volume(random() * 100, geometry), stage, RunConfig().organ)
    whole, slices = from_volume(random(), roi), RoiSlices(random(), roi)
    assert len(slices) == len(whole)
    for wanted in (slice(8, 16), np.array([4, 4, 30]), slice(0, 37), np.array([36, 0])):
        assert np.array_equal(slices[wanted], whole[wanted])


def test_a_mask_prompt_is_an_array_of_the_slice_that_holds_its_box() -> None:
    mask = np.zeros((400, 500), bool)
    mask[20:30, 40:45] = random((10, 5)) > 0.5
    logits = mask_to_logits(mask)
    expected = np.where(mask, np.float32(MASK_LOGIT), np.float32(-MASK_LOGIT))
    assert np.array_equal(np.asarray(logits), expected)
    assert np.asarray(logits).dtype == np.float32
    assert np.array_equal(logits > 0, mask)
    assert np.array_equal(logits[18:33, 38:47], expected[18:33, 38:47])
    prompt = SlicePrompts(0, "liver", box=BoxPrompt((40, 20, 45, 30)), mask_logits=logits)
    assert np.array_equal(prompt.region(mask.shape), mask)
    assert not (mask_to_logits(np.zeros((4, 4), bool)) > 0).any()
