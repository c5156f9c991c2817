"""Learning curves as drawings that stand inside of a page."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import cycle

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aslseg.report_data import Point

# Okabe and Ito's colours, which colour-blind people can tell apart; the dashes tell them twice.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MOST_POINTS = 300
Series = Sequence[tuple[int, float]]


def curve_drawings(points: Sequence[Point]) -> Mapping[str, str]:
    """Draw one diagram for each metric, with a line for each stage and round.

    Returns:
        SVG text by the metric's name, in the order of appearance.
    """
    metrics: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for point in points:
        if math.isfinite(point.value):
            metrics[point.name][_label(point)][point.step] = point.value
    return {
        name: _drawing(name, {label: _thinned(line) for label, line in lines.items()})
        for name, lines in metrics.items()
    }


def _label(point: Point) -> str:
    words = [point.stage.replace("_", " ") or "run"]
    if point.round:
        words.append(f"round {point.round}")
    return ", ".join(words)


def _thinned(line: Mapping[int, float]) -> Series:
    """Average neighbours so that no curve has more points than a picture can show."""
    ordered = sorted(line.items())
    width = math.ceil(len(ordered) / MOST_POINTS)
    groups = (ordered[start : start + width] for start in range(0, len(ordered), width))
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _drawing(name: str, lines: Mapping[str, Series]) -> str:
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.subplots()
    styles = zip(cycle(COLOURS), cycle(DASHES), strict=False)
    for (label, line), (colour, dash) in zip(lines.items(), styles, strict=False):
        steps, values = zip(*line, strict=True)
        mark = "o" if len(line) < 12 else ""
        axes.plot(steps, values, dash, color=colour, marker=mark, ms=4, lw=1.6, label=label)
    _dress(axes, name)
    return _svg(figure)


def _dress(axes: Axes, name: str) -> None:
    axes.set_title(name.replace("_", " "), loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("step", fontsize=8)
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
