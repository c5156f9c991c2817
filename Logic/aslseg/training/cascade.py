"""The containers that contents are taught in: true ones, worse ones, and found ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aslseg.config import Paradigm as ParadigmName
from aslseg.config import RunConfig, SpecialistConfig
from aslseg.data.masks import clean_container
from aslseg.data.orientation import axial_labelmap
from aslseg.data.volume import Labelmap, Mask, Volume
from aslseg.errors import ProjectError
from aslseg.inference.cascade import Specialist, predict_view
from aslseg.networks.checkpoints import Checkpoint, load_weights, save_checkpoint
from aslseg.networks.unet import build_network
from aslseg.preprocessing.patches import BatchSource, TrainingCase
from aslseg.preprocessing.roi import build_view, load_view, save_view, to_volume
from aslseg.project.case import Case
from aslseg.targets import Stage, region_mask, stages_of
from aslseg.training.context import Job
from aslseg.training.mask_corruption import Corruption, Flaw, case_number, corrupt
from aslseg.training.ssl import build_paradigm
from aslseg.training.ssl.base import Paradigm
from aslseg.training.trainer import Schedule, Trainer


def scheduled(
    config: RunConfig, stage: Stage, share: float = 1.0, rate: float = 1.0
) -> SpecialistConfig:
    """Return the settings of a stage with its schedule and its learning rate cut to a part."""
    settings = config.stage(stage.inside.name if stage.inside else None)
    steps = max(1, round(settings.iterations * share))
    return settings.model_copy(
        update={"iterations": steps, "learning_rate": settings.learning_rate * rate}
    )


NEAR_MM = 25.0
"""How far around an organ its worst stand-in reaches."""


def worse_containers(true: Mask, volume: Volume, case_id: str, seed: int) -> list[Mask]:
    """Return containers with tissue around them taken in, as an organ network takes it in."""
    rng = np.random.default_rng([seed, 23, case_number(case_id)])
    spacing = volume.geometry.spacing_mm
    near = corrupt(true, Corruption((Flaw.DILATED,), NEAR_MM, 0), spacing, true)
    invented = Corruption((Flaw.INVENTED,) * 8, 5.0, int(rng.integers(2**31)))
    return [true | corrupt(true, invented, spacing, near), near]


class Containers:
    """The containing target of a stage, as cases are taught and asked with it."""

    def __init__(
        self, job: Job, stage: Stage, witnesses: Mapping[str, Mapping[str, nn.Module]]
    ) -> None:
        """Keep what containers are made of.

        Args:
            job: Cases and settings.
            stage: Whose containing target is meant.
            witnesses: By case id, networks (by stage name) that never saw the case.
        """
        self._stage = stage
        self._job = job
        self._witnesses = witnesses

    def taught(self, case_id: str, volume: Volume, labels: Labelmap) -> list[Mask | None]:
        """Return the containers that a labelled case is taught with: the true one, and worse ones.

        At inference the container is a network's, and takes in tissue around the organ. A network
        that only ever saw true containers calls all of that a lesion. So it is shown the container
        that a network finds which never saw the case, one with invented parts added, and one that
        takes in all that is near.
        """
        if self._stage.inside is None:
            return [None]
        true = region_mask(labels.labels, self._stage.inside, self._job.targets)
        if not true.any():
            return []
        worse = worse_containers(true, volume, case_id, self._job.config.seed)
        if case_id in self._witnesses:
            found = self.found(volume, self._witnesses[case_id])
            worse += [found] if found is not None and found.any() else []
        return [true, *worse]

    def found(self, volume: Volume, networks: Mapping[str, nn.Module]) -> Mask | None:
        """Return the container that networks of the stages before find; None without any."""
        organ = None
        for stage in _path_to(self._stage, self._job):
            settings = scheduled(self._job.config, stage)
            view = build_view(volume, stage, settings, organ=organ)
            classes = predict_view(networks[stage.name], view, settings, self._job.device)
            inside = _next_container(stage, self._stage, self._job)
            organ = clean_container(to_volume(classes, view)[inside] > 0.5)
            if not organ.any():
                break
        return organ


def _path_to(stage: Stage, job: Job) -> list[Stage]:
    """Return the stages that lead to a stage's container, outermost first."""
    stages = {target.name: s for s in stages_of(job.targets) for target in s.targets}
    path: list[Stage] = []
    container = stage.inside
    while container is not None:
        path.insert(0, stages[container.name])
        container = stages[container.name].inside
    return path


def _next_container(stage: Stage, goal: Stage, job: Job) -> int:
    """Return the class number, in `stage`, of the target on the way to `goal`'s container."""
    wanted = [s.inside.name for s in [*_path_to(goal, job)[1:], goal] if s.inside is not None]
    return next(n for n, t in enumerate(stage.targets, start=1) if t.name in wanted)


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

    Stages whose weights are in the folder already are read, not trained.

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
    views = curriculum.folder / "views"
    organs = Containers(job, stage, curriculum.witnesses)
    labelled = _labelled_cases(job, curriculum, stage, settings, views, organs)
    paradigm = _start(job, curriculum, stage, settings)
    unlabelled = []
    if paradigm.uses_unlabelled:
        found = partial(organs.found, networks=containers)
        unlabelled = _unlabelled_cases(job, stage, settings, views, found)
    _fit(job, curriculum, stage, paradigm, (labelled, unlabelled), paths)
    shutil.rmtree(views, ignore_errors=True)


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
