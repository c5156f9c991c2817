"""Means over draws of what `label_economy.py` wrote into their work folders.

    python Testing/benchmarks/economy_draws.py local/economy-B local/economy-C local/economy-D

Prints, for each way that all folders have: minutes of the whole data set, mean and median of the
cases that were not drawn first, as mean over draws (least to greatest); and what part of other ways
all draws take together, with its 95 % bootstrap interval over patients [low, high] (least to
greatest of a draw).
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from economy.curves import AGAINST, Logged
from economy.log import CaseWork, Log
from economy.prices import seconds_of
from economy.ways import WAYS, ways_of_finished_run
from numpy.typing import NDArray
from study_draws import patients_of

from aslseg.benchmark.statistics import Estimate, bootstrapped

Works: TypeAlias = Sequence[CaseWork]
ROUNDS = 9
"""Rounds of a finished run that ways may be named for."""
TITLES = {name: way.title for name, way in {**ways_of_finished_run(ROUNDS), **WAYS}.items()}
HEAD = (
    "way", "minutes", "mean of a reviewed case", "median of a reviewed case",
    *(f"part of `{name}`" for name in AGAINST),
)  # fmt: skip


def main() -> None:
    draws = [read(Path(folder)) for folder in sys.argv[1:]]
    print(f"| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    for line in lines(draws):
        print(line)


def read(folder: Path) -> dict[str, Logged]:
    """Return the ways of a work folder that are done, in the order of its table of acts."""
    with (folder / "acts.csv").open(newline="", encoding="utf-8") as file:
        names = dict.fromkeys(row["way"] for row in csv.DictReader(file))
    return {name: Logged(name, TITLES[name], Log(folder / "ways" / name)) for name in names}


def lines(draws: Sequence[dict[str, Logged]]) -> Iterator[str]:
    """Give a row in Markdown for each way that was followed in all draws."""
    for name, title in TITLES.items():
        if all(name in draw for draw in draws):
            ways = [draw[name] for draw in draws]
            cells = [title, in_words([way.minutes() for way in ways], 0)]
            cells.append(in_words([float(np.mean(reviewed(way))) for way in ways], 1))
            cells.append(in_words([float(np.median(reviewed(way))) for way in ways], 1))
            for other in AGAINST:
                against = [draw[other].log.work() for draw in draws if other in draw]
                ours = [way.log.work() for way in ways]
                cells.append(part_in_words(ours, against) if against else "")
            yield f"| {' | '.join(cells)} |"


def reviewed(way: Logged) -> list[float]:
    """Return the minutes of the cases that were not drawn first."""
    return [seconds_of(one.acts) / 60 for one in way.log.work() if one.round]


def part_in_words(ways: Sequence[Works], others: Sequence[Works]) -> str:
    """Write what part of the minutes of other ways some take: of all draws, interval, range."""
    pairs = list(zip(ways, others, strict=True))
    parts = [seconds_in(way) / seconds_in(other) for way, other in pairs]
    part = pooled_part(by_patient(pairs))
    whole = f"{part.value:.2f} [{part.low:.2f}, {part.high:.2f}]"
    return f"{whole} ({min(parts):.2f} to {max(parts):.2f})"


def pooled_part(amounts: Mapping[str, Sequence[float]]) -> Estimate:
    """Return what part one sum is of another, and its bootstrap interval over patients.

    Args:
        amounts: Of the one and of the other, of each patient; those of the other are above zero.
    """
    sample = np.array(list(amounts.values()), dtype=float).reshape(-1, 2)

    def resampled(index: NDArray[np.int64]) -> NDArray[np.float64]:
        ours, theirs = np.moveaxis(sample[index].sum(-2), -1, 0)
        return np.asarray(ours / theirs)

    return bootstrapped(sample, sample[:, 0].sum() / sample[:, 1].sum(), resampled)


def seconds_in(works: Works) -> float:
    """Return what all that was done takes."""
    return sum(seconds_of(one.acts) for one in works)


def by_patient(pairs: Sequence[tuple[Works, Works]]) -> dict[str, list[float]]:
    """Return the seconds that each patient takes in all draws, in the one way and in the other."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for pair in pairs:
        for column, works in enumerate(pair):
            patients = patients_of(one.case for one in works)
            for one in works:
                found[patients[one.case]][column] += seconds_of(one.acts)
    return found


def in_words(values: Sequence[float], digits: int) -> str:
    """Write mean, least and greatest."""
    mean, least, most = (f"{f(values):.{digits}f}" for f in (np.mean, min, max))
    return f"{mean} ({least} to {most})"


if __name__ == "__main__":
    main()
