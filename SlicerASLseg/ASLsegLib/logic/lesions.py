"""Review lesion by lesion: the lesions of the case that is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ASLsegLib.logic.lesion_decisions import LesionDecisionLogic
from ASLsegLib.logic.lesion_review import LesionReview
from ASLsegLib.logic.read_ahead import state_of
from ASLsegLib.scene.moved_cases import require_in_place
from ASLsegLib.scene.segmentations import find_prediction, rounds_shown
from ASLsegLib.scene.volumes import SceneError, volume_of

if TYPE_CHECKING:
    from aslseg.evaluation.lesion_review import ReviewedLesion
    from aslseg.evaluation.round_changes import CaseChange
    from aslseg.project.lesion_decisions import CaseLesions
    from aslseg.project.run_folder import RunFolder


class LesionLogic(LesionDecisionLogic):
    """The part of the logic that lists the lesions of a case."""

    def __init__(self) -> None:
        super().__init__()
        self.project_changed.connect(self._forget_other_project)

    @property
    def has_lesions(self) -> bool:
        """Whether the open project has a target that lies inside another one, as lesions do."""
        if self.project is None:
            return False
        from aslseg.targets import lesion_targets

        return bool(lesion_targets(self.project.targets))

    def load_lesions(
        self, case_id: str, *, then: Callable[[], None] | None = None, wait: bool = True
    ) -> LesionReview | None:
        """List the lesions that the latest run with a prediction of it found in a case.

        What was being drawn in another case is put aside until its lesions are listed again.

        Args:
            case_id: Name of a case that is in the scene.
            then: Called when they are there.
            wait: Return them; else None at once.

        Raises:
            SceneError: When no run is finished, the case is not in the scene or was moved there, or
                the scene shows another round than the one whose lesions would be listed.
        """
        from aslseg.evaluation.lesion_review import read_review

        project, node = self.opened(), self.case_node(case_id)
        run = None if self.state is None else self.state.run_of(case_id)
        if node is None or run is None:
            what = "no finished round yet" if run is None else f"no case {case_id} in the scene"
            msg = f"There are no lesions to review: there is {what}."
            raise SceneError(msg)
        require_in_place(node, project, case_id)
        image, number = volume_of(node), _round_there(run)
        _require_round(node, case_id, run, number)

        def show(found: tuple[list[ReviewedLesion], CaseLesions]) -> LesionReview:
            self._put_drawing_aside()
            self.lesion_review = LesionReview(case_id, run, number, image, *found)
            self._drawing = self._put_aside.pop((project.folder, node.GetID()), None)
            self._look_at_shown()
            if then is not None:
                then()
            self.lesions_changed.emit()
            return self.lesion_review

        ahead = self.lesions_read(case_id)

        def read(_: Any) -> tuple[list[ReviewedLesion], CaseLesions]:
            if ahead is not None and ahead.lesions and state_of(project, case_id) == ahead.state:
                rows, decisions = ahead.lesions
                return list(rows), decisions
            return read_review(project, run, case_id, image, round_number=number)

        return self._in_background("listing lesions", read, show, wait)

    def forget_lesions(self) -> None:
        """Look at no case's lesions any more; what is being drawn is put aside."""
        self._put_drawing_aside()
        self.lesion_review = None
        self.lesions_changed.emit()

    def forget_scene(self) -> None:
        """Forget the lesions too: the scene is closed."""
        super().forget_scene()
        self.history.clear()
        self._drawing, self._put_aside = None, {}
        self.forget_lesions()

    def round_changes(self) -> list[CaseChange]:
        """Return what the latest short round of the latest trained run changed, case by case."""
        runs = [] if self.state is None else self.state.finished
        run = next((one for one in runs if not one.is_external), None)
        if run is None or not run.short_rounds:
            return []
        from aslseg.evaluation.round_changes import read_changes

        return read_changes(run, max(run.short_rounds))

    def _forget_other_project(self) -> None:
        review = self.lesion_review
        if review is not None and (
            self.project is None or not review.run.path.is_relative_to(self.project.folder)
        ):
            self.history.keep(self._changes_put_aside())
            self.forget_lesions()


def _round_there(run: RunFolder) -> int:
    """Return the round that a run kept, which has had one.

    Raises:
        SceneError: When its files are not there any more.
    """
    if run.best_round < 1:
        msg = (
            f"The files of run {run.run_id} are not there any more ({run.path}), so no lesions are "
            "listed; connect the disk or network share that they are on, or open the project where "
            "it is now."
        )
        raise SceneError(msg)
    return run.best_round


def _require_round(volume: Any, case_id: str, run: RunFolder, number: int) -> None:
    """Refuse to list lesions of another round than is shown: they would not be those seen.

    Raises:
        SceneError: When the refined prediction is of another run or round.
    """
    node = find_prediction(volume, "refined")
    shown = set() if node is None else rounds_shown(node)
    if shown and (run.run_id, number) not in shown:
        run_id, old = max(shown)
        msg = (
            f"The scene shows case {case_id} as in round {old} of run {run_id}; its lesions are "
            f"those of round {number} of {run.run_id}; save or undo what you drew, take the case "
            "out of the scene and load it again."
        )
        raise SceneError(msg)
