"""A session of a host gets each request once, over however many connections it comes."""

from __future__ import annotations

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aslseg.engine.session import LOG, REQUESTS
from aslseg.remote.station import Station
from aslseg.remote.wire import Send

LIBRARY = Path(__file__).resolve().parents[3] / "Logic"
KEY = "ab" * 16


def answer(root: Path, *questions: Send) -> list[dict[str, object]]:
    """Ask a station of its own, as a connection does."""
    lines = "".join(f"{question.model_dump_json()}\n" for question in questions)
    sink = io.BytesIO()
    Station(root, io.BytesIO(lines.encode()), sink).run()
    return [json.loads(line) for line in sink.getvalue().splitlines()[1:]]


def test_a_request_that_comes_again_while_its_engine_is_started_is_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(LIBRARY)]))
    asked = Send(session=KEY, line='{"id": 1, "do": "close"}', after=0)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(answer, tmp_path, asked)
        folder = tmp_path / "sessions" / KEY
        while not (folder / LOG).exists():
            assert not first.done()
        second = pool.submit(answer, tmp_path, asked)
        assert [first.result()[0]["is_taken"], second.result()[0]["is_taken"]] == [True, True]
    assert (folder / REQUESTS).read_text("utf-8") == f"{asked.line}\n"


def test_a_request_is_taken_where_a_connection_was_lost_before_its_engine_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(LIBRARY)]))
    monkeypatch.setattr("aslseg.remote.station._START_S", 20.0)
    folder = tmp_path / "sessions" / KEY
    folder.mkdir(parents=True)
    (folder / LOG).touch()  # which is all that the station of that connection has done
    asked = Send(session=KEY, line='{"id": 1, "do": "close"}', after=0)
    assert answer(tmp_path, asked)[0]["is_taken"]
    assert (folder / REQUESTS).read_text("utf-8") == f"{asked.line}\n"
