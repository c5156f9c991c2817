"""How many cases a campaign tries, from which seed, and what became of them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

COUNT, SEED, LOG = "ASLSEG_FAULTS_COUNT", "ASLSEG_FAULTS_SEED", "ASLSEG_FAULTS_LOG"


def count(short: int, full: int) -> int:
    """Return how many cases to try: `short`, or `full`, or the number that the variable holds."""
    wanted = os.environ.get(COUNT, "short")
    return {"short": short, "full": full}[wanted] if not wanted.isdigit() else int(wanted)


def is_full() -> bool:
    """Whether the full campaigns were asked for."""
    return os.environ.get(COUNT) == "full"


def seed() -> int:
    """Return the seed of all campaigns."""
    return int(os.environ.get(SEED, "0"))


def draws(name: str) -> random.Random:
    """Return a generator that draws the same numbers for a campaign in every run."""
    return random.Random(f"{seed()} {name}")


@dataclass
class Campaign:
    """Counts what was tried; a case that fails is noted, and the next one is tried.

    Attributes:
        name: Of the campaign.
        tried: Cases so far.
        failures: What went wrong, a line a case.
    """

    name: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> int:
        """Cases without a failure."""
        return self.tried - len(self.failures)

    @contextmanager
    def case(self, name: object) -> Iterator[None]:
        """Try one case: an exception in the body is its failure."""
        self.tried += 1
        try:
            yield
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            failure = f"{name}: {type(error).__name__}: " + "\n    ".join(lines[:40])
            self.failures.append(failure)
            self._log(f"FAILED {failure}")
        else:
            self._log(f"passed {name}")

    def _log(self, line: str) -> None:
        """Write a line to the file that the variable names, for whoever waits."""
        if os.environ.get(LOG):
            with Path(os.environ[LOG]).open("a", encoding="utf-8") as file:
                file.write(f"{self.name}, {line}\n")
