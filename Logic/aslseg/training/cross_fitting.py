"""Out-of-fold models: specialists that were not trained on a labelled case.

A specialist overfits the cases that it was trained on, so its predictions of them do not have the
errors of its predictions of others. So the labelled patients are divided into two folds, and each
is predicted by a specialist that was trained on the other one (stacking: Wolpert, Stacked
generalization, Neural Networks 5, 1992). SAM, the adaptation network and the lesion stage are
trained with these predictions. (Ours.)

The specialists are trained as the deployed one is, by the same SSL method and on the same
unlabelled cases. From round 2 on they learn from pseudo-labels of the same cases too, which their
own predecessors made (`fold_labels`): nothing that they learn from was made with the help of the
labels of their fold, but the choice of cases and the decisions about lesions.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from aslseg import run_names
from aslseg.context import RunContext
from aslseg.errors import ProjectError
from aslseg.inference.cascade import Specialist
from aslseg.inference.loading import TrainedCascade, load_cascade
from aslseg.project.run_tables import round_number
from aslseg.training.cascade import CascadeTrainingPlan, train_cascade
from aslseg.training.fold_labels import FoldLabelling, label_without_fold
from aslseg.training.pseudo_label import PseudoLabel

FOLDS = 2
CROSS_FITTED = "cross-fitted"
"""What trainings of out-of-fold models are called, with the number of the fold."""


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFoldModel:
    """A specialist that was not trained on the cases of a fold.

    Attributes:
        cascade: Its networks, and those at the snapshots of its schedule.
        fold: Ids of the cases that it was not trained on.
        folder: Of its weights.
    """

    cascade: TrainedCascade
    fold: frozenset[str]
    folder: Path

    @property
    def specialist(self) -> Specialist:
        """The specialist at the end of its schedule."""
        return self.cascade.specialist

    @property
    def kept(self) -> Path:
        """Folder of what is predicted of its cases, while a round learns from it."""
        return self.folder / "held-out"


OutOfFoldModels = dict[str, OutOfFoldModel]
"""By case id, a specialist that was not trained on the case."""


def networks_of(models: OutOfFoldModels) -> dict[str, Mapping[str, nn.Module]]:
    """Return the networks, by stage name, of the model of each case."""
    return {case_id: model.specialist.networks for case_id, model in models.items()}


def forget_predictions(models: OutOfFoldModels) -> None:
    """Delete what models have predicted of their cases."""
    for model in dict.fromkeys(models.values()):
        shutil.rmtree(model.kept, ignore_errors=True)


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


def cross_fitted_models(
    context: RunContext, plan: CascadeTrainingPlan, name: str = CROSS_FITTED
) -> OutOfFoldModels:
    """Train a specialist without each fold of the labelled cases, or load it from the folder.

    A fold has no model if the other cases show nothing of some target. Those of later rounds start
    from the weights of the round before, and learn from pseudo-labels of these.

    Args:
        context: Cases and settings; `crossfit_share` is the part of the schedule that is run.
        plan: Of the deployed specialist; weights are written to `crossfit` in its folder.
        name: What the trainings are called in progress events and metrics.
    """
    out_of_fold_models: OutOfFoldModels = {}
    share, labelled = context.config.crossfit_share, context.labelled
    for number, patients in enumerate(folds_of(case.patient for case in labelled), start=1):
        if share == 0:
            break
        fold = frozenset(case.id for case in labelled if case.patient in patients)
        folder = plan.folder / run_names.CROSSFIT / f"without-group-{number}"
        before = context.folder.before(folder)
        known = None if before is None else load_cascade(context, before, plan.network)
        without = replace(
            plan,
            folder=folder,
            pseudo=_pseudo_labels(context, plan, known, folder, number),
            start={} if known is None else known.specialist.networks,
            share=share * (1.0 if known is None else plan.share),
            left_out=fold,
            name=f"{name}-{number}",
            out_of_fold_models={},
            is_single=True,
        )
        try:
            model = OutOfFoldModel(train_cascade(context, without), fold, folder)
        except ProjectError as error:
            names = ", ".join(sorted(fold))
            context.monitor.warn(f"No checking network is trained without {names}: {error}")
            continue
        out_of_fold_models.update(dict.fromkeys(fold, model))
    forget_predictions(out_of_fold_models)  # those of a process that was ended
    return out_of_fold_models


def _pseudo_labels(
    context: RunContext,
    plan: CascadeTrainingPlan,
    known: TrainedCascade | None,
    folder: Path,
    number: int,
) -> Mapping[str, PseudoLabel]:
    """Return the pseudo-labels of a fold's model: in round 1 those of another model are as good.

    Later it has none without a specialist that makes them.
    """
    if round_number(plan.folder) <= 1 or not plan.pseudo:
        return plan.pseudo
    round_before = context.folder.before(plan.folder)
    if known is None or round_before is None:
        return {}
    by = FoldLabelling(known, round_before, folder)
    return label_without_fold(context, plan.pseudo, by, number)
