"""The comparison of all methods: on the same cases, with the same seeds and the same budget.

A *cell* is one method with a number of labelled volumes and a seed. Each is a run like those that
users start, in a project that names no hidden label: neither those of the other training cases, nor
those of the cases that are scored. So nothing can be chosen on the cases that the table is about.
The scores come from the label maps that the benchmark was given, after the run.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from aslseg.benchmark.data import BenchmarkData, on_grid
from aslseg.benchmark.entries import entries_named
from aslseg.benchmark.experiments import BenchmarkSetup, Experiment, ExperimentResult, finished
from aslseg.benchmark.presets import BenchmarkPreset
from aslseg.benchmark.tables import Tables, write_tables
from aslseg.benchmark.workers import WorkerOutcome, run_parallel, run_serial
from aslseg.errors import RunError
from aslseg.events import Monitor, Progress
from aslseg.methods import method_named
from aslseg.reading import read_object
from aslseg.storage import write_json_atomic

STAGE = "Benchmark"


def run_benchmark(
    folder: Path,
    data: BenchmarkData,
    preset: BenchmarkPreset,
    rivals: Sequence[str] = (),
    monitor: Monitor | None = None,
) -> Tables:
    """Run all cells that are not done yet, and write tables of all that are.

    Args:
        folder: Of the benchmark; the same one goes on where it was stopped.
        data: Cases and their parts.
        preset: Settings, budget, numbers of labelled volumes, seeds, processes.
        rivals: Names of the rows; those of the preset for none.
        monitor: Told of each finished cell, with the time left for all.

    Returns:
        What the finished cells say; their tables are in the folder.

    Raises:
        CancelledError: When asked to stop; what was finished is kept.
        RunError: When the folder has a benchmark of other settings, or when cells failed; the
            others are finished then, and the tables are written.
        AslsegError: When a file or a setting is at fault.
    """
    monitor = monitor or Monitor()
    wanted = entries_named(rivals or preset.rivals)
    with _held(folder):
        bench = BenchmarkSetup(folder, data, preset)
        cells = bench.cells(wanted, preset.labelled, preset.seeds)
        _check(bench, cells)
        bench = _prepared(bench, cells, monitor)
        _run(bench, cells, monitor)
        tables = Tables(bench, finished(bench, cells))
        write_tables(tables)
    return tables


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep a second benchmark out of the folder.

    Raises:
        RunError: When there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        msg = f"Another benchmark is working in {folder}; wait for it, or choose another folder."
        raise RunError(msg) from error


def _check(bench: BenchmarkSetup, cells: Sequence[Experiment]) -> None:
    """See that every cell can be run in this folder, before anything is written."""
    path = _facts_path(bench)
    remedy = "choose a new folder"
    if path.exists() and read_object(path, RunError, remedy) != _facts(bench):
        msg = f"{path} is of other cases, settings or budget; {remedy}."
        raise RunError(msg)
    for cell in cells:
        method_named(bench.config(cell).method)


def _prepared(
    bench: BenchmarkSetup, cells: Sequence[Experiment], monitor: Monitor
) -> BenchmarkSetup:
    """Write what all cells share: images on their grid, and the projects."""
    places = bench.folder / "data"
    copies = on_grid(bench.data, places, bench.preset.spacing_mm, monitor)
    bench = replace(bench, copies=copies)
    for cell in cells:
        bench.project(cell)
    write_json_atomic(_facts_path(bench), _facts(bench))
    return bench


def _facts_path(bench: BenchmarkSetup) -> Path:
    return bench.folder / "benchmark.json"


def _facts(bench: BenchmarkSetup) -> Any:
    return json.loads(json.dumps(bench.to_json()))  # as they are read back


def _run(bench: BenchmarkSetup, cells: Sequence[Experiment], monitor: Monitor) -> None:
    done = finished(bench, cells)
    left = [cell for cell in cells if cell not in done]
    failures: list[str] = []
    for cell, error in _ended(bench, left, monitor):
        if error is not None:
            failures.append(f"{cell.name}: {error}")
            continue
        done.update(finished(bench, [cell]))
        _tell(done[cell], monitor)
        seconds = seconds_left(done, [cell for cell in left if cell not in done])
        seconds /= bench.preset.workers
        monitor.listener(Progress(STAGE, len(done), len(cells), seconds))
    if failures:
        write_tables(Tables(bench, done))
        msg = f"{len(failures)} cells failed and are tried again next time. {' '.join(failures)}"
        raise RunError(msg)


def _ended(
    bench: BenchmarkSetup, left: Sequence[Experiment], monitor: Monitor
) -> Iterator[WorkerOutcome]:
    if bench.preset.workers == 1:
        return run_serial(bench, left, monitor)
    return run_parallel(bench, left, bench.preset.workers, monitor)


def _tell(result: ExperimentResult, monitor: Monitor) -> None:
    for row in result["rows"]:
        monitor.metric(f"{result['rival']} {row['target']} dice", row["dice"], 0, row["case"])


def seconds_left(done: Mapping[Experiment, ExperimentResult], left: Sequence[Experiment]) -> float:
    """Guess how long cells will take one after the other, from those of the same row, or of all."""
    known: dict[str, list[float]] = defaultdict(list)
    for cell, result in done.items():
        known[cell.rival].append(result["seconds"])
    anyone = [seconds for values in known.values() for seconds in values]
    return sum(statistics.fmean(known.get(cell.rival, anyone)) for cell in left)
