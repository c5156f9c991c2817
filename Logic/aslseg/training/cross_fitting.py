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

from aslseg.errors import ProjectError
from aslseg.inference.cascade import Specialist
from aslseg.training.cascade import Curriculum, teach_specialist
from aslseg.training.context import Job

GROUPS = 2

Witnesses = dict[str, Specialist]
"""By case id, a specialist that never saw the case."""


def groups_of(case_ids: Sequence[str]) -> list[frozenset[str]]:
    """Divide cases into groups of near-equal size; a single case cannot be divided.

    Returns:
        Two groups, or none of fewer than two cases.
    """
    if len(case_ids) < GROUPS:
        return []
    return [frozenset(case_ids[first::GROUPS]) for first in range(GROUPS)]


def cross_fitted(job: Job, folder: Path) -> Witnesses:
    """Train a specialist on each group of labelled cases, or read those that the folder has.

    A group whose other cases show nothing of some target has no witness.

    Args:
        job: Cases and settings; `crossfit_share` is the part of the schedule that is run.
        folder: Where the weights go.
    """
    witnesses: Witnesses = {}
    if job.config.crossfit_share == 0:
        return witnesses
    for number, group in enumerate(groups_of([case.id for case in job.labelled]), start=1):
        curriculum = Curriculum(
            folder=folder / f"without-group-{number}",
            paradigm="supervised",
            pseudo={},
            start={},
            share=job.config.crossfit_share,
            left_out=group,
            name=f"cross-fitted-{number}",
        )
        try:
            specialist = teach_specialist(job, curriculum).specialist
        except ProjectError as error:
            job.monitor.warn(f"Not cross-fitted for {', '.join(sorted(group))}: {error}")
            continue
        witnesses.update(dict.fromkeys(group, specialist))
    return witnesses
