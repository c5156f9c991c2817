"""Review: which case needs a look, and what a person decides about it.

What is saved is what the segmentation holds when the person decides, not what a file says.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from aslseg.data.volume import Labelmap
from aslseg.errors import CancelledError
from ASLsegLib.logic.export import ExportLogic, reference_volume
from ASLsegLib.logic.history import Change
from ASLsegLib.logic.project import ProjectLogic
from ASLsegLib.logic.project_data import label_digest
from ASLsegLib.scene.case_nodes import (
    case_of,
    is_intact,
    known_as,
    note_label,
    require_intact,
    sample_of,
    shown_label,
)
from ASLsegLib.scene.disagreement import find_overlay
from ASLsegLib.scene.lesion_masks import lacking_segments
from ASLsegLib.scene.prompts import prompt_nodes, remove_prompt
from ASLsegLib.scene.provenance import source_of
from ASLsegLib.scene.resting_boxes import rest_boxes, wake_boxes
from ASLsegLib.scene.segmentations import (
    SOURCES,
    accept_prediction,
    drawn_on,
    find_prediction,
    holds_unsaved,
    is_approved,
    is_as_written,
    note_saved,
    reopen_prediction,
    rounds_shown,
    shown_in,
    volume_of_prediction,
    written_to,
)
from ASLsegLib.scene.shown_labels import (
    LeaveOut,
    leave_out_nothing,
    shown_labels,
    voxels_shown,
)
from ASLsegLib.scene.volumes import SceneError, geometry_of, hardened_copy

if TYPE_CHECKING:
    from aslseg.project.project import Project
    from aslseg.project.review import CaseReport
    from aslseg.project.review_order import ReviewOrder
    from aslseg.project.run_folder import RunFolder

_SAME = 0.5  # grey values: readers round differently
_SAVED = "saved"
"""By what boxes rest while the label of their case is saved."""
DECIDED = ("accepted", "corrected", "rejected")


def overwrite_what_was_shown(case_id: str, changed_meanwhile: bool) -> bool:
    """Replace a label map, for it is kept and can be brought back, unless nobody has seen it.

    Raises:
        SceneError: When it was saved since the case was loaded.
    """
    if changed_meanwhile:
        msg = (
            f"The label of case {case_id} was changed since it was loaded; undo what was drawn and "
            "load the case again."
        )
        raise SceneError(msg)
    return True


def count_no_label_as_a_whole(case_id: str) -> bool:
    """Leave it to a person whether a label of which no slice counts is complete now.

    Raises:
        SceneError: Always.
    """
    msg = (
        f"No slice of the label of case {case_id} counts; mark slices as complete, or let the "
        "whole label count."
    )
    raise SceneError(msg)


def lack_no_segment(name: str, targets: Sequence[str]) -> bool:
    """Leave it to a person whether a case has nothing of a target whose segment was removed.

    Raises:
        SceneError: Always.
    """
    msg = (
        f"{name} has no segment of {', '.join(targets)} any more; load the case again, or add an "
        "empty segment of that name if the case has none."
    )
    raise SceneError(msg)


def contradict_no_decision(case_id: str, lesions: str) -> bool:
    """Leave it to a person whether lesions are otherwise than they were decided about.

    Raises:
        SceneError: Always.
    """
    msg = (
        f"The final label of case {case_id} does not show {lesions} as decided about; let it show "
        "lesions as they were decided (show_lesions_as_decided), or decide about them again."
    )
    raise SceneError(msg)


def require_yes(answer: bool) -> None:
    """Save nothing where the answer to a question is no.

    Raises:
        CancelledError: When it is no.
    """
    if not answer:
        msg = "Nothing was saved."
        raise CancelledError(msg)


@dataclass(frozen=True)
class Questions:
    """Answers to what is asked before a label map is saved.

    Attributes:
        may_leave_out: See `shown_labels.LeaveOut`.
        may_overwrite: Asked with a case whose label map would be replaced, and with whether that
            was changed since it was shown.
        may_count_whole: Asked with a case that is accepted, though no slice of its label counts.
        may_lack: Asked with the name of a final label, and with the targets that it has no segment
            of, for those were removed by hand.
        may_contradict: Asked with a case, and with which lesions its final label shows otherwise
            than they were decided about, such as "lesions 1, 3".
    """

    may_leave_out: LeaveOut = leave_out_nothing
    may_overwrite: Callable[[str, bool], bool] = overwrite_what_was_shown
    may_count_whole: Callable[[str], bool] = count_no_label_as_a_whole
    may_lack: Callable[[str, Sequence[str]], bool] = lack_no_segment
    may_contradict: Callable[[str, str], bool] = contradict_no_decision


REFUSE = Questions()
"""For scripts: what would have to be asked is refused."""


@dataclass(frozen=True)
class _Drawn:
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
        sample: Voxels to be compared with the image on disk, for the node came with a scene; None
            when it was made from the image here.
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


class ReviewLogic(ProjectLogic, ExportLogic):
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
            order: `least`: the least expected lesion volume first, as long as nothing else was
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

    def last_decision(self) -> str:
        """Return what `undo_decision` would take back; empty when there is nothing."""
        last = None if self.state is None else self.state.last_decision
        return "" if last is None else f"{last.case_id}: {last.what}"

    def accept(
        self, case_id: str, *, wait: bool = True, questions: Questions = REFUSE
    ) -> Project | None:
        """Train on the refined label of a case as on a human one from now on.

        What the scene shows as refined label is saved: as accepted when it is as a run made it, as
        corrected when a person drew in it or placed prompts. A case that is not in the scene gets
        the label of the best round of the latest run. Where no slice of the case's label counts,
        all of it does afterwards.

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
            latest = None if self.state is None else self.state.run
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
                self._note_decision(again)
                return accepted

            return self._in_background("saving a decision", save_best, note, wait)
        whole = project.case(case_id).complete_slices == ()
        if whole:
            require_yes(questions.may_count_whole(case_id))
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

        run = None if self.state is None else self.state.run
        rejected = self.updated(review.reject(self.opened(), case_id, run))
        self._note_decision(lambda: self.updated(review.reject(self.opened(), case_id, run)))
        return rejected

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
        node = self.refined_node(undone.case_id)
        if node is not None:
            reopen_prediction(node)
            wake_boxes(volume_of_prediction(node), _SAVED)
        return self.updated(project)

    def release_case(self, case_id: str) -> bool:
        """Take a case out of the scene, unless it shows something of a person that is not saved.

        A segmentation of a person's own needs the volume that it was drawn on, which stays then.

        Returns:
            Whether it is gone; what was saved of it is shown when it is loaded again.
        """
        volume = self.case_node(case_id)
        if volume is None or not is_intact(volume):
            return False
        nodes = [node for source in SOURCES if (node := find_prediction(volume, source))]
        if any(holds_unsaved(node, volume) for node in nodes) or {*drawn_on(volume)} - {*nodes}:
            return False
        prompts, refined = prompt_nodes(volume), find_prediction(volume, "refined")
        if prompts and (refined is None or not is_approved(refined)):
            return False
        for prompt in prompts:
            remove_prompt(prompt)
        overlay = find_overlay(volume)
        for node in [*nodes, *([overlay] if overlay else []), volume]:
            slicer.mrmlScene.RemoveNode(node.GetDisplayNode())
            slicer.mrmlScene.RemoveNode(node)
        return True

    def save_label(
        self,
        segmentation: Any,
        case_id: str | None = None,
        volume: Any | None = None,
        *,
        wait: bool = True,
        questions: Questions = REFUSE,
    ) -> Project | None:
        """Keep a segmentation as the label map of its case, to train on with full weight.

        `undo_decision` brings the label map before back.

        Args:
            segmentation: Segmentation node with segments named like the targets.
            case_id: Name of the case, to make sure; that of the segmentation's volume when None.
            volume: The volume node that it was drawn on; the segmentation says so itself when None.
            wait: Return the project; else None at once.
            questions: Asked before something is left out or replaced.

        Raises:
            SceneError: When no segment has the name of a target, when its volume is no case of the
                project or another one, or when it lies elsewhere.
        """
        from aslseg.project import review

        project = self.opened()
        drawn_on = self.volume_of_label(segmentation, volume)
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
        drawn = self._drawn(segmentation, drawn_on, named, questions)
        return self._save(
            "saving a label map", drawn, lambda labels: review.draw(project, named, labels), wait
        )

    def volume_of_label(self, segmentation: Any, volume: Any | None = None) -> Any:
        """Return the volume node that a segmentation was drawn on.

        Raises:
            SceneError: When it does not say so, or says something else than `volume`.
        """
        try:
            known = reference_volume(segmentation)
        except SceneError:
            if volume is None:
                raise
            return volume
        if volume not in (None, known, hardened_copy(known)):
            msg = (
                f"{segmentation.GetName()} was drawn on {known.GetName()}, not on "
                f"{volume.GetName()}; choose a segmentation of that volume."
            )
            raise SceneError(msg)
        return known

    def _drawn(self, node: Any, volume: Any, case_id: str, questions: Questions) -> _Drawn:
        """Read what is shown of a case, after all questions.

        Raises:
            SceneError: When it cannot be saved.
            CancelledError: When the answer to a question is no.
        """
        from aslseg.project.project import open_project

        case_node = self.case_node(case_id)
        require_intact(case_node, case_id)
        shown = shown_labels(node, volume, self.targets(), questions.may_leave_out)
        self._require_whole(node, questions)
        labels = Labelmap(shown.labels, geometry_of(case_node))
        before = label_digest(open_project(self.opened().folder), case_id)
        meanwhile = before != shown_label(case_node)
        if before:
            require_yes(questions.may_overwrite(case_id, meanwhile))
        sample = None
        if known_as(case_node) not in self._verified:
            sample = sample_of(slicer.util.arrayFromVolume(case_node)).copy()
        return _Drawn(
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

    def _require_whole(self, node: Any, questions: Questions) -> None:
        """Ask whether a final label may be saved that has not each segment that it came with.

        Raises:
            SceneError: When the question is refused.
            CancelledError: When the answer is no.
        """
        if source_of(node) != "refined":
            return
        names = [target.name for target in self.targets()]
        lacking = lacking_segments(node, self.targets(), names)
        if lacking:
            require_yes(questions.may_lack(str(node.GetName()), lacking))

    def _save(
        self, name: str, drawn: _Drawn, save: Callable[[Labelmap], Project], wait: bool
    ) -> Project | None:
        opened, case_id, geometry = self.opened(), drawn.case_id, drawn.labels.geometry
        node, case_node, written = drawn.node, drawn.case_node, drawn.written
        shown_then, drawn_on_id = drawn.shown, drawn.volume.GetID()
        node_ids = node.GetID(), case_node.GetID()
        label_before = drawn.label_before

        def work(_: Any) -> tuple[Project, str, bytes]:
            from aslseg.project.project import changing

            with changing(opened.folder):
                _require_unchanged(opened, drawn)
                project = save(drawn.labels)
                digest = label_digest(project, case_id)
            return project, digest, zlib.compress(drawn.labels.labels.tobytes(), 1)

        def show(saved: tuple[Project, str, bytes]) -> Project:
            project, label, packed = saved
            if slicer.mrmlScene.IsNodePresent(case_node):
                self._verified.add(known_as(case_node))
            _show_saved(node, case_node, written, label)
            if slicer.mrmlScene.IsNodePresent(node) and volume_of_prediction(node):
                note_saved(node, volume_of_prediction(node), shown_then)
            noted = written_to(node) if _is_there(node) else written
            self.updated(project)

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
                _show_saved(shown, volume, noted, label_digest(self.opened(), case_id))

            self._note_decision(again)
            return project

        return self._in_background(name, work, show, wait)

    def _note_decision(self, again: Callable[[], object]) -> None:
        """Let the last decision be undone and redone."""
        last = self.last_decision()
        self.history.add(Change(last, lambda: self._take_back(last), again))

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

    def refined_node(self, case_id: str) -> Any | None:
        """Return the segmentation node of the final label of a case in the scene, or None."""
        volume = self.case_node(case_id)
        return None if volume is None else find_prediction(volume, "refined")

    def _round_of(self, node: Any) -> tuple[RunFolder | None, int | None]:
        """Return the run and round of a prediction; None when they are unknown or mixed."""
        from aslseg.project.run_folder import open_run

        shown = rounds_shown(node)
        known = {run.run_id for run in self.state.runs} if self.state is not None else set()
        if len(shown) != 1 or next(iter(shown))[0] not in known:
            return None, None
        run_id, number = next(iter(shown))
        return open_run(self.opened().folder, run_id), number


def _show_saved(node: Any, case_node: Any, written: Mapping[str, str], label: str) -> None:
    """Note in the scene that what is shown was saved, unless something newer is shown.

    Args:
        node: Segmentation that was saved; None when it is gone.
        case_node: Volume node that is the case; None when it is gone.
        written: What the segmentation had been given when it was saved.
        label: Digest of the label map.
    """
    # A newer result may have come while this one was saved; that is not the label.
    is_shown = _is_there(node) and written_to(node) == written
    if is_shown and _is_there(case_node):
        note_label(case_node, label)
    if is_shown and volume_of_prediction(node):
        accept_prediction(node)
        rest_boxes(volume_of_prediction(node), _SAVED)


def _drawn_since(node: Any) -> SceneError:
    """Return the error that says why a label map of before is not saved again."""
    msg = (
        f"{node.GetName()} was drawn in since that was taken back, so the label of before is not "
        "saved again: accept or save what is shown, or take back what you drew."
    )
    return SceneError(msg)


def _is_there(node: Any | None) -> bool:
    return node is not None and bool(slicer.mrmlScene.IsNodePresent(node))


def _require_unchanged(project: Project, drawn: _Drawn) -> None:
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
                "scene says; load the case again from the table."
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
