"""Review: which case needs a look, and what a person decides about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ASLsegLib import projects

if TYPE_CHECKING:
    from aslseg.project import Project


@dataclass(frozen=True)
class ReviewCase:
    """A case that may need a look.

    Attributes:
        case_id: Its name.
        score: Reliability in the latest round.
        decision: `accepted`, `rejected`, `labelled`, or empty.
        reason: What speaks for or against it.
    """

    case_id: str
    score: float
    decision: str
    reason: str


class Reviewing:
    """The part of the logic that decides about cases."""

    project: Project | None
    case_node: Callable[[str], Any]
    labelmap_of: Callable[..., Any]
    _in_background: Callable[..., Any]
    _opened: Callable[[], Project]

    def review_queue(self) -> list[ReviewCase]:
        """Return the cases to train on that were not labelled from the start, in order of need.

        Those that nobody decided about come first, the least reliable one first.
        """
        rows = [row for row in projects.list_cases(self._opened()) if row.score is not None]
        cases = [
            ReviewCase(row.case_id, row.score or 0.0, _decision(row.state), row.reason)
            for row in rows
        ]
        return sorted(cases, key=lambda case: (bool(case.decision), case.score, case.case_id))

    def last_decision(self) -> str:
        """Say what `undo_decision` would take back; empty when there is nothing."""
        return ""

    def accept(self, case_id: str, *, wait: bool = True) -> Any:
        return None

    def reject(self, case_id: str) -> Any:
        return None

    def undo_decision(self) -> Any:
        return None

    def _save_label(
        self, segmentation: Any, case_id: str, volume: Any | None, status: str, wait: bool
    ) -> Any:
        return None


def _decision(state: str) -> str:
    return state if state in ("accepted", "rejected", "labelled") else ""
