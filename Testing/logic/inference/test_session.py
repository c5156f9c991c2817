"""A session: proposed prompts, a person's in their place, one slice at once or the whole volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import aslseg.inference.interactive.session as session_start
from aslseg.config import RunConfig, SamConfig
from aslseg.data.images import read_labelmap, read_volume
from aslseg.data.volume import Geometry, Labelmap, Mask, Volume
from aslseg.errors import ConfigError
from aslseg.evaluation.metrics import dice
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities, StagePrediction
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.interactive.prompt_edits import merge, with_mask_prompt
from aslseg.inference.interactive.session import Session, SessionModels
from aslseg.inference.lesion_classifier import fixed_rule
from aslseg.inference.lesion_stage import LesionStage
from aslseg.inference.refinement import Refiner
from aslseg.networks.adaptation import AdaptationNetwork, FusionWeights, build_adaptation
from aslseg.prompts import (
    BoxPrompt,
    PointPrompt,
    SlicePrompts,
    box_around,
    prompts_from_mask,
    propose_prompts,
)
from aslseg.targets import LIVER_TARGETS, Target, cascade_stages
from support.tiny_project import GEOMETRY, a_patient, ball, tiny_config

LIVER = ball((6, 20, 20), 11)
TUMOUR = ball((6, 15, 20), 4) & LIVER
OTHER = ball((6, 26, 20), 3)
"""A lesion that the specialist misses."""

CONFIG = tiny_config(sam=SamConfig(model="vit_t", input_size=256))


class FixedSpecialist:
    """Predicts given masks, with 0.9 inside and 0.1 outside."""

    def __init__(self, **masks: Mask) -> None:
        self.masks = masks
        self.calls = 0

    def predict_stages(self, _: Volume, __: Monitor | None = None) -> list[StagePrediction]:
        self.calls += 1
        found = {name: np.where(m, 0.9, 0.1).astype(np.float32) for name, m in self.masks.items()}
        return [
            StagePrediction(
                stage,
                None,
                None,
                None if stage.inside is None else self.masks[stage.inside.name],
                {target.name: found[target.name] for target in stage.targets},
            )
            for stage in cascade_stages(LIVER_TARGETS)
        ]


class BoxSam:
    """Predicts the whole of a box, and the five by five pixels around a positive click."""

    def __init__(self) -> None:
        self.slices: list[int] = []

    def propose_prompts(
        self, _: Volume, probabilities: Probabilities, targets: Sequence[Target]
    ) -> list[SlicePrompts]:
        return propose_prompts(probabilities, targets, CONFIG.sam)

    def predict(
        self, volume: Volume, prompts: Sequence[SlicePrompts], _: Monitor | None = None
    ) -> Probabilities:
        found: Probabilities = {}
        for prompt in prompts:
            self.slices.append(prompt.slice_index)
            empty = np.zeros(volume.geometry.shape, np.float32)
            plane = found.setdefault(prompt.target, empty)[prompt.slice_index]
            if prompt.box is not None:
                left, top, right, bottom = (round(edge) for edge in prompt.box.xyxy)
                plane[top:bottom, left:right] = 0.95
            for point in prompt.points if prompt.box is None else ():
                x, y = int(point.xy[0]), int(point.xy[1])
                plane[y - 2 : y + 3, x - 2 : x + 3] = 0.95 if point.positive else 0.0
        return found


def networks(sam_weight: float, correction: float) -> dict[str, AdaptationNetwork]:
    made = {}
    for stage in cascade_stages(LIVER_TARGETS):
        for target in stage.targets:
            made[target.name] = build_adaptation(stage, CONFIG)
            made[target.name].set_fusion_weights(FusionWeights(sam_weight, correction))
    return made


def a_session(
    sam_weight: float = 0.0,
    correction: float = 0.0,
    sam: BoxSam | None = None,
    proposes: bool = True,
    lesion_stage: LesionStage | None = None,
) -> Session:
    """A session about one patient; by default the refined label is the specialist's."""
    volume, _ = a_patient(0)
    sam = sam or BoxSam()
    specialist = FixedSpecialist(liver=LIVER, tumour=TUMOUR)
    refiner = Refiner(networks(sam_weight, correction), LIVER_TARGETS, CONFIG)
    ensemble = Ensemble(
        specialist,  # type: ignore[arg-type]
        sam if proposes else None,
        refiner,
        LIVER_TARGETS,
        CONFIG,
        lesion_stage,
    )
    session = Session(volume, SessionModels(LIVER_TARGETS, ensemble, sam))
    session.predict()
    return session


def box(k: int, target: str, *xyxy: float) -> SlicePrompts:
    left, top, right, bottom = xyxy
    return SlicePrompts(k, target, box=BoxPrompt((left, top, right, bottom)))


def click(k: int, target: str, x: float, y: float, positive: bool = True) -> SlicePrompts:
    return SlicePrompts(k, target, points=(PointPrompt((x, y), positive),))


def without_mask(prompts: Sequence[SlicePrompts]) -> list[SlicePrompts]:
    """Prompts as they come back from JSON."""
    return [SlicePrompts.from_json(prompt.to_json()) for prompt in prompts]


# --- Which prompts count ----------------------------------------------------------------------


def test_handing_back_what_was_proposed_changes_nothing() -> None:
    proposed = prompts_from_mask(LIVER, target="liver")
    found = merge(proposed, without_mask(proposed))
    assert [state.in_force for state in found.values()] == [(p,) for p in proposed]
    assert not any(state.is_edited for state in found.values())


def test_a_persons_prompts_replace_those_of_their_slice_and_target_alone() -> None:
    proposed = [
        box(3, "liver", 1, 1, 9, 9),
        box(3, "tumour", 2, 2, 4, 4),
        box(4, "tumour", 2, 2, 4, 4),
    ]
    user = box(3, "tumour", 5, 5, 8, 8)
    found = merge(proposed, [user])
    assert found[3, "tumour"].user == (user,)
    assert found[3, "tumour"].removed == (proposed[1],)
    assert found[3, "liver"].proposed == (proposed[0],)
    assert found[4, "tumour"].proposed == (proposed[2],)


def test_one_of_two_proposed_boxes_moved_leaves_the_other_as_proposed() -> None:
    proposed = [box(3, "tumour", 2, 2, 4, 4), box(3, "tumour", 6, 6, 9, 9)]
    moved = box(3, "tumour", 2, 2, 5, 4)
    found = merge(proposed, [moved, *without_mask(proposed[1:])])[3, "tumour"]
    assert (found.proposed, found.user, found.removed) == ((proposed[1],), (moved,), (proposed[0],))


def test_in_edited_slices_the_given_prompts_are_all_that_counts() -> None:
    proposed = [
        box(3, "liver", 1, 1, 9, 9),
        box(3, "tumour", 2, 2, 4, 4),
        box(4, "liver", 1, 1, 9, 9),
    ]
    found = merge(proposed, without_mask(proposed[:1]), edited_slices=[3])
    assert found[3, "liver"].proposed == (proposed[0],)
    assert found[3, "tumour"].in_force == ()
    assert found[3, "tumour"].removed == (proposed[1],)
    assert found[4, "liver"].proposed == (proposed[2],)


# --- The first prediction -----------------------------------------------------------------------


def test_the_first_prediction_is_that_of_the_ensemble() -> None:
    session = a_session(sam_weight=0.5)
    ensemble = session.models.ensemble
    assert ensemble is not None
    expected = ensemble.segment(session.volume)
    result = session.prediction
    assert result.specialist is not None
    assert result.sam is not None
    assert expected.sam is not None
    assert result.refined is not None
    np.testing.assert_array_equal(result.specialist.labels, expected.specialist.labels)
    np.testing.assert_array_equal(result.sam.labels, expected.sam.labels)
    np.testing.assert_array_equal(result.refined.labels, expected.refined.labels)
    assert len(result.prompts) == len(expected.prompts) == len(session.proposed)


def test_disagreement_is_largest_where_one_model_alone_predicts_a_target() -> None:
    result = a_session().prediction
    plane = result.disagreement[6]
    assert plane[19, 30] <= 10  # specialist 0.9, SAM 0.95: in the liver for both
    corner_of_box = np.argwhere(~LIVER[6] & (plane > 50))
    assert len(corner_of_box) > 0  # SAM fills its boxes, the specialist's liver is round
    assert plane[0, 0] <= 10
    assert result.disagreement.dtype == np.uint8


# --- A person's prompts -------------------------------------------------------------------------


def test_a_box_of_a_person_is_found_by_sam_and_in_the_refined_label() -> None:
    session = a_session()
    result = session.refine([box(6, "tumour", 18, 24, 23, 29)], 6)
    assert result.slice_index == 6
    assert result.sam is not None
    assert result.refined is not None
    assert result.specialist is None
    assert result.refined.labels.shape == (1, 40, 40)
    assert result.refined.labels[0, 26, 20] == 2
    assert result.sam.labels[0, 26, 20] == 2
    before = session.prediction.refined
    assert before is not None
    assert before.labels[6, 26, 20] == 1


def test_a_slice_lies_where_it_lies_in_the_volume() -> None:
    result = a_session().refine([box(7, "tumour", 18, 24, 23, 29)], 7)
    assert result.refined is not None
    expected = GEOMETRY.ijk_to_ras @ np.array([3.0, 5.0, 7.0, 1.0])
    found = result.refined.geometry.ijk_to_ras @ np.array([3.0, 5.0, 0.0, 1.0])
    np.testing.assert_allclose(found, expected)


def test_what_a_person_removed_is_gone_from_the_refined_label() -> None:
    session = a_session()
    liver = without_mask([p for p in session.proposed if (p.slice_index, p.target) == (6, "liver")])
    result = session.refine(liver, 6, edited_slices=[6])
    assert result.refined is not None
    assert not (result.refined.labels == 2).any()
    assert result.refined.labels[0, 15, 20] == 1


def test_withdrawing_a_prompt_brings_the_first_prediction_back() -> None:
    session = a_session(sam_weight=0.5)
    first = session.prediction.refined
    assert first is not None
    session.refine([box(6, "tumour", 18, 24, 23, 29)], 6)
    again = session.refine([], 6)
    assert again.refined is not None
    np.testing.assert_array_equal(again.refined.labels[0], first.labels[6])
    assert {p.component for p in again.prompts} == {0}


@pytest.mark.parametrize(("sam_weight", "correction"), [(0.0, 0.0), (0.5, 0.0), (0.5, 1.0)])
def test_a_slice_is_predicted_like_the_whole_volume(sam_weight: float, correction: float) -> None:
    session = a_session(sam_weight, correction)
    user = [box(6, "tumour", 17, 23, 24, 29), box(5, "tumour", 17, 23, 24, 29)]
    for k in (5, 6):
        thin = session.refine(user, k)
    whole = session.refine(user)
    for source in ("sam", "refined"):
        one, all_of_it = getattr(thin, source), getattr(whole, source)
        np.testing.assert_array_equal(one.labels[0], all_of_it.labels[6])
    np.testing.assert_allclose(thin.disagreement[0], whole.disagreement[6], atol=1)
    assert whole.slice_index is None
    assert whole.specialist is not None


def rule_of_peak(peak: float) -> LesionStage:
    settings = CONFIG.candidates.model_copy(update={"rule_peak": peak, "margin_mm": 2.0})
    config = CONFIG.model_copy(update={"candidates": settings})
    return LesionStage({"tumour": fixed_rule()}, (), LIVER_TARGETS, config)


def tumour_of(labelmap: Labelmap | None) -> Mask:
    assert labelmap is not None
    found: Mask = labelmap.labels == 2
    return found


def test_a_rejected_lesion_is_in_the_specialists_label_and_not_in_the_refined_one() -> None:
    kept, rejected = (a_session(lesion_stage=rule_of_peak(p)).prediction for p in (0.8, 0.95))
    np.testing.assert_array_equal(tumour_of(kept.specialist), tumour_of(rejected.specialist))
    np.testing.assert_array_equal(tumour_of(kept.refined), tumour_of(kept.specialist))
    assert tumour_of(kept.refined).any()
    assert not tumour_of(rejected.refined).any()
    assert rejected.disagreement[TUMOUR].min() > 80


def test_what_a_person_marks_is_not_rejected_in_the_slice_or_in_the_volume() -> None:
    session = a_session(lesion_stage=rule_of_peak(0.95))
    user = [box(6, "tumour", 17, 14, 22, 18)]
    thin, whole = session.refine(user, 6), session.refine(user)
    assert thin.refined is not None
    assert whole.refined is not None
    marked = tumour_of(whole.refined)
    assert marked[6, 14:18, 17:22].all()
    assert not marked[[5, 7]].any()
    np.testing.assert_array_equal(thin.refined.labels[0], whole.refined.labels[6])
    assert not tumour_of(session.refine([]).refined).any()


def test_only_slices_whose_prompts_changed_are_predicted_again() -> None:
    sam = BoxSam()
    session = a_session(sam=sam)
    sam.slices.clear()
    user = [box(6, "tumour", 18, 24, 23, 29)]
    session.refine(user)
    assert set(sam.slices) == {6}
    sam.slices.clear()
    session.refine([replace(user[0])])
    assert sam.slices == []


def test_predicting_a_slice_leaves_edits_of_others_for_later() -> None:
    sam = BoxSam()
    session = a_session(sam=sam)
    sam.slices.clear()
    user = [box(6, "tumour", 18, 24, 23, 29), box(7, "tumour", 18, 24, 23, 29)]
    session.refine(user, 6)
    assert set(sam.slices) == {6}
    whole = session.refine(user)
    assert set(sam.slices) == {6, 7}
    assert whole.refined is not None
    assert (whole.refined.labels[[6, 7], 26, 20] == 2).all()


def test_a_network_that_contradicts_a_click_is_overruled() -> None:
    session = a_session(sam_weight=0.0, correction=1.0)
    ensemble = session.models.ensemble
    assert ensemble is not None
    assert isinstance(ensemble.refiner, Refiner)
    ensemble.refiner.networks["tumour"].head.bias.data.fill_(-20.0)  # denies every tumour
    by_box = session.refine([box(6, "tumour", 18, 24, 23, 29)], 6)
    assert by_box.refined is not None
    assert not (by_box.refined.labels == 2).any()
    by_click = session.refine([click(6, "tumour", 20.5, 26.5)], 6)
    assert by_click.refined is not None
    assert by_click.refined.labels[0, 26, 20] == 2
    assert by_click.unmet_clicks == ()


def test_a_prompted_tumour_belongs_to_its_liver() -> None:
    session = a_session()
    k, row, column = 6, 20, 33  # two pixels beside the liver, which ends at column 31
    assert not LIVER[k, row, column]
    result = session.refine([box(k, "tumour", 29, 17, 37, 24)], k)
    assert result.refined is not None
    assert result.refined.labels[0, row, column] == 2


def test_a_click_that_the_label_does_not_follow_is_told() -> None:
    session = a_session()
    far = box(0, "tumour", 1, 1, 6, 6)  # no liver is near
    user = [replace(far, points=(PointPrompt((3.5, 3.5)),))]
    for result in (session.refine(user, 0), session.refine(user)):
        assert len(result.unmet_clicks) == 1
        assert "point for tumour on slice 0" in result.unmet_clicks[0]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (box(40, "liver", 1, 1, 5, 5), "lies on slice 40, the volume has 0 to 11"),
        (box(6, "spleen", 1, 1, 5, 5), "'spleen', which is no target; choose one of liver, tumour"),
        (click(6, "liver", 70, 3), "lies outside of the image"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(prompt: SlicePrompts, words: str) -> None:
    session = a_session()
    with pytest.raises(ConfigError, match=words):
        session.refine([prompt])


def test_a_slice_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no slice 12; the volume has 0 to 11"):
        a_session().refine([], 12)


# --- A mask prompt for SAM -----------------------------------------------------------------------


def a_spot(radius_px: float, hu: float) -> Volume:
    """A disc of some HU around (12.5, 20.5) of slice 3, in tissue of 100 HU; 1 mm pixels."""
    voxels = np.full((8, 48, 48), 100, np.int16)
    rows, columns = np.indices((48, 48))
    voxels[3, np.hypot(rows - 20, columns - 12) <= radius_px] = hu
    return Volume(voxels, Geometry.axis_aligned((8, 48, 48), (5.0, 1.0, 1.0)))


def mask_of(prompt: SlicePrompts) -> Mask:
    assert prompt.mask_logits is not None
    mask: Mask = prompt.mask_logits > 0
    return mask


def test_a_click_is_completed_by_what_looks_like_the_place() -> None:
    volume = a_spot(6, 30)
    completed = with_mask_prompt(click(3, "tumour", 12.5, 20.5), volume, (), is_parent=False)
    disc = volume.voxels[3] == 30
    assert dice(mask_of(completed), disc) > 0.85
    assert completed.box is not None
    left, top, right, bottom = completed.box.xyxy
    assert (left, right) == pytest.approx((12.5 - 8.5, 12.5 + 8.5), abs=1.5)
    assert (top, bottom) == pytest.approx((20.5 - 8.5, 20.5 + 8.5), abs=1.5)
    assert completed.points == (PointPrompt((12.5, 20.5)),)


def test_a_guess_reaches_no_further_than_two_and_a_half_centimetres() -> None:
    volume = a_spot(0, 100)
    found = mask_of(with_mask_prompt(click(3, "tumour", 1.5, 1.5), volume, (), is_parent=False))
    assert found[1, 25]
    assert not found[1, 28]


def test_an_organ_is_not_grown_from_a_click() -> None:
    given = click(3, "liver", 12.5, 20.5)
    assert with_mask_prompt(given, a_spot(6, 30), (), is_parent=True) is given


def test_a_box_is_completed_by_what_was_proposed_in_it() -> None:
    volume = a_spot(0, 100)
    mask = np.zeros((48, 48), bool)
    mask[10:20, 10:30] = True
    proposed = prompts_from_mask(mask, target="liver")
    completed = with_mask_prompt(box(3, "liver", 5, 5, 20, 40), volume, proposed, is_parent=True)
    expected = mask.copy()
    expected[:, 20:] = False
    np.testing.assert_array_equal(mask_of(completed), expected)
    assert completed.box == BoxPrompt((5, 5, 20, 40))


def test_a_click_in_a_box_counts_more_than_what_was_proposed() -> None:
    mask = np.zeros((48, 48), bool)
    mask[0:4, 0:4] = True
    proposed = prompts_from_mask(mask, target="tumour")
    both = replace(box(3, "tumour", 0, 0, 25, 40), points=(PointPrompt((12.5, 20.5)),))
    found = mask_of(with_mask_prompt(both, a_spot(6, 30), proposed, is_parent=False))
    assert found[20, 12]
    assert not found[2, 2]


def test_what_looks_like_a_negative_click_is_left_out() -> None:
    volume = a_spot(6, 30)
    whole = box(3, "tumour", 0, 0, 40, 40)
    mask = np.zeros((48, 48), bool)
    mask[10:30, 5:40] = True
    proposed = prompts_from_mask(mask, target="tumour")
    points = (PointPrompt((12.5, 20.5), positive=False),)
    found = mask_of(
        with_mask_prompt(replace(whole, points=points), volume, proposed, is_parent=False)
    )
    assert not found[20, 12]
    assert found[12, 38]


# --- Without parts of the ensemble --------------------------------------------------------------


def test_sam_alone_predicts_from_a_persons_prompts_and_nothing_else() -> None:
    volume, _ = a_patient(0)
    session = Session(volume, SessionModels(LIVER_TARGETS, None, BoxSam()))
    assert (session.prediction.specialist, session.prediction.sam, session.prediction.refined) == (
        None,
    ) * 3
    thin = session.refine([box(6, "tumour", 18, 24, 23, 29)], 6)
    assert thin.refined is None
    assert thin.sam is not None
    assert (thin.sam.labels == 2).sum() == 5 * 5
    assert (thin.sam.labels == 1).sum() == 0
    user = [box(6, "tumour", 18, 24, 23, 29), box(6, "liver", 10, 10, 30, 30)]
    whole = session.refine(user)
    assert whole.sam is not None
    assert (whole.sam.labels == 2).sum() == 5 * 5
    assert (whole.sam.labels == 1).sum() == 20 * 20 - 5 * 5
    gone = session.refine([])
    assert gone.sam is None


def test_a_run_without_sam_uses_released_sam_for_prompts() -> None:
    session = a_session(proposes=False)
    assert session.proposed == ()
    assert session.prediction.sam is None
    result = session.refine([box(6, "tumour", 18, 24, 23, 29)], 6)
    assert result.refined is not None
    assert result.refined.labels[0, 26, 20] == 2
    whole = session.refine([box(6, "tumour", 18, 24, 23, 29)])
    assert whole.refined is not None
    assert whole.refined.labels[6, 26, 20] == 2


def test_prompts_need_a_sam() -> None:
    session = a_session(proposes=False)
    session.models = SessionModels(LIVER_TARGETS, session.models.ensemble, None)
    with pytest.raises(ConfigError, match="works without SAM"):
        session.refine([box(6, "tumour", 18, 24, 23, 29)])


def test_released_sam_is_loaded_at_its_first_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[RunConfig] = []

    def build(config: RunConfig, *_: object) -> BoxSam:
        built.append(config)
        return BoxSam()

    monkeypatch.setattr(session_start, "build_sam_predictor", build)
    models = session_start.models_without_run(LIVER_TARGETS, SamConfig(tuning="lora"), tmp_path)
    volume, _ = a_patient(0)
    session = Session(volume, models)
    assert built == []
    session.refine([box(6, "tumour", 18, 24, 23, 29)], 6)
    session.refine([box(7, "tumour", 18, 24, 23, 29)], 7)
    assert [config.sam.tuning for config in built] == ["none"]


@pytest.mark.slow
def test_real_sam_alone_finds_the_liver_that_is_boxed(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASLSEG_WEIGHTS", str(shared_folder / "weights"))
    data = shared_folder / "data" / "chaos_ct_liver"
    volume = read_volume(data / "ct.nii.gz")
    truth = read_labelmap(data / "liver_gt.nii.gz").labels > 0
    k = int(truth.sum(axis=(1, 2)).argmax())
    models = session_start.models_without_run(LIVER_TARGETS, SamConfig(), tmp_path)
    boxed = SlicePrompts(k, "liver", box=box_around(truth[k], 3))
    result = Session(volume, models).refine([boxed], k)
    assert result.sam is not None
    assert result.sam.geometry.shape == (1, 512, 512)
    assert dice(result.sam.labels[0] == 1, truth[k]) > 0.8
