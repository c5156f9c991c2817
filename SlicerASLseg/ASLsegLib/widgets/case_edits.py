"""What can be changed of a case that is in the project: its name, its patient, that it is there."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from ASLsegLib.widgets.section import Section, cannot_open, cell


class CaseEditsSection(Section):
    """Renames and removes the chosen case, and says whose volume it is."""

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        ui = self.ui
        self.on_click(ui.renameCaseButton, self._rename)
        self.on_click(ui.patientButton, self._set_patient)
        self.on_click(ui.removeCaseButton, self._remove)
        self.on_click(ui.labelTargetsButton, self._set_label_targets)

    def update(self) -> None:
        """Show which actions are possible."""
        can = cannot_open()
        closed = "" if self.logic.project else _("Open or make a project first.")
        case = "" if self._case_id else _("Choose a case in the table.")
        busy = _("Files are being read; wait.") if self.logic.background.is_busy else ""
        for button in (self.ui.renameCaseButton, self.ui.patientButton, self.ui.removeCaseButton):
            self.gate(button, can, closed, case, busy)
        self.gate(self.ui.labelTargetsButton, can, closed, case, self._no_label(), busy)

    @property
    def _case_id(self) -> str:
        return cell(self.ui.casesTable)

    def _rename(self) -> None:
        case_id = self._case_id
        name = self._asked(_("Rename case"), _("New name of {case}:").format(case=case_id), case_id)
        if name not in ("", case_id):
            self.logic.rename_case(case_id, name)

    def _set_patient(self) -> None:
        case_id = self._case_id
        before = self.logic.opened().case(case_id).patient
        question = _("Whose volume {case} is; the name of another case means its patient:")
        patient = self._asked(_("Patient"), question.format(case=case_id), before)
        if patient not in ("", before):
            self.logic.set_patient(case_id, patient)

    def _no_label(self) -> str:
        is_labelled = bool(self._case_id) and self.logic.opened().case(self._case_id).label
        return "" if is_labelled else _("The case has no label yet.")

    def _set_label_targets(self) -> None:
        case_id, project = self._case_id, self.logic.opened()
        every = [target.name for target in project.targets]
        before = ", ".join(project.case(case_id).label_targets or every)
        question = _("What is labelled in {case} ({names}); of the rest nothing is learnt:")
        text = self._asked(
            _("Labelled targets"),
            question.format(case=case_id, names=", ".join(every)),
            before,
        )
        names = [name.strip() for name in text.split(",") if name.strip()]
        if names and text != before:
            self.logic.set_label_targets(case_id, [] if set(names) == set(every) else names)

    def _remove(self) -> None:
        case_id = self._case_id
        if self.panel.questions.may_remove_case(case_id):
            self.logic.remove_cases(case_id)

    def _asked(self, title: str, question: str, text: str) -> str:
        """Ask for a text; empty when the person thinks better of it."""
        edit = qt.QLineEdit.Normal
        return str(qt.QInputDialog.getText(self.panel.widget, title, question, edit, text)).strip()
