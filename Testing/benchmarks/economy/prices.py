"""What an act of a person costs: seconds, and where the number comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Act:
    """Something that a person did.

    Attributes:
        name: One of `PRICES`.
        amount: How often, or how many slices or mm.
        about: Name of the target; nothing for what is about the whole case.
    """

    name: str
    amount: float = 1.0
    about: str = ""


@dataclass(frozen=True)
class Price:
    """What an act costs.

    Attributes:
        what: The act, in words.
        seconds: For one.
        per: What one is.
        source: Where the number is from.
    """

    what: str
    seconds: float
    per: str
    source: str


KEY_S, POINT_S, CLICK_S, THINK_S = 0.2, 1.1, 0.2, 1.35
"""Operators K, P, B and M of the keystroke-level model (Card, Moran, Newell 1980)."""
PRICES: Mapping[str, Price] = {
    "open": Price(
        "open a case", THINK_S + POINT_S + CLICK_S + 1.2, "case", "M, P, B; 1.2 s until it is shown"
    ),
    "look": Price("look at a lesion and decide", 2 * THINK_S, "lesion", "M twice (ours)"),
    "key": Price("press a key", KEY_S, "key", "K"),
    "click": Price("click", POINT_S + CLICK_S, "click", "P, B"),
    "scroll": Price("go through slices, looking", 0.5, "slice", "ours"),
    "box": Price(
        "draw a box", THINK_S + 2 * (POINT_S + CLICK_S), "box", "M, P and B at both corners"
    ),
    "wait": Price(
        "wait for a lesion to grow", 2.0, "lesion", "ours; mean 1.3 s, most 8.5 s before 9441cdf"
    ),
    "fill": Price(
        "wait for an organ to be filled",
        20.0,
        "organ",
        "ours; 150 steps of its network on one core",
    ),
    "fill anew": Price("the same by a new network", 50.0, "organ", "ours; 300 steps on one core"),
    "stroke": Price(
        "begin a contour or a stroke", THINK_S + POINT_S + CLICK_S, "stroke", "M, P, B"
    ),
    "draw": Price("draw", 0.1, "mm of the patient", "ours: see below"),
    "save": Price("say that it is done", THINK_S + POINT_S + CLICK_S, "case", "M, P, B"),
}


def seconds_of(acts: Iterable[Act], factor: float = 1.0, changed: str = "") -> float:
    """Return what acts cost.

    Args:
        acts: What was done.
        factor: All prices are multiplied by it.
        changed: Only the price of this act is; of all when empty.
    """
    return sum(
        PRICES[act.name].seconds * act.amount * (factor if changed in ("", act.name) else 1.0)
        for act in acts
    )


def price_table() -> str:
    """Return the price list as a table in Markdown."""
    rows = [f"| {p.what} | {p.seconds:.2f} | {p.per} | {p.source} |" for p in PRICES.values()]
    return "\n".join(["| act | seconds | for one | from |", "|---|---|---|---|", *rows])
