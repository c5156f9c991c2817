"""Means over draws of what `label_economy.py` wrote into their work folders.

    python Testing/benchmarks/economy_draws.py local/economy-B local/economy-C local/economy-D

Prints, for each way that all folders have: minutes of the whole data set, the median of the cases
that were not drawn first, and the part of what other ways take, as mean (least to greatest).
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from economy.curves import AGAINST, Logged
from economy.log import Log
from economy.prices import seconds_of
from economy.ways import WAYS, ways_of_finished_run

ROUNDS = 9
"""Rounds of a finished run that ways may be named for."""
TITLES = {name: way.title for name, way in {**ways_of_finished_run(ROUNDS), **WAYS}.items()}
HEAD = ("way", "minutes", "median of a reviewed case", *(f"part of `{name}`" for name in AGAINST))


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
            cells.append(in_words([median_minutes(way) for way in ways], 1))
            for other in AGAINST:
                against = [draw[other] for draw in draws if other in draw]
                pairs = zip(ways, against, strict=len(against) == len(ways))
                cells.append(in_words([one.minutes() / two.minutes() for one, two in pairs], 2))
            yield f"| {' | '.join(cells)} |"


def median_minutes(way: Logged) -> float:
    """Return the median of the minutes of the cases that were not drawn first."""
    minutes = [seconds_of(one.acts) / 60 for one in way.log.work() if one.round]
    return float(np.median(minutes))


def in_words(values: Sequence[float], digits: int) -> str:
    """Write mean, least and greatest; nothing without values."""
    if not values:
        return ""
    mean, least, most = (f"{f(values):.{digits}f}" for f in (np.mean, min, max))
    return f"{mean} ({least} to {most})"


if __name__ == "__main__":
    main()
