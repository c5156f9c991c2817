"""Turn the rows of `lits_study.py` into the Markdown tables of Docs/studies/results-earlier.md.

python Testing/benchmarks/study_table.py local/study
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

Row = dict[str, str]
SOURCES = {
    "supervised": "supervised specialist",
    "supervised_longer": "supervised specialist, three times the steps",
    "specialist": "specialist",
    "sam_untrained": "SAM untrained",
    "sam": "SAM tuned",
    "refined": "adaptation network (refined)",
}
ALONE = {"supervised": "supervised", "upper": "supervised", "longer": "supervised_longer"}
"""Names of runs that train the supervised specialist alone, and the row that they belong to."""
HEAD = """
### {split}

| labelled | source | seeds | cases | liver Dice | tumour Dice | tumours found | false a case |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    work = Path(sys.argv[1])
    rows = [row for path in sorted(work.glob("study-*.csv")) for row in read(path)]
    for split in ("validation", "test", "unlabelled"):
        here = [row for row in rows if row["split"] == split]
        if here:
            print(HEAD.format(split=split.capitalize()))
        for labelled in sorted({int(row["labelled"]) for row in here}):
            for line in lines([row for row in here if int(row["labelled"]) == labelled]):
                print(f"| {labelled} | {line} |")


def read(path: Path) -> list[Row]:
    """Read a cell; a run of the supervised specialist alone is the loop's comparison row."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    source = ALONE.get(rows[0]["name"]) if rows else None
    if source is None:
        return rows
    return [{**row, "source": source} for row in rows if row["source"] == "specialist"]


def lines(rows: list[Row]) -> Iterable[str]:
    """Give the lines of one number of labelled volumes, in the order of the loop."""
    for number in sorted({int(row["round"]) for row in rows}):
        this = [row for row in rows if int(row["round"]) == number]
        for source, title in SOURCES.items():
            rows_of_source = [row for row in this if row["source"] == source]
            if rows_of_source:
                yield line(f"{title}, round {number}", rows_of_source)
        yield from accepted_lines(this, number)


def accepted_lines(rows: list[Row], number: int) -> Iterable[str]:
    """Compare specialist and refined label on the cases that the round accepted."""
    kept = {(row["case"], row["seed"]) for row in rows if row["source"] == "accepted"}
    for source in ("specialist", "refined") if kept else ():
        same = [r for r in rows if r["source"] == source and (r["case"], r["seed"]) in kept]
        yield line(f"{SOURCES[source]}, accepted cases of round {number}", same)


def line(title: str, rows: list[Row]) -> str:
    seeds = {row["seed"] for row in rows}
    tumour = [row for row in rows if row["target"] == "tumour"]
    found = sum(int(row["lesions_found"]) for row in tumour)
    true = sum(int(row["lesions_true"]) for row in tumour)
    false = sum(int(row["false_positives"]) for row in tumour) / max(len(tumour), 1)
    scores = [over_seeds(rows, target) for target in ("liver", "tumour")]
    cases = len({row["case"] for row in rows})
    cells = [title, str(len(seeds)), str(cases), *scores, f"{found}/{true}", f"{false:.1f}"]
    return " | ".join(cells)


def over_seeds(rows: list[Row], target: str) -> str:
    means = [
        statistics.mean(float(r["dice"]) for r in rows if r["seed"] == s and r["target"] == target)
        for s in sorted({row["seed"] for row in rows})
    ]
    spread = f" ± {statistics.stdev(means):.3f}" if len(means) > 1 else ""
    return f"{statistics.mean(means):.3f}{spread}"


if __name__ == "__main__":
    main()
