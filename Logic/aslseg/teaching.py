"""Train the specialist's networks, stage after stage, and keep what resuming needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aslseg.batches import BatchSource, TrainingCase
from aslseg.checkpoints import Checkpoint, load_weights, save_checkpoint
from aslseg.config import Paradigm as ParadigmName
from aslseg.config import RunConfig, SpecialistConfig
from aslseg.containers import Containers
from aslseg.errors import ProjectError
from aslseg.inference import Specialist
from aslseg.job import Job
from aslseg.orientation import axial_labelmap
from aslseg.project import Case
from aslseg.specialist import build_network
from aslseg.ssl import Paradigm, build_paradigm
from aslseg.stages import Stage, scheduled, stages_of
from aslseg.training import Schedule, Trainer
from aslseg.views import build_view, load_view, save_view
from aslseg.volume import Labelmap, Mask, Volume

SNAPSHOTS = (1 / 3, 2 / 3)
"""Parts of the schedule after which weights are kept to measure agreement (ST++)."""


Build = Callable[[ParadigmName, Stage, SpecialistConfig], Paradigm]
"""Makes the paradigm that a stage is trained with, around untrained networks."""

BuildNetwork = Callable[[Stage, SpecialistConfig], nn.Module]
"""Makes the untrained network of a stage."""


def plain(name: ParadigmName, stage: Stage, settings: SpecialistConfig) -> Paradigm:
    """Build a paradigm of the registry, as it is."""
    return build_paradigm(name, lambda: build_network(stage, settings), settings)


@dataclass(frozen=True, slots=True, eq=False)
class Curriculum:
    """What a specialist learns from.

    Attributes:
        folder: Where its weights go.
        paradigm: How unlabelled cases are used.
        pseudo: Label maps by case id that are believed in this round.
        start: Weights to start from, by stage name; none means random ones.
        share: Part of the schedule that is run.
        rate: Part of the learning rate that it begins with.
        build: Makes the paradigm of each stage; methods add to it here.
        network: Makes the network that a stage's weights are read into; that of `build`'s student.
        left_out: Ids of labelled cases that are not shown.
        name: What the training is called in messages and curves.
        witnesses: By case id, networks (by stage name) that never saw the case.
    """

    folder: Path
    paradigm: ParadigmName
    pseudo: Mapping[str, Labelmap]
    start: Mapping[str, nn.Module]
    share: float = 1.0
    rate: float = 1.0
    build: Build = plain
    network: BuildNetwork = build_network
    left_out: frozenset[str] = frozenset()
    name: str = "specialist"
    witnesses: Mapping[str, Mapping[str, nn.Module]] = field(default_factory=dict)

    def settings(self, config: RunConfig, stage: Stage) -> SpecialistConfig:
        """Return the settings that a stage is trained with."""
        return scheduled(config, stage, self.share, self.rate)


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """A trained specialist, and what it was earlier in the schedule."""

    specialist: Specialist
    earlier: tuple[Specialist, ...]


def teach_specialist(job: Job, curriculum: Curriculum) -> Taught:
    """Train one network per stage; containers first, for contents are sought inside them.

    Stages whose weights are in the folder already are read, not trained; copies of images that a
    process left there when it was ended are deleted.

    Raises:
        ProjectError: When no label has any voxel of a stage's targets.
    """
    final: dict[str, nn.Module] = {}
    earlier: list[dict[str, nn.Module]] = [{} for _ in SNAPSHOTS]
    for stage in stages_of(job.targets):
        weights = _stage_weights(job, curriculum, stage, final)
        final[stage.name] = weights[-1]
        for known, network in zip(earlier, weights, strict=False):
            known[stage.name] = network
    shutil.rmtree(_views(curriculum), ignore_errors=True)
    return Taught(_specialist(job, final), tuple(_specialist(job, nets) for nets in earlier))


def _specialist(job: Job, networks: Mapping[str, nn.Module]) -> Specialist:
    return Specialist(networks, job.targets, job.config, job.device)


def _stage_weights(
    job: Job, curriculum: Curriculum, stage: Stage, containers: Mapping[str, nn.Module]
) -> list[nn.Module]:
    """Return the networks of a stage after each snapshot, and at the end."""
    settings = curriculum.settings(job.config, stage)
    paths = specialist_paths(curriculum.folder, stage)
    if not paths[-1].exists():
        _train_stage(job, curriculum, stage, containers, paths)
    networks = [curriculum.network(stage, settings) for _ in paths]
    for network, path in zip(networks, paths, strict=True):
        load_weights(network, path, "specialist")
    return [network.to(job.device).eval() for network in networks]


def specialist_paths(folder: Path, stage: Stage) -> list[Path]:
    """Return where the weights of a stage are kept: after each snapshot, and at the end."""
    parts = [f"-{n + 1}of{len(SNAPSHOTS) + 1}" for n in range(len(SNAPSHOTS))]
    return [folder / f"specialist-{stage.name}{part}.safetensors" for part in (*parts, "")]


def _train_stage(
    job: Job,
    curriculum: Curriculum,
    stage: Stage,
    containers: Mapping[str, nn.Module],
    paths: Sequence[Path],
) -> None:
    settings = curriculum.settings(job.config, stage)
    views = _views(curriculum)
    organs = Containers(job, stage, curriculum.witnesses)
    labelled = _labelled_cases(job, curriculum, stage, settings, views, organs)
    paradigm = _start(job, curriculum, stage, settings)
    unlabelled = []
    if paradigm.uses_unlabelled:
        found = partial(organs.found, networks=containers)
        unlabelled = _unlabelled_cases(job, stage, settings, views, found)
    _fit(job, curriculum, stage, paradigm, (labelled, unlabelled), paths)
    shutil.rmtree(views, ignore_errors=True)


def _views(curriculum: Curriculum) -> Path:
    """Return where copies of the images lie while a stage is trained."""
    return curriculum.folder / "views"


def _start(job: Job, curriculum: Curriculum, stage: Stage, settings: SpecialistConfig) -> Paradigm:
    torch.manual_seed(job.config.seed)
    paradigm = curriculum.build(curriculum.paradigm, stage, settings)
    if stage.name in curriculum.start:
        known = curriculum.start[stage.name].state_dict()
        paradigm.student.load_state_dict(known)
        paradigm.average.load_state_dict(known)
    return paradigm.to(job.device)


def _fit(
    job: Job,
    curriculum: Curriculum,
    stage: Stage,
    paradigm: Paradigm,
    cases: tuple[list[TrainingCase], list[TrainingCase]],
    paths: Sequence[Path],
) -> None:
    settings, seed = curriculum.settings(job.config, stage), job.config.seed
    labelled = BatchSource(cases[0], settings, seed, 0)
    unlabelled = BatchSource(cases[1], settings, seed, 1) if cases[1] else None
    paradigm.meet(cases[1])

    def step_loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        extra = unlabelled.batch(step).to(job.device) if unlabelled else None
        terms = paradigm.loss(labelled.batch(step).to(job.device), extra, step, generator)
        return {"loss": terms.total, **terms.named()}

    def keep(number: int) -> None:
        tensors = paradigm.average.state_dict()
        facts = {"stage": stage.name, "settings": settings.model_dump(mode="json")}
        save_checkpoint(paths[number], Checkpoint("specialist", tensors, facts))

    schedule = Schedule(
        name=f"{curriculum.name}-{stage.name}",
        steps=settings.iterations,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        optimiser=settings.optimiser,
        seed=seed,
        snapshots=SNAPSHOTS,
    )
    trainer = Trainer(
        paradigm,
        schedule,
        job.device,
        paths[-1].parent,
        after_step=paradigm.after_step,
        snapshot=keep,
        learners=paradigm.learners(),
    )
    trainer.run(step_loss, job.monitor)
    paradigm.save_more(paths[-1].parent, stage.name)
    keep(len(paths) - 1)


def _labelled_cases(
    job: Job,
    curriculum: Curriculum,
    stage: Stage,
    settings: SpecialistConfig,
    views: Path,
    organs: Containers,
) -> list[TrainingCase]:
    shown = [case for case in job.labelled if case.id not in curriculum.left_out]
    known: list[tuple[Case, Labelmap | None, float]] = [(case, None, 1.0) for case in shown]
    weight = job.config.reliability.pseudo_weight
    known += [
        (case, curriculum.pseudo[case.id], weight)
        for case in job.unlabelled
        if case.id in curriculum.pseudo
    ]
    cases: list[TrainingCase] = []
    for case, labels, of in job.monitor.track(known, f"Preparing {stage.name}"):
        labels = job.labels(case) if labels is None else axial_labelmap(labels)
        volume = job.image(case)
        for number, organ in enumerate(organs.taught(case.id, volume, labels)):
            view = build_view(
                volume, stage, settings, organ=organ, labels=labels, targets=job.targets
            )
            place = views / f"labelled-{case.id}-{number}"
            save_view(view, place)
            cases.append(TrainingCase(load_view(place), of))
    if not any(case.view.labels is not None and np.any(case.view.labels) for case in cases):
        names = ", ".join(target.name for target in stage.targets)
        msg = f"No labelled case has any voxel of {names}; label at least one and train again."
        raise ProjectError(msg)
    return cases


def _unlabelled_cases(
    job: Job,
    stage: Stage,
    settings: SpecialistConfig,
    views: Path,
    found: Callable[[Volume], Mask | None],
) -> list[TrainingCase]:
    cases: list[TrainingCase] = []
    for case in job.monitor.track(job.unlabelled, f"Preparing unlabelled {stage.name}"):
        volume = job.image(case)
        organ = found(volume)
        if stage.inside is not None and (organ is None or not organ.any()):
            continue
        save_view(build_view(volume, stage, settings, organ=organ), views / case.id)
        cases.append(TrainingCase(load_view(views / case.id), case_id=case.id))
    return cases
