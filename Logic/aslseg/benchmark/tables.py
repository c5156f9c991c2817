"""The benchmark as tables: CSV with every score, CSV with means, and Markdown to read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aslseg.benchmark.entries import ENTRIES, BenchmarkEntry
from aslseg.benchmark.experiments import BenchmarkSetup, Experiment
from aslseg.benchmark.statistics import Gain, Score, gain, over_seeds
from aslseg.evaluation.scores import Mean, mean_of
from aslseg.project.run_tables import write_table
from aslseg.storage import write_text_atomic

SCORE_COLUMNS = (
    "method", "labelled", "seed", "case", "target", "dice", "jaccard", "hd95_mm", "assd_mm",
    "volume_ml", "lesions_true", "lesions_found", "false_positives",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "method", "labelled", "target", "seeds", "dice", "dice_sd", "hd95_mm", "hd95_mm_sd", "steps",
    "cpu_seconds", "baseline", "gain", "gain_sd", "pairs", "wins", "p_pairs", "p_cases",
)  # fmt: skip
NOTES = """\
Dice on held-out volumes: mean ± standard deviation over seeds of the mean over volumes. Every run
took {budget} training steps in all. Labels of held-out volumes were not part of any project, so
nothing was chosen by them.

Gains are over the row that a method builds upon, on the same volume, seed and number of labelled
volumes: mean ± standard deviation over seeds of the mean over volumes. Both p are of Wilcoxon's
signed-rank test, two-sided, and not corrected for the number of comparisons. *p (pairs)* takes
every volume with every seed (and number of labelled volumes) for independent, which they are not: a
volume's difficulty is in all of its pairs, so this p is too small. *p (volumes)* has one mean
difference per volume; with {cases} volumes it cannot be below {least:.3g}.
"""


@dataclass(frozen=True, slots=True)
class Tables:
    """The results of the finished experiments.

    Attributes:
        setup: The benchmark.
        results: What the files of the finished experiments hold.
    """

    setup: BenchmarkSetup
    results: Mapping[Experiment, Mapping[str, Any]]

    @property
    def entries(self) -> list[BenchmarkEntry]:
        """Rows that have a finished experiment."""
        there = {experiment.entry for experiment in self.results}
        return [entry for entry in ENTRIES.values() if entry.name in there]

    @property
    def labelled(self) -> list[int]:
        """Numbers of labelled volumes, without that of the upper bound."""
        return sorted({experiment.labelled for experiment in self.results if experiment.labelled})

    @property
    def targets(self) -> list[str]:
        """Names of the targets."""
        return [target.name for target in self.setup.data.targets]

    def scores(self, entry: str, target: str, labelled: int | None = None) -> list[Score]:
        """Return the scores of a row on one target, of one or of all numbers of volumes."""
        return [
            {**row, "labelled": experiment.labelled, "seed": experiment.seed}
            for experiment, result in sorted(self.results.items())
            if experiment.entry == entry and labelled in (None, experiment.labelled)
            for row in result["rows"]
            if row["target"] == target
        ]

    def columns(self, entry: BenchmarkEntry) -> list[int]:
        """Return the numbers of labelled volumes that a row has experiments for."""
        return [0] if entry.shows_all else self.labelled

    def gain(self, entry: BenchmarkEntry, target: str, labelled: int | None = None) -> Gain | None:
        """Compare a row with the one it builds upon; None where there is none."""
        mine = self.scores(entry.name, target, labelled)
        return gain(mine, self.scores(entry.baseline, target, labelled))


def write_tables(tables: Tables) -> list[Path]:
    """Write `scores.csv`, `summary.csv` and `benchmark.md` beside the experiments.

    Returns:
        The files.
    """
    folder = tables.setup.folder
    places = [folder / name for name in ("scores.csv", "summary.csv", "benchmark.md")]
    write_table(places[0], SCORE_COLUMNS, _score_rows(tables))
    write_table(places[1], SUMMARY_COLUMNS, _summary_rows(tables))
    write_text_atomic(places[2], markdown(tables))
    return places


def _score_rows(tables: Tables) -> Iterator[dict[str, Any]]:
    for experiment, result in sorted(tables.results.items()):
        facts = {
            "method": experiment.entry,
            "labelled": experiment.labelled or "all",
            "seed": experiment.seed,
        }
        for row in result["rows"]:
            yield {**facts, **row}


def _summary_rows(tables: Tables) -> Iterator[dict[str, Any]]:
    for target in tables.targets:
        for entry in tables.entries:
            for labelled in tables.columns(entry):
                yield _summary(tables, entry, target, labelled)


def _summary(tables: Tables, entry: BenchmarkEntry, target: str, labelled: int) -> dict[str, Any]:
    scores = tables.scores(entry.name, target, labelled)
    dice, distance = over_seeds(scores), over_seeds(scores, "hd95_mm")
    gained = tables.gain(entry, target, labelled)
    row = {
        "method": entry.name,
        "labelled": labelled or "all",
        "target": target,
        "seeds": dice.count,
        "dice": _number(dice.value),
        "dice_sd": _number(dice.sd),
        "hd95_mm": _number(distance.value),
        "hd95_mm_sd": _number(distance.sd),
        "steps": tables.setup.preset.budget,
        "cpu_seconds": _number(_seconds(tables, entry, labelled).value),
    }
    return row if gained is None else {**row, **_gain_columns(entry, gained)}


def _gain_columns(entry: BenchmarkEntry, gained: Gain) -> dict[str, Any]:
    return {
        "baseline": entry.baseline,
        "gain": _number(gained.over_seeds.value),
        "gain_sd": _number(gained.over_seeds.sd),
        "pairs": gained.pairs,
        "wins": gained.wins,
        "p_pairs": _number(gained.p_pairs),
        "p_cases": _number(gained.p_cases),
    }


def _seconds(tables: Tables, entry: BenchmarkEntry, labelled: int | None = None) -> Mean:
    return mean_of(
        [
            float(result["cpu_seconds"])
            for experiment, result in tables.results.items()
            if experiment.entry == entry.name
            and labelled in (None, experiment.labelled)
            and not result.get("resumed", False)
        ]
    )


def markdown(tables: Tables) -> str:
    """Return the benchmark as Markdown: for each target its Dice, and the gains."""
    count = len(tables.setup.data.held_out)
    notes = NOTES.format(budget=tables.setup.preset.budget, cases=count, least=2 / 2**count)
    parts = [notes]
    for target in tables.targets:
        parts += [f"## {target}: Dice\n", _table(dice_lines(tables, target))]
        parts += [f"## {target}: gain over the row built upon\n", _gain_table(tables, target)]
    return "\n".join(parts)


def dice_lines(tables: Tables, target: str) -> list[list[str]]:
    """Return the table of a target's Dice, its head first."""
    columns = [f"{number} labelled" for number in tables.labelled]
    lines = [["method", *columns, "seeds", "processor time a run"]]
    for entry in tables.entries:
        means = [
            over_seeds(tables.scores(entry.name, target, 0 if entry.shows_all else number))
            for number in tables.labelled
        ]
        seeds = str(max((mean.count for mean in means), default=0))
        used = _seconds(tables, entry).value
        seconds = "-" if math.isnan(used) else f"{used:.0f} s"
        lines.append([_title(tables, entry), *map(with_sd, means), seeds, seconds])
    return lines


def _title(tables: Tables, entry: BenchmarkEntry) -> str:
    if not entry.shows_all:
        return entry.title
    return f"{entry.title} ({len(tables.setup.data.training_labels)} labelled)"


def _gain_table(tables: Tables, target: str) -> str:
    lines = [["method", "over", "labelled", "gain", "better pairs", "p (pairs)", "p (volumes)"]]
    for entry in tables.entries:
        for labelled in (*tables.labelled, None):
            gained = tables.gain(entry, target, labelled)
            if gained is not None:
                lines.append(_gain_line(entry, labelled, gained))
    return _table(lines)


def _gain_line(entry: BenchmarkEntry, labelled: int | None, gained: Gain) -> list[str]:
    return [
        entry.title,
        ENTRIES[entry.baseline].title,
        "all columns" if labelled is None else str(labelled),
        with_sd(gained.over_seeds, sign="+"),
        f"{gained.wins} of {gained.pairs}",
        _p(gained.p_pairs),
        _p(gained.p_cases),
    ]


def with_sd(mean: Mean, sign: str = "") -> str:
    """Write a mean with its deviation, `0.812 ± 0.034`; a dash where nothing was measured."""
    if math.isnan(mean.value):
        return "-"
    deviation = "" if math.isnan(mean.sd) else f" ± {mean.sd:.3f}"
    return f"{mean.value:{sign}.3f}{deviation}"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _number(value: float) -> float | str:
    return "" if math.isnan(value) else round(value, 4)


def _table(lines: Sequence[Sequence[str]]) -> str:
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
