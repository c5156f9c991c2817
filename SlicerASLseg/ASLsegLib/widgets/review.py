"""Review: cases one after the other, one decision each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from ASLsegLib.scene.case_nodes import case_of
from ASLsegLib.scene.shown_volume import require_in_views
from ASLsegLib.widgets.section import (
    MESSAGE_MS,
    Section,
    cannot_open,
    cell,
    fill_table,
    open_in_segment_editor,
    shortened,
)
from ASLsegLib.widgets.seen import require_seen

if TYPE_CHECKING:
    from ASLsegLib.engine.client import PanelEvent

HEAD = [_("Case"), _("Lesions (ml)"), _("Reliability"), _("Decision")]
MOST_NAMED = 5
"""So many cases that are unlike the labelled ones are named."""
DECISIONS = {"accepted": _("accepted"), "corrected": _("corrected"), "rejected": _("rejected")}


class ReviewSection(Section):
    """Next, accept, reject, correct."""

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._cases: list[Any] = []
        self._decided_at: int | None = None
        self._left = ""
        self._seen = self._chosen_for = ""
        self._at_end = ""
        ui = self.ui
        for button, action in (
            (ui.previousButton, self._previous),
            (ui.nextButton, self._next),
            (ui.acceptButton, self._accept),
            (ui.rejectButton, self._reject),
            (ui.correctButton, self._correct),
        ):
            self.on_click(button, action)
        self.on_signal(ui.reviewTable, "itemSelectionChanged()", self._nothing)
        self.on_signal(ui.reviewTable, "cellDoubleClicked(int,int)", self._load)
        self.on_return(ui.reviewTable, self._load)
        self.logic.project_changed.connect(self._show_cases)
        self.panel.next_case_wanted.connect(self._next)

    @property
    def case_id(self) -> str:
        """The case that is chosen in the table; empty when none is."""
        return cell(self.ui.reviewTable)

    @property
    def open_case(self) -> str:
        """The case that is shown, and that alone is decided about; empty when none is."""
        return case_of(self.panel.volume, self.logic.project)

    def update(self) -> None:
        """Show what is possible; the heading names the case that the buttons are about."""
        ui, shown = self.ui, self.open_case
        self.logic.order_review("doubtful" if self.panel.parameters.doubtfulFirst else "least")
        if self._left and shown not in ("", self._left):
            left, self._left = self._left, ""
            self.logic.release_case(left)
        self._choose_shown(shown)
        self._read_next(shown)
        can = cannot_open()
        cases = "" if self._cases else self._why_empty()
        busy = _("Files are being read; wait.") if self.logic.background.is_busy else ""
        no_label = "" if self._refined else _("No final label of this case is in the scene.")
        for button in (ui.previousButton, ui.nextButton):
            self.gate(button, can, cases, busy)
        for button in (ui.acceptButton, ui.correctButton):
            self.gate(button, can, cases, self._not_open(), no_label, busy)
        self.gate(ui.rejectButton, can, cases, self._not_open(), self._is_labelled(), busy)
        title = _("Whole case: {case}").format(case=shortened(shown)) if shown else _("Whole case")
        ui.caseGroup.setTitle(title)
        ui.reviewLabel.setText(self._about())

    @property
    def _refined(self) -> Any | None:
        return self.logic.refined_node(self.open_case) if self.open_case else None

    def _not_open(self) -> str:
        """Return why nothing can be decided: what is chosen has to be what is shown."""
        if self.open_case and self._row_of(self.open_case) is None:
            text = _(
                "{case}, which is shown, is not in this list: press 'Save as label' (section "
                "Cases) to keep what is shown of it."
            )
            return text.format(case=self.open_case)
        if not self.case_id:
            text = _("Choose the row of {case}, which is shown, or press Next.")
            choose = _("Choose a case, or press Next.")
            return text.format(case=self.open_case) if self.open_case else choose
        if self.case_id == self.open_case:
            return ""
        text = _("Load {case} first: double-click its row.")
        return text.format(case=self.case_id)

    def _is_labelled(self) -> str:
        row = self._row_of(self.open_case)
        state = "" if row is None else self._cases[row].state
        is_labelled = state in ("accepted", "corrected", "incomplete")
        return _("The case has a label; undo that decision first.") if is_labelled else ""

    def on_training_event(self, event: PanelEvent) -> None:
        """Look for new cases when a round is over."""
        if event.event in ("artifact", "done", "cancelled"):
            self._show_cases()

    def _why_empty(self) -> str:
        if self.logic.project is None:
            return _("Open a project first.")
        return _("Nothing to review: train first, then the unlabelled cases come here.")

    def _show_cases(self) -> None:
        """List the cases; where one is decided about now, note where the next one moves up to."""
        row = self._row_of(self.open_case)
        was_open = row is not None and self._cases[row].state not in DECISIONS
        before = self._cases
        self._cases = self.logic.review_queue() if self.logic.project is not None else []
        if self._cases != before:
            self._at_end = ""
        now = self._row_of(self.open_case)
        if was_open and now is not None and self._cases[now].state in DECISIONS:
            self._decided_at = row
        rows = [[one.case_id, _expected(one), _score(one), _decision(one)] for one in self._cases]
        fill_table(self.ui.reviewTable, HEAD, rows)

    def _about(self) -> str:
        if not self._cases:
            return self._why_empty()
        left = sum(case.state not in DECISIONS for case in self._cases)
        time = self.logic.review_time_left()
        text = _("{left} of {count} cases have no decision yet.")
        if left and time:
            text = _("{left} of {count} cases have no decision yet: {time} at your pace.")
        text = text.format(left=left, count=len(self._cases), time=time)
        return f"{text} {self._at_end}".rstrip() + self._unlike()

    def _unlike(self) -> str:
        """Name the cases that wait and are unlike the labelled ones, whatever their turn."""
        names = [one.case_id for one in self._cases if one.notes and one.state not in DECISIONS]
        if not names:
            return ""
        shown, more = ", ".join(names[:MOST_NAMED]), len(names) - MOST_NAMED
        text = _("Unlike the labelled cases, so more likely wrong: {cases}.")
        if more > 0:
            text = _("Unlike the labelled cases, so more likely wrong: {cases} and {more} more.")
        return "\n" + text.format(cases=shown, more=more)

    def _nothing(self) -> None:
        """Only let the panel show what is possible now."""

    def _move(self, step: int) -> None:
        """Go to the next case without a decision, from the place of the case that is shown."""
        following = self._following(step)
        self._decided_at = None
        self._say_where_it_ends(following, step)
        self._left = self.open_case
        self.ui.reviewTable.selectRow(following)
        self._load()

    def _say_where_it_ends(self, following: int, step: int) -> None:
        """Say that no case without a decision follows the one that is shown."""
        self._at_end = ""
        shown, goal = self.open_case, self._cases[following]
        if not shown or (goal.state not in DECISIONS and goal.case_id != shown):
            return
        left = [one.case_id for one in self._cases if one.state not in DECISIONS]
        text = _("No case after {case} waits for a decision.")
        if left == [shown]:
            text = _("{case} is the last case without a decision.")
        elif step < 0:
            text = _("No case before {case} waits for a decision.")
        self._at_end = text.format(case=shown)
        slicer.util.showStatusMessage(self._at_end, MESSAGE_MS)

    def _following(self, step: int) -> int:
        """Return the row of the next case without a decision; that at the end if there is none.

        It follows the case that is shown, or the chosen row where that case is not listed.
        """
        here = self._row_of(self.open_case)
        if here is None:
            here = self._row_of(self.case_id)
        goes_on = here is not None and self._cases[here].state in DECISIONS and step > 0
        if here is None:
            here = -1 if step > 0 else len(self._cases)
        elif goes_on and self._decided_at is not None:
            here = self._decided_at - 1  # the next one has moved up to its place
        rows = [*range(here + step, len(self._cases) if step > 0 else -1, step)]
        if goes_on:
            rows += range(len(self._cases))  # those that were left out before
        undecided = [n for n in rows if self._cases[n].state not in DECISIONS]
        return undecided[0] if undecided else min(max(here + step, 0), len(self._cases) - 1)

    def _choose_shown(self, shown: str) -> None:
        """Choose the row of a case that has come, wherever it was opened."""
        if shown == self._chosen_for:
            return
        row = self._row_of(shown)
        self._chosen_for = "" if row is None else shown
        if row is not None and self.case_id != shown:
            self.ui.reviewTable.selectRow(row)

    def _read_next(self, shown: str) -> None:
        """Let the case after the one that has come be read while this one is looked at."""
        if shown == self._seen or self.logic.background.is_busy or self._row_of(shown) is None:
            return
        self._seen = shown
        following = self._cases[self._following(1)]
        if following.state not in DECISIONS:
            self.logic.read_ahead(following.case_id)

    def _row_of(self, case_id: str) -> int | None:
        rows = [row for row, one in enumerate(self._cases) if one.case_id == case_id]
        return rows[0] if rows else None

    def _previous(self) -> None:
        self._move(-1)

    def _next(self) -> None:
        self._move(1)

    def _load(self) -> None:
        if self.case_id:
            self.panel.case_chosen.emit(self.case_id)

    def _accept(self) -> None:
        require_seen(self.panel, self._refined)
        self.logic.accept.begin(self.open_case, questions=self.panel.questions.before_saving)

    def _reject(self) -> None:
        require_in_views(self.panel.volume)
        self.logic.reject(self.open_case)

    def _correct(self) -> None:
        open_in_segment_editor(self._refined, self.panel.volume)


def _score(report: Any) -> str:
    return "" if report.score is None else f"{report.score:.2f}"


def _expected(report: Any) -> str:
    return "" if report.lesion_ml is None else f"{report.lesion_ml:.1f}"


def _decision(report: Any) -> str:
    """Return what was decided, or why the case needs a look."""
    if report.state == "incomplete":
        return _("? no slice of its label counts")
    return DECISIONS.get(report.state) or f"? {report.reason or '-'}"
