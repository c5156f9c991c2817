"""Work shared out over processes that `torchrun` has started: cases, patches, gradients.

The first process (rank 0) runs everything as if it were alone. Where a piece of work can be shared
it calls `together`, which runs a function in all processes at once; the others do nothing but wait
for such calls in `led`. Within a call `my_part` tells each process its part; outside of one there
is no other process. So the first process alone decides and writes what belongs to the run as a
whole, and a single process runs the very same code.

Processes may be on several machines if all see the project folder under one path. One that ends is
noticed by the others when they next exchange anything: the connection to it is closed.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import distributed

from aslseg.errors import AslsegError, CancelledError, RunError
from aslseg.events import Monitor
from aslseg.imports import without_its_init

logger = logging.getLogger(__name__)

T = TypeVar("T")
Result = TypeVar("Result")
P = ParamSpec("P")

PATIENCE = timedelta(hours=24)
"""How long processes wait for each other: as long as the first one works alone."""


@dataclass(frozen=True, slots=True)
class WorkPart:
    """Which part of a piece of work this is.

    Attributes:
        number: From 0.
        of: How many there are.
    """

    number: int = 0
    of: int = 1

    @property
    def is_first(self) -> bool:
        """Whether the process with this part decides and writes."""
        return self.number == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items of this part; each belongs to one."""
        return items[self.number :: self.of]


WHOLE = WorkPart()
"""Work that is not divided."""
_shared = WHOLE  # within `together` that of the process group


def my_part() -> WorkPart:
    """Return this process's part in the work that is shared just now; all of it outside of that."""
    return _shared


def is_shared() -> bool:
    """Whether other processes help this one."""
    return distributed.is_available() and distributed.is_initialized()


def _processes() -> int:
    """Return how many processes `torchrun` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True, slots=True)
class _End:
    """Tells the others that the first process is done, and what it returned or how it failed."""

    result: Any = None
    message: str = ""


def led(work: Callable[P, Result]) -> Callable[P, Result]:
    """Decorate a function that is called in all processes: the first one runs it, others help.

    All of them return what the first one returns, which must be possible to pickle. Without
    `torchrun` the function is called as it is.

    Raises:
        RunError: In all other processes, when one of them has ended.
    """

    @wraps(work)
    def on_all(*args: P.args, **kwargs: P.kwargs) -> Result:
        if _processes() < 2:
            return work(*args, **kwargs)
        with _process_group():
            if distributed.get_rank():
                return _follow()  # type: ignore[no-any-return]
            return _lead(lambda: work(*args, **kwargs))

    return on_all


def together(work: Callable[..., Result], *args: Any) -> Result:
    """Call a function in all processes at once, and return what it returns in the first one.

    Args:
        work: A function of a module.
        args: Sent to the others by pickling; a `Monitor` in them is silent there. What cannot be
            pickled is told in the first monitor's warnings, and the first process works alone.
    """
    global _shared
    if not is_shared() or _shared.of > 1:
        return work(*args)
    try:
        call = _packed((work, args))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        logger.warning("%s is not shared out: %s", work.__name__, error)
        return work(*args)
    _broadcast(call)
    _shared = WorkPart(distributed.get_rank(), distributed.get_world_size())
    with others_there():
        result = work(*args)  # where it fails, the others may be anywhere: they see it end
    _shared = WHOLE
    return result


def mapped(
    work: Callable[..., Result], items: Sequence[Any], monitor: Monitor, task: str, *args: Any
) -> list[Result]:
    """Return `work(item, *args)` of each item, in their order; each is done by one process.

    Args:
        work: A function of a module. What it returns is pickled.
        items: Usually cases.
        monitor: Told of the progress of the first process's part; may ask to stop.
        task: Name of the task in events.
        args: As of `together`.
    """
    return together(_mapped, work, list(items), monitor, task, args)


def _mapped(
    work: Callable[..., Result],
    items: Sequence[Any],
    monitor: Monitor,
    task: str,
    args: Sequence[Any],
) -> list[Result]:
    here = my_part()
    own = [work(item, *args) for item in monitor.track(here.share(items), task)]
    if here.of == 1:
        return own
    parts = gathered(own)
    return [parts[n % here.of][n // here.of] for n in range(len(items))]


def gathered(value: T) -> list[T]:
    """Return the values of all processes that share the work, by rank."""
    if my_part().of == 1:
        return [value]
    values: list[Any] = [None] * my_part().of
    with others_there():
        distributed.all_gather_object(values, value)
    return values


@contextmanager
def others_there() -> Iterator[None]:
    """Turn what the libraries say about a process that has ended into a sentence."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "peer" not in str(error):
            raise
        logger.info("An exchange with other processes failed: %s", error)
        msg = (
            "Another process of this run has ended, and this one ends too; start all of them again "
            "with train --resume, which goes on from what is saved."
        )
        raise RunError(msg) from error


@contextmanager
def _process_group() -> Iterator[None]:
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    with others_there():
        backend = backend_for(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        distributed.init_process_group(backend, timeout=PATIENCE)
    global _shared
    try:
        yield
    finally:
        _shared = WHOLE
        distributed.destroy_process_group()


def backend_for(processes_here: int) -> str:
    """Return what processes exchange gradients by; nccl refuses two of them on one card."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if processes_here > cards > 0:
        logger.warning(
            "%d processes share %d graphics cards here, and exchange by gloo, which is slower; "
            "start one process for each card.",
            processes_here,
            cards,
        )
    return "cpu:gloo,cuda:nccl" if 0 < processes_here <= cards else "gloo"


def _lead(work: Callable[[], Result]) -> Result:
    try:
        result = work()
    except (AslsegError, OSError) as error:
        if _shared is WHOLE:  # the others wait for the next call
            _broadcast(_packed(_End(message=str(error))))
        raise
    _broadcast(_packed(_End(result)))
    return result


def _follow() -> Any:
    """Take part in what the first process calls, until it is done."""
    global _shared
    while True:
        call = _broadcast(None)
        if isinstance(call, _End):
            if call.message:
                raise CancelledError(call.message)
            return call.result
        work, args = call
        _shared = WorkPart(distributed.get_rank(), distributed.get_world_size())
        with others_there():
            work(*args)
        _shared = WHOLE


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    with without_its_init("segment_anything"):
        torch.save(value, buffer)
    return buffer.getvalue()


def _broadcast(packed: bytes | None) -> Any:
    """Send bytes from the first process to all others, which unpack them."""
    box = [packed]
    with others_there():
        distributed.broadcast_object_list(box)
    if packed is not None or box[0] is None:
        return None
    return _unpacked(box[0])


def _unpacked(packed: bytes) -> Any:
    here = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    # Sent by a process of this run, not read from a file: it may hold functions.
    with without_its_init("segment_anything"):
        return torch.load(io.BytesIO(packed), map_location={"cuda:0": here}, weights_only=False)
