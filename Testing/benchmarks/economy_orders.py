"""Which case next: orders of a review that is finished, without reviewing again.

    python Testing/benchmarks/economy_orders.py --ways round-1-need round-2-need \
        --work local/economy-B local/economy-C local/economy-D

What a case takes is in the log of `label_economy.py`; where nothing is learnt in between, it takes
the same at any turn. So a finished review tells what each order brings: minutes until half and
three quarters of the cases are done, and what the data set is worth meanwhile, as the mean of its
surface Dice over the minutes of the review. Beside it stands how far the panel's "about 25 min at
your pace" is off after each case from the third on. `--without` leaves cases out, `--figure` draws
what is done and what the data set is worth, in each order.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from economy.log import Log
from economy.prices import seconds_of
from economy.study import RUN

from aslseg.data.images import read_labelmap
from aslseg.project.candidate_table import expected_volume_ml, read_candidates
from aslseg.project.case_reports import CaseReport, organs_given
from aslseg.project.project import open_project
from aslseg.project.review import refined_path
from aslseg.project.review_order import waiting
from aslseg.project.review_pace import CASES_OF_A_PACE, seconds_left
from aslseg.project.run_folder import open_run
from aslseg.project.run_tables import read_reliability
from aslseg.report.curves import COLOURS, DASHES
from aslseg.storage import atomic_path

SAMPLES = 500
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Reviewed:
    """A case of a finished review.

    Attributes:
        report: How it stood before a person saw it.
        minutes: What it took.
        before: Surface Dice of what was shown.
        after: And of what the person made of it.
        lesions: Expected number of lesions: the sum of the candidates' probabilities.
        organ: Logarithm of the ml that the refined label has, mean HU and its deviation there.
    """

    report: CaseReport
    minutes: float
    before: float
    after: float
    lesions: float = 0.0
    organ: tuple[float, float, float] = (0.0, 0.0, 0.0)


Order: TypeAlias = Callable[[Sequence[Reviewed]], list[Reviewed]]


def by_panel(cases: Sequence[Reviewed], order: str) -> list[Reviewed]:
    """Return cases in an order of the panel."""
    by_name = {one.report.case_id: one for one in cases}
    chosen = waiting([one.report for one in cases], "doubtful" if order == "doubtful" else "least")
    return [by_name[report.case_id] for report in chosen]


def diverse(cases: Sequence[Reviewed]) -> list[Reviewed]:
    """Return the case most unlike the mean, then always the one most unlike all before (ours).

    That is the greedy core set of Sener and Savarese (arXiv 1708.00489), on features of the organ.
    """
    features = np.array([one.organ for one in cases])
    features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    nearest = np.linalg.norm(features, axis=1)
    order: list[int] = []
    while len(order) < len(cases):
        chosen = int(np.argmax(np.where(np.isin(np.arange(len(cases)), order), -1.0, nearest)))
        away = np.linalg.norm(features - features[chosen], axis=1)
        nearest = away if not order else np.minimum(nearest, away)
        order.append(chosen)
    return [cases[n] for n in order]


ORDERS: Mapping[str, Order] = {
    "most doubtful first": lambda cases: by_panel(cases, "doubtful"),
    "least lesion volume first": lambda cases: by_panel(cases, "least"),
    "most lesion volume first": lambda cases: by_panel(cases, "least")[::-1],
    "fewest lesions first": lambda cases: sorted(cases, key=lambda one: one.lesions),
    "most lesions first": lambda cases: sorted(cases, key=lambda one: -one.lesions),
    "most unlike those before": diverse,
    "shortest first, which nobody knows": lambda cases: sorted(cases, key=lambda one: one.minutes),
}


@dataclass(frozen=True)
class Found:
    """What an order brings: minutes until parts are done, and mean surface Dice meanwhile."""

    half: float
    three_quarters: float
    worth: float


def measured(order: Sequence[Reviewed], done: Sequence[float] = ()) -> Found:
    """Measure an order.

    Args:
        order: The cases.
        done: Surface Dice of other cases of the data set, which are done before.
    """
    minutes, worth = np.array([one.minutes for one in order]), worth_of(order, done)
    ready = np.cumsum(minutes)
    half, most = (float(ready[max(round(p * len(order)), 1) - 1]) for p in (0.5, 0.75))
    return Found(half, most, float(worth[:-1] @ minutes / ready[-1]))


def worth_of(order: Sequence[Reviewed], done: Sequence[float]) -> np.ndarray:
    """Return the mean surface Dice of the data set before each case, and at the end."""
    gains = np.cumsum([0.0, *(one.after - one.before for one in order)])
    start = sum(one.before for one in order) + sum(done)
    return np.asarray((gains + start) / (len(order) + len(done)))


def off_by(order: Sequence[Reviewed], *, by_volume: bool) -> float:
    """Return the factor by which the time that is said to be left is off, in the geometric mean.

    Args:
        order: The cases.
        by_volume: Whether the expected volume of lesions is known, else all cases count alike.
    """
    ends = np.cumsum([one.minutes for one in order])
    factors = []
    for count in range(CASES_OF_A_PACE, len(order) - 1):
        reports = [CaseReport("drawn", "train", "labelled", decided_at=BEGIN.isoformat())]
        for n, one in enumerate(order):
            at = (BEGIN + timedelta(minutes=float(ends[n]))).isoformat() if n < count else ""
            known = one.report.lesion_ml if by_volume else None
            state = "corrected" if at else one.report.state
            given = by_volume and one.report.organs_given
            reports.append(
                CaseReport(
                    f"{n}", "train", state, decided_at=at, lesion_ml=known, organs_given=given
                )
            )
        said = seconds_left(reports)
        if said is not None:
            factors.append(abs(np.log(said / 60 / (ends[-1] - ends[count - 1]))))
    return float(np.exp(np.mean(factors))) if factors else float("nan")


def read(folder: Path) -> tuple[list[Reviewed], list[float]]:
    """Return the reviewed cases of a way, and the surface Dice of those that were done before."""
    log, project = Log(folder), open_project(folder / "project")
    run = open_run(project.folder, RUN)
    works = {one.case: one for one in log.work() if one.round}
    number = max(one.round for one in works.values())
    judged = {row.case: row for row in read_reliability(run.round(number))}
    before = {one.case: one.quality.surface_dice for one in log.states() if not one.final}
    after = {one.case: one.quality.surface_dice for one in log.states() if one.final}
    cases = []
    for name, work in works.items():
        predictions, row = run.predictions(number, name), judged[name]
        image = project.load_image(project.case(name))
        labels = read_labelmap(refined_path(run, name, number))
        inside = image.voxels[labels.labels > 0]
        volume_ml = len(inside) * labels.geometry.voxel_ml
        report = CaseReport(
            name,
            "train",
            "pseudo" if row.accepted else "needs review",
            score=None if np.isnan(row.score) else row.score,
            lesion_ml=expected_volume_ml(predictions),
            organs_given=organs_given(project.case(name), project.targets),
        )
        lesions = sum(one.probability for one in read_candidates(predictions))
        organ = (float(np.log1p(volume_ml)), float(inside.mean()), float(inside.std()))
        minutes = seconds_of(work.acts) / 60
        cases.append(Reviewed(report, minutes, before[name], after[name], lesions, organ))
    return cases, [value for name, value in after.items() if name not in works]


def rows(cases: Sequence[Reviewed], done: Sequence[float], seed: int = 0) -> Iterator[list[str]]:
    """Give a row for each order, after one for the mean of random ones."""
    generator = np.random.default_rng(seed)
    shuffled = [[cases[n] for n in generator.permutation(len(cases))] for _ in range(SAMPLES)]
    yield ["random", *_cells(shuffled, done)]
    for name, order in ORDERS.items():
        yield [name, *_cells([order(cases)], done)]


def _cells(orders: Sequence[Sequence[Reviewed]], done: Sequence[float]) -> list[str]:
    found = [measured(order, done) for order in orders]
    half, most = (np.mean([getattr(one, n) for one in found]) for n in ("half", "three_quarters"))
    cells = [f"{half:.0f}", f"{most:.0f}", f"{np.mean([one.worth for one in found]):.3f}"]
    off = [np.mean([off_by(order, by_volume=known) for order in orders]) for known in (False, True)]
    return [*cells, *(f"{factor:.1f}" for factor in off)]


def write_figure(reviews: Mapping[str, tuple[list[Reviewed], list[float]]], path: Path) -> None:
    """Draw, for each review, cases that are done and what the data set is worth over minutes."""
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.4 * len(reviews), 6.4), layout="constrained")
        panels = figure.subplots(2, len(reviews), squeeze=False, sharex="col", sharey="row")
        for column, (title, (cases, done)) in enumerate(reviews.items()):
            for n, (name, order) in enumerate(ORDERS.items()):
                style = {"color": COLOURS[n % len(COLOURS)], "linestyle": DASHES[n % len(DASHES)]}
                ordered = order(cases)
                minutes = np.cumsum([0.0, *(one.minutes for one in ordered)])
                upper, lower = panels[:, column]
                upper.step(minutes, range(len(minutes)), where="post", label=name, **style)
                lower.step(minutes, worth_of(ordered, done), where="post", **style)
            panels[0, column].set_title(title)
            panels[1, column].set_xlabel("minutes of the review")
        panels[0, 0].set_ylabel("cases done")
        panels[1, 0].set_ylabel("surface Dice of the whole data set")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=110, format=path.suffix[1:])


HEAD = (
    "order", "minutes to half", "to three quarters", "surface Dice meanwhile",
    "time left off by, cases alike", "by volume",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, nargs="+", required=True)
    parser.add_argument("--ways", nargs="+", required=True, help="that learnt nothing in between")
    parser.add_argument("--without", nargs="*", default=[], help="cases")
    parser.add_argument("--figure", type=Path, help="svg or png")
    arguments = parser.parse_args()
    reviews = {}
    for work, way in itertools.product(arguments.work, arguments.ways):
        cases, done = read(work / "ways" / way)
        cases = [one for one in cases if one.report.case_id not in arguments.without]
        reviews[f"{work.name}, {way}"] = cases, done
        print(f"\n{work.name}, {way}: {len(cases)} cases\n\n| {' | '.join(HEAD)} |")
        print("|---" * len(HEAD) + "|")
        for row in rows(cases, done):
            print(f"| {' | '.join(row)} |", flush=True)
    if arguments.figure:
        write_figure(reviews, arguments.figure)


if __name__ == "__main__":
    main()
