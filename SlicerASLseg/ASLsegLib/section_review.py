"""Review: cases in order of need, one decision each, the last one can be undone."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from ASLsegLib import requirements
from ASLsegLib.review_pick import show_case
from ASLsegLib.section import Section, cell, fill_table
from ASLsegLib.voices import find_voice

HEAD = [_("Case"), _("Reliability"), _("Decision"), _("Why it needs a look")]
DECISIONS = {"accepted": _("accepted"), "corrected": _("corrected"), "rejected": _("rejected")}


class ReviewSection(Section):
    """Next, accept, reject, correct, undo."""

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._cases: list[Any] = []
        ui = self.ui
        for button, action in (
            (ui.previousButton, self._previous),
            (ui.nextButton, self._next),
            (ui.acceptButton, self._accept),
            (ui.rejectButton, self._reject),
            (ui.correctButton, self._correct),
            (ui.undoButton, self._undo),
        ):
            self.on_click(button, action)
        self.on_signal(ui.reviewTable, "itemSelectionChanged()", self._nothing)
        self.on_signal(ui.reviewTable, "cellDoubleClicked(int,int)", self._load)
        self.logic.project_changed.connect(self._show_cases)

    @property
    def case_id(self) -> str:
        """The case that is decided about; empty when none is chosen."""
        return cell(self.ui.reviewTable)

    def update(self) -> None:
        """Show what is possible."""
        ui = self.ui
        can = "" if requirements.can_open_projects() else self.panel.missing
        cases = "" if self._cases else self._why_empty()
        chosen = "" if self.case_id else _("Choose a case, or press Next.")
        volume = self.logic.case_node(self.case_id) if self.case_id else None
        refined = find_voice(volume, "refined") if volume else None
        shown = "" if refined else _("Load the case first: press Next or double-click its row.")
        busy = _("Files are being read; wait.") if self.logic.background.is_busy else ""
        nothing = "" if self.logic.last_decision() else _("There is no decision to take back.")
        for button in (ui.previousButton, ui.nextButton):
            self.gate(button, can, cases, busy)
        for button in (ui.acceptButton, ui.correctButton):
            self.gate(button, can, cases, chosen, shown, busy)
        self.gate(ui.rejectButton, can, cases, chosen, busy)
        self.gate(ui.undoButton, can, nothing, busy)
        ui.reviewLabel.setText(self._about())

    def hear_training(self, event: dict[str, Any]) -> None:
        """Look for new cases when a round is over."""
        if event.get("event") in ("artifact", "done", "cancelled"):
            self._show_cases()

    def _why_empty(self) -> str:
        if self.logic.project is None:
            return _("Open a project first.")
        return _("Nothing to review: train first, then the unlabelled cases come here.")

    def _show_cases(self) -> None:
        self._cases = self.logic.review_queue() if self.logic.project is not None else []
        rows = [
            [one.case_id, _score(one), DECISIONS.get(one.state, "-"), _reason(one)]
            for one in self._cases
        ]
        fill_table(self.ui.reviewTable, HEAD, rows)

    def _about(self) -> str:
        if not self._cases:
            return self._why_empty()
        left = sum(case.state not in DECISIONS for case in self._cases)
        text = _("{left} of {count} cases have no decision yet; the most doubtful come first.")
        return text.format(left=left, count=len(self._cases))

    def _nothing(self) -> None:
        """Only let the panel show what is possible now."""

    def _move(self, step: int) -> None:
        row = self.ui.reviewTable.currentRow()
        here = row if row >= 0 else (-1 if step > 0 else len(self._cases))
        rows = range(here + step, len(self._cases) if step > 0 else -1, step)
        undecided = [n for n in rows if self._cases[n].state not in DECISIONS]
        following = undecided[0] if undecided else min(max(here + step, 0), len(self._cases) - 1)
        self.ui.reviewTable.selectRow(following)
        self._load()

    def _previous(self) -> None:
        self._move(-1)

    def _next(self) -> None:
        self._move(1)

    def _load(self) -> None:
        if self.case_id:
            show_case(self.panel, self.case_id)

    def _accept(self) -> None:
        self.logic.accept(self.case_id, wait=False)

    def _reject(self) -> None:
        self.logic.reject(self.case_id)

    def _undo(self) -> None:
        self.logic.undo_decision()

    def _correct(self) -> None:
        volume = self.logic.case_node(self.case_id)
        open_in_segment_editor(find_voice(volume, "refined"), volume)


def _score(report: Any) -> str:
    return "" if report.score is None else f"{report.score:.2f}"


def _reason(report: Any) -> str:
    return "" if report.state in DECISIONS else report.reason


def open_in_segment_editor(segmentation: Any, volume: Any) -> None:
    """Open the Segment Editor with a segmentation and its volume."""
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume)
