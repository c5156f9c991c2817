"""The choice between a stage of a later round and the one of the round before (ours).

A later round may find organs better and lesions worse. Where no case validates, cross-validation
says so of each target, and each stage is kept from the round in which it was best.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from aslseg import run_names
from aslseg.context import RunContext
from aslseg.inference.lesion_classifier import classifier_path
from aslseg.networks.checkpoints import specialist_paths
from aslseg.project.run_tables import (
    CROSS_VALIDATION_COLUMNS,
    HeldOutDice,
    read_held_out_dice,
    round_number,
    write_table,
)
from aslseg.storage import copy_atomic
from aslseg.targets import CascadeStage

logger = logging.getLogger(__name__)


def keep_better_stages(context: RunContext, folder: Path) -> list[str]:
    """Put stages of the round before in the place of those that cross-validation finds worse.

    That is the specialist's networks, with those of its out-of-fold models, and the classifier of
    candidates; SAM and the adaptation networks are the round's own. `cross_validation.csv` then has
    the values of the stages that are kept. Nothing is compared where labelled cases validate, where
    a person has changed labels or decided about lesions since, or where the tables are not about
    the same cases and targets.

    Args:
        context: Of the run.
        folder: Of a round, with all that it trains; files in it are replaced.

    Returns:
        Names of the stages that are those of the round before.

    Raises:
        RunError: When a table is damaged.
        StorageError: When a file cannot be written.
    """
    table = folder / run_names.CROSS_VALIDATION
    table_before = context.folder.before(table)
    validates = any(case.label is not None for case in context.project.validation)
    is_taught = round_number(folder) in context.folder.taught_rounds
    if validates or is_taught or table_before is None or not table.exists():
        return []
    now, before = read_held_out_dice(folder), read_held_out_dice(table_before.parent)
    if {(row.case, row.target) for row in now} != {(row.case, row.target) for row in before}:
        return []
    kept = [s for s in context.stages if _mean_dice(before, s) > _mean_dice(now, s)]
    if not kept:
        return []
    for stage in kept:
        for path, earlier in _files(context, folder, stage):
            copy_atomic(earlier, path)
        _log(stage, now, before, table_before.parent)
    names = {target.name for stage in kept for target in stage.targets}
    rows = [row for row in now if row.target not in names]
    rows += [row for row in before if row.target in names]
    write_table(table, CROSS_VALIDATION_COLUMNS, map(asdict, rows))
    return [stage.name for stage in kept]


def _mean_dice(rows: Sequence[HeldOutDice], stage: CascadeStage) -> float:
    """Return the mean over cases and the stage's targets; 0 where none of them was measured."""
    names = {target.name for target in stage.targets}
    values = [row.dice for row in rows if row.target in names]
    return sum(values) / len(values) if values else 0.0


def _files(context: RunContext, folder: Path, stage: CascadeStage) -> Iterator[tuple[Path, Path]]:
    """Yield each file of a stage in a round, with that of the round before."""
    places = [folder, *sorted((folder / run_names.CROSSFIT).glob("*"))]
    paths = [path for place in places for path in specialist_paths(place, stage)]
    paths += [classifier_path(folder, target) for target in stage.targets]
    for path in paths:
        earlier = context.folder.before(path)
        if path.exists() and earlier is not None:
            yield path, earlier


def _log(
    stage: CascadeStage,
    now: Sequence[HeldOutDice],
    before: Sequence[HeldOutDice],
    folder_before: Path,
) -> None:
    logger.info(
        "%s: the networks of %s are kept; cross-validation says Dice %.3f, and %.3f of this round",
        stage.name,
        folder_before.name,
        _mean_dice(before, stage),
        _mean_dice(now, stage),
    )
