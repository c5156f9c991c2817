"""Start, resume and continue runs: what the command line, the panel and scripts call."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aslseg import run_names
from aslseg.config import RunConfig
from aslseg.context import RunContext
from aslseg.data.images import write_labelmap
from aslseg.data.orientation import ORIENTATION
from aslseg.distributed import led
from aslseg.errors import RunError
from aslseg.evaluation.round_changes import write_changes
from aslseg.events import Monitor
from aslseg.methods import training_of
from aslseg.networks.device import choose_device, tune_allocator
from aslseg.project.case import nothing_counts
from aslseg.project.external_labels import copy_for_training, labels_named
from aslseg.project.image_digests import check_images
from aslseg.project.label_origin import ORIGIN, REFINED_IN_RUN
from aslseg.project.more_rounds import lengthen
from aslseg.project.predictions import read_prediction
from aslseg.project.project import Project, upgrade_project
from aslseg.project.run_data import (
    as_begun,
    check_masks,
    data_of_now,
    note_images,
    note_training_cases,
    refuse_other_images,
    refuse_other_roles,
    validation_digest,
)
from aslseg.project.run_folder import (
    RunFolder,
    check_orientation,
    check_targets,
    create_run,
    noted_targets,
    open_run,
    require_trained,
)
from aslseg.project.run_tables import REFINED
from aslseg.project.running import running
from aslseg.project.windows import Intensities, intensities_of, window_notes
from aslseg.storage import write_json_atomic
from aslseg.training.calibration import speed_of
from aslseg.training.pseudo_label import PseudoLabel
from aslseg.training.rounds import Round, RoundOutcome, RunRound, restore_outcome
from aslseg.training.run_plan import (
    RunEstimate,
    estimate_of,
    planned_steps,
    trained_stages,
)
from aslseg.training.run_progress import RunFollower
from aslseg.training.stage_cases import refuse_absent_targets
from aslseg.training.unused_settings import refuse_unused, unused_in_words

LOOKED_AT = 8
"""Labelled cases whose intensities are compared with the windows of the settings."""


@led
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
        ConfigError: When nothing would come of a setting.
        RunError: When the project has no labels of the model that `start_labels` names, or has a
            run of that name.
        CancelledError: When asked to stop; `resume_run` goes on from there.
        AslsegError: When a file, a setting, the device or the disk is at fault.
    """
    training_of(config.method)
    refuse_unused(config)
    _ready(project, monitor)
    choose_device(config.device)
    if config.start_labels:
        labels_named(project, config.start_labels)
    folder = create_run(project.folder, config, run_id)
    return _run(project, folder, monitor or Monitor(), cache=cache)


@led
def resume_run(
    project: Project,
    run_id: str | None = None,
    monitor: Monitor | None = None,
    *,
    cache: Path | None = None,
    device: str | None = None,
) -> RunFolder:
    """Go on with a run that was stopped, or the latest one; the result is that of an unbroken run.

    So it learns from the labels, slices and decisions that there were when it began; a warning says
    so where they are others by now, and `continue_run` learns from those.

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


@led
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
        ConfigError: When nothing would come of a setting.
        DeviceError: When the device of the settings cannot be used.
    """
    refuse_unused(config)
    project.require_labels()
    device = choose_device(config.device).torch_device
    speed = speed_of(config, trained_stages(project)[0], device, monitor)
    return estimate_of(planned_steps(config, project, speed))


@led
def train_on(
    project: Project,
    run_id: str | None = None,
    monitor: Monitor | None = None,
    *,
    share: float | None = None,
    device: str | None = None,
) -> RunFolder:
    """Let a run learn from decisions about lesions that were made since, in a short round.

    The stages of lesions go on from their weights for a part of their schedule, on the labels and
    decided lesions of now; all else stays as it is. `continue_run` trains all.

    Args:
        project: With its labels and decisions of now.
        run_id: Name of the run; the latest one if not given.
        monitor: Gets the events, and may ask to stop.
        share: The part, above 0 and up to 1; the run keeps it as its `review_share`.
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
    part = share or folder.config.review_share
    return _run(project, folder, monitor or Monitor(), 1, device=device, share=part)


@dataclass
class _LoopState:
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

    def take(self, number: int, score: float, *, anew: bool = False) -> None:
        """Note a finished round; where it or the best one was not measured, it is the best now.

        Args:
            number: Of the round.
            score: What the best one is chosen by.
            anew: Whether it cannot be compared with those of earlier rounds: it is the best then.
        """
        is_best = math.isnan(score) or math.isnan(self.best_score) or score > self.best_score
        if anew or is_best:
            self.best = number
            self.best_score = score


def _ready(project: Project, monitor: Monitor | None) -> None:
    """Make sure that there is something to train on, and that all images are the known ones."""
    project.require_labels()
    check_images(project.folder, project.cases, monitor)
    upgrade_project(project.folder)


def _run(
    project: Project,
    folder: RunFolder,
    monitor: Monitor,
    more: int = 0,
    *,
    cache: Path | None = None,
    device: str | None = None,
    share: float | None = None,
) -> RunFolder:
    chosen = choose_device(device or folder.config.device)
    tune_allocator()
    # What is refused leaves the run as it was.
    check_targets(project, folder)
    check_orientation(project, folder, monitor)
    refuse_other_images(project, folder)
    refuse_other_roles(project, folder, is_resumed=not more)
    with running(folder, monitor) as recording:
        note_images(project, folder)
        is_new = not more and "label_digests" not in folder.noted
        if more or is_new:
            project, known = data_of_now(project)
        else:
            project = as_begun(project, folder, recording)
        if more:
            lengthen(folder, more, known, share)
        elif is_new:
            given = list(project.given_organs)
            started = _take_start_labels(project, folder)
            folder.write_status(
                retrained_rounds=[1], given_targets=given, **started, **asdict(known)
            )
        if more or is_new:
            note_training_cases(project, folder)
        check_masks(project, folder, recording)
        config = folder.config
        facts = {"method": config.method, "sam": config.sam.model, "orientation": ORIENTATION}
        folder.write_status(rounds=config.rounds, targets=noted_targets(project), **facts)
        steps = planned_steps(
            config,
            project,
            retrained_rounds=folder.retrained_rounds,
            short_rounds=folder.short_rounds,
        )
        followed = replace(recording, listener=RunFollower(steps, recording.listener))
        if device is not None:
            config = config.model_copy(update={"device": device})
        context = RunContext(project, config, folder, chosen.torch_device, followed, cache)
        if is_new:
            _warn_of_windows(context)
            refuse_absent_targets(context)
        _warn_of_what_is_unused(context)
        best = _rounds(context, training_of(config.method))
        _write_results(context, best)
    return folder


def _warn_of_what_is_unused(context: RunContext) -> None:
    """Say which labels and settings nothing comes of."""
    if note := nothing_counts(context.labelled):
        context.monitor.warn(note)
    for note in unused_in_words(context.config, context.stages):
        context.monitor.warn(note)


def _take_start_labels(project: Project, folder: RunFolder) -> dict[str, Any]:
    """Copy the labels of another model that a run begins with, which stay the same meanwhile.

    Returns:
        What the run's status notes of them.
    """
    if not folder.config.start_labels:
        return {}
    learnt = copy_for_training(project, folder.config.start_labels, folder.path / run_names.START)
    return {"start_targets": learnt}


def _start_labels(folder: RunFolder) -> dict[str, PseudoLabel]:
    """Return the labels of another model that round 1 learns from."""
    learnt = folder.status.start_targets
    return {
        name: PseudoLabel(folder.path / run_names.START / f"{name}.nii.gz", frozenset(targets))
        for name, targets in learnt.items()
    }


def _warn_of_windows(context: RunContext) -> None:
    """Say which targets cannot be seen with the settings; some cases stand for all."""
    measured: list[Intensities] = []
    for case in context.monitor.track(context.labelled[:LOOKED_AT], "Looking at intensities"):
        image, labels = context.project.load_image(case), context.labels_in_file(case)
        measured += intensities_of(case.id, image, labels, context.targets)
    for note in window_notes(measured, context.targets, context.config):
        context.monitor.warn(note)


def _is_taught(folder: RunFolder, number: int) -> bool:
    """Return whether cross-validation chooses, and a round learnt what those before it did not.

    Its labelled cases may be others, and what a person taught is not given up for a score of a few.
    """
    validation = folder.validation_of(number)
    validates = validation is not None and not math.isnan(validation)
    return number in folder.taught_rounds and not validates


def _rounds(context: RunContext, run_round: RunRound) -> int:
    folder = context.folder
    so_far = _LoopState(patience_start=context.folder.status.patience_start)
    for number in range(1, context.config.rounds + 1):
        score = context.folder.score_of(number)
        if score is None:
            _new_round(context, run_round, number, so_far)
            score = context.folder.score_of(number)
        anew = _is_taught(folder, number) or not folder.checked_alike(number, so_far.best)
        so_far.take(number, math.nan if score is None else score, anew=anew)
        context.folder.write_status(best_round=so_far.best)
        if so_far.worse_for(number) >= context.config.patience and number < context.config.rounds:
            context.monitor.warn(
                f"Stopped after round {number}: no round was better than round {so_far.best}."
            )
            break
    return so_far.best


def _new_round(context: RunContext, run_round: RunRound, number: int, so_far: _LoopState) -> None:
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
            path = write_changes(context.project, context.folder, number)
            marked.monitor.artifact("changes", path)
    context.folder.finish(number, so_far.outcome.validation, validation_digest(context.project))
    if not context.folder.checked_alike(number, so_far.best):
        context.monitor.warn(
            f"Round {number} was checked on other label maps of validation cases than round "
            f"{so_far.best}: their Dice cannot be compared, and round {number} is kept."
        )


def _write_results(context: RunContext, best: int) -> None:
    """Write one label map per case: a person's where there is one, else the refined label."""
    results = context.folder.path / run_names.LABELS
    origin: dict[str, str] = {}
    for case in context.project.cases:
        path = results / f"{case.id}.nii.gz"
        refined = context.folder.predictions(best, case.id) / REFINED
        if case.label is not None:
            write_labelmap(context.labels_in_file(case), path)
            origin[case.id] = "human"
        elif refined.exists():
            write_labelmap(read_prediction(refined, context.project.geometry(case)), path)
            origin[case.id] = f"{REFINED_IN_RUN} {best}"
    write_json_atomic(results / ORIGIN, origin)
