"""What a run learns from: noted when it begins, and compared with what is there when it goes on.

Noted are the images, the label maps, organ masks and decisions about lesions, and which organs are
given. A run that is resumed learns from the very same; more rounds learn from those of now.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aslseg.errors import RunError
from aslseg.events import Monitor
from aslseg.project.lock import changing
from aslseg.project.project import Project, open_project, validated
from aslseg.project.run_folder import RunFolder, saw_another
from aslseg.project.run_status import LearntData
from aslseg.project.run_tables import read_reliability
from aslseg.storage import inside, sha256_of
from aslseg.targets import cascade_stages, is_given


def data_of_now(project: Project) -> tuple[Project, LearntData]:
    """Return a project as it is now, and what there is to learn from.

    The project's organ masks stay those of now, whatever becomes of the files.
    """
    with changing(project.folder):  # nobody takes a label map back meanwhile
        now = open_project(project.folder)
        digests = {case.id: sha256_of(now.label_path(case)) for case in now.labelled}
        places = [place for case in now.cases for place in case.masks.values()]
        masks = {place.as_posix(): sha256_of(inside(now.folder, place)) for place in places}
        return validated(now, mask_digests=masks), LearntData(
            label_digests={**digests, **masks},
            label_scopes={c.id: scope for c in now.labelled if (scope := c.label_scope)},
            lesion_lines=now.lesion_lines(),
        )


def as_begun(project: Project, folder: RunFolder, monitor: Monitor) -> Project:
    """Return a project with the labels that a run began to learn from, and say if they changed.

    Label maps themselves are found by their digests, see `RunContext.labels_in_file`. Organ masks
    that were given since are used; those of before cannot change, see `check_masks`.
    """
    (now, known), status = data_of_now(project), folder.status
    if folder.learnt_data != known:
        monitor.warn(
            f"Labels or decisions have changed since run '{folder.run_id}' began; it goes on with "
            "those of then. Add rounds to it afterwards to learn from those of now."
        )
    digests, scopes = status.label_digests, status.label_scopes
    cases = []
    for case in now.cases:
        if case.split == "train" and case.id in digests:
            as_now = case.status if case.label else "labelled"
            facts: dict[str, Any] = {"label": case.label_place, "status": as_now}
            cases.append(case.model_copy(update=facts).scoped(scopes.get(case.id, "")))
        elif case.split == "train" and case.label is not None:
            none: dict[str, Any] = {"label": None, "status": "unlabelled"}
            cases.append(case.model_copy(update=none).scoped(""))
        else:
            cases.append(case)
    return validated(now, cases=tuple(cases))


def note_images(project: Project, folder: RunFolder) -> None:
    """Note the images that a run works with."""
    now = {case.id: case.image_sha256 for case in project.cases if case.image_sha256 is not None}
    folder.write_status(images={**folder.images, **now})


def note_training_cases(project: Project, folder: RunFolder) -> None:
    """Note the cases that a run trains on from here on, with and without a label map."""
    folder.write_status(training_cases=[c.id for c in project.cases if c.split == "train"])


def refuse_other_images(project: Project, folder: RunFolder) -> None:
    """Refuse to go on with other images than those that a run has seen.

    Raises:
        RunError: When a case has another one by now.
    """
    known = [case for case in project.cases if case.image_sha256 is not None]
    changed = [case.id for case in known if saw_another(folder.images, case)]
    if changed:
        msg = (
            f"Run '{folder.run_id}' has seen another image of case {changed[0]} than the project "
            "has now; start a new run."
        )
        raise RunError(msg)


def refuse_other_roles(project: Project, folder: RunFolder, *, is_resumed: bool) -> None:
    """Refuse to go on where a case that the run has learnt from plays another part by now.

    Raises:
        RunError: When a run that is resumed would go on without it, or a network that has learnt
            from it would be scored on it.
    """
    splits = {case.id: case.split for case in open_project(project.folder).cases}
    status = folder.status
    learnt = [name for name in status.label_digests if "/" not in name]
    others = status.training_cases if is_resumed else _labelled_and_learnt(folder)
    for name in (*learnt, *others):
        if splits.get(name) == "train":
            continue
        if is_resumed:
            msg = (
                f"Run '{folder.run_id}' learns from case {name}, which is no case to train on any "
                "more; give it its place back, or start a new run."
            )
            raise RunError(msg)
        if name in splits:
            msg = (
                f"Run '{folder.run_id}' has learnt from case {name}, which is to check on now and "
                "would flatter its score; give it its role of train back, or start a new run."
            )
            raise RunError(msg)


def _labelled_and_learnt(folder: RunFolder) -> list[str]:
    """List the cases of which a run has learnt an AI label: its own, or that it began with."""
    learnt, number = list(folder.status.start_targets), 1
    while folder.round(number + 1).exists():
        learnt += [row.case for row in read_reliability(folder.round(number)) if row.accepted]
        number += 1
    return list(dict.fromkeys(learnt))


def check_masks(project: Project, folder: RunFolder, monitor: Monitor) -> None:
    """Say which organs are not learnt, and make sure that masks are those that the run knows.

    Raises:
        RunError: When a mask is gone or not the one of before, or a case has none of an organ that
            the run does not learn.
    """
    status = folder.status
    known, given = status.label_digests, status.given_targets
    places = {place.as_posix() for case in project.cases for place in case.masks.values()}
    lost = [key for key in known if "/" in key and key not in places]
    if lost:
        msg = (
            f"Run '{folder.run_id}' began with the mask {lost[0]}, which is no case's any more; "
            "add rounds to the run, or start a new one."
        )
        raise RunError(msg)
    for case in project.cases:
        for name in given:
            if name not in case.masks:
                msg = (
                    f"Run '{folder.run_id}' does not learn {name}, for every case had a mask of "
                    f"it, and {case.id} has none; give it one, or start a new run."
                )
                raise RunError(msg)
        for name, place in case.masks.items():
            key = place.as_posix()
            if key in known and known[key] != sha256_of(inside(project.folder, place)):
                msg = (
                    f"The mask of {name} of case {case.id} is not the one that run "
                    f"'{folder.run_id}' began with; add rounds to the run, or start a new one."
                )
                raise RunError(msg)
    for stage in cascade_stages(project.targets):
        if is_given(stage, given):
            name = ", ".join(target.name for target in stage.targets)
            monitor.warn(f"Every case has a mask of {name}: it is not trained, the masks are used.")


def validation_digest(project: Project) -> str:
    """Return a digest of the label maps that validation scores are of, and of what they decide."""
    labelled = (case for case in project.validation if case.label is not None)
    facts = [
        [case.id, sha256_of(project.label_path(case)), case.label_scope, *case.masks]
        for case in labelled
    ]
    return hashlib.sha256(json.dumps(sorted(facts)).encode()).hexdigest()
