"""The lesions of a case as they are listed for a person, and what is decided about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aslseg.data.volume import Volume
    from aslseg.evaluation.lesion_review import ReviewedLesion
    from aslseg.project.lesion_decisions import CaseLesions
    from aslseg.project.run_folder import RunFolder

UNDECIDED, GONE = "undecided", "gone"
"""States of lesions beside those that a person decides: `gone` was added and taken back."""


@dataclass
class LesionReview:
    """The lesions of the case that is looked at.

    Attributes:
        case_id: The case.
        run: Whose candidates they are.
        round: Its round that they are of.
        image: The case's image.
        rows: The lesions, in an order that stays while the case is looked at.
        decisions: What holds.
        otherwise: Numbers of lesions that the final label shows otherwise than that.
    """

    case_id: str
    run: RunFolder
    round: int
    image: Volume
    rows: list[ReviewedLesion]
    decisions: CaseLesions
    otherwise: list[int] = field(default_factory=list)

    @property
    def lesions_of(self) -> tuple[str, int]:
        """Id of the run and the round that they are of."""
        return self.run.run_id, self.round

    def named(self, numbers: Sequence[int]) -> str:
        """Say which lesions are meant, by their rows where all are listed: "lesions 1, 3"."""
        rows = [n for n, row in enumerate(self.rows, start=1) if row.number in numbers]
        return f"lesions {', '.join(map(str, rows))}" if len(rows) == len(numbers) else ""

    def row_of(self, lesion: ReviewedLesion) -> int:
        """Return the row of a lesion, also after the case was loaded again."""
        for row, other in enumerate(self.rows):
            same = other.number == lesion.number if lesion.number else _same(other, lesion)
            if same:
                return row
        self.rows.append(lesion)
        return len(self.rows) - 1

    @property
    def undecided(self) -> list[int]:
        """Rows that are shown and that nobody decided about: the case waits for these."""
        return [n for n in self._open if self.rows[n].shown]

    @property
    def rejected(self) -> list[int]:
        """Rows that the run rejected and nobody decided about; they are none unless accepted."""
        return [n for n in self._open if not self.rows[n].shown]

    @property
    def _open(self) -> list[int]:
        return [n for n, row in enumerate(self.rows) if row.state == UNDECIDED]


def _same(first: ReviewedLesion, second: ReviewedLesion) -> bool:
    """Tell whether two lesions without a decision are one."""
    boxes = [(one.found or one.voxels).box for one in (first, second)]  # shown may be other voxels
    return first.target == second.target and boxes[0] == boxes[1]
