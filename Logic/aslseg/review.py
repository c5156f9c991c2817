"""A person's decisions about pseudo-labels: accept, reject, correct, and take the last one back.

Accepted and corrected label maps become labels of the project like any other, so that the next
round learns from them with full weight. `reviews.jsonl` in the project folder is only ever appended
to; taking back is a line too, so it works after a restart. Nothing that a person made is lost: what
is replaced or taken back stays in `labels/history`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, TypeAdapter, ValidationError

from aslseg.errors import ProjectError, RunError
from aslseg.images import read_labelmap
from aslseg.project import Case, Project, open_project
from aslseg.project_case import LABELS, Status
from aslseg.project_labels import keep_history
from aslseg.project_lock import changing
from aslseg.project_model import change_project, replacing_project
from aslseg.reading import read_lines
from aslseg.runfolder import RunFolder
from aslseg.storage import copy_atomic, inside, storage_errors
from aslseg.volume import Labelmap

FILE_NAME = "reviews.jsonl"

What = Literal["accepted", "corrected", "labelled", "rejected", "undone"]


def _in_labels(place: str | None) -> str | None:
    parts = PurePosixPath("" if place is None else place.replace("\\", "/")).parts
    if place is not None and (parts[:1] != (LABELS,) or ".." in parts or len(parts) < 2):
        msg = f"'{place[:100]}' lies outside of the folder {LABELS}/ of the project"
        raise ValueError(msg)
    return place


@dataclass(frozen=True, slots=True)
class Review:
    """One line of the file of decisions.

    Attributes:
        number: From 1.
        what: The decision; `labelled` is a label map drawn without a pseudo-label, `undone` takes
            back an earlier decision.
        case_id: The case.
        time: UTC, ISO 8601.
        run: Run whose pseudo-label was looked at, or nothing.
        round: Its round; 0 without a run.
        status_before: Of the case.
        label_before: Its label map, relative to the project, or None.
        kept_before: Where that label map is kept in the history, or None.
        undoes: Number of the decision that is taken back; 0 for others.
    """

    number: int
    what: What
    case_id: str
    time: str
    run: str = ""
    round: int = 0
    status_before: Status = "unlabelled"
    label_before: Annotated[str | None, AfterValidator(_in_labels)] = None
    kept_before: Annotated[str | None, AfterValidator(_in_labels)] = None
    undoes: int = 0


_REVIEW = TypeAdapter(Review)


def accept(
    project: Project,
    run: RunFolder,
    case_id: str,
    *,
    labels: Labelmap | None = None,
    round_number: int | None = None,
) -> Project:
    """Make a refined label of a run the label of a case.

    Args:
        project: The project.
        run: Whose refined label it is.
        case_id: The case.
        labels: What the person was shown; the refined label of the best round on disk when None.
        round_number: Of what was shown; the best round when None.

    Raises:
        RunError: When nothing was shown and the run has no refined label of the case.
        ProjectError: When there is no such case, or a person's label is there already.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    with changing(project.folder):
        case = open_project(project.folder).case(case_id)
        if case.label is not None:
            msg = f"Case {case_id} has a person's label already; correct that one instead."
            raise ProjectError(msg)
        if case.split != "train":
            msg = f"Case {case_id} is there to judge by ({case.split}); only a drawn label can do "
            raise ProjectError(msg + "that.")
        if labels is None:
            labels = read_labelmap(refined_path(run, case_id))
        return _keep(project, case_id, labels, "accepted", run, round_number)


def correct(
    project: Project,
    case_id: str,
    labels: Labelmap,
    run: RunFolder | None = None,
    *,
    round_number: int | None = None,
) -> Project:
    """Make a label map that a person corrected the label of a case; one before is kept.

    Args:
        project: The project.
        case_id: The case.
        labels: On the grid of the image, or overlapping it.
        run: Whose pseudo-label the person started from.
        round_number: Of that pseudo-label; the run's best round when None.

    Raises:
        ImageError: When the label map has a value of no target, or lies elsewhere.
        ProjectError: When there is no such case.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    return _keep(project, case_id, labels, "corrected", run, round_number)


def draw(project: Project, case_id: str, labels: Labelmap) -> Project:
    """Make a label map that a person drew the label of a case; `undo_last` takes it back.

    Raises:
        ImageError: When the label map has a value of no target, or lies elsewhere.
        ProjectError: When there is no such case.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    return _keep(project, case_id, labels, "labelled", None, None)


def reject(project: Project, case_id: str, run: RunFolder | None = None) -> Project:
    """Never learn from this case's pseudo-labels, until this is taken back.

    Raises:
        ProjectError: When there is no such case, or a person's label is there.
        StorageError: When the folder cannot be written; nothing changes then.
    """

    def refuse(current: Project) -> Project:
        case = current.case(case_id)
        if case.label is not None:
            msg = f"Case {case_id} has a person's label, which is no pseudo-label to reject."
            raise ProjectError(msg)
        return current.with_case(case.model_copy(update={"status": "rejected"}))

    with changing(project.folder):
        before = open_project(project.folder).case(case_id)
        with _noted(project.folder, _of("rejected", before, run, None)):
            return change_project(project.folder, refuse)


def undo_last(project: Project) -> tuple[Project, Review]:
    """Take back the last decision that still holds.

    Returns:
        The project as it is now, and the decision that was taken back.

    Raises:
        ProjectError: When there is none.
        StorageError: When the folder cannot be written.
    """
    with changing(project.folder):
        holding = decisions(project)
        if not holding:
            msg = f"{project.folder} has no decision to take back."
            raise ProjectError(msg)
        last = holding[-1]
        current = open_project(project.folder)
        case = current.case(last.case_id)
        label = _place_before(current, case, last)
        before = case.model_copy(update={"label": label, "status": last.status_before})
        updated = current.with_case(before)
        with replacing_project(updated):
            _restore(current, case, last)
        if before.label is None and case.label is not None:
            current.label_path(case).unlink(missing_ok=True)  # its copy is in the history
        undone = _of("undone", case, None, None)
        _append(project.folder, {**undone, "undoes": last.number, "run": last.run})
    return updated, last


def decisions(project: Project) -> tuple[Review, ...]:
    """Return the decisions that hold, in the order in which they were made."""
    everything = history(project)
    taken_back = {review.undoes for review in everything}
    return tuple(r for r in everything if r.what != "undone" and r.number not in taken_back)


def history(project: Project) -> tuple[Review, ...]:
    """Return every decision ever made, taken back or not.

    Raises:
        ProjectError: When the file is damaged, or names a place outside of `labels/`.
    """
    path = project.folder / FILE_NAME
    remedy = "restore it from a copy, or remove the damaged line"
    lines = read_lines(path, ProjectError, remedy)
    return tuple(
        _review_of(values, f"{path} is damaged in line {n}", remedy) for n, values in lines
    )


def _review_of(values: Any, damaged: str, remedy: str) -> Review:
    try:
        return _REVIEW.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        what = f"'{where}': {first['msg'].removeprefix('Value error, ')}" if where else "no JSON"
        msg = f"{damaged} ({what}); {remedy}."
        raise ProjectError(msg) from error


def refined_path(run: RunFolder, case_id: str) -> Path:
    """Return where the refined label of a case is, of a run's best round.

    Raises:
        RunError: When there is none.
    """
    path = run.round(_best(run)) / "voices" / case_id / "refined.nii.gz"
    if not path.exists():
        msg = f"Run '{run.run_id}' has no refined label of case {case_id}; train or resume it."
        raise RunError(msg)
    return path


def _best(run: RunFolder) -> int:
    return int(run.status.get("best_round", 0))


def _keep(
    project: Project,
    case_id: str,
    labels: Labelmap,
    what: What,
    run: RunFolder | None,
    round_number: int | None,
) -> Project:
    with changing(project.folder):
        current = open_project(project.folder)
        case = current.case(case_id)
        kept = None if case.label is None else keep_history(current.label_path(case))
        status: Literal["accepted", "labelled"] = "accepted" if what == "accepted" else "labelled"
        place = None if kept is None else kept.relative_to(current.folder)
        with _noted(current.folder, _of(what, case, run, place, round_number)):
            return project.save_label(case_id, labels, status=status)


def _place_before(project: Project, case: Case, last: Review) -> Path | None:
    """Return where the label map of a case was before a decision; None when it had none."""
    if last.what == "rejected":
        return case.label
    if last.kept_before is None or last.label_before is None:
        return None
    _refuse_foreign(project, case, last)
    return Path(last.label_before)


def _restore(project: Project, case: Case, last: Review) -> None:
    """Bring back the label map of before a decision, and keep the one of now."""
    if last.what == "rejected":
        return
    kept, place = last.kept_before, last.label_before
    if kept is None or place is None:
        if case.label is not None:
            keep_history(project.label_path(case))
        return
    kept_path, path = inside(project.folder, Path(kept)), inside(project.folder, Path(place))
    if case.label is not None:
        keep_history(project.label_path(case))
    copy_atomic(kept_path, path)


def _refuse_foreign(project: Project, case: Case, last: Review) -> None:
    """Refuse to write over the label map of another case, whoever wrote the line."""
    owners = [other.id for other in project.cases if other.label == Path(last.label_before or "")]
    if any(owner != case.id for owner in owners):
        msg = (
            f"{project.folder / FILE_NAME} names {last.label_before} for case {case.id}, which is "
            f"the label map of case {owners[0]}; restore the file from a copy."
        )
        raise ProjectError(msg)


def _of(
    what: What,
    case: Case,
    run: RunFolder | None,
    kept: Path | None,
    round_number: int | None = None,
) -> dict[str, Any]:
    """Describe a decision, and the case as it was before."""
    best = 0 if run is None else _best(run)
    review = Review(
        number=0,
        what=what,
        case_id=case.id,
        time=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        run="" if run is None else run.run_id,
        round=best if round_number is None else round_number,
        status_before=case.status,
        label_before=None if case.label is None else case.label.as_posix(),
        kept_before=None if kept is None else kept.as_posix(),
    )
    return asdict(review)


@contextmanager
def _noted(folder: Path, review: Mapping[str, Any]) -> Iterator[None]:
    """Write the line of a decision, let it take effect, and take the line back if that fails.

    A process that is killed thus leaves no decision that cannot be taken back.
    """
    length = _append(folder, review)
    try:
        yield
    except BaseException:
        with suppress(OSError), (folder / FILE_NAME).open("rb+") as file:
            file.truncate(length)
        raise


def _append(folder: Path, review: Mapping[str, Any]) -> int:
    """Write the line of a decision; return how long the file was without it."""
    path = folder / FILE_NAME
    known = path.read_bytes() if path.exists() else b""
    whole = known.rfind(b"\n") + 1  # what follows is of a line that a crash cut off
    line = json.dumps({**review, "number": known.count(b"\n") + 1}) + "\n"
    with storage_errors(path), path.open("ab") as file:
        file.truncate(whole)
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    return whole
