"""What the engine says of a lesion that has grown."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from aslseg.data.volume import Geometry, Volume
from aslseg.engine.facts import PredictionFacts
from aslseg.engine.growing import grown
from aslseg.events import Monitor
from aslseg.inference.interactive.propagation import GrownSlice, GrowthEnd
from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts

ABOUT = PredictionFacts(
    run=None, method="sam", round=0, weights="", note="", device="cpu", slice_index=None,
    targets=[], unmet_clicks=[],
)  # fmt: skip
GRID = Geometry.axis_aligned((6, 8, 10), (1.0, 1.0, 1.0))
SECTION = np.zeros((8, 10), bool)
SECTION[2:5, 3:7] = True


def a_session(*sections: GrownSlice | GrowthEnd) -> Any:
    def grow(*_: Any, **__: Any) -> Iterator[GrownSlice | GrowthEnd]:
        yield from sections

    return SimpleNamespace(volume=Volume(np.zeros(GRID.shape, np.int16), GRID), grow=grow)


def points(k: int, *places: tuple[float, float], positive: bool = True) -> SlicePrompts:
    return SlicePrompts(k, "tumour", points=tuple(PointPrompt(xy, positive) for xy in places))


def test_a_point_that_is_not_in_the_lesion_is_told_of() -> None:
    session = a_session(
        GrownSlice(2, SECTION & False),
        GrownSlice(2, SECTION),  # the same slice again: this one counts
        GrowthEnd(3, "appearance"),
    )
    box = SlicePrompts(2, "tumour", box=BoxPrompt((3, 2, 7, 5)), points=(PointPrompt((4.5, 3.5)),))
    prompts = [box, points(3, (4.5, 3.5)), points(1, (9.9, 7.9), positive=False)]
    facts = grown(session, ABOUT, prompts, None, Monitor())
    assert facts.ends[0] == "Ends at slice 3: nothing there looks like the lesion."
    assert [sentence[:46] for sentence in facts.ends[1:]] == [
        "A point on slice 3 is not in the lesion: none "
    ]
    assert (facts.first_slice, facts.last_slice, facts.volume_ml) == (2, 2, 12 / 1000)
    outside = [points(2, (4.5, 3.5), (9.9, 7.9))]
    facts = grown(session, ABOUT, outside, None, Monitor())
    assert [sentence[:20] for sentence in facts.ends[1:]] == ["A point on slice 2 i"]
