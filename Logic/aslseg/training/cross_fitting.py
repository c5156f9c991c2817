"""Specialists that never saw a labelled case, to learn from the mistakes they make on it.

A specialist knows the cases that it was trained on by heart, so what it says about them is no
example of what it will say about others. Here the labelled cases are divided into two groups, and
each group is judged by a specialist that was trained on the other one (stacking: Wolpert, Stacked
generalization, Neural Networks 5, 1992). SAM, the adaptation network and the lesion stage are
taught with these judgements. (Ours.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aslseg.context import RunContext
from aslseg.errors import ProjectError
from aslseg.inference.cascade import Specialist
from aslseg.training.cascade import CascadeTrainingPlan, train_cascade

FOLDS = 2

OutOfFoldModels = dict[str, Specialist]
"""By case id, a specialist that never saw the case."""


def folds_of(case_ids: Sequence[str]) -> list[frozenset[str]]:
    """Divide cases into groups of near-equal size; a single case cannot be divided.

    Returns:
        Two groups, or none of fewer than two cases.
    """
    if len(case_ids) < FOLDS:
        return []
    return [frozenset(case_ids[first::FOLDS]) for first in range(FOLDS)]


def cross_fitted_models(context: RunContext, folder: Path) -> OutOfFoldModels:
    """Train a specialist on each group of labelled cases, or read those that the folder has.

    A group whose other cases show nothing of some target has no witness.

    Args:
        context: Cases and settings; `crossfit_share` is the part of the schedule that is run.
        folder: Where the weights go.
    """
    out_of_fold_models: OutOfFoldModels = {}
    if context.config.crossfit_share == 0:
        return out_of_fold_models
    for number, group in enumerate(folds_of([case.id for case in context.labelled]), start=1):
        plan = CascadeTrainingPlan(
            folder=folder / f"without-group-{number}",
            paradigm="supervised",
            pseudo={},
            start={},
            share=context.config.crossfit_share,
            left_out=group,
            name=f"cross-fitted-{number}",
        )
        try:
            specialist = train_cascade(context, plan).specialist
        except ProjectError as error:
            context.monitor.warn(f"Not cross-fitted for {', '.join(sorted(group))}: {error}")
            continue
        out_of_fold_models.update(dict.fromkeys(group, specialist))
    return out_of_fold_models
