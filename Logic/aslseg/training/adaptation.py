"""Train the adaptation networks of a run, and decide how far they are followed."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from aslseg.config import RunConfig
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities
from aslseg.inference.refinement import Refiner
from aslseg.networks.adaptation import AdaptationNetwork, adaptation_view_settings, build_adaptation
from aslseg.networks.checkpoints import Checkpoint, load_weights, save_checkpoint
from aslseg.preprocessing.augmentation import apply_intensity, draw_intensity
from aslseg.preprocessing.patches import image_channels
from aslseg.sam.predictor import Generalist
from aslseg.targets import Stage, Target, stages_of
from aslseg.training.adaptation_samples import Lesson, LessonSource, answers, lessons_of
from aslseg.training.cascade import Taught
from aslseg.training.context import Job, LabelledVolume, labelled_volumes
from aslseg.training.cross_fitting import Witnesses
from aslseg.training.fusion import CaseLessons, cross_validated_blend, fold_steps, validated_blend
from aslseg.training.losses import soft_dice_loss
from aslseg.training.mask_corruption import pseudo_labels_of
from aslseg.training.trainer import Schedule, Trainer


def adaptation_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return cross entropy plus Dice, with small components counting as much as large ones.

    Args:
        logits: (B, h, w).
        truth: (B, h, w) of 0 and 1.
    """
    logits = logits.float()
    probability = logits.sigmoid()
    weight = 1.0 + 2.0 * truth.to(logits)
    cross = F.binary_cross_entropy_with_logits(logits, truth.to(logits), weight)
    both = torch.stack([1 - probability, probability], 1)
    return cross + soft_dice_loss(both, truth)


def train_adaptation(
    name: str,
    stage: Stage,
    lessons: list[Lesson],
    config: RunConfig,
    folder: Path,
    device: torch.device,
    monitor: Monitor,
) -> AdaptationNetwork:
    """Train the adaptation network of a target on the labelled cases' lessons.

    Args:
        name: Of the training, for its events and the file that it is resumed from.
        stage: Of the target.
        lessons: To learn from.
        config: The run's settings.
        folder: Where the state of a training that was stopped is kept.
        device: Where the network lives.
        monitor: Who listens, and may ask to stop.
    """
    torch.manual_seed(config.seed)
    network = build_adaptation(stage, config).to(device)
    settings = config.adaptation
    source = LessonSource(lessons, settings, adaptation_view_settings(stage, config), config.seed)

    images = image_channels(adaptation_view_settings(stage, config))

    def step_loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        image, voices, truth = (part.to(device) for part in source.batch(step))
        change = draw_intensity(image[:, :images].shape, generator, settings.intensity_strength)
        image = torch.cat([apply_intensity(image[:, :images], change), image[:, images:]], 1)
        return {"loss": adaptation_loss(network(image, voices), truth)}

    schedule = Schedule(
        name,
        settings.iterations,
        settings.learning_rate,
        settings.weight_decay,
        seed=config.seed,
    )
    Trainer(network, schedule, device, folder).run(step_loss, monitor)
    return network


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
