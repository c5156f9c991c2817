"""The engine; after each request it says which files were entered for it.

    python walked_engine.py PLACE -m aslseg.engine

The names go to PLACE.N for request N, as a list of JSON. Where MobileSAM's weights are not on this
computer, a small SAM with random weights stands in.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
import torch

from aslseg.engine import server
from aslseg.engine.protocol import FINAL
from aslseg.sam.weights import verify_weights
from support.walk import entered_files
from support.whole_runs import use_small_sam

if __name__ == "__main__":
    torch.set_num_threads(1)
    if verify_weights("mobile_sam").path is None:
        use_small_sam(pytest.MonkeyPatch())
    write = server.EventWriter.write
    with entered_files() as entered:

        def write_and_tell(writer: server.EventWriter, number: int, event: Any) -> None:
            if event.event in FINAL:
                Path(f"{sys.argv[1]}.{number}").write_text(json.dumps(sorted(entered)))
                entered.clear()
            write(writer, number, event)

        server.EventWriter.write = write_and_tell  # type: ignore[method-assign]
        server.main()
