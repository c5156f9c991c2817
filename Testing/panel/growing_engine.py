"""An engine that grows lesions without torch: `growing_engine.py DELAY`, in seconds a section.

Its SAM finds what is darker than liver near a box; all else is the library's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from aslseg.data.images import read_labelmap, read_volume
from aslseg.data.orientation import axial_volume
from aslseg.engine.facts import PredictionFacts
from aslseg.engine.growing import grown
from aslseg.engine.protocol import Done, Grow, check_request, read_lines
from aslseg.engine.server import Server, own_input, own_output
from aslseg.inference.interactive.growth import grow_lesion
from aslseg.prompts import SlicePrompts

NEAR_PX = 3
ABOUT = PredictionFacts(
    run=None, method="sam", round=0, weights="", note="", device="cpu", slice_index=None,
    targets=[], unmet_clicks=[],
)  # fmt: skip


class DarkSam:
    """Finds what is below 90 HU within three pixels of a box, or of a positive point."""

    def predict_logits(self, volume: Any, prompt: Any, _: Any = None) -> Any:
        near = np.zeros(volume.geometry.shape[1:], bool)
        boxes = [prompt.box.xyxy] if prompt.box is not None else []
        boxes += [(*point.xy, *point.xy) for point in prompt.points if point.positive]
        for left, top, right, bottom in boxes:
            rows = slice(max(int(top) - NEAR_PX, 0), int(bottom) + NEAR_PX)
            near[rows, max(int(left) - NEAR_PX, 0) : int(right) + NEAR_PX] = True
        found = near & (volume.voxels[prompt.slice_index] < 90)
        return np.where(found, 5.0, -5.0).astype(np.float32)


def slowly(found: Iterable[Any]) -> Iterator[Any]:
    """Give each section some time after the one before."""
    for section in found:
        time.sleep(float(sys.argv[1]))
        yield section


def grow(arguments: Mapping[str, Any], monitor: Any) -> Done:
    request = check_request("grow", arguments)
    assert isinstance(request, Grow)
    volume = read_volume(Path(request.image))
    session: Any = SimpleNamespace(
        volume=axial_volume(volume),
        grow=lambda prompts, labels, monitor: slowly(
            grow_lesion(DarkSam(), volume, prompts, labels=labels, monitor=monitor)
        ),
    )
    prompts = [SlicePrompts.from_json(prompt.model_dump()) for prompt in request.prompts]
    labels = None if request.labels is None else read_labelmap(Path(request.labels))
    return Done(facts=grown(session, ABOUT, prompts, labels, monitor))


if __name__ == "__main__":
    lines, stream = read_lines(own_input()), own_output()
    Server(lines, stream, partial(dict, grow=grow)).run()
