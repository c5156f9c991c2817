"""Everything that the panel does, without the panel: for scripts and for the Python console.

Volumes and segmentations are MRML nodes, projects are the library's. A method that takes `wait`
returns at once when it is False; `poll` has to be called from time to time then, as the panel's
timer does, and the result comes with the event `done`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from aslseg.errors import RunError
from ASLsegLib.background import Background
from ASLsegLib.engine import Engine, Work
from ASLsegLib.export import Exporting
from ASLsegLib.files import file_for
from ASLsegLib.hearing import answer_about, proposed_prompts
from ASLsegLib.home import library, python_command
from ASLsegLib.parameters import chosen_device
from ASLsegLib.project_logic import Projecting
from ASLsegLib.prompt_nodes import edited_slices, read_prompts, taken_over
from ASLsegLib.reviewing import Reviewing
from ASLsegLib.runner import Runner
from ASLsegLib.scene import working_volume
from ASLsegLib.signals import Signal
from ASLsegLib.voices import VOICES, Policy, find_voice, keep_edits

if TYPE_CHECKING:
    from aslseg.project import Project

YIELD_S = 0.005
"""PythonQt keeps the interpreter lock while Slicer's event loop runs, and the threads that write,
read and listen stand still; so `poll` gives the lock up for so long while work is under way."""


class Logic(Projecting, Reviewing, Exporting):
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
        self._verified: set[tuple[str, str]] = set()
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
        if self.background.is_busy or any(engine.is_busy for engine in self._engines.values()):
            time.sleep(YIELD_S)

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
        self.background.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

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
            RunError: When the run that is named cannot be used.
            EngineError: When the engine failed.
        """
        volume = working_volume(volume)
        arguments, prepare = self._about(volume, run_id)
        self.engine.start(
            Work("segment", arguments, prepare, *answer_about(volume, None, may_replace))
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
        asked = spoken if slice_index is None else spoken & {slice_index}
        arguments["prompts"] = [p.to_json() for p in prompts if p.slice_index in asked]
        arguments["edited_slices"] = sorted(taken_over(volume))
        arguments["slice_index"] = slice_index
        arguments["sam"] = {"model": sam} if arguments["run"] is None else None
        answer = answer_about(volume, slice_index, may_replace, prompted=True)
        self.engine.start(Work("refine", arguments, prepare, *answer))
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
        changes = changes or {}
        device = changes.get("device", chosen_device())
        settings = {"preset": preset, "overrides": changes}
        return self._train("train", {"settings": settings, "device": device}, wait)

    def resume(self, run_id: str | None = None, *, more_rounds: int = 0, wait: bool = True) -> str:
        """Go on with a run that was stopped, or train further rounds with what was reviewed since.

        Args:
            run_id: The latest one when None.
            more_rounds: Rounds to train beyond those that the run has; 0 only finishes it.
            wait: Return when it is done.
        """
        arguments = {"run": run_id, "rounds": more_rounds, "device": chosen_device()}
        return self._train("resume", arguments, wait)

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

    def remove_weights(self, model: str, *, wait: bool = True) -> dict[str, Any]:
        """Delete the downloaded weights of a SAM; a file that a person put there stays."""
        self.engine.start(Work("remove", {"model": model}))
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

    def _about(
        self, volume: Any, run_id: str | None
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
        image, prepare = file_for(volume, folder / "image.nrrd")
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
            engine = Engine(Runner(self._python, library()), self.background)
            if purpose == "training":  # answers leave the project as it is
                engine.event.connect(self._hear_changes)
            self._engines[purpose] = engine
        return self._engines[purpose]

    def _hear_changes(self, event: dict[str, Any]) -> None:
        if event.get("event") in ("artifact", "done", "failed", "cancelled"):
            self.forget_state()

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
            self._folder = new_scratch(Path(slicer.app.temporaryPath))
        return self._folder


def new_scratch(parent: Path) -> Path:
    """Make a folder for copies of images; those that a killed application left are deleted."""
    from aslseg.storage import temporary_beside

    with suppress(ImportError):  # psutil comes with the requirements
        from aslseg.sweeping import sweep

        sweep(parent)
    folder = temporary_beside(parent / "panel")
    folder.mkdir(mode=0o700, parents=True)
    return folder
