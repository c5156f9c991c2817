"""The benchmark as tables: CSV with every case and lesion, CSV with means, and Markdown to read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from aslseg.benchmark.endpoints import PRIMARY, SECONDARY, TITLES, Measured, Row, measured
from aslseg.benchmark.entries import ENTRIES, REFERENCE, BenchmarkEntry
from aslseg.benchmark.experiments import TABLES, BenchmarkSetup, Experiment, Table
from aslseg.benchmark.statistics import Estimate, Gain, gain, holm
from aslseg.project.run_tables import write_table
from aslseg.storage import write_text_atomic
from aslseg.targets import Target

CASE_COLUMNS = (
    "table", "method", "draw", "labelled", "seed", "case", "patient", "target", "dice", "jaccard",
    "hd95_mm", "assd_mm", "volume_ml", "true_ml", "lesions_true", "lesions_found",
    "false_positives",
)  # fmt: skip
LESION_COLUMNS = (
    "table", "method", "draw", "labelled", "seed", "case", "patient", "target", "kind",
    "volume_ml", "confidence",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "table", "method", "labelled", "target", "endpoint", "value", "low", "high", "patients",
    "draws", "training_cpu_s", "baseline", "gain", "gain_low", "gain_high", "wins", "p", "p_holm",
)  # fmt: skip
NOTES = """\
Means over patients with 95 % bootstrap intervals; a patient's value is the mean over draws. Gains
are over the row that a method builds upon, in the same draws; p is of Wilcoxon's signed-rank test
over patients, corrected by Holm's method over all gains of a table and endpoint. Images and labels
of the scored cases were in no project. What each number means is in Docs/benchmark.md.
"""
TABLE_TITLES: dict[Table, str] = {
    "schedule": "Same schedule, the method on top",
    "time": "Equal processor time, that of ASLseg",
}


@dataclass(frozen=True, slots=True)
class GainRow:
    """A gain among all of its family.

    Attributes:
        entry: The row.
        labelled: Number of labelled cases.
        gain: Over its baseline.
        p_holm: Corrected over the family.
    """

    entry: BenchmarkEntry
    labelled: int
    gain: Gain
    p_holm: float


@dataclass(frozen=True, slots=True)
class Tables:
    """The results of the finished experiments.

    Attributes:
        setup: The benchmark.
        results: What the files of the finished experiments hold.
    """

    setup: BenchmarkSetup
    results: Mapping[Experiment, Mapping[str, Any]]
    _known: dict[tuple[str, str, str, int, str], Measured] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def tables(self) -> list[Table]:
        """Tables that have a finished experiment."""
        there = {experiment.table for experiment in self.results}
        return [table for table in TABLES if table in there]

    @property
    def labelled(self) -> list[int]:
        """Numbers of labelled cases, without that of rows that are shown all."""
        return sorted({experiment.labelled for experiment in self.results if experiment.labelled})

    @property
    def targets(self) -> tuple[Target, ...]:
        """All targets."""
        return self.setup.data.targets

    def experiments(self, table: Table, entry: str) -> list[Experiment]:
        """Return the finished experiments of a row; the reference row is in both tables."""
        table = "schedule" if entry == REFERENCE else table
        return sorted(e for e in self.results if (e.table, e.entry) == (table, entry))

    def entries(self, table: Table) -> list[BenchmarkEntry]:
        """Return the rows of a table."""
        return [entry for entry in ENTRIES.values() if self.experiments(table, entry.name)]

    def columns(self, entry: BenchmarkEntry) -> list[int]:
        """Return the numbers of labelled cases that a row has experiments for."""
        return self.labelled if entry.depends_on_draw else [0]

    def rows(self, table: Table, entry: str, target: str, labelled: int) -> list[Row]:
        """Return the scores of a row on one target."""
        return [
            {**row, "draw": e.draw, "labelled": e.labelled, "seed": e.seed}
            for e in self.experiments(table, entry)
            if e.labelled == labelled
            for row in self.results[e]["rows"]
            if row["target"] == target
        ]

    def measured(
        self, table: Table, entry: BenchmarkEntry, target: str, labelled: int, endpoint: str
    ) -> Measured:
        """Return an endpoint of a row; of one that is the same in all columns, that."""
        column = labelled if entry.depends_on_draw else 0
        key = (table, entry.name, target, column, endpoint)
        if key not in self._known:  # a bootstrap, which tables, gains and figure ask for again
            self._known[key] = measured(self.rows(table, entry.name, target, column), endpoint)
        return self._known[key]

    def gains(self, table: Table, target: str, endpoint: str) -> list[GainRow]:
        """Return the gains of all rows over what they build upon: a family of tests."""
        found: list[tuple[BenchmarkEntry, int, Gain]] = []
        for entry in self.entries(table):
            for labelled in self.columns(entry) if entry.baseline else []:
                ours = self.measured(table, entry, target, labelled, endpoint).values
                under = ENTRIES[entry.baseline]
                theirs = self.measured(table, under, target, labelled, endpoint).values
                gained = gain(ours, theirs, self.setup.data.patients)
                if gained is not None:
                    found.append((entry, labelled, gained))
        corrected = holm([gained.p for *_, gained in found])
        return [GainRow(*three, p) for three, p in zip(found, corrected, strict=True)]

    def training_s(self, table: Table, entry: str, labelled: int | None = None) -> float:
        """Return the mean processor time of a row's training; NaN when it is not known."""
        known = [
            float(self.results[e]["training_cpu_s"])
            for e in self.experiments(table, entry)
            if labelled in (None, e.labelled)
            and not self.results[e]["resumed"]
            and ENTRIES[entry].kind == "run"
        ]
        return fmean(known) if known else math.nan


def write_tables(tables: Tables) -> list[Path]:
    """Write `cases.csv`, `lesions.csv`, `summary.csv` and `benchmark.md` into the folder.

    Returns:
        The files.
    """
    folder = tables.setup.folder
    names = ("cases.csv", "lesions.csv", "summary.csv", "benchmark.md")
    places = [folder / name for name in names]
    write_table(places[0], CASE_COLUMNS, _only(CASE_COLUMNS, _case_rows(tables)))
    write_table(places[1], LESION_COLUMNS, _only(LESION_COLUMNS, _lesion_rows(tables)))
    write_table(places[2], SUMMARY_COLUMNS, _summary_rows(tables))
    write_text_atomic(places[3], markdown(tables))
    return places


def _only(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {name: row[name] for name in columns}


def _case_rows(tables: Tables) -> Iterator[dict[str, Any]]:
    for experiment, result in sorted(tables.results.items(), key=lambda item: item[0]):
        facts = {
            "table": experiment.table,
            "method": experiment.entry,
            "draw": experiment.draw,
            "labelled": experiment.labelled or "all",
            "seed": experiment.seed,
        }
        for row in result["rows"]:
            yield {**facts, **row}


def _lesion_rows(tables: Tables) -> Iterator[dict[str, Any]]:
    for row in _case_rows(tables):
        lesions = row.get("lesions", {"true_ml": (), "found_with": (), "false_with": ()})
        for volume_ml, confidence in zip(lesions["true_ml"], lesions["found_with"], strict=True):
            yield {**row, "kind": "true", "volume_ml": volume_ml, "confidence": confidence}
        for confidence in lesions["false_with"]:
            yield {**row, "kind": "false", "volume_ml": "", "confidence": confidence}


def _endpoints(target: Target) -> tuple[str, ...]:
    is_lesion = target.inside is not None
    return (PRIMARY[is_lesion], *(SECONDARY if is_lesion else ()))


def _summary_rows(tables: Tables) -> Iterator[dict[str, Any]]:
    for table in tables.tables:
        for target in tables.targets:
            for endpoint in _endpoints(target):
                gains = {
                    (row.entry.name, row.labelled): row
                    for row in tables.gains(table, target.name, endpoint)
                }
                for entry in tables.entries(table):
                    for labelled in tables.columns(entry):
                        facts = _summary(tables, table, entry, target.name, labelled, endpoint)
                        yield {**facts, **_gain_columns(gains.get((entry.name, labelled)))}


def _summary(
    tables: Tables,
    table: Table,
    entry: BenchmarkEntry,
    target: str,
    labelled: int,
    endpoint: str,
) -> dict[str, Any]:
    found = tables.measured(table, entry, target, labelled, endpoint).estimate
    draws = {row["draw"] for row in tables.rows(table, entry.name, target, labelled)}
    return {
        "table": table,
        "method": entry.name,
        "labelled": labelled or "all",
        "target": target,
        "endpoint": endpoint,
        "value": _number(found.value),
        "low": _number(found.low),
        "high": _number(found.high),
        "patients": found.patients,
        "draws": len(draws),
        "training_cpu_s": _number(tables.training_s(table, entry.name, labelled)),
    }


def _gain_columns(row: GainRow | None) -> dict[str, Any]:
    if row is None:
        return {}
    return {
        "baseline": row.entry.baseline,
        "gain": _number(row.gain.difference.value),
        "gain_low": _number(row.gain.difference.low),
        "gain_high": _number(row.gain.difference.high),
        "wins": row.gain.wins,
        "p": _number(row.gain.p),
        "p_holm": _number(row.p_holm),
    }


def markdown(tables: Tables) -> str:
    """Return the benchmark as Markdown: for each table and target its endpoints and gains."""
    parts = [NOTES]
    for table in tables.tables:
        parts.append(f"## {TABLE_TITLES[table]}\n")
        for target in tables.targets:
            endpoint = PRIMARY[target.inside is not None]
            parts.append(f"### {target.name}: {TITLES[endpoint]}\n")
            parts.append(_table(value_lines(tables, table, target.name, endpoint)))
            parts.append(_table(_gain_lines(tables, table, target.name, endpoint)))
            if target.inside is not None:
                parts.append(_table(_secondary_lines(tables, table, target.name)))
    return "\n".join(parts)


def value_lines(tables: Tables, table: Table, target: str, endpoint: str) -> list[list[str]]:
    """Return the table of an endpoint, its head first."""
    columns = [f"{number} labelled" for number in tables.labelled]
    lines = [["method", *columns, "experiments", "processor time of a training"]]
    for entry in tables.entries(table):
        estimates = [
            tables.measured(table, entry, target, number, endpoint).estimate
            for number in tables.labelled
        ]
        count = len(tables.experiments(table, entry.name))
        used = tables.training_s(table, entry.name)
        seconds = "-" if math.isnan(used) else f"{used:.0f} s"
        lines.append([entry.title, *map(with_interval, estimates), str(count), seconds])
    return lines


def _gain_lines(tables: Tables, table: Table, target: str, endpoint: str) -> list[list[str]]:
    lines = [["method", "over", "labelled", "gain", "better patients", "p", "p (Holm)"]]
    for row in tables.gains(table, target, endpoint):
        difference = row.gain.difference
        lines.append(
            [
                row.entry.title,
                ENTRIES[row.entry.baseline].title,
                str(row.labelled or "all"),
                with_interval(difference, sign="+"),
                f"{row.gain.wins} of {difference.patients}",
                _p(row.gain.p),
                _p(row.p_holm),
            ]
        )
    return lines


def _secondary_lines(tables: Tables, table: Table, target: str) -> list[list[str]]:
    lines = [["method", "labelled", *(TITLES[endpoint] for endpoint in SECONDARY)]]
    for entry in tables.entries(table):
        for labelled in tables.columns(entry):
            cells = [
                with_interval(tables.measured(table, entry, target, labelled, endpoint).estimate)
                for endpoint in SECONDARY
            ]
            lines.append([entry.title, str(labelled or "all"), *cells])
    return lines


def with_interval(found: Estimate, sign: str = "") -> str:
    """Write an estimate with its interval, `0.812 [0.790, 0.830]`; a dash for nothing."""
    if math.isnan(found.value):
        return "-"
    if math.isnan(found.low):
        return f"{found.value:{sign}.3f}"
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _number(value: float) -> float | str:
    return "" if math.isnan(value) else round(value, 6)


def _table(lines: Sequence[Sequence[str]]) -> str:
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
