"""What was done in a way, and what the data set was worth then; prices come to it later."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from economy.prices import Act
from economy.sight import Quality

ACTS, QUALITY, DONE = "acts.csv", "quality.csv", "done"
ACT_COLUMNS = ("round", "case", "act", "amount", "about")
FACTS = tuple(field.name for field in fields(Quality))
QUALITY_COLUMNS = ("round", "case", "state", "meets", *FACTS)


@dataclass(frozen=True)
class CaseWork:
    """What was done about a case.

    Attributes:
        round: Round that was shown; 0 for the first cases.
        case: Its name.
        acts: In order.
    """

    round: int
    case: str
    acts: tuple[Act, ...]


@dataclass(frozen=True)
class CaseState:
    """What a label map of a case is worth.

    Attributes:
        round: As in `CaseWork`.
        case: Its name.
        final: Whether a person said so, else it was predicted.
        meets: Whether it meets the standard.
        quality: How it compares with the truth.
    """

    round: int
    case: str
    final: bool
    meets: bool
    quality: Quality


class Log:
    """The tables of a way, in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def is_done(self) -> bool:
        return (self.folder / DONE).exists()

    def finish(self) -> None:
        (self.folder / DONE).touch()

    def begin_as(self, other: Log) -> None:
        """Begin with what another way has done, if nothing was done here yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / ACTS).exists():
            for name in (QUALITY, ACTS):
                shutil.copy(other.folder / name, self.folder / name)

    def note_states(self, states: Iterable[CaseState]) -> None:
        rows = [
            [s.round, s.case, "final" if s.final else "predicted", int(s.meets),
             *asdict(s.quality).values()]
            for s in states
        ]  # fmt: skip
        self._append(QUALITY, QUALITY_COLUMNS, rows)

    def note_work(self, work: CaseWork) -> None:
        """Add what was done about a case, all at once."""
        rows = [[work.round, work.case, act.name, act.amount, act.about] for act in work.acts]
        self._append(ACTS, ACT_COLUMNS, rows)

    def work(self) -> list[CaseWork]:
        """Return what was done, case by case, in order."""
        found: dict[tuple[int, str], list[Act]] = {}
        for row in self._rows(ACTS):
            key = int(row["round"]), row["case"]
            found.setdefault(key, []).append(Act(row["act"], float(row["amount"]), row["about"]))
        return [CaseWork(number, case, tuple(acts)) for (number, case), acts in found.items()]

    def states(self) -> list[CaseState]:
        """Return what cases were worth, in order."""
        found = []
        for row in self._rows(QUALITY):
            counts = (int(row[name]) for name in FACTS[:3])
            quality = Quality(*counts, *(float(row[name]) for name in FACTS[3:]))
            final, meets = row["state"] == "final", row["meets"] == "1"
            found.append(CaseState(int(row["round"]), row["case"], final, meets, quality))
        return found

    def _append(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows] if is_new else rows)

    def _rows(self, name: str) -> list[dict[str, str]]:
        path = self.folder / name
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
