"""Everything that the panel does, without the panel: for scripts and for the Python console.

Volumes and segmentations are MRML nodes, projects are the library's. A method that takes time waits
for its result, and the application goes on meanwhile. Its `begin`, such as
`logic.train.begin("quick")`, returns at once: `poll` has to be called from time to time then, as
the panel's timer does, and what comes of it is told by signals and events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from aslseg.errors import CancelledError, RunError
from ASLsegLib.engine.client import Job
from ASLsegLib.logic.base import Pending, waiting
from ASLsegLib.logic.export import ExportLogic
from ASLsegLib.logic.external_labels import ExternalLabelLogic
from ASLsegLib.logic.lesion_filling import LesionFillingLogic
from ASLsegLib.logic.next_step import NextStep, Situation, is_later, next_step
from ASLsegLib.logic.overview import Overview
from ASLsegLib.logic.partial_labels import PartialLabelLogic
from ASLsegLib.logic.project_plan import PlanLogic
from ASLsegLib.logic.questions import MayMiss, miss_nothing_drawn
from ASLsegLib.logic.review import DECIDED, ReviewLogic
from ASLsegLib.logic.slice_filling import SliceFillingLogic
from ASLsegLib.parameters import chosen_device
from ASLsegLib.scene.unsaved_cases import unsaved_cases

if TYPE_CHECKING:
    from aslseg.engine.facts import (
        ComputerFacts,
        EstimateFacts,
        ExportFacts,
        FolderFacts,
        WeightsFacts,
    )
    from aslseg.export.labels import LabelChoice
    from aslseg.export.project import Format as ExportFormat
    from aslseg.project.overview import CaseOverview
    from aslseg.project.project import Project


class Logic(
    SliceFillingLogic,
    LesionFillingLogic,
    ReviewLogic,
    ExternalLabelLogic,
    PartialLabelLogic,
    PlanLogic,
    ExportLogic,
):
    """Opens projects, segments, refines, trains, reviews and exports.

    Attributes:
        overview: How all cases stand, and what was measured of them.
    """

    def __init__(self, python: Sequence[str] | None = None) -> None:
        super().__init__(python)
        self.overview = Overview(self.measuring)
        self._trained: Project | None = None
        self.lesions_changed.connect(self._note_decided_lesions)

    def close(self) -> None:
        """End the child processes and delete the files that were handed to them."""
        super().close()
        self.overview.close()

    @property
    def trained_elsewhere(self) -> str:
        """Folder of the project that is, or was, trained last; empty where that is the open one."""
        trained = self._trained
        return "" if trained is None or self.is_open(trained) else str(trained.folder)

    def stop_training(self) -> None:
        """Stop the training; `resume` goes on from its last checkpoint."""
        self.trainer.cancel()

    def stop_batch(self) -> None:
        """Stop the export, or the segmenting of a folder, which can go on later."""
        self.batch.cancel()

    # -- training ------------------------------------------------------------------------------

    @waiting
    def train(
        self,
        preset: str = "quick",
        changes: dict[str, Any] | None = None,
        *,
        may_miss: MayMiss = miss_nothing_drawn,
    ) -> Pending[str]:
        """Train on the open project in the child process.

        Args:
            preset: Named settings.
            changes: Of single settings, as in `RunConfig`; groups may be given in part.
            may_miss: Asked where something that was drawn is not saved, for it is not learnt.

        Returns:
            Id of the run.

        Raises:
            SceneError: When the question is refused.
            CancelledError: When the answer is no.
        """
        self._require_saved(may_miss)
        changes = changes or {}
        device = changes.get("device", chosen_device())
        settings = {"preset": preset, "overrides": changes}
        return self._train("train", {"settings": settings, "device": device})

    @waiting
    def estimate(
        self, preset: str = "quick", changes: dict[str, Any] | None = None
    ) -> Pending[EstimateFacts]:
        """Estimate how long a training on the open project would take on the chosen computer.

        Args:
            preset: As in `train`.
            changes: As in `train`.
        """
        from aslseg.engine.facts import EstimateFacts

        changes = changes or {}
        arguments = {
            "project": str(self.opened().folder),
            "settings": {"preset": preset, "overrides": changes},
            "device": changes.get("device", chosen_device()),
        }
        self._start(self.engine, Job("estimate", arguments))
        return Pending(lambda: self._wait(self.engine).facts_as(EstimateFacts))

    @waiting
    def resume(
        self,
        run_id: str | None = None,
        *,
        more_rounds: int = 0,
        may_miss: MayMiss = miss_nothing_drawn,
    ) -> Pending[str]:
        """Go on with a run that was stopped, or train further rounds with what was reviewed since.

        A run that another computer may be working on is followed there.

        Args:
            run_id: The latest one when None.
            more_rounds: Rounds to train beyond those that the run has; 0 only finishes it.
            may_miss: As for `train`, with its errors.
        """
        if self.runs_elsewhere().keys() & {run_id or self._latest_run()}:
            return self.follow_run.begin(run_id or self._latest_run())
        self._require_saved(may_miss)
        arguments = {"run": run_id, "rounds": more_rounds, "device": chosen_device()}
        return self._train("resume", arguments)

    def runs_elsewhere(self) -> dict[str, str]:
        """Return the runs that other computers may be working on: hosts by id."""
        from aslseg.project.remote_run import open_remote_runs

        if self.project is None:
            return {}
        return {name: note.host for name, note in open_remote_runs(self.project.folder).items()}

    @waiting
    def follow_run(self, run_id: str | None = None) -> Pending[str]:
        """Follow a run that another computer works on, and fetch what it has made.

        Args:
            run_id: The latest such run when None.

        Raises:
            RunError: When no other computer works on it.
        """
        hosts = self.runs_elsewhere()
        name = run_id or next(reversed(hosts), "")
        if name not in hosts:
            msg = f"No other computer works on {name or 'a run of this project'}; resume it."
            raise RunError(msg)
        return self._train("follow_run", {"run": name}, hosts[name])

    @waiting
    def train_on(
        self,
        run_id: str | None = None,
        *,
        share: float | None = None,
        may_miss: MayMiss = miss_nothing_drawn,
    ) -> Pending[str]:
        """Let a run learn from the lesions that were decided about since, in a short round.

        Args:
            run_id: The latest one when None.
            share: Part of the schedule of stages of lesions that is trained, above 0 and up to 1;
                the run's `review_share` when None.
            may_miss: As for `train`, with its errors.
        """
        self._require_saved(may_miss)
        arguments = {"run": run_id, "share": share, "device": chosen_device()}
        return self._train("train_on", arguments)

    # -- many cases at once --------------------------------------------------------------------

    @waiting
    def export_project(
        self,
        folder: Path | str,
        *,
        format: ExportFormat = "nifti",  # noqa: A002 - as in `ExportOptions`
        labels: LabelChoice = "accepted",
        cases: Sequence[str] | None = None,
        run_id: str | None = None,
        replace: bool = False,
        may_miss: MayMiss = miss_nothing_drawn,
    ) -> Pending[ExportFacts]:
        """Write label maps of the open project, with their origin and what they measure.

        Args:
            folder: Where to.
            format: `nifti`, `nnunet`, `dicom_seg`, or `tables` for CSV files alone.
            labels: `human`, `accepted` (with those that people accepted), or `all` (of a run too).
            cases: Names of cases; all when None.
            run_id: Whose predictions `all` takes; the latest with a finished round when None.
            replace: Whether files that the export did not write may be replaced.
            may_miss: Asked where something that was drawn is not saved, for it is not written.

        Returns:
            How many label maps, and what was left out.

        Raises:
            SceneError: When the question is refused.
            CancelledError: When the answer is no.
        """
        from aslseg.engine.facts import ExportFacts

        self._require_saved(may_miss, cases)
        arguments = {
            "project": str(self.opened().folder),
            "output": str(folder),
            "format": format,
            "labels": labels,
            "cases": None if cases is None else list(cases),
            "run": run_id,
            "replace": replace,
        }
        self.batch.start(Job("export", arguments))
        return Pending(lambda: self._wait(self.batch).facts_as(ExportFacts))

    @waiting
    def segment_folder(
        self,
        images: Path | str,
        output: Path | str,
        run_id: str | None = None,
        *,
        organs: Mapping[str, Path | str] | None = None,
        replace: bool = False,
    ) -> Pending[FolderFacts]:
        """Segment the volumes of a folder with a run of the open project; none becomes a case.

        Called again, it goes on where it was stopped.

        Args:
            images: Folder of image files and DICOM folders.
            output: Where label maps, their origin and tables go.
            run_id: The latest with a finished round when None.
            organs: By target name, a folder of masks that are used in place of the predicted
                organ: one file a volume, named as it is, or TotalSegmentator's folders. Volumes
                without a mask get the predicted one.
            replace: Whether files that this program did not write may be replaced.

        Returns:
            What became of the volumes.
        """
        from aslseg.engine.facts import FolderFacts

        arguments = {
            "project": str(self.opened().folder),
            "run": run_id,
            "images": str(images),
            "output": str(output),
            "organs": {name: str(masks) for name, masks in (organs or {}).items()},
            "replace": replace,
            "device": chosen_device(),
        }
        self.batch.start(Job("segment_folder", arguments))
        return Pending(lambda: self._wait(self.batch).facts_as(FolderFacts))

    def case_overviews(self, *, wait: bool = True) -> list[CaseOverview]:
        """Return a row for each case: state, what is labelled, lesions, volumes, reliability.

        Args:
            wait: Measure what is not known yet first, which reads each such image once.
        """
        if self.state is None:
            return []
        self.overview.rows(self.state)
        self.overview.measure()
        while wait and self.measuring.is_busy:
            self.poll()
            slicer.app.processEvents()
        return self.overview.rows(self.state)

    def next_step(self) -> NextStep:
        """Return what a person does next, in words."""
        project, state = self.project, self.state
        if project is None or state is None:
            return next_step(Situation())
        known = Situation(
            targets=[target.name for target in project.targets],
            cases=len(project.cases),
            labelled=len(project.counted),
            unlabelled=len(project.unlabelled),
            is_training=self.trainer.is_busy and not self.trained_elsewhere,
        )
        if known.is_training or not state.runs:  # what follows is read from files
            return next_step(known)
        latest = next(iter(self.trainings()), state.runs[0])
        decided = sum(
            report.state in DECIDED and is_later(report.decided_at, latest.updated)
            for report in state.reports
        )
        incomplete = sum(report.state == "incomplete" for report in state.waiting)
        return next_step(
            replace(
                known,
                run_state=latest.state,
                has_round=state.run is not None,
                waiting=len(state.waiting) - incomplete,
                incomplete=incomplete,
                review_time=self.review_time_left(),
                decided=decided if state.run is not None else 0,
            )
        )

    # -- about this computer -------------------------------------------------------------------

    @waiting
    def describe(self, device: str | None = None) -> Pending[ComputerFacts]:
        """Return which device the engine would use, and which SAM weights are here."""
        from aslseg.engine.facts import ComputerFacts

        self._start(self.engine, Job("describe", {"device": device or chosen_device()}))
        return Pending(lambda: self._wait(self.engine).facts_as(ComputerFacts))

    @waiting
    def download(self, model: str) -> Pending[WeightsFacts]:
        """Download the weights of a SAM, such as `vit_t`, check them, and return where they are."""
        from aslseg.engine.facts import DownloadFacts

        self._start(self.engine, Job("download", {"model": model}))
        return Pending(lambda: self._wait(self.engine).facts_as(DownloadFacts).weights)

    @waiting
    def remove_weights(self, model: str) -> Pending[list[str]]:
        """Delete the downloaded weights of a SAM; a file that a person put there stays.

        Returns:
            The paths of the deleted files.
        """
        from aslseg.engine.facts import RemovalFacts

        self._start(self.engine, Job("remove", {"model": model}))
        return Pending(lambda: self._wait(self.engine).facts_as(RemovalFacts).removed)

    # -- within --------------------------------------------------------------------------------

    def _require_saved(self, may_miss: MayMiss, cases: Sequence[str] | None = None) -> None:
        unsaved = unsaved_cases(self.opened(), cases)
        if unsaved and not may_miss(unsaved):
            msg = "Nothing was started."
            raise CancelledError(msg)

    def _train(self, do: str, arguments: dict[str, Any], host: str | None = None) -> Pending[str]:
        from aslseg.engine.facts import RunFacts

        project = self.opened()
        self._start(self.trainer, Job(do, {"project": str(project.folder), **arguments}), host)
        self._trained = project

        def result() -> str:
            done = self._wait(self.trainer)
            self.refresh()
            return done.facts_as(RunFacts).run

        return Pending(result)

    def _latest_run(self) -> str:
        runs = self.trainings()
        return runs[0].run_id if runs else ""

    def _note_decided_lesions(self) -> None:
        if self.lesion_review is not None:
            self.overview.forget(self.lesion_review.case_id)
