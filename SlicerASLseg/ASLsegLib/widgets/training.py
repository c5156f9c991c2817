"""Training: rounds that run behind, and what they give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from aslseg.events import Progress
from aslseg.steps import rough_time, step_title
from ASLsegLib import parameters
from ASLsegLib.engine.client import AT_WORK, State
from ASLsegLib.logic import project_data as projects
from ASLsegLib.scene.plots import Curves
from ASLsegLib.widgets.progress import STATES
from ASLsegLib.widgets.section import Section, as_plain, fill_table, not_installed

if TYPE_CHECKING:
    from aslseg.project.run_list import RunSummary
    from ASLsegLib.engine.client import PanelEvent

_PLOT_EVERY_S = 1.0
_NOTES = 3
"""So many warnings of a training are shown, the last ones."""
BUSY = _("A training is under way.")
ENDED = {
    "done": _("The training is done."),  # what comes next stands at the top
    "cancelled": _("Stopped. Resume goes on from there."),
}


class TrainingSection(Section):
    """Start, stop and resume, with curves."""

    shows = ("training",)
    answers = ("EstimateFacts",)

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self.curves = Curves()
        self._progress: Progress | None = None
        self._ended = self._estimate = ""
        self._estimated: Any = None
        self._silence = ""
        self._notes: list[str] = []
        self._is_busy = False
        self._plotted = qt.QElapsedTimer()
        self._plotted.start()
        for button, action in (
            (self.ui.startButton, self.start),
            (self.ui.estimateButton, self.estimate),
            (self.ui.stopButton, self.logic.stop_training),
            (self.ui.resumeButton, self.resume),
            (self.ui.curvesButton, self._show_curves),
            (self.ui.reportButton, self._open_report),
        ):
            self.on_click(button, action)
        self._sought: set[Path] = set()
        self._rounds_of = ""
        self.logic.trainer.changed.connect(self._begin)
        self.logic.project_changed.connect(self._show_rounds)
        self.logic.project_changed.connect(self._find_again)

    def update(self) -> None:
        """Show what is possible and how far the training is."""
        trainer, project = self.logic.trainer, self.logic.project
        if self._estimate and self._estimated not in (None, self._settings()):
            self._estimate = ""
        run = self._run()
        if self._rounds_of != ("" if run is None else run.run_id):
            self._show_rounds()
        busy = self._of_its_project(BUSY) if trainer.is_busy else ""
        closed = "" if project else _("Open a project first.")
        labels = self._no_labels()
        no_run = "" if run else _("There is no run to resume; start one.")
        idle = "" if trainer.is_busy else _("No training is under way.")
        stopping = _("It is stopping already.") if trainer.state is State.CANCELLING else ""
        self.gate(self.ui.startButton, not_installed(), closed, labels, busy)
        self.gate(self.ui.estimateButton, not_installed(), closed, labels, busy, needs_engine=True)
        self.gate(self.ui.resumeButton, not_installed(), closed, labels, no_run, busy)
        self.gate(self.ui.stopButton, idle, stopping)
        no_curves = "" if self.curves.names else _("Curves come with the first training.")
        self.gate(self.ui.curvesButton, no_curves)
        report = "" if self._report() else _("The report is written at the end of a run.")
        self.gate(self.ui.reportButton, report)
        self.ui.labelledShareLabel.setText(self._share())
        self.ui.trainingLabel.setText(self._sentence())

    def _begin(self, _state: State) -> None:
        """Forget what was said of the training before, also where Review has started the new one.

        A process that is there already runs at once, and never starts.
        """
        was_busy, self._is_busy = self._is_busy, self.logic.trainer.is_busy
        if self._is_busy and not was_busy:
            self._notes.clear()
            self._ended = self._estimate = ""

    def on_training_event(self, event: PanelEvent) -> None:
        """Follow the training."""
        if event.event == "progress":
            self._progress, self._silence = event, ""
            self.ui.trainingLabel.setText(self._sentence())
        elif event.event in ("silent", "answering"):
            self._silence = event.in_words
            self.ui.trainingLabel.setText(self._sentence())
        elif event.event == "warning":
            self._notes.append(as_plain(event.message))
            self.ui.trainingLabel.setText(self._sentence())
        elif event.event == "metric":
            first = not self.curves.names
            self.curves.add(event)
            if first:
                self.update()  # there are curves to be shown now
            if self._plotted.elapsed() > 1000 * _PLOT_EVERY_S:
                self._plotted.restart()
                self.curves.update()
        elif event.event in ("done", "failed", "cancelled"):
            self._progress, self._silence = None, ""
            self._ended = ENDED.get(event.event, "")
            self.curves.update()
            if self.logic.project is not None:
                self.logic.refresh()
        elif event.event == "artifact":
            self._show_rounds()

    def forget_scene(self) -> None:
        """The plot's nodes went away with the scene; its points did not."""
        self.curves.forget_nodes()

    def start(self) -> None:
        """Start a run with the panel's settings."""
        chosen = self.panel.parameters
        changes = parameters.settings_changes(chosen)
        self.logic.train.begin(chosen.preset, changes, may_miss=self.panel.questions.may_miss)
        self.curves.clear()

    def estimate(self) -> None:
        """Estimate how long a run with the panel's settings would take."""
        self._estimated = self._settings()
        _project, preset, changes, _device, _host = self._estimated
        self.logic.estimate.begin(preset, changes)

    def _settings(self) -> tuple[Any, str, dict[str, Any], str, str]:
        """Return what an estimate is about: project, settings of the panel, device and computer."""
        chosen = self.panel.parameters
        changes = parameters.settings_changes(chosen)
        where = parameters.chosen_device(), parameters.chosen_host()
        return self.logic.project, chosen.preset, changes, *where

    def on_answer(self, facts: Any) -> None:
        """Show an estimate when it has come."""
        host = self.logic.engine.host
        text = _("A training takes {time} here: {rounds}, {steps} steps.")
        if host:
            text = _("A training takes {time} at {host}: {rounds}, {steps} steps.")
        rounds = _("1 round") if facts.rounds == 1 else _("{n} rounds").format(n=facts.rounds)
        self._estimate = text.format(
            time=rough_time(facts.seconds), host=host, rounds=rounds, steps=facts.steps
        )
        self.update()

    def resume(self) -> None:
        """Finish a run that was stopped; go on with one that is done for as many rounds more."""
        run = self._run()
        if run is None:
            return
        more = self.panel.parameters.rounds if run.state == "done" else 0
        self.logic.resume.begin(
            run.run_id, more_rounds=more, may_miss=self.panel.questions.may_miss
        )

    def _find_again(self) -> None:
        """Follow a run that another computer works on, when its project is opened.

        Only a computer that was named here: whoever made the project may have named any.
        """
        project = self.logic.project
        if project is None or not_installed() or project.folder in self._sought:
            return
        self._sought.add(project.folder)
        self.panel.attempt(self._follow, update=False)

    def _follow(self) -> None:
        from aslseg.remote.hosts import known_hosts

        known = known_hosts()
        runs = [name for name, host in self.logic.runs_elsewhere().items() if host in known]
        if runs and not self.logic.trainer.is_busy:
            self.curves.clear()
            self.logic.follow_run.begin(runs[-1])

    def _run(self) -> RunSummary | None:
        runs = self.logic.trainings()
        chosen = self.panel.parameters.run if self.panel.parameters else ""
        return next((run for run in runs if run.run_id == chosen), runs[0] if runs else None)

    def _no_labels(self) -> str:
        """Return why there is nothing to learn from; empty when there is something."""
        project = self.logic.project
        if project is None or not project.labelled:
            return _("Label at least one case to train on.")
        unfinished = _("No slice of any label counts: mark one as complete, or let a label count.")
        return "" if project.counted else unfinished

    def _share(self) -> str:
        project = self.logic.project
        if project is None:
            return _("Open a project to see what can be trained on.")
        known, cases = len(project.counted), len(project.labelled) + len(project.unlabelled)
        text = _("{known} of {all} cases to train on are labelled ({share:.0%}).")
        text = text.format(known=known, all=cases, share=known / max(cases, 1))
        unchecked = _("No labelled case is there to check on, so no Dice is measured.")
        is_checked = any(case.label_counts for case in project.validation)
        return text if is_checked else f"{text} {unchecked}"

    def _sentence(self) -> str:
        """Return what the training does, and below it its last warnings."""
        doing = self._doing()
        lines = [self._of_its_project(doing)] if doing else []
        if self._estimate and self.logic.trainer.state is State.IDLE:
            lines = [self._estimate]
        return "\n".join([*lines, *self._notes[-_NOTES:]])

    def _of_its_project(self, text: str) -> str:
        """Name the project that a text about the training is about, where another one is open."""
        folder = self.logic.trained_elsewhere
        return f"{folder}: {text}" if folder else text

    def _doing(self) -> str:
        state = self.logic.trainer.state
        if self._silence and state in AT_WORK:
            return self._silence
        if state is not State.RUNNING or self._progress is None:
            host = self.logic.trainer.host
            if host and state in AT_WORK:
                return _("At {host}: {state}").format(host=host, state=STATES[state])
            return self._ended if state is State.IDLE else STATES[state]
        text = _("Round {round}: {task}") if self._progress.round else "{task}"
        host = self.logic.trainer.host
        text = _("At {host}: {text}").format(host=host, text=text) if host else text
        return text.format(round=self._progress.round, task=step_title(self._progress.task))

    def _show_rounds(self) -> None:
        run, project = self._run(), self.logic.project
        self._rounds_of = "" if run is None else run.run_id
        if run is None or project is None:
            fill_table(self.ui.roundsTable, [_("Round"), _("AI labels used")], [])
            return
        rows = projects.round_rows(project, run.run_id)
        names = [target.name for target in project.targets]
        head = [_("Round"), _("AI labels used"), *(_("Dice {name}").format(name=n) for n in names)]
        fill_table(self.ui.roundsTable, head, [_round_row(row, names) for row in rows])

    def _show_curves(self) -> None:
        self.curves.show()

    def _report(self) -> Any | None:
        run, project = self._run(), self.logic.project
        if run is None or project is None:
            return None
        from aslseg.run_names import REPORT

        path = project.folder / "runs" / run.run_id / REPORT
        return path if path.exists() else None

    def _open_report(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._report())))


def _round_row(row: dict[str, Any], names: list[str]) -> list[str]:
    dice = [f"{row[name]:.3f}" if name in row else "-" for name in names]
    return [str(row["round"]), f"{row['accepted']} / {row['of']}", *dice]
