"""From probabilities to one label map, and from a network to probabilities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aslseg.config import (
    NetworkConfig,
    RoiConfig,
    RunConfig,
    SpecialistConfig,
    SSLName,
    parse_config,
)
from aslseg.data.masks import clean_parent, within_reach
from aslseg.data.volume import Geometry, Mask, Volume
from aslseg.errors import CancelledError, RunError, WeightsError
from aslseg.events import Monitor
from aslseg.inference.cascade import Specialist, predict_roi
from aslseg.inference.postprocessing import labels_from
from aslseg.networks.checkpoints import Checkpoint, load_weights, save_checkpoint
from aslseg.networks.device import padding_of
from aslseg.networks.unet import build_network, input_channels
from aslseg.preprocessing.roi import Roi, build_roi
from aslseg.targets import LIVER_TARGETS, Target, cascade_stages
from support.tiny_project import SPECIALIST, a_patient, tiny_config

CPU = torch.device("cpu")
GRID = Geometry.axis_aligned((4, 12, 12), (4.0, 1.0, 1.0))  # a voxel has 0.004 ml
VOLUME = Volume(np.zeros(GRID.shape, np.float32), GRID)
OF_LIVER, OF_TUMOUR = cascade_stages(LIVER_TARGETS)


def block(*parts: tuple[slice, slice, slice], value: float = 0.9) -> np.ndarray:
    probability = np.zeros(GRID.shape, np.float32)
    for part in parts:
        probability[part] = value
    return probability


LIVER = block((slice(0, 4), slice(2, 10), slice(2, 10)))


def labels_of(
    liver: np.ndarray = LIVER, tumour: np.ndarray | None = None, min_ml: float = 0.0
) -> np.ndarray:
    probabilities = {"liver": liver, "tumour": block() if tumour is None else tumour}
    return labels_from(probabilities, LIVER_TARGETS, VOLUME, min_ml).labels


# --- Label maps -----------------------------------------------------------------------------------


def test_a_tumour_in_the_liver_takes_its_voxels_from_the_liver() -> None:
    labels = labels_of(tumour=block((slice(1, 3), slice(4, 6), slice(4, 6))))
    assert np.bincount(labels.ravel()).tolist() == [576 - 256, 256 - 8, 8]
    assert labels.dtype == np.uint8


def test_a_liver_is_its_largest_part_without_holes() -> None:
    liver = LIVER.copy()
    liver[1, 5:7, 5:7] = 0.1  # a hole in its slice
    liver[2, 0, 0] = 0.9  # a part of its own
    np.testing.assert_array_equal(labels_of(liver), labels_of(LIVER))


def test_a_probability_of_one_half_is_not_enough() -> None:
    assert not labels_of(np.full(GRID.shape, 0.5, np.float32)).any()


def test_a_tumour_bulges_out_of_the_liver_by_three_millimetres_in_plane() -> None:
    row = (slice(1, 2), slice(5, 6), slice(0, 12))
    labels = labels_of(block((slice(0, 2), slice(2, 10), slice(5, 7))), block(row))
    assert np.flatnonzero(labels[1, 5] == 2).tolist() == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_tumour_in_a_slice_without_liver_is_left_out() -> None:
    liver = block((slice(0, 2), slice(2, 10), slice(2, 10)))
    labels = labels_of(liver, block((slice(0, 4), slice(4, 6), slice(4, 6))))
    assert (labels == 2).sum((1, 2)).tolist() == [4, 4, 0, 0]


def test_without_a_liver_there_is_no_tumour() -> None:
    assert not labels_of(block(), LIVER).any()


@pytest.mark.parametrize(
    ("min_ml", "kept"),
    [(0.0, [1, 4, 8]), (0.004, [1, 4, 8]), (0.016, [4, 8]), (0.03, [8]), (0.04, [])],
)
def test_small_components_of_tumours_are_left_out(min_ml: float, kept: list[int]) -> None:
    parts = [
        (slice(1, 2), slice(3, 4), slice(3, 4)),  # 1 voxel
        (slice(1, 2), slice(6, 8), slice(3, 5)),  # 4 voxels
        (slice(1, 3), slice(6, 8), slice(7, 9)),  # 8 voxels
    ]
    labels = labels_of(tumour=block(*parts), min_ml=min_ml)
    found = [int((labels[part] == 2).sum()) for part in parts]
    assert [count for count in found if count] == kept


def test_a_small_liver_is_kept_whatever_the_least_size() -> None:
    labels = labels_of(block((slice(1, 2), slice(3, 4), slice(3, 4))), min_ml=1.0)
    assert labels.sum() == 1


SPLEEN, CYST = Target(name="spleen", value=3), Target(name="cyst", value=4, inside="liver")
SIBLINGS = (*LIVER_TARGETS, SPLEEN, CYST)


def test_of_overlapping_siblings_the_more_probable_one_wins() -> None:
    left = (slice(0, 4), slice(2, 10), slice(0, 7))
    right = (slice(0, 4), slice(2, 10), slice(5, 12))
    probabilities = {
        "liver": block(left, value=0.7),
        "spleen": block(right, value=0.8),
        "tumour": block((slice(1, 2), slice(4, 6), slice(1, 4)), value=0.9),
        "cyst": block((slice(1, 2), slice(4, 6), slice(3, 5)), value=0.6),
    }
    labels = labels_from(probabilities, SIBLINGS, VOLUME, 0.0).labels
    assert labels[1, 4].tolist() == [1, 2, 2, 2, 4, 3, 3, 3, 3, 3, 3, 3]
    assert labels[2, 4].tolist() == [1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("targets", [SIBLINGS, SIBLINGS[::-1]], ids=["before", "after"])
def test_filling_a_parent_roi_does_not_swallow_a_sibling(targets: tuple[Target, ...]) -> None:
    hole = (slice(0, 4), slice(5, 7), slice(5, 7))
    liver = LIVER.copy()
    liver[hole] = 0.2
    probabilities = {"liver": liver, "spleen": block(hole), "tumour": block(), "cyst": block()}
    labels = labels_from(probabilities, targets, VOLUME, 0.0).labels
    assert (labels[hole] == 3).all()
    assert (labels == 1).sum() == 256 - 16


def test_an_empty_mask_has_no_body_and_no_reach() -> None:
    empty = np.zeros(GRID.shape, bool)
    assert not clean_parent(empty).any()
    assert not within_reach(empty, VOLUME).any()


@pytest.mark.parametrize(("pixel_mm", "columns"), [(1.0, 7), (1.5, 5), (3.0, 3), (10.0, 3)])
def test_reach_is_in_millimetres_but_never_less_than_a_pixel(pixel_mm: float, columns: int) -> None:
    geometry = Geometry.axis_aligned((3, 13, 13), (5.0, pixel_mm, pixel_mm))
    organ = np.zeros(geometry.shape, bool)
    organ[1, 6, 6] = True
    reached = within_reach(organ, Volume(organ.astype(np.float32), geometry))
    assert reached[1, 6].sum() == reached[1, :, 6].sum() == columns
    assert not reached[[0, 2]].any()


# --- Networks -------------------------------------------------------------------------------------


class Pointwise(nn.Module):
    """Two classes; the second is probable where the middle slice, or the volume, is bright."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, inputs: Tensor) -> Tensor:
        value = inputs[:, self.channel]
        return torch.stack([-value, value], 1)


def a_view(shape: tuple[int, int, int]) -> Roi:
    geometry = Geometry.axis_aligned(shape)
    voxels = np.random.default_rng(0).normal(75.0, 100.0, shape).astype(np.float32)
    chosen = SPECIALIST.model_copy(
        update={"roi": SPECIALIST.roi.model_copy(update={"pixel_mm": 1.0, "slice_mm": 1.0})}
    )
    return build_roi(Volume(voxels, geometry), OF_LIVER, chosen)


def sigmoid(values: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1 / (1 + np.exp(-2 * values))
    return result


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shape", [(3, 8, 8), (11, 13, 9)], ids=["even", "odd, two parts"])
def test_slices_of_any_size_are_predicted_where_they_are(
    shape: tuple[int, int, int], mirror: bool
) -> None:
    settings = SPECIALIST.model_copy(update={"mirror": mirror})
    roi = a_view(shape)
    found = predict_roi(Pointwise(1), roi, settings, CPU)
    assert found.shape == (2, *shape)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[1], sigmoid(roi.inputs[0]), atol=1e-5)
    np.testing.assert_allclose(found.sum(0), 1.0, atol=1e-5)


def test_slices_without_the_parent_are_background_and_not_looked_at() -> None:
    shape, seen = (20, 8, 8), []
    volume = Volume(np.zeros(shape, np.int16), Geometry.axis_aligned(shape))
    parent = np.zeros(shape, bool)
    parent[[3, 4, 9], 2:6, 2:6] = True
    chosen = SPECIALIST.model_copy(update={"mirror": False})
    roi = build_roi(volume, OF_TUMOUR, chosen, parent=parent)
    network = Pointwise(-1)  # of the parent mask
    network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    found = predict_roi(network, roi, chosen, CPU)
    assert sum(seen) == 3
    inside = [k - roi.box.start[0] for k in (3, 4, 9)]
    np.testing.assert_allclose(found[1, inside], sigmoid(roi.inputs[-1, inside]), atol=1e-5)
    rest = np.delete(found, inside, axis=1)
    assert (rest[0] == 1).all()
    assert (rest[1] == 0).all()


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((8, 8, 8), id="one block"),
        pytest.param((5, 6, 7), id="less than a block"),
        pytest.param((9, 13, 21), id="many blocks"),
    ],
)
def test_a_sliding_block_sees_what_the_whole_would(shape: tuple[int, int, int]) -> None:
    settings = SpecialistConfig(
        patch_size=8, network=NetworkConfig(dimensions=3, channels=(4, 8, 8))
    )
    roi = a_view(shape)
    found = predict_roi(Pointwise(0), roi, settings, CPU)
    assert found.shape == (2, *shape)
    np.testing.assert_allclose(found[1], sigmoid(roi.inputs[0]), atol=1e-5)


class FromWindow(nn.Module):
    """A good specialist for `a_patient`: finds a range of intensities, within the parent."""

    def __init__(self, low: float, high: float, seen: list[int] | None = None) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.seen = seen if seen is not None else []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs.shape[1])
        middle = inputs[:, 1]
        found = (middle > self.low) & (middle < self.high)
        if inputs.shape[1] > 3:
            found &= inputs[:, 3] > 0.5
        logits = found.float() * 20 - 10
        return torch.stack([-logits, logits], 1)


def in_window(hu: float) -> float:
    """Return what -100..250 HU becomes in an ROI of the whole image."""
    return ((hu + 100) / 350 - 0.5) * 4


def a_specialist(**networks: nn.Module) -> Specialist:
    roi = RoiConfig(pixel_mm=2.0, least_scale_hu=1.0)
    config = tiny_config(lesion=SPECIALIST.model_copy(update={"roi": roi}))
    return Specialist(networks, LIVER_TARGETS, config, CPU)


def test_contents_are_sought_in_the_parent_roi_that_was_found() -> None:
    volume, labels = a_patient(0)
    liver = FromWindow(in_window(-30), in_window(200))
    tumour = FromWindow(-6.5, -4.0)
    found = a_specialist(liver=liver, tumour=tumour).predict(volume)
    assert found["liver"].shape == volume.geometry.shape
    for name, truth in {"liver": labels.labels > 0, "tumour": labels.labels == 2}.items():
        mask: Mask = found[name] > 0.5
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9, name
    assert set(liver.seen) == {3}
    assert set(tumour.seen) == {4}  # the parent with the three slices


def test_where_no_parent_roi_is_found_contents_are_not_sought() -> None:
    volume, _ = a_patient(0)
    tumour = FromWindow(-9.0, 9.0)
    found = a_specialist(liver=FromWindow(9.0, 9.5), tumour=tumour).predict(volume)
    assert not found["tumour"].any()
    assert found["tumour"].shape == volume.geometry.shape
    assert tumour.seen == []


def test_a_prediction_can_be_stopped() -> None:
    monitor = Monitor()
    monitor.token.cancel()
    volume, _ = a_patient(0)
    with pytest.raises(CancelledError):
        a_specialist().predict(volume, monitor)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_network_has_the_channels_of_its_stage(dimensions: int) -> None:
    network = NetworkConfig(dimensions=3 if dimensions == 3 else 2, channels=(4, 8, 8))
    settings = SPECIALIST.model_copy(update={"network": network})
    outer, inner = cascade_stages(SIBLINGS)
    images = 1 if dimensions == 3 else 3
    assert (input_channels(outer, settings), input_channels(inner, settings)) == (
        images,
        images + 1,
    )
    patch = torch.zeros(2, images + 1, *[8] * dimensions)
    assert build_network(inner, settings)(patch).shape == (2, 3, *[8] * dimensions)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_finest_features_have_full_resolution_and_the_logits_any_scale(dimensions: int) -> None:
    """No convolution of the first level strides, and nothing normalises what the last one gives."""
    network = NetworkConfig(dimensions=3 if dimensions == 3 else 2, channels=(4, 8, 8))
    settings = SPECIALIST.model_copy(update={"network": network})
    built = build_network(OF_LIVER, settings).eval()
    shapes: list[tuple[int, ...]] = []
    for part in built.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Conv3d):
            part.register_forward_hook(lambda *seen: shapes.append(tuple(seen[2].shape[1:])))
    patch = torch.randn(1, input_channels(OF_LIVER, settings), *[16] * dimensions)
    logits = built(patch)
    finest = (4, *[16] * dimensions)
    assert shapes[:2] == [finest, finest]
    for parameter in built.get_submodule("output_block").parameters():
        parameter.data *= 3
    torch.testing.assert_close(built(patch), 3 * logits)


def test_settings_of_runs_from_before_the_choice_build_their_network(tmp_path: Path) -> None:
    earlier = {"dimensions": 2, "channels": [4, 8], "residual_units": 1, "dropout": 0.1}
    network = parse_config({"organ": {"network": earlier}}).organ.network
    assert network.architecture == "unet"
    assert NetworkConfig.model_validate(network.model_dump()) == network
    assert NetworkConfig().architecture == "dynunet"
    built = build_network(OF_LIVER, SPECIALIST.model_copy(update={"network": network}))
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, Checkpoint("specialist", built.state_dict()))
    with pytest.raises(WeightsError, match="restore the settings that it was trained with"):
        load_weights(build_network(OF_LIVER, SPECIALIST), path, "specialist")


@pytest.mark.parametrize("dimensions", [2, 3])
def test_patches_of_a_batch_do_not_depend_on_each_other(dimensions: int) -> None:
    network = NetworkConfig(dimensions=3 if dimensions == 3 else 2, channels=(4, 8, 8))
    settings = SPECIALIST.model_copy(update={"network": network})
    built = build_network(OF_LIVER, settings).eval()
    patches = torch.randn(2, input_channels(OF_LIVER, settings), *[8] * dimensions)
    with torch.no_grad():
        together, alone = built(patches)[:1], built(patches[:1])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_the_settings_of_a_stage_are_those_of_its_depth() -> None:
    config = RunConfig(lesion=SpecialistConfig(iterations=7))
    pick: Callable[[str | None], SpecialistConfig] = config.stage
    assert pick(None).iterations == config.organ.iterations
    assert pick("liver").iterations == 7


@pytest.mark.parametrize(
    ("paradigm", "chosen", "expected"),
    [
        ("mean_teacher", None, 0.0),
        ("uncertainty_aware", None, 0.1),
        ("uncertainty_aware", 0.0, 0.0),
        ("mean_teacher", 0.3, 0.3),
    ],
)
def test_dropout_is_there_for_who_measures_with_it_or_asks_for_it(
    paradigm: SSLName, chosen: float | None, expected: float
) -> None:
    network = NetworkConfig(channels=(4, 8, 8), dropout=chosen)
    settings = SPECIALIST.model_copy(update={"network": network})
    found = RunConfig(paradigm=paradigm, organ=settings).stage(None)
    assert found.network.dropout == expected
    parts = build_network(OF_LIVER, found).modules()
    assert {part.p for part in parts if isinstance(part, nn.Dropout)} == {expected} - {0.0}


# --- Few pixels, and no numbers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [
        pytest.param((3, 47, 35), (1.0, 1.0, 1.0), id="one stride"),
        pytest.param((3, 49, 35), (1.0, 1.0, 1.0), id="a pixel more than a stride"),
        pytest.param((3, 200, 4), (1.0, 1.0, 1.0), id="a strip"),
        pytest.param((1, 1, 1), (1.0, 1.0, 1.0), id="one voxel"),
        pytest.param((3, 20, 20), (0.01, 0.01, 0.01), id="one pixel"),
    ],
)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_volumes_of_few_working_pixels_are_segmented(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], dimensions: int
) -> None:
    """Five levels: a network's stride is 16 pixels of 3 mm."""
    network = NetworkConfig(dimensions=dimensions, channels=(2, 2, 2, 2, 4))
    settings = SpecialistConfig(patch_size=32, network=network, roi=RoiConfig(pixel_mm=3.0))
    networks = {s.name: build_network(s, settings).eval() for s in (OF_LIVER, OF_TUMOUR)}
    config = RunConfig(organ=settings, lesion=settings)
    volume = Volume(np.zeros(shape, np.int16), Geometry.axis_aligned(shape, spacing_mm))
    labels = Specialist(networks, LIVER_TARGETS, config, CPU).segment(volume)
    assert labels.labels.shape == shape
    speck = np.zeros(shape, bool)
    speck[0, 0, 0] = True
    roi = build_roi(volume, OF_TUMOUR, settings, parent=speck)
    assert predict_roi(networks["tumour"], roi, settings, CPU).shape[1:] == roi.image.shape


@pytest.mark.parametrize("edge", [17, 32, 40])
def test_larger_images_are_padded_as_little_as_before(edge: int) -> None:
    assert padding_of(torch.zeros(1, 1, 5, edge), 16) == (0, -edge % 16, 0, 11)
    assert padding_of(torch.zeros(1, 1, 16, 13), 16) == (0, 19, 0, 16)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_prediction_that_is_no_number_is_refused(dimensions: int) -> None:
    settings = SPECIALIST.model_copy(
        update={"network": SPECIALIST.network.model_copy(update={"dimensions": dimensions})}
    )
    network = build_network(OF_LIVER, settings).eval()
    next(network.parameters()).data.fill_(torch.nan)
    roi = build_roi(a_patient(0)[0], OF_LIVER, settings)
    with pytest.raises(RunError, match="The specialist predicts values that are no numbers"):
        predict_roi(network, roi, settings, CPU)
