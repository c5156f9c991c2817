"""What is going on: a line for what was asked for, one for a training, and how far they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from aslseg.events import Progress, RunProgress
from aslseg.steps import step_title
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

STOPPING = _("It is stopping already.")


class StatusSection(Section):
    """State and progress, and what stops them."""

    shows = ("engine", "training")

    def connect_widgets(self) -> None:
        """Connect cancel."""
        self._progress: Progress | None = None
        self._run: RunProgress | None = None
        self._task = ""
        self._silence = ""
        self._note = ""
        self.on_click(self.ui.cancelButton, self.logic.cancel)

    def update(self) -> None:
        """Show what is going on."""
        self.gate(
            self.ui.cancelButton,
            "" if self.logic.engine.state is not State.CANCELLING else STOPPING,
        )
        self._show()

    def tick(self) -> None:
        """Forget the progress of work in the background, which ends without an event."""
        if not self._is_busy:
            self._progress = None

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
