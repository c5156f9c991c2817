"""How each case of a project stands: by its label, its run and what a person decided.

`review_order` says which comes next.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aslseg.project.candidate_table import expected_volume_ml
from aslseg.project.case import Case, Split
from aslseg.project.project import Project
from aslseg.project.review import decisions
from aslseg.project.run_folder import RunFolder, saw_another
from aslseg.project.run_tables import REFINED, ReliabilityRow, read_reliability
from aslseg.schema_1 import predictions_folder
from aslseg.targets import Target, lesion_targets

CaseState = Literal[
    "labelled",
    "unlabelled",
    "pseudo",
    "accepted",
    "corrected",
    "rejected",
    "needs review",
    "incomplete",
]


@dataclass(frozen=True, slots=True)
class CaseReport:
    """How a case stands.

    Attributes:
        case_id: The case.
        split: What it is for.
        state: `pseudo` when the run accepts its own label, `needs review` when it does not;
            `unlabelled` as long as no round is finished; `incomplete` when no slice of a person's
            label map counts, wherever that comes from.
        score: Reliability from 0 to 1; None when it is not known.
        checkpoint_agreement: Of earlier checkpoints with the last; None when not known.
        prediction_agreement: Of specialist and refined label; None when not known.
        reason: Of the selection, in words, notes included.
        notes: Why its label may be wrong though networks may agree, see `unlike_labelled`.
        round: That scored it; 0 for none.
        refined: The refined label, or None.
        decided_at: When a person decided last, ISO 8601, or nothing.
        written_s: When the label map, else the refined label, was written: seconds since 1970;
            None without either.
        lesion_ml: Expected volume of its lesions; None where the run judged no candidates.
        organs_given: Whether a mask of each organ that holds lesions came with the case.
    """

    case_id: str
    split: Split
    state: CaseState
    score: float | None = None
    checkpoint_agreement: float | None = None
    prediction_agreement: float | None = None
    reason: str = ""
    notes: str = ""
    round: int = 0
    refined: Path | None = None
    decided_at: str = ""
    written_s: float | None = None
    lesion_ml: float | None = None
    organs_given: bool = False


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A label map on disk.

    Attributes:
        path: The file.
        written_s: When it was written, seconds since 1970.
    """

    path: Path
    written_s: float


def refined_files(run: RunFolder | None) -> dict[str, LabelFile]:
    """Return the refined labels of a run's best round by case; each case is looked up once."""
    best = 0 if run is None else run.best_round
    if run is None or best == 0:
        return {}
    folder, found = predictions_folder(run.round(best)), {}
    for case_folder in folder.iterdir() if folder.is_dir() else ():
        path = case_folder / REFINED
        with suppress(OSError):  # a case without one
            found[case_folder.name] = LabelFile(path, path.stat().st_mtime)
    return found


def expected_lesions_ml(run: RunFolder | None) -> dict[str, float]:
    """Return the expected volume of lesions by case, of the last round that judged its candidates.

    Later rounds than the best one do not count; each case is looked up once.

    Raises:
        RunError: When a table of candidates is damaged.
    """
    found: dict[str, float] = {}
    if run is None:
        return found
    for number in range(run.best_round, 0, -1):
        folder = predictions_folder(run.round(number))
        for case_folder in folder.iterdir() if folder.is_dir() else ():
            if case_folder.name not in found:
                expected = expected_volume_ml(case_folder)
                found |= {} if expected is None else {case_folder.name: expected}
    return found


def case_reports(
    project: Project,
    run: RunFolder | None,
    refined: Mapping[str, LabelFile] | None = None,
    lesions_ml: Mapping[str, float] | None = None,
) -> list[CaseReport]:
    """Say of every case how it stands, in the order of the project.

    What a run found in another image than a case has now says nothing of the case.

    Args:
        project: The cases.
        run: Whose best round scored them; None when there is none.
        refined: What `refined_files` found; looked for anew when None.
        lesions_ml: What `expected_lesions_ml` found; looked for anew when None.

    Raises:
        RunError: When a file of the run is damaged.
        ProjectError: When the file of decisions is.
    """
    best = 0 if run is None else run.best_round
    rows: dict[str, ReliabilityRow] = {}
    if run is not None and best > 0:
        rows = {row.case: row for row in read_reliability(run.round(best))}
    decided = {review.case_id: review for review in decisions(project)}
    refined = refined_files(run) if refined is None else refined
    lesions_ml = expected_lesions_ml(run) if lesions_ml is None else lesions_ml
    written, seen = _label_dates(project), {} if run is None else run.images
    reports = []
    for case in project.cases:
        review, is_known = decided.get(case.id), not saw_another(seen, case)
        file = refined.get(case.id) if is_known else None
        corrected = review is not None and review.what == "corrected"
        row = rows.get(case.id) if is_known else None
        predicted_s = None if file is None else file.written_s
        reports.append(
            CaseReport(
                case_id=case.id,
                split=case.split,
                state=_state(case, row, corrected=corrected),
                score=None if row is None else _known(row.score),
                checkpoint_agreement=None if row is None else _known(row.checkpoint_agreement),
                prediction_agreement=None if row is None else _known(row.prediction_agreement),
                reason="" if row is None else row.reason,
                notes="" if row is None else row.notes,
                round=best if row else 0,
                refined=None if file is None else file.path,
                decided_at="" if review is None else review.time,
                written_s=predicted_s if case.label is None else written.get(case.label),
                lesion_ml=lesions_ml.get(case.id) if is_known else None,
                organs_given=organs_given(case, project.targets),
            )
        )
    return reports


def organs_given(case: Case, targets: Sequence[Target]) -> bool:
    """Return whether a mask of each organ that holds lesions came with a case."""
    organs = {target.inside for target in lesion_targets(targets)}
    return bool(organs) and organs <= case.masks.keys()


def _state(case: Case, row: ReliabilityRow | None, *, corrected: bool) -> CaseState:
    if case.label is not None:
        if not case.label_counts:
            return "incomplete"
        if corrected:
            return "corrected"
        return "accepted" if case.status == "accepted" else "labelled"
    if case.status == "rejected":
        return "rejected"
    if row is None:
        return "unlabelled"
    return "pseudo" if row.accepted else "needs review"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _label_dates(project: Project) -> dict[Path, float]:
    """Return when the label maps were written, by their place in the project; one look a folder."""
    places = {case.label.parent for case in project.cases if case.label is not None}
    found: dict[Path, float] = {}
    for place in places:
        with suppress(OSError), os.scandir(project.folder / place) as entries:
            found |= {place / entry.name: entry.stat().st_mtime for entry in entries}
    return found
