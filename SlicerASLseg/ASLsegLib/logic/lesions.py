"""The lesions of the case that is looked at: listed, and one at a time drawn.

One is edited, or a missed one drawn; nothing is decided by that yet. What is drawn in a case that
is left is put aside until its lesions are listed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from ASLsegLib.engine.background import Signal
from ASLsegLib.logic.base import Pending, waiting
from ASLsegLib.logic.history import Change
from ASLsegLib.logic.label_saving import LabelSavingLogic
from ASLsegLib.logic.lesion_drawing import Drawing, being_drawn, predicted_labels
from ASLsegLib.logic.lesion_review import LesionReview
from ASLsegLib.logic.read_ahead import state_of
from ASLsegLib.scene.as_decided import lesions_otherwise
from ASLsegLib.scene.case_nodes import case_of
from ASLsegLib.scene.lesion_masks import (
    beyond_organ,
    counted_segment,
    mask_of,
    require_segments,
    target_mask,
    together,
    without,
)
from ASLsegLib.scene.moved_cases import require_in_place
from ASLsegLib.scene.provenance import moved_against
from ASLsegLib.scene.segmentations import find_prediction, is_as_written, rounds_shown
from ASLsegLib.scene.segments import part_of
from ASLsegLib.scene.volumes import SceneError, volume_of

if TYPE_CHECKING:
    import numpy as np

    from aslseg.evaluation.lesion_review import ReviewedLesion
    from aslseg.evaluation.round_changes import CaseChange
    from aslseg.project.lesion_decisions import BoxedMask, CaseLesions
    from aslseg.project.project import Project
    from aslseg.project.run_folder import RunFolder
    from aslseg.targets import Target


class LesionLogic(LabelSavingLogic):
    """The part of the logic that lists the lesions of a case, and begins and stops to draw one.

    Attributes:
        lesion_review: The lesions of the case that is looked at, or None.
        lesions_changed: Emits when they, or decisions about them, have changed.
        unsent_prompts: Each tells of a volume whether prompts in it wait to be sent to the engine.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lesion_review: LesionReview | None = None
        self.lesions_changed = Signal()
        self.unsent_prompts: list[Callable[[Any], bool]] = []
        self._drawing: Drawing | None = None
        self._put_aside: dict[tuple[Path, str], Drawing] = {}  # by project, MRML id of the volume
        self.project_changed.connect(self._forget_other_project)

    @property
    def has_lesions(self) -> bool:
        """Whether the open project has a target that lies inside another one, as lesions do."""
        if self.project is None:
            return False
        from aslseg.targets import lesion_targets

        return bool(lesion_targets(self.project.targets))

    @waiting
    def load_lesions(
        self, case_id: str, *, then: Callable[[], None] | None = None
    ) -> Pending[LesionReview]:
        """List the lesions that the latest run with a prediction of it found in a case.

        What was being drawn in another case is put aside until its lesions are listed again.

        Args:
            case_id: Name of a case that is in the scene.
            then: Called when they are there.

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

        return self._in_background("listing lesions", read, show)

    def forget_lesions(self) -> None:
        """Look at no case's lesions any more; what is being drawn is put aside."""
        self._put_drawing_aside()
        self.lesion_review = None
        self.lesions_changed.emit()

    def round_changes(self) -> list[CaseChange]:
        """Return what the latest short round of the latest trained run changed, case by case."""
        runs = [] if self.state is None else self.state.finished
        run = next((one for one in runs if not one.is_external), None)
        if run is None or not run.short_rounds:
            return []
        from aslseg.evaluation.round_changes import read_changes

        return read_changes(run, max(run.short_rounds))

    def draw_lesion(self, row: int | None = None, target: str | None = None) -> None:
        """Begin to change a lesion by drawing or prompts, or to add one that was missed.

        A lesion that is being edited already goes on being edited.

        Args:
            row: Of the lesion; None for one that was missed.
            target: Of a missed lesion; the first target with lesions when None.

        Raises:
            SceneError: When something was drawn of another lesion, that is not decided about yet,
                when an answer about the case is awaited, which would count as drawn, or when the
                case has a label map by now.
        """
        review = self._review()
        if row is not None and row == self.drawn_row:
            return
        self._require_answered(review.case_id, also_fillings=True)
        self._require_sent(review.case_id)
        self._begin_drawing(row, target)

    def _begin_drawing(self, row: int | None, target: str | None = None) -> None:
        """Begin to draw a lesion, also while an answer is being shown; see `draw_lesion`."""
        from aslseg.targets import lesion_targets

        self.changes.note_all_prompts()  # those of before are no part of it
        review = self._review()
        self._require_decidable(review.case_id)
        self._require_no_drawing()
        names = {one.name: one for one in self.targets()}
        if row is not None:
            self._list_as_shown(row)
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

    def stop_drawing(self) -> bool:
        """Draw no lesion any more, unless something was drawn: that has to be decided about.

        Returns:
            Whether none is being drawn now.
        """
        self.changes.note_all_prompts()  # those count as drawn
        if self._drawing is not None:
            if self._has_drawn(self._drawing, self.case_node(self._review().case_id)):
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

    def forget_scene(self) -> None:
        """Forget the lesions too: the scene is closed."""
        super().forget_scene()
        self.history.clear()
        self._drawing, self._put_aside = None, {}
        self.forget_lesions()

    def segment_of_drawing(self) -> str:
        """Return the id of the segment that shows the target of the lesion that is drawn.

        Raises:
            SceneError: When none is being drawn.
        """
        node, _ = self._shown(self._review().case_id)
        drawing = self._drawing
        return "" if drawing is None else counted_segment(node, drawing.target, self.targets())

    def _review(self) -> LesionReview:
        if self.lesion_review is None:
            msg = "No case is reviewed lesion by lesion; load one, and its lesions."
            raise SceneError(msg)
        return self.lesion_review

    def _list_as_shown(self, row: int) -> bool:
        """List a lesion with the voxels that the final label shows of it: they are decided about.

        It may have been drawn in, prompted, or predicted by another run since lesions were listed.

        Returns:
            Whether anything of the lesion is shown.

        Raises:
            SceneError: When the case is not in the scene, has a label map by now, or lacks a
                segment.
            RunError: When the run has no label of the case any more.
        """
        from aslseg.evaluation.lesion_review import with_voxels
        from aslseg.project.candidate_lesions import lesion_in

        review, lesion = self._review(), self._row(row)
        node, volume = self._shown(review.case_id)
        self._require_decidable(review.case_id)
        target = next(one for one in self.targets() if one.name == lesion.target)
        require_segments(node, self.targets(), {target.name, target.inside or target.name})
        is_listed_one = review.lesions_of in rounds_shown(node)
        if is_listed_one and is_as_written(node, volume):
            return lesion.shown
        of_target = [one for one in review.rows if one.shown and one.target == target.name]
        others = [one.voxels for one in of_target if one is not lesion]
        shown = target_mask(node, volume, target, self.targets())
        voxels = lesion_in(shown, lesion.voxels, others)
        if voxels is not None and not (lesion.shown and voxels.equals(lesion.voxels)):
            drawn = without(voxels, lesion.voxels)
            beyond = self._beyond_organ(drawn, target) if drawn and is_listed_one else None
            listed = with_voxels(review.image, lesion, voxels)
            review.rows[row] = replace(listed, outside=together(lesion.outside, beyond))
        return voxels is not None

    def _beyond_organ(self, drawn: BoxedMask, target: Target) -> BoxedMask | None:
        """Return what of a drawn lesion was background before, by the label that the run wrote."""
        from aslseg.targets import region_mask

        targets, labels = self.targets(), self._predicted_of_review()
        parent = next(one for one in targets if one.name == target.inside)
        predicted = mask_of(part_of(region_mask(labels, parent, targets)))
        shown = target_mask(*self._shown(self._review().case_id), parent, targets)
        return beyond_organ(drawn, predicted, shown)

    def _predicted_of_review(self) -> np.ndarray:
        """Return the final label as the run has it, of the case that is looked at."""
        review = self._review()
        return predicted_labels(review.run, review.round, review.case_id, review.image.geometry)

    def _look_at_shown(self) -> None:
        """Note which lesions are shown otherwise than decided; that of a drawing is none."""
        review = self._review()
        volume, node = self.case_node(review.case_id), self.refined_node(review.case_id)
        review.otherwise = []
        if node is None or not review.decisions.decisions:
            return
        if not is_as_written(node, volume):  # else it was renewed
            lesion = None if self._drawing is None else self._drawing.lesion
            drawn = 0 if lesion is None else lesion.number
            predicted = self._predicted_of_review()
            found = lesions_otherwise(node, volume, self.targets(), review.decisions, predicted)
            review.otherwise = [number for number in found if number != drawn]

    def _row(self, row: int) -> ReviewedLesion:
        return self._review().rows[row]

    def _shown(self, case_id: str) -> tuple[Any, Any]:
        """Return the refined prediction of a case and its volume node."""
        volume, node = self.case_node(case_id), self.refined_node(case_id)
        if node is None:
            msg = f"Case {case_id} is not in the scene any more; load it again."
            raise SceneError(msg)
        return node, volume

    def _row_of_drawing(self, drawing: Drawing) -> int | None:
        return None if drawing.lesion is None else self._review().row_of(drawing.lesion)

    def _put_drawing_aside(self) -> None:
        """Keep what is being drawn with its volume, where there is something and it stays."""
        review, drawing = self.lesion_review, self._drawing
        volume = None if review is None else self.case_node(review.case_id)
        if volume is not None and drawing is not None and not self.stop_drawing():
            self._put_aside[self.opened().folder, volume.GetID()] = drawing
        self._drawing = None

    def _forget_other_project(self) -> None:
        review = self.lesion_review
        if review is not None and (
            self.project is None or not review.run.path.is_relative_to(self.project.folder)
        ):
            self.history.keep(self._changes_put_aside())
            self.forget_lesions()

    def _may_replace_predictions(self, volume: Any) -> bool:
        """Tell whether predictions may be replaced: not those that a lesion was drawn in.

        A drawing without anything in it ends; it would take what replaces them for drawn.
        """
        place, review = (self.opened().folder, volume.GetID()), self.lesion_review
        aside = self._put_aside.get(place)
        if aside is not None and not self._has_drawn(aside, volume):
            del self._put_aside[place]
        is_reviewed = review is not None and self.case_node(review.case_id) is volume
        return place not in self._put_aside and (not is_reviewed or self.stop_drawing())

    def _require_nothing_begun(self, volume: Any) -> None:
        """Refuse to segment a volume in which a lesion was drawn; an empty drawing ends.

        Raises:
            SceneError: When something was drawn: all that the answer changes would count as that.
        """
        if self.project is not None and not self._may_replace_predictions(volume):
            msg = (
                f"A lesion is being drawn in {volume.GetName()}, and what a run segments would be "
                "taken for drawn; accept or delete that lesion first (where another case is shown, "
                "load its case again), then segment."
            )
            raise SceneError(msg)

    def _require_no_drawing(self) -> None:
        """Refuse to go on while something was drawn that is not decided about yet.

        Raises:
            SceneError: Which lesion has to be decided about.
        """
        if not self.stop_drawing():
            raise being_drawn(self.drawn_row)

    def _require_answered(self, case_id: str, *, also_fillings: bool = False) -> None:
        """Refuse to decide about what an answer that is awaited would change.

        Args:
            case_id: The case.
            also_fillings: Whether an answer that only fills between slices is waited for too.

        Raises:
            SceneError: When one about the case is awaited.
        """

    def _require_sent(self, case_id: str) -> None:
        """Refuse to decide about what the answer to prompts would change that are not sent yet.

        Raises:
            SceneError: When prompts of the case wait to be sent.
        """
        volume = self.case_node(case_id)
        if any(are_unsent(volume) for are_unsent in self.unsent_prompts):
            msg = (
                f"The last prompts in case {case_id} are not answered yet, and what comes would "
                "change what you decide about; end what you are placing, wait until the answer is "
                "shown, then go on."
            )
            raise SceneError(msg)

    def _require_decidable(self, case_id: str) -> None:
        """Refuse decisions about lesions once the label map counts, which they would not change.

        Raises:
            SceneError: When the case has a label map, or its final label was moved.
        """
        self._require_unmoved(case_id)
        if self.is_labelled:
            msg = (
                f"Case {case_id} has a label map by now, which decisions about lesions do not "
                "change; undo that decision first, or correct the label map itself."
            )
            raise SceneError(msg)

    def _require_unmoved(self, case_id: str) -> None:
        """Refuse decisions in a final label whose lesions are not shown where its voxels are.

        Raises:
            SceneError: When a transform moves it against its volume.
        """
        volume, node = self.case_node(case_id), self.refined_node(case_id)
        if node is not None and moved_against(node, volume):
            name = node.GetName()
            msg = (
                f"{name} was moved against its volume by a transform, so its lesions are not shown "
                "where they would be decided about; remove or harden the transform (Data module), "
                f"or remove {name} from the scene and load the case again."
            )
            raise SceneError(msg)

    def _has_drawn(self, drawing: Drawing, volume: Any | None) -> bool:
        """Tell whether there were prompts, answers or strokes since a lesion was begun.

        None are there any more where its volume (None) or the final label has left the scene.
        """
        node = None if volume is None else find_prediction(volume, "refined")
        if volume is None or node is None:
            return False
        if drawing.changes(self.history.done, volume.GetID()):
            return True
        return any(one is not None for one in drawing.voxels(node, volume, self.targets()))

    def _changes_put_aside(self) -> list[Change]:
        """Return what was done about lesions that are drawn in cases that were left."""
        drawings, done = self._put_aside.items(), self.history.done
        return [one for (_, name), drawing in drawings for one in drawing.changes(done, name)]


def _node(node_id: str) -> Any | None:
    return slicer.mrmlScene.GetNodeByID(node_id)


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
