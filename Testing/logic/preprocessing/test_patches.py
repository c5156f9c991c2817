"""Batches depend on their number alone, and small lesions are seen as often as large ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from aslseg.config import NetworkConfig, RoiConfig, SpecialistConfig
from aslseg.data.masks import BoundingBox
from aslseg.distributed import WorkPart
from aslseg.preprocessing.patches import Batch, BatchSource, TrainingCase
from aslseg.preprocessing.roi import IGNORED, Roi, image_channels, slice_channels

SETTINGS = SpecialistConfig(
    batch_size=3, patch_size=16, intensity_strength=0.0, network=NetworkConfig(channels=(4, 8, 8))
)
IN_3D = SETTINGS.model_copy(update={"network": NetworkConfig(dimensions=3, channels=(4, 8, 8))})
SHAPE = (6, 32, 32)


def a_view(
    labels: np.ndarray | None = None, organ: np.ndarray | None = None, *, level: float = 0.0
) -> Roi:
    """Return an ROI whose slice k has the value k + level everywhere."""
    image = np.repeat(np.arange(6, dtype=np.float32) + level, 32 * 32).reshape(SHAPE)
    return Roi(image, organ, labels, BoundingBox((0, 0, 0), SHAPE), SHAPE, neighbour=2)


def labels_at(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for box in boxes:
        labels[box] = 1
    return labels


def same(first: Batch, second: Batch) -> bool:
    return all(
        torch.equal(getattr(first, name), getattr(second, name))
        for name in ("inputs", "classes", "weight")
    )


ONE_LESION = labels_at((slice(2, 4), slice(10, 16), slice(10, 16)))


@pytest.mark.parametrize("settings", [SETTINGS, IN_3D], ids=["slices", "volumes"])
def test_a_batch_depends_on_its_number_and_not_on_what_was_drawn_before(
    settings: SpecialistConfig,
) -> None:
    cases = [TrainingCase(a_view(ONE_LESION)), TrainingCase(a_view(level=0.5), 0.5)]
    in_order = BatchSource(cases, settings, 3, 0)
    seen = [in_order.batch(number) for number in range(5)]
    assert same(BatchSource(cases, settings, 3, 0).batch(4), seen[4])
    assert same(in_order.batch(1), seen[1])
    assert not same(seen[0], seen[1])


def test_seeds_and_streams_are_apart() -> None:
    cases = [TrainingCase(a_view(ONE_LESION))]
    one = BatchSource(cases, SETTINGS, 3, 0).batch(0)
    assert not same(one, BatchSource(cases, SETTINGS, 4, 0).batch(0))
    assert not same(one, BatchSource(cases, SETTINGS, 3, 1).batch(0))


def test_a_slice_is_given_with_its_neighbours_and_the_parent_roi() -> None:
    organ = np.full(SHAPE, 0.25, np.float32)
    channels = slice_channels(a_view(organ=organ), 3, SETTINGS)
    assert channels[:, 0, 0].tolist() == [1.0, 3.0, 5.0, 0.25]


@pytest.mark.parametrize(("k", "expected"), [(0, [0, 0, 2]), (1, [0, 1, 3]), (5, [3, 5, 5])])
def test_beyond_the_last_slice_the_last_slice_is_given_again(k: int, expected: list[int]) -> None:
    assert slice_channels(a_view(), k, SETTINGS)[:, 0, 0].tolist() == expected


def test_channels_are_counted_as_they_are_given() -> None:
    wider = SETTINGS.model_copy(update={"roi": RoiConfig(context_slices=2)})
    assert image_channels(wider) == len(slice_channels(a_view(), 0, wider)) == 5
    alone = SETTINGS.model_copy(update={"roi": RoiConfig(context_slices=0)})
    assert image_channels(alone) == len(slice_channels(a_view(), 0, alone)) == 1
    assert image_channels(IN_3D) == 1


def test_patches_have_the_shapes_of_their_dimensions() -> None:
    organ = np.ones(SHAPE, np.float32)
    cases = [TrainingCase(a_view(ONE_LESION, organ))]
    flat = BatchSource(cases, SETTINGS, 0, 0).batch(0)
    assert (flat.inputs.shape, flat.classes.shape) == ((3, 4, 16, 16), (3, 16, 16))
    deep = BatchSource(cases, IN_3D, 0, 0).batch(0)
    assert (deep.inputs.shape, deep.classes.shape) == ((3, 2, 16, 16, 16), (3, 16, 16, 16))
    assert flat.classes.dtype == deep.classes.dtype == torch.int64


@pytest.mark.parametrize("settings", [SETTINGS, IN_3D], ids=["slices", "volumes"])
def test_a_case_without_labels_gives_zeros(settings: SpecialistConfig) -> None:
    source = BatchSource([TrainingCase(a_view())], settings, 0, 1)
    for number in range(3):
        assert not source.batch(number).classes.any()


def test_each_patch_carries_the_weight_of_its_case() -> None:
    cases = [TrainingCase(a_view(), 1.0), TrainingCase(a_view(level=100.0), 0.5)]
    source = BatchSource(cases, SETTINGS, 0, 0)
    for number in range(4):
        batch = source.batch(number)
        pseudo = batch.inputs.mean((1, 2, 3)) > 50
        assert batch.weight.tolist() == [0.5 if one else 1.0 for one in pseudo]


def test_lesions_are_drawn_by_component_and_not_by_voxel() -> None:
    """Of two lesions, one has 8 voxels and the other 1152: either is met half of the time."""
    small = (slice(0, 2), slice(4, 6), slice(4, 6))
    large = (slice(4, 6), slice(8, 32), slice(8, 32))
    settings = SETTINGS.model_copy(update={"lesion_share": 1.0, "batch_size": 200})
    batch = BatchSource([TrainingCase(a_view(labels_at(small, large)))], settings, 0, 0).batch(0)
    depth = batch.inputs[:, 1].mean((1, 2)).round()  # the slice that a patch was cut from
    assert set(depth.tolist()) == {0.0, 1.0, 4.0, 5.0}
    assert 70 < int((depth < 2).sum()) < 130


def test_cases_are_drawn_equally_often_however_many_lesions_they_have() -> None:
    many = labels_at(*[(slice(0, 2), slice(n, n + 2), slice(4, 6)) for n in range(0, 30, 4)])
    cases = [TrainingCase(a_view(many)), TrainingCase(a_view(ONE_LESION), 0.5)]
    settings = SETTINGS.model_copy(update={"lesion_share": 1.0, "batch_size": 200})
    weight = BatchSource(cases, settings, 0, 0).batch(0).weight
    assert 70 < int((weight == 0.5).sum()) < 130


def test_specks_below_four_voxels_attract_no_patches() -> None:
    speck = labels_at((slice(0, 1), slice(4, 5), slice(4, 7)))
    settings = SETTINGS.model_copy(update={"lesion_share": 1.0, "batch_size": 60})
    batch = BatchSource([TrainingCase(a_view(speck))], settings, 0, 0).batch(0)
    assert len(set(batch.inputs[:, 1].mean((1, 2)).round().tolist())) == 6  # every slice is met


def test_what_is_in_doubt_attracts_no_patches_and_stays_marked() -> None:
    labels = labels_at((slice(4, 5), slice(2, 30), slice(2, 30)))
    labels[labels > 0] = IGNORED
    labels[0, 4:8, 4:8] = 1
    settings = SETTINGS.model_copy(update={"lesion_share": 1.0, "batch_size": 40})
    source = BatchSource([TrainingCase(a_view(labels))], settings, 0, 0)
    assert set(source.batch(0).inputs[:, 1].mean((1, 2)).tolist()) == {0.0}
    anywhere = settings.model_copy(update={"lesion_share": 0.0, "batch_size": 300})
    classes = BatchSource([TrainingCase(a_view(labels))], anywhere, 0, 0).batch(0).classes
    assert set(classes.unique().tolist()) == {0, 1, IGNORED}


def test_without_lesion_patches_centres_lie_in_the_parent_roi() -> None:
    organ = np.zeros(SHAPE, np.float32)
    organ[:, 28:, 28:] = 1.0
    settings = SETTINGS.model_copy(update={"lesion_share": 0.0, "batch_size": 50})
    batch = BatchSource([TrainingCase(a_view(ONE_LESION, organ))], settings, 0, 0).batch(0)
    assert (batch.inputs[:, 3].amax((1, 2)) > 0.9).all()


def test_labels_move_with_the_image() -> None:
    image = np.zeros(SHAPE, np.float32)
    image[ONE_LESION > 0] = 1.0
    roi = Roi(image, None, ONE_LESION, BoundingBox((0, 0, 0), SHAPE), SHAPE, neighbour=1)
    settings = SETTINGS.model_copy(
        update={"lesion_share": 1.0, "batch_size": 40, "mirror": True, "patch_size": 24}
    )
    batch = BatchSource([TrainingCase(roi)], settings, 0, 0).batch(0)
    middle = batch.inputs[:, 1]
    sure = (middle < 0.05) | (middle > 0.95)
    assert torch.equal(middle[sure].round().long(), batch.classes[sure])
    assert batch.classes.any()


def test_patients_are_met_equally_often_then_cases_then_rois() -> None:
    """Of a patient with one case and one with two, of which one has three ROIs."""
    whose = [("a", "p"), ("b", "q"), ("c1", "q"), ("c1", "q"), ("c1", "q")]
    cases = [
        TrainingCase(a_view(ONE_LESION, level=10.0 * n), case_id=case, patient=patient)
        for n, (case, patient) in enumerate(whose)
    ]
    for share in (0.0, 1.0):
        settings = SETTINGS.model_copy(update={"batch_size": 600, "lesion_share": share})
        drawn = [place.case for place in BatchSource(cases, settings, 0, 0).batch(0).locations]
        assert 250 < drawn.count(0) < 350
        assert 110 < drawn.count(1) < 190
        assert all(30 < drawn.count(n) < 75 for n in (2, 3, 4))


def test_intensities_are_changed_before_they_are_cut_off() -> None:
    """All is above the upper limit, so it is shown as the limit, or darkened as what it is."""
    image = np.full(SHAPE, 1.4, np.float32)
    box = BoundingBox((0, 0, 0), SHAPE)
    roi = Roi(image, None, None, box, SHAPE, neighbour=1, limits=(-2.0, 1.0))
    assert slice_channels(roi, 3, SETTINGS).max() == 1.0
    assert roi.inputs.max() == 1.0
    plain = BatchSource([TrainingCase(roi)], SETTINGS, 0, 0).batch(0).inputs
    assert plain.unique().tolist() == [1.0]
    strong = SETTINGS.model_copy(update={"batch_size": 100, "intensity_strength": 2.0})
    level = BatchSource([TrainingCase(roi)], strong, 0, 0).batch(0).inputs
    assert float(level.max()) == 1.0
    assert float(level.min()) >= -2.0
    flat = (level == 1.0).flatten(1).all(1)
    assert 0 < int(flat.sum()) < 100
    assert float(level.flatten(1).mean(1).min()) < 0.7


def test_the_parent_mask_is_not_changed_with_the_intensities() -> None:
    organ = np.ones(SHAPE, np.float32)
    settings = SETTINGS.model_copy(update={"intensity_strength": 1.0})
    for chosen in (settings, IN_3D.model_copy(update={"intensity_strength": 1.0})):
        inputs = BatchSource([TrainingCase(a_view(organ=organ))], chosen, 0, 0).batch(0).inputs
        torch.testing.assert_close(inputs[:, -1], torch.ones_like(inputs[:, -1]))
        assert len(inputs[:, 0].unique()) > 10


def test_mirroring_is_off_unless_asked_for() -> None:
    """The image grows to the right; a patch that is hardly turned does so unless mirrored."""
    image = np.broadcast_to(np.arange(32, dtype=np.float32), SHAPE).copy()
    roi = Roi(image, None, None, BoundingBox((0, 0, 0), SHAPE), SHAPE, neighbour=1)

    def mirrored(mirror: bool) -> list[bool]:
        settings = SETTINGS.model_copy(update={"mirror": mirror, "batch_size": 40})
        inputs = BatchSource([TrainingCase(roi)], settings, 0, 0).batch(0).inputs
        return (inputs[:, 1, :, -1].mean(1) < inputs[:, 1, :, 0].mean(1)).tolist()

    assert not any(mirrored(False))
    assert 10 < sum(mirrored(True)) < 30


def test_there_must_be_a_case() -> None:
    with pytest.raises(ValueError, match="at least one case"):
        BatchSource([], SETTINGS, 0, 0)


def human_parts(cases: list[TrainingCase], settings: SpecialistConfig, **share: float) -> list[int]:
    """Return how many patches of each of ten batches have human labels (of weight 1)."""
    source = BatchSource(cases, settings, 0, 0, **share)
    return [int((source.batch(number).weight == 1.0).sum()) for number in range(10)]


def test_half_of_each_batch_is_human_however_many_pseudo_labels_there_are() -> None:
    human, pseudo = (
        TrainingCase(a_view(ONE_LESION)),
        TrainingCase(a_view(ONE_LESION), 0.5, "", True),
    )
    settings = SETTINGS.model_copy(update={"batch_size": 5})
    assert human_parts([human, *[pseudo] * 8], settings) == [3] * 10
    assert human_parts([human, *[pseudo] * 8], settings, human_share=0.8) == [4] * 10
    assert human_parts([human, *[pseudo] * 8], settings, human_share=0.0) == [1] * 10
    assert human_parts([*[human] * 3, pseudo], settings) == [4] * 10  # three quarters of the cases
    assert human_parts([human], settings) == [5] * 10
    assert human_parts([pseudo], settings) == [0] * 10


def test_human_and_pseudo_labels_share_all_places_of_a_batch() -> None:
    cases = [TrainingCase(a_view(ONE_LESION)), TrainingCase(a_view(ONE_LESION), 0.5, "", True)]
    source = BatchSource(cases, SETTINGS.model_copy(update={"batch_size": 2}), 0, 0)
    assert {tuple(source.batch(n).weight.tolist()) for n in range(20)} == {(1.0, 0.5), (0.5, 1.0)}


HALF = labels_at((slice(None), slice(0, 16), slice(None)))
SHIFTED = {"target_shift_chance": 1.0, "batch_size": 6, "lesion_share": 0.0}


def shifts_of(case: TrainingCase, settings: SpecialistConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how much brighter targets and all else became, away from the border between them."""
    plain = BatchSource([case], settings.model_copy(update={"target_shift_chance": 0.0}), 0, 0)
    shown, batch = BatchSource([case], settings, 0, 0).batch(0), plain.batch(0)
    assert shown.locations == batch.locations
    change = (shown.inputs - batch.inputs)[:, 0]
    is_target = (shown.classes > 0) & (shown.classes != IGNORED)
    pool = functional.max_pool2d if is_target.ndim == 3 else functional.max_pool3d
    near_target, near_other = (
        pool(mask.float()[:, None], 5, 1, 2)[:, 0] > 0 for mask in (is_target, ~is_target)
    )
    return change[~near_other], change[~near_target]


@pytest.mark.parametrize("settings", [SETTINGS, IN_3D], ids=["slices", "volumes"])
def test_targets_become_brighter_or_darker_and_nothing_else(settings: SpecialistConfig) -> None:
    targets, others = shifts_of(
        TrainingCase(a_view(HALF, level=-2.0)), settings.model_copy(update=SHIFTED)
    )
    assert not others.any()
    assert targets.abs().min() > 0
    assert len(targets.mul(1000).round().unique()) > 1


def test_what_a_network_labelled_is_not_shifted() -> None:
    """Its borders are in doubt: the shift would end where the doubt begins."""
    pseudo = TrainingCase(a_view(HALF, level=-2.0), 0.5, "", True)
    targets, _ = shifts_of(pseudo, SETTINGS.model_copy(update=SHIFTED))
    assert len(targets) > 0
    assert not targets.any()


def test_what_is_in_doubt_is_not_shifted() -> None:
    labels = np.where(HALF > 0, IGNORED, 0).astype(np.uint8)
    shown = SETTINGS.model_copy(update=SHIFTED)
    plain = SETTINGS.model_copy(update={**SHIFTED, "target_shift_chance": 0.0})
    case = [TrainingCase(a_view(labels))]
    assert same(BatchSource(case, shown, 0, 0).batch(0), BatchSource(case, plain, 0, 0).batch(0))


def test_parts_of_a_batch_are_shifted_as_the_whole_is() -> None:
    source = BatchSource([TrainingCase(a_view(HALF))], SETTINGS.model_copy(update=SHIFTED), 0, 0)
    whole = source.batch(0).inputs
    for number in range(2):
        part = source.batch(0, WorkPart(number, 2)).inputs
        torch.testing.assert_close(part, whole[number::2])


ORGAN = np.ones(SHAPE, np.float32)
DRAWN = {"synthetic_lesion_chance": 1.0, "batch_size": 6, "patch_size": 24, "lesion_share": 0.0}


def flat_view(labels: np.ndarray | None, organ: np.ndarray | None = ORGAN) -> Roi:
    """Return an ROI that is 0 everywhere."""
    image = np.zeros(SHAPE, np.float32)
    return Roi(image, organ, labels, BoundingBox((0, 0, 0), SHAPE), SHAPE, neighbour=1)


HEALTHY = np.zeros(SHAPE, np.uint8)


@pytest.mark.parametrize("settings", [SETTINGS, IN_3D], ids=["slices", "volumes"])
def test_lesions_are_drawn_and_labelled(settings: SpecialistConfig) -> None:
    source = BatchSource(
        [TrainingCase(flat_view(HEALTHY))], settings.model_copy(update=DRAWN), 0, 0
    )
    batch = source.batch(0)
    middle = image_channels(settings) // 2
    assert batch.classes.unique().tolist() == [0, 1]
    assert batch.inputs[:, middle][batch.classes == 1].abs().mean() > 0.5
    far = functional.max_pool2d((batch.classes == 1).float().flatten(0, -3)[:, None], 9, 1, 4)[:, 0]
    assert batch.inputs[:, middle].flatten(0, -3)[far == 0].abs().max() < 0.1
    assert same(batch, source.batch(0))


@pytest.mark.parametrize(
    ("labels", "organ"), [(None, ORGAN), (HEALTHY, None)], ids=["no labels", "no parent"]
)
def test_no_lesion_is_drawn_without_labels_or_without_a_parent(
    labels: np.ndarray | None, organ: np.ndarray | None
) -> None:
    settings = SETTINGS.model_copy(update=DRAWN)
    batch = BatchSource([TrainingCase(flat_view(labels, organ))], settings, 0, 0).batch(0)
    assert not batch.classes.any()
    assert not batch.inputs[:, : image_channels(settings)].any()


def test_parts_of_a_batch_show_the_lesions_of_the_whole() -> None:
    case = [TrainingCase(flat_view(HEALTHY))]
    source = BatchSource(case, SETTINGS.model_copy(update=DRAWN), 0, 0)
    whole = source.batch(0)
    for number in range(2):
        part = source.batch(0, WorkPart(number, 2))
        torch.testing.assert_close(part.inputs, whole.inputs[number::2])
        assert torch.equal(part.classes, whole.classes[number::2])


def test_after_a_part_of_the_schedule_no_lesion_is_drawn_any_more() -> None:
    settings = SETTINGS.model_copy(update={**DRAWN, "iterations": 10})
    source = BatchSource([TrainingCase(flat_view(HEALTHY))], settings, 0, 0)
    assert [bool(source.batch(step).classes.any()) for step in range(10)] == [True] * 6 + [
        False
    ] * 4
