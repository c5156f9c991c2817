"""What tests of whole runs share: reading their files, stopping them, and a SAM that is small."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from aslseg import generalist_setup
from aslseg.events import Event, Metric, Monitor
from aslseg.runfolder import RunFolder
from sam_doubles import a_small_sam

TOLD_BY_TIME = {"status.json", "events.jsonl", "log.txt", "lock", "config.json"}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def results(run: RunFolder) -> dict[str, object]:
    """Return all files of a run but those that tell the time; of weights, every bit of a tensor."""
    return {
        name: weights_in(run.path / name) if name.endswith(".safetensors") else data
        for name, data in contents(run.path).items()
        if name not in TOLD_BY_TIME
    }


def weights_in(path: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return tensors and metadata; the order of the metadata in the file is random."""
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def build_small_sam(*_: object, input_size: int, **__: object) -> torch.nn.Module:
    return a_small_sam("tiny", input_size)


def use_small_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generalist_setup, "build_sam", build_small_sam)
    monkeypatch.setattr(generalist_setup, "get_weights", lambda *_, **__: Path("none"))


def stop_at(place: Callable[[Event], bool]) -> Monitor:
    """Return a monitor that asks to stop at the first event of a kind."""
    monitor = Monitor()

    def listen(event: Event) -> None:
        if place(event):
            monitor.token.cancel()

    monitor.listener = listen
    return monitor


def at_step(stage: str, step: int, number: int = 1) -> Callable[[Event], bool]:
    def place(event: Event) -> bool:
        found = isinstance(event, Metric) and (event.stage, event.step) == (stage, step)
        return found and event.round == number

    return place
