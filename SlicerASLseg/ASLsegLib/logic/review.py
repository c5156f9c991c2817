"""Review: which case needs a look, and what a person decides about a whole case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ASLsegLib.logic.label_saving import LabelSavingLogic
from ASLsegLib.logic.questions import REFUSE, Questions, require_yes
from ASLsegLib.scene.segmentations import is_as_written, rounds_shown, volume_of_prediction
from ASLsegLib.scene.volumes import SceneError

if TYPE_CHECKING:
    from aslseg.data.volume import Labelmap
    from aslseg.project.case_reports import CaseReport
    from aslseg.project.project import Project
    from aslseg.project.review_order import ReviewOrder
    from aslseg.project.run_folder import RunFolder

DECIDED = ("accepted", "corrected", "rejected")
"""States of cases that a person has decided about as a whole, see `CaseReport`."""


class ReviewLogic(LabelSavingLogic):
    """The part of the logic that decides about cases."""

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

    def accept(
        self, case_id: str, *, wait: bool = True, questions: Questions = REFUSE
    ) -> Project | None:
        """Train on the refined label of a case as on a human one from now on.

        What the scene shows as refined label is saved: as accepted when it is as a run made it, as
        corrected when a person drew in it or placed prompts. Where a part of it is hidden it is
        asked about; cases that are not looked at are accepted as they are. A case that is not in
        the scene gets the label of the best round of the latest run with one of it. Where no slice
        of the case's label counts, all of it does afterwards.

        Args:
            case_id: Name of the case.
            wait: Return the project; else None at once.
            questions: Asked before something is left out or replaced.

        Raises:
            RunError: When no run has a prediction of the case.
            ProjectError: When it has a person's label already and is not in the scene.
            SceneError: When what is shown cannot be saved as the case's label.
        """
        from aslseg.project import review

        project = self.opened()
        node = self.refined_node(case_id)
        if node is None:
            latest = None if self.state is None else self.state.run_of(case_id)
            if latest is None:
                msg = "There is no finished round whose label could be accepted; train first."
                raise SceneError(msg)

            best = latest.best_round  # Redo accepts the same, whichever round is best by then

            def save_best(_: object = None) -> Project:
                return review.accept(project, latest, case_id, round_number=best)

            def again() -> None:
                self._require_nothing_drawn(case_id)
                self.updated(save_best())

            def note(accepted: Project) -> Project:
                self.updated(accepted)
                if self.is_open(accepted):
                    self._note_decision(again)
                return accepted

            return self._in_background("saving a decision", save_best, note, wait)
        self._require_same_image(case_id)
        whole = project.case(case_id).complete_slices == ()
        if whole:
            require_yes(questions.may_count_whole(case_id))
        self._require_seen(node, questions, in_part=True)
        drawn = self._drawn(node, volume_of_prediction(node), case_id, questions)
        is_new = drawn.label_before == "" and is_as_written(node, drawn.case_node)
        run, number = self._round_of(node)

        def save(labels: Labelmap) -> Project:
            if is_new and run is not None:
                return review.accept(project, run, case_id, labels=labels, round_number=number)
            return review.correct(project, case_id, labels, run, round_number=number, whole=whole)

        return self._save("saving a decision", drawn, save, wait)

    def reject(self, case_id: str) -> Project:
        """Never train on the pseudo-labels of a case."""
        from aslseg.project import review

        run = None if self.state is None else self.state.run_of(case_id)
        rejected = self.updated(review.reject(self.opened(), case_id, run))
        self._note_decision(lambda: self.updated(review.reject(self.opened(), case_id, run)))
        return rejected

    def _round_of(self, node: Any) -> tuple[RunFolder | None, int | None]:
        """Return the run and round of a prediction; None when they are unknown or mixed."""
        from aslseg.project.run_folder import open_run

        shown = rounds_shown(node)
        known = {run.run_id for run in self.state.runs} if self.state is not None else set()
        if len(shown) != 1 or next(iter(shown))[0] not in known:
            return None, None
        run_id, number = next(iter(shown))
        return open_run(self.opened().folder, run_id), number
