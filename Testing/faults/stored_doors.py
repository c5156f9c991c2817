"""A project with a run, and every door through which its files are read; a program of its own.

Called with a kind, a folder, a number of cases and a seed. Says one JSON object a case: `name`, and
`outcome`, which is `read`, `refused` (in a sentence of the library), or `failed` with `why`.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aslseg.config import read_config
from aslseg.data.masks import BoundingBox
from aslseg.data.volume import Labelmap
from aslseg.engine.tasks import prompts_of
from aslseg.errors import AslsegError, ConfigError
from aslseg.networks.checkpoints import Checkpoint, load_checkpoint, load_state, save_checkpoint
from aslseg.preprocessing.roi import Roi, load_roi, save_roi
from aslseg.project.case_reports import case_reports
from aslseg.project.datasets import cases_from_msd, targets_from_dataset
from aslseg.project.image_digests import check_images
from aslseg.project.project import Project, open_project
from aslseg.project.review import accept, correct, decisions, reject, undo_last
from aslseg.project.run_folder import RunFolder, latest_finished, open_run, runs_of
from aslseg.project.run_tables import read_reliability
from aslseg.reading import read_json
from aslseg.report.data import read_run
from aslseg.report.report import write_report
from aslseg.sam.embeddings import VolumeEmbeddings
from aslseg.storage import write_json_atomic
from aslseg.training.rounds import read_case_reliability
from faults.stored_mutations import mutated
from support.synthetic_run import write_run
from support.tiny_project import GEOMETRY, a_patient, a_tiny_project, tiny_config

LIMIT_S = 10
REPORT_EVERY = 12
KNOWN = {"data", "project", "outside", "roi", "task", "embeddings"} | {
    "own.safetensors",
    "foreign.pth",
}


@dataclass(frozen=True)
class Place:
    """A file that is damaged, and what is done with the project then."""

    path: Path
    use: Callable[[], None]


def main(kind: str, folder: Path, cases: int, seed: str) -> None:
    """Damage files of a kind, use the project, and say what came of it."""
    make(folder)
    places = places_of(kind, folder)
    random_ = random.Random(f"{seed} {kind}")
    random.seed(f"{seed} reports")
    whole = {place.path: place.path.read_bytes() for place in places}
    kept = copy_of(folder)
    for number in range(cases):
        place = places[number % len(places)]
        restore(kept, folder)
        place.path.write_bytes(mutated(whole[place.path], kind, random_))
        outcome = outcome_of(place, folder)
        told = {"name": f"{number} {place.path.name}", **outcome}
        print(json.dumps(told), flush=True)  # noqa: T201 - read by the test


def make(folder: Path) -> None:
    """Make what is read: a project with decisions, a run, views, embeddings, weights, data."""
    project = a_tiny_project(folder)
    (folder / "outside").mkdir()
    (folder / "outside" / "victim.txt").write_text("nobody may change this")
    shutil.copy(project.label_path(project.case("c0")), folder / "outside" / "victim.nii.gz")
    run = _run_of(project)
    refined = Labelmap(a_patient(2)[1].labels, GEOMETRY)
    correct(project, "c0", refined, run)
    accept(project, run, "c2")
    reject(project, "c3", run)
    _write_dataset(folder, project)
    _write_arrays(folder)


def _run_of(project: Project) -> RunFolder:
    truths = {name: a_patient(number)[1] for number, name in enumerate(("c5", "c2"))}
    path = write_run(project.folder / "runs" / "one", truths)
    write_json_atomic(path / "config.json", tiny_config().model_dump(mode="json"))
    run = RunFolder(path)
    run.write_status(
        state="done", best_round=2, rounds=2, retrained_rounds=[1], label_digests={"c0": "0" * 64}
    )
    prompt = {"slice_index": 3, "target": "liver", "component": 0, "box": [1.0, 2.0, 30.0, 31.0]}
    for number in (1, 2):
        run.finish(number, 0.5)
        predictions = run.round(number) / "predictions" / "c2"
        write_json_atomic(predictions / "prompts.json", [{**prompt, "points": []}])
        judged = {"checkpoint_agreement": 0.5, "prediction_agreement": None}
        write_json_atomic(
            predictions / "prediction.json", {"case_id": "c2", "targets": {"liver": judged}}
        )
    return run


def _write_dataset(folder: Path, project: Project) -> None:
    tasks = folder / "task"
    tasks.mkdir()
    entries = []
    for number, case in enumerate(project.labelled):
        for name, source in (("ct", project.image_path(case)), ("label", project.label_path(case))):
            shutil.copy(source, tasks / f"{name}{number}.nii.gz")
        entries.append({"image": f"./ct{number}.nii.gz", "label": f"./label{number}.nii.gz"})
    facts = {"labels": {"background": 0, "liver": [1, 2], "tumour": [2]}, "training": entries}
    write_json_atomic(tasks / "dataset.json", {**facts, "modality": {"0": "CT"}, "test": []})


def _write_arrays(folder: Path) -> None:
    image = np.zeros((2, 4, 4), np.float32)
    save_roi(
        Roi(image, None, None, BoundingBox((0, 0, 0), (2, 4, 4)), (2, 4, 4), 1), folder / "roi"
    )
    tensors = {"a.weight": torch.arange(60.0).reshape(3, 20), "n": torch.tensor(3)}
    save_checkpoint(folder / "own.safetensors", Checkpoint("specialist", tensors, {"step": 3}))
    torch.save({"model": tensors}, folder / "foreign.pth")
    VolumeEmbeddings(folder / "embeddings").store([4, 2], torch.rand(2, 8, 2, 2))


def places_of(kind: str, folder: Path) -> list[Place]:
    """Return the files of a kind, and what reads each of them."""
    path = folder / "project"
    run = RunFolder(path / "runs" / "one")
    predictions = run.round(2) / "predictions" / "c2"
    all_json = [
        Place(path / "project.json", lambda: use_project(path)),
        Place(run.path / "status.json", lambda: use_run(path)),
        Place(path / "project.json", lambda: use_project(path)),
        Place(run.round(2) / "round.json", lambda: use_run(path)),
        Place(run.path / "config.json", lambda: use_run(path)),
        Place(predictions / "prediction.json", lambda: _done(read_case_reliability(predictions))),
        Place(predictions / "prompts.json", lambda: use_prompts(predictions / "prompts.json")),
        Place(path / "cache" / "images.json", lambda: use_project(path)),
        Place(folder / "roi" / "roi.json", lambda: _done(load_roi(folder / "roi"))),
        Place(folder / "task" / "dataset.json", lambda: use_dataset(folder / "task")),
    ]
    parts = sorted((folder / "embeddings").glob("*.safetensors"))
    own = folder / "own.safetensors"
    return {
        "json": all_json,
        "csv": [
            Place(run.round(2) / "reliability.csv", lambda: use_run(path)),
            Place(run.round(1) / "metrics.csv", lambda: use_run(path)),
        ],
        "lines": [
            Place(run.path / "events.jsonl", lambda: use_run(path)),
            Place(path / "reviews.jsonl", lambda: use_project(path)),
        ],
        "safetensors": [
            Place(own, lambda: _done(load_checkpoint(own, "specialist"), load_state(own))),
            Place(parts[0], lambda: use_embeddings(folder / "embeddings")),
        ],
        "pth": [Place(folder / "foreign.pth", lambda: _done(load_state(folder / "foreign.pth")))],
    }[kind]


def _done(*_: object) -> None:
    return None


def use_project(folder: Path) -> None:
    """Look at a project and change it: save a label, reject, take decisions back."""
    project = open_project(folder)
    project.problems()
    check_images(folder, project.cases)
    case_reports(project, None)
    decisions(project)
    project.require_labels()
    drawn = Labelmap(a_patient(4)[1].labels, GEOMETRY)
    _one_by_one(
        lambda: project.save_label("c2", drawn),
        lambda: correct(project, "c0", drawn),
        lambda: reject(project, "c4"),
        lambda: undo_last(project),
        lambda: undo_last(project),
        lambda: undo_last(project),
    )


def use_run(folder: Path) -> None:
    """Look at a run in every way."""
    project, found = open_project(folder), runs_of(folder)
    _one_by_one(
        lambda: _done(latest_finished(folder)),
        lambda: _done(open_run(folder, "one").config, read_config(folder / "runs/one/config.json")),
        lambda: _done([(run.status, run.state, run.retrained_rounds, run.rounds) for run in found]),
        lambda: _done([run.validation_of(number) for run in found for number in (1, 2, 3)]),
        lambda: _done([read_reliability(run.round(2)) for run in found]),
        lambda: _done([case_reports(project, run) for run in found]),
        lambda: _done([read_run(run.path) for run in found]),
    )
    if found and random.random() < 1 / REPORT_EVERY:
        write_report(found[0].path)


def use_prompts(path: Path) -> None:
    """Read prompts as the engine does."""
    prompts_of(read_json(path, ConfigError, "delete it"))


def use_dataset(folder: Path) -> None:
    """Read a data set of somebody else."""
    _one_by_one(lambda: _done(cases_from_msd(folder)), lambda: _done(targets_from_dataset(folder)))


def use_embeddings(folder: Path) -> None:
    """Read embeddings that are there."""
    stored = VolumeEmbeddings(folder)
    stored.stack(stored.indices[:4]) if stored.indices else None


def _one_by_one(*steps: Callable[[], object]) -> None:
    """Take all steps, whatever the ones before refused; a refusal is raised in the end."""
    refused: AslsegError | None = None
    for step in steps:
        try:
            step()
        except AslsegError as error:  # noqa: PERF203
            refused = error
    if refused is not None:
        raise refused


def outcome_of(place: Place, folder: Path) -> dict[str, Any]:
    """Use the project, and look for what must not happen."""
    labels = label_contents(folder)
    began = time.monotonic()
    try:
        with limited():
            place.use()
        outcome: dict[str, Any] = {"outcome": "read"}
    except AslsegError as error:
        text = str(error)
        is_sentence = text.endswith((".", ")")) or "aslseg renew" in text
        fine = is_sentence and len(text) < 3000 and "\n" not in text.strip()
        outcome = {"outcome": "refused" if fine else "failed", "why": text[:300]}
    except BaseException:
        outcome = {"outcome": "failed", "why": traceback.format_exc()[-1500:]}
    seconds = time.monotonic() - began
    problems = list(damage(folder, labels))
    if seconds > LIMIT_S:
        problems.append(f"took {seconds:.1f} s")
    return {"outcome": "failed", "why": "; ".join(problems)} if problems else outcome


def damage(folder: Path, labels: set[bytes]) -> Iterator[str]:
    """Say what was touched that must not be."""
    if (folder / "outside" / "victim.txt").read_text(encoding="utf-8") != "nobody may change this":
        yield "a file outside was changed"
    if len(list((folder / "outside").iterdir())) != 2 or Path("MARKER").exists():
        yield "a file was made outside"
    if not labels <= label_contents(folder):
        yield "a label map was lost"
    known = {
        "data",
        "project",
        "outside",
        "roi",
        "task",
        "embeddings",
        "own.safetensors",
        "foreign.pth",
    }
    if {path.name for path in folder.iterdir()} != known:
        yield f"there is {sorted({path.name for path in folder.iterdir()} - known)}"


def label_contents(folder: Path) -> set[bytes]:
    """Return the content of every label map, in use or in the history, and of those outside."""
    files = [*(folder / "project" / "labels").rglob("*.nii.gz"), *folder.glob("outside/*.nii.gz")]
    return {path.read_bytes() for path in files}


@contextmanager
def limited() -> Iterator[None]:
    """Stop what takes far too long."""

    def stop(*_: object) -> None:
        msg = "no end"
        raise TimeoutError(msg)

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(3 * LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)


def copy_of(folder: Path) -> Path:
    """Keep the whole folder beside itself."""
    return Path(shutil.copytree(folder, folder.with_name(folder.name + "-kept")))


def restore(kept: Path, folder: Path) -> None:
    """Bring back the folder of before, times of files included."""
    for path in folder.iterdir():
        if path.name != "data":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(kept, folder, dirs_exist_ok=True, ignore=lambda _, names: {"data"} & set(names))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
