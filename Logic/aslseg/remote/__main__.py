"""`python -m aslseg.remote serve [--folder FOLDER]` is the station, `… relay HOST` the other end.

The relay speaks the engine's protocol to whoever starts it: an engine whose work is done elsewhere.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path


def main() -> None:
    """Read the command line, and serve until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m aslseg.remote", description=__doc__)
    ends = parser.add_subparsers(dest="end", required=True)
    serve = ends.add_parser("serve")
    serve.add_argument("--folder", default="")
    relay = ends.add_parser("relay")
    relay.add_argument("host")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    if arguments.end == "serve":
        _serve(arguments.folder)
    else:
        from aslseg.remote.relay import serve_for

        serve_for(arguments.host)


def _serve(folder: str) -> None:
    from aslseg.engine.server import own_input
    from aslseg.errors import AslsegError
    from aslseg.remote.station import DEFAULT_FOLDER, Station

    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what prints goes to standard error
    try:
        Station(Path.home() / (folder or DEFAULT_FOLDER), own_input(), sink).run()
    except AslsegError as error:
        sys.exit(str(error))


main()
