"""A lesion grows from prompts on one slice, and ends where it ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from aslseg.data.volume import Float32, Geometry, Labelmap, Mask, Volume
from aslseg.errors import CancelledError, ConfigError
from aslseg.events import CancelToken, Monitor
from aslseg.inference.interactive.propagation import (
    GrownSlice,
    GrowthEnd,
    GrowthRules,
    allowed_region,
    learn_appearance,
    propagate,
    stability_of,
)
from aslseg.inference.interactive.session import Session, SessionModels
from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts
from aslseg.targets import LIVER_TARGETS

SHAPE = (14, 40, 40)
GEOMETRY = Geometry.axis_aligned(SHAPE, (3.0, 1.0, 1.0))
K, J, COLUMN = np.indices(SHAPE)


def ball(centre: tuple[int, int, int], radius: float) -> Mask:
    """A ball, in mm."""
    k, j, i = centre
    return (3 * (K - k)) ** 2 + (J - j) ** 2 + (COLUMN - i) ** 2 <= radius**2


LIVER = (J - 20) ** 2 + (COLUMN - 20) ** 2 <= 17**2
LESION = ball((6, 20, 20), 9.9)  # slices 3 to 9
OTHER = ball((6, 20, 34), 3.0)


def ct(*lesions: Mask) -> Volume:
    """A liver of 110 HU with lesions of 60 HU, in fat."""
    voxels = np.where(LIVER, 110, -100)
    for lesion in lesions:
        voxels[lesion & LIVER] = 60
    return Volume(voxels.astype(np.int16), GEOMETRY)


@dataclass
class DarkSam:
    """Finds what is darker than liver within two pixels of a box, or five of a positive point."""

    unsure: Iterable[int] = ()
    asked: list[SlicePrompts] = field(default_factory=list)

    def predict_logits(
        self, volume: Volume, prompt: SlicePrompts, _: Monitor | None = None
    ) -> Float32:
        self.asked.append(prompt)
        near = np.zeros(SHAPE[1:], bool)
        if prompt.box is not None:
            left, top, right, bottom = (round(edge) for edge in prompt.box.xyxy)
            near[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = True
        for point in prompt.points:
            x, y = (int(n) for n in point.xy)
            near[max(y - 5, 0) : y + 6, max(x - 5, 0) : x + 6] |= point.positive
        found = near & (volume.voxels[prompt.slice_index] < 90)
        height = 0.5 if prompt.slice_index in self.unsure else 5.0
        return np.where(found, height, -height).astype(np.float32)


def box(k: int, *xyxy: float) -> SlicePrompts:
    left, top, right, bottom = xyxy
    return SlicePrompts(k, "tumour", box=BoxPrompt((left, top, right, bottom)))


BOX = box(6, 11, 11, 30, 30)


def grown(found: Iterable[GrownSlice | GrowthEnd]) -> tuple[Mask, dict[int, str]]:
    mask, ends = np.zeros(SHAPE, bool), {}
    for one in found:
        if isinstance(one, GrowthEnd):
            ends[one.slice_index] = one.reason
        else:
            mask[one.slice_index] = one.mask
    return mask, ends


def test_one_box_becomes_the_whole_lesion_and_asks_only_for_slices_that_are_needed() -> None:
    sam = DarkSam()
    mask, ends = grown(propagate(sam, ct(LESION), [BOX]))
    assert np.array_equal(mask, LESION)
    assert ends == {10: "appearance", 2: "appearance"}
    assert [prompt.slice_index for prompt in sam.asked] == [6, 7, 8, 9, 5, 4, 3]


def test_sections_come_one_after_the_other_upward_first() -> None:
    found = propagate(DarkSam(), ct(LESION), [BOX])
    first, second = next(found), next(found)
    assert isinstance(first, GrownSlice)
    assert isinstance(second, GrownSlice)
    assert [(f.slice_index, f.is_prompted) for f in (first, second)] == [(6, True), (7, False)]


def test_each_slice_is_asked_with_the_box_of_the_section_before() -> None:
    sam = DarkSam()
    list(propagate(sam, ct(LESION), [BOX]))
    asked = next(prompt for prompt in sam.asked if prompt.slice_index == 9)
    assert asked.box is not None
    assert asked.mask_logits is None
    rows, columns = np.nonzero(LESION[8])
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert asked.box.xyxy == tuple(float(edge) for edge in edges)


def test_what_does_not_look_like_the_lesion_is_none_of_it_though_sam_says_so() -> None:
    volume = ct(LESION)
    fat = (K == 7) & (np.hypot(J - 20, COLUMN - 20) <= 3)
    volume.voxels[fat] = -100  # DarkSam takes it for the lesion, as it is darker than liver
    mask, _ = grown(propagate(DarkSam(), volume, [BOX]))
    core = (K == 7) & (np.hypot(J - 20, COLUMN - 20) <= 1)
    assert not (mask & core).any()
    assert (mask[7] & LESION[7]).sum() > 0.8 * (LESION[7] & ~fat[7]).sum()


def test_a_lesion_ends_where_sam_is_unsure() -> None:
    mask, ends = grown(propagate(DarkSam(unsure=[8]), ct(LESION), [BOX]))
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [3, 4, 5, 6, 7]
    assert ends[8] == "score"


def test_a_lesion_ends_where_its_section_becomes_much_larger() -> None:
    column = (np.hypot(J - 20, COLUMN - 20) <= 3) & (K >= 4)
    wide = (np.hypot(J - 20, COLUMN - 20) <= 6) & (K == 9)
    prompts = [box(6, 17, 17, 24, 24)]
    mask, ends = grown(propagate(DarkSam(), ct(column, wide), prompts))
    assert ends[9] == "size"
    assert not mask[9:].any()
    freely = GrowthRules(most_growth=99.0)
    mask, ends = grown(propagate(DarkSam(), ct(column, wide), prompts, rules=freely))
    assert mask[9].any()


def test_a_lesion_ends_with_the_volume() -> None:
    column = np.hypot(J - 20, COLUMN - 20) <= 5
    mask, ends = grown(propagate(DarkSam(), ct(column), [box(6, 15, 15, 26, 26)]))
    assert np.array_equal(mask, column)
    assert ends == {14: "edge", -1: "edge"}


def test_a_lesion_that_looks_like_its_surroundings_is_not_ended_by_appearance() -> None:
    values = np.full(SHAPE[1:], 60.0, np.float32)
    found = learn_appearance(values, LESION[6], LIVER[6], 8, 8.0)
    assert not found.is_distinct
    assert (found.likeness(values) == 1).all()


def test_appearance_is_zero_outside_and_one_inside() -> None:
    values = np.where(LESION[6], 60.0, 110.0).astype(np.float32)
    found = learn_appearance(values, LESION[6], LIVER[6], 8, 8.0)
    assert (found.inside_hu, found.outside_hu, found.is_distinct) == (60.0, 110.0, True)
    assert found.likeness(np.array([60, 85, 110], np.float32)).tolist() == [1.0, 0.5, 0.0]


def test_the_stability_of_a_mask_is_the_part_that_both_thresholds_share() -> None:
    logits = np.array([[2.0, 0.5, -0.5, -2.0]], np.float32)
    assert stability_of(logits) == pytest.approx(1 / 3)
    assert stability_of(np.full((2, 2), -5.0, np.float32)) == 0.0


# -- corrections ----------------------------------------------------------------------------------


def test_a_prompt_beyond_the_end_makes_the_lesion_go_on_and_fills_the_gap() -> None:
    sam = DarkSam(unsure=[8])
    rules = GrowthRules(most_growth=9.0)
    mask, _ = grown(propagate(sam, ct(LESION), [BOX, box(9, 14, 14, 27, 27)], rules=rules))
    assert mask[9].any()
    assert np.array_equal(mask[7], LESION[7])
    assert not mask[8].any()  # SAM is as unsure from the other side


def test_what_a_person_prompts_stays_whatever_the_rules_say() -> None:
    mask, _ = grown(propagate(DarkSam(unsure=[7]), ct(LESION), [BOX, box(7, 11, 11, 30, 30)]))
    assert np.array_equal(mask[7:10], LESION[7:10])


def test_a_negative_point_alone_ends_the_lesion_on_its_slice() -> None:
    negative = SlicePrompts(8, "tumour", points=(PointPrompt((20.5, 20.5), positive=False),))
    mask, ends = grown(propagate(DarkSam(), ct(LESION), [BOX, negative]))
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [3, 4, 5, 6, 7]
    assert ends[8] == "prompt"


def test_a_positive_point_adds_to_what_is_expected_on_its_slice() -> None:
    beside = (np.hypot(J - 20, COLUMN - 31) <= 2) & (K == 7)
    point = SlicePrompts(7, "tumour", points=(PointPrompt((31.5, 20.5)),))
    mask, _ = grown(propagate(DarkSam(), ct(LESION, beside), [BOX, point]))
    assert mask[7][20, 31]
    assert (mask[7] & LESION[7]).sum() == LESION[7].sum()


def test_prompts_that_are_not_of_one_lesion_are_refused() -> None:
    negative = SlicePrompts(6, "tumour", points=(PointPrompt((20.5, 20.5), positive=False),))
    with pytest.raises(ConfigError, match="from a box or a positive point"):
        propagate(DarkSam(), ct(LESION), [negative])
    with pytest.raises(ConfigError, match="one section a slice"):
        propagate(DarkSam(), ct(LESION), [BOX, BOX])
    with pytest.raises(ConfigError, match="one target"):
        propagate(DarkSam(), ct(LESION), [BOX, replace(box(7, 1, 1, 5, 5), target="liver")])


def test_growing_stops_between_two_slices() -> None:
    token = CancelToken()
    found = propagate(DarkSam(), ct(LESION), [BOX], monitor=Monitor(token=token))
    next(found)
    token.cancel()
    with pytest.raises(CancelledError):
        next(found)


# -- what there is --------------------------------------------------------------------------------


def labels_with(*lesions: Mask) -> np.ndarray:
    labels = LIVER.astype(np.uint8)
    for lesion in lesions:
        labels[lesion] = 2
    return labels


def test_a_lesion_stays_within_reach_of_its_parent() -> None:
    allowed = allowed_region(labels_with(), ct(), [BOX], LIVER_TARGETS)
    assert allowed[LIVER].all()
    assert allowed[6, 20, 39]  # 3 mm outside
    assert not allowed[6, 0, 0]


def test_without_a_parent_a_lesion_may_lie_anywhere() -> None:
    assert allowed_region(np.zeros(SHAPE, np.uint8), ct(), [BOX], LIVER_TARGETS).all()


def test_another_lesion_alone_is_no_parent() -> None:
    labels = np.where(OTHER, 2, 0).astype(np.uint8)
    allowed = allowed_region(labels, ct(), [BOX], LIVER_TARGETS)
    assert np.array_equal(allowed, ~OTHER)


def test_other_lesions_are_left_alone_but_the_boxed_one_may_be_redone() -> None:
    allowed = allowed_region(labels_with(LESION, OTHER), ct(), [BOX], LIVER_TARGETS)
    assert not allowed[OTHER & ~LESION].any()
    assert allowed[LESION].all()


def test_a_growing_lesion_does_not_enter_another_one() -> None:
    touching = ball((6, 20, 34), 5.0) & ~LESION
    volume = ct(LESION, touching)
    allowed = allowed_region(labels_with(touching), volume, [BOX], LIVER_TARGETS)
    mask, _ = grown(propagate(DarkSam(), volume, [BOX], allowed=allowed))
    assert not (mask & touching).any()
    assert (mask & LESION).sum() > 0.9 * LESION.sum()


def test_a_session_grows_in_the_numbers_and_pixels_of_a_mirrored_file() -> None:
    lesion = ball((8, 18, 24), 9.9)
    stored = ct(lesion)
    affine = stored.geometry.ijk_to_ras.copy()
    affine[:3, :3] = np.diag([1.0, 1.0, 3.0])  # i to the right, j to anterior: not the axial grid
    volume = Volume(stored.voxels, Geometry(SHAPE, affine))
    models = SessionModels(LIVER_TARGETS, None, None, DarkSam())
    labels = Labelmap(labels_with(), volume.geometry)
    session = Session(volume, models)
    session.models = replace(models, sam=_Never())
    mask, ends = grown(session.grow([box(8, 15, 9, 34, 28)], labels))
    assert np.array_equal(mask, lesion & LIVER)
    assert sorted(ends) == [4, 12]


class _Never:
    """SAM that must not be asked for whole volumes."""

    def predict(self, *_: object) -> dict[str, Float32]:
        raise AssertionError


def test_a_session_without_sam_says_so() -> None:
    session = Session(ct(), SessionModels(LIVER_TARGETS, None, _Never()))
    with pytest.raises(ConfigError, match="Growing needs SAM"):
        session.grow([BOX])
