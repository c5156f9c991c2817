"""What tests of whole runs share: reading their files, stopping them, and a SAM that is small."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from aslseg.config import RunConfig
from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.errors import CancelledError
from aslseg.events import Event, Metric, Monitor
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.loading import load_ensemble
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from aslseg.runs import resume_run, start_run
from aslseg.sam import predictor
from support.sam_doubles import a_small_sam
from support.tiny_project import GEOMETRY, UNLABELLED, a_tiny_project

TOLD_BY_TIME = {"status.json", "events.jsonl", "log.txt", "lock", "config.json", "order.json"}


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


@contextmanager
def folders_made() -> Iterator[list[Path]]:
    """Note each folder that is made meanwhile."""
    made: list[Path] = []
    make = os.mkdir

    def noting(path: Any, *args: Any, **kwargs: Any) -> None:
        make(path, *args, **kwargs)
        made.append(Path(path))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "mkdir", noting)
        yield made


def prediction_in(folder: Path, source: str) -> Labelmap:
    """Read a prediction from the folder of its case."""
    return read_labelmap(folder / f"{source}.nii.gz")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def build_small_sam(*_: object, input_size: int, **__: object) -> torch.nn.Module:
    return a_small_sam("tiny", input_size)


def use_small_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "build_sam", build_small_sam)
    monkeypatch.setattr(predictor, "get_weights", lambda *_, **__: Path("none"))


def run_with_small_sam(folder: Path, config: RunConfig) -> RunFolder:
    """Run a method on the tiny patients, on one thread; for fixtures of a whole module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_small_sam(monkeypatch)
        torch.set_num_threads(1)
        return start_run(a_tiny_project(folder), config, run_id="a")


def ensemble_with_small_sam(run: RunFolder) -> Ensemble:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_small_sam(monkeypatch)
        return load_ensemble(run)


def run_with_noise_as_hidden_labels(folder: Path, config: RunConfig) -> RunFolder:
    """Run a method where each label map that the project does not name holds noise."""
    project = a_tiny_project(folder)
    noise = np.random.default_rng(1).integers(0, 3, GEOMETRY.shape).astype(np.uint8)
    for name in UNLABELLED:
        hidden = folder / "data" / f"truth{name[1:]}.nii.gz"
        assert hidden.exists()
        write_labelmap(Labelmap(noise, GEOMETRY), hidden)
    return start_run(project, config, run_id="a")


def stopped_and_resumed(
    project: Project, config: RunConfig, *places: Callable[[Event], bool]
) -> RunFolder:
    """Begin a run, stop it at one place after the other, and let it go on to its end."""
    work: Callable[..., RunFolder] = partial(start_run, project, config, run_id="a")
    for place in places:
        with pytest.raises(CancelledError, match="can be resumed"):
            work(monitor=stop_at(place))
        assert RunFolder(project.folder / "runs" / "a").status.state == "cancelled"
        work = partial(resume_run, project, "a")
    return resume_run(project)


def stop_at(place: Callable[[Event], bool]) -> Monitor:
    """Return a monitor that asks to stop at the first event of a kind."""
    monitor = Monitor()

    def listen(event: Event) -> None:
        if place(event):
            monitor.token.cancel()

    monitor.listener = listen
    return monitor


def at_step(task: str, step: int, number: int = 1) -> Callable[[Event], bool]:
    def place(event: Event) -> bool:
        found = isinstance(event, Metric) and (event.task, event.step) == (task, step)
        return found and event.round == number

    return place
