"""One budget for all rows: how many training steps a run takes, and how they are divided.

A step is one update by one batch: of a specialist's stage, of SAM's tuning, of an adaptation
network, of an out-of-fold model (`aslseg.training.cross_fitting`), in any round. A step that
updates two networks at once, as in CPS and SC-SAM, is one step, as it is in their papers. The
benchmark gives every run the same number of steps in all, so whoever trains more parts trains each
of them for less long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from aslseg.config import RunConfig
from aslseg.errors import ConfigError
from aslseg.targets import CascadeStage, Target, cascade_stages
from aslseg.training.cascade import scheduled
from aslseg.training.cross_fitting import folds_of
from aslseg.training.fusion import FOLDS, fold_steps

Steps = dict[str, int]
"""Optimiser steps of each training of a run, by its name."""


def planned_steps(config: RunConfig, targets: Sequence[Target], labelled: int) -> Steps:
    """Return how many steps each training of a run will take.

    Args:
        config: Settings of the run.
        targets: All targets.
        labelled: Number of labelled patients.
    """
    stages = cascade_stages(tuple(targets))
    steps: Counter[str] = Counter()
    for number in range(1, config.rounds + 1):
        share = 1.0 if number == 1 else config.later_share
        steps.update({f"specialist {s.name}": _cut(config, s, share) for s in stages})
    if config.method == "aslseg":
        steps.update(_other_steps(config, stages, labelled))
    return dict(steps)


def _cut(config: RunConfig, stage: CascadeStage, share: float) -> int:
    return scheduled(config, stage, share).iterations


def _other_steps(config: RunConfig, stages: Sequence[CascadeStage], labelled: int) -> Steps:
    steps: Steps = {}
    folds = len(folds_of(str(number) for number in range(labelled)))
    if config.crossfit_share > 0 and folds:
        of_fold = sum(_cut(config, stage, config.crossfit_share) for stage in stages)
        steps["out-of-fold models"] = folds * of_fold
    if tunes_sam(config):
        steps["sam"] = config.sam.iterations
    for target in (target for stage in stages for target in stage.targets):
        steps[f"adaptation {target.name}"] = config.adaptation.iterations
        steps[f"adaptation {target.name}, folds"] = FOLDS * fold_steps(config.adaptation.iterations)
    return steps


def tunes_sam(config: RunConfig) -> bool:
    """Tell whether a run trains SAM by itself, as ASLseg does."""
    return config.method == "aslseg" and config.sam.model != "none" and config.sam.tuning != "none"


def allotted(config: RunConfig, budget: int, targets: Sequence[Target], labelled: int) -> RunConfig:
    """Divide a budget among the trainings of a run, in the proportions that its settings have.

    What rounding leaves over goes to SAM's tuning, or else to the organ stage.

    Args:
        config: Its numbers of steps say how one training compares with another.
        budget: Steps in all.
        targets: All targets.
        labelled: Number of labelled patients.

    Returns:
        Settings whose `planned_steps` add up to the budget.

    Raises:
        ConfigError: When the budget is too small to give each training a step, or does not come
            out even (rounds without SAM).
    """
    scale = budget / _total(config, targets, labelled)
    divided = _scaled(config, scale)
    left_over = budget - _total(divided, targets, labelled)
    divided = _given_more(divided, left_over)
    if _total(divided, targets, labelled) != budget:
        msg = f"{budget} steps cannot be divided among the parts of {config.method}; take more."
        raise ConfigError(msg)
    return divided


def _total(config: RunConfig, targets: Sequence[Target], labelled: int) -> int:
    return sum(planned_steps(config, targets, labelled).values())


def _scaled(config: RunConfig, scale: float) -> RunConfig:
    parts = {
        name: getattr(config, name).model_copy(
            update={"iterations": max(1, int(getattr(config, name).iterations * scale))}
        )
        for name in ("organ", "lesion", "sam", "adaptation")
    }
    return config.model_copy(update=parts)


def _given_more(config: RunConfig, steps: int) -> RunConfig:
    name = "sam" if tunes_sam(config) else "organ"
    part = getattr(config, name)
    more = part.model_copy(update={"iterations": max(1, part.iterations + steps)})
    return config.model_copy(update={name: more})
