"""Run the engine: `python -m aslseg.engine`, or `--session FOLDER` for one that outlives others."""

from __future__ import annotations

import sys
from pathlib import Path

from aslseg.engine.server import main
from aslseg.engine.session import serve_session

if sys.argv[1:2] == ["--session"] and len(sys.argv) == 3:
    serve_session(Path(sys.argv[2]))
else:
    main()
