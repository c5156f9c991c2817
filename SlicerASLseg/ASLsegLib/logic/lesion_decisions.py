"""Decisions about the lesions of a case, and that it has no more of them.

A decision is written to the project at once, shown in the refined prediction, and can be undone.
The case gets a person's label map when all lesions are decided and there are no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ASLsegLib.logic.base import Pending, waiting
from ASLsegLib.logic.history import Change
from ASLsegLib.logic.lesion_drawing import Drawing, DrawnVoxels, being_drawn, predicted_labels
from ASLsegLib.logic.lesion_review import GONE
from ASLsegLib.logic.lesions import LesionLogic
from ASLsegLib.logic.questions import REFUSE, Questions, require_yes
from ASLsegLib.scene.as_decided import AsDecided
from ASLsegLib.scene.lesion_masks import exchange_voxels, require_segments, together, without
from ASLsegLib.scene.provenance import source_of
from ASLsegLib.scene.resting_boxes import rest_boxes, wake_boxes
from ASLsegLib.scene.volumes import SceneError

if TYPE_CHECKING:
    from aslseg.evaluation.lesion_review import ReviewedLesion
    from aslseg.project.lesion_decisions import BoxedMask, LesionDecision
    from aslseg.project.project import Project
    from aslseg.targets import Target
    from ASLsegLib.logic.label_saving import DrawnLabel


NOTHING_CHANGED = (
    "Nothing of the lesion has changed yet. Wait until SAM has answered, or ask it; else draw the "
    "lesion, or take back what you did by Undo."
)
"""Why prompts, or strokes that change no voxel, are no lesion."""


class LesionDecisionLogic(LesionLogic):
    """The part of the logic that decides about lesions."""

    def accept_lesion(self, row: int) -> None:
        """Let a lesion be right as it is shown, or as its candidate is where it is not shown.

        A lesion that is being edited, or that was missed and is drawn now, is taken as drawn.

        Raises:
            SceneError: When nothing is shown of a lesion that was shown when it was listed, the
                case is not in the scene, an answer about it is awaited, or it has a label map by
                now.
        """
        if self._drawing is not None:
            self.take_drawn()
            return
        self._require_answered(self._review().case_id)
        self._require_sent(self._review().case_id)
        is_there = self._list_as_shown(row)
        lesion = self._row(row)
        if lesion.shown and not is_there:
            msg = (
                f"The final label shows nothing of lesion {row + 1} any more, so it cannot be "
                "accepted; delete it, or draw it again."
            )
            raise SceneError(msg)
        if lesion.found is None:
            what = "added"
        else:
            what = "accepted" if lesion.voxels.equals(lesion.found) else "edited"
        self._decide(row, what, lesion.voxels, f"accept lesion {row + 1}")

    def delete_lesion(self, row: int | None) -> None:
        """Let a candidate be no lesion; one that was added is gone.

        Of a lesion that is being drawn, voxels, prompts and answers since `draw_lesion` go first,
        and come back by an `undo` of their own.

        Args:
            row: Of the lesion; None for a missed one that is being drawn.

        Raises:
            SceneError: When another lesion is being drawn, or none, or an answer about the case is
                awaited; also as for `accept_lesion`.
        """
        drawing = self._drawing
        if drawing is None and row is None:
            msg = "No lesion is being drawn; say which one is to be deleted."
            raise SceneError(msg)
        if drawing is not None:
            if row != self.drawn_row:
                raise being_drawn(self.drawn_row)
            self._require_unmoved(self._review().case_id)
            self._take_out_drawn(drawing)
        if row is not None:
            self._delete_listed(row)

    def take_drawn(self) -> int | None:
        """Decide as was drawn since `draw_lesion`, and return the lesion's row.

        None when nothing has changed.

        Raises:
            SceneError: When nothing is being drawn, prompts have changed nothing yet, an answer
                about the case is awaited, or it has a label map by now.
        """
        self.changes.note_all_prompts()  # those count as drawn
        drawing, review = self._drawing, self._review()
        if drawing is None:
            msg = "No lesion is being drawn; begin with draw_lesion."
            raise SceneError(msg)
        self._require_decidable(review.case_id)
        self._require_answered(review.case_id)
        node, volume = self._shown(review.case_id)
        added, removed = drawing.voxels(node, volume, self.targets())
        if added is None and removed is None:
            if drawing.changes(self.history.done, volume.GetID()):
                raise SceneError(NOTHING_CHANGED)
            self._drawing = None
            self.lesions_changed.emit()
            return None
        self._require_sent(review.case_id)
        rows, self._drawing = list(review.rows), None
        try:
            return self._decide_as_drawn(drawing, added, removed)
        except Exception:  # nothing is decided: the lesion is still being drawn
            self._drawing, review.rows[:] = drawing, rows
            raise

    def _decide_as_drawn(
        self, drawing: Drawing, added: BoxedMask | None, removed: BoxedMask | None
    ) -> int:
        """Decide about what was drawn, some voxels of which were added or removed; see above."""
        outside = without(added, drawing.parent_before)
        row = self._row_of_drawing(drawing)
        if row is None:
            if added is None:
                msg = "Nothing was added: draw the lesion, or place a prompt in it, and accept."
                raise SceneError(msg)
            return self._append(drawing.target, added, outside)
        lesion = self._row(row)
        self._review().rows[row] = replace(lesion, outside=together(lesion.outside, outside))
        own = lesion.voxels if lesion.shown else None
        mask = without(together(own, added), removed)
        what = "added" if lesion.found is None else "edited"
        word = f"edit lesion {row + 1}"
        self._decide(row, what if mask else "deleted", mask, word, drawn=True)
        return row

    def show_lesions_as_decided(self) -> None:
        """Let the final label show the lesions of the case as they were decided about.

        Everything else that was drawn stays, and `undo` brings back what was shown.

        Raises:
            SceneError: When no case is looked at, a lesion is being drawn, or the case has a label
                map by now.
        """
        review = self._review()
        self._require_no_drawing()
        self._require_decidable(review.case_id)
        nodes = self._shown(review.case_id)
        shows = AsDecided(*nodes, self.targets(), review.decisions, self._predicted_of_review())

        def swap() -> None:
            shows()
            if self.lesion_review is not None:
                self._look_at_shown()
            self.lesions_changed.emit()

        swap()
        self.changes.note(nodes[1], "show lesions as decided", swap)

    @waiting
    def finish_lesions(self, *, questions: Questions = REFUSE) -> Pending[Project]:
        """Say that the case has no more lesions: what is shown is a person's label map now.

        Raises:
            SceneError: When no case is looked at, what is shown cannot be saved, or it is the label
                already.
            ProjectError: When a lesion is undecided.
        """
        from aslseg.project.lesion_labels import finish_case

        review, project = self._review(), self.opened()
        run, number, case_id = review.run, review.round, review.case_id  # for redo, not the image
        node, _ = self._shown(case_id)
        self._require_unmoved(case_id)
        self._require_same_image(case_id)
        if self._is_finished(case_id, node):
            msg = f"Case {case_id} is done already: what is shown is its label."
            raise SceneError(msg)
        require_segments(node, self.targets(), {row.target for row in review.rows if row.shown})
        self._require_seen(node, questions, in_part=True)
        drawn = self._drawn(node, self.case_node(case_id), case_id, questions)
        return self._save(
            "saving a decision",
            drawn,
            lambda labels: finish_case(project, run, case_id, labels=labels, round_number=number),
        )

    def _is_finished(self, case_id: str, node: Any) -> bool:
        """Tell whether a final label is saved as it is shown, with all lesions decided about."""
        from aslseg.project.project import open_project
        from aslseg.targets import lesion_targets

        project = open_project(self.opened().folder)
        case = project.case(case_id)
        lesions = {target.name for target in lesion_targets(project.targets)}
        is_decided = not case.label_targets or lesions <= {*case.label_targets}
        return case.status == "labelled" and is_decided and self._is_saved(project, case_id, node)

    def _drawn(self, node: Any, volume: Any, case_id: str, questions: Questions) -> DrawnLabel:
        """Read what is shown of a case; see `LabelSavingLogic`. Lesions are decided on before."""
        from aslseg.project.lesion_decisions import read_lesions
        from aslseg.project.shown_lesions import shown_otherwise

        review = self.lesion_review
        is_listed = review is not None and review.case_id == case_id
        if is_listed:
            self._require_no_drawing()
        drawn = super()._drawn(node, volume, case_id, questions)
        if source_of(node) != "refined" or drawn.label_before:
            return drawn
        decided = read_lesions(self.opened(), case_id)  # elsewhere too, since they were listed
        if not decided.decisions:
            return drawn
        labels, (run, number) = drawn.labels, self._round_of(node)
        predicted = None if run is None else predicted_labels(run, number, case_id, labels.geometry)
        numbers = shown_otherwise(decided, labels.labels, self.targets(), predicted)
        which = review.named(numbers) if review is not None and is_listed else ""
        which = which or f"{len(numbers)} of its lesions"
        if numbers:
            require_yes(questions.may_contradict(case_id, which))
        return drawn

    def _delete_listed(self, row: int) -> None:
        """Let a candidate, and what is shown of it, be no lesion; one that was added is gone."""
        self._require_answered(self._review().case_id)
        self._require_sent(self._review().case_id)
        self._list_as_shown(row)
        lesion, word = self._row(row), f"delete lesion {row + 1}"
        if lesion.found is None:
            self._put(row, None, word)
        else:
            self._decide(row, "deleted", None, word)

    def _take_out_drawn(self, drawing: Drawing) -> None:
        """Bring the prediction back to how it was when a lesion was begun to be drawn."""
        self.changes.note_all_prompts()
        review, targets = self._review(), self.targets()
        nodes = self._shown(review.case_id)
        volume_id = nodes[1].GetID()
        changes = drawing.changes(self.history.done, volume_id)
        drawn = DrawnVoxels(nodes, targets, drawing)

        def hide() -> None:
            for change in reversed(changes):
                change.take_back()
            drawn.hide()
            self._drawing = None
            self.lesions_changed.emit()

        def show() -> None:
            drawn.show()
            for change in changes:
                change.do_again()
            now = self.lesion_review
            if now is not None and now.case_id == review.case_id:
                self._drawing = drawing
            self.lesions_changed.emit()

        def count_bytes() -> int:
            return sum(change.size_bytes() for change in changes)

        what = Change(
            "delete drawn lesion", show, hide, volume_id=volume_id, size_bytes=count_bytes
        )
        self.changes.know_of(nodes[1])
        self._move(what, lambda: self.history.replace(changes, what))

    def _append(self, target: Target, voxels: BoxedMask, outside: BoxedMask | None) -> int:
        """Add a lesion, and return its row; `outside` is as in `ReviewedLesion`."""
        from aslseg.evaluation.lesion_review import of_decision
        from aslseg.project.lesion_decisions import LesionDecision

        review = self._review()
        decision = LesionDecision(
            "added", target.name, None, voxels, review.run.run_id, review.round
        )
        row = len(review.rows)
        lesion = of_decision(review.image, 0, decision, target)
        review.rows.append(replace(lesion, state=GONE, shown=False, outside=outside))
        self._put(row, decision, f"add lesion {row + 1}", drawn=True)
        return row

    def _decide(
        self, row: int, what: Any, mask: BoxedMask | None, word: str, *, drawn: bool = False
    ) -> None:
        from aslseg.project.lesion_decisions import LesionDecision

        lesion, review = self._row(row), self._review()
        decision = LesionDecision(
            what,
            lesion.target,
            lesion.found,
            mask,
            review.run.run_id,
            review.round,
            lesion.candidate,
        )
        self._put(row, decision, word, drawn=drawn)

    def _put(
        self, row: int, decision: LesionDecision | None, word: str, *, drawn: bool = False
    ) -> None:
        """Decide, and note how to take it back."""
        review, before = self._review(), self._row(row)
        known = review.decisions.decisions.get(before.number)
        case_id, lesions_of = review.case_id, review.lesions_of
        self._apply(case_id, row, decision, drawn=drawn)
        after = self._row(row)

        def handle(boxes: Callable[[Any, str], None]) -> None:
            if drawn:
                boxes(self.case_node(case_id), str(after.number))

        def undo() -> None:
            self._require_listed(case_id, lesions_of)
            self._return_to(case_id, after, before, known)
            handle(wake_boxes)

        def redo() -> None:
            self._require_listed(case_id, lesions_of)
            self._return_to(case_id, before, after, decision)
            handle(rest_boxes)

        handle(rest_boxes)
        self.history.add(Change(word, undo, redo, case_id, lesions_of=lesions_of))
        self.lesions_changed.emit()

    def _require_listed(self, case_id: str, lesions_of: tuple[str, int]) -> None:
        """Refuse to take back or do again what is about other lesions than are listed.

        Raises:
            SceneError: When those of another case are, or of another round, in whose label the
                lesions of before would be drawn.
        """
        review = self.lesion_review
        if review is None or review.case_id != case_id:
            msg = f"This is about case {case_id}, which is not looked at; load it first."
            raise SceneError(msg)
        if review.lesions_of != lesions_of:
            self.history.forget_lesions_of(case_id, lesions_of)  # else it would be tried in vain
            (run_id, number), (shown_id, shown) = lesions_of, review.lesions_of
            msg = (
                f"That was decided about in round {number} of run {run_id}, and case {case_id} is "
                f"shown as in round {shown} of {shown_id}, which may lack the lesion or draw it "
                "otherwise; choose the lesion in the list and decide about it again, or add it."
            )
            raise SceneError(msg)

    def _return_to(
        self,
        case_id: str,
        now: ReviewedLesion,
        goal: ReviewedLesion,
        decision: LesionDecision | None,
    ) -> None:
        """Bring a lesion back to how it was, on disk and in the scene."""
        self._require_no_drawing()
        self._apply(case_id, self._review().row_of(now), decision, shown=goal)
        self.lesions_changed.emit()

    def _apply(
        self,
        case_id: str,
        row: int,
        decision: LesionDecision | None,
        *,
        drawn: bool = False,
        shown: ReviewedLesion | None = None,
    ) -> None:
        """Write a decision, and show it.

        Args:
            case_id: The case.
            row: Of the lesion.
            decision: About it; None for none.
            drawn: Whether the scene shows it already.
            shown: The lesion as it shall be; measured anew when None.
        """
        from aslseg.evaluation.lesion_review import of_decision
        from aslseg.project.lesion_decisions import put_lesion

        review, before = self._review(), self._row(row)
        target = next(one for one in self.targets() if one.name == before.target)
        nodes = self._shown(case_id)
        self._require_decidable(case_id)
        require_segments(nodes[0], self.targets(), {target.name, target.inside or target.name})
        number, review.decisions = put_lesion(
            self.opened(),
            case_id,
            decision,
            lesion=before.number or (shown.number if shown else 0) or None,
            seen=review.decisions.latest,
        )
        if shown is not None:
            after = replace(shown, number=number if decision is not None else shown.number)
        elif decision is not None:
            measured = of_decision(review.image, number, decision, target)
            after = replace(
                measured,
                agreement=before.agreement,
                probability=before.probability,
                doubt=before.doubt,
                reasons=before.reasons,
                outside=before.outside,
            )
        else:
            after = replace(before, state=GONE, shown=False)
        review.rows[row] = after
        if not drawn:
            _repaint(nodes, self.targets(), review.rows, before, after)
        if review.otherwise:
            self._look_at_shown()


def _repaint(
    nodes: tuple[Any, Any],
    targets: Sequence[Target],
    rows: Sequence[ReviewedLesion],
    before: ReviewedLesion,
    after: ReviewedLesion,
) -> None:
    """Let the refined prediction show a lesion as it is now; other lesions keep theirs.

    Args:
        nodes: Segmentation node of the prediction, and its volume node.
        targets: All targets.
        rows: All lesions of the case.
        before: The lesion as it was.
        after: As it is now, one of the rows.
    """
    target = next(one for one in targets if one.name == before.target)
    was, now = (one.voxels if one.shown else None for one in (before, after))
    gone, come = without(was, now), without(now, was)
    for other in rows:
        is_other = other is not after and other.shown and other.target == target.name
        if gone is not None and is_other and _touch(other.voxels, gone):
            gone = without(gone, other.voxels)
    of_parent = without(gone, before.outside)
    exchange_voxels(*nodes, targets, target=target, come=come, gone=gone, parent_mask=of_parent)


def _touch(first: BoxedMask, second: BoxedMask) -> bool:
    return bool((first.within(second.box) & second.mask).any())
