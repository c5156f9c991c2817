"""The engine at work for a person: segmenting, SAM's answers, lesions that grow, and their undo."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from aslseg.errors import RunError
from ASLsegLib.engine.background import Background, Signal
from ASLsegLib.engine.client import EngineClient, Job
from ASLsegLib.engine.results import ShownAnswer, proposed_prompts, result_handlers
from ASLsegLib.logic.base import Pending, waiting
from ASLsegLib.logic.growth import (
    Growth,
    GrowthSwap,
    begin_growth,
    claim_corrections,
    follow,
    growth_job,
    withdraw_growth,
)
from ASLsegLib.logic.history import Change
from ASLsegLib.logic.lesion_decisions import LesionDecisionLogic
from ASLsegLib.logic.organ_masks import OrganMaskLogic
from ASLsegLib.logic.scene_changes import Moved, PromptSwap
from ASLsegLib.parameters import chosen_device, chosen_host
from ASLsegLib.paths import library, python_command
from ASLsegLib.scene.prompt_states import read_state
from ASLsegLib.scene.prompts import (
    edited_slices,
    prompted_growths,
    read_prompts,
    release_prompts,
    taken_over,
)
from ASLsegLib.scene.segmentations import (
    Policy,
    find_prediction,
    keep_edits,
    predictions_about,
)
from ASLsegLib.scene.segments import all_segment_ids
from ASLsegLib.scene.volumes import SceneError, file_for, working_volume

if TYPE_CHECKING:
    from aslseg.engine.protocol import Done
    from aslseg.project.project import Project
    from ASLsegLib.engine.client import PanelEvent

FILLING = "fill_between"
"""What the engine is asked to do when no lesion may change by its answer, unless it is shown."""
YIELD_S = 0.005
"""PythonQt keeps the interpreter lock while Slicer's event loop runs, and the threads that write,
read and listen stand still; so `poll` gives the lock up for so long while work is under way."""

Show = Callable[[Any, ShownAnswer], Iterator[str]]
About = tuple[dict[str, Any], Callable[[], None] | None]
"""Arguments about image and models, and what writes their files; None where nothing has to be."""


class Awaited:
    """An answer that has been asked for.

    Attributes:
        is_void: Whether what it answers was taken back meanwhile.
    """

    def __init__(self) -> None:
        self.is_void = False


class InteractiveLogic(LesionDecisionLogic, OrganMaskLogic):
    """The part of the logic that asks the engine about the volume that a person looks at.

    Attributes:
        engine: The child process that segments and refines.
        trainer: The child process that trains, so that segmenting goes on meanwhile.
        batch: The child process that exports and segments folders, beside the other two.
        working_on: The volume node that the last request to the engine is about, or None.
        measuring: Measures cases, beside `background`.
        growing: The lesion that the engine is about, or None.
        filling: The segmentation node that was filled last, or is being filled; or None.
        released: Emits a volume whose prompts belong to no lesion any more, as theirs is gone.
    """

    def __init__(self, python: Sequence[str] | None = None) -> None:
        super().__init__()
        command, home = tuple(python or python_command()), library()
        self.engine = EngineClient(command, home)
        self.trainer = EngineClient(command, home)
        self.batch = EngineClient(command, home)
        self._engines = self.engine, self.trainer, self.batch
        self.engine.event.connect(self._follow_engine)
        self.trainer.event.connect(self._state_may_change)  # predictions leave it as it is
        self.working_on: Any | None = None
        self.measuring = Background()
        self._grown: list[Growth] = []
        self.growing: Growth | None = None
        self.filling: Any | None = None
        self._awaited: Awaited | None = None
        self.released = Signal()
        self.changes.undoing.connect(self._stop_answer)
        self._asked_to = ""
        self._folder: Path | None = None

    @property
    def growths(self) -> list[Growth]:
        """Lesions that have grown since the scene was opened and are in it, in their order."""
        return [growth for growth in self._grown if growth.is_there]

    def poll(self) -> None:
        """Go on with what is under way, for a moment."""
        super().poll()
        self.measuring.poll()
        for engine in self._engines:
            engine.poll()
        if (
            self.background.is_busy
            or self.measuring.is_busy
            or self._ahead.is_busy
            or any(engine.is_busy for engine in self._engines)
        ):
            time.sleep(YIELD_S)

    def cancel(self) -> None:
        """Stop what is under way, but not a training."""
        self.background.cancel()
        self.engine.cancel()

    def close(self) -> None:
        """End the child processes and delete the files that were handed to them."""
        for engine in self._engines:
            engine.close()
        self.background.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @waiting
    def segment(
        self,
        volume: Any,
        run_id: str | None = None,
        *,
        organs: Mapping[str, Any] | None = None,
        may_replace: Policy = keep_edits,
    ) -> Pending[dict[str, Any]]:
        """Segment a volume by a trained run.

        Args:
            volume: Volume node; one under a linear transform is worked on as a hardened copy.
            run_id: Of the open project; its latest usable run when None.
            organs: By target name, a mask that is used in place of the predicted organ: a file, or
                a segmentation node with a segment of that name. A case brings its own.
            may_replace: Asked before segments that a person edited are replaced.

        Returns:
            Segmentation nodes by source: "prompts", "specialist", "sam", "refined".

        Raises:
            SceneError: When the volume cannot be used, or a lesion is being drawn in it.
            RunError: When the run that is named cannot be used.
            EngineError: When the engine failed.
        """
        volume = working_volume(volume)
        self._require_nothing_begun(volume)
        self.changes.note_prompts(volume)
        arguments, prepare = self._about(volume, run_id, organs)
        read, show = result_handlers(volume, None, may_replace)
        word = f"segment {volume.GetName()}"
        show_it = self._shows(Awaited(), volume, show, word)
        self._start_about(volume, Job("segment", arguments, prepare, read, show_it))
        return self._predictions_after(volume)

    @waiting
    def refine(
        self,
        volume: Any,
        slice_index: int | None = None,
        run_id: str | None = None,
        *,
        sam: str = "vit_t",
        may_replace: Policy = keep_edits,
        follows: bool = False,
    ) -> Pending[dict[str, Any]]:
        """Run SAM with the scene's prompts, and refine the label by its result.

        Args:
            volume: Volume node.
            slice_index: Only this slice, which takes the time of one mask decoding; the whole
                volume when None.
            run_id: As in `segment`; without a trained run SAM works alone.
            sam: Which SAM is used without a trained run.
            may_replace: As in `segment`.
            follows: Whether the answer is taken back together with the last change of prompts.
        """
        volume = working_volume(volume)
        self.changes.note_prompts(volume)
        arguments, prepare = self._about(volume, run_id)
        prompts = self.prompts(volume)
        edited = edited_slices(volume)
        sent = edited if slice_index is None else edited & {slice_index}
        arguments["prompts"] = [p.to_json() for p in prompts if p.slice_index in sent]
        arguments["edited_slices"] = sorted(taken_over(volume))
        arguments["slice_index"] = slice_index
        arguments["sam"] = {"model": sam} if arguments["run"] is None else None
        read, show = result_handlers(volume, slice_index, may_replace, prompted=True)
        where = "all slices with prompts" if slice_index is None else f"slice {slice_index}"
        cause = self.history.cause(volume.GetID(), slice_index) if follows else None
        word, awaited = f"answer of SAM, {where}", Awaited()
        show_it = self._shows(awaited, volume, show, word, slice_index, cause)
        self._start_about(volume, Job("refine", arguments, prepare, read, show_it))
        self._awaited = awaited
        if cause is not None:
            cause.is_open = True
        return self._predictions_after(volume)

    @waiting
    def grow(
        self,
        volume: Any,
        slice_index: int,
        target: str,
        *,
        segmentation: Any | None = None,
        run_id: str | None = None,
        sam: str = "vit_t",
    ) -> Pending[Growth]:
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

        Raises:
            SceneError: When there is no such prompt, or no such target.
            RunError: When the run that is named cannot be used.
            EngineError: When the engine failed.
        """
        volume = working_volume(volume)
        self.engine.require_free()
        self.release_removed(volume)
        found = next((one for one in self.targets() if one.name == target), None)
        if found is None:
            names = ", ".join(one.name for one in self.targets())
            msg = f"'{target}' is no target of the project; choose one of {names}."
            raise SceneError(msg)
        about = self._about(volume, run_id)
        self.changes.note_prompts(volume)
        before = read_state(volume)
        growth = begin_growth(volume, segmentation, found, slice_index)
        swap = GrowthSwap(growth, None, PromptSwap(volume, before))
        self.changes.take_prompts(volume)
        self._grown.append(growth)
        word = f"grow {growth.name}, slice {slice_index}"
        size = swap.count_bytes
        growth.change = self.changes.note(volume, word, swap, slice_index, size_bytes=size)
        return self._start_growth(growth, about, sam)

    @waiting
    def grow_again(
        self,
        growth: Growth,
        run_id: str | None = None,
        *,
        sam: str = "vit_t",
        follows: bool = False,
    ) -> Pending[Growth]:
        """Let a lesion grow from its prompts as they are now; see `grow` and `refine`."""
        self.engine.require_free()
        about = self._about(growth.volume, run_id)
        self.changes.note_prompts(growth.volume)
        swap = GrowthSwap(growth, growth.keep())
        self.changes.note(
            growth.volume,
            f"grow {growth.name} again",
            swap,
            growth.first,
            to=self.history.latest(growth.volume.GetID()) if follows else None,
            size_bytes=swap.count_bytes,
        )
        return self._start_growth(growth, about, sam)

    def correct_growth(self, growth: Growth) -> bool:
        """Let further prompts in or beside a lesion belong to it; `grow_again` follows them.

        Returns:
            Whether there were any.
        """
        before = read_state(growth.volume)
        if not claim_corrections(growth):
            return False
        self.changes.note_prompts(growth.volume, before)
        cause = self.history.latest(growth.volume.GetID())
        swap = PromptSwap(growth.volume, before)
        self.changes.note(growth.volume, f"correct {growth.name}", swap, growth.first, to=cause)
        self.changes.take_prompts(growth.volume)
        return True

    @property
    def to_undo(self) -> str:
        """What `undo` would take back, in words; empty for nothing."""
        change = self.history.last_done
        return self.last_decision() if change is None else change.word

    @property
    def to_redo(self) -> str:
        """What `redo` would do again, in words; empty for nothing."""
        change = self.history.last_undone
        return "" if change is None else change.word

    def undo(self) -> str:
        """Take back the last prompt, answer, growth, decision or saved label.

        What was saved stays in the project's history, and the label map before it counts again.

        Returns:
            What was taken back, in words; empty when there was nothing.

        Raises:
            SceneError: When it is about a case that has to be loaded first.
        """
        self.changes.note_all_prompts()
        change, last = self.history.last_done, self.last_decision()
        if change is not None:
            return self._move(change, self.history.undo)
        if last:  # of before the project was opened
            self.undo_decision(last)
        return last

    def redo(self) -> str:
        """Do again what was taken back last; see `undo`."""
        self.changes.note_all_prompts()
        change = self.history.last_undone
        return "" if change is None else self._move(change, self.history.redo)

    def watch_prompts(self, volume: Any) -> None:
        """Take the prompts that a volume comes with for given.

        Those of lesions that have grown in another session are prompts of their slices from now on.
        """
        if not self.changes.are_watched(volume):
            self._release(volume, {growth.segment_id for growth in self.growths})
        self.changes.watch_prompts(volume)

    def release_removed(self, volume: Any) -> None:
        """Let prompts of lesions whose segment was removed be prompts of their slices again.

        A lesion that grows is stopped.
        """
        growing = self.growing
        if growing is not None and growing.volume is volume and not growing.is_there:
            self.engine.cancel()
        if prompted_growths(volume):
            self._release(volume, all_segment_ids())

    def use(self, project: Project) -> Project:
        """Open a project; what is filled for another one is shown there, and not told of here."""
        if self.project is not None and self.project.folder != project.folder:
            self.filling = None
        return super().use(project)

    def release_case(self, case_id: str) -> bool:
        """Take a case out of the scene, unless the engine works on it; see `ProjectLogic`."""
        about = self.working_on
        if self.engine.is_busy and about is not None and about is self.case_node(case_id):
            return False
        is_gone = super().release_case(case_id)
        self.forget_removed_volumes()
        return is_gone

    def forget_scene(self) -> None:
        """Forget nodes that go away with the scene."""
        super().forget_scene()
        self._grown, self.growing = [], None

    def forget_removed_volumes(self) -> None:
        """Forget what was done about volumes that are gone, and the lesions that grew on them."""
        self.changes.forget_removed_volumes()
        is_there = slicer.mrmlScene.IsNodePresent
        self._grown = [growth for growth in self._grown if is_there(growth.volume)]

    def prompts(self, volume: Any, slice_index: int | None = None) -> list[Any]:
        """Return the prompts in force: the proposed ones and those of the scene."""
        return read_prompts(volume, self.proposed(volume), slice_index)

    def proposed(self, volume: Any) -> list[Any]:
        """Return the prompts that the run proposed for a volume."""
        return proposed_prompts(find_prediction(volume, "prompts"))

    def predictions(self, volume: Any) -> dict[str, Any]:
        """Return the segmentation nodes about a volume that are in the scene, by source."""
        return predictions_about(volume)

    # -- within
    def _release(self, volume: Any, lesions: set[str]) -> None:
        """Let prompts of lesions that are none of some belong to none."""
        gone = prompted_growths(volume) - lesions
        if not gone:
            return
        if self.changes.are_watched(volume):
            self.changes.note_prompts(volume)
        for growth in gone:
            release_prompts(volume, growth)
        self.changes.take_prompts(volume)
        self.released.emit(volume)

    def _move(self, change: Change, move: Callable[[], Moved]) -> Moved:
        """Take back or do again; prompts come back without a lesion that was removed by hand."""
        moved = super()._move(change, move)
        volume = slicer.mrmlScene.GetNodeByID(change.volume_id) if change.volume_id else None
        if volume is not None:
            self.release_removed(volume)
        return moved

    def _shows(
        self,
        awaited: Awaited,
        volume: Any,
        show: Show,
        word: str,
        slice_index: int | None = None,
        cause: Change | None = None,
    ) -> Callable[[Any], Iterator[str]]:
        """Let what an answer shows be undone: by itself, or with the change that it answers."""

        def steps(result: Any) -> Iterator[str]:
            shown = ShownAnswer(volume)
            try:
                for step in show(result, shown):
                    if awaited.is_void:
                        break
                    yield step
            except Exception:
                note(shown)
                raise
            if awaited.is_void:
                shown()
            else:
                note(shown)

        def note(shown: ShownAnswer) -> None:
            size = shown.count_bytes
            self.changes.note(volume, word, shown, slice_index, to=cause, size_bytes=size)
            if cause is not None:
                cause.is_open = False

        return steps

    def _start_growth(self, growth: Growth, about: About, sam: str) -> Pending[Growth]:
        arguments, prepare = about
        arguments["sam"] = {"model": sam} if arguments["run"] is None else None
        folder = Path(arguments.pop("output"))
        job = growth_job(growth, self.targets(), arguments, prepare, folder)
        show, awaited = job.show, Awaited()

        def steps(facts: Any) -> Iterator[str]:
            if show is not None and not awaited.is_void:
                yield from show(facts)

        self._start_about(growth.volume, replace(job, show=steps))
        self._awaited, self.growing = awaited, growth

        def result() -> Growth:
            self._wait(self.engine)
            return growth

        return Pending(result)

    def _stop_answer(self, change: Change) -> None:
        """Let no answer come that would show what is being taken back."""
        about = self.working_on
        if self._awaited is None or about is None or about.GetID() != change.volume_id:
            return
        if self.growing is not None:
            self.growing.grown_from = ""  # if it stays, it has to grow again
        self._awaited.is_void, self.growing = True, None
        self.engine.cancel()

    def _about(
        self, volume: Any, run_id: str | None, organs: Mapping[str, Any] | None = None
    ) -> About:
        run = self.usable_run(run_id)
        if run_id and run is None:
            msg = (
                f"Run {run_id} cannot be used: the open project has no run of that name with a "
                "finished round. Choose another run, or let the latest one be used."
            )
            raise RunError(msg)
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

    def _require_answered(self, case_id: str, *, also_fillings: bool = False) -> None:
        """Refuse to decide about what an answer will change; see `LesionLogic`."""
        about = self.working_on
        is_void = self._awaited is not None and self._awaited.is_void
        is_asked = self.engine.is_busy and about is not None and not is_void
        if not is_asked or about is not self.case_node(case_id):
            return
        if also_fillings or self._asked_to != FILLING:
            msg = (
                f"A result about case {case_id} is awaited, which would change what you decide "
                "about, or be taken for drawn; wait until it is shown, or cancel it, then go on."
            )
            raise SceneError(msg)

    def _are_organs_given(self) -> bool:
        cases = () if self.project is None else self.project.cases
        return any(self._files_of.values()) or any(case.masks for case in cases)

    def _predictions_after(self, volume: Any) -> Pending[dict[str, Any]]:
        def result() -> dict[str, Any]:
            self._wait(self.engine)
            return self.predictions(volume)

        return Pending(result)

    def _start(self, engine: EngineClient, job: Job, host: str | None = None) -> None:
        """Begin a job on the computer that is chosen, or on one that is named."""
        engine.work_at(chosen_host() if host is None else host)
        engine.start(job)
        if engine is self.engine:
            self.working_on = None

    def _start_about(self, volume: Any, job: Job) -> None:
        """Begin a job of the engine about a volume, which is stopped when the volume goes."""
        self._start(self.engine, job)
        self.working_on, self._asked_to = volume, job.do

    def _wait(self, engine: EngineClient) -> Done:
        def breathe() -> None:
            self.poll()
            slicer.app.processEvents()

        return engine.wait(breathe)

    def _follow_engine(self, event: PanelEvent) -> None:
        growth, is_over = self.growing, event.event in ("done", "failed", "cancelled")
        if is_over:
            self._awaited = self.growing = None
        if growth is None:
            return
        follow(growth, event)
        if is_over and not growth.segment.slices and growth.facts is None and growth.is_there:
            withdraw_growth(growth)  # it has not begun: its prompts are free again
            self._grown.remove(growth)
            self.changes.take_prompts(growth.volume)
            if growth.change is not None:
                self.history.discard(growth.change)

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
        from aslseg.leftovers import sweep

        sweep(parent)
    folder = temporary_beside(parent / "panel")
    folder.mkdir(mode=0o700, parents=True)
    return folder
