"""Review: which cases need a look, and how long that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ASLsegLib.logic.project import ProjectLogic

if TYPE_CHECKING:
    from aslseg.project.case_reports import CaseReport
    from aslseg.project.review_order import ReviewOrder

DECIDED = ("accepted", "corrected", "rejected")
"""States of cases that a person has decided about as a whole, see `CaseReport`."""


class ReviewLogic(ProjectLogic):
    """The part of the logic that says which cases wait for a person, and in which order."""

    def case_reports(self) -> list[CaseReport]:
        """Return the state of every case, in the order of the project."""
        return [] if self.state is None else self.state.reports

    def review_queue(self) -> list[CaseReport]:
        """Return the cases that wait for a person, in the order of the review, then decided ones.

        That order is the one that `order_review` was called with last.
        """
        if self.state is None:
            return []
        decided = [one for one in self.state.reports if one.state in DECIDED]
        return [*self.state.waiting, *decided]

    def order_review(self, order: ReviewOrder) -> None:
        """Let the cases that wait come in another order.

        Args:
            order: `least`: the smallest expected lesion volume first, as long as nothing else was
                chosen; or `doubtful`: the least reliable first.

        Raises:
            ValueError: When there is no such order.
        """
        from aslseg.project.review_order import ORDERS

        if order not in ORDERS:
            msg = f"order is one of {', '.join(ORDERS)}, not {order}"
            raise ValueError(msg)
        if order != self._review_order:
            self._review_order = order
            if self.project is not None:
                self.updated(self.project)

    def review_time_left(self) -> str:
        """Return how long the cases that wait take at a person's pace; empty when unknown."""
        from aslseg.steps import rough_time

        left = None if self.state is None else self.state.review_seconds_left
        return "" if left is None else rough_time(left)
