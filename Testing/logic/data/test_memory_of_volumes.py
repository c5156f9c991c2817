"""What is done slice by slice, for the sake of memory, has the result of what is done at once."""

from __future__ import annotations

import sys

import numpy as np
import psutil
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from aslseg.config import RunConfig
from aslseg.data.masks import fill_holes_2d, voxel_counts
from aslseg.data.volume import Geometry, Volume, zeros
from aslseg.networks.adaptation import RoiSlices
from aslseg.preprocessing.roi import build_roi, from_volume, resample
from aslseg.prompts import MASK_LOGIT, BoxPrompt, SlicePrompts, mask_to_logits
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
