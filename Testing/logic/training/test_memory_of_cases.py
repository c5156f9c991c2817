"""What training holds of each case lies on disk: memory and open files do not grow with cases."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from aslseg.config import AdaptationConfig, NetworkConfig, RunConfig, SpecialistConfig
from aslseg.data.masks import BoundingBox
from aslseg.data.volume import Geometry, Volume
from aslseg.networks.adaptation import ProbabilityPair, adaptation_roi_settings
from aslseg.preprocessing.patches import BatchSource, TrainingCase
from aslseg.preprocessing.roi import Roi, save_roi
from aslseg.prompts import BoxPrompt, SlicePrompts, mask_to_logits
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training.adaptation_samples import AdaptationSampler, Sample, TrainingSample
from aslseg.training.sam_tuning import PromptSample, SamTrainingCase, stored_case

SHAPE = (8, 96, 96)
VOXELS = 8 * 96 * 96
FEW, MANY = 4, 16
SETTINGS = SpecialistConfig(
    batch_size=4, patch_size=16, network=NetworkConfig(channels=(4, 8, 8)), lesion_share=0.8
)
ADAPTATION = AdaptationConfig(batch_size=4, patch_size=16, channels=(4, 8))
ROI_SETTINGS = adaptation_roi_settings(cascade_stages(LIVER_TARGETS)[0], RunConfig())


def a_roi(seed: int) -> Roi:
    """Return a ROI half of which belongs to the target."""
    image = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 8:56] = 1
    return Roi(image, None, labels, BoundingBox((0, 0, 0), SHAPE), SHAPE, neighbour=1)


def cases_on_disk(folder: Path, count: int) -> list[TrainingCase]:
    for n in range(count):
        save_roi(a_roi(n), folder / str(n))
    return [TrainingCase(folder / str(n), case_id=str(n)) for n in range(count)]


def a_sample(seed: int) -> TrainingSample:
    probability = np.random.default_rng(seed).random(SHAPE, np.float32)
    return TrainingSample(a_roi(seed), ProbabilityPair(probability, 1 - probability), 1)


def samples_on_disk(folder: Path, count: int) -> list[Sample]:
    return [a_sample(n).stored(folder / str(n)) for n in range(count)]


def sam_case(seed: int) -> SamTrainingCase:
    """Return a case with a prompt of two slices, one of which has a mask prompt."""
    rng = np.random.default_rng(seed)
    geometry = Geometry.axis_aligned(SHAPE)
    volume = Volume(rng.integers(-1000, 1000, SHAPE).astype(np.int16), geometry)
    samples = []
    for k in range(6):
        truth, mask = rng.random((2, *SHAPE[1:])) > 0.5
        logits = mask_to_logits(mask) if k % 2 else None
        prompt = SlicePrompts(k, "liver", box=BoxPrompt((1, 1, 9, 9)), mask_logits=logits)
        samples.append(PromptSample(prompt, truth))
    return SamTrainingCase(volume, {"liver": samples, "tumour": []})


def sam_cases_on_disk(folder: Path, count: int) -> list[SamTrainingCase]:
    return [stored_case(sam_case(n), folder / str(n)) for n in range(count)]


def drawn_patches(cases: Sequence[TrainingCase]) -> BatchSource:
    source = BatchSource(cases, SETTINGS, 0, 0)
    source.batch(0)
    return source


def drawn_samples(samples: Sequence[Sample]) -> AdaptationSampler:
    sampler = AdaptationSampler(samples, ADAPTATION, ROI_SETTINGS, 0)
    sampler.batch(0)
    return sampler


def the_cases(cases: Sequence[SamTrainingCase]) -> Sequence[SamTrainingCase]:
    for case in cases:
        assert case.samples["liver"][1].truth.any()
    return cases


def bytes_held(make: Callable[[], Any]) -> int:
    """Return what is allocated, not mapped from files, for what a function returns."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = make()
        held = tracemalloc.get_traced_memory()[0] - before
        del kept
        return held
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("on_disk", "use", "most"),
    [
        (cases_on_disk, drawn_patches, 0.05 * VOXELS),
        (samples_on_disk, drawn_samples, 6 * 20_000 + 0.2 * VOXELS),  # voxels of errors, 16 bit
        (sam_cases_on_disk, the_cases, 0.3 * VOXELS),
    ],
    ids=["patches", "adaptation", "sam"],
)
def test_four_times_the_cases_hold_a_fraction_of_a_byte_a_voxel_more(
    tmp_path: Path, on_disk: Callable[..., Any], use: Callable[[Any], Any], most: float
) -> None:
    few, many = on_disk(tmp_path / "few", FEW), on_disk(tmp_path / "many", MANY)
    use(few)  # what is allocated once
    grown = bytes_held(lambda: use(many)) - bytes_held(lambda: use(few))
    assert grown / (MANY - FEW) < most
    in_memory = [case.roi for case in cases_on_disk(tmp_path / "rois", 1)]
    assert bytes_held(lambda: [np.array(roi.image) for roi in in_memory]) > 4 * VOXELS


def test_no_file_of_a_case_stays_open_beyond_a_bounded_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aslseg.preprocessing.patches.OPEN_CASES", 2)
    cases = cases_on_disk(tmp_path, MANY)
    process = psutil.Process()
    opened = process.num_handles if hasattr(process, "num_handles") else process.num_fds
    before = opened()
    source = BatchSource(cases, SETTINGS, 0, 0)
    for n in range(8):
        source.batch(n)
    assert opened() <= before + 2 * 2  # image and labels of two cases


def test_patches_of_cases_on_disk_are_those_of_cases_in_memory(tmp_path: Path) -> None:
    on_disk = cases_on_disk(tmp_path, 3)
    in_memory = [replace(case, source=a_roi(n)) for n, case in enumerate(on_disk)]
    for n in range(4):
        one, other = (BatchSource(c, SETTINGS, 1, 0).batch(n) for c in (on_disk, in_memory))
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.classes, other.classes)
        assert one.locations == other.locations


def test_stored_samples_of_the_adaptation_network_are_drawn_as_those_in_memory(
    tmp_path: Path,
) -> None:
    both: list[Sequence[Sample]] = [samples_on_disk(tmp_path, 3), [a_sample(n) for n in range(3)]]
    for n in range(4):
        one, other = (AdaptationSampler(s, ADAPTATION, ROI_SETTINGS, 1).batch(n) for s in both)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_stored_samples_of_sam_have_their_masks_bit_for_bit(tmp_path: Path) -> None:
    case = sam_case(3)
    stored = stored_case(case, tmp_path)
    assert np.array_equal(stored.volume.voxels, case.volume.voxels)
    assert len(stored.samples["tumour"]) == 0
    assert len(stored.samples["liver"]) == 6
    for found, expected in zip(stored.samples["liver"], case.samples["liver"], strict=True):
        assert np.array_equal(found.truth, expected.truth)
        assert found.prompt.box == expected.prompt.box
        one, other = found.prompt.mask_logits, expected.prompt.mask_logits
        assert (one is None) == (other is None)
        assert one is None or other is None or np.array_equal(one, other)


def test_targets_with_names_like_those_of_files_keep_samples_of_their_own(tmp_path: Path) -> None:
    samples = sam_case(3).samples["liver"]
    names = ("left lobe", "left_lobe", "voxels", "a/b")
    case = replace(sam_case(3), samples={name: samples[n:] for n, name in enumerate(names)})
    stored = stored_case(case, tmp_path)
    assert np.array_equal(stored.volume.voxels, case.volume.voxels)
    for name in names:
        for found, expected in zip(stored.samples[name], case.samples[name], strict=True):
            assert np.array_equal(found.truth, expected.truth)
