"""Run the engine: `python -m aslseg.engine`."""

from __future__ import annotations

from aslseg.engine.server import main

main()
