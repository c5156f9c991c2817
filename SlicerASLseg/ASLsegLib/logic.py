"""Everything that the panel does, without the panel: for scripts and for the Python console.

Volumes and segmentations are MRML nodes, projects are the library's. A method that takes `wait`
returns at once when it is False; `poll` has to be called from time to time then, as the panel's
timer does, and the result comes with the event `done`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from ASLsegLib import projects
from ASLsegLib.background import Background
from ASLsegLib.engine import Engine, Work
from ASLsegLib.export import Exporting
from ASLsegLib.files import file_for, own_file
from ASLsegLib.hearing import proposed_prompts, read_answer, show_answer, show_slice
from ASLsegLib.home import library
from ASLsegLib.parameters import chosen_device
from ASLsegLib.prompt_nodes import edited_slices, read_prompts, taken_over
from ASLsegLib.reviewing import Reviewing
from ASLsegLib.runner import Runner
from ASLsegLib.scene import SceneError, add_volume, volume_of, working_volume
from ASLsegLib.signals import Signal
from ASLsegLib.voices import VOICES, Policy, find_voice, keep_edits

if TYPE_CHECKING:
    from aslseg.project import Project

CASE = "ASLseg.Case"
"""Attribute of a volume node: the case that it is."""


class Logic(Reviewing, Exporting):
    """Opens projects, segments, refines, trains, reviews and exports.

    Attributes:
        project: The open project, or None.
        background: Reads and writes files beside the application.
        working_on: The volume node that the engine was last asked about, or None.
        project_changed: Emits whenever the project, or what is known about its cases, has changed.
        failed: Emits the error of work in the background that nobody waits for.
    """

    def __init__(self, python: Sequence[str] | None = None) -> None:
        self.project: Project | None = None
        self.background = Background()
        self.project_changed, self.failed = Signal(), Signal()
        self._python = tuple(python or python_command())
        self._engines: dict[str, Engine] = {}
        self.working_on: Any | None = None
        self._folder: Path | None = None

    @property
    def engine(self) -> Engine:
        """The child process that answers at once: it segments and refines."""
        return self._engine_for("answers")

    @property
    def trainer(self) -> Engine:
        """The child process that trains, so that segmenting goes on meanwhile."""
        return self._engine_for("training")

    def poll(self) -> None:
        """Go on with what is under way, for a moment."""
        self.background.poll()
        for engine in self._engines.values():
            engine.poll()

    def cancel(self) -> None:
        """Stop what is under way, but not a training."""
        self.background.cancel()
        self.engine.cancel()

    def stop_training(self) -> None:
        """Stop the training; `resume` goes on from its last checkpoint."""
        self.trainer.cancel()

    def close(self) -> None:
        """End the child processes and delete the files that were handed to them."""
        for engine in self._engines.values():
            engine.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # -- projects ------------------------------------------------------------------------------

    def open_project(self, folder: Path | str) -> Project:
        """Open the project in a folder.

        Raises:
            ProjectError: When there is none, or it contradicts itself.
        """
        from aslseg.project import open_project

        return self._use(open_project(Path(folder)))

    def close_project(self) -> None:
        """Forget the project; nothing on disk changes."""
        self.project = None
        self.project_changed.emit()

    def create_phantom_project(
        self, folder: Path | str, *, cases: int = 12, labelled: int = 2, wait: bool = True
    ) -> Project | None:
        """Make and open a project of made-up patients, and one of them is for validation.

        Args:
            folder: New or empty.
            cases: How many volumes.
            labelled: How many of them have a label map.
            wait: Return the project; else None at once.
        """
        return self._in_background(
            "making phantoms",
            lambda m: projects.make_phantom_project(Path(folder), cases, labelled, m),
            self._use,
            wait,
        )

    def add_volume(
        self,
        volume: Any,
        case_id: str | None = None,
        *,
        folder: Path | str | None = None,
        wait: bool = True,
    ) -> Project | None:
        """Add a volume of the scene to the project, or make one with it.

        A volume that was read from a file and is unchanged is named by that file; any other is
        written to the project.

        Args:
            volume: Volume node.
            case_id: Name of the case; made from the node's name when None.
            folder: Of a new project; the open one's when None.
            wait: Return the project; else None at once.

        Raises:
            SceneError: When no project is open and no folder is given.
        """
        volume = working_volume(volume)
        place, name = self._place(folder), case_id or projects.good_case_id(volume.GetName())
        image = own_file(volume) or volume_of(volume)
        volume.SetAttribute(CASE, name)
        return self._in_background(
            "adding a volume",
            lambda m: projects.add_volume(place, name, image, m),
            self._use,
            wait,
        )

    def add_folder(
        self, images: Path | str, *, folder: Path | str | None = None, wait: bool = True
    ) -> Project | None:
        """Add all images of a folder to the project, or make one with them.

        Args:
            images: Holds NIfTI, NRRD or MetaImage files, or folders of DICOM slices; label maps
                beside them come along.
            folder: Of a new project; the open one's when None.
            wait: Return the project; else None at once.
        """
        place = self._place(folder)
        return self._in_background(
            "adding a folder",
            lambda m: projects.add_folder(place, Path(images), m),
            self._use,
            wait,
        )

    def load_case(self, case_id: str, *, wait: bool = True) -> Any | None:
        """Load a case into the scene, or find it there.

        Returns:
            The volume node; None at once without `wait`.
        """
        project = self._opened()
        node = self.case_node(case_id)
        if node is not None:
            return node
        case = project.case(case_id)

        def show(volume: Any) -> Any:
            loaded = add_volume(volume, case_id)
            loaded.SetAttribute(CASE, case_id)
            if volume.voxels.min() < 0:  # HU, and not the grey values of an MRI
                loaded.GetDisplayNode().AutoWindowLevelOff()
                loaded.GetDisplayNode().SetWindowLevelMinMax(*CT_WINDOW_HU)
            return loaded

        return self._in_background("loading a case", lambda _: project.load_image(case), show, wait)

    def case_node(self, case_id: str) -> Any | None:
        """Return the volume node of a case if it is in the scene."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        return next((node for node in nodes if node.GetAttribute(CASE) == case_id), None)

    def save_label(
        self, segmentation: Any, case_id: str, volume: Any | None = None, *, wait: bool = True
    ) -> Project | None:
        """Keep a segmentation as the label map of a case, to be learnt from with full weight.

        Args:
            segmentation: Segmentation node with segments named like the targets.
            case_id: Name of the case.
            volume: The case's volume node; found in the scene when None.
            wait: Return the project; else None at once.

        Raises:
            SceneError: When no segment has the name of a target.
        """
        return self._save_label(segmentation, case_id, volume, "labelled", wait)

    # -- segmenting ----------------------------------------------------------------------------

    def segment(
        self,
        volume: Any,
        run_id: str | None = None,
        *,
        wait: bool = True,
        may_replace: Policy = keep_edits,
    ) -> dict[str, Any]:
        """Let a trained run segment a volume.

        Args:
            volume: Volume node; one under a linear transform is worked on as a hardened copy.
            run_id: Of the open project; its latest usable run when None.
            wait: Return when the nodes are there.
            may_replace: Asked before segments that a person edited are replaced.

        Returns:
            Segmentation nodes by voice: "prompts", "specialist", "sam", "refined".

        Raises:
            SceneError: When the volume cannot be used.
            EngineError: When the engine failed.
        """
        volume = working_volume(volume)
        arguments, prepare = self._about(volume, run_id)
        self.engine.start(
            Work(
                "segment",
                arguments,
                prepare,
                read_answer,
                lambda heard: show_answer(volume, heard, may_replace),
            )
        )
        return self._voices_after(volume, wait)

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
        """Ask SAM again with the scene's prompts, and let the refined label follow.

        Args:
            volume: Volume node.
            slice_index: Only this slice, which takes the time of one mask decoding; the whole
                volume when None.
            run_id: As in `segment`; without a trained run SAM answers alone.
            sam: Which SAM answers without a trained run.
            wait: As in `segment`.
            may_replace: As in `segment`.
        """
        volume = working_volume(volume)
        arguments, prepare = self._about(volume, run_id)
        prompts = self.prompts(volume)
        spoken = edited_slices(volume)
        arguments["prompts"] = [p.to_json() for p in prompts if p.slice_index in spoken]
        arguments["edited_slices"] = sorted(taken_over(volume))
        arguments["slice_index"] = slice_index
        arguments["sam"] = {"model": sam} if arguments["run"] is None else None
        shown = show_answer if slice_index is None else show_slice
        self.engine.start(
            Work(
                "refine",
                arguments,
                prepare,
                read_answer,
                lambda heard: shown(volume, heard, may_replace),
            )
        )
        return self._voices_after(volume, wait)

    def prompts(self, volume: Any, slice_index: int | None = None) -> list[Any]:
        """Return what SAM is asked with: proposed prompts and those of the scene."""
        return read_prompts(volume, self.proposed(volume), slice_index)

    def proposed(self, volume: Any) -> list[Any]:
        """Return the prompts that the run proposed for a volume."""
        return proposed_prompts(find_voice(volume, "prompts"))

    def voices(self, volume: Any) -> dict[str, Any]:
        """Return the segmentation nodes about a volume that are in the scene, by voice."""
        found = {voice: find_voice(volume, voice) for voice in VOICES}
        return {voice: node for voice, node in found.items() if node is not None}

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
        settings = {"preset": preset, "overrides": changes or {}}
        return self._train("train", {"settings": settings}, wait)

    def resume(self, run_id: str | None = None, *, more_rounds: int = 0, wait: bool = True) -> str:
        """Go on with a run that was stopped, or train further rounds with what was reviewed since.

        Args:
            run_id: The latest one when None.
            more_rounds: Rounds to train beyond those that the run has; 0 only finishes it.
            wait: Return when it is done.
        """
        return self._train("resume", {"run": run_id, "rounds": more_rounds}, wait)

    def runs(self) -> list[projects.RunRow]:
        """Return the runs of the open project, latest first."""
        return [] if self.project is None else projects.list_runs(self.project)

    def usable_run(self, run_id: str | None = None) -> str | None:
        """Return the run that would segment: the given or latest one with a finished round."""
        usable = [run.run_id for run in self.runs() if run.is_usable]
        if run_id:
            return run_id if run_id in usable else None
        return usable[0] if usable else None

    # -- about this computer -------------------------------------------------------------------

    def describe(self, device: str | None = None, *, wait: bool = True) -> dict[str, Any]:
        """Ask the engine which device it would use, and which SAM weights are here.

        Returns:
            `device` with name and reason, and `weights` by model; empty without `wait`.
        """
        self.engine.start(Work("describe", {"device": device or chosen_device()}))
        return self._wait(self.engine) if wait else {}

    def download(self, model: str, *, wait: bool = True) -> dict[str, Any]:
        """Download the weights of a SAM, such as `vit_t`, and check them."""
        self.engine.start(Work("download", {"model": model}))
        return self._wait(self.engine) if wait else {}

    # -- within --------------------------------------------------------------------------------

    def _train(self, do: str, arguments: dict[str, Any], wait: bool) -> str:
        project = self._opened()
        self.trainer.start(Work(do, {"project": str(project.folder), **arguments}))
        if not wait:
            return ""
        done = self._wait(self.trainer)
        self.refresh()
        return str(done["facts"]["run"])

    def refresh(self) -> None:
        """Read the project again, for the engine or another program may have changed it."""
        if self.project is not None:
            self.open_project(self.project.folder)

    def _about(
        self, volume: Any, run_id: str | None
    ) -> tuple[dict[str, Any], Callable[[], None] | None]:
        self.working_on = volume
        folder = self._scratch() / volume.GetID()
        image, prepare = file_for(volume, folder / "image.nrrd")
        run = self.usable_run(run_id)
        arguments = {
            "image": str(image),
            "project": str(self.project.folder) if self.project else None,
            "run": run,
            "output": str(folder),
            "device": chosen_device(),
        }
        return arguments, prepare

    def _voices_after(self, volume: Any, wait: bool) -> dict[str, Any]:
        if wait:
            self._wait(self.engine)
        return self.voices(volume)

    def _wait(self, engine: Engine) -> dict[str, Any]:
        def breathe() -> None:
            self.poll()
            slicer.app.processEvents()

        return engine.wait(breathe)

    def _engine_for(self, purpose: str) -> Engine:
        if purpose not in self._engines:
            self._engines[purpose] = Engine(Runner(self._python, library()), self.background)
        return self._engines[purpose]

    def _in_background(
        self, name: str, work: Callable[[Any], Any], then: Callable[[Any], Any], wait: bool
    ) -> Any:
        """Do something in the thread; return its result, or None at once without `wait`."""
        ended: list[Any] = []
        failures: list[Exception] = []
        failed = failures.append if wait else self.failed.emit
        self.background.start(name, work, lambda value: ended.append(then(value)), failed)
        if not wait:
            return None
        while self.background.is_busy:
            self.poll()
            slicer.app.processEvents()
        if failures:
            raise failures[0]
        return ended[0]

    def _scratch(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ASLseg-", dir=slicer.app.temporaryPath))
        return self._folder

    def _place(self, folder: Path | str | None) -> Path:
        if folder is not None:
            return Path(folder)
        return self._opened().folder

    def _opened(self) -> Project:
        if self.project is None:
            msg = "No project is open; open one, or make one with the first volume."
            raise SceneError(msg)
        return self.project

    def _use(self, project: Project) -> Project:
        self.project = project
        self.project_changed.emit()
        return project


CT_WINDOW_HU = (-100.0, 240.0)
"""Grey values of a case that is loaded: an abdominal window."""


def python_command() -> list[str]:
    """Return the command of the Python that runs the engine: Slicer's own."""
    beside = shutil.which("PythonSlicer", path=str(Path(sys.executable).parent))
    return [beside or shutil.which("PythonSlicer") or sys.executable]
