"""Several networks of a stage are trained and averaged, one of them after the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aslseg.config import CpcSamConfig, SamConfig, ScSamConfig, SpecialistConfig
from aslseg.context import RunContext
from aslseg.data.volume import Volume
from aslseg.inference.cascade import Specialist, predict_roi
from aslseg.inference.loading import TrainedCascade, load_cascade, load_ensemble
from aslseg.networks.averaged import AveragedNetworks, TwoPasses, network_of
from aslseg.preprocessing.likelihood import likelihood_roi
from aslseg.preprocessing.roi import Roi
from aslseg.runs import start_run
from aslseg.steps import step_title
from aslseg.training import cascade
from aslseg.training.cascade import CascadeTrainingPlan, train_cascade
from aslseg.training.cross_fitting import cross_fitted_models
from aslseg.training.run_plan import planned_steps
from support.run_contexts import a_run_context
from support.tiny_project import SPECIALIST, a_patient, a_tiny_project, tiny_config
from support.whole_runs import (
    at_step,
    ensemble_with_small_sam,
    run_with_small_sam,
    stopped_and_resumed,
)

SHORT = SPECIALIST.model_copy(update={"iterations": 3})
THREE = SHORT.model_copy(update={"averaged_networks": 3})
TWICE = SHORT.model_copy(update={"second_pass": True, "target_shift_chance": 0.5})


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    torch.set_num_threads(1)
    return a_run_context(a_tiny_project(tmp_path), tiny_config(organ=THREE, lesion=SHORT))


def trained_in(context: RunContext, folder: Path, **changes: object) -> TrainedCascade:
    plan = CascadeTrainingPlan(folder, "supervised", {}, {})
    return train_cascade(context, replace(plan, **changes))  # type: ignore[arg-type]


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in network.state_dict().values()])


def liver_networks(trained: TrainedCascade) -> list[torch.Tensor]:
    found = trained.specialist.networks["liver"]
    assert isinstance(found, AveragedNetworks)
    return [weights(one) for one in found.networks]


def test_each_network_is_another_and_the_first_is_what_it_is_alone(
    context: RunContext, tmp_path: Path
) -> None:
    trained = trained_in(context, tmp_path / "three")
    first, second, third = liver_networks(trained)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert not isinstance(trained.specialist.networks["tumour"], AveragedNetworks)
    alone = trained_in(context, tmp_path / "alone", is_single=True)
    assert torch.equal(first, weights(alone.specialist.networks["liver"]))
    assert all(isinstance(one.networks["liver"], AveragedNetworks) for one in trained.earlier)


def test_a_specialist_predicts_the_mean_of_its_networks(
    context: RunContext, tmp_path: Path
) -> None:
    specialist = trained_in(context, tmp_path).specialist
    volume = a_patient(5)[0]
    single = [
        replace(
            specialist,
            networks={**specialist.networks, "liver": network_of(specialist.networks["liver"], n)},
        ).predict(volume)["liver"]
        for n in range(3)
    ]
    mean = torch.from_numpy(np.mean(single, axis=0))
    found = torch.from_numpy(specialist.predict(volume)["liver"])
    torch.testing.assert_close(found, mean, atol=1e-3, rtol=0.0)


def test_nothing_but_the_averaged_weights_stays(context: RunContext, tmp_path: Path) -> None:
    folder = tmp_path / "round"
    trained = trained_in(context, folder)
    of_stages = {f"specialist-{stage}" for stage in ("liver", "tumour")}
    found = {path.name.split(".")[0].removesuffix("of3") for path in folder.iterdir()}
    assert found == {name + part for name in of_stages for part in ("", "-1", "-2")}
    again = load_cascade(context, folder)
    for one, other in zip(liver_networks(trained), liver_networks(again), strict=True):
        assert torch.equal(one, other)


def test_cross_fitted_networks_are_single(context: RunContext, tmp_path: Path) -> None:
    models = cross_fitted_models(context, CascadeTrainingPlan(tmp_path, "supervised", {}, {}))
    assert set(models) == {"c0", "c1"}
    for model in models.values():
        assert not isinstance(model.specialist.networks["liver"], AveragedNetworks)


def test_each_network_goes_on_from_its_own_weights(context: RunContext, tmp_path: Path) -> None:
    before = trained_in(context, tmp_path / "before")
    later = trained_in(
        context, tmp_path / "later", start=before.specialist.networks, share=0.34, rate=1e-6
    )
    for one, other in zip(liver_networks(before), liver_networks(later), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0.0)


@pytest.mark.parametrize(
    ("organ", "task"),
    [(THREE, "specialist-liver-network-2"), (TWICE, "specialist-liver-second-pass")],
)
def test_a_run_that_is_stopped_among_its_networks_ends_like_one_that_was_not(
    tmp_path: Path, organ: SpecialistConfig, task: str
) -> None:
    config = tiny_config(organ=organ, lesion=SHORT, rounds=1, method="specialist")
    unbroken = start_run(a_tiny_project(tmp_path / "whole"), config)
    second = at_step(task, 0)
    resumed = stopped_and_resumed(a_tiny_project(tmp_path / "halted"), config, second)
    log = (resumed.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [e for e in map(json.loads, log) if e["event"] == "metric" and e["name"] == "loss"]
    assert [e["task"] for e in losses].count("specialist-liver") == 1  # not trained again
    for stage in ("liver", "tumour"):
        one, other = (
            weights(load_ensemble(run).specialist.networks[stage]) for run in (unbroken, resumed)
        )
        assert torch.equal(one, other)


def two_passes(context: RunContext) -> RunContext:
    return replace(context, config=context.config.model_copy(update={"organ": TWICE}))


def test_the_second_pass_of_an_organ_is_trained_after_the_first(
    context: RunContext, tmp_path: Path
) -> None:
    alone = trained_in(two_passes(context), tmp_path / "alone", is_single=True)
    trained = trained_in(two_passes(context), tmp_path / "both")
    network = trained.specialist.networks["liver"]
    assert isinstance(network, TwoPasses)
    assert torch.equal(weights(network.first_pass), weights(alone.specialist.networks["liver"]))
    assert not torch.equal(weights(network.first_pass), weights(network.second_pass))
    assert not isinstance(trained.specialist.networks["tumour"], TwoPasses)
    assert all(isinstance(one.networks["liver"], TwoPasses) for one in trained.earlier)
    left = {path.name for path in (tmp_path / "both").iterdir()}
    assert all(name.startswith("specialist-") for name in left)


def test_the_second_pass_is_given_likelihoods_and_the_mean_of_both_counts(
    context: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specialist = trained_in(two_passes(context), tmp_path).specialist
    network, volume = specialist.networks["liver"], a_patient(5)[0]
    stage = specialist.predict_stages(volume)[0]
    assert isinstance(network, TwoPasses)
    assert stage.roi is not None
    settings = specialist.config.organ
    first, second = (
        predict_roi(one, roi, settings, specialist.device)
        for one, roi in (
            (network.first_pass, stage.roi),
            (network.second_pass, _likely(network, stage.roi, volume, specialist)),
        )
    )
    assert np.abs(first - second).max() > 1e-3
    assert stage.classes is not None
    np.testing.assert_allclose(stage.classes, (first + second) / 2, atol=1e-5)


def _likely(network: TwoPasses, roi: Roi, volume: Volume, specialist: Specialist) -> Roi:
    found = predict_roi(network.first_pass, roi, specialist.config.organ, specialist.device)
    settings = specialist.config.organ.roi
    return likelihood_roi(roi, volume, found[1] > 0.5, settings, is_label=False)


@pytest.mark.parametrize("paradigm", ["supervised", "mean_teacher"])
def test_a_second_pass_learns_from_likelihoods(
    context: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paradigm: str
) -> None:
    """By labels where there are some, by what the first pass found where there are none."""
    seen: dict[str, dict[str, Roi]] = {}
    shifts: dict[str, float] = {}
    fit = cascade._fit

    def looking(context: Any, training: Any, method: Any, cases: Any) -> None:
        seen[training.name] = {case.case_id: case.roi for of in cases for case in of}
        shifts[training.name] = training.settings.target_shift_chance
        fit(context, training, method, cases)

    monkeypatch.setattr(cascade, "_fit", looking)
    trained = trained_in(two_passes(context), tmp_path, ssl_name=paradigm)
    network, settings = trained.specialist.networks["liver"], TWICE
    assert isinstance(network, TwoPasses)
    first, second = (seen[f"specialist-liver{name}"] for name in ("", "-second-pass"))
    assert (shifts["specialist-liver"], shifts["specialist-liver-second-pass"]) == (0.5, 0.0)
    assert len(second) == 2 + (len(context.unlabelled) if paradigm == "mean_teacher" else 0)
    for case_id, roi in first.items():
        if roi.labels is None:
            found = predict_roi(network.first_pass, roi, settings, context.device)[1] > 0.5
        else:
            found = roi.labels == 1
        volume = context.image(context.project.case(case_id))
        is_label = roi.labels is not None
        expected = likelihood_roi(roi, volume, found, settings.roi, is_label=is_label).image
        np.testing.assert_allclose(second[case_id].image, expected, atol=1e-5)


def test_each_pass_goes_on_from_its_own_weights(context: RunContext, tmp_path: Path) -> None:
    before = trained_in(two_passes(context), tmp_path / "before").specialist.networks
    changes = {"start": before, "share": 0.34, "rate": 1e-6}
    later = trained_in(two_passes(context), tmp_path / "later", **changes).specialist.networks
    for number in (0, 1):
        one, other = (weights(network_of(n["liver"], number)) for n in (before, later))
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0.0)


def test_a_plan_has_the_training_of_a_second_pass(tmp_path: Path) -> None:
    config = tiny_config(organ=TWICE, lesion=TWICE)
    steps = planned_steps(config, a_tiny_project(tmp_path))
    tasks = [s.task for s in steps if s.round == 1 and s.task.startswith("specialist-")]
    assert tasks[:3] == ["specialist-liver", "specialist-liver-second-pass", "specialist-tumour"]
    assert step_title(tasks[1]) == "specialist network, second pass: liver"


@pytest.mark.parametrize("method", ["aslseg", "semisam", "specialist"])
def test_a_plan_has_the_training_of_each_network(tmp_path: Path, method: str) -> None:
    config = tiny_config(organ=THREE, lesion=SHORT, method=method)
    steps = planned_steps(config, a_tiny_project(tmp_path))
    of_first = [s.task for s in steps if s.round == 1 and s.task.startswith("specialist-")]
    assert of_first[:4] == [
        "specialist-liver", "specialist-liver-network-2", "specialist-liver-network-3",
        "specialist-tumour",
    ]  # fmt: skip
    assert step_title("specialist-liver-network-2") == "specialist network 2: liver"


@pytest.mark.parametrize("method", ["scsam", "cpcsam"])
def test_methods_that_train_sam_along_have_one_network(tmp_path: Path, method: str) -> None:
    config = tiny_config(organ=THREE, lesion=SHORT, method=method)
    steps = planned_steps(config, a_tiny_project(tmp_path))
    assert not [step.task for step in steps if "-network-" in step.task]


OWN_SAM = {
    "scsam": {"scsam": ScSamConfig(input_size=128, gate=False)},
    "cpcsam": {"cpcsam": CpcSamConfig(input_size=128, rank=2)},
}


@pytest.mark.parametrize("method", OWN_SAM)
def test_a_network_that_sam_is_trained_with_is_single(tmp_path: Path, method: str) -> None:
    two = THREE.model_copy(update={"averaged_networks": 2, "batch_size": 2, "patch_size": 40})
    sam = SamConfig(model="vit_t")
    config = tiny_config(method=method, rounds=1, organ=two, lesion=two, sam=sam, **OWN_SAM[method])
    ensemble = ensemble_with_small_sam(run_with_small_sam(tmp_path, config))
    for network in ensemble.specialist.networks.values():
        assert not isinstance(network, AveragedNetworks)
