"""The top of the panel: what has to be installed, and what a person does next."""

from __future__ import annotations

from slicer.i18n import tr as _

from ASLsegLib import requirements
from ASLsegLib.widgets.section import Section, not_installed

INTRODUCTION = _(
    "Label a few CT volumes; a specialist network and SAM label the rest, and you decide. "
    "(Nothing to do with arterial spin labelling.)"
)
SECTION_NAMES = (
    "casesSection", "trainSection", "reviewSection", "resultsSection", "advancedSection",
)  # fmt: skip


class NextStepSection(Section):
    """Introduction, requirements and the next step."""

    shows = ("training",)

    def connect_widgets(self) -> None:
        """Connect install and the next step."""
        self.ui.introLabel.setText(INTRODUCTION)
        self.on_click(self.ui.installButton, self._install)
        self.on_click(self.ui.nextStepButton, self._go)

    def update(self) -> None:
        """Show what is missing and what comes next."""
        absent = requirements.missing()
        self.ui.requirementsFrame.setVisible(bool(absent))
        if absent:
            text = _("To segment and train, these packages are needed: {names}.")
            self.ui.requirementsLabel.setText(text.format(names=", ".join(absent)))
        self.ui.introLabel.setVisible(self.logic.project is None)
        self.ui.nextStepLabel.setText(self._next_step(bool(absent)))
        self.gate(self.ui.nextStepButton, not_installed())

    def _next_step(self, absent: bool) -> str:
        if absent:
            return _("Next: install what is missing.")
        return _("Next: {step}").format(step=self.logic.next_step().text)

    def _go(self) -> None:
        """Open the section of the next step, and close the others."""
        wanted = f"{self.logic.next_step().section}Section"
        for name in SECTION_NAMES:
            getattr(self.ui, name).collapsed = name != wanted
        getattr(self.ui, wanted).setFocus()

    def _install(self) -> None:
        requirements.install()
        self.panel.reopen_project()  # what is installed is used at once
