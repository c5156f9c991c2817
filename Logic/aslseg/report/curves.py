"""Learning curves as drawings that stand inside of a page."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import cycle

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aslseg.project.run_tables import SOURCES
from aslseg.report.data import Point
from aslseg.steps import step_title

# Okabe and Ito's colours, which colour-blind people can tell apart; the dashes tell them twice.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MOST_POINTS = 300
Series = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class _Curve:
    """All that was measured of one metric.

    Attributes:
        over: What runs along the axis: `step` or `round`.
        lines: Values by position on the axis, by the name of the line.
    """

    over: str
    lines: Mapping[str, Mapping[int, float]]

    @property
    def is_single(self) -> bool:
        """Whether no line has two points."""
        return all(len(line) < 2 for line in self.lines.values())


def curve_drawings(points: Sequence[Point]) -> Mapping[str, str]:
    """Draw one diagram for each metric, with a line for each task, source or case, and round.

    A metric that each round measures once makes lines over rounds. What was measured only once is
    no curve; `single_values` has it.

    Returns:
        SVG text by the metric's name, in the order of appearance.
    """
    curves = _curves(points)
    return {name: _drawing(name, curve) for name, curve in curves.items() if not curve.is_single}


def single_values(points: Sequence[Point]) -> list[tuple[str, str, float]]:
    """List what was measured only once: name, line, value."""
    return [
        (name, label, value)
        for name, curve in _curves(points).items()
        if curve.is_single
        for label, line in curve.lines.items()
        for value in line.values()
    ]


def _curves(points: Sequence[Point]) -> dict[str, _Curve]:
    names = dict.fromkeys(point.name for point in points)
    return {name: _curve([point for point in points if point.name == name]) for name in names}


def _curve(points: Sequence[Point]) -> _Curve:
    steps: dict[str, dict[int, float]] = defaultdict(dict)
    rounds: dict[str, dict[int, float]] = defaultdict(dict)
    for point in points:
        if math.isfinite(point.value):
            line = SOURCES.get(point.line, step_title(point.line) or "run")
            rounds[line][point.round] = point.value
            steps[f"{line}, round {point.round}" if point.round else line][point.step] = point.value
    over_steps, over_rounds = _Curve("step", steps), _Curve("round", rounds)
    return over_rounds if over_steps.is_single and not over_rounds.is_single else over_steps


def _thinned(line: Mapping[int, float]) -> Series:
    """Average neighbours so that no curve has more points than a picture can show."""
    ordered = sorted(line.items())
    width = math.ceil(len(ordered) / MOST_POINTS)
    groups = (ordered[start : start + width] for start in range(0, len(ordered), width))
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _drawing(name: str, curve: _Curve) -> str:
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.subplots()
    styles = zip(cycle(COLOURS), cycle(DASHES), strict=False)
    for (label, line), (colour, dash) in zip(curve.lines.items(), styles, strict=False):
        positions, values = zip(*_thinned(line), strict=True)
        mark = "o" if len(positions) < 12 else ""
        axes.plot(positions, values, dash, color=colour, marker=mark, ms=4, lw=1.6, label=label)
    axes.set_title(name.replace("_", " "), loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(curve.over, fontsize=8)
    _style_axes(axes)
    return _svg(figure)


def _style_axes(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#e3e6ea", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="best")


def _svg(figure: Figure) -> str:
    text = StringIO()
    # Without a date and with fixed ids the same run gives the same bytes.
    with rc_context({"svg.hashsalt": "aslseg", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]
