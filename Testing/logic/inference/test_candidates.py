"""Lesion candidates: what is proposed, how it is measured, what is kept."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from aslseg.config import CandidatesConfig
from aslseg.data.masks import within_reach
from aslseg.data.volume import Float32, Geometry, Mask, Volume
from aslseg.errors import WeightsError
from aslseg.inference import candidates as candidates_module
from aslseg.inference.candidates import (
    FEATURES,
    MOST_CANDIDATES,
    Candidates,
    Evidence,
    _depth,
    _zones,
    find_candidates,
)
from aslseg.inference.cascade import Specialist, StagePrediction
from aslseg.inference.lesion_classifier import (
    LEAST_THRESHOLD,
    MOST_THRESHOLD,
    HeldOutScores,
    LesionClassifier,
    fixed_rule,
    load_classifier,
    rule_log_odds,
    save_classifier,
)
from aslseg.inference.lesion_stage import (
    OUTLINED,
    ClassifiedCandidates,
    LesionStage,
    _splinters,
    candidate_map,
    candidates_of,
)
from aslseg.preprocessing.roi import build_roi
from aslseg.targets import LIVER_TARGETS, Target, cascade_stages, lesion_targets
from support.tiny_project import tiny_config

SHAPE = (10, 40, 40)
GEOMETRY = Geometry.axis_aligned(SHAPE, (4.0, 2.0, 2.0))  # a voxel has 0.016 ml
SETTINGS = CandidatesConfig(threshold=0.3, margin_mm=5.0)
LARGE = (slice(3, 7), slice(8, 14), slice(8, 14))  # 144 voxels
SMALL = (slice(4, 6), slice(25, 27), slice(25, 28))  # 12 voxels


def a_map(*boxes: tuple[tuple[slice, slice, slice], float]) -> Float32:
    values = np.zeros(SHAPE, np.float32)
    for box, probability in boxes:
        values[box] = probability
    return values


def a_volume() -> Volume:
    """Return a parent of 100 +- 10 HU with a dark large lesion and a bright small one."""
    voxels = np.random.default_rng(0).normal(100.0, 10.0, SHAPE).astype(np.float32)
    voxels[LARGE] -= 50.0
    voxels[SMALL] += 30.0
    return Volume(voxels, GEOMETRY)


PARENT = np.ones(SHAPE, bool)


def found(specialist: Float32, **others: object) -> Candidates:
    evidence = Evidence(specialist, PARENT, **others)  # type: ignore[arg-type]
    return find_candidates(evidence, a_volume(), "tumour", SETTINGS, 0.03)


BOTH = a_map((LARGE, 0.95), (SMALL, 0.4))


def feature(candidates: Candidates, name: str) -> list[float]:
    values: list[float] = candidates.features[:, FEATURES.index(name)].tolist()
    return values


def classified(
    candidates: Candidates, *probability: float, threshold: float = 0.5
) -> ClassifiedCandidates:
    return ClassifiedCandidates(candidates, np.array(probability), threshold)


def test_lesions_are_what_lies_in_a_parent_and_holds_nothing() -> None:
    core = Target(name="core", value=3, inside="tumour")
    assert lesion_targets(LIVER_TARGETS) == [LIVER_TARGETS[1]]
    assert lesion_targets((*LIVER_TARGETS, core)) == [core]
    assert lesion_targets(LIVER_TARGETS[:1]) == []


def test_components_are_numbered_by_size_and_measured_on_the_grid_of_the_volume() -> None:
    candidates = found(BOTH)
    assert candidates.volume_ml.tolist() == pytest.approx([144 * 0.016, 12 * 0.016])
    assert candidates.centres_kji[0].tolist() == pytest.approx([4.5, 10.5, 10.5])
    cores = candidates.core_map()
    assert (cores[LARGE] == 1).all()
    assert (cores[SMALL] == 2).all()
    assert int((cores > 0).sum()) == 156
    assert feature(candidates, "peak") == pytest.approx([math.log(19), math.log(2 / 3)], abs=1e-4)
    assert feature(candidates, "volume")[1] == pytest.approx(math.log(12 * 0.016))


def test_a_core_is_what_has_half_of_the_peak() -> None:
    values = BOTH.copy()
    values[3, 8:14, 8:14] = 0.4  # above the threshold, below half of 0.95
    candidates = found(values)
    assert candidates.volume_ml[0] == pytest.approx(108 * 0.016)
    assert not candidates.core_map()[3].any()
    assert (candidates.zone_map()[3, 8:14, 8:14] == 1).all()


def test_lesions_that_doubt_joins_are_candidates_of_their_own() -> None:
    bridge = (slice(4, 6), slice(10, 12), slice(14, 20))
    near = (slice(3, 7), slice(8, 14), slice(20, 26))
    candidates = found(a_map((LARGE, 0.95), (bridge, 0.35), (near, 0.6)))
    assert candidates.volume_ml.tolist() == pytest.approx([144 * 0.016, 144 * 0.016])
    assert feature(candidates, "peak") == pytest.approx([math.log(19), math.log(1.5)], abs=1e-4)
    cores, zones = candidates.core_map(), candidates.zone_map()
    assert not cores[bridge].any()
    assert (zones[4:6, 10:12, 14:16] == 1).all()
    assert (zones[4:6, 10:12, 18:20] == 2).all()
    assert (zones[near] == 2).all()


def test_specks_and_what_is_below_the_threshold_are_not_proposed() -> None:
    assert len(found(a_map((LARGE, 0.29)))) == 0
    speck = (slice(4, 5), slice(25, 26), slice(25, 26))  # 0.016 ml
    assert len(found(a_map((LARGE, 0.9), (speck, 0.9)))) == 1
    assert len(found(a_map((speck, 0.9)))) == 0


def test_features_tell_dark_from_bright_and_long_from_round() -> None:
    long = (slice(4, 5), slice(2, 3), slice(10, 30))
    candidates = found(a_map((LARGE, 0.9), (SMALL, 0.9), (long, 0.9)))
    contrast, elongation = feature(candidates, "contrast"), feature(candidates, "elongation")
    assert contrast[0] == pytest.approx(-5.0, abs=0.6)
    assert contrast[2] == pytest.approx(3.0, abs=0.8)
    # A row of n voxels of 2 mm has a variance of 4 (n^2 - 1) / 12 + 4 / 12 along itself.
    expected = math.log(math.sqrt((4 * 399 / 12 + 4 / 12) / (4 / 12)))
    assert elongation[1] == pytest.approx(expected)
    box_over_ellipsoid = 6 / math.pi / (5 / 3) ** 1.5  # a box and its ellipsoid of equal moments
    assert feature(candidates, "fill")[0] == pytest.approx(box_over_ellipsoid)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (5.0, 0.8, 0.8)])
@pytest.mark.parametrize("voxels", [1, 14 * 400, candidates_module.ZONE_VOXELS])
def test_zones_are_those_of_the_whole_distance_transform_in_whatever_blocks(
    spacing_mm: tuple[float, float, float], voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates_module, "ZONE_VOXELS", voxels)
    rng = np.random.default_rng(0)
    regions = np.zeros((30, 20, 20), np.uint8)
    for number in range(1, 12):  # with ties: spacings and distances are whole multiples
        k, row, column = rng.integers(0, (30, 20, 20))
        regions[k : k + 2, row : row + 3, column : column + 1] = number
    distance, nearest = ndimage.distance_transform_edt(
        regions == 0, sampling=spacing_mm, return_indices=True
    )
    expected = np.where(distance <= 5.0, regions[tuple(nearest)], 0)
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(_zones(regions, 5.0, spacing_mm), expected)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 1.0])
def test_depth_is_that_of_the_whole_organs_distance_transform(share: float) -> None:
    rng, spacing_mm = np.random.default_rng(0), (2.0, 0.7, 0.9)
    organ = ndimage.binary_dilation(rng.random((9, 12, 14)) < share, iterations=2)
    within, candidates = (slice(2, 7), slice(1, 9), slice(3, 12)), rng.random((5, 8, 9)) > 0.5
    framed = np.pad(organ, 1, constant_values=not organ.all())
    whole = ndimage.distance_transform_edt(framed, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    expected = (whole[within] * candidates).astype(np.float32)
    np.testing.assert_array_equal(_depth(organ, within, candidates, spacing_mm), expected)


def test_depth_is_the_distance_to_the_border_of_the_parent() -> None:
    parent = np.zeros(SHAPE, bool)
    parent[:, 4:36, 4:36] = True
    deep = find_candidates(Evidence(BOTH, parent), a_volume(), "tumour", SETTINGS, 0.03)
    # The large one reaches column 13; the first outside of the parent is 3: 10 pixels of 2 mm.
    assert feature(deep, "depth")[0] == pytest.approx(math.log1p(20.0))


def test_without_sam_and_earlier_weights_their_features_are_unknown() -> None:
    candidates = found(BOTH)
    for name in ("earlier_peak", "sam_overlap", "sam_stability"):
        assert np.isnan(feature(candidates, name)).all()
    assert np.isfinite(candidates.features[:, :7]).all()


def test_sam_and_earlier_weights_propose_and_are_measured() -> None:
    sam = a_map((LARGE, 0.65))  # above the lenient limit of 0.27, below the strict one of 0.73
    earlier = (a_map((SMALL, 0.9)), a_map((SMALL, 0.5)))
    candidates = found(a_map((LARGE, 0.2)), sam=sam, earlier=earlier)
    assert len(candidates) == 2
    assert feature(candidates, "sam_overlap") == pytest.approx([1.0, 0.0])
    assert feature(candidates, "sam_stability") == pytest.approx([0.0, 0.0])
    assert feature(candidates, "earlier_peak")[1] == pytest.approx((math.log(9) + 0.0) / 2)
    steady = found(a_map((LARGE, 0.9)), sam=a_map((LARGE, 0.99)))
    assert feature(steady, "sam_stability") == [1.0]


def test_only_accepted_candidates_and_their_surroundings_stay() -> None:
    refined = a_map((LARGE, 0.8), (SMALL, 0.7))
    refined[8, 30:38, 2:8] = 0.9  # far from any candidate
    refined[3:7, 14, 8:14] = 0.6  # 2 mm beside the large one
    one = classified(found(BOTH), 0.9, 0.2)
    kept = one.effect(refined).apply(refined)
    assert (kept[LARGE] == np.float32(0.8)).all()
    assert (kept[3:7, 14, 8:14] == np.float32(0.6)).all()
    assert not kept[SMALL].any()
    assert not kept[8].any()


def test_of_an_accepted_candidate_the_largest_part_alone_stays() -> None:
    refined = a_map((LARGE, 0.8), (SMALL, 0.7))
    refined[3:7, 16, 8:14] = 0.6  # apart from the large one, in its zone
    refined[3:7, 14, 8:14] = 0.3  # no voxel of a lesion, as low as that
    kept = classified(found(BOTH), 0.9, 0.9).effect(refined).apply(refined)
    assert (kept[LARGE] == np.float32(0.8)).all()
    assert (kept[SMALL] == np.float32(0.7)).all()
    assert not kept[3:7, 16, 8:14].any()
    assert (kept[3:7, 14, 8:14] == np.float32(0.3)).all()


def test_parts_are_counted_in_each_zone_by_itself() -> None:
    zones = np.zeros((1, 1, 12), np.uint8)
    zones[..., :6], zones[..., 6:] = 1, MOST_CANDIDATES
    mask = np.array([[[1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0, 0]]], bool)
    splinters = _splinters(mask, zones)
    assert np.flatnonzero(splinters).tolist() == [0, 5, 9]
    assert not _splinters(mask, np.zeros_like(zones)).any()


def test_an_accepted_candidate_that_the_refined_map_lacks_gets_its_core() -> None:
    refined = a_map((LARGE, 0.8), (SMALL, 0.1))
    effect = classified(found(BOTH), 0.9, 0.9).effect(refined)
    kept = effect.apply(refined)
    assert (kept[SMALL] == np.float32(OUTLINED)).all()
    assert (kept[LARGE] == np.float32(0.8)).all()
    np.testing.assert_array_equal(effect.apply(refined[4], 4), kept[4])
    spared = np.ones(refined.shape[1:], np.bool_)
    assert not (effect.apply(refined[4], 4, spared=spared)[25:27, 25:28] > 0.5).any()


def test_an_accepted_candidate_is_all_of_its_core() -> None:
    refined = a_map((LARGE, 0.8), (SMALL, 0.7))
    refined[3:5, 8:14, 8:14] = 0.4  # some of the large one, below one half
    both, core = classified(found(BOTH), 0.9, 0.9), found(BOTH).core_map() > 0
    assert (both.effect(refined).apply(refined)[3:5, 8:14, 8:14] == np.float32(0.4)).all()
    whole = replace(both, whole_cores=True).effect(refined).apply(refined)
    assert (whole[core] >= np.float32(OUTLINED)).all()
    rejected = replace(classified(found(BOTH), 0.2, 0.9), whole_cores=True)
    assert not rejected.effect(refined).apply(refined)[LARGE].any()


def test_without_candidates_nothing_stays() -> None:
    refined = a_map((LARGE, 0.8))
    nothing = classified(found(np.zeros(SHAPE, np.float32)))
    assert not nothing.effect(refined).apply(refined).any()


def test_candidates_near_the_threshold_are_doubtful() -> None:
    one = classified(found(BOTH), 0.6, 0.95, threshold=0.5)
    assert one.doubtful(1.0).tolist() == [True, False]  # log-odds of 0.41 and 2.94
    assert one.doubtful(0.0).tolist() == [False, False]


def test_numbers_in_the_map_go_on_over_targets() -> None:
    first, second = classified(found(BOTH), 1, 1), classified(found(a_map((SMALL, 0.9))), 1)
    numbers = candidate_map({"tumour": first, "cyst": second}, SHAPE)
    assert set(np.unique(numbers)) == {0, 1, 3}  # the cyst lies over number 2


# --- The stage --------------------------------------------------------------------------------

CONFIG = tiny_config(candidates=SETTINGS)
OF_TUMOUR = cascade_stages(LIVER_TARGETS)[1]


def predicted(specialist: Float32, parent: Mask = PARENT) -> StagePrediction:
    roi = build_roi(a_volume(), OF_TUMOUR, CONFIG.lesion, parent=parent)
    return StagePrediction(OF_TUMOUR, roi, None, parent, {"tumour": specialist})


@pytest.mark.parametrize(("with_sam", "count"), [(True, 2), (False, 1)])
def test_sam_proposes_and_is_a_feature_only_in_a_stage_that_was_trained_with_it(
    with_sam: bool, count: int
) -> None:
    stage = LesionStage({"tumour": fixed_rule()}, (), LIVER_TARGETS, CONFIG, with_sam)
    sam = {"tumour": a_map((SMALL, 0.9))}
    candidates = stage.classify(a_volume(), [predicted(a_map((LARGE, 0.9)))], sam)["tumour"].found
    assert len(candidates) == count
    assert np.isnan(feature(candidates, "sam_overlap")).all() != with_sam


@pytest.mark.parametrize(("widened", "accepted"), [(0, False), (1, True)])
def test_a_candidate_that_is_most_of_its_parent_is_in_doubt(widened: int, accepted: bool) -> None:
    parent = np.zeros(SHAPE, bool)
    parent[2:8, 8 - widened : 14 + widened, 8 - widened : 14 + widened] = True  # 216 or 384 voxels
    stage = LesionStage({"tumour": fixed_rule()}, (), LIVER_TARGETS, CONFIG)
    one = stage.classify(a_volume(), [predicted(a_map((LARGE, 0.99)), parent)], {})["tumour"]
    assert len(one.found) == 1
    assert one.accepted.tolist() == [accepted]
    assert one.doubtful(0.1).tolist() == [not accepted]


class TumourEverywhere(nn.Module):
    """A network that is sure of a tumour in each pixel."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = torch.zeros(len(inputs), 2, *inputs.shape[2:])
        logits[:, 1] = 3.0
        return logits


def test_earlier_weights_propose_within_reach_of_the_parent_alone() -> None:
    parent = np.zeros(SHAPE, bool)
    parent[2:8, 15:25, 15:25] = True
    device = torch.device("cpu")
    earlier = Specialist({OF_TUMOUR.name: TumourEverywhere()}, LIVER_TARGETS, CONFIG, device)
    stages = [predicted(np.zeros(SHAPE, np.float32), parent)]
    found = candidates_of(a_volume(), stages, None, [earlier], LIVER_TARGETS, CONFIG)["tumour"]
    assert feature(found, "earlier_peak") == pytest.approx([3.0], abs=1e-4)
    np.testing.assert_array_equal(found.core_map() > 0, within_reach(parent, a_volume()))


# --- The rule, and the threshold -------------------------------------------------------------


def features_of(*rows: dict[str, float]) -> np.ndarray:
    values = np.full((len(rows), len(FEATURES)), np.nan)
    for row, known in zip(values, rows, strict=True):
        for name, value in known.items():
            row[FEATURES.index(name)] = value
    return values


@pytest.mark.parametrize(
    ("peak", "ml", "stays"),
    [(0.91, 0.16, True), (0.89, 0.16, False), (0.91, 0.14, False), (0.99, 20.0, True)],
)
def test_the_rule_keeps_what_has_the_peak_and_the_volume(
    peak: float, ml: float, stays: bool
) -> None:
    features = features_of({"peak": math.log(peak / (1 - peak)), "volume": math.log(ml)})
    probability = fixed_rule().of_features(features, SETTINGS)
    assert (float(probability[0]) > fixed_rule().threshold(SETTINGS)) == stays
    assert (float(rule_log_odds(features, SETTINGS)[0]) > 0) == stays


@pytest.mark.parametrize(
    ("false_per_case", "expected"),
    [
        pytest.param(0.0, (0.9 + 0.8) / 2, id="none: between 0.8 (false) and 0.9 (true)"),
        pytest.param(0.5, (0.7 + 0.6) / 2, id="one in two cases: between 0.6 and 0.7 (true)"),
        pytest.param(1.0, (0.4 + 0.6) / 2, id="two: between 0.4 and 0.6"),
        pytest.param(2.0, LEAST_THRESHOLD, id="more than there are"),
    ],
)
def test_the_threshold_lets_so_many_false_candidates_through(
    false_per_case: float, expected: float
) -> None:
    probability = np.array([0.9, 0.8, 0.7, 0.6, 0.4])
    scores = HeldOutScores(probability, np.array([True, False, True, False, False]), cases=2)
    assert scores.threshold(false_per_case) == pytest.approx(expected)


@pytest.mark.parametrize("is_lesion_that_fills", [True, False])
def test_what_fills_its_parent_has_no_say_in_the_threshold(is_lesion_that_fills: bool) -> None:
    probability, is_lesion = np.array([0.8, 0.6, 0.3]), np.array([True, False, True])
    without = HeldOutScores(probability, is_lesion, cases=1).threshold(0.0)
    assert without == pytest.approx(0.7)
    probability = np.append(probability, [0.7, 0.65])
    is_lesion = np.append(is_lesion, [is_lesion_that_fills] * 2)
    fills_parent = np.array([False] * 3 + [True] * 2)
    scores = HeldOutScores(probability, is_lesion, 1, fills_parent=fills_parent)
    assert scores.threshold(0.0) == without
    assert scores.threshold(1.0) == LEAST_THRESHOLD


@pytest.mark.parametrize(("patients", "share"), [(2, 2 / 6), (4, 4 / 8), (0, 1.0)])
def test_the_threshold_of_few_patients_is_nearer_to_that_of_the_rule(
    patients: int, share: float
) -> None:
    probability, is_lesion = np.array([0.95, 0.9, 0.9]), np.array([True, False, False])
    whole = HeldOutScores(probability, is_lesion, cases=2)
    assert whole.threshold(0.0) == MOST_THRESHOLD
    drawn = HeldOutScores(probability, is_lesion, cases=2, patients=patients).threshold(0.0)
    assert math.log(drawn / (1 - drawn)) == pytest.approx(share * math.log(9))


def test_a_stored_classifier_is_read_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fills_parent = np.arange(5) == 3
    held_out = HeldOutScores(rng.random(5), rng.random(5) > 0.5, 2, 2, fills_parent)
    n = len(FEATURES)
    weights, centre = rng.normal(size=(2, n))
    before = LesionClassifier(weights, 0.3, centre, np.ones(n), held_out, least_threshold=0.85)
    save_classifier(tmp_path / "c.safetensors", before, SETTINGS)
    after = load_classifier(tmp_path / "c.safetensors")
    features = rng.normal(size=(4, n))
    np.testing.assert_allclose(
        before.of_features(features, SETTINGS), after.of_features(features, SETTINGS)
    )
    assert after.threshold(SETTINGS) == before.threshold(SETTINGS) == 0.85
    assert after.held_out is not None
    assert after.held_out.patients == 2
    assert after.held_out.fills_parent is not None
    assert after.held_out.fills_parent.tolist() == fills_parent.tolist()


def test_a_classifier_of_other_features_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classifier(tmp_path / "c.safetensors", fixed_rule(), SETTINGS)
    monkeypatch.setattr("aslseg.inference.lesion_classifier.FEATURES", (*FEATURES, "colour"))
    with pytest.raises(WeightsError, match="other features than this version measures; delete"):
        load_classifier(tmp_path / "c.safetensors")
