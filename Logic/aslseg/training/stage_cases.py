"""The cases that a stage is trained on: their ROIs, which lie on disk while it is trained.

A stage inside a parent target has several ROIs of a labelled case: cut out around the true mask of
the parent, degraded ones, and a predicted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from aslseg.config import SpecialistConfig
from aslseg.context import RunContext
from aslseg.data.images import read_labelmap
from aslseg.data.masks import clean_parent
from aslseg.data.orientation import axial_labelmap, to_axial
from aslseg.data.volume import Labelmap, Mask, Volume
from aslseg.distributed import mapped
from aslseg.errors import ProjectError
from aslseg.inference.cascade import predict_passes, predict_roi
from aslseg.preprocessing.likelihood import likelihood_roi
from aslseg.preprocessing.patches import TrainingCase
from aslseg.preprocessing.roi import IGNORED, Roi, build_roi, save_roi, to_volume
from aslseg.project.case import Case
from aslseg.project.lesion_labels import partial_label
from aslseg.targets import (
    CascadeStage,
    Target,
    cascade_stages,
    region_mask,
    shown_targets,
    undecided_mask,
)
from aslseg.training.mask_corruption import MaskCorruption, MaskError, apply_corruption, case_number
from aslseg.training.pseudo_label import PseudoLabel

NEAR_MM = 25.0
"""How far a degraded parent mask reaches beyond the true one."""


@dataclass(frozen=True, slots=True, eq=False)
class RoiPreparation:
    """How ROIs of cases are made for a stage.

    Attributes:
        stage: That is trained.
        settings: Of the stage.
        rois: Where they are written.
        parents: Networks of the stages before, by stage name.
        out_of_fold_models: By case id, networks (by stage name) that were not trained on the case.
        pseudo: Accepted pseudo-labels by case id.
        left_out: Ids of labelled cases that are not trained on.
        first_pass: Networks of the stage that a second pass is trained after; None for the first.
    """

    stage: CascadeStage
    settings: SpecialistConfig
    rois: Path
    parents: Mapping[str, nn.Module]
    out_of_fold_models: Mapping[str, Mapping[str, nn.Module]] = field(default_factory=dict)
    pseudo: Mapping[str, PseudoLabel] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    first_pass: nn.Module | None = None

    def write_roi(
        self,
        name: str,
        volume: Volume,
        parent: Mask | None,
        labels: Labelmap | None = None,
        ignored: Mask | None = None,
        targets: tuple[Target, ...] = (),
    ) -> Path:
        """Write the ROI of a case, and return its folder.

        Args:
            name: Of the folder.
            volume: As all that follows for `build_roi`.
            parent: (D, H, W) mask.
            labels: Label map.
            ignored: (D, H, W) voxels in doubt.
            targets: All targets, if there is a label map.
        """
        roi = build_roi(
            volume,
            self.stage,
            self.settings,
            parent=parent,
            labels=labels,
            ignored=ignored,
            targets=targets,
        )
        folder = self.rois / name
        save_roi(self._as_seen(roi, volume), folder)
        return folder

    def _as_seen(self, roi: Roi, volume: Volume) -> Roi:
        """Return what the networks are given of a ROI: a second pass by its labels, if any."""
        if self.first_pass is None:
            return roi
        shown = None if roi.labels is None else _labelled(roi.labels)
        is_label = shown is not None and bool(shown.any())
        if shown is None or not is_label:
            device = next(self.first_pass.parameters()).device
            shown = predict_roi(self.first_pass, roi, self.settings, device)[1:].sum(0) > 0.5
        return likelihood_roi(roi, volume, shown, self.settings.roi, is_label=is_label)


def labelled_cases(context: RunContext, preparation: RoiPreparation) -> list[TrainingCase]:
    """Write the ROIs of the cases that are known: by a label map, a pseudo-label, or decisions.

    Raises:
        ProjectError: When no label has any voxel of the stage's targets.
    """
    stage, pseudo = preparation.stage, preparation.pseudo
    labelled = [case for case in context.labelled_for(stage) if case.id not in preparation.left_out]
    known: list[tuple[Case, PseudoLabel | None]] = [(case, None) for case in labelled]
    known += [
        (case, pseudo[case.id])
        for case in context.unlabelled
        if case not in labelled and case.id in pseudo and pseudo[case.id].covers(stage)
    ]
    task = f"Preparing {stage.name}"
    prepared = mapped(_prepared, known, context.monitor, task, context, preparation)
    cases = [one for of_case in prepared for one in of_case]
    cases += _decided_cases(context, preparation)
    if not any(_shows_a_target(case.roi) for case in cases):
        raise ProjectError(_nothing_shown(target.name for target in stage.targets))
    return cases


def refuse_absent_targets(context: RunContext) -> None:
    """Make sure that each stage has something to learn, and say which of its targets have nothing.

    Organ masks, labels of another model that a run begins with, and lesions that a person decided
    about count as labels do.

    Raises:
        ProjectError: When no label has any voxel of a stage's targets.
    """
    shown = _shown(context)
    for stage in context.stages:
        absent = [target.name for target in stage.targets if target.name not in shown]
        if absent and len(absent) == len(stage.targets):
            raise ProjectError(_nothing_shown(absent))
        if absent:
            context.monitor.warn(
                f"No labelled case has any voxel of {', '.join(absent)}: that there is none "
                "anywhere is learnt. Label at least one and train again, or leave the target out."
            )


def _nothing_shown(names: Iterable[str]) -> str:
    """Say that no label has any voxel of some targets, and the remedy."""
    listed = ", ".join(names)
    return f"No labelled case has any voxel of {listed}; label at least one and train again."


def _shown(context: RunContext) -> set[str]:
    """Return the names of the targets that something shows; no more label maps than needed."""
    every = {target.name for target in context.targets}
    shown = {name for case in context.project.cases for name in case.masks}
    shown |= {n for names in context.folder.status.start_targets.values() for n in names}
    for case in context.labelled:
        if not every <= shown:
            shown |= {*shown_targets(context.labels(case).labels, context.targets)}
    for case in () if every <= shown else context.unlabelled:
        shown |= {one.target for one in context.lesions(case).decisions.values()}
    return shown


def unlabelled_cases(context: RunContext, preparation: RoiPreparation) -> list[TrainingCase]:
    """Write the ROIs of the cases without a label map; those without a parent are left out."""
    known = {case.id for case in context.labelled_for(preparation.stage)}
    unlabelled = [case for case in context.unlabelled if case.id not in known]
    task = f"Preparing unlabelled {preparation.stage.name}"
    found = mapped(_unlabelled, unlabelled, context.monitor, task, context, preparation)
    return [case for case in found if case is not None]


def _prepared(
    known: tuple[Case, PseudoLabel | None], context: RunContext, preparation: RoiPreparation
) -> list[TrainingCase]:
    """Write the ROIs of a labelled case, one for each of its parent masks."""
    (case, pseudo), stage = known, preparation.stage
    labels = _decided(context, case, pseudo) if pseudo else context.labels(case)
    ignored = pseudo.ignored(stage, context.targets) if pseudo else None
    if pseudo is None:
        ignored = _undecided(context, stage, case, labels)
    weight = context.config.reliability.pseudo_weight if pseudo else 1.0
    volume = context.image(case)
    parents = parent_masks_of(case.id, volume, labels, context, preparation)
    if stage.inside and stage.inside.name in context.project.unknown_targets(case) and not pseudo:
        found = predict_parent(volume, preparation.parents, context, stage)
        parents = _parents_around(found, labels, stage, context)
    cases: list[TrainingCase] = []
    for number, parent in enumerate(parents):
        name = f"labelled-{case.id}-{number}"
        folder = preparation.write_roi(name, volume, parent, labels, ignored, context.targets)
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
    return axial_labelmap(context.lesions(case).applied_to(found, context.targets))


def _decided_cases(context: RunContext, preparation: RoiPreparation) -> list[TrainingCase]:
    """Return cases of which a person has decided about some lesions, labelled there alone."""
    stage = preparation.stage
    if stage.inside is None:
        return []
    names = {target.name for target in stage.targets}
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
        name = f"decided-{case.id}"
        folder = preparation.write_roi(name, volume, parent, labels, ~known, context.targets)
        cases.append(TrainingCase(folder, 1.0, case.id, patient=case.patient, partial=True))
    return cases


def _shows_a_target(roi: Roi) -> bool:
    """Whether an ROI has a labelled voxel of its stage's targets."""
    return roi.labels is not None and bool(_labelled(roi.labels).any())


def _labelled(classes: NDArray[np.uint8]) -> Mask:
    """Return where an ROI's labels show any target."""
    shown: Mask = (classes > 0) & (classes != IGNORED)
    return shown


def _unlabelled(
    case: Case, context: RunContext, preparation: RoiPreparation
) -> TrainingCase | None:
    """Write the ROI of a case without a label; None where no parent is found."""
    volume, stage = context.image(case), preparation.stage
    parent = predict_parent(volume, preparation.parents, context, stage)
    if stage.inside is not None and (parent is None or not parent.any()):
        return None
    folder = preparation.write_roi(case.id, volume, parent)
    return TrainingCase(folder, case_id=case.id, patient=case.patient)


def degraded_parents(true: Mask, volume: Volume, case_id: str, seed: int) -> list[Mask]:
    """Return the true mask with parts added, and the true mask dilated.

    Args:
        true: (D, H, W), on the volume's axial grid.
        volume: The image, for its spacing in mm.
        case_id: Of the case.
        seed: Of the run.

    Returns:
        Two masks (D, H, W).
    """
    rng = np.random.default_rng([seed, 23, case_number(case_id)])
    spacing = volume.geometry.spacing_mm
    near = apply_corruption(true, MaskCorruption((MaskError.DILATED,), NEAR_MM, 0), spacing, true)
    invented = MaskCorruption((MaskError.INVENTED,) * 8, 5.0, int(rng.integers(2**31)))
    return [true | apply_corruption(true, invented, spacing, near), near]


def parent_masks_of(
    case_id: str,
    volume: Volume,
    labels: Labelmap,
    context: RunContext,
    preparation: RoiPreparation,
) -> list[Mask | None]:
    """Return the parent masks that a labelled case is trained with; none for an empty parent.

    At inference the parent mask is predicted and includes tissue around the parent, which a
    network trained on true masks alone labels as lesion. So the true mask is followed by one
    with parts added, a dilated one, and the prediction of an out-of-fold model if there is one.
    A given mask stands for the true one, and is alone where no parent is ever predicted.

    Returns:
        (D, H, W) masks; [None] for a stage without a parent.
    """
    parent, models = preparation.stage.inside, preparation.out_of_fold_models
    if parent is None:
        return [None]
    true = volume.given.get(parent.name)
    if true is None:
        true = region_mask(labels.labels, parent, context.targets)
    elif parent.name in context.given_targets:
        return [true]
    if not true.any():
        return []
    degraded = degraded_parents(true, volume, case_id, context.config.seed)
    if case_id in models:
        predicted = predict_parent(volume, models[case_id], context, preparation.stage)
        degraded += [predicted] if predicted is not None and predicted.any() else []
    return [true, *degraded]


def predict_parent(
    volume: Volume, networks: Mapping[str, nn.Module], context: RunContext, goal: CascadeStage
) -> Mask | None:
    """Return the given mask of a stage's parent, else the predicted one; None without a parent.

    Returns:
        (D, H, W) on the volume's axial grid.
    """
    parent = None
    for stage in _path_to(goal, context):
        inside = _next_parent(stage, goal, context)
        given = volume.given.get(stage.targets[inside - 1].name)
        if given is not None:
            parent = given
            continue
        settings = context.config.stage(stage.parent_name)
        roi = build_roi(volume, stage, settings, parent=parent)
        classes = predict_passes(networks[stage.name], roi, volume, settings, context.device)
        parent = clean_parent(to_volume(classes, roi)[inside] > 0.5)
        if not parent.any():
            break
    return parent


def _path_to(stage: CascadeStage, context: RunContext) -> list[CascadeStage]:
    """Return the stages that lead to a stage's parent, outermost first."""
    stages = {target.name: s for s in cascade_stages(context.targets) for target in s.targets}
    path: list[CascadeStage] = []
    parent = stage.inside
    while parent is not None:
        path.insert(0, stages[parent.name])
        parent = stages[parent.name].inside
    return path


def _next_parent(stage: CascadeStage, goal: CascadeStage, context: RunContext) -> int:
    """Return the class number, in `stage`, of the target on the way to `goal`'s parent."""
    wanted = [s.inside.name for s in [*_path_to(goal, context)[1:], goal] if s.inside is not None]
    return next(n for n, t in enumerate(stage.targets, start=1) if t.name in wanted)
