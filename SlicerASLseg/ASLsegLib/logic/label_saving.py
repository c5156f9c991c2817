"""Decide about a whole case: save what is shown as its label map, reject it, take that back.

What is saved is what the segmentation holds when the person decides, not what a file says.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from aslseg.data.volume import Labelmap
from ASLsegLib.logic.base import Pending, waiting
from ASLsegLib.logic.export import volume_of_label
from ASLsegLib.logic.history import Change
from ASLsegLib.logic.project import ProjectLogic
from ASLsegLib.logic.project_data import label_digest, targets_shown
from ASLsegLib.logic.questions import REFUSE, Questions, require_shown, require_yes
from ASLsegLib.scene.case_nodes import (
    case_of,
    known_as,
    note_label,
    note_project,
    require_intact,
    sample_of,
    shown_label,
)
from ASLsegLib.scene.hidden_segments import hidden_segments
from ASLsegLib.scene.lesion_masks import lacking_segments
from ASLsegLib.scene.moved_cases import require_in_place
from ASLsegLib.scene.provenance import source_of
from ASLsegLib.scene.resting_boxes import rest_boxes, wake_boxes
from ASLsegLib.scene.segmentations import (
    accept_prediction,
    holds_unsaved,
    is_approved,
    is_as_written,
    note_saved,
    predictions_about,
    reopen_prediction,
    rounds_shown,
    shown_in,
    volume_of_prediction,
    written_to,
)
from ASLsegLib.scene.shown_labels import shown_labels, target_segments, voxels_shown
from ASLsegLib.scene.volumes import SceneError, geometry_of, hardened_copy

if TYPE_CHECKING:
    from aslseg.project.project import Project
    from aslseg.project.run_folder import RunFolder

_SAME = 0.5  # grey values: readers round differently
_SAVED = "saved"
"""By what boxes rest while the label of their case is saved."""


@dataclass(frozen=True)
class DrawnLabel:
    """A label map of a case as it is shown now.

    Attributes:
        case_id: The case.
        node: The segmentation.
        volume: Volume node that it was drawn on.
        case_node: Volume node that is the case.
        labels: On the voxels of the case's image.
        written: What the segmentation was last given, see `segmentations.written_to`.
        label_before: Digest of the case's label map on disk; empty without one.
        shown: Digests of what the segments hold, see `segmentations.shown_in`.
        sample: Voxels to be compared with the image on disk, for the node came with a scene, or was
            loaded before it became a case; None when it was made from the image here.
    """

    case_id: str
    node: Any
    volume: Any
    case_node: Any
    labels: Labelmap
    written: Mapping[str, str]
    label_before: str
    sample: np.ndarray | None
    shown: Mapping[str, str]


class LabelSavingLogic(ProjectLogic):
    """The part of the logic that saves labels, accepts or rejects, and takes that back."""

    @waiting
    def save_label(
        self,
        segmentation: Any,
        case_id: str | None = None,
        volume: Any | None = None,
        *,
        questions: Questions = REFUSE,
    ) -> Pending[Project]:
        """Keep a segmentation as the label map of its case, to train on with full weight.

        `undo_decision` brings the label map before back.

        Args:
            segmentation: Segmentation node with segments named like the targets.
            case_id: Name of the case, to make sure; that of the segmentation's volume when None.
            volume: The volume node that it was drawn on; the segmentation says so itself when None.
            questions: Asked before something is left out or replaced.

        Raises:
            SceneError: When no segment has the name of a target, when its volume is no case of the
                project or another one, when it lies elsewhere, or when a question is refused.
        """
        from aslseg.project import review

        project = self.opened()
        drawn_on = volume_of_label(segmentation, volume)
        named = case_of(drawn_on, project)
        if not named:
            msg = (
                f"{segmentation.GetName()} was drawn on {drawn_on.GetName()}, which is no case of "
                f"{project.folder}; add it, or load the case from the table and draw there."
            )
            raise SceneError(msg)
        if case_id not in (None, named):
            msg = (
                f"{segmentation.GetName()} was drawn on case {named}, so it cannot be the label of "
                f"{case_id}; choose a segmentation of {case_id}."
            )
            raise SceneError(msg)
        self._require_same_image(named, drawn_on)
        self._require_seen(segmentation, questions)
        drawn = self._drawn(segmentation, drawn_on, named, questions)
        return self._save(
            "saving a label map", drawn, lambda labels: review.draw(project, named, labels)
        )

    @waiting
    def accept(self, case_id: str, *, questions: Questions = REFUSE) -> Pending[Project]:
        """Train on the refined label of a case as on a human one from now on.

        What the scene shows as refined label is saved: as accepted when it is as a run made it, as
        corrected when a person drew in it or placed prompts. Where a part of it is hidden it is
        asked about; cases that are not looked at are accepted as they are. A case that is not in
        the scene gets the label of the best round of the latest run with one of it. Where no slice
        of the case's label counts, all of it does afterwards.

        Args:
            case_id: Name of the case.
            questions: Asked before something is left out or replaced.

        Raises:
            RunError: When no run has a prediction of the case.
            ProjectError: When it has a person's label already and is not in the scene.
            SceneError: When what is shown cannot be saved as the case's label, or is it already.
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

            return self._in_background("saving a decision", save_best, note)
        self._require_same_image(case_id)
        self._refuse_saved(case_id, node)
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

        return self._save("saving a decision", drawn, save)

    def _refuse_saved(self, case_id: str, node: Any) -> None:
        """Refuse to save a final label anew that is the label of its case, unless none counts.

        Raises:
            SceneError: Which says so.
        """
        from aslseg.project.project import open_project

        project = open_project(self.opened().folder)
        case = project.case(case_id)
        if case.complete_slices != () and self._is_saved(project, case_id, node):
            decided = "accepted" if case.status == "accepted" else "done"
            msg = f"Case {case_id} is {decided} already: what is shown is its label."
            raise SceneError(msg)

    def _is_saved(self, project: Project, case_id: str, node: Any) -> bool:
        """Tell whether a final label is shown as the label map of its case on disk is."""
        label = label_digest(project, case_id)
        is_shown = is_approved(node) and not holds_unsaved(node, volume_of_prediction(node))
        return is_shown and label != "" and shown_label(self.case_node(case_id)) == label

    def reject(self, case_id: str) -> Project:
        """Never train on the pseudo-labels of a case."""
        from aslseg.project import review

        run = None if self.state is None else self.state.run_of(case_id)
        rejected = self.updated(review.reject(self.opened(), case_id, run))
        self._note_decision(lambda: self.updated(review.reject(self.opened(), case_id, run)))
        return rejected

    def last_decision(self) -> str:
        """Return what `undo_decision` would take back; empty when there is nothing."""
        last = None if self.state is None else self.state.last_decision
        return "" if last is None else f"{last.case_id}: {last.what}"

    def undo_decision(self, expected: str = "") -> Project:
        """Take back the last decision about a case; the label before it counts again.

        What was done since that decision has to be undone first, where it can be (`history`).

        Args:
            expected: What `last_decision` returned; another one is not taken back.

        Raises:
            ProjectError: When there is none.
            SceneError: When another decision was made meanwhile.
        """
        change = self.history.last_done
        if change is not None and change.word == (expected or self.last_decision()):
            self.history.undo()
            return self.opened()
        return self._take_back(expected)

    def _take_back(self, expected: str) -> Project:
        from aslseg.project import review
        from aslseg.project.project import open_project

        project = self.opened()
        holding = review.decisions(project)
        last = f"{holding[-1].case_id}: {holding[-1].what}" if holding else ""
        if expected not in ("", last):
            self.history.forget_decisions()  # else it would be tried again, in vain
            self.updated(open_project(project.folder))
            msg = f"The last decision is another one by now ({last or 'none'}); look again."
            raise SceneError(msg)
        project, undone = review.undo_last(project)
        self._reopen(undone.case_id)
        return self.updated(project)

    def _reopen(self, case_id: str) -> None:
        """Let what is shown of a case be as before it was saved, whichever prediction that was."""
        volume = self.case_node(case_id)
        if volume is None:
            return
        for shown_on in (one for one in (volume, hardened_copy(volume)) if one is not None):
            for source, node in predictions_about(shown_on).items():
                if source == "refined" or is_approved(node):
                    reopen_prediction(node)
            wake_boxes(shown_on, _SAVED)

    def _drawn(self, node: Any, volume: Any, case_id: str, questions: Questions) -> DrawnLabel:
        """Read what is shown of a case, after all questions.

        Raises:
            SceneError: When it cannot be saved.
            CancelledError: When the answer to a question is no.
        """
        from aslseg.project.project import open_project

        case_node = self.case_node(case_id)
        self._require_same_image(case_id, volume)
        note_project(case_node, self.opened())  # it may have been moved
        shown = shown_labels(node, volume, self.targets(), questions.may_leave_out)
        self._require_whole(node, case_id, questions)
        labels = Labelmap(shown.labels, geometry_of(case_node))
        before = label_digest(open_project(self.opened().folder), case_id)
        meanwhile = before != shown_label(case_node)
        if before:
            require_yes(questions.may_overwrite(case_id, meanwhile))
        sample = None
        if known_as(case_node) not in self._verified:
            sample = sample_of(slicer.util.arrayFromVolume(case_node)).copy()
        return DrawnLabel(
            case_id=case_id,
            node=node,
            volume=volume,
            case_node=case_node,
            labels=labels,
            written=written_to(node),
            label_before=before,
            sample=sample,
            shown=shown_in(node, volume),
        )

    def _require_same_image(self, case_id: str, *drawn_on: Any) -> None:
        """Make sure that a case in the scene is still its image, and lies where that does.

        Raises:
            SceneError: When its voxels were replaced, in it or in what was drawn on, or it moved.
        """
        node = self.case_node(case_id)
        require_intact(node, case_id, *drawn_on)
        require_in_place(node, self.opened(), case_id)

    def _require_seen(self, node: Any, questions: Questions, *, in_part: bool = False) -> None:
        """Ask whether segments may be saved that are not shown.

        Args:
            node: Segmentation node.
            questions: Asked.
            in_part: Whether a segmentation may be saved of which nothing is shown at all: cases are
                accepted that are not looked at, but none of which a part is.

        Raises:
            SceneError: When the question is refused.
            CancelledError: When the answer is no.
        """
        chosen = target_segments(node, self.targets())
        if not in_part or len(hidden_segments(node, chosen)) < len(chosen):
            require_shown(node, chosen, questions.may_hide)

    def _require_whole(self, node: Any, case_id: str, questions: Questions) -> None:
        """Ask whether a label may be saved of a segmentation without a segment of each target.

        Of a final label that is each segment that it came with. In one of a person's own those may
        lack that came as masks, those that the label decides nothing of, and those that the label
        of before shows nothing of either.

        Raises:
            SceneError: When the question is refused.
            CancelledError: When the answer is no.
        """
        from aslseg.project.project import open_project

        names, name = [target.name for target in self.targets()], str(node.GetName())
        lacking = lacking_segments(node, self.targets(), names)
        if not lacking:
            return
        if source_of(node) == "refined":
            require_yes(questions.may_lack(name, lacking))
            return
        project = open_project(self.opened().folder)
        case = project.case(case_id)
        decided = [one for one in case.label_targets or names if one not in case.masks]
        lacking = [one for one in lacking if one in decided]
        labelled = targets_shown(project, case) if lacking and case.label is not None else []
        gone = [one for one in lacking if one in labelled]
        if gone or (lacking and case.label is None):
            require_yes(questions.may_omit(name, lacking, gone))

    def _save(
        self, name: str, drawn: DrawnLabel, save: Callable[[Labelmap], Project]
    ) -> Pending[Project]:
        opened, case_id, geometry = self.opened(), drawn.case_id, drawn.labels.geometry
        node, case_node, written = drawn.node, drawn.case_node, drawn.written
        shown_then, drawn_on_id = drawn.shown, drawn.volume.GetID()
        node_ids = node.GetID(), case_node.GetID()
        label_before = drawn.label_before

        def work(_: Any) -> tuple[Project, str, bytes]:
            from aslseg.project.lock import changing

            with changing(opened.folder):
                _require_unchanged(opened, drawn)
                project = save(drawn.labels)
                digest = label_digest(project, case_id)
            return project, digest, zlib.compress(drawn.labels.labels.tobytes(), 1)

        def show(saved: tuple[Project, str, bytes]) -> Project:
            project, label, packed = saved
            if slicer.mrmlScene.IsNodePresent(case_node):
                self._verified.add(known_as(case_node))
            _show_saved(node, case_node, written, label, shown_then)
            self.updated(project)
            if not self.is_open(project):
                return project  # another one was opened, of which nothing was decided

            def again() -> None:  # keeps packed labels and no node, which would keep its voxels
                _require_label(self.opened(), case_id, label_before)
                bits = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(geometry.shape)
                shown, volume = map(slicer.mrmlScene.GetNodeByID, node_ids)
                seen_on = slicer.mrmlScene.GetNodeByID(drawn_on_id)
                if shown is not None and seen_on is not None:
                    self._require_shown(shown, seen_on, bits)
                else:
                    self._require_nothing_drawn(case_id)
                self.updated(save(Labelmap(bits, geometry)))
                label_now = label_digest(self.opened(), case_id)
                _show_saved(shown, volume, written, label_now, shown_then)

            self._note_decision(again)
            return project

        return self._in_background(name, work, show)

    def _note_decision(self, again: Callable[[], object]) -> None:
        """Let the last decision be undone and redone."""
        last = self.last_decision()
        self.history.add(Change(last, lambda: self._take_back(last), again))

    def _round_of(self, node: Any) -> tuple[RunFolder | None, int | None]:
        """Return the run and round of a prediction; None when they are unknown or mixed."""
        from aslseg.project.run_folder import open_run

        shown = rounds_shown(node)
        known = {run.run_id for run in self.state.runs} if self.state is not None else set()
        if len(shown) != 1 or next(iter(shown))[0] not in known:
            return None, None
        run_id, number = next(iter(shown))
        return open_run(self.opened().folder, run_id), number

    def _require_shown(self, node: Any, volume: Any, labels: np.ndarray) -> None:
        """Refuse to save a label map again while its segmentation shows another one.

        Raises:
            SceneError: When something was drawn since.
        """
        if not np.array_equal(voxels_shown(node, volume, self.targets()), labels):
            raise _drawn_since(node)

    def _require_nothing_drawn(self, case_id: str) -> None:
        """Refuse to save a label map of before over what was drawn in a case that came anew.

        Raises:
            SceneError: When its final label is not as it was written.
        """
        node = self.refined_node(case_id)
        if node is not None and not is_as_written(node, volume_of_prediction(node)):
            raise _drawn_since(node)


def _show_saved(
    node: Any, case_node: Any, written: Mapping[str, str], label: str, shown: Mapping[str, str]
) -> None:
    """Note in the scene that what is shown was saved, unless something newer is shown.

    Args:
        node: Segmentation that was saved; None when it is gone.
        case_node: Volume node that is the case; None when it is gone.
        written: What the segmentation had been given when it was saved.
        label: Digest of the label map.
        shown: Digests of what the segments held, see `segmentations.shown_in`.
    """
    if not _is_there(node):
        return
    volume = volume_of_prediction(node)
    if volume:
        note_saved(node, volume, shown)
    if written_to(node) != written:
        return  # a newer result came while this one was saved; that is not the label
    if _is_there(case_node):
        note_label(case_node, label)
    if volume:
        accept_prediction(node)
        rest_boxes(volume, _SAVED)


def _drawn_since(node: Any) -> SceneError:
    """Return the error that says why a label map of before is not saved again."""
    msg = (
        f"{node.GetName()} was drawn in since that was taken back, so the label of before is not "
        "saved again: accept or save what is shown, or take back what you drew."
    )
    return SceneError(msg)


def _is_there(node: Any | None) -> bool:
    return node is not None and bool(slicer.mrmlScene.IsNodePresent(node))


def _require_unchanged(project: Project, drawn: DrawnLabel) -> None:
    """Make sure that image and label map are still those that the person was asked about."""
    from aslseg.project.project import open_project

    current = open_project(project.folder)
    case = current.case(drawn.case_id)
    if not current.geometry(case).matches(drawn.labels.geometry):
        msg = (
            f"The volume in the scene does not lie where the image of case {drawn.case_id} does; "
            "load the case again from the table."
        )
        raise SceneError(msg)
    if drawn.sample is not None:
        found = sample_of(current.load_image(case).voxels)
        if found.shape != drawn.sample.shape or not np.allclose(found, drawn.sample, atol=_SAME):
            msg = (
                f"The volume in the scene is not the image of case {drawn.case_id}, whatever the "
                "scene says: its file may have been replaced since. Take the volume out of the "
                "scene, and load the case again from the table."
            )
            raise SceneError(msg)
    _require_label(current, drawn.case_id, drawn.label_before)


def _require_label(project: Project, case_id: str, digest: str) -> None:
    """Make sure that a case has the label map that is about to be replaced, and no newer one."""
    from aslseg.project.project import open_project

    if label_digest(open_project(project.folder), case_id) != digest:
        msg = (
            f"The label of case {case_id} was changed by another program meanwhile and is left as "
            "it is; look at it and save again."
        )
        raise SceneError(msg)
