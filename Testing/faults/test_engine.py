"""The engine process and the panel's end of it: damaged lines, many lines, kills, a stopped child.

Every line with an id gets exactly one end; a line without one is refused under the id 0. No answer
is later than 10 s, standard output holds nothing but the protocol, no error is unforeseen, memory
stays flat, and no process is left over.
"""

from __future__ import annotations

import copy
import json
import os
import queue
import random
import re
import signal
import string
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from aslseg.engine.protocol import FINAL, MAX_LINE_BYTES, MAX_WAITING
from aslseg.project.create import create_project, select_cases
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder
from faults.campaigns import Campaign, count, draws
from faults.checks import LIMIT_S, assert_all_readable, assert_lock_is_free, assert_no_traceback
from faults.children import LOGIC, environment
from support.tiny_project import a_tiny_project, tiny_config, write_patients

sys.path.insert(0, str(LOGIC.parent / "SlicerASLseg"))

from ASLsegLib.engine.client import EngineClient, Job

pytestmark = pytest.mark.slow

START_S = 120.0
"""Loading the libraries for the first request may take so long on a machine with other work."""
GROWTH_MIB = 100.0
NO_NETWORK = {
    "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "no_proxy": "",
    "PATH": str(Path(sys.executable).parent),
}  # fmt: skip
KINDS = ("segment", "refine", "train", "resume", "describe", "download", "remove",
         "cancel")  # fmt: skip


# --- An engine, and what it says ----------------------------------------------------------------


class EngineProcess:
    """A real engine; its events come with the time at which they were read."""

    def __init__(self, cache: Path, *arguments: str) -> None:
        command = [sys.executable, *(arguments or ("-m", "aslseg.engine"))]
        env = environment(ASLSEG_CACHE=str(cache), ASLSEG_WEIGHTS=str(cache / "none"), **NO_NETWORK)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
        self.events: queue.SimpleQueue[tuple[float, dict[str, Any]]] = queue.SimpleQueue()
        self.strange: list[bytes] = []
        self.log: list[str] = []
        for take in (self._read, self._read_log):
            threading.Thread(target=take, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = _event_in(line)
            if event is None:
                self.strange.append(line[:200])
            else:
                self.events.put((time.monotonic(), event))

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.decode(errors="replace"))

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def next_end(self, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """Return the next end of a request."""
        until = time.monotonic() + limit_s
        while True:
            left = until - time.monotonic()
            try:
                _, event = self.events.get(timeout=max(left, 0.001))
            except queue.Empty:
                msg = f"no answer within {limit_s} s\n" + "".join(self.log[-20:])
                raise AssertionError(msg) from None
            if event["event"] in FINAL:
                return event

    def ask(
        self, do: str, number: int, limit_s: float = LIMIT_S, **arguments: Any
    ) -> dict[str, Any]:
        self.write(json.dumps({"id": number, "do": do, **arguments}).encode() + b"\n")
        end = self.next_end(limit_s)
        assert end["id"] == number, end
        return end

    @property
    def memory_mib(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def close(self) -> int:
        """Close its input and return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)


def _event_in(line: bytes) -> dict[str, Any] | None:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    is_event = isinstance(event, dict) and isinstance(event.get("id"), int) and event.get("event")
    return event if is_event else None


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EngineProcess]]:
    """The engine of all tests with lines; each goes on with it."""
    engines: list[EngineProcess] = []
    yield engines
    for engine in engines:
        engine.process.kill()
        engine.process.wait()


@pytest.fixture
def engine(started: list[EngineProcess], tmp_path: Path) -> EngineProcess:
    """An engine that has answered once; a fresh one if the last one is gone."""
    if not started or started[-1].process.poll() is not None:
        started.append(EngineProcess(tmp_path / "cache"))
        assert started[-1].ask("describe", 1, START_S)["event"] == "done"
    started[-1].log.clear()
    return started[-1]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A trained project, one without labels, an image, and where answers are written."""
    from aslseg.runs import start_run

    folder = tmp_path_factory.mktemp("engine")
    trained = a_tiny_project(folder / "trained")
    start_run(trained, tiny_config(rounds=1, patience=1), run_id="a")
    files = select_cases(write_patients(folder / "data"), labelled=())
    bare = create_project(folder / "bare", files)
    return {
        "trained": str(trained.folder),
        "bare": str(bare.folder),
        "image": str(trained.image_path(trained.case("c6"))),
        "output": str(folder / "output"),
    }


def template(kind: str, places: dict[str, str], number: int) -> dict[str, Any]:
    """Return a request that the engine answers at once."""
    about = {"image": places["image"], "project": places["trained"], "run": "a"}
    box = {"slice_index": 3, "target": "liver", "component": 0, "box": [5, 5, 20, 21.5]}
    point = {"slice_index": 4, "target": "tumour", "points": [{"xy": [9, 9.5], "positive": False}]}
    arguments: dict[str, dict[str, Any]] = {
        "segment": {**about, "output": places["output"], "device": "cpu"},
        "refine": {
            "image": places["image"], "output": places["output"], "prompts": [box, point],
            "slice_index": None, "edited_slices": [3, 4], "sam": {"model": "none"},
            "targets": [{"name": "liver", "value": 1},
                        {"name": "tumour", "value": 2, "inside": "liver"}],
        },
        "train": {"project": places["bare"], "run": "b", "settings": {
            "preset": "quick", "overrides": {"rounds": 1, "sam.model": "none"}}},
        "resume": {"project": places["bare"], "run": "b", "rounds": 1, "device": "cpu"},
        "describe": {"device": "auto"},
        "download": {"model": "medsam"},
        "remove": {"model": "vit_t"},
        "cancel": {"request": 5},
    }  # fmt: skip
    return {"id": number, "do": kind, **arguments[kind]}


# --- Damage -------------------------------------------------------------------------------------

WAYS = ("value", "drop", "add", "bytes", "cut")

STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 5, 1.5, 1e300, 2**70, "", "a", "../../x", "/", "a\0b", "\ud800", "ä" * 300,
    "a" * 5000, [], [[]], [1, "a"], [None] * 50, {}, {"a": {}}, {"": None}, ["a"] * 3000,
)  # fmt: skip


def damaged(draw: random.Random, request: dict[str, Any]) -> bytes:
    """Return a request with one to three values or bytes that are wrong."""
    values = json.loads(json.dumps(request))
    ways = draw.choices(WAYS, (6, 2, 1, 3, 1), k=draw.randint(1, 3))
    for way in ways:
        if way == "value":
            _put(draw, values, copy.deepcopy(draw.choice(STRANGE)))
        elif way == "drop" and len(values) > 1:
            values.pop(draw.choice(list(values)))
        elif way == "add":
            values["".join(draw.choices(string.printable, k=5))] = copy.deepcopy(
                draw.choice(STRANGE)
            )
    line = bytearray(json.dumps(values).encode())
    for way in ways:
        if way == "bytes":
            for _ in range(draw.randint(1, 4)):
                line[draw.randrange(len(line))] = draw.randrange(256)
        elif way == "cut" and len(line) > 1:
            del line[draw.randrange(1, len(line)) :]
    return bytes(line).replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def _put(draw: random.Random, values: Any, strange: Any) -> None:
    """Put a strange value somewhere into a request, however deep."""
    while True:
        keys = list(values) if isinstance(values, dict) else range(len(values))
        key = draw.choice(list(keys))
        if not (isinstance(values[key], dict | list) and values[key] and draw.random() < 0.7):
            values[key] = strange
            return
        values = values[key]


def ids_of(line: bytes) -> set[int]:
    """Return the ids under which a line may be answered; empty when it needs no answer."""
    if not line.strip():
        return set()
    found = re.match(r'\s*\{\s*"id"\s*:\s*(\d{1,15})\s*[,}]', line.decode("utf-8", "replace"))
    broken = {int(found.group(1)) if found else 0}
    try:
        values = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return broken
    if not isinstance(values, dict):
        return {0}
    number = values.get("id", 0)
    if type(number) is not int or not 0 <= number < 2**53:
        return {0}
    if number == 0 and values.get("do") in ("cancel", "close"):
        return set()
    return {number}


def assert_in_words(end: dict[str, Any]) -> None:
    """Make sure that a refusal is one that somebody foresaw."""
    if end["event"] == "failed":
        assert end["message"], end
        assert end["kind"] != "internal", end
        assert len(end["message"]) < 1500, end["message"]


# --- Lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_lines(
    kind: str, campaign: Campaign, engine: EngineProcess, places: dict[str, str]
) -> None:
    draw = draws(f"lines {kind}")
    ask_first(engine, kind, places)
    before = engine.memory_mib
    for number in range(10, 10 + count(short=12, full=300)):
        line = damaged(draw, template(kind, places, number))
        expected = ids_of(line)
        if not expected or b'"close"' in line:
            continue
        with campaign.case(line[:600]):
            engine.write(line)
            end = engine.next_end()
            assert end["id"] in expected, (end, expected)
            assert_in_words(end)
    with campaign.case("afterwards"):
        assert engine.ask("describe", 2)["event"] == "done"
        assert engine.events.empty()
        assert engine.strange == []
        assert engine.memory_mib - before < GROWTH_MIB
        assert_no_traceback("".join(engine.log))


def ask_first(engine: EngineProcess, kind: str, places: dict[str, str]) -> None:
    """Ask the undamaged question, so that all libraries and networks are loaded."""
    end = engine.ask(kind, 3, START_S, **_arguments(template(kind, places, 3)))
    right = {"segment": "done", "describe": "done", "remove": "done", "cancel": "done"}
    assert end["event"] == right.get(kind, end["event"]), end
    assert_in_words(end)


def _arguments(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name not in ("id", "do")}


def mixed_lines(draw: random.Random, how_many: int) -> Iterator[tuple[bytes, int]]:
    """Yield lines good and bad, each with the id that it is answered under."""
    bad = (b"\xff\xfe", b"[" * 5000, b"[1]", b'"a"', b'{"id": 1e400, "do": "remove"}', b"{")
    for number in range(10, 10 + how_many):
        way = draw.random()
        if way < 0.5:
            request = {"id": number, "do": "remove", "model": "vit_t"}
            yield json.dumps(request).encode() + b"\n", number
        elif way < 0.6:
            request = {"id": number, "do": "cancel", "request": number - draw.randint(1, 20)}
            yield json.dumps(request).encode() + b"\n", number
        elif way < 0.7:
            yield f'{{"id": {number}, "do": "dance"}}\n'.encode(), number
        elif way < 0.8:
            yield f'{{"id": {number}, "do": "remove", "model": {draw.random()}}}\n'.encode(), number
        elif way < 0.9:
            yield f'{{"id": {number}, "do": "rem'.encode() + b"\xff\n", number
        else:
            yield draw.choice(bad) + b"\n", 0


def test_many_lines(campaign: Campaign, engine: EngineProcess) -> None:
    how_many, at_once = count(short=1000, full=100_000), 200
    lines = list(mixed_lines(draws("many lines"), how_many))
    ends: Counter[int] = Counter()
    sent: dict[int, float] = {}
    late: list[float] = []
    memory: list[float] = []
    open_ones, refused = 0, 0

    def take(limit_s: float = LIMIT_S) -> None:
        nonlocal open_ones, refused
        end = engine.next_end(limit_s)
        ends[end["id"]] += 1
        open_ones -= 1
        refused += end["id"] == 0
        if end["id"]:
            late.append(time.monotonic() - sent[end["id"]])
        assert_in_words(end)

    for n, (line, number) in enumerate(lines):
        while open_ones >= at_once:
            take()
        sent[number] = time.monotonic()
        engine.write(line)
        open_ones += 1
        if n % max(how_many // 10, 1) == 0:
            memory.append(engine.memory_mib)
    while open_ones:
        take()
    for number in (number for _, number in lines if number):
        with campaign.case(number):
            assert ends[number] == 1
    with campaign.case("afterwards"):
        assert refused == sum(number == 0 for _, number in lines)
        assert engine.ask("describe", 2)["event"] == "done"
        assert engine.events.empty()
        assert engine.strange == []
        assert max(late) <= LIMIT_S
        assert engine.memory_mib - memory[1] < GROWTH_MIB, memory
        assert_no_traceback("".join(engine.log))


def test_more_requests_at_once_than_can_wait(campaign: Campaign, engine: EngineProcess) -> None:
    numbers = range(10, 10 + 3 * MAX_WAITING)
    lines = [f'{{"id": {n}, "do": "remove", "model": "vit_t"}}\n'.encode() for n in numbers]
    engine.write(b"".join(lines))
    ends = [engine.next_end() for _ in numbers]
    for number in numbers:
        with campaign.case(number):
            assert sum(end["id"] == number for end in ends) == 1
    with campaign.case("all are told"):
        refusals = {end["message"] for end in ends if end["event"] == "failed"}
        assert refusals <= {f"{MAX_WAITING} requests are waiting."}


def test_lines_at_the_bounds(campaign: Campaign, engine: EngineProcess) -> None:
    before = engine.memory_mib
    for number, length in enumerate(
        (1 << 20, MAX_LINE_BYTES - 60, MAX_LINE_BYTES, 5 * MAX_LINE_BYTES), 10
    ):
        with campaign.case(length):
            engine.write(f'{{"id": {number}, "do": "remove", "model": "'.encode())
            engine.write(b"a" * length + b'"}\n')
            end = engine.next_end(60)
            assert (end["id"], end["event"]) == (number, "failed")
            assert_in_words(end)
    with campaign.case("10,000 prompts"):
        prompt = {"slice_index": 3, "target": "liver", "box": [0, 0, 9, 9]}
        end = engine.ask("refine", 20, image="a", output="b", prompts=[prompt] * 10_000)
        assert "at most 2000" in end["message"]
    with campaign.case("memory"):
        assert engine.memory_mib - before < 4 * MAX_LINE_BYTES / 2**20 + GROWTH_MIB


def test_the_end_of_the_input(campaign: Campaign, engine: EngineProcess) -> None:
    with campaign.case("close"):
        assert engine.close() == 0
        assert engine.strange == []


# --- The panel's end ----------------------------------------------------------------------------


class Panel:
    """What a panel has of the engine: a client that is polled."""

    def __init__(self, *python: str) -> None:
        self.events: list[Any] = []
        command = python or [sys.executable]
        self.client = EngineClient(command, LOGIC, environment())
        self.client.event.connect(self.events.append)

    def start(self, do: str, **arguments: Any) -> None:
        self.client.start(Job(do, arguments))

    def until(self, reached: Callable[[], Any], limit_s: float, what: str) -> None:
        end = time.monotonic() + limit_s
        while not reached():
            assert time.monotonic() < end, f"not within {limit_s} s: {what}; {self.events[-3:]}"
            self.client.poll()
            time.sleep(0.005)

    def received(self, *kinds: str) -> list[Any]:
        return [event for event in self.events if event.event in kinds]

    def ask_again(self) -> None:
        """Make sure that the next request has a fresh engine and an answer."""
        self.events.clear()
        self.start("describe", device="cpu")
        self.until(lambda: self.received(*FINAL), START_S, "an answer of the next engine")
        assert [event.event for event in self.received(*FINAL)] == ["done"]


@pytest.fixture
def panel() -> Iterator[Panel]:
    panel = Panel()
    yield panel
    panel.client.close()


def tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def are_gone(processes: list[psutil.Process], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while any(_is_alive(process) for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def training(folder: Path) -> dict[str, Any]:
    """Return a request that trains for longer than anybody waits."""
    project = a_tiny_project(folder)
    config = tiny_config()
    organ = config.organ.model_copy(update={"iterations": 20_000})
    settings = config.model_copy(update={"organ": organ}).model_dump(mode="json")
    return {"project": str(project.folder), "settings": settings, "run": "a"}


def assert_run_is_whole(folder: Path) -> None:
    """Make sure that a run that was cut off is readable and nobody's."""
    run = RunFolder(folder / "runs" / "a")
    if run.path.exists():
        assert_lock_is_free(run.path / "lock")
        assert_all_readable(run.path)
    assert open_project(folder).labelled


PANEL = """
import sys, time
sys.path[:0] = [{logic!r}, {slicer!r}]
from pathlib import Path
from ASLsegLib.engine.client import EngineClient, Job
import json
client = EngineClient([sys.executable], Path({logic!r}))
client.event.connect(lambda event: print(event.event, flush=True))
client.start(Job("train", json.loads(sys.argv[1])))
told = False
while True:
    client.poll()
    if not told and client.pid:
        told = True
        print("pid", client.pid, flush=True)
    time.sleep(0.01)
"""


def test_the_panel_is_killed_while_the_engine_works(campaign: Campaign, tmp_path: Path) -> None:
    draw = draws("kills of the panel")
    code = PANEL.format(logic=str(LOGIC), slicer=str(LOGIC.parent / "SlicerASLseg"))
    for number in range(count(short=1, full=25)):
        request = training(tmp_path / str(number))
        with campaign.case(number):
            killed = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(request)],
                stdout=subprocess.PIPE,
                env=environment(),
                start_new_session=True,
            )
            assert killed.stdout is not None
            pid = _pid_said_by(killed.stdout)
            if draw.random() < 0.8:
                _wait_for_word(killed.stdout, b"metric")
            time.sleep(draw.random() * 2)
            processes = tree(pid)
            assert processes, "the engine works"
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            gone = are_gone(processes, 20.0)
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            assert gone, "the engine outlived the panel"
            assert_run_is_whole(Path(request["project"]))


def _pid_said_by(stream: Any) -> int:
    for line in stream:
        if line.startswith(b"pid"):
            return int(line.split()[1])
    msg = "the panel ended"
    raise AssertionError(msg)


def _wait_for_word(stream: Any, word: bytes) -> None:
    for line in stream:
        if line.strip() == word:
            return


def test_the_engine_is_killed_under_a_running_panel(
    campaign: Campaign, panel: Panel, tmp_path: Path
) -> None:
    draw = draws("kills of the engine")
    for number in range(count(short=1, full=25)):
        request = training(tmp_path / str(number))
        with campaign.case(number):
            panel.events.clear()
            panel.start("train", **request)
            panel.until(lambda: panel.client.pid, START_S, "the engine is started")
            if draw.random() < 0.8:
                panel.until(lambda: panel.received("metric"), START_S, "the engine trains")
            time.sleep(draw.random())
            pid = panel.client.pid
            assert pid is not None
            processes = tree(pid)
            os.kill(pid, signal.SIGKILL)
            panel.until(lambda: panel.received(*FINAL), LIMIT_S, "its end is told")
            (end,) = panel.received(*FINAL)
            assert end.event == "failed"
            assert "killed by the system" in end.message
            assert end.remedy
            assert are_gone(processes, LIMIT_S)
            assert_run_is_whole(Path(request["project"]))
            panel.ask_again()
            assert panel.client.pid != pid


def test_the_engine_is_stopped_under_a_running_panel(
    campaign: Campaign, panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limit(monkeypatch, "SILENT_S", 3.0)
    draw = draws("stopped engines")
    for number in range(count(short=1, full=5)):
        request = training(tmp_path / str(number))
        with campaign.case(number):
            panel.events.clear()
            panel.start("train", **request)
            panel.until(lambda: panel.received("metric"), START_S, "the engine trains")
            time.sleep(draw.random())
            pid = panel.client.pid
            assert pid is not None
            processes = tree(pid)
            panel.events.clear()
            os.kill(pid, signal.SIGSTOP)
            panel.until(lambda: panel.received("silent"), LIMIT_S, "the silence is told")
            assert "does not answer" in panel.received("silent")[0].message
            panel.client.cancel()
            panel.until(lambda: panel.received(*FINAL), LIMIT_S, "it is stopped")
            assert [end.event for end in panel.received(*FINAL)] == ["cancelled"]
            assert are_gone(processes, LIMIT_S)
            assert_run_is_whole(Path(request["project"]))
            panel.ask_again()


def set_limit(monkeypatch: pytest.MonkeyPatch, name: str, seconds: float) -> None:
    """Set a limit of the client's own module: tests of the panel may have imported it anew."""
    own = EngineClient.poll.__globals__
    assert name in own
    monkeypatch.setitem(own, name, seconds)


ENDLESS = """
import aslseg.engine.server as server
def endless(*_):
    while True:
        pass
server.ALIVE_S = 0.2
server.load_tasks = lambda: {"describe": endless}
server.main()
"""


def test_a_loop_without_end_is_noticed_and_stopped(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limit(monkeypatch, "QUIET_S", 2.0)
    panel = Panel(sys.executable, "-c", ENDLESS)
    for number in range(count(short=1, full=5)):
        with campaign.case(number):
            panel.events.clear()
            panel.start("describe")
            panel.until(lambda: panel.received("silent"), START_S, "the loop is told")
            assert "without any progress" in panel.received("silent")[0].message
            assert panel.client.pid is not None
            processes = tree(panel.client.pid)
            panel.client.cancel()
            panel.until(lambda: panel.received(*FINAL), LIMIT_S, "it is stopped")
            assert [end.event for end in panel.received(*FINAL)] == ["cancelled"]
            assert are_gone(processes, LIMIT_S)
    panel.client.close()
