"""An engine process whose work is done by a host: requests on its input, events on its output.

Whoever starts it speaks to it as to `python -m aslseg.engine`. When its input ends, or a `close`
comes, it goes, and a training goes on at the host; `cancel` stops what is under way there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from threading import Event as Flag

from aslseg.engine.protocol import BadLine, RequestError, parse_request, read_lines
from aslseg.engine.server import Server, Task, own_input, own_output
from aslseg.remote.hosts import host_named
from aslseg.remote.tasks import RemoteEngine


def serve_for(name: str) -> None:
    """Serve requests from standard input until it ends, then end this process.

    Args:
        name: Of the host.
    """
    leaving = Flag()
    engine: list[RemoteEngine] = []

    def tasks() -> Mapping[str, Task]:
        engine.append(RemoteEngine(host_named(name), leaving.is_set))
        return engine[0].tasks

    lines, stream = read_lines(own_input()), own_output()
    Server(_until_left(lines, leaving), stream, tasks).run()
    for one in engine:
        one.close()
    os._exit(0)  # as `engine.server.main`


def _until_left(lines: Iterable[str | BadLine], leaving: Flag) -> Iterator[str | BadLine]:
    """Yield lines up to a `close`, and say when there will be no more."""
    for line in lines:
        with suppress(RequestError):
            request = parse_request(line)
            if request is not None and request.do == "close":
                break
        yield line
    leaving.set()
