"""The benchmark as a figure: its primary endpoints against the number of labelled cases."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aslseg.benchmark.endpoints import PRIMARY, TITLES
from aslseg.benchmark.entries import BenchmarkEntry
from aslseg.benchmark.experiments import Table
from aslseg.benchmark.tables import TABLE_TITLES, Tables
from aslseg.report.curves import COLOURS, DASHES
from aslseg.storage import atomic_path
from aslseg.targets import Target

LINE_COLOURS = (*COLOURS, "#8C3B2E")
MARKS = "osD^vPX*h"
STEP_ASIDE = 0.05
"""How far neighbouring rows stand apart, in distances of two columns: no bar hides another."""


def write_figure(tables: Tables, path: Path) -> Path:
    """Draw one panel per table and target; bars are 95 % intervals over patients.

    Args:
        tables: What was measured.
        path: The picture; its suffix chooses the format.
    """
    targets, rows = tables.targets, len(tables.tables)
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.6 * len(targets), 3.8 * rows + 1), layout="constrained")
        for row, table in enumerate(tables.tables):
            for column, target in enumerate(targets):
                number = row * len(targets) + column + 1
                _panel(figure.add_subplot(rows, len(targets), number), tables, table, target)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=150)
    return path


def _panel(axes: Axes, tables: Tables, table: Table, target: Target) -> None:
    endpoint = PRIMARY[target.inside is not None]
    axes.set_title(f"{target.name}\n{TABLE_TITLES[table]}")
    axes.set_ylabel(TITLES[endpoint])
    axes.set_xlabel("labelled cases")
    entries = tables.entries(table)
    lines = [entry for entry in entries if entry.depends_on_draw]
    for number, entry in enumerate(lines):
        aside = (number - (len(lines) - 1) / 2) * STEP_ASIDE
        _line(axes, tables, table, target, entry, number=number, aside=aside)
    for entry in (entry for entry in entries if not entry.depends_on_draw):
        found = tables.measured(table, entry, target.name, 0, endpoint).estimate
        axes.axhline(found.value, color="0.4", linewidth=1, label=entry.title)
    axes.set_xticks(range(len(tables.labelled)), [str(number) for number in tables.labelled])
    axes.margins(x=0.08)
    axes.grid(axis="y", alpha=0.3)


def _line(
    axes: Axes,
    tables: Tables,
    table: Table,
    target: Target,
    entry: BenchmarkEntry,
    *,
    number: int,
    aside: float,
) -> None:
    endpoint = PRIMARY[target.inside is not None]
    found = [
        tables.measured(table, entry, target.name, n, endpoint).estimate for n in tables.labelled
    ]
    ends = [
        (0.0, 0.0) if math.isnan(e.low) else (max(e.value - e.low, 0), max(e.high - e.value, 0))
        for e in found
    ]
    axes.errorbar(
        [position + aside for position in range(len(found))],
        [e.value for e in found],
        [[low for low, _ in ends], [high for _, high in ends]],
        label=entry.title,
        color=LINE_COLOURS[number % len(LINE_COLOURS)],
        linestyle=DASHES[number % len(DASHES)],
        marker=MARKS[number % len(MARKS)],
        markersize=5,
        capsize=2,
        linewidth=1.4,
        elinewidth=0.8,
    )
