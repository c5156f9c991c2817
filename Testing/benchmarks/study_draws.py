"""Means over draws of the rows of `lits_study.py`, by patient, and what each stage adds.

    python Testing/benchmarks/study_draws.py Docs/results/aslseg-draws-B-to-F.csv

Prints Dice after each stage, for test cases and unlabelled ones: the mean over patients, with the
95 % bootstrap interval of the benchmark, and the gain over the specialist of the first round. Below
it what the second round adds to the first one's final label; tumours by cases that have any, and
cases that have none, whose Dice is 1 or 0.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from aslseg.benchmark.draws import read_draws
from aslseg.benchmark.statistics import Estimate, Key, estimate, gain, over_patients

DRAWS = Path(__file__).parents[2] / "Docs" / "results" / "draws-lits.json"
Stage = tuple[int, str]
"""Round and prediction."""
FIRST: Stage = (1, "specialist")
HEAD = "| round, label | liver | gain | tumour | gain | found | false a case |\n|" + "---|" * 7
ROUNDS = "| final label | round 1 | round 2 | added by round 2 |\n|" + "---|" * 4


def main() -> None:
    rows = [row for path in sys.argv[1:] for row in read(Path(path))]
    for split in ("test", "unlabelled"):
        here = [row for row in rows if row["split"] == split]
        patients = patients_of(row["case"] for row in here)
        print(f"\n{split}: {len(set(patients.values()))} patients\n\n{HEAD}")
        for line in lines(here, patients):
            print(line)
        print(f"\n{ROUNDS}")
        for line in round_lines(here, patients):
            print(line)


def patients_of(cases: Iterable[str]) -> dict[str, str]:
    """Return the patient of each case; a case of another data set is a patient of its own."""
    same = {case: name for name, cases in read_draws(DRAWS).patients.items() for case in cases}
    volumes = {case: case.replace("lits-", "volume-") for case in cases}
    return {case: same.get(volume, volume) for case, volume in volumes.items()}


def read(path: Path) -> list[dict[str, str]]:
    """Read a table; rows of accepted cases are of other cases than the rest, and left out."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if "accepted" not in row["source"]]


def lines(rows: list[dict[str, str]], patients: dict[str, str]) -> Iterable[str]:
    """Give a line for each stage, in the order of the loop."""
    dice: dict[str, dict[Stage, dict[Key, float]]] = defaultdict(lambda: defaultdict(dict))
    lesions: dict[Stage, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        stage = (int(row["round"]), row["source"])
        dice[row["target"]][stage][key_of(row)] = float(row["dice"])
        if row["target"] == "tumour":
            lesions[stage].append(row)
    for stage, of_stage in lesions.items():
        cells = [f"{stage[0]}, {stage[1]}"]
        for target in ("liver", "tumour"):
            values = dice[target]
            cells.append(in_words(estimate(over_patients(values[stage], patients))))
            added = None if stage == FIRST else gain(values[stage], values[FIRST], patients)
            cells.append("" if added is None else in_words(added.difference, "+"))
        found, true = (total(of_stage, name) for name in ("lesions_found", "lesions_true"))
        cells += [f"{found}/{true}", f"{total(of_stage, 'false_positives') / len(of_stage):.1f}"]
        yield f"| {' | '.join(cells)} |"


def round_lines(rows: list[dict[str, str]], patients: dict[str, str]) -> Iterable[str]:
    """Give a line for each measure of the final label, with what round 2 adds to round 1."""
    final = [row for row in rows if row["source"] == "refined"]
    tumour = [row for row in final if row["target"] == "tumour"]
    with_any = {row["case"] for row in tumour if int(row["lesions_true"])}
    parts = {
        "liver": [row for row in final if row["target"] == "liver"],
        "tumour, cases with any": [row for row in tumour if row["case"] in with_any],
        "tumour, cases without": [row for row in tumour if row["case"] not in with_any],
    }
    for name, part in parts.items():
        dice: dict[int, dict[Key, float]] = defaultdict(dict)
        for row in part:
            dice[int(row["round"])][key_of(row)] = float(row["dice"])
        means = [in_words(estimate(over_patients(dice[n], patients))) for n in (1, 2)]
        added = gain(dice[2], dice[1], patients)
        means.append("" if added is None else in_words(added.difference, "+"))
        yield f"| {' | '.join([name, *means])} |"


def key_of(row: Mapping[str, str]) -> Key:
    """Return what a score is of: draw, labelled volumes, seed, case."""
    return row["draw"], int(row["labelled"]), int(row["seed"]), row["case"]


def in_words(found: Estimate, sign: str = "") -> str:
    """Write a mean with its interval, which one patient alone does not have."""
    if math.isnan(found.low):
        return f"{found.value:{sign}.3f}"
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def total(rows: list[dict[str, str]], name: str) -> int:
    """Add up the whole numbers of a column."""
    return sum(int(row[name]) for row in rows)


if __name__ == "__main__":
    main()
