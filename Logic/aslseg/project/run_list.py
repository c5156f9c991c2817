"""The runs of a project as a list shows them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from aslseg.errors import AslsegError
from aslseg.project.run_folder import RunFolder, runs_of
from aslseg.project.run_tables import EXTERNAL

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run stands, for a list of runs.

    Attributes:
        run_id: Its name.
        state: As `RunFolder.state`; empty before `status.json` is written.
        method: That it trains by.
        rounds: Numbers of its finished rounds.
        best_round: The one that segments; 0 when none is finished.
        updated: When it was last worked on, ISO 8601; empty before `status.json` is written.
    """

    run_id: str
    state: str
    method: str
    rounds: tuple[int, ...]
    best_round: int
    updated: str = ""

    @property
    def is_external(self) -> bool:
        """Whether it is labels of another model, which nothing was trained on."""
        return self.method == EXTERNAL

    @property
    def is_usable(self) -> bool:
        """Whether it can segment."""
        return self.best_round > 0 and not self.is_external


def list_runs(project_folder: Path) -> list[RunSummary]:
    """Return how runs of a project stand, latest first; damaged ones are left out, and logged."""
    summaries = (_summary(run) for run in reversed(runs_of(project_folder)))
    return [summary for summary in summaries if summary is not None]


def _summary(run: RunFolder) -> RunSummary | None:
    try:
        status = run.status
        return RunSummary(
            run.run_id,
            run.state if status.state else "",
            status.method,
            tuple(run.rounds),
            status.best_round,
            status.updated,
        )
    except AslsegError as error:
        logger.warning("A run is left out: %s", error)
        return None
