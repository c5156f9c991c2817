"""Specialists that never saw a case: how cases are divided, and that they are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from aslseg.context import RunContext
from aslseg.data.images import write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.events import Event, Monitor, Notice
from aslseg.project.project import Project
from aslseg.project.run_folder import create_run
from aslseg.training.cascade import CascadeTrainingPlan
from aslseg.training.cross_fitting import OutOfFoldModels, cross_fitted_models, folds_of
from tiny_project import a_tiny_project, tiny_config


def a_context(
    project: Project, share: float = 0.5, listener: list[Event] | None = None
) -> RunContext:
    torch.set_num_threads(1)
    events = [] if listener is None else listener
    config = tiny_config(crossfit_share=share)
    run = create_run(project.folder, config)
    return RunContext(project, config, run, torch.device("cpu"), Monitor(events.append))


def trained_in(context: RunContext, folder: Path) -> OutOfFoldModels:
    return cross_fitted_models(
        context, CascadeTrainingPlan(folder, context.config.paradigm, {}, {})
    )


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in network.state_dict().values()])


def test_every_case_is_in_one_of_two_groups_of_near_equal_size() -> None:
    assert folds_of(["a", "b", "c", "d", "e"]) == [{"a", "c", "e"}, {"b", "d"}]
    assert folds_of(["a", "b"]) == [{"a"}, {"b"}]


def test_a_single_case_cannot_be_divided() -> None:
    assert folds_of(["a"]) == []
    assert folds_of([]) == []


def test_an_out_of_fold_model_does_not_depend_on_the_label_of_its_case(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    before = trained_in(a_context(project), tmp_path / "before")
    case = project.case("c0")
    labels = project.load_labels(case)
    mirrored = np.ascontiguousarray(labels.labels[:, ::-1])
    write_labelmap(Labelmap(mirrored, labels.geometry), project.label_path(case))
    after = trained_in(a_context(project), tmp_path / "after")
    for stage in ("liver", "tumour"):
        of_changed, of_other = (
            tuple(weights(models[case_id].specialist.networks[stage]) for models in (before, after))
            for case_id in ("c0", "c1")
        )
        assert torch.equal(*of_changed)
        assert not torch.equal(*of_other)


def test_weights_that_are_there_are_read_and_not_trained_again(tmp_path: Path) -> None:
    context = a_context(a_tiny_project(tmp_path))
    first = trained_in(context, tmp_path / "weights")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "weights").rglob("*.safe*")}
    again = trained_in(context, tmp_path / "weights")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    torch.testing.assert_close(
        weights(first["c0"].specialist.networks["liver"]),
        weights(again["c0"].specialist.networks["liver"]),
    )


def test_a_share_of_zero_trains_none(tmp_path: Path) -> None:
    assert trained_in(a_context(a_tiny_project(tmp_path), share=0.0), tmp_path / "weights") == {}
    assert not (tmp_path / "weights").exists()


def test_a_group_whose_other_cases_show_no_tumour_has_no_out_of_fold_model(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    case = project.case("c1")
    labels = project.load_labels(case)
    write_labelmap(
        Labelmap(np.minimum(labels.labels, 1), labels.geometry), project.label_path(case)
    )
    events: list[Event] = []
    out_of_fold_models = trained_in(a_context(project, listener=events), tmp_path / "weights")
    assert set(out_of_fold_models) == {"c1"}
    told = [event.message for event in events if isinstance(event, Notice)]
    assert any("c0" in message and "tumour" in message for message in told)
