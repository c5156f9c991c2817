"""What the logs of the ways come to in minutes: tables and a figure. No run is needed for it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aslseg.report.curves import COLOURS, DASHES
from aslseg.storage import atomic_path
from economy.log import CaseWork, Log
from economy.prices import PRICES, Act, seconds_of

FACTORS = (0.5, 2.0)
"""Each price is halved and doubled by itself: all of them together change no ratio."""
AGAINST = ("hand", "once")


@dataclass(frozen=True)
class Moment:
    """What a data set is worth after so many minutes.

    Attributes:
        minutes: Of a person.
        ready: Share of the cases that meet the standard and that a person has seen.
        surface_dice: Mean over all cases, those included that are predicted only.
    """

    minutes: float
    ready: float
    surface_dice: float


@dataclass(frozen=True)
class Logged:
    """A way and its log."""

    name: str
    title: str
    log: Log

    def minutes(self, factor: float = 1.0, changed: str = "") -> float:
        """Return the minutes of the whole data set; see `prices.seconds_of`."""
        return sum(seconds_of(one.acts, factor, changed) for one in self.log.work()) / 60

    def acts(self) -> list[Act]:
        """Return all that was done."""
        return [act for one in self.log.work() for act in one.acts]

    def moments(self) -> Iterator[Moment]:
        """Yield the beginning, and what there is after each case or prediction."""
        states, minutes = self.log.states(), 0.0
        work = {(one.round, one.case): one for one in self.log.work()}
        names = {one.case for one in states}
        shape, ready = dict.fromkeys(names, 0.0), dict.fromkeys(names, False)
        yield Moment(0.0, 0.0, 0.0)
        for state in states:
            shape[state.case] = state.quality.surface_dice
            if state.final:
                ready[state.case] = state.meets
                minutes += seconds_of(work[state.round, state.case].acts) / 60
            yield Moment(minutes, _mean(ready.values()), _mean(shape.values()))

    def rounds(self) -> Mapping[int, list[CaseWork]]:
        """Return what was done, by round; 0 are the first cases."""
        found: dict[int, list[CaseWork]] = {}
        for one in self.log.work():
            found.setdefault(one.round, []).append(one)
        return found


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def write_results(ways: Sequence[Logged], folder: Path) -> None:
    """Write the tables and the figure of ways that are done."""
    _write(folder / "moments.csv", ("way", "minutes", "ready", "surface_dice"), _moment_rows(ways))
    _write(folder / "rounds.csv", ("way", "round", "cases", "minutes_per_case"), _round_rows(ways))
    _write(folder / "cases.csv", ("way", "round", "case", "minutes"), _case_rows(ways))
    _write(folder / "acts.csv", ("way", "about", "act", "amount", "minutes"), _act_rows(ways))
    (folder / "summary.md").write_text(summary(ways), encoding="utf-8")
    write_figure(ways, folder / "label-economy.svg")
    write_figure(ways, folder / "label-economy.png")


def summary(ways: Sequence[Logged]) -> str:
    """Return a table of all ways in Markdown: minutes, and parts of those of other ways.

    In brackets stand the least and the greatest part with one price halved or doubled.
    """
    by_name = {way.name: way for way in ways}
    others = [by_name[name] for name in AGAINST if name in by_name]
    targets = sorted({act.about for way in ways for act in way.acts()} - {""})
    head = ["way", "minutes", *(f"of them {name}" for name in targets)]
    head += ["a case", "to the standard", "surface Dice"]
    head += [f"part of '{other.title}'" for other in others]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for way in ways:
        cases = len({one.case for one in way.log.work()})
        last = list(way.moments())[-1]
        about = [[act for act in way.acts() if act.about == name] for name in targets]
        cells = [way.title, f"{way.minutes():.0f}"]
        cells += [f"{seconds_of(acts) / 60:.0f}" for acts in about]
        cells += [f"{way.minutes() / cases:.1f}"]
        cells += [f"{last.ready * cases:.0f} of {cases}", f"{last.surface_dice:.3f}"]
        cells += [_part(way, other) for other in others]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _part(way: Logged, other: Logged) -> str:
    changed = [
        way.minutes(factor, name) / other.minutes(factor, name)
        for name in PRICES
        for factor in FACTORS
    ]
    part = way.minutes() / other.minutes()
    return f"{part:.2f} ({min(changed):.2f} to {max(changed):.2f})"


def _moment_rows(ways: Sequence[Logged]) -> Iterator[list[object]]:
    for way in ways:
        for one in way.moments():
            yield [way.name, f"{one.minutes:.2f}", f"{one.ready:.3f}", f"{one.surface_dice:.4f}"]


def _round_rows(ways: Sequence[Logged]) -> Iterator[list[object]]:
    for way in ways:
        for number, works in way.rounds().items():
            yield [way.name, number, len(works), f"{_minutes_a_case(works):.2f}"]


def _case_rows(ways: Sequence[Logged]) -> Iterator[list[object]]:
    for way in ways:
        for one in way.log.work():
            yield [way.name, one.round, one.case, f"{seconds_of(one.acts) / 60:.2f}"]


def _act_rows(ways: Sequence[Logged]) -> Iterator[list[object]]:
    for way in ways:
        acts = way.acts()
        for about in sorted({act.about for act in acts}):
            for name in PRICES:
                same = [act for act in acts if (act.name, act.about) == (name, about)]
                if same:
                    amount, minutes = sum(act.amount for act in same), seconds_of(same) / 60
                    yield [way.name, about, name, f"{amount:.1f}", f"{minutes:.2f}"]


def _minutes_a_case(works: Sequence[CaseWork]) -> float:
    return sum(seconds_of(one.acts) for one in works) / 60 / len(works)


def _write(path: Path, columns: Sequence[str], rows: Iterator[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def write_figure(ways: Sequence[Logged], path: Path) -> None:
    """Draw what the data set is worth over minutes, and minutes a case by round."""
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(13, 4.6), layout="constrained")
        panels = [figure.add_subplot(1, 3, number) for number in (1, 2, 3)]
        for way, colour, dash in zip(ways, cycle(COLOURS), _dashes(), strict=False):
            style = {"color": colour, "linestyle": dash, "label": way.title}
            _draw(panels, way, style)
        for axes, label in zip(panels, _Y_LABELS, strict=True):
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y", alpha=0.3)
        for axes in panels[:2]:
            axes.set_xlabel("minutes of a person")
        panels[2].set_xlabel("round that was shown (0: the first cases)")
        panels[2].xaxis.get_major_locator().set_params(integer=True)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=110, format=path.suffix[1:])


_Y_LABELS = (
    "cases to the standard, of all",
    "surface Dice of the whole data set",
    "minutes a case",
)


def _dashes() -> Iterator[str]:
    for dash in cycle(DASHES):
        yield from [dash] * len(COLOURS)


def _draw(panels: Sequence[Axes], way: Logged, style: Mapping[str, str]) -> None:
    moments = list(way.moments())
    minutes = [one.minutes for one in moments]
    panels[0].step(minutes, [one.ready for one in moments], where="post", **style)
    panels[1].step(minutes, [one.surface_dice for one in moments], where="post", **style)
    rounds = way.rounds()
    a_case = [_minutes_a_case(works) for works in rounds.values()]
    panels[2].plot(list(rounds), a_case, marker="o", markersize=4, **style)
