"""Two processes do the work of one: the same labels, each case once, and no loss when one dies."""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from aslseg.data.images import read_labelmap
from aslseg.distributed import (
    WHOLE,
    WorkPart,
    _packed,
    _unpacked,
    backend_for,
    gathered,
    mapped,
    my_part,
    together,
)
from aslseg.evaluation.metrics import dice
from aslseg.events import CancelToken, Event, Monitor, Progress
from aslseg.project.run_folder import RunFolder
from aslseg.runs import start_run
from aslseg.targets import LIVER_TARGETS, region_mask
from support.rank_of_a_run import RUN, config_of
from support.sam_doubles import a_small_sam
from support.tiny_project import a_tiny_project
from support.whole_runs import use_small_sam

TESTING = Path(__file__).parents[2]
SAME_LABELS = 0.98
"""Least Dice of the labels of two processes and of one: sums are in another order."""


def test_a_single_process_has_all_of_the_work() -> None:
    assert my_part() == WHOLE == WorkPart(0, 1)
    assert WHOLE.share([1, 2, 3]) == [1, 2, 3]
    assert gathered("value") == ["value"]
    assert together(divmod, 7, 2) == (3, 1)


@pytest.mark.parametrize("of", [2, 3, 8])
def test_each_item_belongs_to_one_part(of: int) -> None:
    items = list(range(7))
    shares = [WorkPart(number, of).share(items) for number in range(of)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_mapped_work_keeps_the_order_and_tells_its_progress() -> None:
    events: list[Event] = []
    assert mapped(pow, [3, 1, 2], Monitor(events.append, interval_s=0), "Powers", 2) == [9, 1, 4]
    told = [(e.task, e.step, e.of) for e in events if isinstance(e, Progress)]
    assert told == [("Powers", n, 3) for n in range(4)]


def test_a_monitor_is_silent_and_not_stopped_in_another_process() -> None:
    token = CancelToken()
    token.cancel()
    sent = pickle.loads(pickle.dumps(Monitor(print, token, round=3)))
    assert sent.round == 3
    assert sent.listener is not print
    sent.check()


def test_a_sam_can_be_sent_to_another_process_whatever_torchvision_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Importing the package that its classes are of fails where torchvision is of another build."""
    sent = _packed(a_small_sam())
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError):
        importlib.import_module("segment_anything")
    assert "segment_anything" not in sys.modules
    assert len(_packed(a_small_sam())) == len(sent)
    received = _unpacked(sent)
    for ours, theirs in zip(a_small_sam().parameters(), received.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def two_processes(project: Path, notes: Path, *more: str) -> list[tuple[int, str]]:
    """Run two processes; return exit code and standard error of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": "2",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "support.rank_of_a_run", str(project), str(notes), *more]
        process = subprocess.Popen(
            command, cwd=TESTING, env=environment, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
    try:
        said = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, text) for p, text in zip(started, said, strict=True)]


@pytest.mark.nightly  # five starts of torch
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
def test_two_processes_give_the_labels_of_one_also_after_one_was_killed(tmp_path: Path) -> None:
    project, notes = a_tiny_project(tmp_path), tmp_path / "notes"
    method = "aslseg without SAM"
    (first, said), (killed, _) = two_processes(project.folder, notes, method, "5")
    assert (first, killed) == (1, 9)
    assert "Another process of this run has ended" in said, said
    assert "--resume" in said
    run = RunFolder(project.folder / "runs" / RUN)
    assert run.status.state == "failed"
    assert not notes.exists()

    ended = two_processes(project.folder, notes, method)
    check_shared(ended, run, notes)
    torch.set_num_threads(1)
    check_labels(start_run(project, config_of(method), run_id="alone"), run)


@pytest.mark.nightly  # two starts of torch
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
@pytest.mark.parametrize("method", ["aslseg", "semisam", "scsam", "cpcsam"])
def test_two_processes_share_every_method_with_its_sam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    project, notes = a_tiny_project(tmp_path), tmp_path / "notes"
    ended = two_processes(project.folder, notes, method)
    run = RunFolder(project.folder / "runs" / RUN)
    check_shared(ended, run, notes)
    if method in ("scsam", "cpcsam"):
        return  # each part draws its own points: as another seed does, that gives other labels
    use_small_sam(monkeypatch)
    torch.set_num_threads(1)
    check_labels(start_run(project, config_of(method), run_id="alone"), run)


def check_shared(ended: list[tuple[int, str]], run: RunFolder, notes: Path) -> None:
    """Make sure that both processes took part in every training, and in the cases, each once."""
    assert [code for code, _ in ended] == [0, 0], ended
    assert run.status.state == "done"
    done = [line.split() for line in notes.read_text(encoding="utf-8").splitlines()]
    cases = [words for words in done if words[0] == "case"]
    assert sorted(case for _, case, _ in cases) == ["c2", "c3", "c4", "c5", "c6"]
    assert {rank for _, _, rank in cases} == {"0", "1"}
    trainings = Counter(name for what, name, _ in done if what == "training")
    assert {"specialist-liver", "specialist-tumour"} <= {n.split("=")[0] for n in trainings}
    assert set(trainings.values()) == {2}, trainings  # of the same weights


def check_labels(alone: RunFolder, run: RunFolder) -> None:
    """Make sure that two processes gave the labels of one."""
    for path in sorted((alone.path / "labels").glob("*.nii.gz")):
        one, two = (read_labelmap(r.path / "labels" / path.name) for r in (alone, run))
        for target in LIVER_TARGETS:
            masks = [region_mask(each.labels, target, LIVER_TARGETS) for each in (one, two)]
            assert dice(*masks) >= SAME_LABELS, (path.name, target.name, dice(*masks))


@pytest.mark.parametrize(
    ("cards", "processes", "expected"),
    [(0, 2, "gloo"), (1, 1, "cpu:gloo,cuda:nccl"), (1, 2, "gloo"), (8, 8, "cpu:gloo,cuda:nccl")],
)
def test_processes_that_share_a_card_exchange_by_gloo(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cards: int,
    processes: int,
    expected: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert backend_for(processes) == expected
    assert ("share 1 graphics cards" in caplog.text) == (processes > cards > 0)
