"""The runner with real child processes: states, order, cancelling, and every way to die."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "SlicerASLseg"))

from aslseg.engine.protocol import MAX_LINE_BYTES, RequestError  # noqa: E402
from ASLsegLib.engine.client import EngineBusyError, EngineClient  # noqa: E402
from ASLsegLib.engine.failures import explain  # noqa: E402

# A stand-in for `aslseg.engine`: it says that it is ready, then does what `do` names.
WORKER = """
import json, os, subprocess, sys, time

def say(number, event, **facts):
    print(json.dumps({"id": number, "event": event, **facts}), flush=True)

say(0, "ready")
for line in sys.stdin:
    request = json.loads(line)
    number, do = request["id"], request["do"]
    if do == "close":
        break
    if do == "cancel":
        continue
    exec(compile(request["code"], do, "exec"))
"""


class Panel:
    """Keeps what a runner emits, and waits as an event loop would."""

    def __init__(self, runner: EngineClient) -> None:
        self.runner = runner
        self.states: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.log: list[str] = []
        runner.changed.connect(self.states.append)
        runner.event.connect(self.events.append)
        runner.log.connect(self.log.append)

    def run(self, code: str) -> int:
        return self.runner.request("run", code=textwrap.dedent(code))

    def until(self, reached: Callable[[], bool], timeout_s: float = 20.0) -> None:
        end = time.monotonic() + timeout_s
        while not reached():
            assert time.monotonic() < end, (self.states, self.events, self.log)
            self.runner.poll()
            time.sleep(0.005)

    def until_final(self) -> dict[str, Any]:
        final = ("done", "failed", "cancelled")
        self.until(lambda: any(event["event"] in final for event in self.events))
        return next(event for event in self.events if event["event"] in final)

    def received(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    package = tmp_path / "library" / "aslseg"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "engine" / "__init__.py").touch()
    (package / "engine" / "__main__.py").write_text(WORKER)
    return package.parent


@pytest.fixture
def panel(library: Path) -> Iterator[Panel]:
    runner = EngineClient([sys.executable], library)
    yield Panel(runner)
    runner.close()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_request_goes_from_starting_through_running_to_idle(panel: Panel) -> None:
    number = panel.run("say(number, 'progress', step=1, of=1)\nsay(number, 'done', files={})")
    assert panel.runner.state == "starting"
    done = panel.until_final()
    assert panel.states == ["starting", "running", "idle"]
    assert done == {"id": number, "event": "done", "files": {}}
    assert [event["event"] for event in panel.events] == ["ready", "progress", "done"]


def test_the_child_stays_warm_between_requests(panel: Panel) -> None:
    panel.run("warm = 41\nsay(number, 'done')")
    panel.until_final()
    first = panel.runner.pid
    panel.events.clear()
    panel.run("say(number, 'done', value=warm + 1)")
    assert panel.until_final()["value"] == 42
    assert panel.runner.pid == first
    assert panel.states == ["starting", "running", "idle", "running", "idle"]


def test_one_request_at_a_time(panel: Panel) -> None:
    panel.run("time.sleep(0.2)\nsay(number, 'done')")
    with pytest.raises(EngineBusyError, match="cancel first"):
        panel.run("say(number, 'done')")
    panel.until_final()
    with panel.runner.importing(), pytest.raises(EngineBusyError, match="importing"):
        panel.run("say(number, 'done')")


def test_importing_is_a_state_that_ends_even_when_it_fails(panel: Panel) -> None:
    with pytest.raises(ValueError, match="bad"), panel.runner.importing():
        raise ValueError("bad")  # noqa: EM101
    assert panel.states == ["importing", "idle"]


def test_a_listener_may_ask_for_the_next_thing_at_once(panel: Panel) -> None:
    def go_on(event: dict[str, Any]) -> None:
        if event["event"] == "done" and event["id"] == 1:
            panel.run("say(number, 'done', last=True)")

    panel.runner.event.connect(go_on)
    panel.run("say(number, 'done')")
    panel.until(lambda: any(event.get("last") for event in panel.events))
    assert panel.runner.state == "idle"


def test_an_error_of_the_library_leaves_the_child_alive(panel: Panel) -> None:
    panel.run("say(number, 'failed', message='No.', remedy='Do.', kind='image')")
    failed = panel.until_final()
    assert (failed["message"], failed["kind"]) == ("No.", "image")
    assert panel.runner.state == "failed"
    assert panel.runner.pid is not None
    panel.events.clear()
    panel.run("say(number, 'done')")
    assert panel.until_final()["event"] == "done"


def test_lines_of_other_requests_and_no_lines_of_ours_do_not_end_a_request(panel: Panel) -> None:
    panel.run(
        """
        say(99, 'done')
        print('not json')
        print('[1, 2]')
        print('stray print', file=sys.stderr, flush=True)
        say(number, 'metric', value=1)
        say(number, 'done', ours=True)
        say(number, 'done', ours='twice')
        """
    )
    panel.until(lambda: any("'twice'" in line for line in panel.log))
    panel.until(lambda: "stray print" in panel.log)
    assert panel.runner.state == "idle"
    assert panel.states.count("idle") == 1
    assert {"not json", "[1, 2]"} <= set(panel.log)
    assert [event["ours"] for event in panel.received("done")] == [True]


def test_all_lines_come_before_the_end_of_a_child_that_dies(panel: Panel) -> None:
    panel.run(
        """
        for step in range(5000):
            say(number, 'progress', step=step)
        os._exit(3)
        """
    )
    failed = panel.until_final()
    assert [event["step"] for event in panel.received("progress")] == list(range(5000))
    assert panel.events[-1] is failed
    assert failed["message"].startswith("The engine ended unexpectedly (code 3)")
    assert panel.runner.state == "failed"
    assert panel.runner.pid is None


def test_one_poll_takes_no_longer_than_its_budget(panel: Panel) -> None:
    panel.runner.event.connect(lambda _: time.sleep(0.01))
    panel.run("for step in range(50):\n    say(number, 'progress', step=step)\nsay(number, 'done')")
    panel.until(lambda: bool(panel.received("progress")))
    time.sleep(0.3)
    began = time.monotonic()
    panel.runner.poll(0.05)
    assert time.monotonic() - began < 0.09
    panel.until_final()
    assert [event["step"] for event in panel.received("progress")] == list(range(50))


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
    assert failed["kind"] == kind
    assert words in failed["message"]
    assert failed["remedy"].endswith(".")
    assert panel.runner.state == "failed"


def test_a_python_that_is_not_there_is_reported(library: Path) -> None:
    panel = Panel(EngineClient(["/no/such/python"], library))
    panel.run("pass")
    failed = panel.until_final()
    assert failed["kind"] == "start"
    assert "/no/such/python" in failed["message"]
    assert panel.states == ["starting", "failed"]


def test_after_a_death_a_request_starts_a_fresh_child(panel: Panel) -> None:
    panel.run("os._exit(3)")
    panel.until_final()
    panel.events.clear()
    panel.run("say(number, 'done')")
    assert panel.until_final()["event"] == "done"


STUBBORN = """
    import signal
    grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    apart = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],
                             start_new_session=True)
    say(number, 'progress', pids=[os.getpid(), grandchild.pid, apart.pid])
    time.sleep(60)
"""


def test_a_stubborn_child_dies_with_its_tree_within_three_seconds(panel: Panel) -> None:
    panel.run(STUBBORN)
    panel.until(lambda: bool(panel.received("progress")))
    pids = panel.received("progress")[0]["pids"]
    assert all(alive(pid) for pid in pids)
    began = time.monotonic()
    panel.runner.cancel()
    assert time.monotonic() - began < 0.1
    assert panel.runner.state == "cancelling"
    cancelled = panel.until_final()
    assert time.monotonic() - began < 3.0
    assert cancelled["event"] == "cancelled"
    assert not any(alive(pid) for pid in pids)
    assert panel.states == ["starting", "running", "cancelling", "idle"]


def test_without_psutil_the_process_group_is_killed(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "win32":
        pytest.skip("taskkill does it there")
    monkeypatch.setitem(sys.modules, "psutil", None)
    panel.run(STUBBORN)
    panel.until(lambda: bool(panel.received("progress")))
    own, grandchild, apart = panel.received("progress")[0]["pids"]
    panel.runner.cancel()
    panel.until_final()
    monkeypatch.undo()
    assert not alive(own)
    assert not alive(grandchild)
    os.kill(apart, 9)  # it left the group, and nobody else knows of it


def test_a_child_that_stops_when_asked_is_gone_at_once(panel: Panel) -> None:
    panel.run(
        """
        say(number, 'progress', step=1)
        assert json.loads(sys.stdin.readline())['do'] == 'cancel'
        say(number, 'cancelled', message='Stopped after step 1.')
        """
    )
    panel.until(lambda: bool(panel.received("progress")))
    began = time.monotonic()
    panel.runner.cancel()
    assert panel.until_final()["event"] == "cancelled"
    assert time.monotonic() - began < 1.5
    assert panel.runner.pid is None


def test_a_result_that_was_there_before_the_request_to_stop_counts(panel: Panel) -> None:
    panel.run("say(number, 'progress', step=1)\ntime.sleep(0.2)\nsay(number, 'done', result=7)")
    panel.until(lambda: bool(panel.received("progress")))
    panel.runner.cancel()
    assert panel.until_final()["result"] == 7
    assert panel.runner.state == "idle"


def test_cancelling_while_starting_kills_too(panel: Panel) -> None:
    panel.run("time.sleep(60)")
    panel.runner.cancel()
    assert panel.until_final()["event"] == "cancelled"
    assert panel.runner.pid is None


def test_cancelling_nothing_does_nothing(panel: Panel) -> None:
    panel.runner.cancel()
    assert panel.states == []


def test_what_a_dead_child_left_running_is_killed(panel: Panel) -> None:
    if not hasattr(os, "waitid"):
        pytest.skip("needs waitid")
    panel.run(
        """
        left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
        say(number, 'progress', pid=left.pid)
        os._exit(5)
        """
    )
    assert panel.until_final()["event"] == "failed"
    pid = panel.received("progress")[0]["pid"]
    panel.until(lambda: not alive(pid), 3.0)


def test_a_refusal_of_a_line_ends_the_request_that_it_was(panel: Panel) -> None:
    number = panel.run("say(0, 'failed', message='No request.', remedy='', kind='request')")
    failed = panel.until_final()
    assert (failed["id"], failed["message"]) == (number, "No request.")
    assert panel.runner.state == "failed"


def test_deep_and_endless_output_does_not_stop_the_panel_from_listening(panel: Panel) -> None:
    panel.run(
        """
        print('[' * 200_000)
        print('a' * 25_000, file=sys.stderr)
        sys.stdout.buffer.write(b'\\xff\\xfe\\n')
        say(number, 'done')
        """
    )
    assert panel.until_final()["event"] == "done"
    panel.until(lambda: sum(line == "a" * 10_000 for line in panel.log) == 2)


def test_what_cannot_be_sent_is_an_error_at_once_and_changes_nothing(panel: Panel) -> None:
    with pytest.raises(TypeError, match="JSON"):
        panel.runner.request("run", code=Path("x"))
    with pytest.raises(RequestError, match="too long"):
        panel.runner.request("run", code="a" * MAX_LINE_BYTES)
    assert panel.runner.state == "idle"
    panel.run("say(number, 'done')")
    assert panel.until_final()["event"] == "done"


@pytest.fixture
def soon_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ASLsegLib.engine.client.SILENT_S", 0.6)


def test_a_stopped_child_is_noticed_and_goes_away_when_cancelled(
    panel: Panel, soon_silent: None
) -> None:
    if not hasattr(signal, "SIGSTOP"):
        pytest.skip("nothing can be stopped here")
    number = panel.run(
        """
        grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
        say(number, 'progress', pids=[os.getpid(), grandchild.pid])
        time.sleep(60)
        """
    )
    panel.until(lambda: bool(panel.received("progress")))
    pids = panel.received("progress")[0]["pids"]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    panel.until(lambda: bool(panel.received("silent")))
    (is_empty,) = panel.received("silent")
    assert (is_empty["id"], is_empty["message"]) == (number, "The engine does not answer any more.")
    assert "stop it" in is_empty["remedy"]
    began = time.monotonic()
    panel.runner.cancel()
    assert panel.until_final()["event"] == "cancelled"
    assert time.monotonic() - began < 5.0
    assert not any(alive(pid) for pid in pids)
    panel.events.clear()
    panel.run("say(number, 'done')")
    assert panel.until_final()["event"] == "done"


def test_silence_is_told_once_and_its_end_too(
    panel: Panel, soon_silent: None, tmp_path: Path
) -> None:
    go_on, end = tmp_path / "go on", tmp_path / "end"
    panel.run(
        f"""
        say(number, 'progress', step=1)
        while not os.path.exists({str(go_on)!r}):
            time.sleep(0.01)
        say(number, 'progress', step=2)
        while not os.path.exists({str(end)!r}):
            time.sleep(0.01)
        say(number, 'done')
        """
    )
    panel.until(lambda: bool(panel.received("silent")))
    go_on.touch()
    panel.until(lambda: bool(panel.received("answering")))
    end.touch()
    panel.until_final()
    kinds = [event["event"] for event in panel.events]
    assert kinds == ["ready", "progress", "silent", "progress", "answering", "done"]


def test_a_child_that_lives_is_not_silent_but_work_without_progress_is_told(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ASLsegLib.engine.client.QUIET_S", 5.0)
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
    (is_empty,) = panel.received("silent")
    assert is_empty["message"] == "The engine works without any progress for 6 min."
    assert panel.received("alive") == []


def test_a_panel_that_was_busy_itself_does_not_blame_the_child(
    panel: Panel, soon_silent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ASLsegLib.engine.client._NOT_POLLED_S", 0.3)
    panel.run("say(number, 'progress', step=1)\ntime.sleep(2)\nsay(number, 'done')")
    panel.until(lambda: bool(panel.received("progress")))
    time.sleep(1.0)
    panel.runner.poll()
    assert panel.received("silent") == []


def test_an_idle_child_that_was_killed_is_replaced_before_its_end_was_seen(panel: Panel) -> None:
    panel.run("say(number, 'done')")
    panel.until_final()
    child = panel.runner.pid
    assert child is not None
    os.kill(child, 9)
    time.sleep(0.5)
    panel.events.clear()
    panel.run("say(number, 'done', fresh=os.getpid())")
    done = panel.until_final()
    assert done["event"] == "done"
    assert done["fresh"] != child


def test_closing_ends_the_tree_without_waiting_or_emitting(panel: Panel) -> None:
    panel.run(STUBBORN)
    panel.until(lambda: bool(panel.received("progress")))
    pids = panel.received("progress")[0]["pids"]
    panel.events.clear()
    began = time.monotonic()
    panel.runner.close()
    assert time.monotonic() - began < 0.1
    assert panel.runner.state == "idle"
    panel.until(lambda: not any(alive(pid) for pid in pids), 3.0)
    panel.runner.poll()
    assert panel.events == []


def test_a_child_does_not_outlive_an_application_that_quits(library: Path, tmp_path: Path) -> None:
    application = f"""
        import sys, time
        sys.path.insert(0, {str(ROOT / "SlicerASLseg")!r})
        from pathlib import Path
        from ASLsegLib.engine.client import EngineClient
        runner = EngineClient([sys.executable], Path({str(library)!r}))
        runner.event.connect(lambda event: print(event.get("pids", ""), flush=True))
        runner.request("run", code={textwrap.dedent(STUBBORN)!r})
        end = time.monotonic() + 15
        seen = []
        runner.event.connect(lambda event: seen.append(event) if "pids" in event else None)
        while not seen and time.monotonic() < end:
            runner.poll()
            time.sleep(0.01)
        print("PIDS", *seen[0]["pids"], flush=True)
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
    ("code", "probabilities", "kind"),
    [
        (1, ["ImportError: DLL load failed while importing _C"], "package"),
        (1, ["OSError: libcudart.so.12: cannot open shared object file"], "package"),
        (-9, ["MemoryError of an earlier request"], "memory"),
        (0xC0000005, [], "crash"),
        (1, [], "ended"),
    ],
)
def test_codes_and_last_words_are_understood(
    code: int, probabilities: list[str], kind: str
) -> None:
    assert explain(code, probabilities).kind == kind
