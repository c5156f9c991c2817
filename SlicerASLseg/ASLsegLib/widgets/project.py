"""The project: its folder, its cases, and what is known about each of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from aslseg.errors import AslsegError
from ASLsegLib import parameters, sample_data
from ASLsegLib.logic import project_data as projects
from ASLsegLib.logic.export import volume_of_label
from ASLsegLib.scene.case_nodes import case_of
from ASLsegLib.widgets.section import (
    Section,
    cannot_open,
    cell,
    fill_combo,
    fill_table,
    no_whole_path,
    shortened,
)
from ASLsegLib.widgets.seen import require_seen

if TYPE_CHECKING:
    from aslseg.project.case import Case
    from aslseg.project.case_reports import CaseReport
    from ASLsegLib.engine.client import PanelEvent

HEAD = [_("Case"), _("State"), _("Used to"), _("Reliability"), _("Patient"), _("Date")]
STATES = {
    "labelled": _("labelled"),
    "unlabelled": _("unlabelled"),
    "pseudo": _("AI label (used)"),
    "accepted": _("accepted"),
    "corrected": _("corrected"),
    "needs review": _("AI label (check)"),
    "rejected": _("rejected"),
    "incomplete": _("no complete slice"),
}
SPLITS = {"train": _("learn from"), "validation": _("check on"), "test": _("test at the end")}


def _state(report: CaseReport, case: Case) -> str:
    """Return how a case stands, and of how many slices its label is where some alone count."""
    if not case.complete_slices:
        return STATES[report.state]
    count = len(case.complete_slices)
    text = _("{state} (1 slice)") if count == 1 else _("{state} ({count} slices)")
    return text.format(state=STATES[report.state], count=count)


class ProjectSection(Section):
    """Open and fill a project."""

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._shown: list[Any] = []
        self._stale = True
        self._remembered = ""
        ui = self.ui
        for button, action in (
            (ui.openProjectButton, self._open),
            (ui.demoButton, self._demo),
            (ui.addVolumeButton, self._add_volume),
            (ui.addDicomButton, self._open_dicom),
            (ui.loadCaseButton, self._load_case),
            (ui.saveLabelButton, self._save_label),
        ):
            self.on_click(button, action)
        self.on_signal(ui.projectFolderEdit, "currentPathChanged(QString)", self._folder_typed)
        self.on_signal(ui.casesTable, "itemSelectionChanged()", self._nothing)
        self.on_signal(ui.casesTable, "cellDoubleClicked(int,int)", self._load_case)
        self.on_return(ui.casesTable, self._load_case)
        self.on_signal(ui.splitBox, "activated(int)", self._set_split)
        self.logic.project_changed.connect(self._project_changed)

    @property
    def case_id(self) -> str:
        """The chosen case; empty when none is chosen."""
        return cell(self.ui.casesTable)

    def update(self) -> None:
        """Show the cases and which actions are possible."""
        self._show_folder()
        if self._stale:
            self._show_cases()
        ui, project = self.ui, self.logic.project
        can = cannot_open()
        busy = _("Files are being read; wait.") if self.logic.background.is_busy else ""
        closed = "" if project else _("Open or make a project first.")
        case = "" if self.case_id else _("Choose a case in the table.")
        volume = "" if self.panel.volume else _("Choose a volume under Review > Volume.")
        folder = self._no_folder()
        self.gate(ui.openProjectButton, can, folder, busy)
        for button in (ui.newProjectButton, ui.demoButton):
            self.gate(button, can, busy)
        self.gate(ui.addVolumeButton, can, closed, volume, busy)
        self.gate(ui.addCasesButton, can, closed, busy)
        self.gate(ui.loadCaseButton, can, closed, case, busy)
        self.gate(ui.splitBox, can, closed, case, busy)
        self.gate(ui.saveLabelButton, can, closed, self._no_label(), busy)
        save = _("Save as label of {case}") if self._label_case else _("Save as label")
        ui.saveLabelButton.setText(save.format(case=shortened(self._label_case)))
        self._show_split()

    def on_training_event(self, event: PanelEvent) -> None:
        """Read the cases again when a round is over."""
        if event.event in ("artifact", "done", "cancelled", "failed"):
            self._stale = True

    @property
    def _folder(self) -> Path | None:
        return parameters.project_folder(self.panel.parameters)

    def _remember_folder(self) -> None:
        """Let the folder of the open project be offered in the field's list, also next time."""
        edit = self.ui.projectFolderEdit
        if edit.currentPath == self._remembered:
            return
        self._remembered = edit.currentPath
        was = edit.blockSignals(True)  # other entries pass through the field meanwhile
        edit.addCurrentPathToHistory()
        edit.blockSignals(was)

    def _no_folder(self) -> str:
        """Return why the folder cannot be used; empty when it can."""
        return no_whole_path(self.panel.parameters.projectFolder, _("Choose a folder above."))

    def _folder_typed(self) -> None:
        if self.panel.parameters is not None:
            self.panel.parameters.projectFolder = self.ui.projectFolderEdit.currentPath

    def _show_folder(self) -> None:
        """Show what the scene remembers; what a person is typing stays as it is."""
        edit, text = self.ui.projectFolderEdit, self.panel.parameters.projectFolder
        if edit.currentPath != text:
            edit.currentPath = text

    def _project_changed(self) -> None:
        self._stale = True
        project = self.logic.project
        if project is None or self.panel.parameters is None:
            return
        self.panel.parameters.projectFolder = str(project.folder)
        self._show_folder()
        self._remember_folder()

    def _show_cases(self) -> None:
        self._stale = False
        project = self.logic.project
        self._shown = [] if project is None else self.logic.case_reports()
        rows = [
            [
                row.case_id,
                _state(row, case),
                SPLITS[row.split],
                "" if row.score is None else f"{row.score:.2f}",
                case.patient,
                projects.date_of(row),
            ]
            for case, row in zip(() if project is None else project.cases, self._shown, strict=True)
        ]
        fill_table(self.ui.casesTable, HEAD, rows)
        self.ui.casesSummaryLabel.setText(self._summary())

    def _summary(self) -> str:
        if self.logic.project is None:
            return _("No project is open. Choose a folder and press Open, or press New.")
        count = {state: sum(row.state == state for row in self._shown) for state in STATES}
        parts = [f"{number} {STATES[state]}" for state, number in count.items() if number]
        text = _("{count} cases: {parts}.") if parts else _("The project has no cases yet.")
        return text.format(count=len(self._shown), parts=", ".join(parts))

    def _show_split(self) -> None:
        row = next((row for row in self._shown if row.case_id == self.case_id), None)
        entries = [(text, name) for name, text in SPLITS.items()]
        fill_combo(self.ui.splitBox, entries, row.split if row else "train")

    @property
    def _label_case(self) -> str:
        """The case on whose volume the chosen segmentation was drawn; empty when there is none."""
        node = self.panel.parameters.labelSegmentation
        try:
            volume = None if node is None else volume_of_label(node)
        except AslsegError:
            return ""
        return case_of(volume, self.logic.project)

    def _no_label(self) -> str:
        """Return why the chosen segmentation cannot be saved as a label; empty when it can."""
        node = self.panel.parameters.labelSegmentation
        if node is None:
            return _("Choose a segmentation.")
        if self._label_case:
            return ""
        text = _(
            "{name} was not drawn on a case of this project. Load the case from the table or add "
            "the volume, and choose that volume as source in the Segment Editor."
        )
        return text.format(name=node.GetName())

    def _nothing(self) -> None:
        """Only let the panel show what is possible now."""

    def _open(self) -> None:
        if self._folder is not None:
            self.logic.open_project(self._folder)

    def _demo(self) -> None:
        folder = self._folder
        if folder is None or (folder.exists() and any(folder.iterdir())):
            folder = sample_data.demo_folder()
        parameters.choose_preset(self.panel.parameters, "demo")
        self.logic.create_phantom_project.begin(folder)

    def _add_volume(self) -> None:
        self.logic.add_volume.begin(self.panel.volume)

    def _open_dicom(self) -> None:
        slicer.util.selectModule("DICOM")

    def _load_case(self) -> None:
        if self.case_id:
            self.panel.case_chosen.emit(self.case_id)

    def _save_label(self) -> None:
        node = self.panel.parameters.labelSegmentation
        require_seen(self.panel, node, is_saved=True)
        self.logic.save_label.begin(
            node, self._label_case, questions=self.panel.questions.before_saving
        )

    def _set_split(self) -> None:
        """Change what the chosen case is for, with the other volumes of its patient."""
        case_id, split = self.case_id, self.ui.splitBox.currentData
        cases = self.logic.same_patient(case_id)
        if len(cases) > 1 and not self.panel.questions.may_change_patient(cases, SPLITS[split]):
            self._show_split()
            return
        self.logic.set_split(case_id, split, whole_patient=True)
