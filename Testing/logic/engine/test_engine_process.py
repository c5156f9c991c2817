"""The engine process: its lines, its errors in words, and a run that is cancelled and resumed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import torch

from aslseg.data.images import read_geometry, read_labelmap
from aslseg.engine.facts import CancelFacts
from aslseg.engine.protocol import Done, RequestError
from aslseg.engine.server import Server
from aslseg.engine.tasks import Engine
from aslseg.errors import (
    AslsegError,
    CancelledError,
    GeometryMismatchError,
    ImageError,
    RunError,
    StorageError,
)
from aslseg.events import Artifact, Event, Metric, Monitor, Progress
from aslseg.failures import failure_of, in_two, log_path
from aslseg.inference.loading import load_ensemble
from aslseg.project.project import Project, open_project
from aslseg.project.review import accept, reject
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import read_table
from aslseg.project.unlike_labelled import read_intensities, write_intensities
from aslseg.targets import LIVER_TARGETS, Target
from support.engine_child import EngineChild
from support.tiny_project import LABELLED, UNLABELLED, a_tiny_project, tiny_config

LIBRARY = Path(__file__).resolve().parents[3] / "Logic"
Task = Callable[[Mapping[str, Any], Monitor], Done]
NOTHING = Done(facts=CancelFacts(cancelled=[]))


# --- The protocol, without a process ------------------------------------------------------------


def answers_to(tasks: Mapping[str, Task], *lines: str) -> list[dict[str, Any]]:
    """Give lines to an engine and return its events until they end."""
    stream = io.StringIO()
    Server(io.StringIO("\n".join(lines) + "\n"), stream, lambda: tasks).run()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def request(number: int, do: str, **arguments: Any) -> str:
    return json.dumps({"id": number, "do": do, **arguments})


class Lines(io.StringIO):
    """Standard input whose next line comes when it is put there; None ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Queue[str | None] = Queue()

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        while (line := self.waiting.get()) is not None:
            yield line


@pytest.fixture(autouse=True)
def _no_last_resort(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("aslseg.engine.server._end_process_after", lambda _: None)


def test_the_engine_is_ready_before_anything_is_loaded() -> None:
    stream, loaded = io.StringIO(), []
    Server(io.StringIO(""), stream, lambda: loaded.append(1) or {}).run()  # type: ignore[func-returns-value]
    (ready,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (ready["id"], ready["event"], ready["protocol"]) == (0, "ready", 2)
    assert ready["pid"] == os.getpid()
    assert loaded == []


def test_events_of_a_task_carry_the_number_of_the_request() -> None:
    lines: Lines = Lines()

    def work(arguments: Mapping[str, Any], monitor: Monitor) -> Done:
        monitor.listener(Progress("a task", 1, 2, 3.5, 4))
        monitor.listener(Metric("loss", 0.5, 7, task="liver", round=4))
        monitor.warn("Careful.")
        lines.waiting.put(None)
        return Done(facts=CancelFacts(cancelled=[2 * arguments["value"]]))

    stream = io.StringIO()
    lines.waiting.put(request(5, "work", value=21))
    Server(lines, stream, lambda: {"work": work}).run()
    received = [json.loads(line) for line in stream.getvalue().splitlines()]
    received = [event for event in received if event.get("task") != "Loading the libraries"]
    assert received[1:] == [
        {"id": 5, "event": "progress", "task": "a task", "step": 1, "of": 2,
         "seconds_left": 3.5, "round": 4},
        {"id": 5, "event": "metric", "name": "loss", "value": 0.5, "step": 7, "task": "liver",
         "source": "", "case": "", "round": 4},
        {"id": 5, "event": "warning", "message": "Careful."},
        {"id": 5, "event": "done", "files": {}, "facts": {"cancelled": [42]}},
    ]  # fmt: skip


def in_a_thread(tasks: Mapping[str, Task], lines: Lines) -> tuple[threading.Thread, io.StringIO]:
    stream = io.StringIO()
    thread = threading.Thread(target=Server(lines, stream, lambda: tasks).run)
    thread.start()
    return thread, stream


def test_cancel_is_obeyed_while_a_task_works_and_the_next_request_is_answered() -> None:
    lines: Lines = Lines()
    began = threading.Event()

    def endless(_: Mapping[str, Any], monitor: Monitor) -> Done:
        began.set()
        while True:
            monitor.check()
            time.sleep(0.001)

    def quick(_: Mapping[str, Any], __: Monitor) -> Done:
        lines.waiting.put(None)
        return NOTHING

    thread, stream = in_a_thread({"endless": endless, "quick": quick}, lines)
    lines.waiting.put(request(1, "endless"))
    assert began.wait(5)
    lines.waiting.put(request(0, "cancel"))
    lines.waiting.put(request(2, "quick"))
    thread.join(5)
    received = [json.loads(line) for line in stream.getvalue().splitlines()]
    final = {e["id"]: e["event"] for e in received if e["event"] in ("done", "cancelled", "failed")}
    assert final == {1: "cancelled", 2: "done"}


def test_cancel_may_name_one_of_several_requests() -> None:
    lines: Lines = Lines()
    proceed = threading.Event()

    def patient(_: Mapping[str, Any], monitor: Monitor) -> Done:
        assert proceed.wait(5)
        monitor.check()
        return NOTHING

    thread, stream = in_a_thread({"patient": patient}, lines)
    lines.waiting.put(request(1, "patient"))
    lines.waiting.put(request(2, "patient"))
    lines.waiting.put(request(0, "cancel", request=2))
    lines.waiting.put("")
    while lines.waiting.qsize():
        time.sleep(0.001)
    proceed.set()
    time.sleep(0.05)
    lines.waiting.put(None)
    thread.join(5)
    received = [json.loads(line) for line in stream.getvalue().splitlines()]
    final = {e["id"]: e["event"] for e in received if e["event"] in ("done", "cancelled", "failed")}
    assert final == {1: "done", 2: "cancelled"}


def test_the_end_of_the_input_cancels_what_is_under_way() -> None:
    def endless(_: Mapping[str, Any], monitor: Monitor) -> Done:
        while True:
            monitor.check()
            time.sleep(0.001)

    received = answers_to({"endless": endless}, request(1, "endless"))
    assert received[-1]["event"] == "cancelled"


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"id": 1}', '{"id": "x", "do": "a"}'])
def test_a_line_that_is_no_request_is_answered_and_survived(line: str) -> None:
    received = answers_to({}, line)
    refusal = next(event for event in received if event["event"] == "failed")
    assert refusal["kind"] == "request"
    assert line in refusal["message"]


def test_an_unknown_request_is_refused() -> None:
    lines: Lines = Lines()
    thread, stream = in_a_thread({"segment": lambda *_: NOTHING}, lines)
    lines.waiting.put(request(1, "dance"))
    while "failed" not in stream.getvalue():
        time.sleep(0.001)
    lines.waiting.put(None)
    thread.join(5)
    assert "'dance' is nothing that the engine can do." in stream.getvalue()
    assert "Ask for segment." in stream.getvalue()


# --- Errors in words ----------------------------------------------------------------------------


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ImageError("a.nii is cut off; copy it again."), "image", "a.nii is cut off."),
        (GeometryMismatchError("They differ; move it."), "image", "They differ."),
        (StorageError("Cannot write b: the disk is full; free some space."), "storage",
         "Cannot write b: the disk is full."),
        (RunError("No run 'x' (known: a; b); train first."), "run", "No run 'x' (known: a; b)."),
        (MemoryError(), "memory", "The computer ran out of memory."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory",
         "The computer ran out of memory."),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "gpu_memory",
         "The graphics card ran out of memory."),
        (ModuleNotFoundError("No module named 'monai'", name="monai"), "package",
         "The Python package 'monai' is missing."),
        (RequestError("The request lacks 'image'; correct it."), "request",
         "The request lacks 'image'."),
        (PermissionError(13, "Permission denied", "a.nii"), "storage",
         "A file cannot be read or written (a.nii: Permission denied)."),
    ],
)  # fmt: skip
def test_errors_become_words_with_a_remedy(error: Exception, kind: str, message: str) -> None:
    failure = failure_of(error)
    assert (failure.kind, failure.message) == (kind, message)
    assert failure.remedy[0].isupper()
    assert failure.remedy.endswith(".")


def raised() -> ZeroDivisionError:
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        return error
    raise AssertionError


def test_an_error_that_nobody_foresaw_is_a_sentence_with_the_log_that_has_its_traceback() -> None:
    failure = failure_of(raised(), "segment")
    assert failure.kind == "internal"
    assert failure.message == (
        "Something went wrong that was not foreseen (ZeroDivisionError: division by zero)."
    )
    assert failure.remedy == (
        f"Please report this with the log {log_path()}; trying again may help."
    )
    log = log_path().read_text(encoding="utf-8")
    assert "segment\nTraceback (most recent call last)" in log
    assert "1 / 0" in log


def test_where_no_log_can_be_written_the_sentence_stays(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    failure = failure_of(raised(), "segment")
    assert "ZeroDivisionError" in failure.message
    assert failure.remedy == "Please report this; trying again may help."


def test_the_log_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aslseg.failures.MAX_LOG_BYTES", 2000)
    for _ in range(50):
        failure_of(raised())
    sizes = {path.name: path.stat().st_size for path in log_path().parent.iterdir()}
    assert sorted(sizes) == ["errors.log", "errors.old.log"]
    assert max(sizes.values()) < 4000


def test_a_message_of_one_sentence_has_no_remedy() -> None:
    assert in_two("It is so.") == ("It is so.", "")
    assert in_two("It is so. Do this.") == ("It is so.", "Do this.")
    assert failure_of(AslsegError("It is so.")).remedy == ""
    assert failure_of(CancelledError("Stopped; resume.")).kind == "cancelled"


# --- A real process -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return a_tiny_project(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def trained(child: EngineChild, project: Project) -> dict[str, Any]:
    """A run that was cancelled in its second round and resumed: the `done` event."""
    settings = tiny_config().model_dump(mode="json")
    number = child.send("train", project=str(project.folder), settings=settings, run="a")
    child.until(lambda e: e["event"] == "metric" and e.get("round") == 2)
    child.send("cancel")
    ended = child.until(lambda e: e["id"] == number and e["event"] == "cancelled")
    assert "resumed" in ended[-1]["message"]
    assert RunFolder(project.folder / "runs" / "a").status.state == "cancelled"
    return child.ask("resume", project=str(project.folder), run="a")[-1]


@pytest.mark.slow
def test_a_cancelled_training_is_resumed_to_its_end(
    trained: dict[str, Any], project: Project
) -> None:
    run = RunFolder(project.folder / "runs" / "a")
    assert trained["event"] == "done", trained
    assert trained["facts"] == {"run": "a"}
    assert run.rounds == [1, 2]
    assert run.status.state == "done"
    assert Path(trained["files"]["report"]).exists()
    assert not list(run.path.rglob("*.training.safetensors"))


@pytest.mark.slow
def test_segmenting_writes_every_prediction_on_the_grid_of_the_image(
    child: EngineChild, trained: dict[str, Any], project: Project, tmp_path: Path
) -> None:
    image = project.image_path(project.case("c6"))
    done = child.ask(
        "segment", image=str(image), project=str(project.folder), run=None, output=str(tmp_path)
    )[-1]
    assert done["event"] == "done", done
    assert set(done["files"]) == {"specialist", "refined", "disagreement", "prompts"}
    run = RunFolder(project.folder / "runs" / "a")
    expected = load_ensemble(run).segment(project.load_image(project.case("c6")))
    written = read_labelmap(Path(done["files"]["refined"]))
    assert (written.labels == expected.refined.labels).all()
    assert written.geometry.matches(read_geometry(image))
    facts = done["facts"]
    assert (facts["run"], facts["method"]) == ("a", "aslseg")
    assert facts["round"] == run.best_round
    assert len(facts["weights"]) == 16
    assert tuple(map(Target.model_validate, facts["targets"])) == LIVER_TARGETS


@pytest.mark.slow
def test_a_volume_unlike_the_labelled_cases_is_told_when_it_is_segmented(
    child: EngineChild, trained: dict[str, Any], project: Project, tmp_path: Path
) -> None:
    run = RunFolder(project.folder / "runs" / "a").path
    known = read_intensities(run)
    assert {one.case_id for one in known} == set(LABELLED)
    image = str(project.image_path(project.case("c6")))
    told = []
    for added in (0.0, 5000.0):
        write_intensities(run, [replace(one, low=one.low + added) for one in known])
        where = {"project": str(project.folder), "output": str(tmp_path / f"{added:.0f}")}
        number = child.send("segment", image=image, run=None, **where)
        events = child.until(lambda e, n=number: e["id"] == n and e["event"] == "done")
        told.append([e["message"] for e in events if e["event"] == "warning"])
    write_intensities(run, known)
    assert not any("Unlike the labelled cases" in message for message in told[0])
    assert any("this volume: its liver is darker (median " in message for message in told[1])


@pytest.mark.slow
def test_failures_are_told_in_words_and_survived(
    child: EngineChild, project: Project, tmp_path: Path
) -> None:
    missing = str(tmp_path / "no.nii.gz")
    where = {"project": str(project.folder), "output": str(tmp_path)}
    assert child.ask("segment", image=missing, **where)[-1]["kind"] in ("image", "run")
    assert child.ask("refine", output=str(tmp_path))[-1]["message"] == "The request lacks 'image'."
    unknown = child.ask("train", project=str(project.folder), settings="no such preset")[-1]
    assert unknown["kind"] == "config"
    assert "no such preset" in unknown["message"]
    nothing = child.ask("train", project=str(tmp_path / "nothing"))[-1]
    assert nothing["kind"] == "project"
    assert nothing["remedy"]


@pytest.mark.slow
def test_accepted_cases_are_trained_on_in_more_rounds_and_rejected_ones_are_not(
    child: EngineChild, trained: dict[str, Any], project: Project
) -> None:
    run = RunFolder(project.folder / "runs" / "a")
    before = {p: p.read_bytes() for p in run.path.glob("round-0[12]/*") if p.is_file()}
    accept(project, run, "c3")
    reject(project, "c2", run)
    done = child.ask("resume", project=str(project.folder), run="a", rounds=1)[-1]
    assert done["event"] == "done", done
    assert run.rounds == [1, 2, 3]
    assert run.config.rounds == 3
    assert run.retrained_rounds == (1, 3)
    assert run.first_folder(3) == run.round(3)
    assert (run.round(3) / "adaptation-liver.safetensors").exists()
    assert set(run.status.label_digests) == {*LABELLED, "c3"}
    rows = {row["case"]: row for row in read_table(run.round(3) / "reliability.csv")}
    assert set(rows) == set(UNLABELLED) - {"c3"}
    assert rows["c2"]["accepted"] == "False"
    assert rows["c2"]["reason"] == "rejected by a person"
    assert not (run.round(3) / "pseudo" / "c2.nii.gz").exists()
    assert before == {p: p.read_bytes() for p in before}, "finished rounds stay as they were"
    origin = json.loads((run.path / "labels" / "origin.json").read_text(encoding="utf-8"))
    assert origin["c3"] == "human"
    assert open_project(project.folder).case("c3").status == "accepted"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_the_device_of_a_request_counts_and_not_that_of_the_run(
    child: EngineChild, trained: dict[str, Any], project: Project, tmp_path: Path
) -> None:
    path = project.folder / "runs" / "a" / "config.json"
    before = path.read_text(encoding="utf-8")
    image = str(project.image_path(project.case("c6")))
    about = {"image": image, "project": str(project.folder), "output": str(tmp_path)}
    for do in ("segment", "refine"):  # the run's own device is auto
        refused = child.ask(do, **about, device="cuda")[-1]
        assert (refused["event"], refused["kind"]) == ("failed", "device"), refused
        assert "CUDA" in refused["message"] or "cuda" in refused["message"]
    path.write_text(json.dumps({**json.loads(before), "device": "cuda"}))  # trained elsewhere
    try:
        assert child.ask("segment", **about)[-1]["kind"] == "device"
        assert child.ask("resume", project=about["project"], run="a")[-1]["kind"] == "device"
        done = child.ask("segment", **about, device="cpu")[-1]
        assert done["event"] == "done", done
        assert done["facts"]["device"] == "cpu"
        resumed = child.ask("resume", project=about["project"], run="a", device="cpu")[-1]
        assert resumed["event"] == "done", resumed
        assert RunFolder(path.parent).config.device == "cuda", "the settings are not changed"
    finally:
        path.write_text(before)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_run_the_device_counts_too(
    child: EngineChild, project: Project, tmp_path: Path
) -> None:
    image = str(project.image_path(project.case("c6")))
    about = {"image": image, "output": str(tmp_path)}
    assert child.ask("refine", **about, device="cuda")[-1]["kind"] == "device"
    done = child.ask("refine", **about, device="cpu")[-1]
    assert (done["event"], done["facts"]["device"]) == ("done", "cpu"), done
    settings = tiny_config().model_dump(mode="json")
    refused = child.ask("train", project=str(project.folder), settings=settings, device="cuda")[-1]
    assert refused["kind"] == "device"


@pytest.mark.parametrize("name", ["../../x", "{outside}", "a/b", "..", "a\\b", "C:x"])
def test_a_run_is_neither_written_nor_read_outside_of_its_project(
    name: str, project: Project, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    name = name.format(outside=outside)
    place = {"project": str(project.folder), "run": name}
    image = str(project.image_path(project.case("c6")))
    before = sorted(project.folder.parent.rglob("*"))
    for do, arguments in (
        ("train", {**place, "settings": tiny_config().model_dump(mode="json")}),
        ("resume", place),
        ("segment", {**place, "image": image, "output": str(tmp_path)}),
    ):
        told: list[Event] = []
        with pytest.raises(RunError, match="cannot be the name of a run"):
            Engine().tasks[do](arguments, Monitor(told.append))
        assert not any(isinstance(event, Artifact) for event in told)
    assert not outside.exists()
    assert sorted(project.folder.parent.rglob("*")) == before


@pytest.mark.slow
def test_the_engine_ends_when_its_input_ends() -> None:
    child = EngineChild()
    child.until(lambda e: e["event"] == "ready")
    assert child.process.stdin is not None
    child.process.stdin.close()
    assert child.process.wait(10) == 0


@pytest.mark.slow
def test_without_torch_the_engine_is_ready_and_says_what_is_missing() -> None:
    code = "import sys; sys.modules['torch'] = None; import aslseg.engine.server as w; w.main()"
    child = EngineChild("-c", code)
    failed = child.ask("train", project="anywhere")[-1]
    child.process.kill()
    assert failed["kind"] == "package"
    assert failed["message"] == "The Python package 'torch' is missing."


@pytest.mark.slow
def test_prints_never_reach_the_protocol() -> None:
    script = (
        "import os, subprocess, sys, aslseg.engine.server as w\n"
        "stream = w.own_output()\n"
        "print('a print'); os.write(1, b'from C\\n')\n"
        "subprocess.run([sys.executable, '-c', 'print(\"a child\")'], check=True)\n"
        "stream.write('protocol\\n'); stream.flush()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
    )
    assert done.stdout == "protocol\n"
    assert {"a print", "from C", "a child"} <= set(done.stderr.splitlines())
