"""Whatever comes in on the engine's input: each line is answered or refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from aslseg.engine.facts import CancelFacts
from aslseg.engine.protocol import (
    FINAL,
    MAX_LINE_BYTES,
    MAX_PROMPTS,
    MAX_WAITING,
    MODELS,
    BadLine,
    Done,
    Refine,
    Request,
    RequestError,
    check_request,
    encode,
    parse_request,
    read_lines,
)
from aslseg.engine.server import RequestQueue, Server
from aslseg.events import Monitor

NOTHING = Done(facts=CancelFacts(cancelled=[]))
LIBRARY = Path(__file__).resolve().parents[3] / "Logic"
GOOD = b'{"id": 99, "do": "describe"}\n'

BROKEN = [
    pytest.param(b'{"id": 7, "do": "segment", "image": "\xff\xfe"}\n', 7, id="not UTF-8"),
    pytest.param(b"\xc3\x28\n", 0, id="not UTF-8 and no id"),
    pytest.param(b'{"id": 1e400, "do": "describe"}\n', 0, id="an endless number as id"),
    pytest.param(b'{"id": NaN, "do": "describe"}\n', 0, id="no number as id"),
    pytest.param(b'{"id": 5.0, "do": "describe"}\n', 0, id="a fraction as id"),
    pytest.param(b'{"id": true, "do": "describe"}\n', 0, id="a truth as id"),
    pytest.param(b'{"id": -3, "do": "describe"}\n', 0, id="a negative id"),
    pytest.param(b'{"id": 0, "do": "describe"}\n', 0, id="no id"),
    pytest.param(b'{"id": ' + b"9" * 5000 + b', "do": "describe"}\n', 0, id="a long id"),
    pytest.param(b"[" * 200_000 + b"\n", 0, id="deep"),
    pytest.param(b'{"id": 7, "a":' * 100_000 + b"\n", 7, id="deep objects"),
    pytest.param(b'{"id": 8, "do": "x", "a": "' + b"a" * MAX_LINE_BYTES + b'"}\n', 8, id="long"),
    pytest.param(b'{"id": 9, "do": "desc\n', 9, id="cut off"),
    pytest.param(b'{"id": 10, "do": ["describe"]}\n', 10, id="a list to do"),
    pytest.param(b'{"id": 10}\n', 10, id="nothing to do"),
    pytest.param(b'{"id": 10, "do": "' + b"a" * 5000 + b'"}\n', 10, id="a long word to do"),
    pytest.param(b'"close"\n', 0, id="a text"),
    pytest.param(b'{"id": 11, "do": "cancel", "request": "all"}\n', 11, id="cancels a word"),
]


@pytest.mark.parametrize(("line", "number"), BROKEN)
def test_a_broken_line_is_refused_with_its_id_and_the_next_one_is_read(
    line: bytes, number: int
) -> None:
    lines, stream = Bytes(), io.StringIO()
    thread = in_a_thread({"describe": lambda *_: NOTHING}, lines, stream)
    lines.waiting.put(line + GOOD)
    wait_for(stream, '"id": 99, "event": "done"')
    lines.waiting.put(b"")
    thread.join(5)
    received = events_of(stream)
    refusal = next(event for event in received if event["event"] == "failed")
    assert (refusal["id"], refusal["kind"]) == (number, "request")
    assert len(refusal["message"]) < 400
    assert refusal["remedy"] or refusal["message"].endswith(".")
    assert [e["id"] for e in received if e["event"] in FINAL] == [number, 99]


def test_a_long_line_takes_no_more_memory_than_the_bound() -> None:
    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self.left = 300

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self.left -= 1
            if self.left < 0:
                return 0
            text = b"a" * (len(buffer) - 1) + (b"\n" if self.left == 0 else b"a")
            buffer[:] = text
            return len(buffer)

    lines = list(read_lines(io.BufferedReader(Endless(), 4096), limit=1000))
    assert lines == [BadLine("a" * 200, "is longer than 1000 bytes")]


def test_a_line_at_the_bound_is_read() -> None:
    assert list(read_lines(io.BytesIO(b"a" * 9 + b"\n" + b"b\n"), limit=10)) == [
        "a" * 9 + "\n",
        "b\n",
    ]


def test_the_last_line_needs_no_end() -> None:
    assert list(read_lines(io.BytesIO(b"a\nb"))) == ["a\n", "b"]


def test_empty_lines_are_nothing() -> None:
    assert parse_request(" \r\n") is None


def test_what_is_sent_is_what_is_read() -> None:
    sent = {"id": 3, "do": "refine", "image": "ä\nb", "prompts": [{"box": [1.5, 2]}]}
    line = encode(sent)
    assert line.count(b"\n") == 1
    request = parse_request(line.decode())
    assert request == Request(3, "refine", {"image": "ä\nb", "prompts": [{"box": [1.5, 2]}]})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_not_sent(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode({"id": 1, "do": "x", "value": value})


def test_what_the_engine_would_not_read_is_not_sent() -> None:
    with pytest.raises(RequestError, match="too long for the engine"):
        encode({"id": 1, "do": "x", "image": "a" * MAX_LINE_BYTES})


# --- Waiting requests ---------------------------------------------------------------------------


def test_a_request_that_waits_is_cancelled_at_once_though_another_one_works() -> None:
    lines, stream = Bytes(), io.StringIO()
    go_on = threading.Event()

    def patient(_: Mapping[str, Any], __: Monitor) -> Done:
        assert go_on.wait(20)
        return NOTHING

    thread = in_a_thread({"patient": patient}, lines, stream)
    lines.put({"id": 1, "do": "patient"}, {"id": 2, "do": "patient"}, {"id": 3, "do": "patient"})
    lines.put({"id": 4, "do": "cancel", "request": 2})
    wait_for(stream, '"id": 4, "event": "done"')
    received = events_of(stream)
    assert [(e["id"], e["event"]) for e in received if e["event"] in FINAL] == [
        (2, "cancelled"),
        (4, "done"),
    ]
    assert next(e["facts"] for e in received if e["id"] == 4) == {"cancelled": [2]}
    go_on.set()
    wait_for(stream, '"id": 3, "event": "done"')
    lines.waiting.put(b"")
    thread.join(5)
    ends = [(e["id"], e["event"]) for e in events_of(stream) if e["event"] in FINAL]
    assert sorted(ends) == [(1, "done"), (2, "cancelled"), (3, "done"), (4, "done")]


def test_a_number_that_is_under_way_is_not_given_twice_and_its_answer_stays_the_only_one() -> None:
    lines, stream = Bytes(), io.StringIO()
    go_on = threading.Event()

    def patient(_: Mapping[str, Any], __: Monitor) -> Done:
        assert go_on.wait(20)
        return NOTHING

    thread = in_a_thread({"patient": patient}, lines, stream)
    lines.put({"id": 1, "do": "patient"}, {"id": 1, "do": "patient"}, {"id": 1})
    wait_for(stream, "'do' has to be a word")
    go_on.set()
    wait_for(stream, '"id": 1, "event": "done"')
    lines.waiting.put(b"")
    thread.join(5)
    ends = [(e["id"], e["event"]) for e in events_of(stream) if e["event"] in FINAL]
    assert ends == [(0, "failed"), (0, "failed"), (1, "done")]
    assert "Request 1 is under way already" in stream.getvalue()


def test_no_more_requests_wait_than_the_bound() -> None:
    queue = RequestQueue()
    refusals = [queue.put(Request(n, "a", {})) for n in range(1, MAX_WAITING + 2)]
    assert not any(refusals[:-1])
    assert refusals[-1].startswith(f"{MAX_WAITING} requests are waiting")
    assert len(queue.close()) == MAX_WAITING
    assert queue.take() is None


# --- What requests may say ----------------------------------------------------------------------

IMAGE = {"image": "a.nii.gz", "output": "out"}


@pytest.mark.parametrize(
    ("do", "arguments", "message"),
    [
        ("segment", {"output": "out"}, "The request lacks 'image'"),
        ("segment", {**IMAGE, "image": 5}, "'image' cannot be used: Input should be a valid str"),
        ("segment", {**IMAGE, "image": "a\0b"}, "'image' cannot be used: a path holds no NUL"),
        ("segment", {**IMAGE, "image": "\ud800"}, "'image' cannot be used: .*unicode string"),
        ("segment", {**IMAGE, "device": "abacus"}, "'device' cannot be used: Input should be 'au"),
        ("segment", {**IMAGE, "imagee": "b"}, "has the unknown field 'imagee'"),
        ("refine", {**IMAGE, "prompts": "abc"}, "'prompts' cannot be used: Input should be a val"),
        ("refine", {**IMAGE, "prompts": [5]}, r"'prompts\[0\]' cannot be used"),
        ("refine", {**IMAGE, "prompts": [{"slice_index": 1.5, "target": "a"}]},
         r"'prompts\[0\]\.slice_index' cannot be used"),
        ("refine", {**IMAGE, "prompts": [{"slice_index": 1, "target": "a", "box": [1, 2, 3]}]},
         r"'prompts\[0\]\.box' cannot be used"),
        ("refine", {**IMAGE, "prompts": [{"slice_index": 1, "target": "a",
                                          "points": [{"xy": [1, float("inf")]}]}]},
         r"'prompts\[0\]\.points\[0\]\.xy\[1\]' cannot be used"),
        ("refine", {**IMAGE, "slice_index": -1}, "'slice_index' cannot be used"),
        ("refine", {**IMAGE, "edited_slices": 5}, "'edited_slices' cannot be used"),
        ("refine", {**IMAGE, "targets": [{"name": "a", "value": 999}]},
         r"'targets\[0\]\.value' cannot be used"),
        ("train", {"project": "p", "settings": 5}, "'settings' cannot be used"),
        ("train", {"project": {}}, "'project' cannot be used"),
        ("resume", {"project": "p", "rounds": "two"}, "'rounds' cannot be used"),
        ("download", {"model": None}, "'model' cannot be used"),
        ("describe", {"device": 5}, "'device' cannot be used"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(do: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check_request(do, arguments)


def prompts(count: int, slices: int) -> list[dict[str, Any]]:
    return [
        {"slice_index": n % slices, "target": "liver", "box": [0, 0, 5, 5]} for n in range(count)
    ]


def test_more_prompts_than_can_be_answered_are_refused_with_the_bound_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(RequestError, match=f"at most {MAX_PROMPTS} are answered, not 10000; ask"):
        check_request("refine", {**IMAGE, "prompts": prompts(10_000, 100)})
    with pytest.raises(RequestError, match="slice 0 has 300, at most 256"):
        check_request("refine", {**IMAGE, "prompts": prompts(300, 1)})
    assert time.monotonic() - began < 2
    check_request("refine", {**IMAGE, "prompts": prompts(MAX_PROMPTS, 100)})


def test_what_is_left_out_is_filled_in() -> None:
    checked = check_request("refine", IMAGE)
    assert isinstance(checked, Refine)
    assert checked.prompts is checked.run is checked.device is None
    assert checked.edited_slices == []


def test_the_engine_reads_every_field_of_every_request() -> None:
    folder = LIBRARY / "aslseg" / "engine"
    code = "".join(
        (folder / f"{name}.py").read_text(encoding="utf-8") for name in ("tasks", "system")
    )
    for do, model in MODELS.items():
        ignored = [name for name in model.model_fields if f"request.{name}" not in code]
        assert not ignored, do


# --- A real process -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_process_answers_after_every_broken_line_and_ends_with_its_input() -> None:
    broken = [parameter.values for parameter in BROKEN]
    with a_process() as process:
        for line, number in broken:
            process.stdin.write(line)
            process.stdin.flush()
            refusal = next_final(process)
            assert (refusal["id"], refusal["event"]) == (number, "failed"), line[:50]
        process.stdin.write(b'{"id": 50, "do": "describe"}\n')
        process.stdin.flush()
        assert next_final(process)["event"] == "done"
        began = time.monotonic()
        process.stdin.close()
        assert process.wait(10) == 0
        assert time.monotonic() - began < 4


@pytest.mark.slow
def test_a_task_that_never_looks_up_does_not_outlive_the_input() -> None:
    code = (
        "import time, aslseg.engine.server as s\n"
        "s.LAST_RESORT_S = 0.5\n"
        "s.load_tasks = lambda: {'sleep': lambda *_: time.sleep(600)}\n"
        "s.main()"
    )
    with a_process("-c", code) as process:
        process.stdin.write(b'{"id": 1, "do": "sleep"}\n')
        process.stdin.flush()
        while json.loads(process.stdout.readline())["event"] != "progress":
            pass
        began = time.monotonic()
        process.stdin.close()
        process.wait(10)
        assert time.monotonic() - began < 5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pipe that can be set to not block")
def test_a_program_that_a_task_starts_neither_takes_lines_nor_ends_the_input() -> None:
    code = (
        "import subprocess, sys, aslseg.engine.server as s\n"
        "from aslseg.engine.facts import CancelFacts\n"
        "from aslseg.engine.protocol import Done\n"
        "done = Done(facts=CancelFacts(cancelled=[]))\n"
        "greedy = 'import os, sys; sys.stdin.read(); os.set_blocking(0, False)'\n"
        "run = lambda *_: subprocess.run([sys.executable, '-c', greedy], check=True) and done\n"
        "s.load_tasks = lambda: {'run': run}\n"
        "s.main()"
    )
    with a_process("-c", code) as process:
        for number in (1, 2):
            process.stdin.write(f'{{"id": {number}, "do": "run"}}\n'.encode())
            process.stdin.flush()
            end = next_final(process)
            assert (end["id"], end["event"]) == (number, "done"), end
            time.sleep(0.2)


@pytest.mark.slow
def test_a_process_that_works_in_silence_says_that_it_lives() -> None:
    code = (
        "import time, aslseg.engine.server as s\n"
        "from aslseg.engine.facts import CancelFacts\n"
        "from aslseg.engine.protocol import Done\n"
        "done = Done(facts=CancelFacts(cancelled=[]))\n"
        "s.ALIVE_S = 0.05\n"
        "s.load_tasks = lambda: {'sleep': lambda *_: time.sleep(0.5) or done}\n"
        "s.main()"
    )
    with a_process("-c", code) as process:
        process.stdin.write(b'{"id": 1, "do": "sleep"}\n')
        process.stdin.flush()
        received = []
        while not received or received[-1]["event"] != "done":
            received.append(json.loads(process.stdout.readline()))
        quiet = [event["quiet_s"] for event in received if event["event"] == "alive"]
        assert len(quiet) >= 4
        assert quiet == sorted(quiet)
        assert quiet[-1] > 0.2


# --- Means --------------------------------------------------------------------------------------


class Bytes(io.RawIOBase):
    """Standard input that gives what is put there; an empty piece ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Queue[bytes] = Queue()
        self._rest = b""

    def put(self, *requests: dict[str, Any]) -> None:
        for request in requests:
            self.waiting.put(json.dumps(request).encode() + b"\n")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self.waiting.get()
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


@pytest.fixture(autouse=True)
def _no_last_resort(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("aslseg.engine.server._end_process_after", lambda _: None)


def in_a_thread(tasks: Any, lines: Bytes, stream: io.StringIO) -> threading.Thread:
    server = Server(read_lines(io.BufferedReader(lines)), stream, lambda: tasks)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    return thread


def wait_for(stream: io.StringIO, text: str) -> None:
    end = time.monotonic() + 20
    while text not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()[:2000]
        time.sleep(0.002)


def events_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class a_process:  # noqa: N801
    """An engine process, killed at the end of the block."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments or ("-m", "aslseg.engine")

    def __enter__(self) -> Any:
        self._process = subprocess.Popen(
            [sys.executable, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(LIBRARY)},
            start_new_session=True,
        )
        self._too_late = threading.Timer(90, self._process.kill)  # a test fails, but it ends
        self._too_late.start()
        return self._process

    def __exit__(self, *_: object) -> None:
        self._too_late.cancel()
        self._process.kill()
        self._process.wait()


def next_final(process: Any) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = json.loads(process.stdout.readline())
        if event["event"] in FINAL:
            return event
