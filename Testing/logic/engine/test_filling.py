"""Organs are filled between drawn slices by the engine: its request, its answer, its refusals."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from aslseg.data.images import read_geometry, read_labelmap, write_labelmap
from aslseg.data.orientation import Turn, axial_volume
from aslseg.data.volume import Labelmap
from aslseg.engine.facts import FillFacts, PredictionFacts
from aslseg.engine.filling import NEW_NETWORK, filled_by_run
from aslseg.engine.protocol import RequestError, check_request
from aslseg.engine.tasks import Engine
from aslseg.errors import CancelledError, ConfigError, GeometryMismatchError, RunError
from aslseg.evaluation.metrics import dice
from aslseg.events import CancelToken, Monitor
from aslseg.inference.cascade import Specialist
from aslseg.networks.unet import build_network
from aslseg.project.project import Project
from aslseg.project.run_folder import create_run
from aslseg.runs import start_run
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training.slice_learning import TASK
from support.engine_child import FINAL, EngineChild
from support.few_steps import learn_in_few_steps
from support.tiny_project import SPECIALIST, a_patient, a_tiny_project, tiny_config

DRAWN = [2, 6, 10]
BETWEEN = [3, 4, 5, 7, 8, 9]
VOLUME, TRUTH = a_patient(6)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    torch.set_num_threads(1)
    project = a_tiny_project(tmp_path_factory.mktemp("filling"))
    start_run(project, tiny_config(rounds=1), run_id="a")
    return project


def drawn(path: Path) -> Path:
    """Write the truth in the drawn slices, and a wrong square in the others."""
    wrong = np.zeros(TRUTH.labels.shape, np.uint8)
    wrong[:, 2:8, 2:8] = 1
    wrong[DRAWN] = TRUTH.labels[DRAWN]
    wrong[TRUTH.labels == 2] = 2
    write_labelmap(Labelmap(wrong, TRUTH.geometry), path)
    return path


def arguments(project: Project, folder: Path, **changes: Any) -> dict[str, Any]:
    values = {
        "image": str(project.image_path(project.case("c6"))),
        "project": str(project.folder),
        "labels": str(drawn(folder / "drawn.nii.gz")),
        "slices": DRAWN,
        "output": str(folder),
    }
    return {**values, **changes}


def the_filled(given: dict[str, Any], path: str) -> Labelmap:
    """Return the label map of an answer, which is another one between the drawn slices alone."""
    before, found = read_labelmap(Path(given["labels"])), read_labelmap(Path(path))
    assert found.geometry.matches(read_geometry(Path(given["image"])))
    kept = [k for k in range(12) if k not in BETWEEN]
    np.testing.assert_array_equal(found.labels[kept], before.labels[kept])
    np.testing.assert_array_equal(found.labels == 2, before.labels == 2)
    return found


def tasks_of(events: list[dict[str, Any]]) -> set[str]:
    return {event["task"] for event in events if event["event"] == "progress"}


@pytest.mark.slow
def test_slices_between_are_filled_and_a_second_request_loads_nothing(
    child: EngineChild, project: Project, tmp_path: Path
) -> None:
    given = arguments(project, tmp_path)
    first = child.ask("fill_between", **given)
    done = first[-1]
    assert done["event"] == "done", done
    assert {TASK, "Loading the networks"} <= tasks_of(first)
    facts = done["facts"]
    assert facts["filled_slices"] == BETWEEN
    assert (facts["run"], facts["method"], facts["device"]) == ("a", "aslseg", "cpu")
    assert len(facts["weights"]) == 16
    found = the_filled(given, done["files"]["filled"])
    for k in BETWEEN:
        assert dice(found.labels[k] > 0, TRUTH.labels[k] > 0) > 0.8
    second = child.ask("fill_between", **given)
    assert second[-1]["facts"] == facts
    assert "Loading the networks" not in tasks_of(second)
    np.testing.assert_array_equal(
        read_labelmap(Path(second[-1]["files"]["filled"])).labels, found.labels
    )


@pytest.mark.slow
def test_filling_is_stopped_when_asked_to_and_nothing_is_written(
    child: EngineChild, project: Project, tmp_path: Path
) -> None:
    child.send("fill_between", **arguments(project, tmp_path))
    number = child.number
    child.until(lambda e: e["event"] == "progress" and e["task"] == TASK and e["step"] > 2)
    child.send("cancel")
    ended = child.until(lambda e: e["id"] == number and e["event"] in FINAL)[-1]
    assert ended["event"] == "cancelled", ended
    assert not (tmp_path / "filled.nii.gz").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        (
            [4, 5],
            "Nothing lies between the drawn slices (4, 5); draw another one, about 15 mm away",
        ),
        ([4, 12], "There is no slice 12; the volume has 0 to 11."),
        ([0, 11], "The drawn slices show nothing of liver; draw it in two or more of them."),
    ],
)
def test_slices_that_leave_nothing_to_fill_are_refused(
    child: EngineChild, project: Project, tmp_path: Path, slices: list[int], reason: str
) -> None:
    empty = Labelmap(np.zeros(TRUTH.labels.shape, np.uint8), TRUTH.geometry)
    write_labelmap(empty, tmp_path / "empty.nii.gz")
    given = arguments(project, tmp_path, slices=slices, labels=str(tmp_path / "empty.nii.gz"))
    failed = child.ask("fill_between", **given)[-1]
    assert failed["event"] == "failed"
    assert f"{failed['message']} {failed['remedy']}".startswith(reason.split(";")[0])


@pytest.mark.slow
def test_a_project_without_a_run_is_filled_by_a_new_network(tmp_path: Path) -> None:
    """Not even SAM's weights are needed: there are none here."""
    project = a_tiny_project(tmp_path / "new")
    given = arguments(project, tmp_path, device="cpu")
    done = Engine().tasks["fill_between"](given, Monitor())
    facts = done.facts_as(FillFacts)
    assert (facts.run, facts.method, facts.round, facts.weights) == (None, "drawn slices", 0, "")
    assert (facts.device, facts.filled_slices) == ("cpu", BETWEEN)
    found = the_filled(given, done.files["filled"])
    for k in BETWEEN:
        assert dice(found.labels[k] > 0, TRUTH.labels[k] > 0) > 0.9


def test_what_cpc_sam_has_trained_learns_no_slices_but_a_new_network_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = a_tiny_project(tmp_path / "new")
    run = create_run(project.folder, tiny_config(method="cpcsam", rounds=1), "a")
    run.finish(1, 0.5)
    monkeypatch.setattr("aslseg.engine.tasks.filled_without_run", lambda *_: (TRUTH, NEW_NETWORK))
    for given in (arguments(project, tmp_path), arguments(project, tmp_path, run="a")):
        done = Engine().tasks["fill_between"](given, Monitor())
        assert done.facts_as(FillFacts).run is None


@pytest.mark.slow
def test_a_lesion_is_filled_in_its_organ_and_out_of_others(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run makes no difference: a new network learns this lesion alone."""
    learn_in_few_steps(monkeypatch)
    monkeypatch.setattr("aslseg.data.filling_rules.LESION_MM", 20.0)
    lesion = TRUTH.labels > 0  # as large as the whole liver, for once
    lesion[:, :, 22:] = False
    labels = TRUTH.labels.copy()
    labels[labels == 2] = 1
    labels[:, 26:30, 10:14] = 2  # another one
    lesion &= labels != 2
    drawn_mask = np.zeros(lesion.shape, np.uint8)
    slices = [2, 4, 6, 8, 10]
    drawn_mask[slices] = lesion[slices]
    labels[drawn_mask > 0] = 2
    for name, values in (("labels", labels), ("lesion", drawn_mask)):
        write_labelmap(Labelmap(values, TRUTH.geometry), tmp_path / f"{name}.nii.gz")
    files = {name: str(tmp_path / f"{name}.nii.gz") for name in ("labels", "lesion")}
    given = arguments(project, tmp_path, target="tumour", slices=slices, **files)
    done = Engine().tasks["fill_between"](given, Monitor())
    facts = done.facts_as(FillFacts)
    assert (facts.run, facts.filled_slices) == (None, [3, 5, 7, 9])
    found = read_labelmap(Path(done.files["filled"])).labels
    kept = [k for k in range(12) if k not in facts.filled_slices]
    np.testing.assert_array_equal(found[kept], labels[kept])
    np.testing.assert_array_equal(found > 0, labels > 0)  # it stays in its organ
    for k in facts.filled_slices:
        np.testing.assert_array_equal(found[k, 26:30, 10:14], labels[k, 26:30, 10:14])
        filled = (found[k] == 2) & (labels[k] != 2)
        assert dice(filled, lesion[k] & (labels[k] != 2)) > 0.8


def test_what_is_no_lesion_is_filled_as_none(project: Project, tmp_path: Path) -> None:
    fill = Engine().tasks["fill_between"]
    for name in ("liver", "spleen"):
        with pytest.raises(ConfigError, match=rf"'{name}' lies inside no other target; .*tumour"):
            fill(arguments(project, tmp_path, target=name), Monitor())


def test_what_cannot_be_filled_without_a_run_is_refused(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path / "new")
    fill = Engine().tasks["fill_between"]
    with pytest.raises(ConfigError, match=r"between the drawn slices \(4, 5\)"):
        fill(arguments(project, tmp_path, slices=[4, 5]), Monitor())
    organs = {"liver": str(drawn(tmp_path / "liver.nii.gz"))}
    with pytest.raises(ConfigError, match="A mask of liver came with the volume; correct that"):
        fill(arguments(project, tmp_path, organs=organs), Monitor())
    with pytest.raises(RunError, match="nowhere"):
        fill(arguments(project, tmp_path, run="nowhere"), Monitor())
    stopped = CancelToken()
    stopped.cancel()
    with pytest.raises(CancelledError):
        fill(arguments(project, tmp_path), Monitor(token=stopped))
    assert not (tmp_path / "filled.nii.gz").exists()


def test_a_request_without_slices_is_refused(tmp_path: Path) -> None:
    given = arguments(a_tiny_project(tmp_path / "new"), tmp_path)
    for slices in ([], [3], [-1, 4]):
        with pytest.raises(RequestError, match="'slices"):
            check_request("fill_between", {**given, "slices": slices})


# --- Without a process --------------------------------------------------------------------------

ABOUT = PredictionFacts(
    run="a", method="aslseg", round=1, weights="", note="", device="cpu", slice_index=None,
    targets=[], unmet_clicks=[],
)  # fmt: skip


def a_session(turn: Turn = Turn()) -> Any:  # noqa: B008 - frozen
    """Return a session of the patient, stored along other axes, with a network without training."""
    torch.manual_seed(0)
    stage = cascade_stages(LIVER_TARGETS)[0]
    network = build_network(stage, SPECIALIST).eval()
    specialist = Specialist(
        {stage.name: network}, LIVER_TARGETS, tiny_config(), torch.device("cpu")
    )
    stored = turn.volume(VOLUME)
    return SimpleNamespace(
        volume=axial_volume(stored),
        stored=stored.geometry,
        models=SimpleNamespace(ensemble=SimpleNamespace(specialist=specialist)),
    )


@pytest.fixture
def _two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from aslseg.training import slice_filling

    fill = slice_filling.fill_between_slices
    monkeypatch.setattr(slice_filling, "fill_between_slices", partial(fill, steps=2))


@pytest.mark.usefixtures("_two_steps")
def test_slices_are_numbered_as_the_file_numbers_them() -> None:
    axial = axial_volume(VOLUME)
    for turn in (Turn(), Turn(mirrored=(True, False, True)), Turn((1, 0, 2), (False, True, False))):
        labels = turn.labelmap(TRUTH)
        session = a_session(turn)
        slices = [2, 6, 9]
        found, facts = filled_by_run(session, ABOUT, labels, slices, Monitor())
        assert facts.filled_slices == [3, 4, 5, 7, 8]
        assert found.geometry == session.stored
        axis = turn.axes.index(0)
        changed = np.flatnonzero(
            np.moveaxis(found.labels != labels.labels, axis, 0).any(axis=(1, 2))
        )
        assert set(changed) <= set(facts.filled_slices)
        assert len(changed)
    assert axial.geometry.shape == VOLUME.geometry.shape


def test_a_label_map_that_lies_elsewhere_is_refused() -> None:
    moved = TRUTH.geometry.ijk_to_ras.copy()
    moved[0, 3] += 20.0
    labels = Labelmap(TRUTH.labels, replace(TRUTH.geometry, ijk_to_ras=moved))
    with pytest.raises(GeometryMismatchError, match="The label map"):
        filled_by_run(a_session(), ABOUT, labels, DRAWN, Monitor())


def test_a_session_without_a_run_and_slices_without_gap_are_refused() -> None:
    alone = a_session()
    alone.models.ensemble = None
    with pytest.raises(RunError, match="has no run"):
        filled_by_run(alone, ABOUT, TRUTH, DRAWN, Monitor())
    with pytest.raises(ConfigError, match=r"between the drawn slices \(3, 4\)"):
        filled_by_run(a_session(), ABOUT, TRUTH, [4, 3], Monitor())
