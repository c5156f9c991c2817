"""Training of the specialist: one network per stage, or several to average, parents first."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aslseg import run_names
from aslseg.config import RunConfig, SpecialistConfig, SSLName
from aslseg.context import RunContext
from aslseg.distributed import WorkPart, my_part, together
from aslseg.inference.loading import BuildNetwork, TrainedCascade, assemble_cascade, load_stage
from aslseg.networks.averaged import AveragedNetworks, joined, load_networks, network_of
from aslseg.networks.checkpoints import (
    SNAPSHOTS,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    specialist_paths,
)
from aslseg.networks.unet import build_network
from aslseg.preprocessing.patches import Batch, BatchSource, TrainingCase
from aslseg.storage import copy_atomic
from aslseg.targets import CascadeStage
from aslseg.training.pseudo_label import PseudoLabel
from aslseg.training.ssl import build_ssl_method
from aslseg.training.ssl.base import SSLMethod
from aslseg.training.stage_cases import RoiPreparation, labelled_cases, unlabelled_cases
from aslseg.training.trainer import (
    Prefetch,
    Schedule,
    Trainer,
    network_recorder,
    spare_threads,
)
from aslseg.training.unused_settings import unused_by

SEED_STEP = 10_007
"""From the seed of a network to that of the next one that it is averaged with."""


def scheduled(
    config: RunConfig, stage: CascadeStage, share: float = 1.0, rate: float = 1.0
) -> SpecialistConfig:
    """Return the settings of a stage with its schedule and its learning rate cut to a part.

    What the stage has no use for (`unused_by`) is off.
    """
    settings = config.stage(stage.parent_name)
    update: dict[str, Any] = {
        "iterations": max(1, round(settings.iterations * share)),
        "learning_rate": settings.learning_rate * rate,
    }
    return settings.model_copy(update={**update, **unused_by(stage)})


def step_voxels(settings: SpecialistConfig) -> int:
    """Return how many voxels of patches one step of the specialist's optimiser is about."""
    return int(2 * settings.batch_size * settings.patch_size**settings.network.dimensions)


Build = Callable[[SSLName, CascadeStage, SpecialistConfig], SSLMethod]
"""Builds the SSL method of a stage, with untrained networks."""


def default_ssl_method(name: SSLName, stage: CascadeStage, settings: SpecialistConfig) -> SSLMethod:
    """Build an SSL method of the registry."""
    return build_ssl_method(name, lambda: build_network(stage, settings), settings)


@dataclass(frozen=True, slots=True, eq=False)
class CascadeTrainingPlan:
    """How a cascade is trained.

    Attributes:
        folder: Where the weights are written.
        ssl_name: Name of the SSL method.
        pseudo: Accepted pseudo-labels by case id.
        start: Networks to start from, by stage name; random weights for a stage without.
        share: Part of the schedule's steps.
        rate: Factor on the learning rate.
        build: Builds the SSL method of each stage; methods add to it here.
        network: Builds the network that a stage's weights are loaded into, like `build`'s student.
        left_out: Ids of labelled cases that are not trained on.
        name: Of the training, in progress events and metrics.
        out_of_fold_models: By case id, networks (by stage name) that were not trained on the case.
        kept: Folder whose stages without a parent are used as they are; None trains all stages.
        is_single: Train one network of each stage, also where the settings average several.
    """

    folder: Path
    ssl_name: SSLName
    pseudo: Mapping[str, PseudoLabel]
    start: Mapping[str, nn.Module]
    share: float = 1.0
    rate: float = 1.0
    build: Build = default_ssl_method
    network: BuildNetwork = build_network
    left_out: frozenset[str] = frozenset()
    name: str = "specialist"
    out_of_fold_models: Mapping[str, Mapping[str, nn.Module]] = field(default_factory=dict)
    kept: Path | None = None
    is_single: bool = False

    def settings(self, config: RunConfig, stage: CascadeStage) -> SpecialistConfig:
        """Return the settings that a stage is trained with."""
        settings = scheduled(config, stage, self.share, self.rate)
        single = {"averaged_networks": 1, "second_pass": False}
        return settings.model_copy(update=single) if self.is_single else settings


def train_cascade(context: RunContext, plan: CascadeTrainingPlan) -> TrainedCascade:
    """Train the networks of each stage, parents first.

    Stages whose weights are in the folder already are loaded, not trained; what a process left
    there when it was ended, copies of images and networks to be averaged, is deleted at the end.

    Raises:
        ProjectError: When no label has any voxel of a stage's targets.
    """
    stages: dict[str, list[nn.Module]] = {}
    for stage in context.stages:
        if plan.kept is not None and stage.inside is None:
            kept, here = (specialist_paths(folder, stage) for folder in (plan.kept, plan.folder))
            for source, path in zip(kept, here, strict=True):
                copy_atomic(source, path)
        if not specialist_paths(plan.folder, stage)[-1].exists():
            parents = {name: networks[-1] for name, networks in stages.items()}
            _train_stage(context, plan, stage, parents)
        stages[stage.name] = load_stage(context, plan.folder, stage, plan.network)
    for left in (*_roi_folders(plan), _single_folder(plan)):
        shutil.rmtree(left, ignore_errors=True)
    return assemble_cascade(context, stages)


def _train_stage(
    context: RunContext,
    plan: CascadeTrainingPlan,
    stage: CascadeStage,
    parents: Mapping[str, nn.Module],
) -> None:
    settings = plan.settings(context.config, stage)
    preparation = RoiPreparation(
        stage,
        settings,
        _roi_folders(plan)[0],
        parents,
        plan.out_of_fold_models,
        plan.pseudo,
        plan.left_out,
    )
    trainings = _trainings(plan, stage, settings, context.config.seed)
    first = trainings[: settings.averaged_networks]
    second = trainings[settings.averaged_networks :]
    _train_networks(context, plan, preparation, first)
    if second:
        shutil.rmtree(preparation.rois, ignore_errors=True)
        found = _first_pass(context, plan, first)
        again = replace(preparation, rois=_roi_folders(plan)[1], first_pass=found)
        _train_networks(context, plan, again, second)
    if len(trainings) > 1:
        _join(first, second, plan.folder)
    for left in _roi_folders(plan):
        shutil.rmtree(left, ignore_errors=True)


def _train_networks(
    context: RunContext,
    plan: CascadeTrainingPlan,
    preparation: RoiPreparation,
    trainings: Sequence[_StageTraining],
) -> None:
    """Train the networks of a stage that see the same ROIs, unless they are trained already."""
    waiting = [training for training in trainings if not training.is_done]
    if not waiting:
        return
    labelled = labelled_cases(context, preparation)
    unlabelled: list[TrainingCase] | None = None
    for training in waiting:
        ssl_method = _start(context, plan, training)
        if ssl_method.uses_unlabelled and unlabelled is None:
            unlabelled = unlabelled_cases(context, preparation)
        together(_fit, context, training, ssl_method, (labelled, unlabelled or []))


@dataclass(frozen=True, slots=True)
class _StageTraining:
    """What the training of a network is called, where its weights go, its settings and seed.

    Networks of a stage are numbered from 0, that of a second pass last.
    """

    name: str
    number: int
    folder: Path
    stage: CascadeStage
    settings: SpecialistConfig
    seed: int

    @property
    def paths(self) -> list[Path]:
        """The files of its weights."""
        return specialist_paths(self.folder, self.stage)

    @property
    def is_done(self) -> bool:
        """Whether it was trained to the end."""
        return self.paths[-1].exists()

    @property
    def schedule(self) -> Schedule:
        """Length and learning rate, and the snapshots that the stage is loaded with."""
        return Schedule(
            name=self.name,
            steps=self.settings.iterations,
            learning_rate=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            optimiser=self.settings.optimiser,
            seed=self.seed,
            snapshots=SNAPSHOTS,
        )

    def save(self, number: int, tensors: dict[str, Tensor]) -> None:
        """Write the weights of a snapshot, or those of the end."""
        facts = {"stage": self.stage.name, "settings": self.settings.model_dump(mode="json")}
        save_checkpoint(self.paths[number], Checkpoint("specialist", tensors, facts))


def _trainings(
    plan: CascadeTrainingPlan, stage: CascadeStage, settings: SpecialistConfig, seed: int
) -> list[_StageTraining]:
    """Return the trainings of a stage, one for each network.

    No organ is made brighter or darker for a second pass, which sees what it is likely to be.
    """
    name = f"{plan.name}-{stage.name}"
    names = network_names(name, settings)
    if len(names) == 1:
        return [_StageTraining(name, 0, plan.folder, stage, settings, seed)]
    trainings = [
        _StageTraining(
            network,
            number,
            _single_folder(plan) / str(number),
            stage,
            settings,
            seed + number * SEED_STEP,
        )
        for number, network in enumerate(names)
    ]
    if settings.second_pass:
        known = settings.model_copy(update={"target_shift_chance": 0.0})
        trainings[-1] = replace(trainings[-1], settings=known)
    return trainings


def network_names(name: str, settings: SpecialistConfig) -> list[str]:
    """Return what the trainings of a stage's networks are called, that of a second pass last.

    Args:
        name: Of the first one.
        settings: Of the stage, as it is trained; see `scheduled`.
    """
    others = [f"{name}-network-{number + 2}" for number in range(settings.averaged_networks - 1)]
    return [name, *others, *([f"{name}-second-pass"] if settings.second_pass else [])]


def _join(first: Sequence[_StageTraining], second: Sequence[_StageTraining], folder: Path) -> None:
    """Write the weights of several networks as those of one stage; the last file says all is there.

    Args:
        first: Of the networks of the first pass, all of them done.
        second: That of the second pass, done too; none without one.
        folder: Where the stage is looked for.
    """
    whole = replace(first[0], folder=folder)
    for number in range(len(whole.paths)):
        of_first, of_second = (
            [load_checkpoint(one.paths[number], "specialist").tensors for one in trainings]
            for trainings in (first, second)
        )
        whole.save(number, joined(of_first, *of_second))


def _first_pass(
    context: RunContext, plan: CascadeTrainingPlan, trainings: Sequence[_StageTraining]
) -> nn.Module:
    """Return the trained networks of a first pass, in evaluation mode."""
    networks = [load_networks(_builder(plan, one), one.paths[-1]) for one in trainings]
    network = networks[0] if len(networks) == 1 else AveragedNetworks(networks)
    return network.to(context.device).eval()


def _builder(plan: CascadeTrainingPlan, training: _StageTraining) -> Callable[[], nn.Module]:
    """Return what builds the untrained network of a training."""
    return lambda: plan.network(training.stage, training.settings)


def _roi_folders(plan: CascadeTrainingPlan) -> tuple[Path, Path]:
    """Return where copies of the images lie while a stage is trained, and its second pass."""
    return plan.folder / run_names.ROIS, plan.folder / run_names.ROIS_SECOND_PASS


def _single_folder(plan: CascadeTrainingPlan) -> Path:
    """Return where networks lie that are to be averaged, until all of a stage are trained."""
    return plan.folder / run_names.SINGLE_NETWORKS


def _start(context: RunContext, plan: CascadeTrainingPlan, training: _StageTraining) -> SSLMethod:
    """Return what trains a network, with random weights or those of the same network before."""
    stage = training.stage
    torch.manual_seed(training.seed)
    ssl_method = plan.build(plan.ssl_name, stage, training.settings)
    if stage.name in plan.start:
        known = network_of(plan.start[stage.name], training.number).state_dict()
        ssl_method.student.load_state_dict(known)
        ssl_method.average.load_state_dict(known)
    return ssl_method.to(context.device)


def _fit(
    context: RunContext,
    training: _StageTraining,
    ssl_method: SSLMethod,
    cases: tuple[list[TrainingCase], list[TrainingCase]],
) -> None:
    settings, folder = training.settings, training.folder
    ssl_method.setup(cases[1])

    def keep(number: int) -> None:
        training.save(number, ssl_method.average.state_dict())

    prepare = _batches(context, training, ssl_method.unlabelled_draws, cases)
    with (
        Prefetch(prepare, settings.iterations, spare_threads(context.device)) as batches,
        network_recorder(training.name, context.device, batches) as recorder,
    ):
        ssl_method.recorder = recorder
        trainer = Trainer(
            ssl_method,
            training.schedule,
            context.device,
            folder,
            after_step=ssl_method.after_step,
            snapshot=keep,
            configure_optimizers=ssl_method.configure_optimizers(),
            most_parts=settings.batch_size,
            recorder=recorder,
        )

        def step_loss(step: int, generator: torch.Generator, part: WorkPart) -> dict[str, Tensor]:
            terms = ssl_method.loss(*batches(step, part), step, generator)
            return {"loss": terms.total, **terms.named(), **terms.shares()}

        trainer.run(step_loss, context.monitor)
    if my_part().is_first:
        ssl_method.save_more(folder, training.stage.name)
        keep(len(training.paths) - 1)


def _batches(
    context: RunContext,
    training: _StageTraining,
    unlabelled_draws: int,
    cases: tuple[list[TrainingCase], list[TrainingCase]],
) -> Callable[[int, WorkPart], tuple[Batch, Batch | None]]:
    """Return a function that cuts labelled and unlabelled patches of a step."""
    settings, seed, device = training.settings, training.seed, context.device
    human_share = context.config.reliability.human_share
    labelled = BatchSource(cases[0], settings, seed, 0, human_share, device)
    drawn = settings.model_copy(update={"batch_size": settings.batch_size * unlabelled_draws})
    unlabelled = BatchSource(cases[1], drawn, seed, 1, device=device) if cases[1] else None

    def prepare(step: int, part: WorkPart) -> tuple[Batch, Batch | None]:
        extra = unlabelled.batch(step, part) if unlabelled else None
        return labelled.batch(step, part), extra

    return prepare
