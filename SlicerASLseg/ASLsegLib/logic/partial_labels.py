"""What of the label map of a case counts: the targets that it decides, and complete slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from aslseg.errors import listed
from ASLsegLib.logic.history import Change
from ASLsegLib.logic.project import ProjectLogic
from ASLsegLib.scene.case_nodes import case_of
from ASLsegLib.scene.provenance import source_of
from ASLsegLib.scene.segmentations import holds_unsaved, volume_drawn_on
from ASLsegLib.scene.shown_labels import choose_segments, voxels_shown
from ASLsegLib.scene.volumes import SceneError, slice_axis_of

if TYPE_CHECKING:
    from aslseg.data.volume import Labels
    from aslseg.project.project import Project
    from aslseg.targets import Target


@dataclass(frozen=True)
class _Counted:
    """What a person says to be right: slices, and where they are drawn beside the final label.

    Attributes:
        slices: Axial slices; None for all.
        node_id: MRML id of a segmentation; empty for none.
    """

    slices: tuple[int, ...] | None
    node_id: str


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
        self,
        case_id: str,
        slice_index: int,
        *,
        complete: bool = True,
        segmentation: Any | None = None,
    ) -> Project:
        """Say that everything is labelled in a slice; only complete slices of the case are learnt.

        `undo` takes it back. Once the last mark is taken away nothing of the label map counts; see
        `mark_all_complete`.

        Args:
            case_id: Name of the case, which has a label map.
            slice_index: Axial slice, as the file numbers them.
            complete: Whether it is.
            segmentation: One of the case that has to be saved in that slice, beside its final label
                in the scene; None for no other.

        Raises:
            ProjectError: When there is no such slice or label map, or no mark to take away.
            SceneError: When one of these shows something else in the slice than is saved.
        """
        from aslseg.project.complete_slices import mark_slice_complete

        word = f"slice {slice_index} {'complete' if complete else 'not complete'}, {case_id}"
        return self._change_complete(
            case_id,
            word,
            lambda project: mark_slice_complete(project, case_id, slice_index, complete=complete),
            _Counted((slice_index,) if complete else (), _id_of(segmentation)),
        )

    def mark_all_complete(self, case_id: str, *, segmentation: Any | None = None) -> Project:
        """Let the whole label map of a case count again, as before any slice was marked.

        `undo` takes it back.

        Args:
            case_id: Name of the case.
            segmentation: As in `mark_slice_complete`, in all slices.

        Raises:
            ProjectError: When the case has no label map.
            SceneError: When something else is shown than is saved.
        """
        from aslseg.project.complete_slices import mark_all_complete

        return self._change_complete(
            case_id,
            f"whole label counts, {case_id}",
            lambda project: mark_all_complete(project, case_id),
            _Counted(None, _id_of(segmentation)),
        )

    def _require_saved_in(self, case_id: str, counted: _Counted) -> None:
        """Refuse to let slices count of which something else would be learnt than is shown.

        Raises:
            SceneError: When a segmentation of the case shows something else in them than is saved.
        """
        given = slicer.mrmlScene.GetNodeByID(counted.node_id) if counted.node_id else None
        for node in {self.refined_node(case_id), given} - {None}:
            self._require_same_as_saved(case_id, counted.slices, node)

    def _require_same_as_saved(self, case_id: str, slices: Sequence[int] | None, node: Any) -> None:
        project, volume, home = self.opened(), volume_drawn_on(node), self.case_node(case_id)
        case = project.case(case_id)
        if home is None or case.label is None or case_of(volume, project) != case_id:
            return
        axis, targets = slice_axis_of(home), _targets_in(node, project.targets)
        if slices == () or not (targets and holds_unsaved(node, volume)):
            return
        saved = project.load_labels(case).labels
        shown = voxels_shown(node, volume, project.targets)
        apart = _slices_apart(shown, saved, targets, axis)
        unsaved = [str(one) for one in apart if slices is None or one in slices]
        if unsaved:
            word = "slice" if len(unsaved) == 1 else "slices"
            msg = (
                f"{node.GetName()} shows in {word} {listed(unsaved)} something else than the saved "
                f"label of case {case_id}, and only what is saved is learnt; save it (Accept, or "
                "Save as label) or take back what was drawn there, then say that it counts."
            )
            raise SceneError(msg)

    def _change_complete(
        self, case_id: str, word: str, change: Callable[[Project], Project], counted: _Counted
    ) -> Project:
        """Change which slices of a case are complete, so that it can be undone."""
        self._require_saved_in(case_id, counted)
        before = self.opened().case(case_id).complete_slices
        project = self.updated(change(self.opened()))
        after = project.case(case_id).complete_slices

        def redo() -> None:
            self._require_saved_in(case_id, counted)
            self._set_complete(case_id, after, seen=before)

        self.history.add(
            Change(
                word,
                lambda: self._set_complete(case_id, before, seen=after),
                redo,
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


def _id_of(node: Any | None) -> str:
    return "" if node is None else str(node.GetID())


def _targets_in(node: Any, targets: Sequence[Target]) -> list[Target]:
    """Return the targets that a segmentation says something of: of a final label that is all."""
    found = choose_segments(node, targets).by_target
    return [target for target in targets if source_of(node) or target.name in found]


def _slices_apart(shown: Labels, saved: Labels, targets: Sequence[Target], axis: int) -> list[int]:
    """Return the slices along an axis in which two label maps differ in some targets."""
    apart = np.zeros(shown.shape[axis], bool)
    others = tuple(one for one in range(shown.ndim) if one != axis)
    for target in targets:
        apart |= ((shown == target.value) != (saved == target.value)).any(axis=others)
    return np.flatnonzero(apart).tolist()
