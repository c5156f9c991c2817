"""The dialog in which a project is planned and made, or cases are added to one.

Nothing is written before *Create*. What is typed is checked by the same functions as the command
line's; what is wrong is marked in its cell and said below the table, with the remedy.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from aslseg.errors import AslsegError, CancelledError
from aslseg.events import Event, Progress
from ASLsegLib.paths import PROJECT_FILE, resource
from ASLsegLib.scene.terminology import as_color, style_of
from ASLsegLib.widgets.dicom_source import DicomSource
from ASLsegLib.widgets.plan_tables import (
    CASE_COLUMNS,
    CASE_HEAD,
    TARGET_COLUMNS,
    TARGET_HEAD,
    PlanTable,
    case_tip,
    show_cases,
    show_choices,
    show_colors,
    show_targets,
)
from ASLsegLib.widgets.project import SPLITS
from ASLsegLib.widgets.section import Section, as_plain, fill_combo

if TYPE_CHECKING:
    from aslseg.project.plan import Plan
    from aslseg.project.problem import Problem
    from aslseg.project.project import Project
    from aslseg.project.target_table import TargetRow

SIZE_PX = (640, 760)
_MOST_ALIKE = 3


class NewProjectDialog(Section):
    """Plans a project, shows what is wrong with it, and makes it.

    Attributes:
        plan: What would be made now; None while the dialog is closed.
        dialog: Its window; None before it is first opened.
    """

    shows = ()

    def connect_widgets(self) -> None:
        """Connect what opens the dialog; its own widgets are loaded when it is first opened."""
        self.plan: Plan | None = None
        self.dialog: Any = None
        self._problems: list[Problem] = []
        self.logic.background.event.connect(self._show_progress)
        self.on_click(self.panel.ui.newProjectButton, self.open_new)
        self.on_click(self.panel.ui.addCasesButton, self.open_additions)

    def open_new(self) -> None:
        """Plan a new project, in the folder that is typed in the panel unless one is there."""
        from aslseg.project.plan import Plan

        typed = self.panel.parameters.projectFolder.strip()
        folder = Path(typed).expanduser() if typed else Path()
        is_taken = (folder / PROJECT_FILE).exists() or not folder.is_absolute()
        self._open(Plan(Path() if is_taken else folder), _("New project"), _("Create &project"))

    def open_additions(self) -> None:
        """Plan cases for the open project, and other colours of its targets."""
        from aslseg.project.plan import empty_additions

        plan = empty_additions(self.logic.opened())
        self._open(plan, _("Cases and targets"), _("Change &project"))

    def _show_progress(self, event: Event) -> None:
        """Show how far reading and writing have come."""
        if self.plan is not None and isinstance(event, Progress):
            text = _("{task}: {step} of {of}")
            shown = text.format(task=event.task.capitalize(), step=event.step, of=event.of)
            self.ui.summaryLabel.setText(shown)

    def update(self) -> None:
        """Show which actions are possible now."""
        if self.plan is not None:
            self._gate()

    def forget_scene(self) -> None:
        """Leave out what came from the scene that is closed."""
        from ASLsegLib.logic.scene_cases import is_of_scene

        if self.plan is None:
            return
        kept = [case for case in self.plan.cases if not is_of_scene(case.image)]
        cases = tuple(
            replace(case, label=None)
            if case.label is not None and is_of_scene(case.label)
            else case
            for case in kept
        )
        self._show_plan(replace(self.plan, cases=cases))

    def close(self) -> None:
        """Close the window for good."""
        self.plan = None
        if self.dialog is not None:
            self.dialog.hide()
            self.dialog.deleteLater()
            self.dialog = None

    # -- the window ----------------------------------------------------------------------------

    def _open(self, plan: Plan, title: str, verb: str) -> None:
        if self.dialog is None:
            self._load()
        ui, is_new = self.ui, plan.project is None
        self.dialog.setWindowTitle(title)
        ui.createButton.setText(verb)
        for edit in (ui.volumesEdit, ui.labelsEdit, ui.masksEdit):
            edit.currentPath = ""
        self.plan = None  # what the next line lets be typed is no change of a plan
        ui.folderEdit.currentPath = str(plan.folder) if plan.folder.is_absolute() else ""
        ui.folderEdit.setEnabled(is_new)
        for label in (ui.sourceProblemLabel, ui.alikeLabel):
            label.setText("")
        self._dicom.hide()
        self._show_plan(plan)
        self.dialog.show()
        self.dialog.raise_()
        self.dialog.activateWindow()

    def _load(self) -> None:
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.resize(*SIZE_PX)
        content = slicer.util.loadUI(str(resource("UI", "ASLsegNewProject.ui")))
        layout = qt.QVBoxLayout(self.dialog)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(content)
        self.ui = ui = slicer.util.childWidgetVariables(content)
        self._cases = PlanTable(ui.casesTable, CASE_HEAD, CASE_COLUMNS, self._case_typed)
        self._targets = PlanTable(ui.targetsTable, TARGET_HEAD, TARGET_COLUMNS, self._target_typed)
        self._dicom = DicomSource(ui)
        fill_combo(ui.roleBox, [(text, name) for name, text in SPLITS.items()], "train")
        same_size = [
            (_("Same size, other position: refuse"), "refuse"),
            (_("take their voxels as those of the volume"), "voxels"),
            (_("go by their position"), "header"),
        ]
        fill_combo(ui.sameSizeBox, same_size, "refuse")
        self._connect(ui)

    def _connect(self, ui: Any) -> None:
        for button, action in (
            (ui.findButton, self._find),
            (ui.sceneButton, self._add_scene),
            (ui.dicomButton, self._show_dicom),
            (ui.dicomAddButton, self._add_dicom),
            (ui.dicomImportButton, lambda: slicer.util.selectModule("DICOM")),
            (ui.masksButton, self._find_masks),
            (ui.labelButton, self._choose_label),
            (ui.noLabelButton, self._remove_labels),
            (ui.compareButton, self._compare),
            (ui.leaveOutButton, self._leave_out),
            (ui.leaveOutUnpairedButton, self._leave_out_unpaired),
            (ui.addTargetButton, self._add_target),
            (ui.removeTargetButton, self._remove_target),
            (ui.colorButton, self._choose_color),
            (ui.createButton, self._create),
            (ui.cancelButton, self._cancel),
        ):
            self.on_click(button, action)
        self.on_signal(self.dialog, "rejected()", self._leave)
        self.on_signal(ui.folderEdit, "currentPathChanged(QString)", self._folder_typed)
        for edit in (ui.volumesEdit, ui.labelsEdit, ui.masksEdit):
            self.on_signal(edit, "currentPathChanged(QString)", self._gate)
        self.on_signal(ui.dicomFilterEdit, "textChanged(QString)", self._filter_dicom)
        self.on_signal(ui.dicomTable, "itemSelectionChanged()", self._gate)
        self.on_signal(ui.roleBox, "activated(int)", self._set_role)
        self.on_signal(ui.sameSizeBox, "activated(int)", self._set_same_size)
        for table in (ui.casesTable, ui.targetsTable):
            self.on_signal(table, "itemSelectionChanged()", self._check)

    def _gate(self) -> None:
        """Enable what is possible, and say of the rest why it is not."""
        plan, ui = self.plan, self.ui
        if plan is None:
            return
        busy = _("Files are being read; wait, or cancel.") if self.logic.background.is_busy else ""
        source = "" if ui.volumesEdit.currentPath.strip() else _("Choose a folder of volumes.")
        case = "" if self._chosen_cases() else _("Choose a case in the table.")
        row = "" if self._cases.chosen_rows() else _("Choose a row in the table.")
        fixed = "" if plan.project is None else _("The targets of a project are there already.")
        target = "" if self._targets.chosen_rows() else _("Choose a target in the table.")
        wrong = self._problems[0].message if self._problems else ""
        self.gate(ui.findButton, source, busy)
        self.gate(ui.sceneButton, busy)
        series = "" if self._dicom.chosen else _("Choose one series or more in the list.")
        self.gate(ui.dicomAddButton, series, busy)
        self._gate_masks(busy)
        for widget in (ui.labelButton, ui.noLabelButton, ui.roleBox):
            self.gate(widget, case, busy)
        several = "" if len(plan.cases) > 1 else _("There are no two volumes to compare.")
        self.gate(ui.compareButton, several, busy)
        self.gate(ui.leaveOutButton, row, busy)
        self.gate(ui.addTargetButton, fixed)
        self.gate(ui.removeTargetButton, fixed, target)
        self.gate(ui.colorButton, target)
        self.gate(ui.createButton, wrong, busy)
        ui.leaveOutUnpairedButton.setVisible(bool(plan.unpaired))
        ui.sameSizeBox.setVisible(self._asks_about_size())

    def _gate_masks(self, busy: str) -> None:
        """Offer the organs of which masks can be given: targets that contain others."""
        ui, rows = self.ui, self._planned.targets
        organs = list(dict.fromkeys(row.inside for row in rows if row.inside))
        entries = [(_("of {organ}").format(organ=name), name) for name in organs]
        fill_combo(ui.organBox, entries, ui.organBox.currentData or "")
        organ = "" if organs else _("No target lies inside another; choose so in the lower table.")
        folder = "" if ui.masksEdit.currentPath.strip() else _("Choose a folder of organ masks.")
        cases = "" if self._planned.cases else _("Find cases first.")
        self.gate(ui.organBox, organ)
        self.gate(ui.masksButton, organ, folder, cases, busy)

    # -- what is shown -------------------------------------------------------------------------

    def _show_plan(self, plan: Plan) -> None:
        """Show a plan with other rows than before."""
        from aslseg.project.plan import patients_of

        self.plan = plan = self._with_styles(plan)
        show_cases(self._cases, plan, SPLITS, patients_of(plan))
        show_targets(self._targets, plan.targets, editable=plan.project is None)
        self._check()

    def _changed(self, plan: Plan) -> None:
        """Take over what was typed; the rows are those of before."""
        self.plan = plan
        self._check()

    def _check(self) -> None:
        """Mark what is wrong, and say it below its table."""
        plan, ui = self.plan, self.ui
        if plan is None:
            return
        self._problems = problems = _problems_of(plan)
        cases = [(p.row, p.column, p.message) for p in problems if p.place == "case"]
        first = len(plan.cases)
        cases += [(first + p.row, "label", p.message) for p in problems if p.place == "unpaired"]
        shown = self._cases.mark(cases, lambda row, column: case_tip(plan, row, column))
        ui.casesProblemLabel.setText(self._with_count(shown, len(cases)))
        targets = [p for p in problems if p.place == "target"]
        rows = [(p.row, p.column, p.message) for p in targets]
        shown = self._targets.mark(rows, lambda _row, _column: "")
        show_colors(self._targets, plan.targets, targets)
        whole = next((p.message for p in problems if p.place == "targets"), "")
        ui.targetsProblemLabel.setText(self._with_count(shown or whole, len(rows)))
        folder = next((p.message for p in problems if p.place == "folder"), "")
        ui.folderProblemLabel.setText(folder)
        for label in (ui.folderProblemLabel, ui.casesProblemLabel, ui.targetsProblemLabel):
            label.setVisible(bool(label.text))
        for label in (ui.sourceProblemLabel, ui.alikeLabel):
            label.setVisible(bool(label.text))
        ui.summaryLabel.setText(self._summary())
        self._gate()

    @staticmethod
    def _with_count(message: str, count: int) -> str:
        if count < 2:
            return message
        return _("{message} ({count} problems in this table)").format(message=message, count=count)

    def _summary(self) -> str:
        """Say what would be made."""
        from aslseg.project.plan import patients_of, plan_notes

        plan = self.plan
        if plan is None or not plan.cases:
            return _("Choose where the volumes are, and press Find cases.")
        labelled = sum(case.label is not None for case in plan.cases)
        parts = [
            _("{count} to {use}").format(
                count=sum(case.split == name for case in plan.cases), use=text
            )
            for name, text in SPLITS.items()
            if any(case.split == name for case in plan.cases)
        ]
        text = _("{cases} cases of {patients} patients, {labelled} with a label map: {parts}.")
        named = {"cases": len(plan.cases), "patients": len(set(patients_of(plan)))}
        text = text.format(**named, labelled=labelled, parts=", ".join(parts))
        apart = len(plan.targets) > 1 and not any(row.inside for row in plan.targets)
        if apart and plan.project is None:
            text += " " + _(
                "No target lies inside another: if a tumour lies in an organ, choose so under "
                "'Inside', and it is looked for there alone."
            )
        return " ".join([text, *plan_notes(plan)])

    def _with_styles(self, plan: Plan) -> Plan:
        """Give targets that are known colour and terminology where they have none."""
        if plan.project is not None:
            return plan
        rows = tuple(row if row.color else _styled(row) for row in plan.targets)
        return replace(plan, targets=rows)

    def _asks_about_size(self) -> bool:
        """Tell whether it matters, or was said, what counts of a moved label map."""
        plan = self.plan
        return plan is not None and any(
            case.same_size != "refuse" or _is_moved(plan, case) for case in plan.cases
        )

    # -- what a person does --------------------------------------------------------------------

    def _folder_typed(self) -> None:
        if self.plan is not None and self.plan.project is None:
            typed = self.ui.folderEdit.currentPath.strip()
            self._changed(replace(self.plan, folder=Path(typed).expanduser()))

    def _find(self) -> None:
        labels = self.ui.labelsEdit.currentPath.strip()
        source = Path(self.ui.volumesEdit.currentPath.strip()).expanduser()
        place = Path(labels).expanduser() if labels else None
        self.ui.sourceProblemLabel.setText("")
        self.logic.extend_plan(self._planned, source, place, self._found, self._not_found)
        self._gate()

    def _found(self, plan: Plan) -> None:
        """Show what was found, unless the dialog was closed meanwhile."""
        if self.plan is not None:
            self._show_plan(replace(plan, folder=self.plan.folder))

    def _not_found(self, error: Exception) -> None:
        """Say below the sources what is wrong with them."""
        if self.plan is None:
            return
        stopped = isinstance(error, CancelledError)
        self.ui.sourceProblemLabel.setText(_("Stopped.") if stopped else str(error))
        self._check()

    def _find_masks(self) -> None:
        source = Path(self.ui.masksEdit.currentPath.strip()).expanduser()
        self.ui.sourceProblemLabel.setText("")
        try:
            plan = self.logic.with_masks(self._planned, self.ui.organBox.currentData, source)
        except AslsegError as error:
            self._not_found(error)
            return
        self._read(plan)

    def _add_scene(self) -> None:
        try:
            plan = self.logic.with_scene(self._planned)
        except AslsegError as error:
            self._not_found(error)
            return
        self._read(plan)

    def _show_dicom(self) -> None:
        """List the series of Slicer's DICOM database, or hide them again."""
        self.ui.sourceProblemLabel.setText("")
        if self.ui.dicomBox.isHidden():
            self.ui.dicomBox.setVisible(True)
            try:
                self._dicom.show(self.logic.dicom_series())
            except AslsegError as error:
                self._dicom.show([])
                self._not_found(error)
            self.ui.dicomButton.setChecked(True)
        else:
            self._dicom.hide()
        self._check()

    def _filter_dicom(self) -> None:
        self._dicom.filter()
        self._gate()

    def _add_dicom(self) -> None:
        self.ui.sourceProblemLabel.setText("")
        try:
            self.logic.extend_by_dicom(
                self._planned, self._dicom.chosen, self._found, self._not_found
            )
        except AslsegError as error:
            self._not_found(error)
        self._gate()

    def _read(self, plan: Plan) -> None:
        """Show a plan with new files, and read these."""
        self._show_plan(plan)
        self.logic.read_plan(plan, self._found, self._not_found)
        self._gate()

    def _case_typed(self, row: int, column: int, text: str) -> None:
        if column == CASE_COLUMNS.index("name"):
            self.panel.attempt(lambda: self._change_cases([row], id=text.strip()))
            self._renew_patients()
        elif column == CASE_COLUMNS.index("patient"):
            self.panel.attempt(lambda: self._change_cases([row], patient=text.strip() or None))
            self._renew_patients()

    def _renew_patients(self) -> None:
        """Show whose volumes cases are, where nobody has said so."""
        from aslseg.project.plan import patients_of

        for row, patient in enumerate(patients_of(self._planned)):
            self._cases.set_text(row, CASE_COLUMNS.index("patient"), patient)

    def _change_cases(self, rows: list[int], **changes: Any) -> None:
        plan = self._planned
        cases = tuple(
            replace(case, **changes) if row in rows else case for row, case in enumerate(plan.cases)
        )
        self._changed(replace(plan, cases=cases))

    def _chosen_cases(self) -> list[int]:
        count = 0 if self.plan is None else len(self.plan.cases)
        return [row for row in self._cases.chosen_rows() if row < count]

    def _set_role(self) -> None:
        rows, split = self._chosen_cases(), self.ui.roleBox.currentData
        self._change_cases(rows, split=split)
        for row in rows:
            self._cases.set_text(row, CASE_HEAD.index(_("Used to")), SPLITS[split])

    def _set_same_size(self) -> None:
        rows = list(range(len(self._planned.cases)))
        self._change_cases(rows, same_size=self.ui.sameSizeBox.currentData)

    def _choose_label(self) -> None:
        row = self._chosen_cases()[0]
        start = self.ui.labelsEdit.currentPath or str(self._planned.cases[row].image.parent)
        title = _("Label map of {case}").format(case=self._planned.cases[row].id)
        chosen = qt.QFileDialog.getOpenFileName(self.dialog, title, start)
        if not chosen:
            return
        plan, label = self._planned, Path(chosen)
        cases = list(plan.cases)
        cases[row] = replace(cases[row], label=label)
        unpaired = tuple(path for path in plan.unpaired if path != label)
        self._read(replace(plan, cases=tuple(cases), unpaired=unpaired))

    def _remove_labels(self) -> None:
        plan, rows = self._planned, self._chosen_cases()
        settled = {plan.cases[row].image for row in rows}
        pairing = tuple(one for one in plan.pairing if one.image not in settled)
        cases = tuple(
            replace(case, label=None, masks={}) if row in rows else case
            for row, case in enumerate(plan.cases)
        )
        self._show_plan(replace(plan, cases=cases, pairing=pairing))

    def _compare(self) -> None:
        self.logic.compare_plan(self._planned, self._show_alike, self._not_found)
        self._gate()

    def _show_alike(self, sentences: list[str]) -> None:
        """Say which volumes look like one patient; the person decides whether they are."""
        none = _("No two volumes that were compared look like one patient.")
        self.ui.alikeLabel.setText("\n".join(sentences[:_MOST_ALIKE]) or none)
        self.ui.alikeLabel.setToolTip(as_plain("\n".join(sentences)))
        self._check()

    def _leave_out(self) -> None:
        plan, rows = self._planned, self._cases.chosen_rows()
        first = len(plan.cases)
        cases = tuple(case for row, case in enumerate(plan.cases) if row not in rows)
        unpaired = tuple(path for n, path in enumerate(plan.unpaired) if first + n not in rows)
        self._show_plan(replace(plan, cases=cases, unpaired=unpaired))

    def _leave_out_unpaired(self) -> None:
        self._show_plan(replace(self._planned, unpaired=()))

    def _target_typed(self, row: int, column: int, text: str) -> None:

        plan, name = self._planned, TARGET_COLUMNS[column]
        if name == "name":
            plan = self._renamed(plan, row, text.strip())
        else:
            rows = list(plan.targets)
            rows[row] = replace(rows[row], **{name: text.strip()})
            plan = replace(plan, targets=tuple(rows))
        self.panel.attempt(lambda: self._changed(plan))
        if name in ("name", "inside"):
            show_choices(self._targets, plan.targets, editable=plan.project is None)
            self._show_masks()

    def _renamed(self, plan: Plan, row: int, name: str) -> Plan:
        """Name a target; it gets the style of its new name, unless somebody has chosen another."""
        from aslseg.project.plan import with_target_renamed

        before = plan.targets[row]
        plan = with_target_renamed(plan, row, name)
        if before != _styled(before):
            return plan
        rows = list(plan.targets)
        rows[row] = _styled(rows[row])
        self._targets.set_text(row, TARGET_COLUMNS.index("color"), rows[row].color)
        return replace(plan, targets=tuple(rows))

    def _show_masks(self) -> None:
        """Show of which organs cases have masks, by the names of now."""
        for row, case in enumerate(self._planned.cases):
            self._cases.set_text(row, CASE_COLUMNS.index("masks"), ", ".join(case.masks))

    def _add_target(self) -> None:
        from aslseg.project.target_table import TargetRow

        plan = self._planned
        taken = {int(row.value) for row in plan.targets if row.value.isdigit()}
        value = next(number for number in range(1, 256) if number not in taken)
        self._show_plan(replace(plan, targets=(*plan.targets, TargetRow(value=str(value)))))
        self.ui.targetsTable.setCurrentCell(len(plan.targets), 0)
        self.ui.targetsTable.setFocus()

    def _remove_target(self) -> None:
        plan, gone = self._planned, self._targets.chosen_rows()
        rows = tuple(row for number, row in enumerate(plan.targets) if number not in gone)
        self._show_plan(replace(plan, targets=rows))

    def _choose_color(self) -> None:
        row = self._targets.chosen_rows()[0]
        before = qt.QColor(self._planned.targets[row].color)
        chosen = qt.QColorDialog.getColor(before, self.dialog)
        if chosen.isValid():
            column = TARGET_COLUMNS.index("color")
            self._targets.set_text(row, column, chosen.name())
            self._target_typed(row, column, chosen.name())

    def _create(self) -> None:
        self.logic.write_plan.begin(self._planned, then=self._made, otherwise=self._not_made)
        self._gate()

    def _made(self, project: Project) -> None:
        """Close the dialog: the project is open now."""
        self.plan = None
        self.dialog.hide()

    def _not_made(self, error: Exception) -> None:
        """Say what is wrong; the plan stays as it is."""
        self._not_found(error)

    def _cancel(self) -> None:
        if self.logic.background.is_busy:
            self.logic.background.cancel()
            return
        self.plan = None
        self.dialog.hide()

    def _leave(self) -> None:
        """Forget the plan of a window that was closed by Escape or its frame, and stop reading."""
        self.logic.background.cancel()
        self.plan = None

    @property
    def _planned(self) -> Plan:
        """The plan of the open dialog."""
        if self.plan is None:
            msg = "The dialog is closed."
            raise RuntimeError(msg)
        return self.plan


def _styled(row: TargetRow) -> TargetRow:
    """Return a target with the colour and the terminology of its name."""
    style = style_of(row.name, int(row.value) if row.value.isdigit() else 1)
    return replace(row, color=as_color(style.color), terminology=style.terminology)


def _problems_of(plan: Plan) -> list[Problem]:
    """List what is wrong; a folder named from another one would begin where Slicer was started."""
    from aslseg.project.plan import plan_problems
    from aslseg.project.problem import Problem

    if plan.folder.is_absolute():
        return plan_problems(plan)
    typed = "" if plan.folder == Path() else str(plan.folder)
    text = _("Give the whole path of the project's folder: '{path}' does not say where it begins.")
    message = text.format(path=typed) if typed else _("Choose a folder for the project.")
    others = [problem for problem in plan_problems(plan) if problem.place != "folder"]
    return [Problem("folder", message), *others]


def _is_moved(plan: Plan, case: Any) -> bool:
    """Tell whether a label map has the size of its volume and another position."""
    found = [plan.facts.get(path) for path in (case.image, case.label) if path is not None]
    grids = [facts.geometry for facts in found if facts is not None]
    if len(grids) < 2 or grids[0] is None or grids[1] is None:
        return False
    return grids[0].shape == grids[1].shape and not grids[0].matches(grids[1])
