"""Many cases at once: labels exported, and folders of new volumes segmented."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from aslseg.events import Progress
from ASLsegLib.engine.client import AT_WORK, State
from ASLsegLib.parameters import whole_path
from ASLsegLib.scene.volumes import SceneError
from ASLsegLib.widgets.progress import STATES, show_progress
from ASLsegLib.widgets.questions import choose_organ
from ASLsegLib.widgets.section import (
    ROW_PX,
    Section,
    as_plain,
    cannot_open,
    fill_combo,
    no_organ,
    no_whole_path,
    not_installed,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ASLsegLib.engine.client import PanelEvent

LABELS = [
    (_("Final labels (drawn or accepted)"), "accepted"),
    (_("Only drawn or corrected by a person"), "human"),
    (_("All, with AI labels"), "all"),
]
FORMATS = [
    (_("NIfTI"), "nifti"),
    (_("nnU-Net raw data set"), "nnunet"),
    (_("DICOM SEG"), "dicom_seg"),
    (_("Tables only (CSV)"), "tables"),
]
MADE_BY = {
    "given": _("brought in"),
    "drawn": _("drawn"),
    "corrected": _("corrected"),
    "accepted": _("accepted"),
    "ai": _("by AI alone"),
}
FILES_THERE = "filesthere"
"""Kind of the failure that a person can answer by letting files be replaced."""
_CHOICE_GONE = _(
    "The cases that were chosen are not in the project any more: choose others, or all (Ctrl+A)."
)
_OTHER_PROJECT = _("Another project was opened meanwhile; nothing is replaced. Start again.")


class BatchSection(Section):
    """Export cases, segment a folder, and how far that is."""

    shows = ("batch",)

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._progress: Progress | None = None
        self._text = ""
        self._silence = ""
        self._again: Callable[[], None] | None = None
        self._choice_is_gone = False
        self._listed_of: Path | None = None
        ui = self.ui
        ui.exportCasesTable.setColumnCount(1)
        ui.exportCasesTable.horizontalHeader().setVisible(False)
        ui.exportCasesTable.horizontalHeader().setStretchLastSection(True)
        ui.exportCasesTable.verticalHeader().setVisible(False)
        ui.exportCasesTable.verticalHeader().setDefaultSectionSize(ROW_PX)
        fill_combo(ui.exportLabelsSelector, LABELS, LABELS[0][1])
        fill_combo(ui.exportFormatSelector, FORMATS, FORMATS[0][1])
        self.on_click(ui.exportCasesButton, self.export)
        self.on_click(ui.segmentFolderButton, self.segment_folder)
        self.on_click(ui.batchStopButton, self.logic.stop_batch)
        self.on_signal(ui.exportCasesTable, "itemSelectionChanged()", self._choose)
        for edit in (ui.exportFolderEdit, ui.newVolumesEdit, ui.newLabelsEdit, ui.newOrgansEdit):
            self.on_signal(edit, "currentPathChanged(QString)", lambda: None)

    def update(self) -> None:
        """Show what is possible and how far it is."""
        ui, batch, project = self.ui, self.logic.batch, self.logic.project
        self._list_cases()
        can = cannot_open()
        closed = "" if project else _("Open a project first.")
        busy = _("Wait for what is under way, or stop it.") if batch.is_busy else ""
        folder = _no_folder(ui.exportFolderEdit, _("Choose the folder to export to."))
        gone = _CHOICE_GONE if self._choice_is_gone else ""
        self.gate(ui.exportCasesButton, can, closed, folder, gone, busy)
        run = "" if self._run() else _("Train first: no run has a finished round.")
        images = _no_folder(ui.newVolumesEdit, _("Choose the folder of new volumes."))
        labels = _no_folder(ui.newLabelsEdit, _("Choose the folder for label maps."))
        masks = _no_folder(ui.newOrgansEdit, "")
        reasons = (not_installed(), closed, run, images, labels, masks, busy)
        self.gate(ui.segmentFolderButton, *reasons)
        self.gate(ui.newOrgansEdit, closed, no_organ(self.logic))
        ui.batchBar.setVisible(batch.is_busy)
        ui.batchStopButton.setVisible(batch.is_busy)
        stopping = _("It is stopping already.") if batch.state is State.CANCELLING else ""
        self.gate(ui.batchStopButton, stopping)
        self._show_text()

    def on_batch_event(self, event: PanelEvent) -> None:
        """Follow what is under way."""
        if event.event == "progress":
            self._progress, self._silence = event, ""
            show_progress(self.ui.batchBar, event)
        elif event.event in ("silent", "answering"):
            self._silence = event.in_words
        elif event.event == "done":
            self._text = _in_words(event)
        elif event.event == "cancelled":
            self._text = as_plain(event.message)
        elif event.event == "failed" and event.kind == FILES_THERE:
            self._ask_to_replace(event.message)
        if event.event in ("done", "failed", "cancelled"):
            self._progress, self._silence = None, ""
        self._show_text()

    def export(self) -> None:
        """Export the chosen cases, or all."""
        ui = self.ui
        labels = ui.exportLabelsSelector.currentData
        export = partial(
            self.logic.export_project.begin,
            _folder(ui.exportFolderEdit),
            format=ui.exportFormatSelector.currentData,
            labels=labels,
            cases=self._chosen() or None,
            run_id=self._run() if labels == "all" else None,
        )
        asked = self.panel.questions.may_miss
        self._start(
            lambda replace: export(
                replace=replace,
                may_miss=(lambda _: True) if replace else asked,  # was asked then
            )
        )

    def segment_folder(self) -> None:
        """Segment the volumes of the folder with the chosen run, and with organ masks."""
        ui = self.ui
        masks = _folder(ui.newOrgansEdit)
        organ = choose_organ(self.logic.organs(), self.panel.widget) if masks else ""
        if masks and not organ:
            return  # nobody said which organ the masks are of
        segment = partial(
            self.logic.segment_folder.begin,
            _folder(ui.newVolumesEdit),
            _folder(ui.newLabelsEdit),
            self._run(),
            organs={organ: masks} if masks else {},
        )
        self._start(lambda replace: segment(replace=replace))

    def _start(self, work: Callable[[bool], Any]) -> None:
        """Begin work, which can be done again with leave to replace files.

        Args:
            work: Gets whether files may be replaced. It is to know all else beforehand, for
                widgets may show something else when a person is asked.
        """
        project = self.logic.opened()

        def again() -> None:
            if not self.logic.is_open(project):
                raise SceneError(_OTHER_PROJECT)
            work(True)

        self._text, self._again = "", again
        work(False)

    def _ask_to_replace(self, message: str) -> None:
        """Do it again with leave to replace, if a person gives it."""
        again, self._again = self._again, None
        if again is not None and self.panel.questions.may_replace_files(message):
            self.panel.attempt(again)
        else:
            self._text = message

    def _run(self) -> str | None:
        chosen = self.panel.parameters.run if self.panel.parameters else ""
        return self.logic.usable_run(chosen) if self.logic.project else None

    def _chosen(self) -> list[str]:
        """Return the cases that are chosen to be exported."""
        return [item.text() for item in self.ui.exportCasesTable.selectedItems()]

    def _choose(self) -> None:
        """Forget that a choice is gone, when there is another one."""
        self._choice_is_gone = False

    def _list_cases(self) -> None:
        """List the cases; those that are chosen stay so, also one that was renamed.

        Where none of them is left, all would be exported: another choice is asked for. Of another
        project nothing is chosen yet.
        """
        table, project = self.ui.exportCasesTable, self.logic.project
        names = [case.id for case in project.cases] if project else []
        folder = project.folder if project else None
        before = [table.item(row, 0).text() for row in range(table.rowCount)]
        if (folder, names) == (self._listed_of, before):
            return
        chosen = self._chosen() if folder == self._listed_of else []
        others = [pair for pair in zip(before, names, strict=False) if pair[0] != pair[1]]
        if len(before) == len(names) and len(others) == 1:
            chosen = [dict(others).get(name, name) for name in chosen]
        was = table.blockSignals(True)
        table.clearSelection()
        table.setRowCount(len(names))
        for row, name in enumerate(names):
            table.setItem(row, 0, qt.QTableWidgetItem(name))
            table.item(row, 0).setSelected(name in chosen)
        table.blockSignals(was)
        self._listed_of = folder
        self._choice_is_gone = bool(chosen) and bool(names) and not set(chosen) & set(names)

    def _show_text(self) -> None:
        state = self.logic.batch.state
        text = self._text
        if state in (*AT_WORK, State.CANCELLING):
            task = self._progress.task if self._progress else ""
            text = self._silence or (STATES[state] if not task or state not in AT_WORK else task)
        self.ui.batchLabel.setVisible(bool(text))
        self.ui.batchLabel.setText(text)


def _folder(edit: Any) -> str:
    """Return the folder that is typed; empty where there is none."""
    return str(whole_path(edit.currentPath) or "")


def _no_folder(edit: Any, missing: str) -> str:
    """Return why the typed folder cannot be used, `missing` where there is none."""
    return no_whole_path(str(edit.currentPath), missing)


def _in_words(event: Any) -> str:
    """Say what an export or a folder has come to."""
    from aslseg.engine.facts import ExportFacts

    facts = event.facts
    if isinstance(facts, ExportFacts):
        counts = [f"{number} {MADE_BY[made_by]}" for made_by, number in facts.label_maps.items()]
        text = _("{count} labels exported ({counts}).")
        first = text.format(count=sum(facts.label_maps.values()), counts=", ".join(counts))
        return "\n".join([first, *facts.notes])
    text = _("{done} volumes segmented, {skipped} were done already.")
    lines = [text.format(done=len(facts.done), skipped=len(facts.skipped))]
    failed = _("Not segmented: {name}: {reason}")
    lines += [failed.format(name=name, reason=reason) for name, reason in facts.failed.items()]
    return "\n".join(lines)
