"""The overview of cases: rows at once, and what has to be measured case by case in a thread."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ASLsegLib.engine.background import Background, Signal

if TYPE_CHECKING:
    from aslseg.project.case_facts import CaseFacts
    from aslseg.project.overview import CaseOverview
    from ASLsegLib.logic.project_state import ProjectState

logger = logging.getLogger(__name__)


class Overview:
    """The rows of a project's overview, in the order of the project.

    Args:
        background: Of its own, so that nothing that a person does waits for it; its owner polls it.

    Attributes:
        changed: Emits the name of a case of which more is known now.
    """

    def __init__(self, background: Background) -> None:
        self.changed = Signal()
        self._background = background
        self._state: ProjectState | None = None
        self._rows: dict[str, CaseOverview] = {}
        self._wanted: list[str] = []

    @property
    def is_busy(self) -> bool:
        """Whether a case is being measured."""
        return self._background.is_busy

    def rows(self, state: ProjectState) -> list[CaseOverview]:
        """Return a row for each case; files are read when the project has changed, else not."""
        from aslseg.project.overview import case_overviews

        if state is not self._state:
            self._state = state
            found = case_overviews(state.project, state.run)
            self._rows = {row.report.case_id: row for row in found}
            self._wanted = [name for name, row in self._rows.items() if row.facts is None]
        return list(self._rows.values())

    def measure(self) -> None:
        """Measure the cases of which nothing is known, one after the other."""
        if self._state is not None and self._wanted and not self._background.is_busy:
            self._measure_next(self._state)

    def close(self) -> None:
        """Measure no more."""
        self._wanted, self._state = [], None
        self._background.close()

    def thumbnail(self, case_id: str) -> Path | None:
        """Return the picture of a case; None as long as nothing was measured."""
        from aslseg.project.overview import thumbnail_of

        row = self._rows.get(case_id)
        if row is None or self._state is None:
            return None
        return thumbnail_of(self._state.project, row)

    def _measure_next(self, state: ProjectState) -> None:
        from aslseg.project.case_facts import measure_case

        case_id = self._wanted.pop(0)
        case, folder = state.project.case(case_id), self._rows[case_id].predictions

        def show(facts: CaseFacts) -> None:
            if state is self._state:
                self._take(case_id, facts)
            self.measure()

        def leave_out(error: Exception) -> None:
            logger.warning("Case %s is not measured for the overview: %s", case_id, error)
            self.measure()

        self._background.start(
            f"measuring {case_id}",
            lambda _: measure_case(state.project, case, folder),
            show,
            leave_out,
        )

    def _take(self, case_id: str, facts: CaseFacts) -> None:
        from dataclasses import replace

        self._rows[case_id] = replace(self._rows[case_id], facts=facts)
        self.changed.emit(case_id)
