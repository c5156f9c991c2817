"""Specialists that never saw a case: how cases are divided, and that they are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from aslseg.config import CandidatesConfig
from aslseg.context import RunContext
from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.events import Event, Notice
from aslseg.inference.cascade import Specialist
from aslseg.inference.loading import TrainedCascade, load_cascade
from aslseg.project.project import Project
from aslseg.training.cascade import CascadeTrainingPlan
from aslseg.training.cross_fitting import OutOfFoldModels, cross_fitted_models, folds_of
from aslseg.training.fold_labels import FoldLabelling, label_without_fold
from aslseg.training.pseudo_label import PseudoLabel
from support.run_contexts import a_run_context
from support.tiny_project import a_tiny_project, tiny_config


def a_context(
    project: Project, share: float = 0.5, listener: list[Event] | None = None
) -> RunContext:
    torch.set_num_threads(1)
    events = [] if listener is None else listener
    config = tiny_config(crossfit_share=share)
    return a_run_context(project, config, listener=events.append)


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


def two_rounds(project: Project, change: int) -> tuple[RunContext, OutOfFoldModels]:
    """Train out-of-fold models of two rounds on pseudo-labels of c2 that a change is added to."""
    events: list[Event] = []
    config = tiny_config(crossfit_share=1.0, candidates=CandidatesConfig(decide="rule"))
    context = a_run_context(project, config, listener=events.append)
    run = context.folder
    trained_in(context, run.round(1))
    truth = project.load_labels(project.case("c0"))
    pseudo = Labelmap(np.roll(truth.labels, change, axis=2), truth.geometry)
    path = run.round(1) / "pseudo" / "c2.nii.gz"
    write_labelmap(pseudo, path)
    accepted = {"c2": PseudoLabel(path, frozenset({"liver", "tumour"}))}
    plan = CascadeTrainingPlan(run.round(2), config.paradigm, accepted, {})
    return context, cross_fitted_models(context, plan)


def test_a_later_out_of_fold_model_learns_nothing_that_others_made_of_the_label_of_its_case(
    tmp_path: Path,
) -> None:
    project = a_tiny_project(tmp_path)
    _, before = two_rounds(project, 0)
    case = project.case("c0")
    labels = project.load_labels(case)
    mirrored = np.ascontiguousarray(labels.labels[:, ::-1])
    write_labelmap(Labelmap(mirrored, labels.geometry), project.label_path(case))
    context, after = two_rounds(project, 5)
    for stage in ("liver", "tumour"):
        first, second = (weights(m["c0"].specialist.networks[stage]) for m in (before, after))
        assert torch.equal(first, second)
    assert not torch.equal(
        *(weights(models["c1"].specialist.networks["liver"]) for models in (before, after))
    )
    made = context.folder.round(2) / "crossfit" / "without-group-1" / "pseudo"
    known = load_cascade(context, context.folder.round(1) / "crossfit" / "without-group-1")
    own = known.specialist.segment(project.load_image(project.case("c2")))
    found = read_labelmap(made / "c2.nii.gz").labels
    np.testing.assert_array_equal(found == 1, own.labels == 1)
    assert (found == 1).any()


def test_a_later_out_of_fold_model_without_a_predecessor_learns_from_labels_alone(
    tmp_path: Path,
) -> None:
    project = a_tiny_project(tmp_path)
    context = a_context(project)
    accepted = {"c2": PseudoLabel(tmp_path / "nowhere.nii.gz", frozenset({"liver", "tumour"}))}
    plan = CascadeTrainingPlan(context.folder.round(2), context.config.paradigm, accepted, {})
    models = cross_fitted_models(context, plan)
    alone = trained_in(a_context(project), tmp_path / "alone")
    of_both = (weights(m["c0"].specialist.networks["liver"]) for m in (models, alone))
    torch.testing.assert_close(*of_both)


class SureNetwork(torch.nn.Module):
    """A network that is sure of its target in each pixel, or of there being none."""

    def __init__(self, *, finds: bool) -> None:
        super().__init__()
        self.odds = 5.0 if finds else -5.0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(inputs), 2, *inputs.shape[2:])
        logits[:, 1] = self.odds
        return logits


def test_a_target_that_is_not_found_without_the_fold_is_not_taught(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    config = tiny_config(candidates=CandidatesConfig(decide="rule"))
    context = a_run_context(project, config)
    run = context.folder
    networks = {name: SureNetwork(finds=name == "liver") for name in ("liver", "tumour")}
    specialist = Specialist(networks, context.targets, config, context.device)
    by = FoldLabelling(TrainedCascade(specialist, (specialist,)), run.round(1), tmp_path / "fold")
    accepted = {"c2": PseudoLabel(tmp_path / "of-the-run", frozenset({"liver", "tumour"}))}
    for _ in ("made", "read again"):
        found = label_without_fold(context, accepted, by, 1)["c2"]
        assert found.targets == {"liver"}
        assert (read_labelmap(found.labels).labels == 1).any()
        assert found.doubtful is not None


def test_labels_of_another_model_teach_the_first_out_of_fold_models_too(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    context = a_context(project)
    path = project.label_path(project.case("c0"))
    of_other = {"c2": PseudoLabel(path, frozenset({"liver", "tumour"}))}
    plan = CascadeTrainingPlan(context.folder.round(1), context.config.paradigm, of_other, {})
    taught = cross_fitted_models(context, plan)
    alone = trained_in(context, tmp_path / "alone")
    first, second = (weights(m["c0"].specialist.networks["liver"]) for m in (taught, alone))
    assert not torch.equal(first, second)


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
