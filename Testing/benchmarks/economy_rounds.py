"""What a further round saves, case by case: two ways of `label_economy.py` beside one another.

    python Testing/benchmarks/economy_rounds.py --ways round-1-need round-2-need \
        --work local/economy-B local/economy-C local/economy-D

Prints minutes of the reviewed cases in the one way and in the other, and in how many of them the
second takes less, for each target and for all that is done; what part of the first the second takes
in all draws together, the first cases left out, with its interval as in `economy_draws.py`; and
how many of the lesions that were offered a person had to change or to delete.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from economy.log import CaseWork, Log
from economy.prices import seconds_of
from economy_draws import part_in_words

from aslseg.project.lesion_decisions import LesionDecision, read_lesions
from aslseg.project.project import open_project

HEAD = ("draw", "about", "first", "second", "cheaper", "saved a case (median)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, nargs="+", required=True)
    parser.add_argument("--ways", nargs=2, required=True)
    arguments = parser.parse_args()
    folders = [[work / "ways" / way for way in arguments.ways] for work in arguments.work]
    first, second = zip(*([reviewed(folder) for folder in both] for both in folders), strict=True)
    print(f"| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    for work, one, other in zip(arguments.work, first, second, strict=True):
        for line in lines(work.name, one, other):
            print(line)
    print(f"\npart of the first: {part_in_words(second, first)}")
    print(f"\nchanged or deleted of those offered: {' | '.join(arguments.ways)}")
    for work, both in zip(arguments.work, folders, strict=True):
        counts = ["{} of {}".format(*changed_of(decisions_of(folder))) for folder in both]
        print(f"{work.name}: {' | '.join(counts)}")


def reviewed(way: Path) -> list[CaseWork]:
    """Return what was done about the cases that were not drawn first."""
    return [one for one in Log(way).work() if one.round]


def lines(name: str, first: Sequence[CaseWork], second: Sequence[CaseWork]) -> Iterator[str]:
    """Give a row for each target, and one for all that was done about some cases."""
    targets = sorted({act.about for one in first for act in one.acts} - {""})
    for target in (*targets, None):
        before, after = minutes_of(first, target), minutes_of(second, target)
        saved = np.array([before[case] - after[case] for case in before])
        cells = [name, target or "all", f"{sum(before.values()):.1f}", f"{sum(after.values()):.1f}"]
        cells += [f"{int((saved > 0).sum())} of {len(saved)}", f"{np.median(saved):.1f}"]
        yield f"| {' | '.join(cells)} |"


def minutes_of(works: Iterable[CaseWork], target: str | None) -> dict[str, float]:
    """Return the minutes of each case that go into a target; all of them when None."""
    return {
        one.case: seconds_of(act for act in one.acts if target in (None, act.about)) / 60
        for one in works
    }


def decisions_of(way: Path) -> list[LesionDecision]:
    """Return what was decided about lesions in a way."""
    project = open_project(way / "project")
    return [
        one for case in project.cases for one in read_lesions(project, case.id).decisions.values()
    ]


def changed_of(decisions: Iterable[LesionDecision]) -> tuple[int, int]:
    """Return how many lesions that were offered were edited or deleted, and how many there were."""
    offered = [one.what for one in decisions if one.what != "added"]
    return sum(what != "accepted" for what in offered), len(offered)


if __name__ == "__main__":
    main()
