"""The ways to label a data set, and what each feature saves when it is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from aslseg.project.review_order import ReviewOrder

Shown: TypeAlias = Literal["nothing", "specialist", "refined"]
Start: TypeAlias = Literal["full", "filled", "given", "sparse"]


@dataclass(frozen=True)
class Way:
    """A way to label a data set.

    Attributes:
        title: What it is called in tables and figures.
        shown: What a case shows when it is opened: nothing; the specialist's label map, to correct
            in the Segment Editor; or the refined one, to review lesion by lesion.
        start: What there is at the start: label maps of the first cases; the same with organs that
            a new network fills between drawn slices; with masks of the organs of all cases; or five
            slices of the first cases.
        order: Cases come in an order of the review, or in a random one.
        rejected: Candidates that the run rejected are looked at too.
        grows: Missed lesions grow from a box, else they are drawn.
        fills: Organs are filled between repaired slices by the specialist, else by shape.
        fills_lesions: Large lesions are filled by a new network where their shape is not enough.
        trains_on: The run learns from what was decided, batch after batch.
        whole: It does so in whole rounds, which train organs too, else in short ones of lesions.
        round: Round of the run that is shown; the best one if 0.
    """

    title: str
    shown: Shown
    start: Start = "full"
    order: ReviewOrder | Literal["random"] = "random"
    rejected: bool = False
    grows: bool = False
    fills: bool = False
    fills_lesions: bool = False
    trains_on: bool = False
    whole: bool = False
    round: int = 0


_TOOL = Way("this tool", "refined", order="least", grows=True, fills=True, trains_on=True)
_GIVEN = replace(_TOOL, title="this tool, organs given", start="given")
WAYS: Mapping[str, Way] = {
    "hand": Way("all by hand", "nothing"),
    "sam": Way("SAM, lesion by lesion, untrained", "nothing", grows=True),
    "once": Way("trained once, corrected in random order", "specialist", round=1),
    "tool": _TOOL,
    "tool-given": _GIVEN,
    "once-given": Way(
        "organs given, trained once, corrected in random order",
        "specialist",
        start="given",
        round=1,
    ),
    "tool-sparse": replace(_TOOL, title="this tool, five slices of the first", start="sparse"),
    "tool-doubtful": replace(_TOOL, title="this tool, most doubtful first", order="doubtful"),
    "tool-random": replace(_TOOL, title="this tool, random order", order="random"),
    "tool-rejected": replace(_TOOL, title="this tool, rejected candidates too", rejected=True),
    "tool-drawn": replace(_TOOL, title="this tool, missed lesions drawn", grows=False),
    "tool-shape": replace(_TOOL, title="this tool, organs filled by shape", fills=False),
    "tool-once": replace(_TOOL, title="this tool, trained once", trains_on=False),
    "tool-whole": replace(_TOOL, title="this tool, a whole round every four cases", whole=True),
    "tool-filled": replace(_TOOL, title="this tool, first organs filled too", start="filled"),
    "tool-given-doubtful": replace(
        _GIVEN, title="organs given, most doubtful first", order="doubtful"
    ),
    "tool-given-random": replace(_GIVEN, title="organs given, random order", order="random"),
    "tool-given-rejected": replace(
        _GIVEN,
        title="organs given, rejected candidates too, trained once",
        rejected=True,
        trains_on=False,
    ),
    "tool-given-drawn": replace(
        _GIVEN,
        title="organs given, missed lesions drawn, trained once",
        grows=False,
        trains_on=False,
    ),
    "tool-given-once": replace(_GIVEN, title="organs given, trained once", trains_on=False),
}


_REVIEWS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "least": ("least lesion volume first", {}),
    "need": ("most doubtful first", {"order": "doubtful"}),
    "random": ("random order", {"order": "random"}),
    "rejected": ("rejected candidates too", {"rejected": True}),
    "drawn": ("missed lesions drawn", {"grows": False}),
    "shape": ("organs filled by shape", {"fills": False}),
    "lesions": (
        "large lesions filled by the image too",
        {"order": "doubtful", "fills_lesions": True},
    ),
    "given": ("organs given afterwards", {"start": "given"}),
    "filled": ("first organs filled too", {"order": "doubtful", "start": "filled"}),
    "whole": (
        "then a whole round every four cases, first organs filled too",
        {"order": "doubtful", "start": "filled", "trains_on": True, "whole": True},
    ),
}


def ways_of_finished_run(rounds: int) -> Mapping[str, Way]:
    """Return the ways that need no further training: by hand, and reviews of a run's rounds.

    Where organs are given, the run has not known them: they are shown in place of what it found.
    """
    ways = {name: WAYS[name] for name in ("hand", "sam", "once", "once-given")}
    for number in range(1, rounds + 1):
        after = replace(_TOOL, trains_on=False, round=number)
        for name, (words, changes) in _REVIEWS.items():
            way = replace(after, title=f"review of round {number}, {words}", **changes)
            ways[f"round-{number}-{name}"] = way
    return ways
