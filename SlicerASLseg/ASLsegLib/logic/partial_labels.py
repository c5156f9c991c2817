"""What of the label map of a case counts: the targets that it decides, and complete slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ASLsegLib.logic.history import Change
from ASLsegLib.logic.project import ProjectLogic
from ASLsegLib.scene.volumes import SceneError

if TYPE_CHECKING:
    from aslseg.project.project import Project


class PartialLabelLogic(ProjectLogic):
    """The part of the logic that lets a label map count in part."""

    def set_label_targets(self, case_id: str, names: Sequence[str]) -> Project:
        """Say which targets the label map of a case decides; nothing is learnt of the others.

        Args:
            case_id: Name of the case.
            names: Of the targets; all when empty.

        Raises:
            ImageError: When the label map has voxels of another target.
        """
        return self.updated(self.opened().set_label_targets(case_id, names))

    def mark_slice_complete(
        self, case_id: str, slice_index: int, *, complete: bool = True
    ) -> Project:
        """Say that everything is labelled in a slice; only complete slices of the case are learnt.

        `undo` takes it back. Once the last mark is taken away nothing of the label map counts; see
        `mark_all_complete`.

        Args:
            case_id: Name of the case, which has a label map.
            slice_index: Axial slice, as the file numbers them.
            complete: Whether it is.

        Raises:
            ProjectError: When there is no such slice or label map, or no mark to take away.
        """
        from aslseg.project.complete_slices import mark_slice_complete

        word = f"slice {slice_index} {'complete' if complete else 'not complete'}, {case_id}"
        return self._change_complete(
            case_id,
            word,
            lambda project: mark_slice_complete(project, case_id, slice_index, complete=complete),
        )

    def mark_all_complete(self, case_id: str) -> Project:
        """Let the whole label map of a case count again, as before any slice was marked.

        `undo` takes it back.

        Args:
            case_id: Name of the case.
        """
        from aslseg.project.complete_slices import mark_all_complete

        word = f"whole label counts, {case_id}"
        return self._change_complete(
            case_id, word, lambda project: mark_all_complete(project, case_id)
        )

    def _change_complete(
        self, case_id: str, word: str, change: Callable[[Project], Project]
    ) -> Project:
        """Change which slices of a case are complete, so that it can be undone."""
        before = self.opened().case(case_id).complete_slices
        project = self.updated(change(self.opened()))
        after = project.case(case_id).complete_slices
        self.history.add(
            Change(
                word,
                lambda: self._set_complete(case_id, before, seen=after),
                lambda: self._set_complete(case_id, after, seen=before),
                case_id,
            )
        )
        return project

    def _set_complete(
        self, case_id: str, slices: Sequence[int] | None, *, seen: Sequence[int] | None
    ) -> Project:
        """Let slices be complete, and no others, if still those are that a person saw.

        Raises:
            SceneError: When another program has marked others meanwhile, or removed the case.
        """
        from aslseg.project.complete_slices import set_complete_slices
        from aslseg.project.lock import changing
        from aslseg.project.project import open_project

        with changing(self.opened().folder):
            now = open_project(self.opened().folder)
            if any(one.id == case_id and one.complete_slices == seen for one in now.cases):
                return self.updated(set_complete_slices(now, case_id, slices))
        self.history.forget_decisions()  # else it would be tried again, in vain
        self.updated(now)
        msg = f"Which slices of case {case_id} are complete was changed elsewhere; look again."
        raise SceneError(msg)
