"""Review lesion by lesion: a list, the views at the lesion, and one key for each act."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from ASLsegLib.logic.lesion_review import GONE, UNDECIDED
from ASLsegLib.paths import resource
from ASLsegLib.scene.case_nodes import case_of
from ASLsegLib.scene.lesion_views import Place, place_of_views, return_to, show_lesion
from ASLsegLib.scene.segmentations import find_prediction
from ASLsegLib.scene.shown_volume import require_in_views
from ASLsegLib.widgets.section import (
    DELETE,
    Section,
    cell,
    fill_table,
    not_installed,
    open_in_segment_editor,
    single_shot,
)
from ASLsegLib.widgets.seen import require_seen

if TYPE_CHECKING:
    from pathlib import Path

    from aslseg.engine.facts import FillFacts
    from aslseg.evaluation.lesion_review import ReviewedLesion
    from ASLsegLib.engine.client import PanelEvent
    from ASLsegLib.logic.lesion_review import LesionReview

HEAD = [_("Lesion"), _("ml"), _("mm"), _("HU"), _("Agree"), _("Decision")]
CHANGES_HEAD = [
    _("Case"), _("Target"), _("Kept"), _("Found"), _("Dropped"), _("ml before"), _("ml now"),
]  # fmt: skip
STATES = {
    "accepted": _("accepted"),
    "deleted": _("deleted"),
    "edited": _("edited"),
    "added": _("added"),
}


class LesionsSection(Section):
    """Lists the lesions of the case that is shown, and decides about them."""

    shows = ("lesions", "training")
    answers = ("FillFacts",)

    def connect_widgets(self) -> None:
        """Put the list into the review section, and connect its buttons and keys."""
        widget = slicer.util.loadUI(str(resource("UI", "Lesions.ui")))
        self.ui.reviewSection.layout().insertWidget(BELOW_CASES, widget)
        for name, child in vars(slicer.util.childWidgetVariables(widget)).items():
            setattr(self.ui, name, child)
        self._listed: tuple[Path | None, str] = (None, "")
        self._place: Place | None = None
        self._back_button: Any | None = None
        self._offer_timer = single_shot(self._offer)
        ui = self.ui
        acts = (
            (ui.lesionAcceptButton, "A", self._accept),
            (ui.lesionDeleteButton, DELETE, self._delete),
            (ui.lesionEditButton, "C", self._edit),
            (ui.lesionAddButton, "E", self._add),
            (ui.lesionsDoneButton, "F", self._finish),
            (ui.lesionNextButton, "N", self._next),
            (ui.lesionBackButton, "Shift+N", self._back),
        )
        for button, key, act in acts:
            self.on_click(button, act)
            self.on_key(key, button)
        order = [ui.fillButton, ui.lesionTable, *(button for button, _key, _act in acts[:-2])]
        order += [ui.lesionFillButton, ui.lesionBackButton, ui.lesionNextButton]
        order += [ui.trainOnShareBox, ui.trainOnButton, ui.changesTable]
        for before, after in pairwise(order):
            qt.QWidget.setTabOrder(before, after)
        self.on_signal(ui.lesionTable, "itemSelectionChanged()", self._show_chosen)
        self.on_click(ui.lesionFillButton, self._fill_between)
        self.on_click(ui.trainOnButton, self._train_on)
        self.logic.lesions_changed.connect(self._fill)
        self.panel.case_chosen.connect(self._list_again)
        self.logic.project_changed.connect(self._show_changes)
        fill_table(ui.lesionTable, HEAD, [])
        ui.changesTable.setVisible(False)

    @property
    def row(self) -> int | None:
        """The lesion that is chosen in the list."""
        chosen = cell(self.ui.lesionTable)
        return int(chosen) - 1 if chosen else None

    @property
    def review(self) -> LesionReview | None:
        """The lesions that are listed: those of the case that is shown, and of no other one."""
        review = self.logic.lesion_review
        shown = case_of(self.panel.volume, self.logic.project)
        return review if review is not None and review.case_id == shown else None

    def update(self) -> None:
        """Show what is possible, and why not; list the lesions of a case that has come."""
        try:
            self._list_other_case()
        finally:  # also where they cannot be listed
            self._show_possible()

    def on_training_event(self, event: PanelEvent) -> None:
        """Show what a training on decisions has changed."""
        if event.event == "done":
            self._show_changes()

    def on_answer(self, _facts: FillFacts) -> None:
        """Let a lesion be seen that was filled: it waits for a person to accept it."""
        if self.logic.filling is None and self.logic.drawn_row is not None:
            self._choose(self.logic.drawn_row)

    def enter(self) -> None:
        """Take a lesion that was changed in the Segment Editor, at the place that was left."""
        place, self._place = self._place, None
        if place is None:
            return
        if self._back_button is not None:
            self._back_button.hide()
        if self.logic.is_drawing:
            self.panel.attempt(lambda: self._choose(self.logic.take_drawn()))
        return_to(place)

    def forget_scene(self) -> None:
        """Forget nodes that go away with the scene."""
        self._offer_timer.stop()
        self._listed, self._place = (None, ""), None

    def close(self) -> None:
        """Ask nothing more."""
        self._offer_timer.stop()

    # -- keys and buttons ----------------------------------------------------------------------

    def _accept(self) -> None:
        review = self.review
        if self.logic.is_drawing:
            self._require_seen(self.logic.drawn_target)
            self._choose(self.logic.take_drawn())
        elif self.row is not None and review is not None:
            self._require_seen(review.rows[self.row].target)
            self.logic.accept_lesion(self.row)
            self._next_undecided()

    def _delete(self) -> None:
        row = self.logic.drawn_row if self.logic.is_drawing else self.row
        if row is None:  # a missed one that is drawn, for without a lesion there is no button
            self.logic.delete_lesion(None)
            return
        require_in_views(self.panel.volume)
        self.logic.delete_lesion(row)
        self._next_undecided()

    def _edit(self) -> None:
        row, volume = self.row, self.panel.volume
        node = None if volume is None else find_prediction(volume, "refined")
        if row is None or node is None:
            return
        self.logic.draw_lesion(row)
        self._place = place_of_views()
        open_in_segment_editor(node, volume, self.logic.segment_of_drawing())
        self._offer_way_back(row)

    def _add(self) -> None:
        """Begin to draw a missed lesion; where one was begun and nothing drawn, stop."""
        if self.logic.is_drawing and self.logic.drawn_row is None and self.logic.stop_drawing():
            self.panel.prompt_wanted.emit("")
            return
        require_in_views(self.panel.volume)
        self.logic.draw_lesion(None)
        self.panel.prompt_wanted.emit(self.logic.drawn_target)

    def _fill_between(self) -> None:
        """Fill the chosen lesion between the slices in which it was drawn."""
        if self.row is not None:
            self.logic.fill_lesion.begin(self.row)

    def _require_seen(self, target: str = "") -> None:
        """Make sure that a person sees what of the case that is reviewed is accepted."""
        review = self.review
        node = None if review is None else self.logic.refined_node(review.case_id)
        if node is not None:  # else the logic says what is missing
            require_seen(self.panel, node, target)

    def _finish(self) -> None:
        self._require_seen()
        self.logic.finish_lesions.begin(questions=self.panel.questions.before_saving)

    def _next(self) -> None:
        review = self.review
        if review is None or not self._next_undecided():
            self.panel.next_case_wanted.emit()

    def _back(self) -> None:
        rows = self._visible()
        here = rows.index(self.row) if self.row in rows else len(rows)
        if rows:
            self._choose(rows[max(here - 1, 0)])

    def _train_on(self) -> None:
        share = self.ui.trainOnShareBox.value / 100
        self.logic.train_on.begin(share=share, may_miss=self.panel.questions.may_miss)

    # -- within --------------------------------------------------------------------------------

    def _show_possible(self) -> None:
        ui, review = self.ui, self.review
        busy = _("Files are being read; wait.") if self.logic.background.is_busy else ""
        load = "" if review else _("Load a case that a run has segmented: its lesions come here.")
        none = self._no_lesions() or load
        chosen = "" if self.row is not None else _("Choose a lesion.")
        drawing = self.logic.is_drawing
        label = _("The case has a label; undo that decision first.")
        label = label if self.logic.is_labelled and not drawing else ""
        for button in (ui.lesionAcceptButton, ui.lesionDeleteButton):
            self.gate(button, none, label, busy, "" if drawing else chosen)
        self.gate(ui.lesionEditButton, none, label, busy, chosen)
        self.gate(ui.lesionAddButton, none, label, busy)
        fill = ""
        if not none and not drawing:
            fill = self.logic.why_not_filled(self.row)
        first = _("Accept the lesion that is drawn first.") if drawing else ""
        self.gate(ui.lesionFillButton, none, label, busy, chosen, first, fill, needs_engine=True)
        self.gate(ui.lesionBackButton, none, busy)
        self.gate(ui.lesionNextButton, "" if self.logic.review_queue() else none, busy)
        left = len(review.undecided) if review else 0
        undecided = _("{left} lesions are undecided.").format(left=left) if left else ""
        self.gate(ui.lesionsDoneButton, none, busy, undecided)
        no_run = (
            "" if self.logic.usable_run() else _("Train first: there is no finished round yet.")
        )
        training = _("A training is under way.") if self.logic.trainer.is_busy else ""
        self.gate(ui.trainOnButton, not_installed(), self._no_lesions(), no_run, training)
        ui.lesionLabel.setText(self._about())

    def _list_other_case(self) -> None:
        """List the lesions of another case once it is shown."""
        project = self.logic.project
        case_id = case_of(self.panel.volume, project)
        shown = (None if project is None else project.folder, case_id)
        if shown == self._listed or self.logic.background.is_busy:
            return
        self._listed = shown
        if self.logic.lesion_review is not None:
            self.logic.forget_lesions()  # those of this case may turn out not to be readable
        if case_id and self._has_candidates(case_id):
            self.logic.load_lesions.begin(case_id, then=self._start)

    def _list_again(self, case_id: str) -> None:
        """List the lesions of a case anew that is loaded again: somebody may have decided."""
        if case_id == self._listed[1]:
            self._listed = (None, "")

    def _offer(self) -> None:
        """Ask about lesions that are shown otherwise than decided."""
        review = self.review
        if review is None or not review.otherwise or self.logic.is_drawing:
            return
        if self.panel.questions.may_show_as_decided(review.case_id, _otherwise(review)):
            self.panel.attempt(self.logic.show_lesions_as_decided)

    def _show_changes(self) -> None:
        changes = self.logic.round_changes()
        self.ui.changesTable.setVisible(bool(changes))
        rows = [
            [
                one.case, one.target, str(one.kept), str(one.found), str(one.dropped),
                f"{one.before_ml:.1f}", f"{one.after_ml:.1f}",
            ]
            for one in changes
        ]  # fmt: skip
        fill_table(self.ui.changesTable, CHANGES_HEAD, rows)

    def _has_candidates(self, case_id: str) -> bool:
        """Whether a run has found lesions in a case that has no label of a person yet."""
        reports = {one.case_id: one for one in self.logic.case_reports()}
        report = reports.get(case_id)
        if report is None or not self.logic.has_lesions:
            return False
        return report.refined is not None and report.state in OPEN

    def _visible(self) -> list[int]:
        review = self.review
        rows = [] if review is None else review.rows
        return [row for row, lesion in enumerate(rows) if lesion.state != GONE]

    def _fill(self) -> None:
        rows = [] if self.review is None else self.review.rows
        values = [_cells(row, rows[row]) for row in self._visible()]
        fill_table(self.ui.lesionTable, HEAD, values)
        self.panel.update_soon("lesions")

    def _start(self) -> None:
        """Show the lesion of a case that is being drawn, else its first undecided one."""
        self._fill()
        review = self.review
        undecided = [] if review is None else review.undecided
        rows = [self.logic.drawn_row, *undecided, *self._visible()]
        self._choose(next((row for row in rows if row is not None), None))
        if review is not None and review.otherwise:
            self._offer_timer.start(0)  # once what lists them has returned

    def _next_undecided(self) -> bool:
        """Choose the next undecided lesion after the chosen one, and begin anew at the end."""
        review = self.review
        left = [] if review is None else review.undecided
        if not left:
            return False
        here = -1 if self.row is None else self.row
        self._choose(next((row for row in left if row > here), left[0]))
        return True

    def _choose(self, row: int | None) -> None:
        if row is None:
            return
        rows = self._visible()
        if row in rows:
            self.ui.lesionTable.selectRow(rows.index(row))
            self._show_chosen()

    def _show_chosen(self) -> None:
        review = self.review
        if review is not None and self.row is not None:
            size = review.rows[self.row].size
            show_lesion(size.centre_ras, size.long_mm)

    def _about(self) -> str:
        return " ".join(part for part in (self._about_case(), self._about_others()) if part)

    def _about_others(self) -> str:
        """Say in which other cases something was begun and not decided about."""
        cases = ", ".join(self.logic.cases_put_aside)
        text = _("A lesion is being drawn in {cases}: load that case to go on.").format(cases=cases)
        folders = ", ".join(str(folder) for folder in self.logic.projects_put_aside)
        more = _("A lesion is being drawn in a case of {folders}: open that project to go on.")
        return " ".join([text] * bool(cases) + [more.format(folders=folders)] * bool(folders))

    def _no_lesions(self) -> str:
        """Return why the project has no lesions to be listed; empty when it can have some."""
        if self.logic.project is None or self.logic.has_lesions:
            return ""
        return _(
            "No target lies inside another one, so no lesions are listed: decide case by case."
        )

    def _about_case(self) -> str:
        review = self.review
        if review is None:
            return self._no_lesions()
        if self.logic.is_drawing:
            return _("Draw the lesion, or place a prompt on it; then accept or delete it here.")
        text = _count_lesions(review, len(self._visible()))
        if review.otherwise:
            more = _("Shown otherwise than decided about: {lesions}. ")
            text += more.format(lesions=_otherwise(review))
        if self.row is None:
            return text
        lesion = review.rows[self.row]
        where = _("Lesion {number} in {parent}: ").format(number=self.row + 1, parent=lesion.parent)
        return text + where + ("; ".join(lesion.reasons) or _("no doubt noted")) + "."

    def _offer_way_back(self, row: int) -> None:
        """Show a button above the Segment Editor that leads back to the lesion."""
        representation = slicer.modules.segmenteditor.widgetRepresentation()
        if self._back_button is None:
            self._back_button = qt.QPushButton(representation)
            self._back_button.connect("clicked()", _open_panel)
            if representation.layout() is not None:
                representation.layout().insertWidget(0, self._back_button)
        self._back_button.setText(_("Back to lesion {number}").format(number=row + 1))
        self._back_button.setToolTip(_("Take the lesion as it is drawn, and go on."))
        self._back_button.show()


BELOW_CASES = 1
"""Place in the review section: below the list of cases and the rows of buttons about them."""
OPEN = ("pseudo", "needs review", "rejected")
"""States of cases without a label of a person, see `CaseReport`."""


def _otherwise(review: LesionReview) -> str:
    """Name the lesions that are shown otherwise than they were decided about."""
    return review.named(review.otherwise) or str(len(review.otherwise))


def _open_panel() -> None:
    slicer.util.selectModule("ASLseg")


def _count_lesions(review: LesionReview, listed: int) -> str:
    """Say how many lesions are decided about, and what becomes of those that were left out."""
    rejected = len(review.rejected)
    count = listed - rejected
    text = _("{case}: {decided} of {count} lesions decided. ")
    text = text.format(case=review.case_id, decided=count - len(review.undecided), count=count)
    if rejected:
        more = _("The run left out {rejected} more, listed last: accept those that are lesions. ")
        text += more.format(rejected=rejected)
    return text


def _cells(row: int, lesion: ReviewedLesion) -> list[str]:
    agreement = "" if lesion.agreement is None else f"{lesion.agreement:.2f}"
    why = "; ".join(lesion.reasons) or "-"
    undecided = f"? {why}" if lesion.shown else _("left out: {why}").format(why=why)
    return [
        str(row + 1),
        f"{lesion.volume_ml:.2f}",
        f"{lesion.size.long_mm:.0f} x {lesion.size.short_mm:.0f}",
        f"{lesion.mean_hu:.0f}",
        agreement,
        undecided if lesion.state == UNDECIDED else STATES.get(lesion.state, lesion.state),
    ]
