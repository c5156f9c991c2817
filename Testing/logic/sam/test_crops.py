"""Lesions are shown to SAM in the crop and the intensities of their parent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aslseg.config import PromptConfig, SamConfig, SamCropConfig
from aslseg.context import LabelledVolume
from aslseg.data.volume import Geometry, Labelmap, Mask, Volume
from aslseg.prompts import BoxPrompt, PointPrompt, SliceCrop, SlicePrompts, mask_to_logits
from aslseg.sam.crops import crops_in_parents, crops_of, in_crop, with_crops
from aslseg.sam.embeddings import prepare_slices
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.sam.tuning import tune
from aslseg.targets import LIVER_TARGETS
from aslseg.training.sam_tuning import sam_training_case, tuning_loss, with_embeddings
from support.sam_doubles import a_small_sam

SHAPE = (3, 96, 128)
GEOMETRY = Geometry.axis_aligned(SHAPE, (5.0, 2.0, 2.0))
CROPPED = SamConfig(
    input_size=128,
    crop=SamCropConfig(region="parent", margin_mm=10.0, spreads=2.0, least_spread_hu=15.0),
    prompts=PromptConfig(box_margin_px=0.0),
)


def liver() -> Mask:
    mask = np.zeros(SHAPE, bool)
    mask[0, 40:60, 30:50] = True
    mask[1, 45:70, 35:77] = True
    return mask


def a_volume() -> Volume:
    """Liver of 100 HU in fat of -100 HU, with one dark lesion."""
    voxels = np.full(SHAPE, -100, np.int16)
    voxels[liver()] = 100
    voxels[1, 50:56, 40:46] = 60
    return Volume(voxels, GEOMETRY)


def test_a_crop_is_the_parents_box_in_the_volume_on_a_coarse_grid() -> None:
    crops = crops_of(a_volume(), {"liver": liver()}, LIVER_TARGETS, CROPPED)
    # Rows 40 to 70 and columns 30 to 77, 5 pixels more on each side, outward to multiples of 8.
    assert crops == {"tumour": SliceCrop((24, 32, 88, 80), (70.0, 130.0))}


def test_edges_of_a_crop_do_not_leave_the_slice() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[:, 90:95, 1:127] = True
    crop = crops_of(a_volume(), {"liver": mask}, LIVER_TARGETS, CROPPED)["tumour"]
    assert crop.xyxy == (0, 80, 128, 96)


def test_a_window_has_so_many_spreads_of_the_parent_to_each_side() -> None:
    voxels = a_volume().voxels.astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 30, SHAPE).astype(np.float32)
    volume = Volume(voxels + noise, GEOMETRY)
    low, high = crops_of(volume, {"liver": liver()}, LIVER_TARGETS, CROPPED)["tumour"].window_hu
    assert (low + high) / 2 == pytest.approx(100, abs=15)
    assert 120 <= high - low <= 150  # twice 2 x 30, rounded outward to tens


def test_without_spreads_the_window_is_that_of_whole_slices() -> None:
    crop = CROPPED.crop.model_copy(update={"spreads": None})
    settings = CROPPED.model_copy(update={"crop": crop, "window_hu": (-20.0, 180.0)})
    found = crops_of(a_volume(), {"liver": liver()}, LIVER_TARGETS, settings)
    assert found["tumour"].window_hu == (-20.0, 180.0)


def test_parents_come_from_probabilities_and_the_rest_sees_whole_slices() -> None:
    probabilities: dict[str, Any] = {
        "liver": liver().astype(np.float32),
        "tumour": np.zeros(SHAPE, np.float32),
    }
    found = crops_in_parents(a_volume(), probabilities, LIVER_TARGETS, CROPPED)
    assert found == crops_of(a_volume(), {"liver": liver()}, LIVER_TARGETS, CROPPED)
    empty = {"liver": np.zeros(SHAPE, np.float32)}
    assert crops_in_parents(a_volume(), empty, LIVER_TARGETS, CROPPED) == {}
    assert crops_in_parents(a_volume(), probabilities, LIVER_TARGETS, SamConfig()) == {}


def test_settings_without_a_crop_are_those_of_older_runs() -> None:
    assert SamConfig().crop.region == "slice"
    assert SamConfig().prompts.connect == "slice"


CROP = SliceCrop((24, 32, 88, 80), (70.0, 130.0))


def test_prompts_outside_of_the_crop_see_the_whole_slice() -> None:
    within = SlicePrompts(1, "tumour", box=BoxPrompt((40, 50, 46, 56)))
    beyond = SlicePrompts(1, "tumour", box=BoxPrompt((90, 50, 96, 56)))
    clicked = SlicePrompts(1, "tumour", points=(PointPrompt((90.5, 50.5)),))
    organ = SlicePrompts(1, "liver", box=BoxPrompt((35, 45, 77, 70)))
    found = with_crops([within, beyond, clicked, organ], {"tumour": CROP})
    assert [prompt.crop for prompt in found] == [CROP, None, None, None]


def test_a_prompt_moves_into_its_crop_and_a_box_is_cut_at_the_edge() -> None:
    mask = np.zeros(SHAPE[1:], bool)
    mask[50:56, 40:46] = True
    prompt = SlicePrompts(
        1,
        "tumour",
        box=BoxPrompt((20, 50, 46, 56)),
        points=(PointPrompt((43.5, 53.5)),),
        mask_logits=mask_to_logits(mask),
        crop=CROP,
    )
    moved = in_crop(prompt)
    assert moved.box == BoxPrompt((0, 18, 22, 24))
    assert moved.points == (PointPrompt((19.5, 21.5)),)
    assert moved.mask_logits is not None
    assert moved.mask_logits.shape == (48, 64)
    np.testing.assert_array_equal(np.argwhere(moved.mask_logits > 0)[0], (18, 16))
    whole = SlicePrompts(1, "tumour", box=BoxPrompt((20, 50, 46, 56)))
    assert in_crop(whole) is whole


def test_sam_is_given_the_crop_and_its_mask_lies_where_the_crop_was(tmp_path: Path) -> None:
    sam = a_small_sam()
    predictor = VolumeSamPredictor(sam, CROPPED, tmp_path)
    prompt = SlicePrompts(1, "tumour", box=BoxPrompt((40, 50, 46, 56)), crop=CROP)
    found = predictor.predict(a_volume(), [prompt])["tumour"]
    assert found[1, 32:80, 24:88].min() > 0
    outside = found.copy()
    outside[1, 32:80, 24:88] = 0
    assert not outside.any()

    cut = a_volume().voxels[:, 32:80, 24:88]
    small = Volume(cut, Geometry.axis_aligned(cut.shape, (5.0, 2.0, 2.0)))
    alone = CROPPED.model_copy(update={"window_hu": CROP.window_hu})
    moved = SlicePrompts(1, "tumour", box=BoxPrompt((16, 18, 22, 24)))
    expected = VolumeSamPredictor(sam, alone, tmp_path).predict(small, [moved])["tumour"]
    np.testing.assert_allclose(found[1, 32:80, 24:88], expected[1], atol=1e-6)


def test_each_crop_and_window_of_a_slice_has_its_own_embedding(tmp_path: Path) -> None:
    predictor = VolumeSamPredictor(a_small_sam(), CROPPED, tmp_path)
    shown = [None, CROP, SliceCrop(CROP.xyxy, (0.0, 200.0)), SliceCrop((0, 0, 64, 48), (70, 130))]
    stored = [predictor.embeddings(a_volume(), [1], crop=crop) for crop in shown]
    assert len({one.folder for one in stored}) == 4
    assert predictor.embeddings(a_volume(), [1], crop=CROP).folder == stored[1].folder


def test_tuning_shows_lesions_the_crop_and_the_organ_whole_slices(tmp_path: Path) -> None:
    labels = liver().astype(np.uint8)
    labels[1, 50:56, 40:46] = 2
    labelled = LabelledVolume("c0", a_volume(), Labelmap(labels, GEOMETRY))
    settings = CROPPED.model_copy(update={"versions": 1, "batch_size": 4})
    predictor = VolumeSamPredictor(tune(a_small_sam(), "decoder"), settings, tmp_path)
    case = sam_training_case(labelled, LIVER_TARGETS, settings, 0)
    crops = {name: {s.prompt.crop for s in samples} for name, samples in case.samples.items()}
    assert crops["liver"] == {None}
    assert crops["tumour"] == {SliceCrop((24, 32, 88, 80), (70.0, 130.0))}
    embedded = with_embeddings(predictor, case)
    assert set(embedded.embeddings) == crops["liver"] | crops["tumour"]
    loss = tuning_loss(predictor, embedded, np.random.default_rng(0))
    again = tuning_loss(predictor, case, np.random.default_rng(0))  # encoded with gradients
    torch.testing.assert_close(loss, again, rtol=1e-2, atol=1e-3)  # stored in half precision


def test_an_encoder_is_shown_the_crop_in_its_window(tmp_path: Path) -> None:
    predictor = VolumeSamPredictor(a_small_sam(), CROPPED, tmp_path)
    picture = (a_volume().voxels[1, 32:80, 24:88].astype(np.float32) - 70) / 60
    inputs = prepare_slices(predictor.sam, torch.from_numpy(picture.clip(0, 1))[None])
    sam: Any = predictor.sam
    expected = sam.image_encoder(inputs)
    torch.testing.assert_close(predictor.encode(a_volume(), [1], CROP), expected)
