"""The table of all cases in a report: the same as the panel's overview."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from aslseg.errors import AslsegError
from aslseg.project.case_facts import CaseFacts, measure_case
from aslseg.project.overview import (
    CaseOverview,
    case_overviews,
    overview_cells,
    overview_head,
    thumbnail_of,
)
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from aslseg.report.data import RunRecord
from aslseg.report.tables import Cell, Row, Table, marked

logger = logging.getLogger(__name__)
MOST_MEASURED = 100
"""So many cases are measured for a report; of the others it shows what is known already."""


def overview_table(run: RunRecord, project: Project) -> Table:
    """Make the table of all cases.

    Args:
        run: Whose best round is shown.
        project: The cases.
    """
    names = [target.name for target in project.targets]
    rows = []
    for each in _measured_rows(run, project):
        cells = [Cell(text) for text in overview_cells(each, names)]
        picture = thumbnail_of(project, each)
        if picture is not None:
            cells[0] = replace(cells[0], picture=_address(picture))
        rows.append(Row(cells))
    caption = marked(run, "All cases as they stand now; those to look at are numbered.")
    return Table(overview_head(names), rows, caption, text_columns=4)


def _measured_rows(run: RunRecord, project: Project) -> Iterator[CaseOverview]:
    left = MOST_MEASURED
    for row in case_overviews(project, RunFolder(run.folder)):
        if row.facts is None and left > 0:
            left -= 1
            yield replace(row, facts=_measured(project, row))
        else:
            yield row


def _measured(project: Project, row: CaseOverview) -> CaseFacts | None:
    """Measure a case; one that cannot be read has empty cells, and a line in the log."""
    try:
        return measure_case(project, project.case(row.report.case_id), row.predictions)
    except AslsegError as error:
        logger.warning("Case %s is not measured: %s", row.report.case_id, error)
        return None


def _address(picture: Path) -> str:
    """Return a picture as an address inside of the page."""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode('ascii')}"
