"""The top of the panel: what the module is, what is missing, and what is going on."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from ASLsegLib import requirements
from ASLsegLib.engine.jobs import in_words
from ASLsegLib.plain_text import as_plain
from ASLsegLib.widgets.section import Section

STATES = {
    "idle": _("Ready."),
    "starting": _("Starting …"),
    "running": _("Working …"),
    "importing": _("Bringing the results into the scene …"),
    "cancelling": _("Stopping …"),
    "failed": _("The last task failed; the log under Advanced says more."),
}
INTRODUCTION = _(
    "Label a few CT volumes; a specialist network and SAM label the rest, and you decide. "
    "(Nothing to do with arterial spin labelling.)"
)


class StatusSection(Section):
    """Introduction, requirements, state and progress."""

    def connect_widgets(self) -> None:
        """Connect install and cancel."""
        self._progress: dict[str, Any] = {}
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
            "" if engine.state != "cancelling" else _("It is stopping already."),
        )
        self.ui.statusLabel.setText(self._sentence(busy))

    def on_event(self, event: dict[str, Any]) -> None:
        """Show the progress of everything but trainings, which have a place of their own."""
        kind = event.get("event")
        if kind == "progress":
            self._progress, self._silence, self._note = event, "", ""
            show_progress(self.ui.progressBar, event)
            self.ui.statusLabel.setText(self._sentence(True))
        elif kind in ("silent", "answering"):
            self._silence = in_words(event)
            self.ui.statusLabel.setText(self._sentence(True))
        elif kind == "warning" and not self.logic.engine.is_busy:  # of images that are added
            self._note = f"{self._note} {as_plain(str(event.get('message') or ''))}".strip()
            self.update()
        elif kind in ("done", "failed", "cancelled"):
            self._progress, self._silence = {}, ""

    def _sentence(self, busy: bool) -> str:
        state = self.logic.engine.state
        if self._silence and state in ("starting", "running"):
            return self._silence
        if state == "idle" and busy:
            state = "running"
        if state == "idle" and self._note:
            return f"{STATES[state]} {self._note}"
        task = self._progress.get("task") if state in ("running", "importing") else ""
        return f"{task[0].upper()}{task[1:]} …" if task else STATES[state]

    def _install(self) -> None:
        requirements.install()
        self.panel.reopen_project()  # what is installed is used at once


def show_progress(bar: Any, event: dict[str, Any]) -> None:
    """Let a progress bar show a `progress` event, with the time left."""
    of = int(event.get("of") or 0)
    bar.setRange(0, of)  # 0 to 0 means that nobody knows
    bar.setValue(int(event.get("step") or 0))
    seconds = event.get("seconds_left")
    bar.setFormat("%p %" if seconds is None else f"%p %, {time_left(float(seconds))}")


def time_left(seconds: float) -> str:
    """Return a duration in words: `40 s left`, `12 min left`, `1 h 05 min left`."""
    if seconds < 90:
        return _("{count} s left").format(count=max(round(seconds), 0))
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("{count} min left").format(count=minutes)
    return _("{hours} h {minutes:02d} min left").format(hours=minutes // 60, minutes=minutes % 60)
