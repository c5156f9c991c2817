"""The comparison of all methods on the same cases, draws and seeds.

An *experiment* is one method with a draw of labelled cases: a run like those of users, in a project
that names no hidden label, and the scored cases not at all. So nothing can be chosen on the cases
that the table is about. Their labels are opened after the run.

Experiments may run in several processes, that stop together and of which none outlives the
benchmark.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import statistics
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import wait as wait_for_end
from multiprocessing.synchronize import Event as SharedFlag
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from aslseg.benchmark.data import BenchmarkData, on_grid
from aslseg.benchmark.entries import ENTRIES, entries_named
from aslseg.benchmark.experiments import (
    BenchmarkSetup,
    Experiment,
    ExperimentResult,
    finished,
    run_experiment,
)
from aslseg.benchmark.presets import BenchmarkPreset
from aslseg.benchmark.tables import Tables, write_tables
from aslseg.data.images import stamp_of
from aslseg.errors import AslsegError, CancelledError, RunError
from aslseg.events import CancelToken, Monitor, Progress
from aslseg.methods import training_of
from aslseg.project.image_digests import digest_of
from aslseg.reading import read_object
from aslseg.storage import sha256_of, write_json_atomic

logger = logging.getLogger(__name__)


LOOK_EVERY_S = 0.2


THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


WorkerOutcome = tuple[Experiment, AslsegError | None]
"""An experiment that is over, and why it failed if it did."""


class _SharedToken(CancelToken):
    """A request to stop that comes from the process that started this one."""

    def __init__(self, flag: SharedFlag) -> None:
        super().__init__()
        self._shared = flag

    @property
    def is_cancelled(self) -> bool:
        """Whether the stop was asked for."""
        return self._shared.is_set()


class _Worker:
    """What a working process keeps between experiments."""

    token: CancelToken = CancelToken()


def run_serial(
    setup: BenchmarkSetup, experiments: Sequence[Experiment], monitor: Monitor
) -> Iterator[WorkerOutcome]:
    """Run experiments one after the other in this process."""
    for experiment in experiments:
        monitor.check()
        yield experiment, _attempt(setup, experiment, monitor)


def run_parallel(
    setup: BenchmarkSetup, experiments: Sequence[Experiment], workers: int, monitor: Monitor
) -> Iterator[WorkerOutcome]:
    """Run experiments in processes of their own; each gets its part of the computer's threads.

    Raises:
        CancelledError: When asked to stop, as soon as all processes have stopped.
        RunError: When a process was killed.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    threads = max(1, (os.cpu_count() or 1) // workers)
    with _threads_of_children(threads):
        pool = ProcessPoolExecutor(workers, context, _begin, (stop, threads))
        waiting = {pool.submit(_work, setup, experiment) for experiment in experiments}
    try:
        while waiting:
            monitor.check()
            done, waiting = wait(waiting, LOOK_EVERY_S, FIRST_COMPLETED)
            yield from map(_result, done)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[WorkerOutcome]) -> WorkerOutcome:
    try:
        return future.result()
    except BrokenProcessPool as error:
        msg = (
            "A process of the benchmark was killed, most likely for want of memory; start it again "
            "with fewer workers. Finished experiments are kept."
        )
        raise RunError(msg) from error


@contextmanager
def _threads_of_children(threads: int) -> Iterator[None]:
    """Let processes that start now begin with so many threads: libraries read it as they load."""
    before = {name: os.environ.get(name) for name in THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(THREAD_SETTINGS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(stop: SharedFlag, threads: int) -> None:
    """Set up a working process: it obeys the flag alone, and ends with who started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _Worker.token = _SharedToken(stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)


def _work(setup: BenchmarkSetup, experiment: Experiment) -> WorkerOutcome:
    return experiment, _attempt(setup, experiment, Monitor(token=_Worker.token))


def _attempt(setup: BenchmarkSetup, experiment: Experiment, monitor: Monitor) -> AslsegError | None:
    """Run an experiment; one that fails does not keep the others from being run."""
    try:
        run_experiment(setup, experiment, monitor)
    except CancelledError:
        raise
    except AslsegError as error:
        logger.exception("Experiment %s failed", experiment.name)
        return error
    return None


STAGE = "Benchmark"


def run_benchmark(
    folder: Path,
    data: BenchmarkData,
    preset: BenchmarkPreset,
    entries: Sequence[str] = (),
    monitor: Monitor | None = None,
) -> Tables:
    """Run all experiments that are not done yet, and write tables of all that are.

    Args:
        folder: Of the benchmark; the same one goes on where it was stopped.
        data: Cases and their parts.
        preset: Settings, numbers of labelled cases, seeds, tables, processes.
        entries: Names of the rows; those of the preset for none.
        monitor: Told of each finished experiment, with the time left for all.

    Returns:
        The tables of the finished experiments, which are in the folder too.

    Raises:
        CancelledError: When asked to stop; what was finished is kept.
        RunError: When the folder has a benchmark of other settings, or when experiments failed; the
            others are finished then, and the tables are written.
        AslsegError: When a file or a setting is at fault.
    """
    monitor = monitor or Monitor()
    wanted = entries_named(entries or preset.entries)
    with _held(folder):
        setup = BenchmarkSetup(folder, data, preset)
        experiments = setup.experiments(wanted)
        _check(setup, experiments)
        setup = _prepared(setup, experiments, monitor)
        _run(setup, experiments, monitor)
        tables = Tables(setup, finished(setup, experiments))
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


def _check(setup: BenchmarkSetup, experiments: Sequence[Experiment]) -> None:
    """See that every experiment can be run in this folder, before anything is written."""
    _refuse_other_benchmark(setup)
    for experiment in experiments:
        training_of(ENTRIES[experiment.entry].settings(setup.preset.config, 0).method)
        if experiment.labelled:
            setup.data.shown(experiment.draw, experiment.labelled)


def _refuse_other_benchmark(setup: BenchmarkSetup) -> None:
    """Refuse a folder whose finished experiments are not of these cases, files and draws."""
    path, remedy = _facts_path(setup), "choose a new folder"
    if not path.exists():
        return
    before, now = read_object(path, RunError, remedy), _facts(setup)
    draws, label_maps = before.pop("draws", {}), before.pop("label_maps", None)
    images = before.pop("images", {})
    if before != now:
        msg = f"{path} is of other cases or settings; {remedy}."
        raise RunError(msg)
    other = [name for name, order in _draws(setup).items() if draws.get(name, order) != order]
    if other:
        msg = (
            f"{path} has another order of cases under the name of draw '{other[0]}'; give the "
            f"draw another name in the file of draws, or {remedy}."
        )
        raise RunError(msg)
    if label_maps is not None and label_maps != _label_maps(setup):
        msg = f"{path} is of other label maps than those that the cases have now; {remedy}."
        raise RunError(msg)
    for name, (_, digest) in _images(setup, images).items() if images else ():
        if images[name][1] != digest:
            msg = f"{path} is of another image of case {name} than there is now; {remedy}."
            raise RunError(msg)


def _prepared(
    setup: BenchmarkSetup, experiments: Sequence[Experiment], monitor: Monitor
) -> BenchmarkSetup:
    """Write what all experiments share: images on their grid, and the projects."""
    copies_folder = setup.folder / "data"
    copies = on_grid(setup.data, copies_folder, setup.preset.grid, monitor)
    setup = replace(setup, copies=copies)
    for experiment in experiments:
        if ENTRIES[experiment.entry].kind in ("run", "lesion_rule"):
            setup.project(experiment)
    path = _facts_path(setup)
    before = read_object(path, RunError, "choose a new folder") if path.exists() else {}
    draws = {**before.get("draws", {}), **_draws(setup)}
    label_maps = before.get("label_maps") or _label_maps(setup)  # `_check` saw that they are these
    images = _images(setup, before.get("images", {}))
    facts = {**_facts(setup), "draws": draws, "label_maps": label_maps, "images": images}
    write_json_atomic(path, facts)
    return setup


def _facts_path(setup: BenchmarkSetup) -> Path:
    return setup.folder / "benchmark.json"


def _facts(setup: BenchmarkSetup) -> Any:
    return json.loads(json.dumps(setup.to_json()))  # as they are read back


def _draws(setup: BenchmarkSetup) -> dict[str, list[str]]:
    return {name: list(order) for name, order in setup.data.draws.items()}


def _label_maps(setup: BenchmarkSetup) -> dict[str, str]:
    """Return the digest of each label map, by case."""
    return {case.id: sha256_of(case.label) for case in setup.data.cases if case.label is not None}


def _images(setup: BenchmarkSetup, known: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return stamp and digest of each image, by case; the known digest where the stamp is known."""
    found = {}
    for case in setup.data.cases:
        stamp, before = stamp_of(case.image), known.get(case.id, ["", ""])
        found[case.id] = before if before[0] == stamp else [stamp, digest_of(case.image)]
    return found


def _run(setup: BenchmarkSetup, experiments: Sequence[Experiment], monitor: Monitor) -> None:
    done = finished(setup, experiments)
    left = [experiment for experiment in experiments if experiment not in done]
    failures: list[str] = []
    for wave in (False, True):
        now = [experiment for experiment in left if _waits_for_others(experiment) is wave]
        for experiment, error in _outcomes(setup, now, monitor):
            if error is not None:
                failures.append(f"{experiment.name}: {error}")
                continue
            done.update(finished(setup, [experiment]))
            _report(done[experiment], monitor)
            seconds = seconds_left(done, [e for e in left if e not in done]) / setup.preset.workers
            monitor.listener(Progress(STAGE, len(done), len(experiments), seconds))
    if failures:
        write_tables(Tables(setup, done))
        count = len(failures)
        msg = f"{count} experiments failed and are tried again next time. {' '.join(failures)}"
        raise RunError(msg)


def _waits_for_others(experiment: Experiment) -> bool:
    """Whether an experiment needs the time or the run of another one."""
    return experiment.table == "time" or ENTRIES[experiment.entry].kind == "lesion_rule"


def _outcomes(
    setup: BenchmarkSetup, left: Sequence[Experiment], monitor: Monitor
) -> Iterator[WorkerOutcome]:
    if setup.preset.workers == 1:
        return run_serial(setup, left, monitor)
    return run_parallel(setup, left, setup.preset.workers, monitor)


def _report(result: ExperimentResult, monitor: Monitor) -> None:
    for row in result["rows"]:
        monitor.metric(f"{result['entry']} {row['target']} dice", row["dice"], 0, case=row["case"])


def seconds_left(done: Mapping[Experiment, ExperimentResult], left: Sequence[Experiment]) -> float:
    """Estimate the seconds of experiments in series, from those of the same row, or of all."""
    known: dict[str, list[float]] = defaultdict(list)
    for experiment, result in done.items():
        known[experiment.entry].append(result["seconds"])
    anyone = [seconds for values in known.values() for seconds in values]
    return sum(statistics.fmean(known.get(experiment.entry, anyone)) for experiment in left)
