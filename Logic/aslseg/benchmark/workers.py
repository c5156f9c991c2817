"""Experiments in several processes, that stop together and of which none outlives the benchmark."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_end
from multiprocessing.synchronize import Event as SharedFlag

import torch

from aslseg.benchmark.experiments import BenchmarkSetup, Experiment, run_experiment
from aslseg.errors import AslsegError, CancelledError, RunError
from aslseg.events import CancelToken, Monitor

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
        yield experiment, _attempt(setup, experiment, Monitor(monitor.listener, monitor.token))


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
