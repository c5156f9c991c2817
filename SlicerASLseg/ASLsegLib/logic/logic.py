"""Everything that the panel does, without the panel: for scripts and for the Python console.

Volumes and segmentations are MRML nodes, projects are the library's. A method that takes `wait`
returns at once when it is False; `poll` has to be called from time to time then, as the panel's
timer does, and the result comes with the event `done`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from aslseg.errors import RunError
from ASLsegLib.engine.background import Background
from ASLsegLib.engine.client import EngineClient, Job
from ASLsegLib.engine.results import proposed_prompts, result_handlers
from ASLsegLib.logic.external_labels import ExternalLabelLogic
from ASLsegLib.logic.growth import (
    Growth,
    begin_growth,
    claim_corrections,
    follow,
    growth_job,
    remove_growth,
    withdraw_growth,
)
from ASLsegLib.logic.lesions import LesionLogic
from ASLsegLib.logic.next_step import NextStep, Situation, next_step
from ASLsegLib.logic.organ_masks import OrganMaskLogic
from ASLsegLib.logic.overview import Overview
from ASLsegLib.logic.project_plan import PlanLogic
from ASLsegLib.logic.review import DECIDED
from ASLsegLib.parameters import chosen_device
from ASLsegLib.paths import library, python_command
from ASLsegLib.scene.prompts import edited_slices, read_prompts, taken_over
from ASLsegLib.scene.segmentations import SOURCES, Policy, find_prediction, keep_edits
from ASLsegLib.scene.volumes import SceneError, file_for, working_volume

if TYPE_CHECKING:
    from aslseg.engine.facts import (
        ComputerFacts,
        EstimateFacts,
        ExportFacts,
        FolderFacts,
        WeightsFacts,
    )
    from aslseg.engine.protocol import Done
    from aslseg.export.labels import LabelChoice
    from aslseg.export.project import Format as ExportFormat
    from aslseg.project.overview import CaseOverview
    from ASLsegLib.engine.client import PanelEvent

YIELD_S = 0.005
"""PythonQt keeps the interpreter lock while Slicer's event loop runs, and the threads that write,
read and listen stand still; so `poll` gives the lock up for so long while work is under way."""


class Logic(LesionLogic, OrganMaskLogic, ExternalLabelLogic, PlanLogic):
    """Opens projects, segments, refines, trains, reviews and exports.

    Attributes:
        working_on: The volume node of the last request to the engine, or None.
        overview: How all cases stand, and what was measured of them.
        growths: Lesions that have grown since the scene was opened, in their order.
        growing: The one that the engine is about, or None.
    """

    def __init__(self, python: Sequence[str] | None = None) -> None:
        super().__init__()
        self._python = tuple(python or python_command())
        self._engines: dict[str, EngineClient] = {}
        self.working_on: Any | None = None
        self._measuring = Background()
        self.overview = Overview(self._measuring)
        self.lesions_changed.connect(self._note_decided_lesions)
        self.growths: list[Growth] = []
        self.growing: Growth | None = None
        self._folder: Path | None = None

    @property
    def engine(self) -> EngineClient:
        """The child process that segments and refines."""
        return self._engine_for("interactive")

    @property
    def trainer(self) -> EngineClient:
        """The child process that trains, so that segmenting goes on meanwhile."""
        return self._engine_for("training")

    @property
    def batch(self) -> EngineClient:
        """The child process that exports and segments folders, beside the other two."""
        return self._engine_for("batch")

    def poll(self) -> None:
        """Go on with what is under way, for a moment."""
        super().poll()
        self._measuring.poll()
        for engine in self._engines.values():
            engine.poll()
        if (
            self.background.is_busy
            or self._measuring.is_busy
            or self._ahead.is_busy
            or any(engine.is_busy for engine in self._engines.values())
        ):
            time.sleep(YIELD_S)

    def cancel(self) -> None:
        """Stop what is under way, but not a training."""
        self.background.cancel()
        self.engine.cancel()

    def stop_training(self) -> None:
        """Stop the training; `resume` goes on from its last checkpoint."""
        self.trainer.cancel()

    def stop_batch(self) -> None:
        """Stop the export, or the segmenting of a folder, which can go on later."""
        self.batch.cancel()

    def close(self) -> None:
        """End the child processes and delete the files that were handed to them."""
        for engine in self._engines.values():
            engine.close()
        self.background.close()
        self.overview.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # -- segmenting ----------------------------------------------------------------------------

    def segment(
        self,
        volume: Any,
        run_id: str | None = None,
        *,
        organs: Mapping[str, Any] | None = None,
        wait: bool = True,
        may_replace: Policy = keep_edits,
    ) -> dict[str, Any]:
        """Segment a volume by a trained run.

        Args:
            volume: Volume node; one under a linear transform is worked on as a hardened copy.
            run_id: Of the open project; its latest usable run when None.
            organs: By target name, a mask that is used in place of the predicted organ: a file, or
                a segmentation node with a segment of that name. A case brings its own.
            wait: Return when the nodes are there.
            may_replace: Asked before segments that a person edited are replaced.

        Returns:
            Segmentation nodes by source: "prompts", "specialist", "sam", "refined".

        Raises:
            SceneError: When the volume cannot be used.
            RunError: When the run that is named cannot be used.
            EngineError: When the engine failed.
        """
        volume = working_volume(volume)
        arguments, prepare = self._about(volume, run_id, organs)
        self.engine.start(
            Job("segment", arguments, prepare, *result_handlers(volume, None, may_replace))
        )
        return self._predictions_after(volume, wait)

    def refine(
        self,
        volume: Any,
        slice_index: int | None = None,
        run_id: str | None = None,
        *,
        sam: str = "vit_t",
        wait: bool = True,
        may_replace: Policy = keep_edits,
    ) -> dict[str, Any]:
        """Run SAM with the scene's prompts, and refine the label by its result.

        Args:
            volume: Volume node.
            slice_index: Only this slice, which takes the time of one mask decoding; the whole
                volume when None.
            run_id: As in `segment`; without a trained run SAM works alone.
            sam: Which SAM is used without a trained run.
            wait: As in `segment`.
            may_replace: As in `segment`.
        """
        volume = working_volume(volume)
        arguments, prepare = self._about(volume, run_id)
        prompts = self.prompts(volume)
        edited = edited_slices(volume)
        sent = edited if slice_index is None else edited & {slice_index}
        arguments["prompts"] = [p.to_json() for p in prompts if p.slice_index in sent]
        arguments["edited_slices"] = sorted(taken_over(volume))
        arguments["slice_index"] = slice_index
        arguments["sam"] = {"model": sam} if arguments["run"] is None else None
        handlers = result_handlers(volume, slice_index, may_replace, prompted=True)
        self.engine.start(Job("refine", arguments, prepare, *handlers))
        return self._predictions_after(volume, wait)

    def grow(
        self,
        volume: Any,
        slice_index: int,
        target: str,
        *,
        segmentation: Any | None = None,
        run_id: str | None = None,
        sam: str = "vit_t",
        wait: bool = True,
    ) -> Growth:
        """Let a lesion grow in three dimensions from the scene's prompts on one slice.

        It becomes a segment of its own, such as "tumour 1", which counts as its target; other
        segments stay as they are. It stays in its parent, and out of other lesions.

        Args:
            volume: Volume node.
            slice_index: The axial slice with a box or points about the target.
            target: Name of the target.
            segmentation: Segmentation node to grow in; the refined prediction, else SAM's.
            run_id: As in `segment`; without a trained run SAM as it was released is used.
            sam: Which SAM is used without a trained run.
            wait: Return when it has grown.

        Raises:
            SceneError: When there is no such prompt, or no such target.
            EngineError: When the engine failed.
        """
        volume = working_volume(volume)
        self.engine.require_free()
        found = next((one for one in self.targets() if one.name == target), None)
        if found is None:
            names = ", ".join(one.name for one in self.targets())
            msg = f"'{target}' is no target of the project; choose one of {names}."
            raise SceneError(msg)
        growth = begin_growth(volume, segmentation, found, slice_index)
        self.growths.append(growth)
        self.grow_again(growth, run_id, sam=sam, wait=wait)
        return growth

    def grow_again(
        self, growth: Growth, run_id: str | None = None, *, sam: str = "vit_t", wait: bool = True
    ) -> None:
        """Let a lesion grow from its prompts as they are now; see `grow`."""
        arguments, prepare = self._about(growth.volume, run_id)
        arguments["sam"] = {"model": sam} if arguments["run"] is None else None
        folder = Path(arguments.pop("output"))
        self.engine.start(growth_job(growth, self.targets(), arguments, prepare, folder))
        self.growing = growth
        if wait:
            self._wait(self.engine)

    def correct_growth(self, growth: Growth) -> bool:
        """Let further prompts in or beside a lesion belong to it; `grow_again` follows them.

        Returns:
            Whether there were any.
        """
        return claim_corrections(growth)

    def undo_growth(self, growth: Growth | None = None) -> Growth | None:
        """Take back a lesion that has grown, with its prompts; the last one when None.

        Returns:
            What was taken back; None when there was nothing.
        """
        growth = growth or next(iter(self.growths[::-1]), None)
        if growth is None:
            return None
        if growth is self.growing:
            self.growing = None
            self.engine.cancel()
        self.growths.remove(growth)
        remove_growth(growth)
        return growth

    def forget_scene(self) -> None:
        """Forget nodes that go away with the scene."""
        super().forget_scene()
        self.growths, self.growing = [], None

    def release_case(self, case_id: str) -> bool:
        """Take a case out of the scene, with what is known of the lesions that grew on it."""
        is_gone = super().release_case(case_id)
        self.growths = [growth for growth in self.growths if growth.is_there]
        return is_gone

    def prompts(self, volume: Any, slice_index: int | None = None) -> list[Any]:
        """Return the prompts in force: the proposed ones and those of the scene."""
        return read_prompts(volume, self.proposed(volume), slice_index)

    def proposed(self, volume: Any) -> list[Any]:
        """Return the prompts that the run proposed for a volume."""
        return proposed_prompts(find_prediction(volume, "prompts"))

    def predictions(self, volume: Any) -> dict[str, Any]:
        """Return the segmentation nodes about a volume that are in the scene, by source."""
        found = {source: find_prediction(volume, source) for source in SOURCES}
        return {source: node for source, node in found.items() if node is not None}

    # -- training ------------------------------------------------------------------------------

    def train(
        self, preset: str = "quick", changes: dict[str, Any] | None = None, *, wait: bool = True
    ) -> str:
        """Train on the open project in the child process.

        Args:
            preset: Named settings.
            changes: Of single settings, as in `RunConfig`; groups may be given in part.
            wait: Return when it is done.

        Returns:
            Id of the run; empty without `wait`.
        """
        changes = changes or {}
        device = changes.get("device", chosen_device())
        settings = {"preset": preset, "overrides": changes}
        return self._train("train", {"settings": settings, "device": device}, wait)

    def estimate(
        self, preset: str = "quick", changes: dict[str, Any] | None = None, *, wait: bool = True
    ) -> EstimateFacts | None:
        """Estimate how long a training on the open project would take on this computer.

        Args:
            preset: As in `train`.
            changes: As in `train`.
            wait: Return the estimate; else None at once.
        """
        from aslseg.engine.facts import EstimateFacts

        changes = changes or {}
        arguments = {
            "project": str(self.opened().folder),
            "settings": {"preset": preset, "overrides": changes},
            "device": changes.get("device", chosen_device()),
        }
        self.engine.start(Job("estimate", arguments))
        return self._wait(self.engine).facts_as(EstimateFacts) if wait else None

    def resume(self, run_id: str | None = None, *, more_rounds: int = 0, wait: bool = True) -> str:
        """Go on with a run that was stopped, or train further rounds with what was reviewed since.

        Args:
            run_id: The latest one when None.
            more_rounds: Rounds to train beyond those that the run has; 0 only finishes it.
            wait: Return when it is done.
        """
        arguments = {"run": run_id, "rounds": more_rounds, "device": chosen_device()}
        return self._train("resume", arguments, wait)

    def train_on(self, run_id: str | None = None, *, wait: bool = True) -> str:
        """Let a run learn from the lesions that were decided about since, in a short round.

        Args:
            run_id: The latest one when None.
            wait: Return when it is done.
        """
        return self._train("train_on", {"run": run_id, "device": chosen_device()}, wait)

    # -- many cases at once --------------------------------------------------------------------

    def export_project(
        self,
        folder: Path | str,
        *,
        format: ExportFormat = "nifti",  # noqa: A002 - as in `ExportOptions`
        labels: LabelChoice = "accepted",
        cases: Sequence[str] | None = None,
        run_id: str | None = None,
        replace: bool = False,
        wait: bool = True,
    ) -> ExportFacts | None:
        """Write label maps of the open project, with their origin and what they measure.

        Args:
            folder: Where to.
            format: `nifti`, `nnunet`, `dicom_seg`, or `tables` for CSV files alone.
            labels: `human`, `accepted` (with those that people accepted), or `all` (of a run too).
            cases: Names of cases; all when None.
            run_id: Whose predictions `all` takes; the latest with a finished round when None.
            replace: Whether files that the export did not write may be replaced.
            wait: Return when it is done.

        Returns:
            How many label maps, and what was left out; None without `wait`.
        """
        from aslseg.engine.facts import ExportFacts

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
        return self._wait(self.batch).facts_as(ExportFacts) if wait else None

    def segment_folder(
        self,
        images: Path | str,
        output: Path | str,
        run_id: str | None = None,
        *,
        replace: bool = False,
        wait: bool = True,
    ) -> FolderFacts | None:
        """Segment the volumes of a folder with a run of the open project; none becomes a case.

        Called again, it goes on where it was stopped.

        Args:
            images: Folder of image files and DICOM folders.
            output: Where label maps, their origin and tables go.
            run_id: The latest with a finished round when None.
            replace: Whether files that this program did not write may be replaced.
            wait: Return when it is done.

        Returns:
            What became of the volumes; None without `wait`.
        """
        from aslseg.engine.facts import FolderFacts

        arguments = {
            "project": str(self.opened().folder),
            "run": run_id,
            "images": str(images),
            "output": str(output),
            "replace": replace,
            "device": chosen_device(),
        }
        self.batch.start(Job("segment_folder", arguments))
        return self._wait(self.batch).facts_as(FolderFacts) if wait else None

    def case_overviews(self, *, wait: bool = True) -> list[CaseOverview]:
        """Return a row for each case: state, what is labelled, lesions, volumes, reliability.

        Args:
            wait: Measure what is not known yet first, which reads each such image once.
        """
        if self.state is None:
            return []
        self.overview.rows(self.state)
        self.overview.measure()
        while wait and self._measuring.is_busy:
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
            labelled=len(project.labelled),
            unlabelled=len(project.unlabelled),
            is_training=self.trainer.is_busy,
        )
        if known.is_training or not state.runs:  # what follows is read from files
            return next_step(known)
        decided = sum(report.state in DECIDED for report in state.reports)
        return next_step(
            replace(
                known,
                run_state=state.runs[0].state,
                has_round=state.run is not None,
                waiting=len(state.waiting),
                decided=decided if state.run is not None else 0,
            )
        )

    # -- about this computer -------------------------------------------------------------------

    def describe(self, device: str | None = None, *, wait: bool = True) -> ComputerFacts | None:
        """Return which device the engine would use, and which SAM weights are here.

        Returns:
            None without `wait`.
        """
        from aslseg.engine.facts import ComputerFacts

        self.engine.start(Job("describe", {"device": device or chosen_device()}))
        return self._wait(self.engine).facts_as(ComputerFacts) if wait else None

    def download(self, model: str, *, wait: bool = True) -> WeightsFacts | None:
        """Download the weights of a SAM, such as `vit_t`, check them, and return where they are.

        Returns:
            None without `wait`.
        """
        from aslseg.engine.facts import DownloadFacts

        self.engine.start(Job("download", {"model": model}))
        return self._wait(self.engine).facts_as(DownloadFacts).weights if wait else None

    def remove_weights(self, model: str, *, wait: bool = True) -> list[str]:
        """Delete the downloaded weights of a SAM; a file that a person put there stays.

        Returns:
            The paths of the deleted files; empty without `wait`.
        """
        from aslseg.engine.facts import RemovalFacts

        self.engine.start(Job("remove", {"model": model}))
        return self._wait(self.engine).facts_as(RemovalFacts).removed if wait else []

    # -- within --------------------------------------------------------------------------------

    def _train(self, do: str, arguments: dict[str, Any], wait: bool) -> str:
        from aslseg.engine.facts import RunFacts

        project = self.opened()
        self.trainer.start(Job(do, {"project": str(project.folder), **arguments}))
        if not wait:
            return ""
        done = self._wait(self.trainer)
        self.refresh()
        return done.facts_as(RunFacts).run

    def _about(
        self, volume: Any, run_id: str | None, organs: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], Callable[[], None] | None]:
        run = self.usable_run(run_id)
        if run_id and run is None:
            msg = (
                f"Run {run_id} cannot be used: the open project has no run of that name with a "
                "finished round. Choose another run, or let the latest one be used."
            )
            raise RunError(msg)
        self.working_on = volume
        folder = self._scratch() / volume.GetID()
        image, prepare = file_for(volume, folder)
        files: dict[str, str] = {}
        writes: list[Callable[[], None]] = []
        if run is not None and (organs is not None or self._are_organs_given()):
            files, writes = self._organ_files(volume, organs, folder)
        steps = [*([prepare] if prepare else []), *writes]
        arguments = {
            "image": str(image),
            "project": str(self.project.folder) if self.project else None,
            "run": run,
            "output": str(folder),
            "device": chosen_device(),
            "organs": files,
        }
        return arguments, partial(_do_all, steps) if steps else None

    def _are_organs_given(self) -> bool:
        cases = () if self.project is None else self.project.cases
        return any(self._files_of.values()) or any(case.masks for case in cases)

    def _predictions_after(self, volume: Any, wait: bool) -> dict[str, Any]:
        if wait:
            self._wait(self.engine)
        return self.predictions(volume)

    def _wait(self, engine: EngineClient) -> Done:
        def breathe() -> None:
            self.poll()
            slicer.app.processEvents()

        return engine.wait(breathe)

    def _engine_for(self, purpose: str) -> EngineClient:
        if purpose not in self._engines:
            engine = EngineClient(self._python, library())
            if purpose == "interactive":
                engine.event.connect(self._follow_growth)
            if purpose == "training":  # predictions leave the project as it is
                engine.event.connect(self._state_may_change)
            self._engines[purpose] = engine
        return self._engines[purpose]

    def _follow_growth(self, event: PanelEvent) -> None:
        if self.growing is None:
            return
        follow(self.growing, event)
        if event.event in ("done", "failed", "cancelled"):
            growth, self.growing = self.growing, None
            if not growth.segment.slices and growth.facts is None and growth in self.growths:
                self.growths.remove(growth)  # it has not begun: its prompts are free again
                withdraw_growth(growth)

    def _note_decided_lesions(self) -> None:
        if self.lesion_review is not None:
            self.overview.forget(self.lesion_review.case_id)

    def _state_may_change(self, event: PanelEvent) -> None:
        if event.event in ("artifact", "done", "failed", "cancelled"):
            self.forget_state()

    def _scratch(self) -> Path:
        if self._folder is None:
            self._folder = new_scratch(Path(slicer.app.temporaryPath))
        return self._folder


def _do_all(steps: Sequence[Callable[[], None]]) -> None:
    for step in steps:
        step()


def new_scratch(parent: Path) -> Path:
    """Make a folder for copies of images; those that a killed application left are deleted."""
    from aslseg.storage import temporary_beside

    with suppress(ImportError):  # psutil comes with the requirements
        from aslseg.storage import sweep

        sweep(parent)
    folder = temporary_beside(parent / "panel")
    folder.mkdir(mode=0o700, parents=True)
    return folder
