"""Out-of-fold models: specialists that were not trained on a labelled case.

A specialist overfits the cases that it was trained on, so its predictions of them do not have the
errors of its predictions of others. So the labelled patients are divided into two folds, and each
is predicted by a specialist that was trained on the other one (stacking: Wolpert, Stacked
generalization, Neural Networks 5, 1992). SAM, the adaptation network and the lesion stage are
trained with these predictions. (Ours.)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aslseg.context import RunContext
from aslseg.errors import ProjectError
from aslseg.inference.cascade import Specialist
from aslseg.training.cascade import CascadeTrainingPlan, train_cascade

FOLDS = 2

OutOfFoldModels = dict[str, Specialist]
"""By case id, a specialist that was not trained on the case."""


def folds_of(patients: Iterable[str]) -> list[frozenset[str]]:
    """Divide patients into folds of near-equal size.

    Args:
        patients: Of the cases; one who occurs several times is in one fold.

    Returns:
        Two folds; none of fewer than two patients.
    """
    distinct = list(dict.fromkeys(patients))
    if len(distinct) < FOLDS:
        return []
    return [frozenset(distinct[first::FOLDS]) for first in range(FOLDS)]


def cross_fitted_models(context: RunContext, folder: Path) -> OutOfFoldModels:
    """Train a specialist without each fold of the labelled cases, or load it from the folder.

    A fold has no model if the other cases show nothing of some target.

    Args:
        context: Cases and settings; `crossfit_share` is the part of the schedule that is run.
        folder: Of the weights.
    """
    out_of_fold_models: OutOfFoldModels = {}
    if context.config.crossfit_share == 0:
        return out_of_fold_models
    labelled = context.labelled
    for number, patients in enumerate(folds_of(case.patient for case in labelled), start=1):
        fold = frozenset(case.id for case in labelled if case.patient in patients)
        plan = CascadeTrainingPlan(
            folder=folder / f"without-group-{number}",
            ssl_name="supervised",
            pseudo={},
            start={},
            share=context.config.crossfit_share,
            left_out=fold,
            name=f"cross-fitted-{number}",
        )
        try:
            specialist = train_cascade(context, plan).specialist
        except ProjectError as error:
            context.monitor.warn(f"Not cross-fitted for {', '.join(sorted(fold))}: {error}")
            continue
        out_of_fold_models.update(dict.fromkeys(fold, specialist))
    return out_of_fold_models
