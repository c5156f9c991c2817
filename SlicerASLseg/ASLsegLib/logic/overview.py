"""The overview of cases: rows at once, and what has to be measured case by case in a thread."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ASLsegLib.engine.background import Background, Signal

if TYPE_CHECKING:
    from aslseg.events import Monitor
    from aslseg.project.case import Case
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
        self._cases: dict[str, Case] = {}
        self._rows: dict[str, CaseOverview] = {}
        self._unread: list[str] = []
        self._wanted: list[str] = []

    @property
    def is_busy(self) -> bool:
        """Whether a case is being measured."""
        return self._background.is_busy

    def rows(self, state: ProjectState) -> list[CaseOverview]:
        """Return a row for each case; what was measured of unchanged ones stays known."""
        from aslseg.project.overview import case_overviews

        if state is not self._state:
            kept = self._kept(state)
            found = case_overviews(
                state.project,
                state.run,
                reports=state.reports,
                order=state.order,
                facts_of=lambda _, case, folder: kept.get((case.id, folder)),
            )
            self._state = state
            self._cases = {case.id: case for case in state.project.cases}
            self._rows = {row.report.case_id: row for row in found}
            self._unread = [name for name, row in self._rows.items() if row.facts is None]
            self._wanted = []
        return list(self._rows.values())

    def row(self, case_id: str) -> CaseOverview | None:
        """Return the row of a case as it is known now; None where there is none."""
        return self._rows.get(case_id)

    def measure(self) -> None:
        """Look up what was measured before, then measure the other cases one after the other."""
        if self._state is None or self._background.is_busy:
            return
        if self._unread:
            self._look_up(self._state)
        elif self._wanted:
            self._measure_next(self._state)

    def forget(self, case_id: str) -> None:
        """Look up anew what was measured of a case, for lesions of it were decided about."""
        if case_id in self._rows:
            self._cases.pop(case_id, None)
            self._unread.append(case_id)

    def close(self) -> None:
        """Measure no more."""
        self._unread, self._wanted, self._state = [], [], None
        self._background.close()

    def thumbnail(self, case_id: str) -> Path | None:
        """Return the picture of a case; None as long as nothing was measured."""
        from aslseg.project.overview import thumbnail_of

        row = self._rows.get(case_id)
        if row is None or self._state is None:
            return None
        return thumbnail_of(self._state.project, row)

    def _kept(self, state: ProjectState) -> dict[tuple[str, Path | None], CaseFacts | None]:
        """Return what is known of cases that have not changed, by name and predictions."""
        if self._state is None or self._state.project.folder != state.project.folder:
            return {}
        kept = {}
        for case, report in zip(state.project.cases, state.reports, strict=True):
            row = self._rows.get(case.id)
            if row is not None and row.report == report and self._cases.get(case.id) == case:
                kept[case.id, row.predictions] = row.facts
        return kept

    def _look_up(self, state: ProjectState) -> None:
        from aslseg.project.case_facts import known_facts

        names, self._unread = list(dict.fromkeys(self._unread)), []
        cases = {case.id: case for case in state.project.cases}
        about = [(cases[name], self._rows[name].predictions) for name in names if name in cases]

        def read(_: Monitor) -> dict[str, CaseFacts | None]:
            return {case.id: known_facts(state.project, case, folder) for case, folder in about}

        def show(found: dict[str, CaseFacts | None]) -> None:
            if state is self._state:
                self._cases |= {name: cases[name] for name in found}
                for name, facts in found.items():
                    if facts is not None:
                        self._take(name, facts)
                self._wanted += [name for name, facts in found.items() if facts is None]
            self.measure()

        self._background.start("looking up cases", read, show, self._leave_out)

    def _measure_next(self, state: ProjectState) -> None:
        from aslseg.project.case_facts import measure_case

        case_id = self._wanted.pop(0)
        case, folder = state.project.case(case_id), self._rows[case_id].predictions

        def show(facts: CaseFacts) -> None:
            if state is self._state:
                self._take(case_id, facts)
            self.measure()

        self._background.start(
            f"measuring {case_id}",
            lambda _: measure_case(state.project, case, folder),
            show,
            self._leave_out,
        )

    def _leave_out(self, error: Exception) -> None:
        logger.warning("A case is not measured for the overview: %s", error)
        self.measure()

    def _take(self, case_id: str, facts: CaseFacts) -> None:
        from dataclasses import replace

        self._rows[case_id] = replace(self._rows[case_id], facts=facts)
        self.changed.emit(case_id)
