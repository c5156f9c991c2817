"""Threads of the panel beside an event loop that keeps the interpreter lock, as PythonQt's does."""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SlicerASLseg"))

LOCKED_MS = 30
STEPS = 200


def event_loop_with_the_lock() -> None:
    """Wait as PythonQt's event loop does between two ticks: no other thread runs meanwhile."""
    ctypes.PyDLL(None).usleep(1000 * LOCKED_MS)


@pytest.fixture
def logic(scene: Any) -> Iterator[Any]:
    from ASLsegLib.logic.logic import Logic

    logic = Logic(python=[sys.executable])
    yield logic
    logic.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no usleep")
def test_a_thread_gets_on_beside_an_event_loop_that_keeps_the_lock(logic: Any) -> None:
    ended: list[Any] = []

    def work(_: Any) -> int:
        for _step in range(STEPS):  # like reading and writing: gives the lock up, wants it back
            time.sleep(0.0001)
        return STEPS

    logic.background.start("reading and writing", work, ended.append, ended.append)
    began = time.monotonic()
    while not ended and time.monotonic() - began < 20:
        event_loop_with_the_lock()
        logic.poll()
    assert ended == [STEPS]
    assert time.monotonic() - began < 0.5 * STEPS * LOCKED_MS / 1000


def test_without_work_nothing_waits(logic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    for _ in range(200):
        logic.poll()
    assert waited == []
    may_end = threading.Event()
    logic.background.start("reading", lambda _: may_end.wait(), lambda _: None, pytest.fail)
    logic.poll()
    may_end.set()
    assert len(waited) == 1


@pytest.fixture
def ct(scene: Any) -> Any:
    from aslseg.data.volume import Geometry, Volume
    from ASLsegLib.scene.volumes import add_volume

    affine = np.diag([-2.0, -3.0, 4.0, 1.0])
    return add_volume(Volume(np.zeros((6, 40, 50), np.int16), Geometry((6, 40, 50), affine)), "ct")


def test_what_the_panel_asks_for_is_what_the_engine_understands(
    logic: Any, ct: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aslseg.engine.protocol import MODELS, check_request
    from aslseg.project.remote_run import RemoteRun, write_remote_run
    from ASLsegLib.engine.client import EngineClient
    from ASLsegLib.scene.prompts import add_point, box_node

    asked: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr(EngineClient, "start", lambda _, job: asked.update({job.do: job.arguments}))
    import qt

    qt.QSettings().setValue("ASLseg/device", "cpu")
    box_node(ct, "liver", (3, 4, 20, 25), 2)
    add_point(ct, "tumour", (7.5, 8.5), 3)
    logic.segment.begin(ct)
    logic.refine.begin(ct, 2)
    logic.grow.begin(ct, 2, "liver")
    logic.describe.begin()
    logic.download.begin("vit_t")
    logic.remove_weights.begin("vit_t")
    logic.project = SimpleNamespace(folder=tmp_path, cases=())
    logic.train.begin("quick", {"rounds": 1})
    logic.estimate.begin("quick", {"rounds": 1})
    logic.resume.begin("a", more_rounds=2)
    logic.train_on.begin("a")
    note = RemoteRun(host="gpu1", project="ab" * 8, session="cd" * 8)
    write_remote_run(tmp_path / "runs" / "b", note)
    logic.follow_run.begin()
    assert logic.trainer.host == "gpu1"
    logic.export_project.begin(tmp_path / "out")
    logic.segment_folder.begin(tmp_path / "images", tmp_path / "out", "a")
    logic.project = None
    by_a_real_engine = {"fill_between"}  # needs a final label: test_slice_filling.py
    assert set(asked) == set(MODELS) - by_a_real_engine
    for do, arguments in asked.items():
        checked = check_request(do, json.loads(json.dumps(arguments)))
        assert getattr(checked, "device", "cpu") == "cpu", do
    assert [one["slice_index"] for one in asked["refine"]["prompts"]] == [2], "of this slice alone"
