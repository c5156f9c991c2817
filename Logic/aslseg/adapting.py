"""Train the adaptation networks of a run, and decide how far they are followed."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

from aslseg.adaptation import AdaptationNetwork, Lesson
from aslseg.blending import validated_blend
from aslseg.checkpoints import Checkpoint, load_weights, save_checkpoint
from aslseg.config import Target
from aslseg.cross_validation import CaseLessons, cross_validated_blend, fold_steps
from aslseg.crossfit import Witnesses
from aslseg.generalist import Generalist
from aslseg.generalist_setup import labelled_volumes
from aslseg.inference import Probabilities
from aslseg.job import Job
from aslseg.lessons import (
    LabelledVolume,
    adaptation_view_settings,
    answers,
    lessons_of,
    pseudo_labels_of,
)
from aslseg.refinement import Refiner, build_adaptation, train_adaptation
from aslseg.stages import Stage, stages_of
from aslseg.teaching import Taught

logger = logging.getLogger(__name__)


def trained_refiner(
    job: Job,
    taught: Taught,
    generalist: Generalist | None,
    folder: Path,
    witnesses: Witnesses | None = None,
) -> Refiner:
    """Return the adaptation networks, training them if that was not done yet.

    They are trained once, on human labels, like SAM; how far they are followed is then chosen on
    the labelled validation cases, or by cross-validation if there are none.
    """
    pairs = [(stage, target) for stage in stages_of(job.targets) for target in stage.targets]
    paths = {t.name: adaptation_path(folder, t) for _, t in pairs}
    if not all(path.exists() for path in paths.values()):
        lessons = _training_lessons(job, taught, generalist, witnesses or {})
        tests = _validation_lessons(job, taught, generalist)
        for stage, target in pairs:
            both = lessons[target.name], tests[target.name]
            _train_refiner(job, stage, target, both, paths[target.name])
    networks: dict[str, AdaptationNetwork] = {}
    for stage, target in pairs:
        networks[target.name] = _read(job, stage, paths[target.name])
    return Refiner(networks, job.targets, job.config)


def adaptation_path(folder: Path, target: Target) -> Path:
    """Return where the weights of a target's adaptation network are kept."""
    return folder / f"adaptation-{target.name.replace(' ', '_')}.safetensors"


def _train_refiner(
    job: Job,
    stage: Stage,
    target: Target,
    lessons: tuple[list[CaseLessons], list[Lesson]],
    path: Path,
) -> None:
    """Train a target's network, and choose its blend on validation cases or by cross-validation."""
    if path.exists():
        return
    cases, tests = lessons
    settings, view_settings = job.config.adaptation, adaptation_view_settings(stage, job.config)
    learnt = [lesson for case in cases for lesson in case.learn]
    if tests:
        network = _trained(job, stage, path, learnt)
        blend = validated_blend(network, tests, settings, view_settings)
    else:
        train_fold = partial(_fold_network, job, stage, path)
        blend = cross_validated_blend(cases, train_fold, settings, view_settings)
        network = _trained(job, stage, path, learnt)
    network.set_blend(*blend)
    logger.info(
        "%s: SAM's share %.2f, correction %.2f, %s",
        target.name,
        *blend,
        "by validation cases" if tests else "by cross-validation",
    )
    facts = {
        "adaptation": settings.model_dump(mode="json"),
        "sam_share": blend[0],
        "correction": blend[1],
        "chosen_by": "validation" if tests else "cross-validation",
    }
    save_checkpoint(path, Checkpoint("adaptation", network.state_dict(), facts))


def _fold_network(
    job: Job, stage: Stage, path: Path, number: int, lessons: list[Lesson]
) -> AdaptationNetwork:
    """Train the network of a fold, or read it if a stopped run had come that far."""
    name = f"{path.stem}-fold-{number}"
    place = path.parent / "crossfit" / f"{name}.safetensors"
    if not place.exists():
        settings = job.config.adaptation
        settings = settings.model_copy(update={"iterations": fold_steps(settings.iterations)})
        shorter = replace(job, config=job.config.model_copy(update={"adaptation": settings}))
        network = _trained(shorter, stage, place, lessons)
        facts = {"adaptation": settings.model_dump(mode="json"), "fold": number}
        save_checkpoint(place, Checkpoint("adaptation", network.state_dict(), facts))
    return _read(job, stage, place)


def _read(job: Job, stage: Stage, path: Path) -> AdaptationNetwork:
    network = build_adaptation(stage, job.config)
    load_weights(network, path, "adaptation")
    return network.to(job.device).eval()


def _trained(job: Job, stage: Stage, path: Path, lessons: list[Lesson]) -> AdaptationNetwork:
    path.parent.mkdir(exist_ok=True)
    return train_adaptation(
        path.stem, stage, lessons, job.config, path.parent, job.device, job.monitor
    )


def _training_lessons(
    job: Job, taught: Taught, generalist: Generalist | None, witnesses: Witnesses
) -> dict[str, list[CaseLessons]]:
    """Make lessons of synthetic pseudo-labels, and of those of specialists.

    The specialist has learnt the labelled cases by heart at the end of its schedule; after the
    first third of it, it still makes mistakes of its own kind there, and one that never saw the
    case makes those that are made on others.
    """
    lessons: dict[str, list[CaseLessons]] = {target.name: [] for target in job.targets}
    for labelled in labelled_volumes(job, job.labelled, "Making lessons"):
        told: dict[str, list[Lesson]] = {target.name: [] for target in job.targets}
        synthetic = pseudo_labels_of(labelled, job.targets, job.config)
        speakers = [*taught.earlier[:1], *filter(None, [witnesses.get(labelled.case_id)])]
        real = [speaker.predict(labelled.volume, job.monitor) for speaker in speakers]
        for said in [*synthetic, *real]:
            _add_lessons(job, generalist, labelled, said, told)
        for name, found in told.items():
            judge = found[-1:] if real else found
            lessons[name].append(CaseLessons(labelled.case_id, found, judge))
    return lessons


def _validation_lessons(
    job: Job, taught: Taught, generalist: Generalist | None
) -> dict[str, list[Lesson]]:
    """Return the real voices on the labelled validation cases, with their truth."""
    lessons: dict[str, list[Lesson]] = {target.name: [] for target in job.targets}
    cases = [case for case in job.scored if case.split == "validation"]
    for labelled in labelled_volumes(job, cases, "Weighing the voices"):
        said = taught.specialist.predict(labelled.volume, job.monitor)
        _add_lessons(job, generalist, labelled, said, lessons)
    return lessons


def _add_lessons(
    job: Job,
    generalist: Generalist | None,
    labelled: LabelledVolume,
    said: Probabilities,
    lessons: dict[str, list[Lesson]],
) -> None:
    sam = said
    if generalist is not None:
        sam = answers(generalist, labelled.volume, said, job.targets, job.monitor)
    for name, lesson in lessons_of(labelled, job.targets, job.config, said, sam).items():
        lessons[name].append(lesson)
