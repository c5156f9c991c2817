"""Training of the specialist: one network per stage, parents first.

A stage inside a parent target is trained with true, degraded and predicted masks of the parent.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aslseg.config import RunConfig, SpecialistConfig, SSLName
from aslseg.context import RunContext
from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap, to_axial
from aslseg.data.volume import Labelmap, Mask, Volume
from aslseg.distributed import Part, mapped, my_part, together
from aslseg.errors import ProjectError
from aslseg.inference.loading import (
    SNAPSHOTS,
    BuildNetwork,
    TrainedCascade,
    assemble_cascade,
    load_stage,
    specialist_paths,
)
from aslseg.networks.checkpoints import Checkpoint, save_checkpoint
from aslseg.networks.unet import build_network
from aslseg.preprocessing.patches import Batch, BatchSource, TrainingCase
from aslseg.preprocessing.roi import IGNORED, Roi, build_roi, save_roi
from aslseg.project.case import Case
from aslseg.project.lesion_labels import partial_label
from aslseg.storage import copy_atomic
from aslseg.targets import CascadeStage, region_mask, undecided_mask
from aslseg.training.parent_masks import ParentMasks
from aslseg.training.pseudo_label import PseudoLabel
from aslseg.training.ssl import build_ssl_method
from aslseg.training.ssl.base import SSLMethod
from aslseg.training.trainer import (
    Prefetch,
    Schedule,
    Trainer,
    network_recorder,
    spare_threads,
)


def scheduled(
    config: RunConfig, stage: CascadeStage, share: float = 1.0, rate: float = 1.0
) -> SpecialistConfig:
    """Return the settings of a stage with its schedule and its learning rate cut to a part.

    In a stage of several targets no lesion is drawn: nothing says which of them it would be.
    """
    settings = config.stage(stage.parent_name)
    update = {
        "iterations": max(1, round(settings.iterations * share)),
        "learning_rate": settings.learning_rate * rate,
    }
    if len(stage.targets) > 1:
        update["synthetic_lesion_chance"] = 0.0
    return settings.model_copy(update=update)


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

    def settings(self, config: RunConfig, stage: CascadeStage) -> SpecialistConfig:
        """Return the settings that a stage is trained with."""
        return scheduled(config, stage, self.share, self.rate)


def train_cascade(context: RunContext, plan: CascadeTrainingPlan) -> TrainedCascade:
    """Train one network per stage, parents first.

    Stages whose weights are in the folder already are loaded, not trained; copies of images that a
    process left there when it was ended are deleted.

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
    shutil.rmtree(_roi_folder(plan), ignore_errors=True)
    return assemble_cascade(context, stages)


def _train_stage(
    context: RunContext,
    plan: CascadeTrainingPlan,
    stage: CascadeStage,
    parents: Mapping[str, nn.Module],
) -> None:
    settings = plan.settings(context.config, stage)
    preparation = _Preparation(stage, settings, _roi_folder(plan), parents, plan.out_of_fold_models)
    labelled = _labelled_cases(context, plan, preparation)
    ssl_method = _start(context, plan, stage, settings)
    unlabelled = []
    if ssl_method.uses_unlabelled:
        unlabelled = _unlabelled_cases(context, preparation)
    training = _StageTraining(f"{plan.name}-{stage.name}", plan.folder, stage, settings)
    together(_fit, context, training, ssl_method, (labelled, unlabelled))
    shutil.rmtree(preparation.rois, ignore_errors=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Preparation:
    """How ROIs of cases are made for a stage.

    Attributes:
        stage: That is trained.
        settings: Of the stage.
        rois: Where they are written.
        parents: Networks of the stages before, by stage name.
        out_of_fold_models: As of the plan.
    """

    stage: CascadeStage
    settings: SpecialistConfig
    rois: Path
    parents: Mapping[str, nn.Module]
    out_of_fold_models: Mapping[str, Mapping[str, nn.Module]]

    def parent_masks(self, context: RunContext) -> ParentMasks:
        """Return what makes the parent masks that a case is trained with."""
        return ParentMasks(context, self.stage, self.out_of_fold_models)

    def found_parent(self, context: RunContext, volume: Volume) -> Mask | None:
        """Return the parent mask that the stages before predict."""
        return self.parent_masks(context).predict_parent(volume, self.parents)


@dataclass(frozen=True, slots=True)
class _StageTraining:
    """What the training of a stage is called, where its weights go, and its settings."""

    name: str
    folder: Path
    stage: CascadeStage
    settings: SpecialistConfig

    def schedule(self, seed: int) -> Schedule:
        """Return length and learning rate, and the snapshots that the stage is loaded with."""
        return Schedule(
            name=self.name,
            steps=self.settings.iterations,
            learning_rate=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            optimiser=self.settings.optimiser,
            seed=seed,
            snapshots=SNAPSHOTS,
        )


def _roi_folder(plan: CascadeTrainingPlan) -> Path:
    """Return where copies of the images lie while a stage is trained."""
    return plan.folder / "rois"


def _start(
    context: RunContext, plan: CascadeTrainingPlan, stage: CascadeStage, settings: SpecialistConfig
) -> SSLMethod:
    torch.manual_seed(context.config.seed)
    ssl_method = plan.build(plan.ssl_name, stage, settings)
    if stage.name in plan.start:
        known = plan.start[stage.name].state_dict()
        ssl_method.student.load_state_dict(known)
        ssl_method.average.load_state_dict(known)
    return ssl_method.to(context.device)


def _fit(
    context: RunContext,
    training: _StageTraining,
    ssl_method: SSLMethod,
    cases: tuple[list[TrainingCase], list[TrainingCase]],
) -> None:
    stage, settings = training.stage, training.settings
    paths = specialist_paths(training.folder, stage)
    ssl_method.setup(cases[1])

    def keep(number: int) -> None:
        tensors = ssl_method.average.state_dict()
        facts = {"stage": stage.name, "settings": settings.model_dump(mode="json")}
        save_checkpoint(paths[number], Checkpoint("specialist", tensors, facts))

    prepare = _batches(context, settings, ssl_method.unlabelled_draws, cases)
    with (
        Prefetch(prepare, settings.iterations, spare_threads(context.device)) as batches,
        network_recorder(training.name, context.device, batches) as recorder,
    ):
        ssl_method.recorder = recorder
        trainer = Trainer(
            ssl_method,
            training.schedule(context.config.seed),
            context.device,
            paths[-1].parent,
            after_step=ssl_method.after_step,
            snapshot=keep,
            configure_optimizers=ssl_method.configure_optimizers(),
            most_parts=settings.batch_size,
            recorder=recorder,
        )

        def step_loss(step: int, generator: torch.Generator, part: Part) -> dict[str, Tensor]:
            terms = ssl_method.loss(*batches(step, part), step, generator)
            return {"loss": terms.total, **terms.named(), **terms.shares()}

        trainer.run(step_loss, context.monitor)
    if my_part().is_first:
        ssl_method.save_more(paths[-1].parent, stage.name)
        keep(len(paths) - 1)


def _batches(
    context: RunContext,
    settings: SpecialistConfig,
    unlabelled_draws: int,
    cases: tuple[list[TrainingCase], list[TrainingCase]],
) -> Callable[[int, Part], tuple[Batch, Batch | None]]:
    """Return a function that cuts labelled and unlabelled patches of a step."""
    seed, device = context.config.seed, context.device
    human_share = context.config.reliability.human_share
    labelled = BatchSource(cases[0], settings, seed, 0, human_share, device)
    drawn = settings.model_copy(update={"batch_size": settings.batch_size * unlabelled_draws})
    unlabelled = BatchSource(cases[1], drawn, seed, 1, device=device) if cases[1] else None

    def prepare(step: int, part: Part) -> tuple[Batch, Batch | None]:
        extra = unlabelled.batch(step, part) if unlabelled else None
        return labelled.batch(step, part), extra

    return prepare


def _labelled_cases(
    context: RunContext, plan: CascadeTrainingPlan, preparation: _Preparation
) -> list[TrainingCase]:
    stage = preparation.stage
    labelled = [case for case in context.labelled_for(stage) if case.id not in plan.left_out]
    known: list[tuple[Case, PseudoLabel | None]] = [(case, None) for case in labelled]
    known += [
        (case, plan.pseudo[case.id])
        for case in context.unlabelled
        if case not in labelled and case.id in plan.pseudo and plan.pseudo[case.id].covers(stage)
    ]
    task = f"Preparing {stage.name}"
    prepared = mapped(_prepared, known, context.monitor, task, context, preparation)
    cases = [one for of_case in prepared for one in of_case]
    cases += _decided_cases(context, plan, stage, preparation.rois)
    if not any(_shows_a_target(case.roi) for case in cases):
        names = ", ".join(target.name for target in stage.targets)
        msg = f"No labelled case has any voxel of {names}; label at least one and train again."
        raise ProjectError(msg)
    return cases


def _prepared(
    known: tuple[Case, PseudoLabel | None], context: RunContext, preparation: _Preparation
) -> list[TrainingCase]:
    """Write the ROIs of a labelled case, one for each of its parent masks."""
    (case, pseudo), stage = known, preparation.stage
    labels = _decided(context, case, pseudo) if pseudo else context.labels(case)
    ignored = pseudo.ignored(stage, context.targets) if pseudo else None
    if pseudo is None:
        ignored = _undecided(context, stage, case, labels)
    weight = context.config.reliability.pseudo_weight if pseudo else 1.0
    volume = context.image(case)
    parents = preparation.parent_masks(context).parents_of(case.id, volume, labels)
    if stage.inside and stage.inside.name in context.project.unknown_targets(case) and not pseudo:
        found = preparation.found_parent(context, volume)
        parents = _parents_around(found, labels, stage, context)
    cases: list[TrainingCase] = []
    for number, parent in enumerate(parents):
        roi = build_roi(
            volume,
            stage,
            preparation.settings,
            parent=parent,
            labels=labels,
            ignored=ignored,
            targets=context.targets,
        )
        folder = preparation.rois / f"labelled-{case.id}-{number}"
        save_roi(roi, folder)
        is_pseudo = pseudo is not None
        cases.append(TrainingCase(folder, weight, case.id, is_pseudo, case.patient))
    return cases


def _parents_around(
    found: Mask | None, labels: Labelmap, stage: CascadeStage, context: RunContext
) -> list[Mask | None]:
    """Return the predicted parent of a case whose label map does not say where the parent is.

    What is labelled in it belongs to it.
    """
    if found is None or stage.inside is None:
        return []
    return [found | region_mask(labels.labels, stage.inside, context.targets)]


def _undecided(
    context: RunContext, stage: CascadeStage, case: Case, labels: Labelmap
) -> Mask | None:
    """Return where nobody has looked for targets of a stage; None if all is known."""
    unknown = context.project.unknown_targets(case) & {target.name for target in stage.targets}
    undecided = undecided_mask(labels.labels, unknown, context.targets) if unknown else None
    incomplete = context.incomplete(case)
    if undecided is None or incomplete is None:
        return incomplete if undecided is None else undecided
    return undecided | incomplete


def _decided(context: RunContext, case: Case, pseudo: PseudoLabel) -> Labelmap:
    """Return a pseudo-label with what a person has decided about its lesions."""
    found = read_labelmap(pseudo.labels)
    labels = context.lesions(case).apply(found.labels, context.targets)
    return axial_labelmap(Labelmap(labels, found.geometry))


def _decided_cases(
    context: RunContext, plan: CascadeTrainingPlan, stage: CascadeStage, rois: Path
) -> list[TrainingCase]:
    """Return cases of which a person has decided about some lesions, labelled there alone."""
    if stage.inside is None:
        return []
    names = {target.name for target in stage.targets}
    settings = plan.settings(context.config, stage)
    cases: list[TrainingCase] = []
    for case in context.unlabelled:
        lesions = context.lesions(case)
        margin_mm = context.config.candidates.margin_mm
        found = partial_label(context.project, lesions, names, margin_mm)
        if found is None:
            if any(one.target in names for one in lesions.decisions.values()):
                msg = f"Decisions about lesions of {case.id} are not learnt: their run is gone."
                context.monitor.warn(msg)
            continue
        labels, known = axial_labelmap(found[0]), to_axial(found[0].geometry).array(found[1])
        volume = context.image(case)
        parent = volume.given.get(stage.inside.name)
        if parent is None:
            parent = region_mask(labels.labels, stage.inside, context.targets)
        roi = build_roi(
            volume,
            stage,
            settings,
            parent=parent,
            labels=labels,
            ignored=~known,
            targets=context.targets,
        )
        folder = rois / f"decided-{case.id}"
        save_roi(roi, folder)
        cases.append(TrainingCase(folder, 1.0, case.id, patient=case.patient, partial=True))
    return cases


def _shows_a_target(roi: Roi) -> bool:
    """Whether an ROI has a labelled voxel of its stage's targets."""
    labels = np.zeros(0) if roi.labels is None else np.asarray(roi.labels)
    return bool(((labels > 0) & (labels != IGNORED)).any())


def _unlabelled_cases(context: RunContext, preparation: _Preparation) -> list[TrainingCase]:
    known = {case.id for case in context.labelled_for(preparation.stage)}
    unlabelled = [case for case in context.unlabelled if case.id not in known]
    task = f"Preparing unlabelled {preparation.stage.name}"
    found = mapped(_unlabelled, unlabelled, context.monitor, task, context, preparation)
    return [case for case in found if case is not None]


def _unlabelled(case: Case, context: RunContext, preparation: _Preparation) -> TrainingCase | None:
    """Write the ROI of a case without a label; None where no parent is found."""
    volume, stage = context.image(case), preparation.stage
    parent = preparation.found_parent(context, volume)
    if stage.inside is not None and (parent is None or not parent.any()):
        return None
    folder = preparation.rois / case.id
    save_roi(build_roi(volume, stage, preparation.settings, parent=parent), folder)
    return TrainingCase(folder, case_id=case.id, patient=case.patient)
