"""An engine that fills without torch: `filling_engine.py MODE GO`.

It answers when file GO is there. Between two drawn slices it paints what the one before shows. MODE
is what goes wrong then: nothing (`fill`), a full disk (`full`), a label map that lies elsewhere or
is larger (`moved`, `larger`), or half an answer before the connection breaks (`cut`).
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.slice_numbers import slices_between
from aslseg.data.volume import Geometry, Labelmap, Labels
from aslseg.engine.facts import FillFacts
from aslseg.engine.protocol import Done, FillBetween, check_request, read_lines
from aslseg.engine.server import Server, own_input, own_output
from aslseg.storage import storage_errors

LEARNING = "Learning the drawn slices"
PATIENCE_S = 60.0
MODE, GO = sys.argv[1:3]


def painted(labels: Labels, request: FillBetween) -> Labels:
    """Return the label map with each slice between drawn ones as the drawn one before."""
    found = labels.copy()
    for k in slices_between(request.slices):
        found[k] = labels[max(one for one in request.slices if one < k)]
    if request.lesion is None:
        return found
    lesion = read_labelmap(Path(request.lesion)).labels > 0
    drawn, value = found > 0, int(labels[lesion].max())
    found = labels.copy()
    for k in slices_between(request.slices):
        before = lesion[max(one for one in request.slices if one < k)]
        found[k][before & drawn[k]] = value
    return found


def answered(labelmap: Labelmap, path: Path) -> None:
    """Write the answer as MODE has it."""
    labels, geometry = labelmap.labels, labelmap.geometry
    if MODE == "full":
        with storage_errors(path):
            raise OSError(errno.ENOSPC, "No space left on device")
    if MODE == "cut":
        STREAM.write('{"id": 1, "event": "do')
        STREAM.flush()
        os._exit(1)
    if MODE == "moved":
        move = np.eye(4)
        move[:3, 3] = 3.0
        geometry = Geometry(geometry.shape, move @ geometry.ijk_to_ras)
    if MODE == "larger":
        labels = np.pad(labels, ((0, 0), (0, 1), (0, 1)))
        geometry = Geometry(labels.shape, geometry.ijk_to_ras)
    write_labelmap(Labelmap(labels, geometry), path)


def fill_between(arguments: Mapping[str, Any], monitor: Any) -> Done:
    """Fill, once it may go on."""
    request = check_request("fill_between", arguments)
    assert isinstance(request, FillBetween)
    drawn = read_labelmap(Path(request.labels))
    for _ in monitor.track(range(1), LEARNING):
        until = time.monotonic() + PATIENCE_S
        while not Path(GO).exists():
            assert time.monotonic() < until
            monitor.check()
            time.sleep(0.01)
    path = Path(request.output) / "filled.nii.gz"
    answered(Labelmap(painted(drawn.labels, request), drawn.geometry), path)
    facts = FillFacts(
        run=None, method="drawn slices", round=0, weights="", device="cpu",
        filled_slices=slices_between(request.slices),
    )  # fmt: skip
    return Done(facts=facts, files={"filled": str(path)})


if __name__ == "__main__":
    LINES, STREAM = read_lines(own_input()), own_output()
    Server(LINES, STREAM, partial(dict, fill_between=fill_between)).run()
