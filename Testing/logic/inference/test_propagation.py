"""A lesion grows from prompts on one slice, and ends where it ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from aslseg.data.volume import Float32, Geometry, Labelmap, Mask, Volume
from aslseg.errors import CancelledError, ConfigError
from aslseg.events import CancelToken, Monitor
from aslseg.inference.interactive import propagation, random_walker
from aslseg.inference.interactive.propagation import (
    GrownSlice,
    GrowthEnd,
    allowed_region,
    propagate,
)
from aslseg.inference.interactive.sections import GrowthRules, boxed_section, learn_appearance
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
IN_LIVER = np.broadcast_to(LIVER, SHAPE)
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
        return np.where(found, 5.0, -5.0).astype(np.float32)


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


def overlap(mask: Mask, truth: Mask) -> float:
    """Dice."""
    return 2 * float((mask & truth).sum()) / float(mask.sum() + truth.sum())


def test_one_box_becomes_the_whole_lesion_and_sam_is_asked_on_its_slice_alone() -> None:
    sam = DarkSam()
    mask, ends = grown(propagate(sam, ct(LESION), [BOX], allowed=IN_LIVER))
    assert overlap(mask, LESION) > 0.9
    assert ends == {10: "appearance", 2: "appearance"}
    assert [prompt.slice_index for prompt in sam.asked] == [6]


@dataclass
class BlindSam:
    """Finds nothing."""

    def predict_logits(self, volume: Volume, *_: object) -> Float32:
        return np.full(volume.voxels.shape[1:], -5.0, np.float32)


def test_a_lesion_grows_though_sam_finds_nothing_in_its_box() -> None:
    mask, _ = grown(propagate(BlindSam(), ct(LESION), [BOX], allowed=IN_LIVER))
    assert overlap(mask[6], LESION[6]) > 0.9
    assert overlap(mask, LESION) > 0.85


def test_a_lesion_in_noise_does_not_leak() -> None:
    volume = ct(LESION)
    noise = np.random.default_rng(0).normal(0.0, 30.0, SHAPE)
    noisy = Volume((volume.voxels + noise).astype(np.int16), GEOMETRY)
    mask, _ = grown(propagate(DarkSam(), noisy, [BOX], allowed=IN_LIVER))
    assert overlap(mask, LESION) > 0.8


def test_a_loose_box_is_filled_as_far_as_it_looks_like_the_lesion() -> None:
    loose = box(6, 8, 8, 33, 33)
    mask, _ = grown(propagate(DarkSam(), ct(LESION), [loose], allowed=IN_LIVER))
    assert overlap(mask[6], LESION[6]) > 0.9


def test_one_lesion_is_found_on_fine_and_coarse_pixels() -> None:
    coarse, _ = grown(propagate(BlindSam(), ct(LESION), [BOX], allowed=IN_LIVER))
    finely = np.repeat(np.repeat(ct(LESION).voxels, 2, axis=1), 2, axis=2)
    fine = Volume(finely, Geometry.axis_aligned(finely.shape, (3.0, 0.5, 0.5)))
    prompt = box(6, 22, 22, 60, 60)
    found = np.zeros(finely.shape, bool)
    for one in propagate(BlindSam(), fine, [prompt]):
        if isinstance(one, GrownSlice):
            found[one.slice_index] = one.mask
    assert overlap(found[:, ::2, ::2], coarse) > 0.9


def test_a_large_lesion_grows_on_fewer_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[int] = []

    def counted(values: Float32, *given: Any, **settings: Any) -> Float32:
        walked.append(values.size)
        return random_walker.walk(values, *given, **settings)

    monkeypatch.setattr(propagation, "walk", counted)
    monkeypatch.setattr(propagation, "MOST_VOXELS", 3000)
    mask, ends = grown(propagate(DarkSam(), ct(LESION), [BOX]))
    assert overlap(mask, LESION) > 0.8
    assert sorted(ends) == [2, 10]
    assert 1000 < max(walked) <= 3000


def test_of_two_dark_spots_in_a_box_the_larger_is_the_section() -> None:
    spot, other = np.hypot(J - 20, COLUMN - 20)[0] <= 4, ((J < 15) & (COLUMN < 15))[0]
    plane_hu = np.where(spot | other, 60.0, 110.0).astype(np.float32)
    logits = np.where(spot | other, 5.0, -5.0).astype(np.float32)
    prompt, anywhere = BoxPrompt((11, 11, 30, 30)), np.ones(SHAPE[1:], bool)
    found = boxed_section(
        plane_hu, logits, prompt, anywhere, ring_px=5, rules=GrowthRules(shape_weight=1.0)
    )
    assert overlap(found, spot) > 0.9
    assert not found[other].any()


def test_sections_come_one_after_the_other_upward_first() -> None:
    found = propagate(DarkSam(), ct(LESION), [BOX])
    first, second = next(found), next(found)
    assert isinstance(first, GrownSlice)
    assert isinstance(second, GrownSlice)
    assert [first.slice_index, second.slice_index] == [6, 7]


def test_what_does_not_look_like_the_lesion_is_none_of_it_though_sam_says_so() -> None:
    volume = ct(LESION)
    fat = (K == 6) & (COLUMN >= 30)
    volume.voxels[fat] = -100  # DarkSam takes it for the lesion, as it is darker than liver
    prompt = box(6, 11, 11, 33, 30)
    mask, _ = grown(propagate(DarkSam(), volume, [prompt], allowed=IN_LIVER))
    assert not (mask & fat & (COLUMN > 30)).any()
    assert overlap(mask[6], LESION[6]) > 0.85


def test_a_lesion_is_not_much_deeper_than_it_is_wide() -> None:
    vessel = np.broadcast_to((np.hypot(J - 20, COLUMN - 20) <= 3)[:1], SHAPE)
    _, ends = grown(propagate(DarkSam(), ct(vessel), [box(6, 17, 17, 24, 24)]))
    assert ends == {7: "appearance", 5: "appearance"}
    rules = GrowthRules(shape_weight=0.1, length_mm=1.0, depth=3.0)
    _, ends = grown(propagate(DarkSam(), ct(vessel), [box(6, 17, 17, 24, 24)], rules=rules))
    assert ends == {9: "depth", 3: "depth"}


def test_a_lesion_ends_with_the_volume() -> None:
    lesion = ball((12, 20, 20), 9.9)
    _, ends = grown(propagate(DarkSam(), ct(lesion), [box(12, 11, 11, 30, 30)]))
    assert ends == {14: "edge", 8: "appearance"}


def test_a_lesion_that_looks_like_its_surroundings_is_known_by_its_shape_alone() -> None:
    values = np.full(SHAPE[1:], 60.0, np.float32)
    found = learn_appearance([values], [LESION[6]], [LIVER[6] & ~LESION[6]], 4.0)
    assert (found.evidence(values, 3.0) == 0).all()
    mask, ends = grown(propagate(BlindSam(), ct(), [BOX], allowed=IN_LIVER))
    assert overlap(mask, LESION) > 0.55
    assert ends == {9: "appearance", 3: "appearance"}


def test_evidence_is_even_between_inside_and_outside_and_falls_beyond() -> None:
    values = np.where(LESION[6], 60.0, 110.0).astype(np.float32)
    found = learn_appearance([values], [LESION[6]], [LIVER[6] & ~LESION[6]], 25.0)
    assert (found.inside_hu, found.outside_hu, found.spread_hu) == (60.0, 110.0, 25.0)
    assert found.contrast_hu == 50.0
    values = np.array([60, 85, 110, -100], np.float32)
    assert found.evidence(values, 3.0).tolist() == [2.0, 0.0, -2.0, -3.0]


# -- corrections ----------------------------------------------------------------------------------


def test_a_prompt_beyond_the_end_makes_the_lesion_go_on_and_fills_the_gap() -> None:
    tube = np.broadcast_to((np.hypot(J - 20, COLUMN - 20) <= 5)[:1], SHAPE)
    first = box(3, 15, 15, 26, 26)
    alone, _ = grown(propagate(DarkSam(), ct(tube), [first]))
    assert not alone[7].any()
    mask, _ = grown(propagate(DarkSam(), ct(tube), [first, box(9, 15, 15, 26, 26)]))
    assert mask[3:10].any(axis=(1, 2)).all()


def test_what_a_person_prompts_stays_whatever_is_around_it() -> None:
    second = box(7, 12, 12, 24, 29)
    alone, _ = grown(propagate(DarkSam(), ct(LESION), [second]))
    mask, _ = grown(propagate(DarkSam(), ct(LESION), [BOX, second]))
    assert np.array_equal(mask[7], alone[7])


def test_a_negative_point_alone_ends_the_lesion_on_its_slice() -> None:
    negative = point(8, 20.5, 20.5, positive=False)
    mask, ends = grown(propagate(DarkSam(), ct(LESION), [BOX, negative]))
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [3, 4, 5, 6, 7]
    assert ends[8] == "prompt"


def point(k: int, x: float, y: float, *, positive: bool = True) -> SlicePrompts:
    return SlicePrompts(k, "tumour", points=(PointPrompt((x, y), positive=positive),))


BESIDE = (np.hypot(J - 20, COLUMN - 31) <= 3) & (abs(K - 7) <= 1)
"""A part of a lesion that its box does not hold."""


@pytest.mark.parametrize("k", [6, 7, 10], ids=["box's slice", "reached slice", "beyond the end"])
def test_a_positive_point_adds_and_takes_nothing_away(k: int) -> None:
    place = {6: (31.5, 20.5), 7: (31.5, 20.5), 10: (20.5, 20.5)}[k]
    volume, sam = ct(LESION, BESIDE), DarkSam()
    before, _ = grown(propagate(sam, volume, [BOX], allowed=IN_LIVER))
    prompts = [BOX, point(k, *place)]
    if k == 6:
        prompts = [replace(BOX, points=prompts[1].points)]
    after, _ = grown(propagate(sam, volume, prompts, allowed=IN_LIVER))
    assert not before[k, 20, int(place[0])]
    assert after[k, 20, int(place[0])]
    assert (after >= before).all()
    assert np.argwhere(after & ~before)[:, 0].tolist().count(k) > 4  # more than its pixel
    assert {(one.slice_index, one.points) for one in sam.asked} == {(6, ())}


@dataclass
class FickleSam(DarkSam):
    """Finds the lesion for one positive point, and only the last one's pixels for more."""

    def predict_logits(
        self, volume: Volume, prompt: SlicePrompts, monitor: Monitor | None = None
    ) -> Float32:
        logits = super().predict_logits(volume, prompt, monitor)
        if len(prompt.points) > 1:
            x, y = (int(n) for n in prompt.points[-1].xy)
            logits = np.full_like(logits, -5.0)
            logits[y - 1 : y + 2, x - 1 : x + 2] = 5.0
        return logits


@pytest.mark.parametrize("place", [(32.5, 10.5), (22.5, 20.5)], ids=["beyond", "within"])
def test_a_further_point_on_the_slice_that_a_lesion_begins_on_takes_nothing_away(
    place: tuple[float, float],
) -> None:
    volume, sam = ct(LESION, BESIDE), FickleSam()
    start = point(6, 20.5, 20.5)
    before, _ = grown(propagate(sam, volume, [start], allowed=IN_LIVER))
    both = replace(start, points=(*start.points, PointPrompt(place)))
    after, _ = grown(propagate(sam, volume, [both], allowed=IN_LIVER))
    assert overlap(before, LESION) > 0.6
    assert (after >= before).all()
    assert after[6, int(place[1]), int(place[0])]
    assert (after > before).any() == (place == (32.5, 10.5))
    assert {one.points for one in sam.asked} == {start.points}


def test_a_negative_point_on_the_slice_that_a_lesion_begins_on_takes_its_half_away() -> None:
    volume, sam = ct(LESION), FickleSam()
    start = point(6, 20.5, 20.5)
    points = *start.points, PointPrompt((20.5, 24.5), positive=False)
    before, _ = grown(propagate(sam, volume, [start], allowed=IN_LIVER))
    after, _ = grown(propagate(sam, volume, [replace(start, points=points)], allowed=IN_LIVER))
    assert {one.points for one in sam.asked} == {start.points}
    assert before[6, 11:26, 20].all()
    np.testing.assert_array_equal(np.flatnonzero(after[6, :, 20]), range(11, 23))  # up to 22.5
    assert not (after[6] & ~before[6]).any()


def test_a_negative_point_beside_a_lesion_takes_nothing_of_it_away() -> None:
    start = point(6, 20.5, 20.5)
    points = *start.points, PointPrompt((34.5, 20.5), positive=False)
    before, _ = grown(propagate(DarkSam(), ct(LESION), [start]))
    after, _ = grown(propagate(DarkSam(), ct(LESION), [replace(start, points=points)]))
    np.testing.assert_array_equal(after, before)


def test_positive_points_beside_a_negative_one_add_as_without_it() -> None:
    volume, sam = ct(LESION, BESIDE), FickleSam()
    further, taken = PointPrompt((32.5, 10.5)), PointPrompt((20.5, 24.5), positive=False)
    start = point(6, 20.5, 20.5)
    both = replace(start, points=(*start.points, taken, further))
    mask, _ = grown(propagate(sam, volume, [both], allowed=IN_LIVER))
    assert mask[6, 10, 32]
    assert not mask[6, 24, 20]


def test_the_middle_of_what_is_missing_on_a_slice_brings_most_of_it() -> None:
    lesion = LESION | BESIDE
    before, _ = grown(propagate(DarkSam(), ct(lesion), [BOX], allowed=IN_LIVER))
    prompts = [BOX, point(7, 31.5, 20.5)]
    after, _ = grown(propagate(DarkSam(), ct(lesion), prompts, allowed=IN_LIVER))
    missing = BESIDE & ~LESION & ~before
    assert (after & missing)[7].sum() > 0.6 * missing[7].sum() > 0
    assert overlap(after, lesion) > overlap(before, lesion)


def test_sam_which_finds_less_takes_nothing_from_a_lesion_with_a_positive_point() -> None:
    prompts = [BOX, point(8, 20.5, 20.5)]  # BlindSam finds nothing there
    before, _ = grown(propagate(BlindSam(), ct(LESION), [BOX], allowed=IN_LIVER))
    after, _ = grown(propagate(BlindSam(), ct(LESION), prompts, allowed=IN_LIVER))
    np.testing.assert_array_equal(after, before)  # it lies in the lesion already


def test_a_positive_point_takes_away_nothing_that_another_one_added() -> None:
    volume = ct(LESION, BESIDE)
    one, other = point(7, 31.5, 20.5), point(10, 20.5, 20.5)
    first, _ = grown(propagate(DarkSam(), volume, [BOX, one], allowed=IN_LIVER))
    both, _ = grown(propagate(DarkSam(), volume, [BOX, one, other], allowed=IN_LIVER))
    assert (both >= first).all()


def test_points_never_enter_what_is_not_allowed_or_was_taken_away() -> None:
    volume = ct(LESION, OTHER)
    allowed = IN_LIVER & ~OTHER
    alone, _ = grown(propagate(DarkSam(), volume, [BOX], allowed=allowed))
    within, _ = grown(propagate(DarkSam(), volume, [BOX, point(6 + 1, 34.5, 20.5)]))
    assert within[7, 20, 34]
    outside, _ = grown(
        propagate(DarkSam(), volume, [BOX, point(6 + 1, 34.5, 20.5)], allowed=allowed)
    )
    np.testing.assert_array_equal(outside, alone)
    taken = point(8, 20.5, 20.5, positive=False)
    prompts = [BOX, taken, point(9, 20.5, 20.5)]
    mask, _ = grown(propagate(DarkSam(), ct(LESION), prompts, allowed=IN_LIVER))
    assert not mask[8].any()


def test_prompts_that_are_not_of_one_lesion_are_refused() -> None:
    negative = point(6, 20.5, 20.5, positive=False)
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
    assert (mask & LESION).sum() > 0.8 * LESION.sum()


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
    assert overlap(mask, lesion & LIVER) > 0.85
    assert sorted(ends) == [4, 12]


class _Never:
    """SAM that must not be asked for whole volumes."""

    def predict(self, *_: object) -> dict[str, Float32]:
        raise AssertionError


def test_a_session_without_sam_says_so() -> None:
    session = Session(ct(), SessionModels(LIVER_TARGETS, None, _Never()))
    with pytest.raises(ConfigError, match="Growing needs SAM"):
        session.grow([BOX])
