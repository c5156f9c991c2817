"""The top of the panel: what the module is, what is missing, and what is going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from aslseg.events import Progress
from ASLsegLib import requirements
from ASLsegLib.engine.client import AT_WORK, State
from ASLsegLib.widgets.progress import STATES, show_progress
from ASLsegLib.widgets.section import Section, as_plain

if TYPE_CHECKING:
    from ASLsegLib.engine.client import PanelEvent

INTRODUCTION = _(
    "Label a few CT volumes; a specialist network and SAM label the rest, and you decide. "
    "(Nothing to do with arterial spin labelling.)"
)


class StatusSection(Section):
    """Introduction, requirements, state and progress."""

    shows = ("engine",)

    def connect_widgets(self) -> None:
        """Connect install and cancel."""
        self._progress: Progress | None = None
        self._silence = ""
        self._note = ""
        self.ui.introLabel.setText(INTRODUCTION)
        self.on_click(self.ui.installButton, self._install)
        self.on_click(self.ui.cancelButton, self.logic.cancel)

    def update(self) -> None:
        """Show what is missing and what is going on."""
        absent = requirements.missing()
        self.ui.requirementsFrame.setVisible(bool(absent))
        if absent:
            text = _("To segment and train, these packages are needed: {names}.")
            self.ui.requirementsLabel.setText(text.format(names=", ".join(absent)))
        engine = self.logic.engine
        busy = engine.is_busy or self.logic.background.is_busy
        self.ui.progressBar.setVisible(busy)
        self.ui.cancelButton.setVisible(busy)
        self.gate(
            self.ui.cancelButton,
            "" if engine.state is not State.CANCELLING else _("It is stopping already."),
        )
        self.ui.statusLabel.setText(self._sentence(busy))

    def on_event(self, event: PanelEvent) -> None:
        """Show the progress of everything but trainings, which have a place of their own."""
        if event.event == "progress":
            self._progress, self._silence, self._note = event, "", ""
            show_progress(self.ui.progressBar, event)
            self.ui.statusLabel.setText(self._sentence(True))
        elif event.event in ("silent", "answering"):
            self._silence = event.in_words
            self.ui.statusLabel.setText(self._sentence(True))
        elif event.event == "warning" and not self.logic.engine.is_busy:  # of images that are added
            self._note = f"{self._note} {as_plain(event.message)}".strip()
            self.update()
        elif event.event in ("done", "failed", "cancelled"):
            self._progress, self._silence = None, ""

    def _sentence(self, busy: bool) -> str:
        state = self.logic.engine.state
        if self._silence and state in AT_WORK:
            return self._silence
        if state is State.IDLE and busy:
            state = State.RUNNING
        if state is State.IDLE and self._note:
            return f"{STATES[state]} {self._note}"
        if self._progress is None or state not in (State.RUNNING, State.IMPORTING):
            return STATES[state]
        task = self._progress.task
        return f"{task[0].upper()}{task[1:]} …"

    def _install(self) -> None:
        requirements.install()
        self.panel.reopen_project()  # what is installed is used at once
