"""Start, resume and continue runs: what the command line, the panel and scripts call."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aslseg.config import RunConfig
from aslseg.context import RunContext
from aslseg.data.images import write_labelmap
from aslseg.data.orientation import ORIENTATION
from aslseg.distributed import led
from aslseg.errors import RunError
from aslseg.evaluation.round_changes import write_changes
from aslseg.events import Monitor
from aslseg.inference.loading import context_of
from aslseg.methods import training_of
from aslseg.networks.device import choose_device, tune_allocator
from aslseg.project.case import nothing_counts
from aslseg.project.external_labels import copy_for_training
from aslseg.project.image_digests import check_images
from aslseg.project.project import Project, changing, open_project, upgrade_project, validated
from aslseg.project.run_folder import (
    RunFolder,
    check_orientation,
    check_targets,
    create_run,
    noted_targets,
    open_run,
    require_trained,
    saw_another,
    write_settings,
)
from aslseg.project.running import running
from aslseg.project.windows import Intensities, intensities_of, window_notes
from aslseg.storage import inside, sha256_of, write_json_atomic
from aslseg.targets import cascade_stages, is_given
from aslseg.training.calibration import speed_of
from aslseg.training.pseudo_label import PseudoLabel
from aslseg.training.rounds import Round, RoundOutcome, RunRound, read_prediction, restore_outcome
from aslseg.training.run_plan import (
    RunEstimate,
    RunFollower,
    estimate_of,
    planned_steps,
    trained_stages,
)


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
        CancelledError: When asked to stop; `resume_run` goes on from there.
        AslsegError: When a file, a setting, the device or the disk is at fault.
    """
    training_of(config.method)
    _ready(project, monitor)
    choose_device(config.device)
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
        DeviceError: When the device of the settings cannot be used.
    """
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

    def take(self, number: int, score: float, *, anew: bool = False) -> None:
        """Note a finished round; where nothing was measured the latest is the best.

        Args:
            number: Of the round.
            score: What the best one is chosen by.
            anew: Whether it cannot be compared with those of earlier rounds: it is the best then.
        """
        if anew or math.isnan(score) or score > self.best_score:
            self.best = number
            self.best_score = score


def _ready(project: Project, monitor: Monitor | None) -> None:
    """Make sure that there is something to train on, and that all images are the known ones."""
    project.require_labels()
    check_images(project.folder, project.cases, monitor)
    upgrade_project(project.folder)


def _refuse_other_images(project: Project, folder: RunFolder) -> None:
    """Refuse to go on with other images than those that a run has seen.

    Raises:
        RunError: When a case has another one by now.
    """
    known = [case for case in project.cases if case.image_sha256 is not None]
    changed = [case.id for case in known if saw_another(folder.images, case)]
    if changed:
        msg = (
            f"Run '{folder.run_id}' has seen another image of case {changed[0]} than the project "
            "has now; start a new run."
        )
        raise RunError(msg)


def _note_images(project: Project, folder: RunFolder) -> None:
    """Note the images that a run works with."""
    now = {case.id: case.image_sha256 for case in project.cases if case.image_sha256 is not None}
    folder.write_status(images={**folder.images, **now})


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
    choose_device(device or folder.config.device)
    tune_allocator()
    # What is refused leaves the run as it was.
    check_targets(project, folder)
    check_orientation(project, folder, monitor)
    _refuse_other_images(project, folder)
    _refuse_other_roles(project, folder, is_resumed=not more)
    with running(folder, monitor) as recording:
        _note_images(project, folder)
        is_new = not more and "label_digests" not in folder.status
        if more or is_new:
            project, known = _labels_of(project)
        else:
            project = _as_begun(project, folder, recording)
        if more:
            _lengthen(folder, more, known, share)
        elif is_new:
            given = list(project.given_organs)
            folder.write_status(retrained_rounds=[1], given_targets=given, **known)
            _take_start_labels(project, folder)
        _check_masks(project, folder, recording)
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
        context = context_of(project, folder, followed, cache, device=device)
        if is_new:
            _warn_of_windows(context)
        if note := nothing_counts(context.labelled):
            context.monitor.warn(note)
        best = _rounds(context, training_of(config.method))
        _write_results(context, best)
    return folder


def _refuse_other_roles(project: Project, folder: RunFolder, *, is_resumed: bool) -> None:
    """Refuse to go on where a case that the run has learnt from plays another part by now.

    Raises:
        RunError: When a run that is resumed would go on without it, or a network that has learnt
            from it would be scored on it.
    """
    splits = {case.id: case.split for case in open_project(project.folder).cases}
    learnt = [name for name in folder.status.get("label_digests", {}) if "/" not in name]
    for name in learnt:
        if splits.get(name) == "train":
            continue
        if is_resumed:
            msg = (
                f"Run '{folder.run_id}' learns from case {name}, which is no case to train on any "
                "more; give it its place back, or start a new run."
            )
            raise RunError(msg)
        if name in splits:
            msg = (
                f"Run '{folder.run_id}' has learnt from case {name}, which is to check on now and "
                "would flatter its score; give it its role of train back, or start a new run."
            )
            raise RunError(msg)


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
        RunError: When a mask is gone or not the one of before, or a case has none of an organ that
            the run does not learn.
    """
    known = folder.status.get("label_digests", {})
    places = {place.as_posix() for case in project.cases for place in case.masks.values()}
    lost = [key for key in known if "/" in key and key not in places]
    if lost:
        msg = (
            f"Run '{folder.run_id}' began with the mask {lost[0]}, which is no case's any more; "
            "add rounds to the run, or start a new one."
        )
        raise RunError(msg)
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


def _lengthen(folder: RunFolder, more: int, known: dict[str, Any], share: float | None) -> None:
    """Ask for further rounds; with other labels, what is trained once is trained anew in them.

    Args:
        folder: Of the run.
        more: How many.
        known: What they learn from, as `_labels_of` gives it.
        share: Where they train the stages of lesions alone, the part of their schedule.

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
    if share is not None and not is_changed:
        msg = f"Nothing was decided since run '{folder.run_id}' was trained; review lesions first."
        raise RunError(msg)
    if is_changed:
        shutil.rmtree(folder.round(done + 1), ignore_errors=True)  # begun with the labels of before
        folder.write_status(taught_rounds=[*folder.taught_rounds, done + 1])
    if share is not None:
        folder.write_status(short_rounds=[*folder.short_rounds, done + 1])
    elif any(known[name] != status.get(name, {}) for name in ("label_digests", "label_scopes")):
        folder.write_status(retrained_rounds=[*folder.retrained_rounds, done + 1])
    folder.write_status(patience_start=done + 1, **known)
    changes = {"rounds": done + more, **({} if share is None else {"review_share": share})}
    write_settings(folder, folder.config.model_copy(update=changes))


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


def _as_begun(project: Project, folder: RunFolder, monitor: Monitor) -> Project:
    """Return a project with the labels that a run began to learn from, and say if they changed.

    Label maps themselves are found by their digests, see `RunContext.labels_in_file`. Organ masks
    that were given since are used; those of before cannot change, see `_check_masks`.
    """
    now, known = _labels_of(project)
    if any(folder.status.get(name, {}) != value for name, value in known.items()):
        monitor.warn(
            f"Labels or decisions have changed since run '{folder.run_id}' began; it goes on with "
            "those of then. Add rounds to it afterwards to learn from those of now."
        )
    digests = folder.status["label_digests"]
    scopes = folder.status.get("label_scopes", {})
    cases = []
    for case in now.cases:
        if case.split == "train" and case.id in digests:
            status = case.status if case.label else "labelled"
            facts: dict[str, Any] = {"label": case.label_place, "status": status}
            cases.append(case.model_copy(update=facts).scoped(scopes.get(case.id, "")))
        elif case.split == "train" and case.label is not None:
            none: dict[str, Any] = {"label": None, "status": "unlabelled"}
            cases.append(case.model_copy(update=none).scoped(""))
        else:
            cases.append(case)
    return validated(now, cases=tuple(cases))


def _is_taught(folder: RunFolder, number: int) -> bool:
    """Return whether cross-validation chooses, and a round learnt what those before it did not.

    Its labelled cases may be others, and what a person taught is not given up for a score of a few.
    """
    validation = folder.validation_of(number)
    validates = validation is not None and not math.isnan(validation)
    return number in folder.taught_rounds and not validates


def _rounds(context: RunContext, run_round: RunRound) -> int:
    folder = context.folder
    so_far = _Progress(patience_start=int(context.folder.status.get("patience_start", 1)))
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


def _checked_on(project: Project) -> str:
    """Return a digest of the label maps that validation scores are of, and of what they decide."""
    labelled = (case for case in project.validation if case.label is not None)
    facts = [
        [case.id, sha256_of(project.label_path(case)), case.label_scope, *case.masks]
        for case in labelled
    ]
    return hashlib.sha256(json.dumps(sorted(facts)).encode()).hexdigest()


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
    context.folder.finish(number, so_far.outcome.validation, _checked_on(context.project))
    if not context.folder.checked_alike(number, so_far.best):
        context.monitor.warn(
            f"Round {number} was checked on other label maps of validation cases than round "
            f"{so_far.best}: their Dice cannot be compared, and round {number} is kept."
        )


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
