"""What is known about the open project: read from disk once per change, not once per look."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ASLsegLib.logic.project_data import run_names

if TYPE_CHECKING:
    from aslseg.project.case_reports import CaseReport, LabelFile
    from aslseg.project.project import Project
    from aslseg.project.review import Review
    from aslseg.project.review_order import ReviewOrder
    from aslseg.project.run_folder import RunFolder
    from aslseg.project.run_list import RunSummary

    Predicted = tuple[dict[str, LabelFile], dict[str, float]]
    """Final labels of a round, and the volume of lesions that it expects in ml, both by case."""


class ProjectState:
    """Everything is read at its first use; a change of the project makes a new state.

    Args:
        project: That it is about.
        before: What was known before a person changed the project; the predictions of a round,
            which only trainings change, are not looked for again then.
        order: In which cases are looked at.

    Attributes:
        project: That it is about.
        order: In which cases are looked at.
    """

    def __init__(
        self,
        project: Project,
        before: ProjectState | None = None,
        order: ReviewOrder = "least",
    ) -> None:
        self.project, self.order = project, order
        self._predicted: dict[Path, Predicted] = {} if before is None else before._predicted

    @cached_property
    def runs(self) -> list[RunSummary]:
        """The runs of the project, latest first."""
        from aslseg.project.run_list import list_runs

        return list_runs(self.project.folder)

    @cached_property
    def run_names(self) -> dict[str, str]:
        """What the runs that can segment are called for a person, by id."""
        return run_names(self.project, [run for run in self.runs if run.is_usable])

    @cached_property
    def finished(self) -> list[RunFolder]:
        """The runs with predictions to review, and labels of other models, latest first."""
        from aslseg.project.run_folder import open_run

        finished = [run.run_id for run in self.runs if run.best_round > 0]
        return [open_run(self.project.folder, run_id) for run_id in finished]

    @property
    def run(self) -> RunFolder | None:
        """The latest of these."""
        return next(iter(self.finished), None)

    def run_of(self, case_id: str) -> RunFolder | None:
        """Return what a case is reviewed from: the latest with a prediction of it, else `run`."""
        return self._run_by_case.get(case_id, self.run)

    @cached_property
    def reports(self) -> list[CaseReport]:
        """How every case stands by what it is reviewed from, in the order of the project."""
        from aslseg.project.case_reports import case_reports

        runs = [self.run_of(case.id) for case in self.project.cases]
        found = {
            run: case_reports(self.project, run, *self._predictions_of(run)) for run in {*runs}
        }
        return [found[run][number] for number, run in enumerate(runs)]

    @cached_property
    def waiting(self) -> list[CaseReport]:
        """The cases that wait for a person, in the chosen order."""
        from aslseg.project.review_order import waiting

        return [] if self.run is None else waiting(self.reports, self.order)

    @cached_property
    def review_seconds_left(self) -> float | None:
        """How long the cases that wait take at a person's pace; None before there is a pace."""
        from aslseg.project.review_pace import seconds_left

        return seconds_left(self.reports)

    @cached_property
    def _run_by_case(self) -> dict[str, RunFolder]:
        """The latest run with a prediction of each case that has no label map of a person."""
        from aslseg.project.latest_predictions import latest_predictions

        unlabelled = (case for case in self.project.cases if case.label is None)
        return latest_predictions(
            unlabelled, self.finished, lambda run: self._predictions_of(run)[0]
        )

    def _predictions_of(self, run: RunFolder | None) -> Predicted:
        """Return what the best round of a run predicted; nothing without a run."""
        from aslseg.project.case_reports import expected_lesions_ml, refined_files

        if run is None:
            return {}, {}
        round_folder = run.round(run.best_round)
        if round_folder not in self._predicted:
            self._predicted[round_folder] = refined_files(run), expected_lesions_ml(run)
        return self._predicted[round_folder]

    @cached_property
    def last_decision(self) -> Review | None:
        """The decision that would be taken back."""
        from aslseg.project.review import decisions

        holding = decisions(self.project)
        return holding[-1] if holding else None
