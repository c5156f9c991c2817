"""The top of the panel: what is missing, what comes next, and what is going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from aslseg.events import Progress, RunProgress
from aslseg.steps import step_title
from ASLsegLib import requirements
from ASLsegLib.engine.client import AT_WORK, State
from ASLsegLib.widgets.progress import (
    STATES,
    run_progress_text,
    show_progress,
    show_run_progress,
)
from ASLsegLib.widgets.section import Section, as_plain

if TYPE_CHECKING:
    from ASLsegLib.engine.client import PanelEvent

INTRODUCTION = _(
    "Label a few CT volumes; a specialist network and SAM label the rest, and you decide. "
    "(Nothing to do with arterial spin labelling.)"
)
STOPPING = _("It is stopping already.")
SECTION_NAMES = (
    "casesSection", "trainSection", "reviewSection", "resultsSection", "advancedSection",
)  # fmt: skip


class StatusSection(Section):
    """Introduction, requirements, next step, state and progress."""

    shows = ("engine", "training")

    def connect_widgets(self) -> None:
        """Connect install, the next step, and cancel."""
        self._progress: Progress | None = None
        self._run: RunProgress | None = None
        self._task = ""
        self._silence = ""
        self._note = ""
        self.ui.introLabel.setText(INTRODUCTION)
        self.on_click(self.ui.installButton, self._install)
        self.on_click(self.ui.nextStepButton, self._go)
        self.on_click(self.ui.cancelButton, self.logic.cancel)

    def update(self) -> None:
        """Show what is missing, what comes next and what is going on."""
        absent = requirements.missing()
        self.ui.requirementsFrame.setVisible(bool(absent))
        if absent:
            text = _("To segment and train, these packages are needed: {names}.")
            self.ui.requirementsLabel.setText(text.format(names=", ".join(absent)))
        self.ui.introLabel.setVisible(self.logic.project is None)
        self.ui.nextStepLabel.setText(self._next_step(bool(absent)))
        self.gate(self.ui.nextStepButton, self.panel.missing)
        self.gate(
            self.ui.cancelButton,
            "" if self.logic.engine.state is not State.CANCELLING else STOPPING,
        )
        self._show()

    def on_event(self, event: PanelEvent) -> None:
        """Show the progress of everything but trainings."""
        if event.event == "progress":
            self._progress, self._silence, self._note = event, "", ""
            self._show()
        elif event.event in ("silent", "answering"):
            self._silence = event.in_words
            self._show()
        elif event.event == "warning" and not self.logic.engine.is_busy:  # of images that are added
            self._note = f"{self._note} {as_plain(event.message)}".strip()
            self.update()
        elif event.event in ("done", "failed", "cancelled"):
            self._progress, self._silence = None, ""

    def on_training_event(self, event: PanelEvent) -> None:
        """Show how far a training is over all its rounds."""
        if event.event == "run_progress":
            self._run = event
        elif event.event == "progress":
            self._task = step_title(event.task)
        elif event.event in ("done", "failed", "cancelled"):
            self._run, self._task = None, ""
        else:
            return
        self._show()

    @property
    def _is_busy(self) -> bool:
        return self.logic.engine.is_busy or self.logic.background.is_busy

    def _show(self) -> None:
        """Show what is under way: one line for what was asked for, one for the training."""
        busy, trains = self._is_busy, self.logic.trainer.is_busy
        lines = [self._sentence(busy)] if busy or not trains else []
        if trains:
            lines.append(self._about_training())
        self.ui.statusLabel.setText("\n".join(lines))
        self.ui.progressBar.setVisible(busy or trains)
        self.ui.cancelButton.setVisible(busy)
        if busy and self._progress is not None:
            show_progress(self.ui.progressBar, self._progress)
        elif not busy and self._run is not None:
            show_run_progress(self.ui.progressBar, self._run)
        else:
            self.ui.progressBar.setRange(0, 0)

    def _about_training(self) -> str:
        if self.logic.trainer.state is State.CANCELLING:
            return _("The training is stopping …")
        if self._run is None:
            return _("The training is starting …")
        text = run_progress_text(self._run)
        return f"{text}: {self._task}" if self._task else text

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
