"""Review lesion by lesion: the lesions of the case that is shown, and decisions about them.

A decision is written to the project at once, shown in the refined prediction, and can be undone.
The case gets a person's label map when all lesions are decided and there are no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from ASLsegLib.engine.background import Signal
from ASLsegLib.logic.history import Change
from ASLsegLib.logic.questions import REFUSE, Questions, require_yes
from ASLsegLib.logic.read_ahead import state_of
from ASLsegLib.logic.review import ReviewLogic
from ASLsegLib.scene.case_nodes import case_of
from ASLsegLib.scene.lesion_masks import (
    exchange_voxels,
    require_segments,
    target_mask,
    together,
    without,
)
from ASLsegLib.scene.lesions_shown import shown_otherwise
from ASLsegLib.scene.provenance import source_of
from ASLsegLib.scene.resting_boxes import rest_boxes, wake_boxes
from ASLsegLib.scene.segmentations import (
    find_prediction,
    is_as_written,
    latest_segments,
    rounds_shown,
)
from ASLsegLib.scene.volumes import SceneError, volume_of

if TYPE_CHECKING:
    from aslseg.data.volume import Volume
    from aslseg.evaluation.lesion_review import ReviewedLesion
    from aslseg.evaluation.round_changes import CaseChange
    from aslseg.project.lesions import BoxedMask, CaseLesions, LesionDecision
    from aslseg.project.project import Project
    from aslseg.project.run_folder import RunFolder
    from aslseg.targets import Target

UNDECIDED, GONE = "undecided", "gone"
"""States of lesions beside those that a person decides: `gone` was added and taken back."""


@dataclass
class LesionReview:
    """The lesions of the case that is looked at.

    Attributes:
        case_id: The case.
        run: Whose candidates they are.
        round: Its round that they are of.
        image: The case's image.
        rows: The lesions, in an order that stays while the case is looked at.
        decisions: What holds.
        otherwise: Numbers of lesions that the final label shows otherwise than that.
    """

    case_id: str
    run: RunFolder
    round: int
    image: Volume
    rows: list[ReviewedLesion]
    decisions: CaseLesions
    otherwise: list[int] = field(default_factory=list)

    def named(self, numbers: Sequence[int]) -> str:
        """Say which lesions are meant, by their rows where all are listed: "lesions 1, 3"."""
        rows = [n for n, row in enumerate(self.rows, start=1) if row.number in numbers]
        return f"lesions {', '.join(map(str, rows))}" if len(rows) == len(numbers) else ""

    @property
    def undecided(self) -> list[int]:
        """Rows that are shown and that nobody decided about: the case waits for these."""
        return [n for n in self._open if self.rows[n].shown]

    @property
    def rejected(self) -> list[int]:
        """Rows that the run rejected and nobody decided about; they are none unless accepted."""
        return [n for n in self._open if not self.rows[n].shown]

    @property
    def _open(self) -> list[int]:
        return [n for n, row in enumerate(self.rows) if row.state == UNDECIDED]


@dataclass
class Drawing:
    """A lesion that is being drawn or prompted.

    Attributes:
        lesion: The lesion as it is without what is drawn; None for one that was missed.
        target: Its target.
        before: What the prediction showed of the target.
        parent_before: What it showed of the target that this one lies in.
        known: What had been done before.
    """

    lesion: ReviewedLesion | None
    target: Target
    before: BoxedMask | None = field(repr=False)
    parent_before: BoxedMask | None = field(repr=False)
    known: tuple[Change, ...] = field(repr=False)


class LesionLogic(ReviewLogic):
    """The part of the logic that decides about lesions.

    Attributes:
        lesion_review: The lesions of the case that is looked at, or None.
        lesions_changed: Emits when they, or decisions about them, have changed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lesion_review: LesionReview | None = None
        self.lesions_changed = Signal()
        self._drawing: Drawing | None = None
        self._put_aside: dict[tuple[Path, str], Drawing] = {}  # by project, MRML id of the volume
        self.project_changed.connect(self._forget_other_project)

    def load_lesions(
        self, case_id: str, *, then: Callable[[], None] | None = None, wait: bool = True
    ) -> LesionReview | None:
        """List the lesions that the latest run found in a case of the scene.

        What was being drawn in another case is put aside until its lesions are listed again.

        Args:
            case_id: Name of a case that is loaded.
            then: Called when they are there.
            wait: Return them; else None at once.

        Raises:
            SceneError: When no run is finished, the case is not in the scene, or the scene shows
                another round than the one whose lesions would be listed.
        """
        from aslseg.evaluation.lesion_review import read_review

        project, node = self.opened(), self.case_node(case_id)
        run = None if self.state is None else self.state.run
        if node is None or run is None:
            what = "no finished round yet" if run is None else f"no case {case_id} in the scene"
            msg = f"There are no lesions to review: there is {what}."
            raise SceneError(msg)
        image, number = volume_of(node), run.best_round
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

    def accept_lesion(self, row: int) -> None:
        """Let a lesion be right as it is shown, or as its candidate is where it is not shown.

        A lesion that is being edited, or that was missed and is drawn now, is taken as drawn.
        """
        if self._drawing is not None:
            self.take_drawn()
            return
        lesion = self._row(row)
        mask = lesion.found if lesion.state == "deleted" else lesion.voxels
        what = "accepted" if lesion.found is not None and lesion.state != "edited" else lesion.state
        self._decide(row, what, mask, f"accept lesion {row + 1}")

    def delete_lesion(self, row: int) -> None:
        """Let a candidate be no lesion; one that was added is gone."""
        lesion, word = self._row(row), f"delete lesion {row + 1}"
        if lesion.found is None:
            self._put(row, None, word)
        else:
            self._decide(row, "deleted", None, word)

    def draw_lesion(self, row: int | None = None, target: str | None = None) -> None:
        """Begin to change a lesion by drawing or prompts, or to add one that was missed.

        A lesion that is being edited already goes on being edited.

        Args:
            row: Of the lesion; None for one that was missed.
            target: Of a missed lesion; the first target with lesions when None.

        Raises:
            SceneError: When something was drawn of another lesion, that is not decided about yet,
                or when the case has a label map by now.
        """
        from aslseg.targets import lesion_targets

        review = self._review()
        if row is not None and row == self.drawn_row:
            return
        self._require_no_label(review.case_id)
        self._require_no_drawing()
        names = {one.name: one for one in self.targets()}
        if row is not None:
            chosen = names[self._row(row).target]
        else:
            possible = lesion_targets(list(names.values()))
            wanted = [one for one in possible if target in (None, one.name)]
            if not wanted:
                what = "No target lies" if target is None else f"'{target}' does not lie"
                msg = f"{what} inside another one, so it has no lesions; decide about whole cases."
                raise SceneError(msg)
            chosen = wanted[0]
        nodes, targets = self._shown(review.case_id), self.targets()
        before, parent_before = (
            target_mask(*nodes, one, targets) for one in (chosen, names[chosen.inside or ""])
        )
        lesion = None if row is None else self._row(row)
        self._drawing = Drawing(lesion, chosen, before, parent_before, self.history.done)
        self.lesions_changed.emit()

    @property
    def has_lesions(self) -> bool:
        """Whether the open project has a target that lies inside another one, as lesions do."""
        if self.project is None:
            return False
        from aslseg.targets import lesion_targets

        return bool(lesion_targets(self.project.targets))

    def stop_drawing(self) -> bool:
        """Draw no lesion any more, unless something was drawn: that has to be decided about.

        Returns:
            Whether none is being drawn now.
        """
        if self._drawing is not None:
            if self._has_drawn(self._drawing):
                return False
            self._drawing = None
            self.lesions_changed.emit()
        return True

    @property
    def is_labelled(self) -> bool:
        """Whether the case that is looked at has got a label map since its lesions were listed."""
        review, cases = self.lesion_review, () if self.project is None else self.project.cases
        return review is not None and any(
            case.id == review.case_id and case.label is not None for case in cases
        )

    @property
    def is_drawing(self) -> bool:
        """Whether a lesion is being edited, or a missed one drawn."""
        return self._drawing is not None

    @property
    def drawn_row(self) -> int | None:
        """Row of the lesion that is being edited; None while none is, or a missed one is drawn."""
        return None if self._drawing is None else self._row_of_drawing(self._drawing)

    @property
    def drawn_target(self) -> str:
        """The target of the lesion that is drawn; empty while none is."""
        return "" if self._drawing is None else self._drawing.target.name

    @property
    def cases_put_aside(self) -> list[str]:
        """Cases that were left while a lesion in them was being drawn; that goes on in them."""
        folder = None if self.project is None else self.project.folder
        volumes = [_node(name) for place, name in self._put_aside if place == folder]
        return [name for volume in volumes if (name := case_of(volume, self.project))]

    @property
    def projects_put_aside(self) -> list[Path]:
        """Other projects in which a lesion was being drawn; that goes on when they are opened."""
        here = None if self.project is None else self.project.folder
        found = {place for place, name in self._put_aside if _node(name) is not None}
        return sorted(found - {here})

    def use(self, project: Project) -> Project:
        """Open a project; what is being drawn in a case of another one is put aside.

        That can still be undone, but no decision of the other project: cases have one name in many.
        """
        if self.project is not None and self.project.folder != project.folder:
            self._put_drawing_aside()
            self.history.keep(self._changes_put_aside())
        return super().use(project)

    def segment_of_drawing(self) -> str:
        """Return the id of the segment that shows the target of the lesion that is drawn.

        Raises:
            SceneError: When none is being drawn.
        """
        node, _ = self._shown(self._review().case_id)
        return latest_segments(node, self.targets()).get(self.drawn_target, "")

    def take_drawn(self) -> int | None:
        """Decide as was drawn since `draw_lesion`, and return the lesion's row.

        None when nothing has changed.

        Raises:
            SceneError: When nothing is being drawn, or the case has a label map by now.
        """
        drawing, review = self._drawing, self._review()
        if drawing is None:
            msg = "No lesion is being drawn; begin with draw_lesion."
            raise SceneError(msg)
        self._require_no_label(review.case_id)
        node, volume = self._shown(review.case_id)
        now = target_mask(node, volume, drawing.target, self.targets())
        added, removed = without(now, drawing.before), without(drawing.before, now)
        self._drawing = None
        if added is None and removed is None:
            self.lesions_changed.emit()
            return None
        row = self._row_of_drawing(drawing)
        if row is None:
            if added is None:
                msg = "Nothing was added: draw the lesion, or place a prompt in it, and accept."
                self._drawing = drawing
                raise SceneError(msg)
            row = self._append(drawing.target, added, without(added, drawing.parent_before))
        else:
            lesion = self._row(row)
            outside = together(lesion.outside, without(added, drawing.parent_before))
            review.rows[row] = replace(lesion, outside=outside)
            own = lesion.voxels if lesion.shown else None
            mask = without(together(own, added), removed)
            what = "added" if lesion.found is None else "edited"
            self._decide(
                row, what if mask else "deleted", mask, f"edit lesion {row + 1}", drawn=True
            )
        return row

    def finish_lesions(self, *, wait: bool = True, questions: Questions = REFUSE) -> Project | None:
        """Say that the case has no more lesions: what is shown is a person's label map now.

        Raises:
            SceneError: When no case is looked at, or what is shown cannot be saved.
            ProjectError: When a lesion is undecided.
        """
        from aslseg.project.lesion_labels import finish_case

        review, project = self._review(), self.opened()
        run, number, case_id = review.run, review.round, review.case_id  # for redo, not the image
        node, _ = self._shown(case_id)
        require_segments(node, self.targets(), {row.target for row in review.rows if row.shown})
        drawn = self._drawn(node, self.case_node(case_id), case_id, questions)
        return self._save(
            "saving a decision",
            drawn,
            lambda labels: finish_case(project, run, case_id, labels=labels, round_number=number),
            wait,
        )

    def round_changes(self) -> list[CaseChange]:
        """Return what the latest short round of the latest run changed, case by case."""
        run = None if self.state is None else self.state.run
        if run is None or not run.short_rounds:
            return []
        from aslseg.evaluation.round_changes import read_changes

        return read_changes(run, max(run.short_rounds))

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

    # -- within --------------------------------------------------------------------------------

    def _review(self) -> LesionReview:
        if self.lesion_review is None:
            msg = "No case is reviewed lesion by lesion; load one, and its lesions."
            raise SceneError(msg)
        return self.lesion_review

    def _row_of_drawing(self, drawing: Drawing) -> int | None:
        return None if drawing.lesion is None else self._row_of(drawing.lesion)

    def _put_drawing_aside(self) -> None:
        """Keep what is being drawn with its volume, where there is something and it stays."""
        review, drawing = self.lesion_review, self._drawing
        volume = None if review is None else self.case_node(review.case_id)
        is_shown = review is not None and self.refined_node(review.case_id) is not None
        if volume is not None and drawing is not None and is_shown and not self.stop_drawing():
            self._put_aside[self.opened().folder, volume.GetID()] = drawing
        self._drawing = None

    def _require_no_drawing(self) -> None:
        """Refuse to go on while something was drawn that is not decided about yet.

        Raises:
            SceneError: Which lesion has to be decided about.
        """
        if not self.stop_drawing():
            raise being_drawn(self.drawn_row)

    def _require_no_label(self, case_id: str) -> None:
        """Refuse decisions about lesions once the label map counts, which they would not change.

        Raises:
            SceneError: When the case has a label map.
        """
        if self.is_labelled:
            msg = (
                f"Case {case_id} has a label map by now, which decisions about lesions do not "
                "change; undo that decision first, or correct the label map itself."
            )
            raise SceneError(msg)

    def _drawn(self, node: Any, volume: Any, case_id: str, questions: Questions) -> Any:
        """Read what is shown of a case; see `ReviewLogic`. Lesions are decided about before."""
        from aslseg.project.lesions import read_lesions

        review = self.lesion_review
        is_listed = review is not None and review.case_id == case_id
        if is_listed:
            self._require_no_drawing()
        drawn = super()._drawn(node, volume, case_id, questions)
        if source_of(node) != "refined" or drawn.label_before:
            return drawn
        decided = read_lesions(self.opened(), case_id)  # elsewhere too, since they were listed
        numbers = decided.contradicted_by(drawn.labels.labels, self.targets())
        which = review.named(numbers) if review is not None and is_listed else ""
        which = which or f"{len(numbers)} of its lesions"
        if numbers:
            require_yes(questions.may_contradict(case_id, which))
        return drawn

    def _look_at_shown(self) -> None:
        """Note which lesions are shown otherwise than decided; that of a drawing is none."""
        review = self._review()
        volume, node = self.case_node(review.case_id), self.refined_node(review.case_id)
        review.otherwise = []
        if node is not None and not is_as_written(node, volume):  # else it was renewed
            lesion = None if self._drawing is None else self._drawing.lesion
            drawn = 0 if lesion is None else lesion.number
            found = shown_otherwise(node, volume, self.targets(), review.decisions)
            review.otherwise = [number for number in found if number != drawn]

    def _has_drawn(self, drawing: Drawing) -> bool:
        """Tell whether there were prompts, answers or strokes since a lesion was begun."""
        node, volume = self._shown(self._review().case_id)
        if self._changes_since(drawing, volume.GetID()):
            return True
        now = target_mask(node, volume, drawing.target, self.targets())
        before = drawing.before
        return without(now, before) is not None or without(before, now) is not None

    def _changes_since(self, drawing: Drawing, volume_id: str) -> list[Change]:
        """Return what was done about a volume since a lesion was begun to be drawn."""
        about = (one for one in self.history.done if one.volume_id == volume_id)
        return [one for one in about if one not in drawing.known]

    def _changes_put_aside(self) -> list[Change]:
        """Return what was done about lesions that are drawn in cases that were left."""
        drawings = self._put_aside.items()
        return [
            one for (_, name), drawing in drawings for one in self._changes_since(drawing, name)
        ]

    def _row(self, row: int) -> ReviewedLesion:
        return self._review().rows[row]

    def _shown(self, case_id: str) -> tuple[Any, Any]:
        """Return the refined prediction of a case and its volume node."""
        volume, node = self.case_node(case_id), self.refined_node(case_id)
        if node is None:
            msg = f"Case {case_id} is not in the scene any more; load it again."
            raise SceneError(msg)
        return node, volume

    def _forget_other_project(self) -> None:
        review = self.lesion_review
        if review is not None and (
            self.project is None or not review.run.path.is_relative_to(self.project.folder)
        ):
            self.history.keep(self._changes_put_aside())
            self.forget_lesions()

    def _append(self, target: Target, voxels: BoxedMask, outside: BoxedMask | None) -> int:
        """Add a lesion, and return its row; `outside` is as in `ReviewedLesion`."""
        from aslseg.evaluation.lesion_review import of_decision
        from aslseg.project.lesions import LesionDecision

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
        from aslseg.project.lesions import LesionDecision

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
        case_id = review.case_id
        self._apply(case_id, row, decision, drawn=drawn)
        after = self._row(row)

        def handle(boxes: Callable[[Any, str], None]) -> None:
            if drawn:
                boxes(self.case_node(case_id), str(after.number))

        def undo() -> None:
            self._return_to(case_id, after, before, known)
            handle(wake_boxes)

        def redo() -> None:
            self._return_to(case_id, before, after, decision)
            handle(rest_boxes)

        handle(rest_boxes)
        self.history.add(Change(word, undo, redo, case_id))
        self.lesions_changed.emit()

    def _return_to(
        self,
        case_id: str,
        now: ReviewedLesion,
        goal: ReviewedLesion,
        decision: LesionDecision | None,
    ) -> None:
        """Bring a lesion back to how it was, on disk and in the scene."""
        if self.lesion_review is None or self.lesion_review.case_id != case_id:
            msg = f"This is about case {case_id}, which is not looked at; load it first."
            raise SceneError(msg)
        self._require_no_drawing()
        self._apply(case_id, self._row_of(now), decision, shown=goal)
        self.lesions_changed.emit()

    def _row_of(self, lesion: ReviewedLesion) -> int:
        """Return the row of a lesion, also after the case was loaded again."""
        rows = self._review().rows
        for row, other in enumerate(rows):
            same = other.number == lesion.number if lesion.number else _same(other, lesion)
            if same:
                return row
        rows.append(lesion)
        return len(rows) - 1

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
        from aslseg.project.lesions import put_lesion

        review, before = self._review(), self._row(row)
        target = next(one for one in self.targets() if one.name == before.target)
        nodes = self._shown(case_id)
        self._require_no_label(case_id)
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
            self._repaint(nodes, target, before, after)
        if review.otherwise:
            self._look_at_shown()

    def _repaint(
        self,
        nodes: tuple[Any, Any],
        target: Target,
        before: ReviewedLesion,
        after: ReviewedLesion,
    ) -> None:
        """Let the refined prediction show a lesion as it is now; other lesions keep theirs."""
        targets = self.targets()
        was, now = (one.voxels if one.shown else None for one in (before, after))
        gone, come = without(was, now), without(now, was)
        for other in self._review().rows:
            is_other = other is not after and other.shown and other.target == target.name
            if gone is not None and is_other and _touch(other.voxels, gone):
                gone = without(gone, other.voxels)
        of_parent = without(gone, before.outside)
        exchange_voxels(*nodes, targets, target=target, come=come, gone=gone, parent_mask=of_parent)


def _node(node_id: str) -> Any | None:
    return slicer.mrmlScene.GetNodeByID(node_id)


def being_drawn(row: int | None) -> SceneError:
    """Return the error that says which lesion has to be decided about first."""
    which = "A missed lesion" if row is None else f"Lesion {row + 1}"
    return SceneError(f"{which} is being drawn; accept or delete that first.")


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


def _same(first: ReviewedLesion, second: ReviewedLesion) -> bool:
    """Tell whether two lesions without a decision are one."""
    return (first.target, first.voxels.box) == (second.target, second.voxels.box)


def _touch(first: BoxedMask, second: BoxedMask) -> bool:
    return bool((first.within(second.box) & second.mask).any())
