"""Review: which case needs a look, and what a person decides about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ASLsegLib.scene import SceneError
from ASLsegLib.voices import accept_voice, edited_segments, find_voice, reopen_voice

if TYPE_CHECKING:
    from aslseg.project import Project
    from aslseg.review_queue import CaseReport
    from aslseg.runfolder import RunFolder

DECIDED = ("accepted", "corrected", "rejected")


class Reviewing:
    """The part of the logic that decides about cases."""

    project: Project | None
    case_node: Callable[[str], Any]
    labelmap_of: Callable[..., Any]
    use: Callable[[Project], Project]
    usable_run: Callable[..., str | None]
    _in_background: Callable[..., Any]
    _opened: Callable[[], Project]

    def case_reports(self) -> list[CaseReport]:
        """Say of every case of the project how it stands, in the order of the project."""
        from aslseg.review_queue import case_reports

        return case_reports(self._opened(), self._run())

    def review_queue(self) -> list[CaseReport]:
        """Return the cases that wait for a person, the most doubtful first, then decided ones."""
        from aslseg.review_queue import review_queue

        run = self._run()
        waiting = review_queue(self._opened(), run) if run is not None else []
        return [*waiting, *(one for one in self.case_reports() if one.state in DECIDED)]

    def last_decision(self) -> str:
        """Say what `undo_decision` would take back; empty when there is nothing."""
        if self.project is None:
            return ""
        from aslseg.review import decisions

        holding = decisions(self.project)
        return f"{holding[-1].case_id}: {holding[-1].what}" if holding else ""

    def accept(self, case_id: str, *, wait: bool = True) -> Project | None:
        """Learn from the refined label of a case like from a human one.

        If the refined label is in the scene and a person has changed it there, what they made of it
        becomes the label.

        Args:
            case_id: Name of the case.
            wait: Return the project; else None at once.

        Raises:
            RunError: When no run has said anything about the case.
            ProjectError: When it has a person's label already.
        """
        from aslseg import review

        project, run = self._opened(), self._run()
        volume, node = self._shown(case_id)
        if node is not None and edited_segments(node, volume):
            labels = self.labelmap_of(node, volume)
            return self._decide(
                case_id, lambda _: review.correct(project, case_id, labels, run), wait
            )
        if run is None:
            msg = "There is no finished round whose label could be accepted; train first."
            raise SceneError(msg)
        return self._decide(case_id, lambda _: review.accept(project, run, case_id), wait)

    def reject(self, case_id: str) -> Project:
        """Never learn from the pseudo-labels of a case."""
        from aslseg import review

        return self.use(review.reject(self._opened(), case_id, self._run()))

    def undo_decision(self) -> Project:
        """Take back the last decision; the label before it counts again.

        Raises:
            ProjectError: When there is none.
        """
        from aslseg import review

        project, undone = review.undo_last(self._opened())
        _, node = self._shown(undone.case_id)
        if node is not None:
            reopen_voice(node)
        return self.use(project)

    def save_label(
        self, segmentation: Any, case_id: str, volume: Any | None = None, *, wait: bool = True
    ) -> Project | None:
        """Keep a segmentation as the label map of a case, to be learnt from with full weight.

        Args:
            segmentation: Segmentation node with segments named like the targets.
            case_id: Name of the case.
            volume: The case's volume node; the one of the segmentation when None.
            wait: Return the project; else None at once.

        Raises:
            SceneError: When no segment has the name of a target.
        """
        project = self._opened()
        volume = volume or self.case_node(case_id)
        labels = self.labelmap_of(segmentation, volume)
        return self._in_background(
            "saving a label map",
            lambda _: project.save_label(case_id, labels),
            self.use,
            wait,
        )

    def _decide(self, case_id: str, work: Callable[[Any], Project], wait: bool) -> Project | None:
        def show(project: Project) -> Project:
            _, node = self._shown(case_id)
            if node is not None:
                accept_voice(node)
            return self.use(project)

        return self._in_background("saving a decision", work, show, wait)

    def _shown(self, case_id: str) -> tuple[Any | None, Any | None]:
        volume = self.case_node(case_id)
        return volume, None if volume is None else find_voice(volume, "refined")

    def _run(self) -> RunFolder | None:
        from aslseg.runfolder import open_run

        run_id = self.usable_run()
        return None if run_id is None else open_run(self._opened().folder, run_id)
