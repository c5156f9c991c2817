"""Turn the rows of `lits_study.py` into the Markdown tables of Docs/results.md.

python Testing/benchmarks/study_table.py local/study
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

Key = tuple[int, str, str]
"""(labelled volumes, row name, split)."""


def main() -> None:
    work = Path(sys.argv[1])
    rows = [row for path in sorted(work.glob("study-*.csv")) for row in read(path)]
    for split in ("validation", "unlabelled"):
        print(f"\n### {split}\n")
        print("| labelled | stage | seeds | liver Dice | tumour Dice | tumours found | false |")
        print("|---|---|---|---|---|---|---|")
        for key, group in sorted(grouped(rows, split).items()):
            print(line(key, group))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def grouped(rows: Iterable[dict[str, str]], split: str) -> dict[Key, list[dict[str, str]]]:
    groups: dict[Key, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["split"] == split:
            name = f"{row['name']} round {row['round']}: {row['stage']}"
            groups[int(row["labelled"]), name, split].append(row)
    return groups


def line(key: Key, rows: list[dict[str, str]]) -> str:
    labelled, name, _ = key
    seeds = sorted({row["seed"] for row in rows})
    tumour = [row for row in rows if row["target"] == "tumour"]
    found = sum(int(row["lesions_found"]) for row in tumour)
    true = sum(int(row["lesions_true"]) for row in tumour)
    false = sum(int(row["false_positives"]) for row in tumour) / max(len(tumour), 1)
    scores = [over_seeds(rows, target) for target in ("liver", "tumour")]
    cells = [str(labelled), name, str(len(seeds)), *scores, f"{found}/{true}", f"{false:.1f}"]
    return f"| {' | '.join(cells)} |"


def over_seeds(rows: list[dict[str, str]], target: str) -> str:
    means = list(means_by_seed(rows, target))
    spread = f" ± {statistics.stdev(means):.3f}" if len(means) > 1 else ""
    return f"{statistics.mean(means):.3f}{spread}"


def means_by_seed(rows: list[dict[str, str]], target: str) -> Iterator[float]:
    for seed in sorted({row["seed"] for row in rows}):
        yield statistics.mean(
            float(row["dice"]) for row in rows if row["seed"] == seed and row["target"] == target
        )


if __name__ == "__main__":
    main()
