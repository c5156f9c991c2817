"""The benchmark as a figure: Dice against the number of labelled volumes, one line a method."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aslseg.benchmark.entries import BenchmarkEntry
from aslseg.benchmark.statistics import over_seeds
from aslseg.benchmark.tables import Tables
from aslseg.report.curves import COLOURS, DASHES
from aslseg.storage import atomic_path

LINE_COLOURS = (*COLOURS, "#8C3B2E")
MARKS = "osD^vPX*h"
STEP_ASIDE = 0.05
"""How far neighbouring rows stand apart, in distances of two columns: no bar hides another."""


def write_figure(tables: Tables, path: Path) -> Path:
    """Draw one panel per target; bars are standard deviations over seeds.

    Args:
        tables: What was measured.
        path: The picture; its suffix chooses the format.
    """
    targets = tables.targets
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.6 * len(targets), 4.8), layout="constrained")
        for number, target in enumerate(targets):
            axes = figure.add_subplot(1, len(targets), number + 1)
            _panel(axes, tables, target)
        figure.axes[0].set_ylabel("Dice on held-out volumes")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=150)
    return path


def _panel(axes: Axes, tables: Tables, target: str) -> None:
    axes.set_title(target)
    axes.set_xlabel("labelled volumes")
    entries = [entry for entry in tables.entries if not entry.shows_all]
    for number, entry in enumerate(entries):
        _line(axes, tables, target, entry, number, number - (len(entries) - 1) / 2)
    for entry in (entry for entry in tables.entries if entry.shows_all):
        _bound(axes, tables, target, entry)
    axes.set_xticks(range(len(tables.labelled)), [str(number) for number in tables.labelled])
    axes.margins(x=0.08)
    axes.grid(axis="y", alpha=0.3)


def _line(
    axes: Axes, tables: Tables, target: str, entry: BenchmarkEntry, number: int, aside: float
) -> None:
    means = [over_seeds(tables.scores(entry.name, target, n)) for n in tables.labelled]
    positions = [position + aside * STEP_ASIDE for position in range(len(means))]
    axes.errorbar(
        positions,
        [mean.value for mean in means],
        [0.0 if math.isnan(mean.sd) else mean.sd for mean in means],
        label=entry.title,
        color=LINE_COLOURS[number % len(LINE_COLOURS)],
        linestyle=DASHES[number % len(DASHES)],
        marker=MARKS[number % len(MARKS)],
        markersize=5,
        capsize=2,
        linewidth=1.4,
        elinewidth=0.8,
    )


def _bound(axes: Axes, tables: Tables, target: str, entry: BenchmarkEntry) -> None:
    mean = over_seeds(tables.scores(entry.name, target, 0))
    count = len(tables.setup.data.training_labels)
    axes.axhline(mean.value, color="0.4", linewidth=1, label=f"{entry.title} ({count} labelled)")
    if not math.isnan(mean.sd):
        low, high = mean.value - mean.sd, mean.value + mean.sd
        axes.axhspan(low, high, color="0.4", alpha=0.12, linewidth=0)
