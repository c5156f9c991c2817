"""Start, resume and continue runs: what the command line, the panel and scripts call."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aslseg.config import RunConfig
from aslseg.context import RunContext
from aslseg.data.images import write_labelmap
from aslseg.data.orientation import ORIENTATION
from aslseg.errors import RunError
from aslseg.evaluation.round_changes import write_changes
from aslseg.events import Monitor, PlannedStep, RunFollower
from aslseg.inference.cascade import is_given
from aslseg.inference.loading import context_of
from aslseg.methods import training_of
from aslseg.networks.device import choose_device, tune_allocator
from aslseg.project.external_labels import copy_for_training
from aslseg.project.image_digests import check_images
from aslseg.project.project import Project, changing, open_project, upgrade_project
from aslseg.project.run_folder import (
    RunFolder,
    check_orientation,
    create_run,
    open_run,
    require_trained,
    running,
    write_settings,
)
from aslseg.project.windows import Intensities, intensities_of, window_notes
from aslseg.storage import inside, sha256_of, write_json_atomic
from aslseg.targets import CascadeStage, cascade_stages
from aslseg.training.calibration import Speed, speed_of
from aslseg.training.cascade import PseudoLabel, scheduled, step_voxels
from aslseg.training.cross_fitting import folds_of
from aslseg.training.fusion import fold_steps
from aslseg.training.rounds import (
    COMPARING,
    SEGMENTING,
    Round,
    RoundOutcome,
    RunRound,
    read_prediction,
    restore_outcome,
)


def start_run(
    project: Project,
    config: RunConfig,
    monitor: Monitor | None = None,
    run_id: str | None = None,
    *,
    cache: Path | None = None,
) -> RunFolder:
    """Run all rounds of a method on a project, and write a label map for every volume.

    Args:
        project: The cases.
        config: Method and settings.
        monitor: Gets the events.
        run_id: Name of the run's folder; made up if there is none.
        cache: Folder of embeddings that several projects share; the project's own if there is none.

    Returns:
        The run's folder.

    Raises:
        ProjectError: When no training case has a label.
        CancelledError: When asked to stop; `resume_run` goes on from there.
        AslsegError: When a file, a setting, the device or the disk is at fault.
    """
    training_of(config.method)
    _ready(project, monitor)
    choose_device(config.device)
    folder = create_run(project.folder, config, run_id)
    return _run(project, folder, monitor or Monitor(), cache=cache)


def resume_run(
    project: Project,
    run_id: str | None = None,
    monitor: Monitor | None = None,
    *,
    cache: Path | None = None,
    device: str | None = None,
) -> RunFolder:
    """Go on with a run that was stopped, or the latest one; the result is that of an unbroken run.

    Args:
        project: With the cases of the run.
        run_id: Name of the run; the latest one if not given.
        monitor: Gets the events, and may ask to stop.
        cache: As in `start_run`.
        device: Where to compute, instead of where the run's settings say. On another device the
            numbers differ in their last digits.

    Raises:
        RunError: When there is no such run.
        AslsegError: As `start_run`.
    """
    folder = require_trained(open_run(project.folder, run_id))
    _ready(project, monitor)
    return _run(project, folder, monitor or Monitor(), cache=cache, device=device)


def continue_run(
    project: Project,
    run_id: str | None = None,
    rounds: int = 1,
    monitor: Monitor | None = None,
    *,
    device: str | None = None,
) -> RunFolder:
    """Go on with a run for more rounds, with the labels that the project has now.

    Cases that a person accepted or corrected since then are trained on like those that were
    labelled at the start; if any label has changed, SAM and the adaptation network are tuned anew
    on all of them. Finished rounds stay as they are.

    Args:
        project: With its labels of now.
        run_id: Name of the run; the latest one if not given.
        rounds: How many rounds follow the last finished one.
        monitor: Gets the events, and may ask to stop.
        device: As in `resume_run`.

    Raises:
        RunError: When there is no such run, or none of its rounds is finished.
        AslsegError: As `start_run`.
    """
    if rounds < 1:
        msg = f"At least one more round is needed, got {rounds}."
        raise RunError(msg)
    folder = require_trained(open_run(project.folder, run_id))
    _ready(project, monitor)
    return _run(project, folder, monitor or Monitor(), rounds, device=device)


def estimate_run(
    project: Project, config: RunConfig, monitor: Monitor | None = None
) -> RunEstimate:
    """Estimate how long a run would take on this computer; measured in seconds, then kept.

    Args:
        project: With at least one labelled case.
        config: The settings.
        monitor: Told of the progress, and may ask to stop.

    Raises:
        ProjectError: When nothing is labelled.
        DeviceError: When the device of the settings cannot be used.
    """
    project.require_labels()
    device = choose_device(config.device).torch_device
    speed = speed_of(config, trained_stages(project)[0], device, monitor)
    return estimate_of(planned_steps(config, project, speed))


def train_on(
    project: Project,
    run_id: str | None = None,
    monitor: Monitor | None = None,
    *,
    device: str | None = None,
) -> RunFolder:
    """Let a run learn from decisions about lesions that were made since, in a short round.

    The stages of lesions go on from their weights for `review_share` of their schedule, on the
    labels and decided lesions of now; all else stays as it is. `continue_run` trains all.

    Args:
        project: With its labels and decisions of now.
        run_id: Name of the run; the latest one if not given.
        monitor: Gets the events, and may ask to stop.
        device: As in `resume_run`.

    Raises:
        RunError: When there is no such run, none of its rounds is finished, its method trains no
            stage of lesions by itself, or nothing was decided since.
        AslsegError: As `start_run`.
    """
    folder = require_trained(open_run(project.folder, run_id))
    if folder.config.method != "aslseg" or all(t.inside is None for t in project.targets):
        msg = (
            f"Run '{folder.run_id}' cannot be trained on from a review: that takes the method "
            "aslseg, and a target inside another one. Add a round instead (--more 1)."
        )
        raise RunError(msg)
    _ready(project, monitor)
    return _run(project, folder, monitor or Monitor(), 1, device=device, short=True)


START = "start"
"""Folder of a run with the labels of another model that its first round learns from."""
LOOKED_AT = 8
"""Labelled cases whose intensities are compared with the windows of the settings."""


@dataclass
class _Progress:
    """What the loop over rounds carries along.

    Attributes:
        patience_start: Patience is counted from here: rounds before were asked for earlier.
        outcome: Of the last round that was run here.
        best: Number of the best round.
        best_score: What it was chosen by, as `RunFolder.score_of`.
    """

    patience_start: int = 1
    outcome: RoundOutcome | None = None
    best: int = 0
    best_score: float = -math.inf

    def worse_for(self, number: int) -> int:
        """Return how many rounds have passed since the best one."""
        return number - max(self.best, self.patience_start - 1)

    def take(self, number: int, score: float) -> None:
        """Note a finished round; where nothing was measured the latest is the best."""
        if math.isnan(score) or score > self.best_score:
            self.best = number
            self.best_score = score


def _ready(project: Project, monitor: Monitor | None) -> None:
    """Make sure that there is something to train on, and that all images are the known ones."""
    project.require_labels()
    check_images(project.folder, project.cases, monitor)
    upgrade_project(project.folder)


def _same_images(project: Project, folder: RunFolder) -> None:
    """Note the images that a run works with, which stay the same while it goes on."""
    now = {case.id: case.image_sha256 for case in project.cases if case.image_sha256 is not None}
    before = folder.status.get("images", {})
    changed = [name for name, digest in now.items() if before.get(name, digest) != digest]
    if changed:
        msg = (
            f"Run '{folder.run_id}' has seen another image of case {changed[0]} than the project "
            "has now; start a new run."
        )
        raise RunError(msg)
    folder.write_status(images={**before, **now})


def _run(
    project: Project,
    folder: RunFolder,
    monitor: Monitor,
    more: int = 0,
    *,
    cache: Path | None = None,
    device: str | None = None,
    short: bool = False,
) -> RunFolder:
    choose_device(device or folder.config.device)  # before the run says that it is running
    tune_allocator()
    with running(folder, monitor) as recording:
        check_orientation(project, folder, recording)
        _same_images(project, folder)
        is_new = not more and "label_digests" not in folder.status
        if more or is_new:
            project, known = _labels_of(project)
        if more:
            _lengthen(folder, more, known, short=short)
        elif is_new:
            given = list(project.given_organs)
            folder.write_status(retrained_rounds=[1], given_targets=given, **known)
            _take_start_labels(project, folder)
        _check_masks(project, folder, recording)
        config = folder.config
        facts = {"method": config.method, "sam": config.sam.model, "orientation": ORIENTATION}
        folder.write_status(rounds=config.rounds, **facts)
        steps = planned_steps(
            config,
            project,
            retrained_rounds=folder.retrained_rounds,
            short_rounds=folder.short_rounds,
        )
        followed = replace(recording, listener=RunFollower(steps, recording.listener))
        context = context_of(project, folder, followed, cache, device=device)
        if is_new:
            _warn_of_windows(context)
        best = _rounds(context, training_of(config.method))
        _write_results(context, best)
    return folder


def _take_start_labels(project: Project, folder: RunFolder) -> None:
    """Copy the labels of another model that a run begins with, which stay the same meanwhile."""
    if folder.config.start_labels:
        learnt = copy_for_training(project, folder.config.start_labels, folder.path / START)
        folder.write_status(start_targets=learnt)


def _start_labels(folder: RunFolder) -> dict[str, PseudoLabel]:
    """Return the labels of another model that round 1 learns from."""
    learnt = folder.status.get("start_targets", {})
    return {
        name: PseudoLabel(folder.path / START / f"{name}.nii.gz", frozenset(targets))
        for name, targets in learnt.items()
    }


def _check_masks(project: Project, folder: RunFolder, monitor: Monitor) -> None:
    """Say which organs are not learnt, and make sure that masks are those that the run knows.

    Raises:
        RunError: When a mask is not the one of before, or a case has none of an organ that the run
            does not learn.
    """
    known = folder.status.get("label_digests", {})
    for case in project.cases:
        for name in folder.status.get("given_targets", ()):
            if name not in case.masks:
                msg = (
                    f"Run '{folder.run_id}' does not learn {name}, for every case had a mask of "
                    f"it, and {case.id} has none; give it one, or start a new run."
                )
                raise RunError(msg)
        for name, place in case.masks.items():
            key = place.as_posix()
            if key in known and known[key] != sha256_of(inside(project.folder, place)):
                msg = (
                    f"The mask of {name} of case {case.id} is not the one that run "
                    f"'{folder.run_id}' began with; add rounds to the run, or start a new one."
                )
                raise RunError(msg)
    for stage in cascade_stages(project.targets):
        if is_given(stage, folder.status.get("given_targets", ())):
            name = ", ".join(target.name for target in stage.targets)
            monitor.warn(f"Every case has a mask of {name}: it is not trained, the masks are used.")


def _warn_of_windows(context: RunContext) -> None:
    """Say which targets cannot be seen with the settings; some cases stand for all."""
    measured: list[Intensities] = []
    for case in context.monitor.track(context.labelled[:LOOKED_AT], "Looking at intensities"):
        image, labels = context.project.load_image(case), context.labels_in_file(case)
        measured += intensities_of(case.id, image, labels, context.targets)
    for note in window_notes(measured, context.targets, context.config):
        context.monitor.warn(note)


def _lengthen(folder: RunFolder, more: int, known: dict[str, Any], *, short: bool) -> None:
    """Ask for further rounds; with other labels, what is trained once is trained anew in them.

    Args:
        folder: Of the run.
        more: How many.
        known: What they learn from, as `_labels_of` gives it.
        short: Whether they train the stages of lesions alone.

    Raises:
        RunError: When there is nothing to go on from, or a short round has nothing new to learn.
    """
    done = 0
    while folder.validation_of(done + 1) is not None:
        done += 1
    if not done:
        msg = f"Run '{folder.run_id}' has no finished round to go on from; resume it first."
        raise RunError(msg)
    status = folder.status
    is_changed = any(status.get(name, {}) != value for name, value in known.items())
    if short and not is_changed:
        msg = f"Nothing was decided since run '{folder.run_id}' was trained; review lesions first."
        raise RunError(msg)
    if is_changed:
        shutil.rmtree(folder.round(done + 1), ignore_errors=True)  # begun with the labels of before
    if short:
        folder.write_status(short_rounds=[*folder.short_rounds, done + 1])
    elif any(known[name] != status.get(name, {}) for name in ("label_digests", "label_scopes")):
        folder.write_status(retrained_rounds=[*folder.retrained_rounds, done + 1])
    folder.write_status(patience_start=done + 1, **known)
    config = folder.config.model_copy(update={"rounds": done + more})
    write_settings(folder, config)


def _labels_of(project: Project) -> tuple[Project, dict[str, Any]]:
    """Return a project as it is now, and what is trained on, as the status of a run notes it.

    That is the digest of each label map and mask in use, what label maps decide that do not decide
    all, and how many decisions about lesions there are.
    """
    with changing(project.folder):  # nobody takes a label map back meanwhile
        now = open_project(project.folder)
        digests = {case.id: sha256_of(now.label_path(case)) for case in now.labelled}
        places = [place for case in now.cases for place in case.masks.values()]
        masks = {place.as_posix(): sha256_of(inside(now.folder, place)) for place in places}
        return now, {
            "label_digests": {**digests, **masks},
            "label_scopes": {c.id: scope for c in now.labelled if (scope := c.label_scope)},
            "lesion_lines": now.lesion_lines(),
        }


def _rounds(context: RunContext, run_round: RunRound) -> int:
    so_far = _Progress(patience_start=int(context.folder.status.get("patience_start", 1)))
    for number in range(1, context.config.rounds + 1):
        score = context.folder.score_of(number)
        if score is None:
            _new_round(context, run_round, number, so_far)
            score = context.folder.score_of(number)
        so_far.take(number, math.nan if score is None else score)
        context.folder.write_status(best_round=so_far.best)
        if so_far.worse_for(number) >= context.config.patience and number < context.config.rounds:
            context.monitor.warn(
                f"Stopped after round {number}: no round was better than round {so_far.best}."
            )
            break
    return so_far.best


def _new_round(context: RunContext, run_round: RunRound, number: int, so_far: _Progress) -> None:
    """Run a round that is not finished yet."""
    before = so_far.outcome
    if before is None and number > 1:
        before = restore_outcome(context, number - 1)
    this = Round(
        number,
        context.folder.round(number),
        context.folder.first_folder(number),
        before.pseudo if before else _start_labels(context.folder),
        before.networks if before else {},
        context.folder.round(number - 1) if number in context.folder.short_rounds else None,
    )
    with context.round(number) as marked:
        so_far.outcome = run_round(marked, this)
        if this.kept is not None:
            names = [case.id for case in context.project.cases]
            path = write_changes(context.folder, number, names, context.targets)
            marked.monitor.artifact("changes", path)
    context.folder.finish(number, so_far.outcome.validation)


def _write_results(context: RunContext, best: int) -> None:
    """Write one label map per case: a person's where there is one, else the refined label."""
    results = context.folder.path / "labels"
    origin: dict[str, str] = {}
    for case in context.project.cases:
        path = results / f"{case.id}.nii.gz"
        refined = read_prediction(context.folder.predictions(best, case.id), "refined")
        if case.label is not None:
            write_labelmap(context.labels_in_file(case), path)
            origin[case.id] = "human"
        elif refined is not None:
            write_labelmap(refined, path)
            origin[case.id] = f"refined, round {best}"
    write_json_atomic(results / "origin.json", origin)


# -- the steps of a run: only what takes long, each training and the cases of a round ------------

_MVOXEL = 1e6


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """How long a run would take.

    Attributes:
        rounds: Of the run, at most.
        steps: Over all rounds.
        seconds: For all of them; what is prepared between them is not in it.
    """

    rounds: int
    steps: int
    seconds: float


def trained_stages(project: Project) -> list[CascadeStage]:
    """Return the stages that a run trains: not those of which every case has masks."""
    stages = cascade_stages(project.targets)
    return [stage for stage in stages if not is_given(stage, project.given_organs)]


def estimate_of(steps: list[PlannedStep]) -> RunEstimate:
    """Return how long some steps would take."""
    seconds = sum(step.units * step.unit_s for step in steps)
    return RunEstimate(steps[-1].round if steps else 0, len(steps), seconds)


def planned_steps(
    config: RunConfig,
    project: Project,
    speed: Speed | None = None,
    *,
    retrained_rounds: tuple[int, ...] = (1,),
    short_rounds: tuple[int, ...] = (),
) -> list[PlannedStep]:
    """Return the steps of a run in their order.

    Steps that a run leaves out, because they are done or nothing can be trained on, are among them.

    Args:
        config: The settings.
        project: The cases.
        speed: Of this computer; a typical one's when None.
        retrained_rounds: Rounds in which SAM and what follows it are trained, without `retrain`.
        short_rounds: Rounds that train the stages of lesions alone.
    """
    plan = _Plan(config, project, speed or Speed())
    steps: list[PlannedStep] = []
    for number in range(1, config.rounds + 1):
        trains_all = config.retrain or number in retrained_rounds
        is_short = number in short_rounds
        steps += plan.short_round(number) if is_short else plan.round(number, trains_all=trains_all)
    return steps


@dataclass(frozen=True, slots=True)
class _Plan:
    config: RunConfig
    project: Project
    speed: Speed

    @property
    def folds(self) -> int:
        """Number of folds that networks are cross-fitted for."""
        return len(folds_of(case.patient for case in self.project.labelled))

    @property
    def has_sam(self) -> bool:
        """Whether SAM takes part."""
        return self.config.sam.model != "none"

    def round(self, number: int, *, trains_all: bool) -> Iterator[PlannedStep]:
        """Yield the steps of a round."""
        later = self.config.later_share if number > 1 else 1.0
        if self.config.method == "aslseg":
            yield from self._crossfit(number, later) if trains_all else ()
            yield from self._cascade(number, "specialist", later)
            yield from self._sam_parts(number, later) if trains_all else ()
        else:
            gated = self.config.method == "semisam" and self.config.semisam.gate and trains_all
            yield from self._crossfit(number, later) if gated else ()
            yield from self._cascade(number, "specialist", later)
            judged = self.config.lesion_decision == "classifier"
            yield from self._crossfit(number, later) if judged else ()
        yield from self._segmenting(number)

    def short_round(self, number: int) -> Iterator[PlannedStep]:
        """Yield the steps of a round that trains the stages inside of a parent alone."""
        inner = [stage for stage in trained_stages(self.project) if stage.inside is not None]
        yield from self._cascade(number, "specialist", self.config.review_share, inner)
        yield from self._segmenting(number)

    def _cascade(
        self, number: int, name: str, share: float, stages: Sequence[CascadeStage] | None = None
    ) -> Iterator[PlannedStep]:
        for stage in trained_stages(self.project) if stages is None else stages:
            settings = scheduled(self.config, stage, share)
            unit_s = self.speed.training_s * step_voxels(settings) / _MVOXEL
            kind = f"specialist-{stage.name}"
            yield PlannedStep(number, f"{name}-{stage.name}", kind, settings.iterations, unit_s)

    def _crossfit(self, number: int, share: float) -> Iterator[PlannedStep]:
        part = self.config.crossfit_share
        for fold in range(1, self.folds + 1 if part else 1):
            yield from self._cascade(number, f"cross-fitted-{fold}", part * share)

    def _sam_parts(self, number: int, share: float) -> Iterator[PlannedStep]:
        yield from self._sam(number, share)
        settings = self.config.adaptation
        whole = max(1, round(settings.iterations * share))
        checked = any(case.label is not None for case in self.project.validation)
        for target in self.project.targets:
            if target.name in self.project.given_organs:
                continue
            name = f"adaptation-{target.name}"
            folds = [] if checked else [f"{name}-fold-{fold}" for fold in (1, 2)]
            for task in folds:
                yield self._joining(number, task, fold_steps(whole))
            yield self._joining(number, name, whole)
        for _ in range(self.folds if self.config.crossfit_share else 0):
            yield from self._sam(number, self.config.crossfit_share * share)
        if self.config.baseline and number == 1:
            yield from self._cascade(number, "specialist", 1.0)

    def _sam(self, number: int, share: float) -> Iterator[PlannedStep]:
        settings = self.config.sam
        if self.has_sam and settings.tuning != "none":
            steps = max(1, round(settings.iterations * share))
            encodes = settings.tuning in ("lora", "adapter")
            unit_s = self.speed.embedding_s * (3.0 if encodes else 0.1)
            yield PlannedStep(number, "sam", "sam", steps, unit_s)

    def _joining(self, number: int, task: str, units: int) -> PlannedStep:
        settings = self.config.adaptation
        voxels = settings.batch_size * settings.patch_size**2
        return PlannedStep(
            number, task, "adaptation", units, self.speed.training_s * voxels / _MVOXEL
        )

    def _segmenting(self, number: int) -> Iterator[PlannedStep]:
        project, compares = self.project, self.config.baseline and number == 1
        held_out = [*project.validation, *project.test]
        scored = sum(case.label is not None for case in held_out)
        if compares and self.config.method == "aslseg" and scored:
            yield PlannedStep(number, COMPARING, COMPARING, scored, self._case_s)
        goes_on = number < self.config.rounds or self.config.label_unlabelled
        cases = len(held_out) + (len(project.unlabelled) if goes_on else 0)
        if cases:
            yield PlannedStep(number, SEGMENTING, SEGMENTING, cases, self._case_s)

    @property
    def _case_s(self) -> float:
        """Seconds to segment a case: as many patches as slices, and SAM on each of these (ours)."""
        slices = 60
        return 5.0 * self.speed.training_s + self.speed.embedding_s * slices * self.has_sam
