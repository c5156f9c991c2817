"""Which run a case is reviewed and exported from: the latest one with a prediction of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeAlias

from aslseg.project.case import Case
from aslseg.project.case_reports import refined_files
from aslseg.project.run_folder import RunFolder, saw_another

Cases: TypeAlias = Collection[str]


def latest_predictions(
    cases: Iterable[Case],
    runs: Iterable[RunFolder],
    predicted: Callable[[RunFolder], Cases] = refined_files,
) -> dict[str, RunFolder]:
    """Return the first run with a final label of each case, made of the image that it has now.

    Args:
        cases: Those that are asked about.
        runs: Latest first, as `finished_runs` yields them; none is looked at that is not needed.
        predicted: Returns the cases that a run's best round has a final label of.

    Returns:
        By case id; cases that no run has predicted are left out.

    Raises:
        RunError: When a run that is looked at is damaged.
    """
    found: dict[str, RunFolder] = {}
    left, turns = {case.id: case for case in cases}, iter(runs)
    while left and (run := next(turns, None)) is not None:
        has, seen = predicted(run), run.images
        found |= {n: run for n, case in left.items() if n in has and not saw_another(seen, case)}
        left = {n: case for n, case in left.items() if n not in found}
    return found
