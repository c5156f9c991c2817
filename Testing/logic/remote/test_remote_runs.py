"""Runs at a host: lost connections, leaving and coming back, stopping, and what stays untouched."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aslseg.config import RunConfig
from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.engine.facts import FillFacts, PredictionFacts, RunFacts
from aslseg.engine.session import LOG, is_alive
from aslseg.errors import CancelledError, RunError
from aslseg.events import Event, Metric, Monitor, Progress
from aslseg.failures import FailedError
from aslseg.project.project import Project, open_project
from aslseg.project.remote_run import (
    RemoteRun,
    claim_run,
    open_remote_runs,
    read_remote_run,
    write_remote_run,
)
from aslseg.project.run_folder import RunFolder, create_run
from aslseg.remote import link
from aslseg.remote.connection import Connection
from aslseg.remote.link import LeftError
from aslseg.remote.mirror import Digests, key_of, send_project
from aslseg.remote.tasks import RemoteEngine
from aslseg.storage import this_computer, visible_files, write_text_atomic
from support.remote_host import (
    SCRATCH,
    STEPS,
    a_host,
    allow_steps,
    end_engines,
    start_late,
    station_of,
)
from support.tiny_project import GEOMETRY, a_tiny_project


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PAUSES_S", (0.1,))
    monkeypatch.setattr(link, "WAIT_S", 0.1)


class Followed:
    """A project of this computer and the engine of a host, with what it says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.host = a_host(folder, monkeypatch)
        self.project: Project = a_tiny_project(folder / "here")
        self.events: list[Event] = []
        self.when: dict[int, Callable[[], None]] = {}
        self.is_left = False
        self.monitor = Monitor(self.take)
        self.engine = RemoteEngine(self.host, lambda: self.is_left)

    def take(self, event: Event) -> None:
        """Note an event; after the metric of a step, do what is wanted then."""
        self.events.append(event)
        if isinstance(event, Metric):
            self.when.pop(event.step, lambda: None)()

    def ask(self, do: str, **arguments: Any) -> Any:
        """Serve a request about the project."""
        return self.engine.tasks[do](
            {"project": str(self.project.folder), **arguments}, self.monitor
        )

    def again(self) -> None:
        """Come back as a process that knows nothing."""
        self.engine.close()
        self.events, self.is_left, self.monitor = [], False, Monitor(self.take)
        self.engine = RemoteEngine(self.host, lambda: self.is_left)

    def lose_connection(self) -> None:
        """Cut the pipe, as a network does."""
        self.engine._link._connection._process.kill()  # type: ignore[union-attr]

    def leave(self) -> None:
        self.is_left = True

    @property
    def metrics(self) -> list[int]:
        """Steps of the metrics, in the order in which they came."""
        return [event.step for event in self.events if isinstance(event, Metric)]

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.project.folder / "runs" / name)


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Followed]:
    made = Followed(tmp_path, monkeypatch)
    yield made
    made.engine.close()
    end_engines(tmp_path)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_goes_on_while_the_connection_is_lost_and_each_event_comes_once(
    followed: Followed,
) -> None:
    allow_steps(followed.folder, 2)

    def lose() -> None:
        followed.lose_connection()
        allow_steps(followed.folder, STEPS)

    followed.when[2] = lose
    done = followed.ask("train", settings="quick", run="a")
    assert done.facts_as(RunFacts).run == "a"
    assert followed.metrics == list(range(1, STEPS + 1))
    tasks = [event.task for event in followed.events if isinstance(event, Progress)]
    assert any("is lost; the work goes on there" in task for task in tasks)
    run = followed.run("a")
    assert done.files == {"report": str(run.path / "report.html")}
    assert (run.path / "report.html").read_text("utf-8") == "report"
    assert [(run.path / f"step-{n}.csv").read_text("utf-8") for n in (1, 4)] == ["1", "4"]
    assert (run.path / "round-01" / "sam.safetensors").exists()
    assert not (run.path / "round-01" / "sam.training.safetensors").exists(), "for work there alone"
    assert run.state == "done"
    assert open_remote_runs(followed.project.folder) == {}
    (session,) = (station_of(followed.folder) / "sessions").iterdir()
    wait_for(lambda: not is_alive(session))
    claim_run(run.path)
    assert read_remote_run(run.path) is None, "this computer's from now on"


@pytest.mark.slow
def test_what_a_training_makes_for_itself_stays_at_the_host(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "KEEP_EVERY_S", 0.0)
    monkeypatch.setattr(link, "FIRST_KEPT_S", 0.0)
    allow_steps(followed.folder, 1)
    here: list[str] = []

    def look() -> None:
        wait_for(followed.run("a").path.joinpath("round-01", "predictions").exists)
        here.extend(_folders_of(followed.run("a")))
        allow_steps(followed.folder, STEPS)

    looking = threading.Thread(target=look)
    looking.start()
    followed.ask("train", settings="quick", run="a")
    looking.join()
    there = next((station_of(followed.folder) / "projects").iterdir()) / "runs" / "a"
    assert set(SCRATCH) < set(_folders_of(RunFolder(there)))
    assert here == _folders_of(followed.run("a")) == ["predictions"]
    case = followed.run("a").round(1) / "predictions" / "samples"
    assert (case / "prediction.json").exists(), "a case, whatever its name"


def _folders_of(run: RunFolder) -> list[str]:
    return sorted(path.name for path in run.round(1).iterdir() if path.is_dir())


def test_copies_of_images_that_a_stopped_training_left_are_not_sent(followed: Followed) -> None:
    run = create_run(followed.project.folder, RunConfig(), "a")
    for name in ("rois/c0/image.npy", "single-networks/0/liver.safetensors"):
        write_text_atomic(run.round(1) / name, "left")
    connection = Connection(followed.host, lambda: None)
    send_project(connection, followed.project, Digests(), Monitor(), run)
    connection.close()
    there = next((station_of(followed.folder) / "projects").iterdir()) / "runs" / "a" / "round-01"
    assert not (there / "rois" / "c0").exists()
    assert (there / "single-networks" / "0" / "liver.safetensors").exists(), "training goes on"


@pytest.mark.slow
def test_a_run_whose_engine_is_started_while_the_connection_is_lost_is_followed(
    followed: Followed,
) -> None:
    start_late(followed.folder, 4.0)
    sessions = station_of(followed.folder) / "sessions"

    def lose() -> None:
        wait_for(lambda: any(sessions.glob(f"*/{LOG}")))
        followed.lose_connection()

    losing = threading.Thread(target=lose)
    losing.start()
    done = followed.ask("train", settings="quick", run="a")
    losing.join()
    assert done.facts_as(RunFacts).run == "a"
    assert followed.metrics == list(range(1, STEPS + 1))
    tasks = [event.task for event in followed.events if isinstance(event, Progress)]
    assert any("connection to gpu1 is lost" in task for task in tasks)
    assert followed.run("a").state == "done"


def test_a_run_that_the_engine_has_not_taken_is_to_be_looked_for(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link.Link, "send", lambda *_: False)
    words = "the engine there was started, and run 'a' may have begun or not.* --run a"
    with pytest.raises(RunError, match=words):
        followed.ask("train", settings="quick", run="a")
    assert list(open_remote_runs(followed.project.folder)) == ["a"]


@pytest.mark.slow
def test_a_run_that_was_left_is_found_again_with_all_that_it_said(followed: Followed) -> None:
    allow_steps(followed.folder, 1)
    followed.when[1] = followed.leave
    with pytest.raises(LeftError, match="goes on at gpu1"):
        followed.ask("train", settings="quick", run="a")
    assert list(open_remote_runs(followed.project.folder)) == ["a"]
    with pytest.raises(RunError, match="last worked on by gpu1 and may go on there; follow it"):
        claim_run(followed.run("a").path)
    allow_steps(followed.folder, STEPS)
    mirror = next((station_of(followed.folder) / "projects").iterdir())
    wait_for((mirror / "runs" / "a" / "report.html").exists)
    followed.again()
    followed.ask("follow_run")
    assert followed.metrics == list(range(1, STEPS + 1))
    assert followed.run("a").state == "done"


@pytest.mark.slow
def test_a_run_is_seen_to_be_elsewhere_and_is_stopped_there(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "FIRST_KEPT_S", 0.0)
    allow_steps(followed.folder, 1)
    run = followed.run("a")

    monkeypatch.setattr(link, "KEEP_EVERY_S", 0.0)
    followed.engine._link._is_left = lambda: run.status.state == "running"
    with pytest.raises(LeftError):
        followed.ask("train", settings="quick", run="a")
    assert run.state == "elsewhere"
    followed.again()
    followed.monitor.token.cancel()
    with pytest.raises(CancelledError, match="Stopped on request"):
        followed.ask("follow_run", run="a")
    assert run.state == "cancelled"
    assert open_remote_runs(followed.project.folder) == {}


def test_a_host_that_cannot_be_told_to_stop_is_said_to_go_on(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_steps(followed.folder, 1)

    def vanish() -> None:
        monkeypatch.setenv("ASLSEG_SSH", "false")
        followed.lose_connection()
        followed.monitor.token.cancel()

    followed.when[1] = vanish
    with pytest.raises(CancelledError, match="cannot be reached and was not told to stop"):
        followed.ask("train", settings="quick", run="a")
    assert list(open_remote_runs(followed.project.folder)) == ["a"]
    allow_steps(followed.folder, STEPS)


@pytest.mark.slow
def test_decisions_of_this_computer_are_kept_and_reach_the_host_with_the_next_request(
    followed: Followed,
) -> None:
    allow_steps(followed.folder, 1)
    project = followed.project
    drawn = Labelmap(np.full(GEOMETRY.shape, 2, np.uint8), GEOMETRY)

    def decide() -> None:
        project.save_label("c0", drawn)
        project.save_label("c2", drawn)
        allow_steps(followed.folder, STEPS)

    followed.when[1] = decide
    followed.ask("train", settings="quick", run="a")
    now = open_project(project.folder)
    for name in ("c0", "c2"):
        assert (read_labelmap(now.label_path(now.case(name))).labels == 2).all()
    mirror = next((station_of(followed.folder) / "projects").iterdir())
    assert not (mirror / "labels" / "c2.nii.gz").exists()
    images = station_of(followed.folder) / "images"
    before = {path: path.stat().st_ino for path in images.rglob("*.nii.gz")}
    followed.ask("train", settings="quick", run="b")
    there = open_project(mirror)
    assert (there.load_labels(there.case("c2")).labels == 2).all()
    assert len(list((mirror / "labels" / "history").iterdir())) == 1, "what c0 was before"
    assert {path: path.stat().st_ino for path in images.rglob("*.nii.gz")} == before, "sent once"
    assert not list(mirror.rglob("*patient*")), "no names of files go there"


@pytest.mark.slow
def test_the_last_volume_stays_there_and_answers_come_to_their_place(followed: Followed) -> None:
    image = followed.project.image_path(followed.project.case("c6"))
    output = followed.folder / "answers"
    for _ in range(2):
        done = followed.ask("refine", image=str(image), output=str(output))
        assert done.files == {"refined": str(output / "refined.nii.gz")}
        assert (output / "refined.nii.gz").read_text("utf-8") == str(GEOMETRY.shape)
        (output / "refined.nii.gz").unlink()
    assert len(list((station_of(followed.folder) / "sessions").iterdir())) == 1, "one engine"
    followed.lose_connection()
    followed.engine.tasks["describe"]({}, followed.monitor)
    assert not (station_of(followed.folder) / "projects").exists(), "no run has to be there"


@pytest.mark.slow
def test_drawn_slices_go_to_the_host_and_the_filled_label_comes_back(followed: Followed) -> None:
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[3:7] = 1
    output = followed.folder / "answers"
    write_labelmap(Labelmap(labels, GEOMETRY), followed.folder / "drawn.nii.gz")
    arguments = {
        "image": str(followed.project.image_path(followed.project.case("c6"))),
        "labels": str(followed.folder / "drawn.nii.gz"),
        "slices": [3, 6],
        "output": str(output),
    }
    done = followed.ask("fill_between", **arguments)
    assert done.facts_as(FillFacts).run is None
    assert (read_labelmap(output / "filled.nii.gz").labels == labels).all()
    create_run(followed.project.folder, RunConfig(), "a").write_status(best_round=1, state="done")
    done = followed.ask("fill_between", run="a", **arguments)
    assert done.facts_as(FillFacts).filled_slices == [3, 6]
    assert done.files == {"filled": str(output / "filled.nii.gz")}
    assert (read_labelmap(output / "filled.nii.gz").labels == labels).all()


@pytest.mark.slow
def test_a_lesion_that_a_host_fills_comes_back_though_the_connection_is_lost(
    followed: Followed,
) -> None:
    labels = np.zeros((2, *GEOMETRY.shape), np.uint8)
    labels[0, 3:7] = 1
    labels[1, 3:7, 5:9, 5:9] = 1
    paths = {name: followed.folder / f"{name}.nii.gz" for name in ("labels", "lesion")}
    for path, shown in zip(paths.values(), labels, strict=True):
        write_labelmap(Labelmap(shown, GEOMETRY), path)
    allow_steps(followed.folder, 0)

    def lose() -> None:
        followed.lose_connection()
        allow_steps(followed.folder, 1)

    followed.when[1] = lose
    output = followed.folder / "answers"
    image = followed.project.image_path(followed.project.case("c6"))
    about = {"image": str(image), "output": str(output), "target": "tumour", "slices": [3, 6]}
    done = followed.ask("fill_between", **about, **{n: str(path) for n, path in paths.items()})
    assert done.facts_as(FillFacts).filled_slices == [3, 6]
    assert (read_labelmap(output / "filled.nii.gz").labels == labels[1]).all()
    assert followed.metrics == [1]
    tasks = [event.task for event in followed.events if isinstance(event, Progress)]
    assert any("is lost; the work goes on there" in task for task in tasks)


def test_a_run_of_another_project_that_was_here_is_not_taken_for_a_new_one(
    followed: Followed,
) -> None:
    key = key_of(followed.project.folder, "gpu1")
    there = station_of(followed.folder) / "projects" / key / "runs" / "a"
    there.mkdir(parents=True)
    (there / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=r"has a run 'a' that is not here.*aslseg hosts clean gpu1"):
        followed.ask("train", settings="quick", run="a")
    assert visible_files(followed.run("a").path) == [followed.run("a").path / "lock"]


@pytest.mark.parametrize("do", ["train", "train_on"])
def test_what_is_noted_of_a_run_at_work_is_not_written_over(followed: Followed, do: str) -> None:
    settings = {"settings": "quick"} if do == "train" else {}
    run = followed.run("a")
    if do == "train_on":
        create_run(followed.project.folder, RunConfig(), "a")
    note = RemoteRun(host="gpu1", project="0" * 32, session="1" * 32)
    write_remote_run(run.path, note)
    with pytest.raises(RunError, match="worked on by gpu1; follow it to its end first"):
        followed.ask(do, run="a", **settings)
    assert read_remote_run(run.path) == note


def test_a_host_that_has_lost_a_run_deletes_nothing_here_and_gets_it_again(
    followed: Followed,
) -> None:
    run = create_run(followed.project.folder, RunConfig(), "a")
    label = run.path / "labels" / "c2.nii.gz"
    label.parent.mkdir()
    label.write_text("of the host", encoding="utf-8")
    fetched = {"labels/c2.nii.gz": "11 1", "config.json": "3 1"}
    note = RemoteRun(host="gpu1", project="0" * 32, session="1" * 32, fetched=fetched)
    write_remote_run(run.path, note)
    with pytest.raises(FailedError, match="ended unexpectedly"):
        followed.ask("follow_run", run="a")
    assert label.read_text("utf-8") == "of the host"
    with pytest.raises(FailedError):  # the tasks of this host know no resuming
        followed.ask("resume", run="a")
    (there,) = (station_of(followed.folder) / "projects").glob("*/runs/a/labels/c2.nii.gz")
    assert there.read_text("utf-8") == label.read_text("utf-8") == "of the host"


def test_a_copy_of_a_project_gets_a_mirror_of_its_own_and_a_moved_one_keeps_it(
    tmp_path: Path,
) -> None:
    original, copy, moved = (tmp_path / name for name in ("original", "copy", "moved"))
    run = create_run(original, RunConfig(), "a")
    here = {"computer": this_computer(), "folder": str(original.resolve())}
    write_remote_run(run.path, RemoteRun(host="gpu1", project="0" * 32, session="1" * 32, **here))
    assert key_of(original, "gpu1") == "0" * 32
    shutil.copytree(original, copy)
    assert key_of(copy, "gpu1") not in (key_of(original, "gpu1"), key_of(original, "gpu2"))
    assert key_of(original, "gpu1") == "0" * 32
    shutil.rmtree(copy)
    original.rename(moved)
    assert key_of(moved, "gpu1") == "0" * 32


@pytest.mark.slow
def test_a_copy_goes_on_with_a_run_in_its_own_mirror_and_its_original_keeps_its_own(
    followed: Followed,
) -> None:
    followed.ask("train", settings="quick", run="a")
    copy = followed.project.folder.with_name("copy")
    shutil.copytree(followed.project.folder, copy)
    (there,) = (station_of(followed.folder) / "projects").iterdir()
    image = str(followed.project.image_path(followed.project.case("c6")))
    answer = {"image": image, "output": str(followed.folder / "answers"), "run": "a"}
    followed.engine.tasks["refine"]({**answer, "project": str(copy)}, followed.monitor)
    own = station_of(followed.folder) / "projects" / key_of(copy, "gpu1")
    assert own != there
    weights = Path("runs", "a", "round-01", "sam.safetensors")
    assert (own / weights).read_text("utf-8") == (there / weights).read_text("utf-8")
    followed.engine.remove_project(copy, followed.monitor)
    assert not own.exists()
    assert (there / weights).exists()
    assert read_remote_run(followed.run("a").path) is not None


def test_a_run_that_the_mirror_alone_has_does_not_predict(followed: Followed) -> None:
    key = key_of(followed.project.folder, "gpu1")
    there = station_of(followed.folder) / "projects" / key / "runs" / "deleted-here"
    there.mkdir(parents=True)
    (there / "config.json").write_text("{}", encoding="utf-8")
    image = str(followed.project.image_path(followed.project.case("c6")))
    output = str(followed.folder / "answers")
    done = followed.ask("refine", image=image, output=output)
    facts = done.facts_as(PredictionFacts)
    assert facts.run is None
    assert tuple(facts.targets) == followed.project.targets
    with pytest.raises(RunError, match="has no finished run yet; train first"):
        followed.ask("segment", image=image, output=output)


def test_what_is_no_work_for_a_host_is_refused(followed: Followed) -> None:
    with pytest.raises(RunError, match="does not work on any run"):
        followed.ask("follow_run")
    with pytest.raises(Exception, match="'export' is not done by a host"):
        followed.ask("export", output="x", format="nifti", labels="all")
