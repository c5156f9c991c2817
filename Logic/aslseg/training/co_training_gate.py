"""Whether SAM and specialist trained together beat a specialist trained alone.

Each teaches the other whatever it is worth, so that the worse one costs the better one its points.
Labelled cases that neither was trained on tell. (Ours.)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from aslseg import run_names
from aslseg.context import RunContext, labelled_volumes
from aslseg.evaluation.metrics import dice
from aslseg.inference.cascade import Specialist
from aslseg.inference.ensemble import Ensemble
from aslseg.project.run_tables import (
    CO_TRAINING_COLUMNS,
    CoTrainingDice,
    co_training_gains,
    co_training_means,
    is_ahead,
    is_co_trained,
    write_table,
)
from aslseg.storage import copy_atomic
from aslseg.targets import region_mask
from aslseg.training.cascade import CascadeTrainingPlan, default_ssl_method
from aslseg.training.cross_fitting import CROSS_FITTED, OutOfFoldModels, cross_fitted_models
from aslseg.training.rounds import Round

ALONE = f"{CROSS_FITTED}-alone"
"""What trainings of specialists without SAM are called, with the number of the fold."""

LoadTogether = Callable[[Specialist, Path], Ensemble]
"""Puts a specialist together with the SAM that was trained with it, in a folder."""


def passes_gate(
    context: RunContext, this: Round, plan: CascadeTrainingPlan, load: LoadTogether
) -> bool:
    """Return whether SAM and specialist are to be trained together in a round.

    That is asked in round 1 and after labels have changed; other rounds do as the one before.

    Args:
        context: Labelled cases and settings.
        this: The round; the answer is written to its folder.
        plan: Of both, trained together from weights that have seen no label.
        load: Loads the SAM that was trained with a specialist.

    Raises:
        RunError: When the table of an earlier answer is damaged.
    """
    table, before = this.folder / run_names.CO_TRAINING, context.folder.before(this.folder)
    if table.exists() or any(this.folder.glob("*.safetensors")):
        return is_co_trained(this.folder)  # asked before, or begun by a version that did not ask
    if before is not None:
        if (before / run_names.CO_TRAINING).exists():
            copy_atomic(before / run_names.CO_TRAINING, table)
        return is_co_trained(before)
    folder, plan = this.folder / run_names.GATE, replace(plan, pseudo={}, start={})
    alone = replace(plan, folder=folder / "alone", build=default_ssl_method)
    rows = held_out_scores(
        context,
        cross_fitted_models(context, replace(plan, folder=folder / "together")),
        cross_fitted_models(context, alone, ALONE),
        load,
    )
    _tell(context, this.number, rows)  # before the table, which is why nothing is asked again
    write_table(table, CO_TRAINING_COLUMNS, map(asdict, rows))
    shutil.rmtree(folder, ignore_errors=True)
    return is_co_trained(this.folder)


def co_trained_before(context: RunContext, this: Round) -> Path | None:
    """Return the folder of the round before if SAM was trained in it, which then goes on from that.

    Raises:
        RunError: When the table of that round is damaged.
    """
    before = context.folder.round(this.number - 1) if this.number > 1 else None
    return before if before is not None and is_co_trained(before) else None


def held_out_scores(
    context: RunContext, together: OutOfFoldModels, alone: OutOfFoldModels, load: LoadTogether
) -> list[CoTrainingDice]:
    """Compare both ways of training on labelled cases, by the label maps that they would give.

    Args:
        context: Labelled cases and settings.
        together: By case id, a specialist that was trained with SAM, and not on the case.
        alone: The same without SAM.
        load: Loads the SAM of a specialist of `together`.

    Returns:
        Of each case that is labelled on all slices, and of its targets that are not given.
    """
    whole = [case for case in context.labelled if case.complete_slices is None]
    cases = [case for case in whole if case.id in together and case.id in alone]
    rows: list[CoTrainingDice] = []
    for one in labelled_volumes(context, cases, "Comparing SAM with the specialist"):
        model = together[one.case_id]
        ensemble = load(model.specialist, model.folder)
        by_sam = ensemble.segment(one.volume, context.monitor).refined.labels
        by_specialist = alone[one.case_id].specialist.segment(one.volume, context.monitor).labels
        for target in context.targets:
            if target.name not in {*one.volume.given, *one.unknown}:
                truth, specialist, sam = (
                    region_mask(labels, target, context.targets)
                    for labels in (one.labels.labels, by_specialist, by_sam)
                )
                scores = dice(specialist, truth), dice(sam, truth)
                rows.append(CoTrainingDice(one.case_id, target.name, *scores))
    return rows


def _tell(context: RunContext, number: int, rows: Sequence[CoTrainingDice]) -> None:
    """Report the mean Dice of each target, and why the specialist is trained alone if it is."""
    remedy = "scsam.gate=false trains both together all the same."
    if not rows:
        context.monitor.warn(
            "The specialist is trained alone: no labelled patient is left to ask whether SAM would "
            f"help. Label more, or set crossfit_share if it is 0; {remedy}"
        )
    worse: list[str] = []
    gains = co_training_gains(rows)
    for target, (specialist, sam) in co_training_means(rows).items():
        for source, mean in (("specialist", specialist), ("sam", sam)):
            context.monitor.metric(f"gate_{target}", mean, number, source=source)
        if not is_ahead(gains[target]):
            worse.append(f"{sam:.3f} for {specialist:.3f} ({target})")
    if worse:
        context.monitor.warn(
            "The specialist is trained alone: on labelled cases that neither had seen, SAM trained "
            f"together with it had a mean Dice of {', '.join(worse)}, which is not more by more "
            f"than its standard error; {remedy}"
        )
