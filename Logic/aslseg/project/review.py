"""A person's decisions about pseudo-labels: accept, reject, correct, and take the last one back.

Accepted and corrected label maps become labels of the project like any other: the next round trains
on them with full weight. `reviews.jsonl` in the project folder is only ever appended
to; taking back is a line too, so it works after a restart. Nothing that a person made is lost: what
is replaced or taken back stays in `labels/history`.

`case_reports` says how each case stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from aslseg.data.volume import Labelmap
from aslseg.errors import ProjectError, RunError, finding_in_line
from aslseg.project.case import LABELS, REVIEWS, Case, Status
from aslseg.project.complete_slices import mark_all_complete
from aslseg.project.external_labels import decided_targets
from aslseg.project.labels import keep_history
from aslseg.project.lesion_decisions import read_lesions
from aslseg.project.lock import changing
from aslseg.project.predictions import read_prediction
from aslseg.project.project import Project, change_project, open_project, replacing_project
from aslseg.project.roles import refuse_prediction, refuse_to_judge_by
from aslseg.project.run_folder import RunFolder, saw_another
from aslseg.project.run_tables import REFINED
from aslseg.reading import read_lines
from aslseg.storage import append_lines, copy_atomic, inside
from aslseg.targets import lesion_targets

_REMEDY = "restore it from a copy, or remove the damaged line"

What = Literal["accepted", "corrected", "labelled", "rejected", "undone", "removed"]


def _in_labels(path: str | None) -> str | None:
    parts = PurePosixPath("" if path is None else path.replace("\\", "/")).parts
    if path is not None and (parts[:1] != (LABELS,) or ".." in parts or len(parts) < 2):
        msg = f"'{path[:100]}' lies outside of the folder {LABELS}/ of the project"
        raise ValueError(msg)
    return path


@dataclass(frozen=True, slots=True)
class Review:
    """One line of the file of decisions.

    Attributes:
        number: From 1.
        what: The decision; `labelled` is a label map drawn without a pseudo-label, `undone` takes
            back an earlier decision, `removed` ends all about a case that left the project.
        case_id: The case.
        time: UTC, ISO 8601.
        run: Run whose pseudo-label was looked at, or nothing.
        round: Its round; 0 without a run.
        status_before: Of the case.
        label_before: Its label map, relative to the project, or None.
        targets_before: Names of the targets that this label map decides; all when empty.
        slices_before: Its complete slices, as `Case.complete_slices`; None: all.
        kept_before: Where that label map is kept in the history, or None.
        undoes: Number of the decision that is taken back; 0 for others.
        is_computed: Whether the label map was made of the run's and decisions about lesions alone,
            so that it can be made again; False where a person may have changed it.
    """

    number: int
    what: What
    case_id: str
    time: str
    run: str = ""
    round: int = 0
    status_before: Status = "unlabelled"
    label_before: Annotated[str | None, AfterValidator(_in_labels)] = None
    targets_before: tuple[str, ...] = ()
    slices_before: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    kept_before: Annotated[str | None, AfterValidator(_in_labels)] = None
    undoes: int = 0
    is_computed: bool = False


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
        labels: What the person was shown; when None, the round's refined label on disk, with what
            was decided about its lesions.
        round_number: Of what was shown; the best round when None.

    Raises:
        RunError: When nothing was shown and the run has no refined label of the case.
        ImageError: When that of the round is damaged, or lies on other voxels than the image.
        ProjectError: When there is no such case, or a person's label is there already.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    with changing(project.folder):
        case = open_project(project.folder).case(case_id)
        if case.label is not None:
            msg = f"Case {case_id} has a person's label already; correct that one instead."
            raise ProjectError(msg)
        refuse_prediction(case)
        is_computed = labels is None
        if labels is None:
            path = refined_path(run, case_id, round_number)
            found = read_prediction(path, project.geometry(case))
            labels = read_lesions(project, case_id).applied_to(found, project.targets)
        decided = _Decided("accepted", run, round_number, is_computed)
        return _keep(project, case_id, labels, decided)


def correct(
    project: Project,
    case_id: str,
    labels: Labelmap,
    run: RunFolder | None = None,
    *,
    round_number: int | None = None,
    whole: bool = False,
) -> Project:
    """Make a label map that a person corrected the label of a case; one before is kept.

    Args:
        project: The project.
        case_id: The case.
        labels: On the grid of the image, or overlapping it.
        run: Whose pseudo-label the person started from.
        round_number: Of that pseudo-label; the run's best round when None.
        whole: Whether all of it counts from now on, also where only slices of the label before did.

    Raises:
        ImageError: When the label map has a value of no target, or lies elsewhere.
        ProjectError: When there is no such case.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    decided = _Decided("corrected", run, round_number)
    return _keep(project, case_id, labels, decided, whole=whole)


def finish(
    project: Project,
    case_id: str,
    labels: Labelmap,
    run: RunFolder,
    *,
    round_number: int | None = None,
    is_computed: bool = False,
) -> Project:
    """Make a label map the label of a case all of whose lesions are decided: it decides these too.

    Args:
        project: The project.
        case_id: The case.
        labels: As for `correct`.
        run: Whose candidates were decided about.
        round_number: Of these; the run's best round when None.
        is_computed: As in `Review`.

    Raises:
        ImageError: As for `correct`.
        ProjectError: As for `correct`.
        StorageError: As for `correct`.
    """
    decided = _Decided("corrected", run, round_number, is_computed, decides_lesions=True)
    return _keep(project, case_id, labels, decided)


def draw(project: Project, case_id: str, labels: Labelmap) -> Project:
    """Make a label map that a person drew the label of a case; `undo_last` takes it back.

    Raises:
        ImageError: When the label map has a value of no target, or lies elsewhere.
        ProjectError: When there is no such case.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    return _keep(project, case_id, labels, _Decided("labelled"))


def reject(project: Project, case_id: str, run: RunFolder | None = None) -> Project:
    """Never train on this case's pseudo-labels, until this is taken back.

    Raises:
        ProjectError: When there is no such case, or a person's label is there.
        StorageError: When the folder cannot be written; nothing changes then.
    """

    def refuse(current: Project) -> Project:
        case = current.case(case_id)
        if case.label is not None:
            msg = f"Case {case_id} has a person's label, which is no AI label to reject."
            raise ProjectError(msg)
        return current.with_case(case.model_copy(update={"status": "rejected"}))

    with changing(project.folder):
        before = open_project(project.folder).case(case_id)
        with _noted(project.folder, _of(_Decided("rejected", run), before)):
            return change_project(project.folder, refuse)


def undo_last(project: Project) -> tuple[Project, Review]:
    """Take back the last decision that still holds.

    Returns:
        The project as it is now, and the decision that was taken back.

    Raises:
        ProjectError: When there is none, or a case to judge by would get a label back that a
            person only accepted.
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
        before = case.model_copy(
            update={
                "label": label,
                "status": last.status_before,
                "label_targets": last.targets_before,
                "complete_slices": None if label is None else _slices_before(case, last),
            }
        )
        refuse_to_judge_by(before, case.split)
        updated = current.with_case(before)
        with replacing_project(updated):
            _restore(current, case, last)
        if before.label is None and case.label is not None:
            current.label_path(case).unlink(missing_ok=True)  # its copy is in the history
        undone = _of(_Decided("undone"), case)
        _append(project.folder, {**undone, "undoes": last.number, "run": last.run})
    return updated, last


def decisions(project: Project) -> tuple[Review, ...]:
    """Return the decisions that hold, in the order in which they were made."""
    everything = history(project)
    taken_back = {review.undoes for review in everything}
    removed = {r.case_id: r.number for r in everything if r.what == "removed"}
    return tuple(
        r
        for r in everything
        if r.what != "undone"
        and r.number not in taken_back
        and r.number > removed.get(r.case_id, 0)
    )


def note_removal(folder: Path, case: Case) -> None:
    """Note that a case leaves a project: what was decided about it holds no more.

    Args:
        folder: Of the project; the caller holds its lock.
        case: As it was.

    Raises:
        StorageError: When the folder cannot be written.
    """
    if (folder / REVIEWS).exists():
        _append(folder, _of(_Decided("removed"), case))


def history(project: Project) -> tuple[Review, ...]:
    """Return every decision ever made, taken back or not.

    Raises:
        ProjectError: When the file is damaged, or names a file outside of `labels/`.
    """
    path = project.folder / REVIEWS
    lines = read_lines(path, ProjectError, _REMEDY)
    return tuple(_review_of(values, f"{path} is damaged in line {n}") for n, values in lines)


def _review_of(values: Any, damaged: str) -> Review:
    try:
        return _REVIEW.validate_python(values)
    except ValidationError as error:
        msg = f"{damaged} ({finding_in_line(error)}); {_REMEDY}."
        raise ProjectError(msg) from error


def refined_path(run: RunFolder, case_id: str, round_number: int | None = None) -> Path:
    """Return where the refined label of a case is, of a run's round, the best one when None.

    Raises:
        RunError: When there is none, or it is of another image than the case has now.
    """
    if saw_another(run.images, open_project(run.path.parents[1]).case(case_id)):
        msg = (
            f"Run '{run.run_id}' has labels of another image of case {case_id} than it has now; "
            "start a new run."
        )
        raise RunError(msg)
    number = run.best_round if round_number is None else round_number
    path = run.predictions(number, case_id) / REFINED
    if not path.exists():
        msg = f"Run '{run.run_id}' has no final label of case {case_id}; train or resume it."
        raise RunError(msg)
    return path


@dataclass(frozen=True, slots=True)
class _Decided:
    """What is decided, and how a label map that is kept was made.

    Attributes:
        what: As in `Review`.
        run: As for `correct`.
        round_number: As for `correct`.
        is_computed: As in `Review`.
        decides_lesions: Whether each lesion was decided about, whatever the run knows of them.
    """

    what: What
    run: RunFolder | None = None
    round_number: int | None = None
    is_computed: bool = False
    decides_lesions: bool = False


def _keep(
    project: Project, case_id: str, labels: Labelmap, decided: _Decided, *, whole: bool = False
) -> Project:
    with changing(project.folder):
        current = open_project(project.folder)
        case = current.case(case_id)
        kept = None if case.label is None else keep_history(current.label_path(case))
        is_accepted = decided.what == "accepted"
        status: Literal["accepted", "labelled"] = "accepted" if is_accepted else "labelled"
        kept_before = None if kept is None else kept.relative_to(current.folder)
        with _noted(current.folder, _of(decided, case, kept_before)):
            names = decided_targets(current, decided.run, case_id, labels)
            if names and decided.decides_lesions:
                lesions = {target.name for target in lesion_targets(current.targets)}
                names = tuple(sorted({*names, *lesions}))
            saved = project.save_label(case_id, labels, status=status, targets=names)
            return mark_all_complete(saved, case_id) if whole else saved


def _place_before(project: Project, case: Case, last: Review) -> Path | None:
    """Return where the label map of a case was before a decision; None when it had none."""
    if last.what == "rejected":
        return case.label
    if last.kept_before is None or last.label_before is None:
        return None
    _refuse_foreign(project, case, last)
    return Path(last.label_before)


def _slices_before(case: Case, last: Review) -> tuple[int, ...] | None:
    """Return the slices that count of a label map that comes back: those of then and of now.

    What was marked since was marked on another label map, and says nothing of this one.
    """
    if last.slices_before is None or case.complete_slices is None:
        return case.complete_slices if last.slices_before is None else last.slices_before
    return tuple(sorted({*last.slices_before} & {*case.complete_slices}))


def _restore(project: Project, case: Case, last: Review) -> None:
    """Bring back the label map of before a decision, and keep the one of now."""
    if last.what == "rejected":
        return
    kept, label = last.kept_before, last.label_before
    if kept is None or label is None:
        if case.label is not None:
            keep_history(project.label_path(case))
        return
    kept_path, path = inside(project.folder, Path(kept)), inside(project.folder, Path(label))
    if case.label is not None:
        keep_history(project.label_path(case))
    copy_atomic(kept_path, path)


def _refuse_foreign(project: Project, case: Case, last: Review) -> None:
    """Refuse to write over the label map of another case, whoever wrote the line."""
    owners = [other.id for other in project.cases if other.label == Path(last.label_before or "")]
    if any(owner != case.id for owner in owners):
        msg = (
            f"{project.folder / REVIEWS} names {last.label_before} for case {case.id}, which is "
            f"the label map of case {owners[0]}; restore the file from a copy."
        )
        raise ProjectError(msg)


def _of(decided: _Decided, case: Case, kept: Path | None = None) -> dict[str, Any]:
    """Describe a decision, and the case as it was before."""
    run, best = decided.run, 0 if decided.run is None else decided.run.best_round
    review = Review(
        number=0,
        what=decided.what,
        case_id=case.id,
        time=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        run="" if run is None else run.run_id,
        round=best if decided.round_number is None else decided.round_number,
        status_before=case.status,
        label_before=None if case.label is None else case.label.as_posix(),
        targets_before=case.label_targets,
        slices_before=case.complete_slices,
        kept_before=None if kept is None else kept.as_posix(),
        is_computed=decided.is_computed,
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
        with suppress(OSError), (folder / REVIEWS).open("rb+") as file:
            file.truncate(length)
        raise


def _append(folder: Path, review: Mapping[str, Any]) -> int:
    """Write the line of a decision; return how long the file was without it."""
    path = folder / REVIEWS
    known = (values or {} for _, values in read_lines(path, ProjectError, _REMEDY))
    numbers = [found for one in known if isinstance(found := one.get("number"), int)]
    # No number is given twice, though lines were removed by hand.
    return append_lines(path, {**review, "number": 1 + max(numbers, default=0)})
