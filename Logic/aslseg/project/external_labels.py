"""Label maps of another model, as a start: pseudo-labels of a named origin, to be reviewed as ours.

They lie in a folder among the runs that has the origin's name and predictions in rounds, but no
networks. So cases and lesions are reviewed as those of any run, and every decision, export and
segment says the origin's name. They are a person's labels only once a person has accepted them.

A label map that replaces another one is the next round's, as it numbers other lesions: what a
person saw and decided of the earlier one stays true of that.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from aslseg import run_names
from aslseg.config import RunConfig, SamConfig, Settings
from aslseg.data.geometry import fit_labels
from aslseg.data.images import SUFFIXES, read_labelmap, suffix_of, write_labelmap
from aslseg.data.orientation import ORIENTATION
from aslseg.data.volume import Labelmap, SameSize
from aslseg.errors import ImageError, ProjectError, RunError, listed
from aslseg.events import Monitor
from aslseg.project.case import Case
from aslseg.project.labels import check_values, plain_name, present_values, values_by_name
from aslseg.project.organ_masks import mask_at, read_named, with_masks
from aslseg.project.pairing import labels_by_case
from aslseg.project.project import Project
from aslseg.project.run_folder import (
    RunFolder,
    run_named,
    runs_of,
    saw_another,
    write_settings,
)
from aslseg.project.run_tables import (
    EXTERNAL,
    METRIC_COLUMNS,
    REFINED,
    RELIABILITY_COLUMNS,
    round_number,
    write_table,
)
from aslseg.project.running import running
from aslseg.reading import damage_told, read_object
from aslseg.storage import copy_atomic, sha256_of, storage_errors, write_json_atomic
from aslseg.targets import Target, cascade_stages, parents_first, shown_targets

_FIRST = 1
_MOST_NAMES = 10


class ExternalCase(Settings):
    """The label map of a case.

    Attributes:
        file: Name of what it was read from.
        sha256: Digest of the label map, as it lies in the latest round.
        targets: Names of the targets that it decides.
    """

    file: str
    sha256: str
    targets: tuple[str, ...]


class ExternalLabels(Settings):
    """What `external.json` says.

    Attributes:
        origin: Name of what made the label maps.
        cases: By case id.
    """

    origin: str
    cases: dict[str, ExternalCase] = Field(default_factory=dict)


def read_external(run: RunFolder) -> ExternalLabels:
    """Read what the folder of another model's label maps holds.

    Raises:
        RunError: When it is no such folder, or damaged.
    """
    path = run.path / run_names.EXTERNAL
    remedy = f"add the labels of '{run.run_id}' again"
    with damage_told(path, RunError, remedy):
        return ExternalLabels.model_validate(read_object(path, RunError, remedy))


def decided_targets(
    project: Project, run: RunFolder | None, case_id: str, labels: Labelmap
) -> tuple[str, ...]:
    """Return the names of the targets that a label map of a person decides.

    A run's prediction decides all. Another model's decides what it knows, and the label map of
    before what it was said to decide; to both comes what the person has added.

    Args:
        project: With the targets.
        run: Whose prediction the person began with; None for the label map of before, or nothing.
        case_id: The case.
        labels: As the person saves it.

    Returns:
        Names as for `Case.label_targets`: empty for all.
    """
    if run is None:
        case = project.case(case_id)
        unknown = project.unknown_targets(case) if case.label_targets else frozenset()
    else:
        unknown = unknown_targets(project, run, case_id)
    present = present_values(labels)
    decided = [t.name for t in project.targets if t.name not in unknown or present[t.value]]
    return () if len(decided) == len(project.targets) else tuple(decided)


def unknown_targets(project: Project, run: RunFolder, case_id: str) -> frozenset[str]:
    """Return the names of the targets that a run's label map of a case says nothing of."""
    known = read_external(run).cases if run.is_external else {}
    if case_id not in known:
        return frozenset()
    return frozenset(t.name for t in project.targets) - set(known[case_id].targets)


def labels_named(project: Project, origin: str) -> RunFolder:
    """Return the folder with another model's label maps.

    Raises:
        RunError: When the project has none of that name.
    """
    run = run_named(project.folder, origin)
    if not run.is_external:
        names = [other.run_id for other in runs_of(project.folder) if other.is_external]
        msg = (
            f"The project has no labels of '{origin}' (known: {', '.join(names) or 'none'}); add "
            "them first (aslseg labels)."
        )
        raise RunError(msg)
    return run


def copy_for_training(project: Project, origin: str, folder: Path) -> dict[str, list[str]]:
    """Copy another model's label maps of unlabelled cases, which a training begins with.

    Args:
        project: With the cases; those that a person rejected, or that have another image than the
            one that was labelled, are left out.
        origin: As for `add_external_labels`.
        folder: Gets `<case>.nii.gz`.

    Returns:
        By case id, the targets that are learnt: those that the label map decides together with what
        they lie in.

    Raises:
        RunError: When the project has no label maps of that name.
    """
    run = labels_named(project, origin)
    known, seen, learnt = read_external(run).cases, run.images, {}
    for case in (one for one in project.unlabelled if not saw_another(seen, one)):
        names = known[case.id].targets if case.id in known and case.status != "rejected" else ()
        if found := _with_parents(names, project.targets):
            source = run.predictions(run.best_round, case.id) / REFINED
            copy_atomic(source, folder / f"{case.id}.nii.gz")
            learnt[case.id] = found
    return learnt


def _with_parents(names: Collection[str], targets: Sequence[Target]) -> list[str]:
    """Return those of some targets that lie in nothing, or in another one of them."""
    kept: list[str] = []
    for stage in cascade_stages(targets):
        if stage.inside is None or stage.inside.name in kept:
            kept += [target.name for target in stage.targets if target.name in names]
    return kept


def add_external_labels(
    project: Project,
    origin: str,
    folder: Path,
    *,
    called: Mapping[str, str] | None = None,
    same_size: SameSize = "refuse",
    monitor: Monitor | None = None,
) -> RunFolder:
    """Take the label maps of another model for the cases that a person has not labelled.

    Args:
        project: With the cases.
        origin: What made them, such as "TotalSegmentator"; labels of before under this name are
            replaced case by case, in a round of their own where they are others.
        folder: One file a case, named as its image or as the case; or a folder with a mask of each
            target, as TotalSegmentator writes it.
        called: By target name, what the model calls it: the name of a segment or of the file of a
            mask, or a value. Only these targets are taken then. Without it, segments and masks
            count by the targets' names, and values are those of the project.
        same_size: What to go by when a label map has its image's size and another position.
        monitor: Gets progress and which label maps are others than before; can stop it, and what
            was read until then is kept.

    Returns:
        The folder with the label maps, which is reviewed as a run is.

    Raises:
        ProjectError: When there is no such target, no file is named as a case without a label, or
            two masks of a case are of one target.
        RunError: When a run has that name.
        ImageError: When a label map is damaged, none of the targets is in it, or no label map has a
            value of `called`.
        GeometryMismatchError: When a label map lies elsewhere.
        StorageError: When the project folder cannot be written.
    """
    monitor = monitor or Monitor()
    run = _folder_of(project, origin)
    asked = _asked(project.targets, called or {})
    files, unused = _find(project, folder)
    if unused:
        monitor.warn(_unused_in_words(unused))
    if called:
        _refuse_absent(files.values(), called, monitor)
    others: dict[str, ExternalCase] = {}
    empty: list[str] = []
    with running(run, monitor):
        number = max(run.best_round, _FIRST)
        try:
            for case_id in monitor.track(files, f"Reading labels of {origin}"):
                labelmap, names = _read(project, case_id, files[case_id], asked, same_size)
                if not _found(labelmap, project, case_id):
                    empty.append(case_id)
                _forget_another_image(run, project.case(case_id))
                is_other = _is_other(run, number, case_id, labelmap, names)
                path = run.predictions(number + is_other, case_id) / REFINED
                write_labelmap(labelmap, path)
                name, digest = files[case_id].name, sha256_of(path)
                found = {case_id: ExternalCase(file=name, sha256=digest, targets=names)}
                if is_other:
                    others |= found
                else:
                    _note(run, origin, number, found)
        finally:
            if others:
                _begin_round(run, origin, number + 1, others)
                monitor.warn(_others_in_words(run, number, others))
            if empty:
                monitor.warn(_empty_in_words(origin, empty))
    return run


def _found(labelmap: Labelmap, project: Project, case_id: str) -> set[str]:
    """Return the targets that a label map has a voxel of, without those given by masks."""
    return {*shown_targets(labelmap.labels, project.targets)} - {*project.case(case_id).masks}


def _empty_in_words(origin: str, case_ids: Sequence[str]) -> str:
    return (
        f"Labels of {origin} have no voxel of any target in {listed(case_ids, _MOST_NAMES)}: they "
        "say that there is nothing, also when they are accepted or learnt from. Look whether they "
        "are the right files, with the project's values (--called names others)."
    )


def _forget_another_image(run: RunFolder, case: Case) -> None:
    """Delete the label maps that a case had before its image was replaced, and note the new one."""
    if saw_another(run.images, case):
        for number in map(round_number, run.path.glob("round-*")):
            path = run.predictions(number, case.id)
            if path.exists():
                with storage_errors(path):
                    shutil.rmtree(path)
    if case.image_sha256:
        run.write_status(images={**run.images, case.id: case.image_sha256})


def _is_other(
    run: RunFolder, number: int, case_id: str, labelmap: Labelmap, targets: Collection[str]
) -> bool:
    """Tell whether a round has another label map of a case; one that is damaged is another."""
    path = run.predictions(number, case_id) / REFINED
    known = read_external(run).cases.get(case_id) if run.is_external else None
    if known is None or not path.exists():
        return False
    with suppress(ImageError):
        is_same = np.array_equal(read_labelmap(path).labels, labelmap.labels)
        return not is_same or set(known.targets) != set(targets)
    return True


def _begin_round(
    run: RunFolder, origin: str, number: int, others: Mapping[str, ExternalCase]
) -> None:
    """Complete a round with the label maps of before of all other cases, and make it the best."""
    for case_id in read_external(run).cases.keys() - others.keys():
        for file in run.predictions(number - 1, case_id).glob("*"):
            copy_atomic(file, run.predictions(number, case_id) / file.name)
    _note(run, origin, number, others)


def _others_in_words(run: RunFolder, number: int, others: Collection[str]) -> str:
    return (
        f"Other labels of {run.run_id} than before came for {', '.join(others)}. They are round "
        f"{number + 1}; lists of lesions and decisions of round {number} stay as they are."
    )


def _folder_of(project: Project, origin: str) -> RunFolder:
    run = run_named(project.folder, origin)
    if (run.path / run_names.CONFIG).exists() and not run.is_external:
        msg = f"There is a trained run '{origin}'; name the other model otherwise."
        raise RunError(msg)
    return run


def _asked(targets: Sequence[Target], called: Mapping[str, str]) -> dict[str, Target]:
    """Return the targets that are taken, by what the other model calls them."""
    known = {target.name: target for target in targets}
    strange = [name for name in called if name not in known]
    if strange:
        msg = f"'{strange[0]}' is no target of the project; it has {', '.join(known)}."
        raise ProjectError(msg)
    if len({_value_of(text) or plain_name(text) for text in called.values()}) < len(called):
        msg = "Two targets are called alike in the other model's labels; name each by its own."
        raise ProjectError(msg)
    return (
        {called[name]: known[name] for name in called} if called else {t.name: t for t in targets}
    )


def _value_of(text: str) -> int | None:
    """Return the value that a text is, from 1 to 255; None where it is a name."""
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 256 else None


def _refuse_absent(files: Collection[Path], called: Mapping[str, str], monitor: Monitor) -> None:
    """Refuse values that no label map has; an organ may lack in one case, and not in all."""
    present, has_values = np.zeros(256, np.bool_), False
    for path in monitor.track([file for file in files if file.is_file()], "Looking for values"):
        labelmap, segments = read_named(path)
        if not segments:
            present |= present_values(labelmap)
            has_values = True
    for name, text in called.items() if has_values else ():
        value = _value_of(text)
        if value is not None and not present[value]:
            known = ", ".join(str(one) for one in np.flatnonzero(present[1:]) + 1) or "none"
            msg = (
                f"No label map has a voxel of {value}, which {name} is said to be; values are "
                f"{known}. Say which one is {name}, or leave {name} out."
            )
            raise ImageError(msg)


def _find(project: Project, folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """Return what is there of each case that a person has not labelled, and what is of none."""
    if not folder.is_dir():
        msg = f"{folder} is no folder; give the folder with the label maps of the other model."
        raise ProjectError(msg)
    places = [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (path.is_dir() or suffix_of(path) in SUFFIXES)
    ]
    images = {case.id: project.image_path(case) for case in project.unlabelled}
    found = labels_by_case(images, places)
    if not found:
        msg = (
            f"{folder} has no label map that is named as a case without a label "
            f"({', '.join(list(images)[:3]) or 'there is none'}); rename them like the images."
        )
        raise ProjectError(msg)
    used = set(found.values())
    return found, [path for path in places if path not in used]


def _unused_in_words(unused: Sequence[Path]) -> str:
    """Say which files or folders are of no case that could take them."""
    names = listed((path.name for path in unused), _MOST_NAMES)
    return (
        f"Left out, for no case without a label has their name: {names}. Rename those that are of "
        "a case like its image."
    )


def _read(
    project: Project,
    case_id: str,
    path: Path,
    asked: Mapping[str, Target],
    same_size: SameSize,
) -> tuple[Labelmap, tuple[str, ...]]:
    """Return the label map of a case on the grid of its image, and what it decides."""
    case = project.case(case_id)
    read = _read_masks if path.is_dir() else _read_labels
    labelmap, decided = read(path, asked, project.targets)
    grid = project.geometry(case)
    fitted = fit_labels(labelmap, grid, str(path), same_size=same_size)
    if case.masks:
        masks = project.load_masks(case, grid)
        fitted = with_masks(fitted, masks, project.targets, str(path))
    names = {*decided, *case.masks}
    return fitted, tuple(target.name for target in project.targets if target.name in names)


def _read_labels(
    path: Path, asked: Mapping[str, Target], targets: Sequence[Target]
) -> tuple[Labelmap, Collection[str]]:
    labelmap, segments = read_named(path)
    present = present_values(labelmap)
    own = {target.name: target for target in targets} == dict(asked)
    table = np.zeros(256, np.uint8)
    if segments:
        present[[segment.value for segment in segments]] = True  # also those that are empty
        wanted = [_renamed(target, name) for name, target in asked.items()]
        table = values_by_name(present, segments, wanted, str(path), leave_others=True)
    elif own:
        check_values(labelmap, targets, str(path))
        return labelmap, [target.name for target in targets]
    else:
        for text, target in asked.items():
            value = _value_of(text)
            if value is None:
                msg = f"{path} names no segments; say by its value, from 1 to 255, what "
                raise ImageError(msg + f"{target.name} is, and not by '{text}'.")
            table[value] = target.value
    decided = [target.name for target in asked.values() if (table == target.value).any()]
    if not decided:
        names = ", ".join(segment.name for segment in segments[:6])
        msg = (
            f"{path} has no segment of {', '.join(asked)} (but {names}); say what they are called."
        )
        raise ImageError(msg)
    return Labelmap(table[labelmap.labels], labelmap.geometry), decided


def _renamed(target: Target, name: str) -> Target:
    return target.model_copy(update={"name": name})


def _read_masks(
    path: Path, asked: Mapping[str, Target], targets: Sequence[Target]
) -> tuple[Labelmap, Collection[str]]:
    """Read a folder with a mask of each target; what lies inside of another one goes before it."""
    files = {target.name: mask_at(path, name) for name, target in asked.items()}
    labelmap: Labelmap | None = None
    for target in parents_first(targets):
        file = files.get(target.name)
        if file is None:
            continue
        mask = read_labelmap(file)
        if labelmap is None:
            labelmap = replace(mask, labels=np.zeros_like(mask.labels))
        if not mask.geometry.matches(labelmap.geometry):
            msg = f"{file} lies elsewhere than the other masks in {path}; make them anew."
            raise ImageError(msg)
        labelmap.labels[mask.labels > 0] = target.value
    if labelmap is None:
        msg = f"{path} has no mask named like {', '.join(asked)}; say what they are called."
        raise ImageError(msg)
    return labelmap, [name for name, file in files.items() if file is not None]


def _note(run: RunFolder, origin: str, number: int, found: Mapping[str, ExternalCase]) -> None:
    """Write what makes a folder of label maps one that can be reviewed."""
    known = (read_external(run).cases if run.is_external else {}) | dict(found)
    for case_id, case in found.items():
        facts = {"origin": origin, **case.model_dump(mode="json")}
        write_json_atomic(run.predictions(number, case_id) / run_names.PREDICTION, facts)
    external = ExternalLabels(origin=origin, cases=known)
    write_json_atomic(run.path / run_names.EXTERNAL, external.model_dump(mode="json"))
    rows = [_row(case_id, origin, number) for case_id in known]
    write_table(run.round(number) / run_names.RELIABILITY, RELIABILITY_COLUMNS, rows)
    write_table(run.round(number) / run_names.METRICS, METRIC_COLUMNS, [])
    run.finish(number, math.nan)
    facts = {"method": EXTERNAL, "sam": "none", "orientation": ORIENTATION}
    run.write_status(best_round=number, round=number, rounds=number, **facts)
    config = RunConfig(method=EXTERNAL, rounds=number, sam=SamConfig(model="none"))
    write_settings(run, config)


def _row(case_id: str, origin: str, number: int) -> dict[str, Any]:
    """Return the row of a case that nothing is known of but who labelled it."""
    empty = dict.fromkeys(RELIABILITY_COLUMNS, "")
    reason = f"label of {origin}, nobody has looked at it"
    return {**empty, "round": number, "case": case_id, "accepted": False, "reason": reason}
