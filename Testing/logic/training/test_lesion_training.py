"""Training of the lesion stage: what is a lesion, how far the classifier moves from the rule."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aslseg.config import CandidatesConfig
from aslseg.context import RunContext
from aslseg.data.images import write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.evaluation.metrics import dice
from aslseg.inference.candidates import FEATURES, Evidence, find_candidates
from aslseg.inference.cascade import Specialist
from aslseg.inference.lesion_classifier import (
    HeldOutScores,
    classifier_path,
    fixed_rule,
    load_classifier,
    save_classifier,
)
from aslseg.inference.loading import TrainedCascade
from aslseg.methods.aslseg import training_plan_of
from aslseg.networks.unet import build_network
from aslseg.project.run_tables import read_cross_validation, read_table
from aslseg.targets import cascade_stages, region_mask
from aslseg.training import lesion_training
from aslseg.training.cascade import default_ssl_method, scheduled, train_cascade
from aslseg.training.cross_fitting import OutOfFoldModel, cross_fitted_models
from aslseg.training.lesion_training import (
    CaseCandidates,
    are_lesions,
    fit_classifier,
    train_lesion_stage,
)
from aslseg.training.rounds import Round
from support.run_contexts import a_run_context
from support.tiny_project import GEOMETRY, a_patient, a_tiny_project, ball, tiny_config

SETTINGS = CandidatesConfig()
CONTRAST = FEATURES.index("contrast")


def case_of(name: str, features: np.ndarray, is_lesion: np.ndarray) -> CaseCandidates:
    """Return candidates of 10 voxels each, all of which are true in lesions, and nothing else."""
    voxels = np.full(len(is_lesion), 10)
    true_voxels = voxels * is_lesion
    none = np.zeros(len(is_lesion), bool)
    return CaseCandidates(
        name, name, features, is_lesion, voxels, true_voxels, int(true_voxels.sum()), none
    )


def a_case(
    name: str, lesions: int, mistakes: int, contrast: float, seed: int = 0
) -> CaseCandidates:
    """Return candidates on the border of the rule, of which lesions have another contrast."""
    rng = np.random.default_rng([seed, len(name)])
    features = rng.normal(0.0, 0.3, (lesions + mistakes, len(FEATURES)))
    features[:, FEATURES.index("peak")] = math.log(9)
    features[:, FEATURES.index("volume")] = math.log(0.15)
    is_lesion = np.arange(lesions + mistakes) < lesions
    features[is_lesion, CONTRAST] -= contrast
    return case_of(name, features, is_lesion)


def test_a_feature_that_tells_lesions_from_mistakes_gets_a_weight() -> None:
    cases = [a_case("a" * n, 6, 6, 2.0) for n in range(1, 7)]
    classifier = fit_classifier(cases, SETTINGS)
    assert classifier.weights[CONTRAST] < -0.3
    assert np.argmax(np.abs(classifier.weights)) == CONTRAST
    probability = classifier.of_features(cases[0].features, SETTINGS)
    assert probability[:6].min() > probability[6:].max()


def test_candidates_of_few_patients_move_the_classifier_less_from_the_rule() -> None:
    whole = [a_case("a", 8, 8, 2.0), a_case("bb", 8, 8, 2.0)]
    parts = [
        case_of(f"{case.patient}{n}", case.features[n::4], case.is_lesion[n::4])
        for case in whole
        for n in range(4)
    ]
    two, eight = fit_classifier(whole, SETTINGS), fit_classifier(parts, SETTINGS)
    assert np.abs(two.weights).max() > 0.1
    np.testing.assert_allclose(eight.weights, 2 * two.weights, rtol=1e-3, atol=1e-3)
    assert eight.bias == pytest.approx(2 * two.bias, abs=1e-3)


def test_two_patients_whose_surest_candidates_are_mistakes_do_not_turn_the_rule_round() -> None:
    cases = [a_case("a", 6, 20, 0.0), a_case("bb", 6, 20, 0.0)]
    for case in cases:
        case.features[~case.is_lesion, FEATURES.index("peak")] += 3.0
    classifier = fit_classifier(cases, SETTINGS)
    sure = np.tile(np.median(cases[0].features, axis=0), (2, 1))
    sure[:, FEATURES.index("volume")] = math.log(5.0)
    sure[:, FEATURES.index("peak")] = [math.log(9) - 1, math.log(9) + 2]
    less, more = classifier.of_features(sure, SETTINGS)
    assert more > less


def test_a_narrow_prior_keeps_the_rule() -> None:
    cases = [a_case("a", 6, 6, 2.0), a_case("bb", 6, 6, 2.0)]
    narrow = SETTINGS.model_copy(update={"prior_sd": 1e-4})
    assert np.abs(fit_classifier(cases, narrow).weights).max() < 1e-3


def test_each_case_is_scored_by_a_classifier_that_did_not_see_it() -> None:
    cases = [a_case("a", 5, 5, 2.0), a_case("bb", 5, 5, 2.0)]
    held_out = fit_classifier(cases, SETTINGS).held_out
    assert isinstance(held_out, HeldOutScores)
    assert (held_out.cases, len(held_out.probability)) == (2, 20)
    swapped = case_of("a", cases[0].features, ~cases[0].is_lesion)
    other = fit_classifier([swapped, cases[1]], SETTINGS).held_out
    assert isinstance(other, HeldOutScores)
    np.testing.assert_allclose(held_out.probability[:10], other.probability[:10])
    assert np.abs(held_out.probability[10:] - other.probability[10:]).max() > 0.05


def test_a_surest_mistake_that_fills_its_parent_leaves_the_threshold_as_it_is() -> None:
    cases = [a_case("a", 5, 5, 2.0), a_case("bb", 5, 5, 2.0)]
    none_false = SETTINGS.model_copy(update={"false_per_case": 0.0})
    for case in cases:
        case.features[5] = case.features[0]  # a mistake that looks like a lesion, but larger
        case.features[5, FEATURES.index("volume")] += 2.0
    counted = fit_classifier(cases, none_false)
    vast = np.arange(10) == 5
    never = fit_classifier([replace(case, fills_parent=vast) for case in cases], none_false)
    assert counted.held_out is not None
    assert never.held_out is not None
    np.testing.assert_array_equal(never.held_out.probability, counted.held_out.probability)
    assert never.threshold(none_false) < counted.threshold(none_false)


def test_two_cases_of_one_patient_do_not_score_each_other() -> None:
    first, second, other = a_case("a", 5, 5, 2.0), a_case("bb", 5, 5, 2.0), a_case("ccc", 5, 5, 2.0)
    second = replace(second, patient="a")
    held_out = fit_classifier([first, second, other], SETTINGS).held_out
    alone = fit_classifier([first, other], SETTINGS).held_out
    assert held_out is not None
    assert alone is not None
    np.testing.assert_allclose(held_out.probability[:10], alone.probability[:10])
    assert fit_classifier([first, second], SETTINGS).held_out is None


def test_the_dice_of_a_case_counts_accepted_candidates_and_all_of_the_truth() -> None:
    case = replace(a_case("a", 1, 1, 2.0), true_voxels=np.array([8, 0]), all_true=30)
    assert case.dice(np.array([True, False])) == pytest.approx(2 * 8 / (10 + 30))
    assert case.dice(np.array([True, True])) == pytest.approx(2 * 8 / (20 + 30))
    assert case.dice(np.array([False, False])) == 0.0
    assert replace(case, all_true=0).dice(np.array([False, False])) == 1.0


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_cases_leave_the_rule(count: int) -> None:
    classifier = fit_classifier([a_case("a", 5, 5, 2.0)][:count], SETTINGS)
    assert not classifier.weights.any()
    assert classifier.held_out is None


def test_cases_without_a_candidate_are_no_trouble() -> None:
    nothing = case_of("n", np.zeros((0, len(FEATURES))), np.zeros(0, bool))
    classifier = fit_classifier([nothing, replace(nothing, patient="m")], SETTINGS)
    assert not classifier.weights.any()
    assert classifier.threshold(SETTINGS) > 0
    classifier = fit_classifier([nothing, a_case("a", 3, 3, 1.0)], SETTINGS)
    assert np.isfinite(classifier.weights).all()


def test_features_that_are_unknown_everywhere_get_no_weight() -> None:
    cases = [a_case("a", 5, 5, 2.0), a_case("bb", 5, 5, 2.0)]
    for case in cases:
        case.features[:, -2:] = np.nan
    classifier = fit_classifier(cases, SETTINGS)
    assert not classifier.weights[-2:].any()
    assert np.isfinite(classifier.of_features(cases[0].features, SETTINGS)).all()


def test_a_candidate_is_a_lesion_from_a_tenth_of_its_core() -> None:
    volume, _ = a_patient(0)
    found = ball((6, 12, 20), 4) | ball((6, 27, 20), 4)
    evidence = Evidence(found.astype(np.float32), np.ones(found.shape, bool))
    candidates = find_candidates(evidence, volume, "tumour", SETTINGS, 0.03)
    truth = np.zeros(found.shape, bool)
    size = int(ball((6, 12, 20), 4).sum())
    first, second = (np.argwhere(ball((6, row, 20), 4)) for row in (12, 27))
    truth[tuple(first[: math.ceil(size / 10)].T)] = True
    truth[tuple(second[: math.ceil(size / 10) - 1].T)] = True
    rows = candidates.centres_kji[:, 1]
    found_true = zip(rows.round().tolist(), are_lesions(candidates, truth).tolist(), strict=True)
    assert dict(found_true) == {12.0: True, 27.0: False}


def a_context(folder: Path, **changes: object) -> RunContext:
    torch.set_num_threads(1)
    return a_run_context(a_tiny_project(folder), tiny_config(**changes))


@pytest.mark.slow
def test_the_stage_is_trained_on_mistakes_of_models_that_did_not_see_a_case(
    tmp_path: Path,
) -> None:
    """The label of a case changes which of its candidates are true, not how they look."""
    seen = []
    for n in range(2):
        context = a_context(tmp_path / str(n), crossfit_share=1.0)
        if n:
            case = context.project.case("c0")
            labels = np.minimum(a_patient(0)[1].labels, 1)
            labels[ball((6, 24, 20), 4)] = 2
            write_labelmap(Labelmap(labels, GEOMETRY), context.project.label_path(case))
        this = Round(1, context.folder.round(1), context.folder.round(1))
        plan = training_plan_of(context, this, default_ssl_method)
        models = cross_fitted_models(context, plan)
        trained = train_cascade(context, plan)
        stage = train_lesion_stage(context, plan.folder, trained.earlier, models)
        assert stage is not None
        loaded = load_classifier(plan.folder / "candidates-tumour.safetensors")
        assert loaded.held_out is not None
        assert stage.classifiers["tumour"].held_out is not None
        rows = read_table(plan.folder / "cross_validation.csv")
        assert {(row["case"], row["target"]) for row in rows} == {
            (case, target) for case in ("c0", "c1") for target in ("liver", "tumour")
        }
        mean = sum(float(row["dice"]) for row in rows) / 4
        assert read_cross_validation(plan.folder) == pytest.approx(mean)
        seen.append(models["c0"].specialist.predict(context.image(context.project.case("c0"))))
    np.testing.assert_array_equal(seen[0]["tumour"], seen[1]["tumour"])


def test_where_all_candidates_are_kept_labels_are_scored_as_they_are_and_no_sam_is_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = a_context(tmp_path, candidates=CandidatesConfig(decide="none"))
    monkeypatch.setattr(lesion_training, "cross_fitted_sam", None)  # which cannot be called
    torch.manual_seed(0)
    networks = {
        stage.name: build_network(stage, scheduled(context.config, stage)).eval()
        for stage in cascade_stages(context.targets)
    }
    specialist = Specialist(networks, context.targets, context.config, context.device)
    fold = frozenset(case.id for case in context.labelled)
    model = OutOfFoldModel(TrainedCascade(specialist, ()), fold, tmp_path)
    models = dict.fromkeys(fold, model)
    assert train_lesion_stage(context, tmp_path, (), models, with_sam=True) is None
    found = {
        (row["case"], row["target"]): float(row["dice"])
        for row in read_table(tmp_path / "cross_validation.csv")
    }
    expected = {}
    for case in context.labelled:
        labels = specialist.segment(context.image(case)).labels, context.labels(case).labels
        for target in context.targets:
            masks = (region_mask(each, target, context.targets) for each in labels)
            expected[case.id, target.name] = dice(*masks)
    assert found == pytest.approx(expected, abs=5e-5)
    assert min(found.values()) > 0


class SureEverywhere(nn.Module):
    """A network that is sure of its target in each pixel."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = torch.zeros(len(inputs), 2, *inputs.shape[2:])
        logits[:, 1] = 5.0
        return logits


def test_a_candidate_that_is_most_of_its_parent_is_accepted_in_no_held_out_case(
    tmp_path: Path,
) -> None:
    context = a_context(tmp_path, candidates=CandidatesConfig(decide="rule"))
    networks = {stage.name: SureEverywhere() for stage in cascade_stages(context.targets)}
    specialist = Specialist(networks, context.targets, context.config, context.device)
    fold = frozenset(case.id for case in context.labelled)
    models = dict.fromkeys(fold, OutOfFoldModel(TrainedCascade(specialist, ()), fold, tmp_path))
    stage = train_lesion_stage(context, tmp_path, (), models)
    assert stage is not None
    volume = context.image(context.labelled[0])
    classified = stage.classify(volume, specialist.predict_stages(volume), {})["tumour"]
    assert classified.accepted.tolist() == [False]
    rows = read_table(tmp_path / "cross_validation.csv")
    assert [float(row["dice"]) for row in rows if row["target"] == "tumour"] == [0.0, 0.0]


def test_the_rule_alone_needs_no_training_and_no_file(tmp_path: Path) -> None:
    context = a_context(tmp_path, candidates=CandidatesConfig(decide="rule"))
    stage = train_lesion_stage(context, tmp_path / "none", (), {})
    assert stage is not None
    assert not stage.classifiers["tumour"].weights.any()
    assert not (tmp_path / "none").exists()


def test_methods_decide_about_no_candidates_unless_asked(tmp_path: Path) -> None:
    context = a_context(tmp_path, method="specialist")
    assert train_lesion_stage(context, tmp_path / "none", (), {}) is None
    assert fixed_rule().threshold(SETTINGS) == 0.5


@pytest.mark.parametrize(("labels_changed", "threshold"), [(False, 0.7), (True, 0.5)])
def test_a_later_round_accepts_no_more_freely_than_the_one_before_it(
    tmp_path: Path, labels_changed: bool, threshold: float
) -> None:
    context = a_context(tmp_path)
    if labels_changed:
        context.folder.write_status(retrained_rounds=[1, 2])
    strict = replace(fixed_rule(), least_threshold=0.7)
    for number in (1, 2):
        context.folder.round(number).mkdir()
    tumour = context.targets[1]
    save_classifier(classifier_path(context.folder.round(1), tumour), strict, SETTINGS)
    stage = train_lesion_stage(context, context.folder.round(2), (), {})
    assert stage is not None
    assert stage.classifiers["tumour"].threshold(SETTINGS) == pytest.approx(threshold)
