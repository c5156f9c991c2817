"""Train the adaptation networks of a run, and decide how far they are followed."""

from __future__ import annotations

import logging
from pathlib import Path

from aslseg.adaptation import AdaptationNetwork, Lesson
from aslseg.blending import calibrate
from aslseg.checkpoints import Checkpoint, load_weights, save_checkpoint
from aslseg.config import Target
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
    the validation cases.
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
        network = build_adaptation(stage, job.config)
        load_weights(network, paths[target.name], "adaptation")
        networks[target.name] = network.to(job.device).eval()
    return Refiner(networks, job.targets, job.config)


def adaptation_path(folder: Path, target: Target) -> Path:
    """Return where the weights of a target's adaptation network are kept."""
    return folder / f"adaptation-{target.name.replace(' ', '_')}.safetensors"


def _train_refiner(
    job: Job, stage: Stage, target: Target, lessons: tuple[list[Lesson], list[Lesson]], path: Path
) -> None:
    if path.exists():
        return
    network = train_adaptation(
        target, stage, lessons[0], job.config, path.parent, job.device, job.monitor
    )
    view_settings = adaptation_view_settings(stage, job.config)
    share, strength = calibrate(network, lessons[1], job.config.adaptation, view_settings)
    logger.info("%s: SAM's share %.2f, correction %.2f", target.name, share, strength)
    facts = {
        "adaptation": job.config.adaptation.model_dump(mode="json"),
        "sam_share": share,
        "correction": strength,
    }
    save_checkpoint(path, Checkpoint("adaptation", network.state_dict(), facts))


def _training_lessons(
    job: Job, taught: Taught, generalist: Generalist | None, witnesses: Witnesses
) -> dict[str, list[Lesson]]:
    """Make lessons of synthetic pseudo-labels, and of those of specialists.

    The specialist has learnt the labelled cases by heart at the end of its schedule; after the
    first third of it, it still makes mistakes of its own kind there, and one that never saw the
    case makes those that are made on others.
    """
    lessons: dict[str, list[Lesson]] = {target.name: [] for target in job.targets}
    for labelled in labelled_volumes(job, job.labelled, "Making lessons"):
        pseudo = pseudo_labels_of(labelled, job.targets, job.config)
        speakers = [*taught.earlier[:1], *filter(None, [witnesses.get(labelled.case_id)])]
        pseudo += [speaker.predict(labelled.volume, job.monitor) for speaker in speakers]
        for said in pseudo:
            _add_lessons(job, generalist, labelled, said, lessons)
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
