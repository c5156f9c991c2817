"""Which order of candidates finds more lesions: the classifier's, or that of their peaks.

    python Testing/benchmarks/study_candidates.py local/study/*-labelled-2 --run aslseg-0 \
        --data <lits>

For finished runs of `lits_study.py`, by round and split: lesions from 0.5 ml that are found with
0.5, 1, 2 and 4 false candidates a case, over the cases of all runs together, and what the run
accepted, or would have with the threshold of its first round. A candidate finds a lesion of which
it covers a tenth, and is false if less than a tenth of it is true. Hidden labels are opened here
alone.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lits_study import truth_path

from aslseg.data.images import read_labelmap
from aslseg.data.masks import drop_small, label_components
from aslseg.project.candidate_table import CandidateRow, read_candidate_map, read_candidates
from aslseg.project.project import open_project
from aslseg.project.run_folder import open_run

LEAST_ML, LEAST_SHARE, TUMOUR = 0.5, 0.1, 2
FALSE_A_CASE = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Judged:
    """A candidate.

    Attributes:
        row: Of its table.
        finds: The lesions (folder, number) that it finds.
        false: Whether it is.
        first_threshold: Of the run's first round.
    """

    row: CandidateRow
    finds: frozenset[tuple[str, int]]
    false: bool
    first_threshold: float


def main() -> None:
    arguments = parse()
    judged: dict[tuple[int, str], list[list[Judged]]] = defaultdict(list)
    lesions: dict[tuple[int, str], int] = defaultdict(int)
    for folder in arguments.projects:
        project, run = open_project(folder), open_run(folder, arguments.run)
        cases = [*project.unlabelled, *project.test]
        tables = [read_candidates(run.round(1) / "predictions" / case.id) for case in cases]
        first_threshold = next(row.threshold for rows in tables for row in rows)
        for number in run.rounds:
            for case in cases:
                truth = truth_path(arguments.data, case.id)
                predictions = run.round(number) / "predictions" / case.id
                found, count = judged_candidates(predictions, truth, first_threshold)
                judged[number, case.split].append(found)
                lesions[number, case.split] += count
    for (number, split), candidates in judged.items():
        count = lesions[number, split]
        print(f"round {number}, {split}: {len(candidates)} cases, {count} lesions")
        for line in lines(candidates):
            print(f"    {line}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("projects", type=Path, nargs="+")
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", type=Path, required=True)
    return parser.parse_args()


def judged_candidates(
    predictions: Path, truth_path: Path, first_threshold: float
) -> tuple[list[Judged], int]:
    """Compare the candidates of a case with its truth; return how many lesions it has, too."""
    truth = read_labelmap(truth_path)
    true = truth.labels == TUMOUR
    large, count = label_components(drop_small(true, round(LEAST_ML / truth.geometry.voxel_ml)))
    sizes = np.bincount(large.ravel(), minlength=count + 1)
    numbers, found = read_candidate_map(predictions, truth.geometry), []
    for row in read_candidates(predictions) if numbers is not None else ():
        here = numbers.labels == row.number
        covered = np.bincount(large[here], minlength=count + 1) >= LEAST_SHARE * sizes
        finds = frozenset((str(predictions), int(n)) for n in np.flatnonzero(covered[1:]))
        voxels = int(np.count_nonzero(here))
        if voxels:
            is_false = np.count_nonzero(true[here]) < LEAST_SHARE * voxels
            found.append(Judged(row, finds, is_false, first_threshold))
    return found, count


def lines(cases: Sequence[Sequence[Judged]]) -> Iterable[str]:
    """Give what each order finds, and what was accepted."""
    every = [one for case in cases for one in case]
    for name, value in (
        ("classifier", lambda one: one.row.probability),
        ("peak", lambda one: one.row.features["peak"]),
    ):
        ordered = sorted(every, key=value, reverse=True)
        cells = (f"{at_most(ordered, n * len(cases))} at {n:g}" for n in FALSE_A_CASE)
        yield f"by {name}: {', '.join(cells)} false a case"
    at_first = [one for one in every if one.row.probability > one.first_threshold]
    for name, accepted in (
        ("accepted", [one for one in every if one.row.accepted]),
        ("at the threshold of round 1", at_first),
    ):
        false = sum(one.false for one in accepted) / len(cases)
        yield f"{name}: {at_most(accepted, len(accepted))} at {false:.2f} false a case"


def at_most(ordered: Iterable[Judged], false: float) -> int:
    """Count the lesions that candidates find before more than so many are false."""
    found: set[tuple[str, int]] = set()
    mistakes = 0
    for one in ordered:
        mistakes += one.false
        if mistakes > false:
            break
        found |= set() if one.false else one.finds
    return len(found)


if __name__ == "__main__":
    main()
