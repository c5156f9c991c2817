"""The tables of a report, as values that its template lays out; runs without SAM are marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aslseg.evaluation.scores import Mean, mean_dice
from aslseg.project.run_tables import ReliabilityRow, Score
from aslseg.report.data import RunRecord, kept_round, source_name

NO_SAM = "Run without SAM."


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What stands in it.
        style: CSS classes; `n` is a number.
        percent: Length of the bar below the text, None without a bar.
        picture: Address of a picture above the text; empty without one.
    """

    text: str
    style: str = ""
    percent: float | None = None
    picture: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table; `is_first` draws a line above it."""

    cells: Sequence[Cell]
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        head: Column titles.
        rows: Below them.
        caption: Said above the table.
        text_columns: So many columns from the left hold words; the others hold numbers.
        title: Of a table that opens on a click.
    """

    head: Sequence[str]
    rows: Sequence[Row]
    caption: str
    text_columns: int = 1
    title: str = ""


def number(value: float, digits: int = 3) -> str:
    """Write a number; what is undefined is a dash."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"  # noqa: RUF001


def mean_text(mean: Mean) -> str:
    """Write a mean and its standard deviation."""
    if mean.count < 2:
        return number(mean.value)
    return f"{number(mean.value)} ± {number(mean.sd, 2)}"


def number_cell(value: float, digits: int = 3) -> Cell:
    """Make a cell of a number."""
    return Cell(number(value, digits), "n")


def share_cell(value: float, *, text: str = "", best: bool = False) -> Cell:
    """Make a cell of a number in [0, 1] over a bar of that length."""
    percent = 100.0 * min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
    return Cell(text or number(value), "n bar best" if best else "n bar", percent)


def pairs(head: tuple[str, str], values: Mapping[str, str], caption: str) -> Table:
    """Make a table of names and their values."""
    rows = [Row([Cell(name), Cell(value)]) for name, value in values.items()]
    return Table(head, rows, caption, text_columns=2)


def marked(run: RunRecord, caption: str) -> str:
    """Say in a caption that a run was without SAM, when it was."""
    return caption if run.has_sam else f"{caption} {NO_SAM}"


def headline(run: RunRecord) -> Table | None:
    """Make the table of mean validation Dice of each source in each round; None without any."""
    sources = [key for key in run.sources if _cases_of(run, key)]
    if not sources:
        return None
    means = {
        (key, target): _mean_dice(run, key, target) for key in sources for target in run.targets
    }
    best = {
        target: max((means[key, target].value for key in sources), default=0.0)
        for target in run.targets
    }
    rows = []
    for index, key in enumerate(sources):
        cells = [Cell(str(key[0])), Cell(source_name(key[1], has_sam=run.has_sam))]
        for target in run.targets:
            mean = means[key, target]
            is_best = mean.value == best[target]
            cells.append(share_cell(mean.value, text=mean_text(mean), best=is_best))
        new_round = index > 0 and sources[index - 1][0] != key[0]
        rows.append(Row([*cells, Cell(str(_cases_of(run, key)), "n")], is_first=new_round))
    caption = (
        "Dice, mean ± standard deviation over validation volumes; the best of each column is bold. "
        + kept_round(run)
    ).strip()
    return Table(
        ["Round", "Source", *run.targets, "Volumes"], rows, marked(run, caption), text_columns=2
    )


def _mean_dice(run: RunRecord, key: tuple[int, str], target: str) -> Mean:
    number, source = key
    return mean_dice(run.scores, round=number, source=source, target=target, split="validation")


def _cases_of(run: RunRecord, key: tuple[int, str]) -> int:
    scores = (s for s in run.scores if (s.round, s.source) == key and s.split == "validation")
    return len({score.case for score in scores})


def by_case(run: RunRecord) -> list[Table]:
    """Make a table of all scores of each source in each round, latest first."""
    head = ["Case", "Target", "Dice", "Jaccard", "HD95 mm", "ASSD mm", "Volume ml", "Lesions found"]
    caption = "A dash marks a distance that is not defined because one of the masks is empty."
    tables = []
    for key in reversed(run.sources):
        scores = [s for s in run.scores if (s.round, s.source) == key and s.split == "validation"]
        if scores:
            title = f"Round {key[0]}, {source_name(key[1], has_sam=run.has_sam)}: case by case"
            rows = [_case_row(score) for score in scores]
            columns = [*head, "False lesions"]
            tables.append(Table(columns, rows, marked(run, caption), text_columns=2, title=title))
    return tables


def _case_row(score: Score) -> Row:
    return Row(
        [
            Cell(score.case),
            Cell(score.target),
            share_cell(score.dice),
            number_cell(score.jaccard),
            number_cell(score.hd95_mm, 1),
            number_cell(score.assd_mm, 2),
            number_cell(score.volume_ml, 1),
            Cell(f"{score.lesions_found} of {score.lesions_true}", "n"),
            Cell(str(score.false_positives), "n"),
        ]
    )


def reliability(run: RunRecord) -> list[Table]:
    """Make a table of the judged AI labels of each round, the most doubtful first."""
    head = ["Case", "Used", "Why", "Checkpoints agree", "Networks agree", "Reliability"]
    tables = []
    for round_number in sorted({item.round for item in run.reliability}):
        items = [item for item in run.reliability if item.round == round_number]
        accepted = sum(item.accepted for item in items)
        caption = f"Round {round_number}: {accepted} of {len(items)} AI labels are learnt from."
        rows = [_reliability_row(item) for item in sorted(items, key=lambda item: item.score)]
        tables.append(Table(head, rows, marked(run, caption), text_columns=3))
    return tables


def _reliability_row(item: ReliabilityRow) -> Row:
    return Row(
        [
            Cell(item.case),
            Cell("✓ yes" if item.accepted else "no"),
            Cell(item.reason),
            number_cell(item.checkpoint_agreement),
            number_cell(item.prediction_agreement),
            share_cell(item.score),
        ]
    )


def measured_once(run: RunRecord, values: Sequence[tuple[str, str, float]]) -> Table | None:
    """Make a table of what was measured only once: name, line and value; None without any."""
    if not values:
        return None
    rows = [Row([Cell(name), Cell(line), number_cell(value)]) for name, line, value in values]
    caption = marked(run, "What was measured once.")
    return Table(["Measure", "Stage", "Value"], rows, caption, text_columns=2)
