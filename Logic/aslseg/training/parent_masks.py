"""The parent masks that a stage is trained with: true, degraded and predicted ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from aslseg.context import RunContext
from aslseg.data.masks import clean_parent
from aslseg.data.volume import Labelmap, Mask, Volume
from aslseg.inference.cascade import predict_roi
from aslseg.preprocessing.roi import build_roi, to_volume
from aslseg.targets import CascadeStage, cascade_stages, region_mask
from aslseg.training.mask_corruption import MaskCorruption, MaskError, apply_corruption, case_number

NEAR_MM = 25.0
"""How far a degraded parent mask reaches beyond the true one."""


def degraded_parents(true: Mask, volume: Volume, case_id: str, seed: int) -> list[Mask]:
    """Return the true mask with parts added, and the true mask dilated."""
    rng = np.random.default_rng([seed, 23, case_number(case_id)])
    spacing = volume.geometry.spacing_mm
    near = apply_corruption(true, MaskCorruption((MaskError.DILATED,), NEAR_MM, 0), spacing, true)
    invented = MaskCorruption((MaskError.INVENTED,) * 8, 5.0, int(rng.integers(2**31)))
    return [true | apply_corruption(true, invented, spacing, near), near]


class ParentMasks:
    """Masks of a stage's parent target, true, degraded and predicted.

    Args:
        context: Cases and settings.
        stage: Whose parent is meant.
        out_of_fold_models: By case id, networks (by stage name) that were not trained on the case.
    """

    def __init__(
        self,
        context: RunContext,
        stage: CascadeStage,
        out_of_fold_models: Mapping[str, Mapping[str, nn.Module]],
    ) -> None:
        self._stage = stage
        self._context = context
        self._out_of_fold_models = out_of_fold_models

    def parents_of(self, case_id: str, volume: Volume, labels: Labelmap) -> list[Mask | None]:
        """Return the parent masks that a labelled case is trained with; none for an empty parent.

        At inference the parent mask is predicted and includes tissue around the parent, which a
        network trained on true masks alone labels as lesion. So the true mask is followed by one
        with parts added, a dilated one, and the prediction of an out-of-fold model if there is one.
        A given mask stands for the true one, and is alone where no parent is ever predicted.

        Returns:
            (D, H, W) masks; [None] for a stage without a parent.
        """
        parent = self._stage.inside
        if parent is None:
            return [None]
        true = volume.given.get(parent.name)
        if true is None:
            true = region_mask(labels.labels, parent, self._context.targets)
        elif parent.name in self._context.given_targets:
            return [true]
        if not true.any():
            return []
        degraded = degraded_parents(true, volume, case_id, self._context.config.seed)
        if case_id in self._out_of_fold_models:
            predicted = self.predict_parent(volume, self._out_of_fold_models[case_id])
            degraded += [predicted] if predicted is not None and predicted.any() else []
        return [true, *degraded]

    def predict_parent(self, volume: Volume, networks: Mapping[str, nn.Module]) -> Mask | None:
        """Return the given parent mask, else the one that the networks predict; None without."""
        parent = None
        for stage in _path_to(self._stage, self._context):
            inside = _next_parent(stage, self._stage, self._context)
            given = volume.given.get(stage.targets[inside - 1].name)
            if given is not None:
                parent = given
                continue
            settings = self._context.config.stage(stage.parent_name)
            roi = build_roi(volume, stage, settings, parent=parent)
            classes = predict_roi(networks[stage.name], roi, settings, self._context.device)
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
