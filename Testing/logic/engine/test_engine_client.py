"""The client with real processes: states, order, cancelling, and every way to die."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "SlicerASLseg"))

from aslseg.engine.protocol import MAX_LINE_BYTES, RequestError  # noqa: E402
from aslseg.errors import CancelledError  # noqa: E402
from ASLsegLib.engine.client import EngineBusyError, EngineClient, EngineError, Job  # noqa: E402
from ASLsegLib.engine.process import EngineProcess, explain  # noqa: E402

CLIENT = EngineClient.poll.__globals__
"""Of the client's module, which tests of the panel load anew under its name."""

# As PythonSlicer does, it hides whether its child was killed or crashed.
LAUNCHER = """
import subprocess, sys

code = subprocess.run([sys.executable, *sys.argv[1:]]).returncode
if code < 0:
    print("error: [python-real] exit abnormally - Report the problem.", file=sys.stderr)
sys.exit(1 if code < 0 else code)
"""

# A stand-in for `aslseg.engine`: it says that it is ready, then runs the code in the settings.
ENGINE = """
import json, os, subprocess, sys, time

def say(number, event, **facts):
    print(json.dumps({"id": number, "event": event, **facts}), flush=True)

def done(*values):
    say(number, "done", files={}, facts={"removed": [str(value) for value in values]})

def progress(step):
    say(number, "progress", task="a task", step=step, of=0)

def pids(*values):
    say(number, "artifact", kind="pids", path=" ".join(map(str, values)))

say(0, "ready", version="0", pid=os.getpid(), protocol=2)
for line in sys.stdin:
    request = json.loads(line)
    number, do = request["id"], request["do"]
    if do == "close":
        break
    if do == "cancel":
        continue
    exec(compile(request["settings"]["code"], do, "exec"))
"""


def job(code: str, **parts: Any) -> Job:
    settings = {"code": textwrap.dedent(code)}
    return Job("train", {"project": "p", "settings": settings}, **parts)


class Panel:
    """Keeps what a client emits, and waits as an event loop would."""

    def __init__(self, python: str, library: Path, *arguments: str) -> None:
        self.client = EngineClient([python, *arguments], library)
        self.states: list[str] = []
        self.events: list[Any] = []
        self.log: list[str] = []
        self.client.changed.connect(lambda state: self.states.append(state.value))
        self.client.event.connect(self.events.append)
        self.client.log.connect(self.log.append)

    def run(self, code: str, **parts: Any) -> None:
        self.client.start(job(code, **parts))

    def until(self, reached: Callable[[], bool], timeout_s: float = 20.0) -> None:
        end = time.monotonic() + timeout_s
        while not reached():
            assert time.monotonic() < end, (self.states, self.events, self.log)
            self.client.poll()
            time.sleep(0.005)

    def wait_for_items(self, count: int) -> None:
        """Wait until so many lines of the engine have come in that no poll has taken yet."""
        end = time.monotonic() + 20.0
        while self.client._process.items.qsize() < count:
            assert time.monotonic() < end
            time.sleep(0.005)

    def until_final(self) -> Any:
        self.until(lambda: bool(self.received("done", "failed", "cancelled")))
        return self.received("done", "failed", "cancelled")[0]

    def received(self, *kinds: str) -> list[Any]:
        return [event for event in self.events if event.event in kinds]

    def pids(self) -> list[int]:
        self.until(lambda: bool(self.received("artifact")))
        return [int(word) for word in self.received("artifact")[0].path.split()]


def values_of(done: Any) -> list[str]:
    values: list[str] = done.facts.removed
    return values


@pytest.fixture
def library(tmp_path: Path) -> Path:
    package = tmp_path / "library" / "aslseg"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "engine" / "__init__.py").touch()
    (package / "engine" / "__main__.py").write_text(ENGINE)
    return package.parent


@pytest.fixture
def panel(library: Path) -> Iterator[Panel]:
    panel = Panel(sys.executable, library)
    yield panel
    panel.client.close()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_request_goes_from_starting_through_running_to_idle(panel: Panel) -> None:
    panel.run("progress(1)\ndone(5)")
    assert panel.client.state == "starting"
    assert values_of(panel.until_final()) == ["5"]
    assert panel.states == ["starting", "running", "idle"]
    assert [event.event for event in panel.events] == ["progress", "done"]
    assert any(line.startswith("Engine 0 is process ") for line in panel.log)


def test_the_process_stays_warm_between_requests(panel: Panel) -> None:
    panel.run("warm = 41\ndone()")
    panel.until_final()
    first = panel.client.pid
    panel.events.clear()
    panel.run("done(warm + 1)")
    assert values_of(panel.until_final()) == ["42"]
    assert panel.client.pid == first
    assert panel.states == ["starting", "running", "idle", "running", "idle"]


def test_one_request_at_a_time(panel: Panel) -> None:
    panel.run("time.sleep(0.2)\ndone()", show=lambda _: iter(["a part"]))
    with pytest.raises(EngineBusyError, match="cancel first"):
        panel.run("done()")
    panel.until(lambda: panel.client.state == "importing")
    with pytest.raises(EngineBusyError, match="importing"):
        panel.run("done()")
    panel.until_final()


# -- what comes before and after a request ---------------------------------------------------------


def test_files_are_written_before_and_results_read_and_shown_after_the_request(
    panel: Panel, tmp_path: Path
) -> None:
    path, steps = tmp_path / "image", []

    def show(value: str) -> Iterator[str]:
        for part in (value, "the end"):
            yield part
            steps.append(part)

    panel.run(
        f"done(open({str(path)!r}).read())",
        prepare=lambda: path.write_text("voxels") and None,
        read=lambda done: values_of(done)[0].upper(),
        show=show,
    )
    panel.until_final()
    assert steps == ["VOXELS", "the end"]
    assert panel.states == ["starting", "running", "importing", "idle"]
    assert [e.task for e in panel.received("progress")] == steps
    assert panel.events[-1].event == "done", "it comes when all is shown"


@pytest.mark.parametrize("part", ["prepare", "read", "show"])
def test_what_fails_beside_the_engine_fails_the_job_and_leaves_the_engine(
    panel: Panel, part: str
) -> None:
    def fails(*_: Any) -> Any:
        raise EngineError("The disk is full; free some space.")  # noqa: EM101

    parts: dict[str, Any] = {"show": lambda _: iter(())}
    panel.run("done()", **{**parts, part: fails})
    failed = panel.until_final()
    assert (failed.message, failed.kind) == ("The disk is full; free some space.", "panel")
    assert panel.client.state == "failed"
    panel.events.clear()
    panel.run("done()")
    assert panel.until_final().event == "done"


def test_cancelling_before_the_request_is_sent_sends_nothing(panel: Panel) -> None:
    panel.run("done()", prepare=lambda: time.sleep(0.3))
    panel.client.cancel()
    assert panel.client.state == "cancelling"
    assert panel.until_final().event == "cancelled"
    assert panel.client.pid is None
    assert panel.states == ["starting", "cancelling", "idle"]


def test_results_that_were_there_before_the_request_to_stop_are_shown(panel: Panel) -> None:
    shown: list[str] = []
    panel.run(
        "progress(1)\ntime.sleep(0.2)\ndone(7)",
        read=values_of,
        show=lambda values: iter(shown.extend(values) or ["a part"]),
    )
    panel.until(lambda: bool(panel.received("progress")))
    panel.client.cancel()
    assert panel.until_final().event == "done"
    assert shown == ["7"]


def test_closing_while_files_are_written_sends_nothing_later(panel: Panel) -> None:
    panel.run("done()", prepare=lambda: time.sleep(0.3))
    panel.client.close()
    written = time.monotonic() + 0.6
    panel.until(lambda: time.monotonic() > written)
    assert panel.client.pid is None
    assert panel.events == []
    assert panel.client.state == "idle"


def test_a_script_waits_for_the_answer_or_the_error(panel: Panel) -> None:
    panel.run("done(3)")
    assert values_of(panel.client.wait()) == ["3"]
    panel.run("say(number, 'failed', message='No.', remedy='Do.', kind='image')")
    with pytest.raises(EngineError, match=r"^No\. Do\.$"):
        panel.client.wait()
    panel.run("say(number, 'cancelled', message='Stopped after step 1.')")
    with pytest.raises(CancelledError, match="step 1"):
        panel.client.wait()


def test_a_listener_may_ask_for_the_next_thing_at_once(panel: Panel) -> None:
    def go_on(event: Any) -> None:
        if event.event == "done" and not values_of(event):
            panel.run("done('last')")

    panel.client.event.connect(go_on)
    panel.run("done()")
    panel.until(lambda: any(values_of(event) for event in panel.received("done")))
    assert panel.client.state == "idle"


# -- lines that cannot be understood ---------------------------------------------------------------


def test_an_answer_with_a_field_that_the_panel_does_not_know_fails_the_request(
    panel: Panel,
) -> None:
    panel.run("say(number, 'done', files={}, facts={'removed': [], 'surprise': 1})")
    failed = panel.until_final()
    assert failed.kind == "protocol"
    assert failed.message.startswith("The engine sent what this panel does not understand")
    assert any("surprise" in line for line in panel.log)
    assert failed.remedy.startswith("Reinstall the extension")
    assert panel.client.state == "failed"


def test_progress_with_a_field_that_the_panel_does_not_know_is_logged(panel: Panel) -> None:
    panel.run("say(number, 'progress', task='a', step=1, of=2, surprise=3)\ndone()")
    assert panel.until_final().event == "done"
    assert panel.received("progress") == []
    assert any("surprise" in line for line in panel.log)


def test_an_error_of_the_library_leaves_the_child_alive(panel: Panel) -> None:
    panel.run("say(number, 'failed', message='No.', remedy='Do.', kind='image')")
    failed = panel.until_final()
    assert (failed.message, failed.kind) == ("No.", "image")
    assert panel.client.state == "failed"
    assert panel.client.pid is not None
    panel.events.clear()
    panel.run("done()")
    assert panel.until_final().event == "done"


def test_lines_of_other_requests_and_no_lines_of_ours_do_not_end_a_request(panel: Panel) -> None:
    panel.run(
        """
        say(99, 'done', files={}, facts={"removed": []})
        print('not json')
        print('[1, 2]')
        print('stray print', file=sys.stderr, flush=True)
        progress(1)
        done('ours')
        done('twice')
        """
    )
    panel.until(lambda: any("'twice'" in line for line in panel.log))
    panel.until(lambda: "stray print" in panel.log)
    assert panel.client.state == "idle"
    assert panel.states.count("idle") == 1
    assert {"not json", "[1, 2]"} <= set(panel.log)
    assert [values_of(event) for event in panel.received("done")] == [["ours"]]


def test_all_lines_come_before_the_end_of_a_child_that_dies(panel: Panel) -> None:
    panel.run(
        """
        for step in range(5000):
            progress(step)
        os._exit(3)
        """
    )
    failed = panel.until_final()
    assert [event.step for event in panel.received("progress")] == list(range(5000))
    assert panel.events[-1] is failed
    assert failed.message.startswith("The engine ended unexpectedly (code 3)")
    assert panel.client.state == "failed"
    assert panel.client.pid is None


def test_one_poll_takes_no_longer_than_its_budget(
    panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    panel.run(
        f"""
        progress(0)
        while not os.path.exists({str(go)!r}):
            time.sleep(0.005)
        for step in range(1, 50):
            progress(step)
        done()
        """
    )
    panel.until(lambda: bool(panel.received("progress")))
    go.touch()
    panel.wait_for_items(50)
    before = len(panel.events)
    seconds = map(float, itertools.count())  # one passes whenever the clock is looked at
    with monkeypatch.context() as patch:
        clock = SimpleNamespace(monotonic=lambda: next(seconds))
        patch.setitem(CLIENT, "time", clock)
        panel.client.poll(20.0)
    assert 0 < len(panel.events) - before <= 20
    panel.until_final()
    assert [event.step for event in panel.received("progress")] == list(range(50))


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        pytest.param("os.kill(os.getpid(), 9)", "memory", "killed by the system", id="kill -9"),
        pytest.param("os._exit(137)", "memory", "killed by the system", id="137"),
        pytest.param("os.abort()", "crash", "crashed", id="abort"),
        pytest.param("raise MemoryError", "memory", "ran out of memory", id="memory"),
        pytest.param("import torchh", "package", "'torchh' is missing", id="package"),
        pytest.param(
            "raise RuntimeError('CUDA out of memory. Tried to allocate')",
            "gpu_memory",
            "graphics card ran out",
            id="gpu memory",
        ),
    ],
)
def test_every_death_has_words_and_a_remedy(panel: Panel, code: str, kind: str, words: str) -> None:
    panel.run(code)
    failed = panel.until_final()
    assert failed.kind == kind
    assert words in failed.message
    assert failed.remedy.endswith(".")
    assert panel.client.state == "failed"


def test_a_python_that_is_not_there_is_reported(library: Path) -> None:
    panel = Panel("/no/such/python", library)
    panel.run("pass")
    failed = panel.until_final()
    assert failed.kind == "start"
    assert "/no/such/python" in failed.message
    assert panel.states == ["starting", "failed"]


def test_after_a_death_a_request_starts_a_fresh_child(panel: Panel) -> None:
    panel.run("os._exit(3)")
    panel.until_final()
    panel.events.clear()
    panel.run("done()")
    assert panel.until_final().event == "done"


STUBBORN = """
    import signal
    grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    apart = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],
                             start_new_session=True)
    pids(os.getpid(), grandchild.pid, apart.pid)
    time.sleep(60)
"""


@contextmanager
def waiting_for_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make sure that this thread waits for no process and kills none itself, which takes long."""
    asked: list[str] = []
    this = threading.current_thread()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            asked.extend([name] * (threading.current_thread() is this))
            return call(*arguments)

        return counting

    with monkeypatch.context() as patch:
        for owner, name in (
            (EngineProcess, "wait"),
            (EngineProcess, "kill"),
            (threading.Thread, "join"),
            (time, "sleep"),
        ):
            patch.setattr(owner, name, counted(name, getattr(owner, name)))
        yield
    assert asked == []


def test_a_stubborn_child_dies_with_its_tree_within_three_seconds(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.run(STUBBORN)
    pids = panel.pids()
    assert all(alive(pid) for pid in pids)
    began = time.monotonic()
    with waiting_for_nothing(monkeypatch):
        panel.client.cancel()
    assert panel.client.state == "cancelling"
    cancelled = panel.until_final()
    assert time.monotonic() - began < 3.0
    assert cancelled.event == "cancelled"
    assert not any(alive(pid) for pid in pids)
    assert panel.states == ["starting", "running", "cancelling", "idle"]


def test_without_psutil_the_process_group_is_killed(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "win32":
        pytest.skip("taskkill does it there")
    monkeypatch.setitem(sys.modules, "psutil", None)
    panel.run(STUBBORN)
    own, grandchild, apart = panel.pids()
    panel.client.cancel()
    panel.until_final()
    monkeypatch.undo()
    assert not alive(own)
    assert not alive(grandchild)
    os.kill(apart, 9)  # it left the group, and nobody else knows of it


def test_a_child_that_stops_when_asked_is_gone_at_once(panel: Panel) -> None:
    panel.run(
        """
        progress(1)
        assert json.loads(sys.stdin.readline())['do'] == 'cancel'
        say(number, 'cancelled', message='Stopped after step 1.')
        """
    )
    panel.until(lambda: bool(panel.received("progress")))
    began = time.monotonic()
    panel.client.cancel()
    assert panel.until_final().event == "cancelled"
    assert time.monotonic() - began < 1.5
    assert panel.client.pid is None


def test_a_result_that_was_there_before_the_request_to_stop_counts(panel: Panel) -> None:
    panel.run("progress(1)\ntime.sleep(0.2)\ndone(7)")
    panel.until(lambda: bool(panel.received("progress")))
    panel.client.cancel()
    assert values_of(panel.until_final()) == ["7"]
    assert panel.client.state == "idle"


def test_cancelling_while_starting_kills_too(panel: Panel) -> None:
    panel.run("time.sleep(60)")
    panel.client.cancel()
    assert panel.until_final().event == "cancelled"
    assert panel.client.pid is None


def test_cancelling_nothing_does_nothing(panel: Panel) -> None:
    panel.client.cancel()
    assert panel.states == []


def test_an_engine_that_is_killed_behind_slicers_launcher_is_told_of(library: Path) -> None:
    (library / "launcher.py").write_text(LAUNCHER)
    panel = Panel(sys.executable, library, str(library / "launcher.py"))
    panel.run("os.kill(os.getpid(), 9)")
    failed = panel.until_final()
    panel.client.close()
    assert (failed.kind, panel.client.state) == ("killed", "idle")
    assert "most often memory ran out" in failed.message


def test_what_a_dead_child_left_running_is_killed(panel: Panel) -> None:
    if not hasattr(os, "waitid"):
        pytest.skip("needs waitid")
    panel.run(
        """
        left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
        pids(left.pid)
        os._exit(5)
        """
    )
    assert panel.until_final().event == "failed"
    (pid,) = panel.pids()
    panel.until(lambda: not alive(pid), 3.0)


def test_a_refusal_of_a_line_ends_the_request_that_it_was(panel: Panel) -> None:
    panel.run("say(0, 'failed', message='No request.', remedy='', kind='request')")
    failed = panel.until_final()
    assert failed.message == "No request."
    assert panel.client.state == "failed"


def test_deep_and_endless_output_does_not_stop_the_panel_from_listening(panel: Panel) -> None:
    panel.run(
        """
        print('[' * 200_000)
        print('a' * 25_000, file=sys.stderr)
        sys.stdout.buffer.write(b'\\xff\\xfe\\n')
        done()
        """
    )
    assert panel.until_final().event == "done"
    panel.until(lambda: sum(line == "a" * 10_000 for line in panel.log) == 2)


def test_what_cannot_be_sent_is_an_error_at_once_and_changes_nothing(panel: Panel) -> None:
    with pytest.raises(TypeError, match="JSON"):
        panel.client.start(Job("train", {"project": "p", "settings": {"code": Path("x")}}))
    with pytest.raises(RequestError, match="too long"):
        panel.run("a" * MAX_LINE_BYTES)
    with pytest.raises(RequestError, match="unknown field 'surprise'"):
        panel.client.start(Job("describe", {"surprise": 1}))
    assert panel.client.state == "idle"
    panel.run("done()")
    assert panel.until_final().event == "done"


@pytest.fixture
def soon_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIENT, "SILENT_S", 0.6)


def test_a_stopped_child_is_noticed_and_goes_away_when_cancelled(
    panel: Panel, soon_silent: None
) -> None:
    if not hasattr(signal, "SIGSTOP"):
        pytest.skip("nothing can be stopped here")
    panel.run(
        """
        grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
        pids(os.getpid(), grandchild.pid)
        time.sleep(60)
        """
    )
    pids = panel.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    panel.until(lambda: bool(panel.received("silent")))
    (silent,) = panel.received("silent")
    assert silent.message == "The engine does not answer any more."
    assert "stop it" in silent.remedy
    began = time.monotonic()
    panel.client.cancel()
    assert panel.until_final().event == "cancelled"
    assert time.monotonic() - began < 5.0
    assert not any(alive(pid) for pid in pids)
    panel.events.clear()
    panel.run("done()")
    assert panel.until_final().event == "done"


def test_silence_is_told_once_and_its_end_too(
    panel: Panel, soon_silent: None, tmp_path: Path
) -> None:
    go_on, end = tmp_path / "go on", tmp_path / "end"
    panel.run(
        f"""
        progress(1)
        while not os.path.exists({str(go_on)!r}):
            time.sleep(0.01)
        progress(2)
        while not os.path.exists({str(end)!r}):
            time.sleep(0.01)
        done()
        """
    )
    panel.until(lambda: bool(panel.received("silent")))
    go_on.touch()
    panel.until(lambda: bool(panel.received("answering")))
    end.touch()
    panel.until_final()
    kinds = [event.event for event in panel.events]
    assert kinds == ["progress", "silent", "progress", "answering", "done"]


def test_a_child_that_lives_is_not_silent_but_work_without_progress_is_told(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLIENT, "QUIET_S", 5.0)
    panel.run(
        """
        for quiet_s in (1.0, 2.0, 3.0, 4.0):
            say(number, 'alive', quiet_s=quiet_s)
            time.sleep(0.3)
        while True:
            say(number, 'alive', quiet_s=360.0)
            time.sleep(0.3)
        """
    )
    panel.until(lambda: bool(panel.received("silent")))
    (silent,) = panel.received("silent")
    assert silent.message == "The engine works without any progress for 6 min."
    assert panel.received("alive") == []


def test_a_panel_that_was_busy_itself_does_not_blame_the_child(
    panel: Panel, soon_silent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLIENT, "_NOT_POLLED_S", 0.3)
    panel.run("progress(1)\ntime.sleep(2)\ndone()")
    panel.until(lambda: bool(panel.received("progress")))
    time.sleep(1.0)
    panel.client.poll()
    assert panel.received("silent") == []


def test_an_idle_child_that_was_killed_is_replaced_before_its_end_was_seen(panel: Panel) -> None:
    panel.run("done()")
    panel.until_final()
    child = panel.client.pid
    assert child is not None
    os.kill(child, 9)
    time.sleep(0.5)
    panel.events.clear()
    panel.run("done(os.getpid())")
    assert values_of(panel.until_final()) not in ([], [str(child)])


def test_closing_ends_the_tree_without_waiting_or_emitting(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.run(STUBBORN)
    pids = panel.pids()
    panel.events.clear()
    with waiting_for_nothing(monkeypatch):
        panel.client.close()
    assert panel.client.state == "idle"
    panel.until(lambda: not any(alive(pid) for pid in pids), 3.0)
    panel.client.poll()
    assert panel.events == []


def test_a_child_does_not_outlive_an_application_that_quits(library: Path, tmp_path: Path) -> None:
    application = f"""
        import sys, time
        sys.path.insert(0, {str(ROOT / "SlicerASLseg")!r})
        from pathlib import Path
        sys.path.insert(0, {str(ROOT / "Logic")!r})
        from ASLsegLib.engine.client import EngineClient, Job
        client = EngineClient([sys.executable], Path({str(library)!r}))
        settings = {{"code": {textwrap.dedent(STUBBORN)!r}}}
        client.start(Job("train", {{"project": "p", "settings": settings}}))
        end = time.monotonic() + 15
        seen = []
        client.event.connect(lambda event: event.event == "artifact" and seen.append(event.path))
        while not seen and time.monotonic() < end:
            client.poll()
            time.sleep(0.01)
        print("PIDS", *seen, flush=True)
    """
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(application)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("PIDS"))
    pids = [int(word) for word in line.split()[1:]]
    assert len(pids) == 3
    end = time.monotonic() + 3
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize(
    ("code", "last_lines", "kind"),
    [
        (1, ["ImportError: DLL load failed while importing _C"], "package"),
        (1, ["OSError: libcudart.so.12: cannot open shared object file"], "package"),
        (-9, ["MemoryError of an earlier request"], "memory"),
        (0xC0000005, [], "crash"),
        (1, ["error: [/opt/bin/./python-real] exit abnormally - Report the problem."], "killed"),
        (1, [], "ended"),
    ],
)
def test_codes_and_last_words_are_understood(code: int, last_lines: list[str], kind: str) -> None:
    assert explain(code, last_lines).kind == kind
