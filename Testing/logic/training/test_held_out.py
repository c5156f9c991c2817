"""What is predicted of labelled cases without their labels: once, kept as it was, and forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aslseg.context import LabelledVolume, RunContext, labelled_volume
from aslseg.inference import cascade
from aslseg.inference.cascade import Specialist, all_targets
from aslseg.inference.loading import TrainedCascade
from aslseg.networks.unet import build_network
from aslseg.targets import cascade_stages
from aslseg.training import held_out
from aslseg.training.cascade import scheduled
from aslseg.training.cross_fitting import OutOfFoldModel, forget_predictions
from aslseg.training.held_out import predict_held_out, predict_sam_held_out
from support.run_contexts import a_run_context
from support.sam_doubles import a_small_sam
from support.tiny_project import a_tiny_project, tiny_config


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return a_run_context(a_tiny_project(tmp_path), tiny_config())


@pytest.fixture
def model(context: RunContext, tmp_path: Path) -> OutOfFoldModel:
    torch.manual_seed(0)
    networks = {
        stage.name: build_network(stage, scheduled(context.config, stage)).eval()
        for stage in cascade_stages(context.targets)
    }
    specialist = Specialist(networks, context.targets, context.config, context.device)
    return OutOfFoldModel(TrainedCascade(specialist, ()), frozenset({"c0"}), tmp_path / "fold")


@pytest.fixture
def labelled(context: RunContext) -> LabelledVolume:
    return labelled_volume(context, context.project.case("c0"))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The networks that were run, one after the other."""
    found: list[object] = []
    predict = cascade.predict_roi

    def counted(network: object, *given: Any) -> Any:
        found.append(network)
        return predict(network, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(cascade, "predict_roi", counted)
    return found


def test_networks_run_once_and_give_the_same_bits_again(
    context: RunContext, model: OutOfFoldModel, labelled: LabelledVolume, runs: list[object]
) -> None:
    first = predict_held_out(context, model, labelled)
    assert runs == list(model.specialist.networks.values())
    again = predict_held_out(context, model, labelled)
    assert len(runs) == 2
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.classes, other.classes)
        assert one.probabilities.keys() == other.probabilities.keys()
        for name, values in one.probabilities.items():
            np.testing.assert_array_equal(values, other.probabilities[name])
    assert all_targets(first)["tumour"].any()


def test_another_mask_of_the_organ_is_predicted_anew(
    context: RunContext, model: OutOfFoldModel, labelled: LabelledVolume, runs: list[object]
) -> None:
    predict_held_out(context, model, labelled)
    mask = np.zeros(labelled.volume.geometry.shape, bool)
    mask[2:8, 8:30, 8:30] = True
    given = replace(labelled, volume=replace(labelled.volume, given={"liver": mask}))
    found = predict_held_out(context, model, given)
    assert runs == [*model.specialist.networks.values(), model.specialist.networks["tumour"]]
    np.testing.assert_array_equal(all_targets(found)["liver"], mask)


def test_sam_is_asked_once_and_what_it_said_is_read_again(
    context: RunContext,
    model: OutOfFoldModel,
    labelled: LabelledVolume,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = labelled.volume.geometry.shape
    specialist = {name: np.zeros(shape, np.float32) for name in ("liver", "tumour")}
    said = {name: np.zeros(shape, np.float32) for name in specialist}
    said["liver"][1:4, 5:9, 7:8] = np.random.default_rng(0).random((3, 4, 1), np.float32)
    asked = []

    def answer(*given: object) -> Any:
        asked.append(given[0])
        return said

    monkeypatch.setattr(held_out, "sam_probabilities_of", answer)
    sam = a_small_sam()
    for _ in range(2):
        found = predict_sam_held_out(context, model, labelled, specialist, sam)
        assert list(found) == ["liver", "tumour"]
        for name, values in said.items():
            np.testing.assert_array_equal(found[name], values)
    assert asked == [sam]


def test_what_was_predicted_is_forgotten(
    context: RunContext, model: OutOfFoldModel, labelled: LabelledVolume, runs: list[object]
) -> None:
    predict_held_out(context, model, labelled)
    assert any(model.kept.rglob("*.npy"))
    forget_predictions({"c0": model})
    assert not model.kept.exists()
    predict_held_out(context, model, labelled)
    assert len(runs) == 4
