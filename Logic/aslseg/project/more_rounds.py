"""Further rounds for a run, and what kind the first of them is.

A whole round trains everything, and what is trained once (SAM, the adaptation network) anew where
labels have changed since. A short one lets the stages of lesions learn what a person decided.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import Any

from aslseg.errors import RunError
from aslseg.project.run_folder import RunFolder, write_settings
from aslseg.project.run_status import LearntData


def lengthen(folder: RunFolder, more: int, known: LearntData, share: float | None) -> None:
    """Ask for further rounds; with other labels, what is trained once is trained anew in them.

    Args:
        folder: Of the run.
        more: How many.
        known: What they learn from (see `data_of_now`).
        share: Where they train the stages of lesions alone, the part of their schedule.

    Raises:
        RunError: When there is nothing to go on from, or a short round has nothing new to learn.
    """
    done = 0
    while folder.validation_of(done + 1) is not None:
        done += 1
    if not done:
        msg = f"Run '{folder.run_id}' has no finished round to go on from; resume it first."
        raise RunError(msg)
    begun_short = done + 1 in folder.short_rounds
    is_changed = folder.learnt_data != known
    if share is not None and not is_changed:
        raise RunError(_nothing_decided(folder, begun_short=begun_short))
    if is_changed or begun_short:  # begun with the labels of before, or as a round of another kind
        shutil.rmtree(folder.round(done + 1), ignore_errors=True)
    taught = {*folder.taught_rounds, *[done + 1] * is_changed}
    kind = _kind_of_round(folder, done + 1, known, is_short=share is not None)
    folder.write_status(
        taught_rounds=sorted(taught), patience_start=done + 1, **kind, **asdict(known)
    )
    changes = {"rounds": done + more, **({} if share is None else {"review_share": share})}
    write_settings(folder, folder.config.model_copy(update=changes))


def _nothing_decided(folder: RunFolder, *, begun_short: bool) -> str:
    """Return why a run cannot learn from decisions about lesions, and the remedy."""
    if begun_short:
        return (
            f"Run '{folder.run_id}' has begun to learn from what was decided, and was stopped; "
            "resume it."
        )
    return f"Nothing was decided since run '{folder.run_id}' was trained; review lesions first."


def _kind_of_round(
    folder: RunFolder, number: int, known: LearntData, *, is_short: bool
) -> dict[str, Any]:
    """Return what a run's status notes of the round to come.

    A short round leaves SAM and the adaptation network as they are, so the labels that these have
    learnt are kept in mind for the next whole round. One that was begun may have been of the other
    kind.
    """
    retrained = set(folder.retrained_rounds)
    short = set(folder.short_rounds) - {number}
    labels = folder.status.whole_round_labels or folder.learnt_data.labels
    if is_short:
        if number in retrained:
            labels = LearntData().labels  # what they would have learnt, they have not
        short, retrained = short | {number}, retrained - {number}
    elif known.labels != labels:
        retrained |= {number}
    return {
        "short_rounds": sorted(short),
        "retrained_rounds": sorted(retrained),
        "whole_round_labels": labels if is_short else {},
    }
