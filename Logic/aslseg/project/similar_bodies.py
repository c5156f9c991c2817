"""Volumes that look as if they were of one patient though their patients differ.

What is compared of a volume (`aslseg.data.body_match`) is kept in `cache/bodies/`, by the digest of
its image, and may be deleted at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from aslseg.data.body_match import BodyDigest, BodyMatch, body_digest, matching_bodies
from aslseg.data.images import read_volume
from aslseg.errors import AslsegError, as_typed_command, listed
from aslseg.events import Monitor
from aslseg.project.case import CACHE, Case
from aslseg.project.patients import IN_WORDS
from aslseg.project.project import Project
from aslseg.storage import atomic_path

logger = logging.getLogger(__name__)

PLACE = Path(CACHE, "bodies")
MOST_PAIRS = 4000
"""Compared when volumes are added, which takes a minute; 40 volumes have 780 pairs."""

Bodies = Mapping[str, BodyDigest | str]
"""By case id, what is compared, or why nothing can be."""

_VERSION = 1


def keep_bodies(project: Project, bodies: Bodies) -> None:
    """Write what is compared of cases to the cache; where that cannot be, it is made again."""
    for name, body in bodies.items():
        if isinstance(body, BodyDigest):
            try:
                _write(_place(project, project.case(name)), body)
            except AslsegError as error:
                logger.info("What is compared of %s is not kept: %s", name, error)


def similar_pairs(
    project: Project,
    *,
    of: Collection[str] | None = None,
    most: int | None = None,
    monitor: Monitor | None = None,
) -> tuple[list[BodyMatch], list[str]]:
    """Find pairs of volumes that look like one patient and are said to be of two.

    Args:
        project: The project.
        of: Ids of cases of which one at least has to be in a pair; None compares all.
        most: How many pairs are compared; those that matter first.
        monitor: Told of the progress.

    Returns:
        The pairs, the most alike first, and what could not be compared, one sentence each.
    """
    known = {case.id: _body(project, case) for case in project.cases}
    bodies = {name: body for name, body in known.items() if isinstance(body, BodyDigest)}
    pairs = sorted(_pairs(project, bodies, of), key=_matters_less)
    compared = [(first.id, second.id) for first, second in pairs[:most]]
    unknown = {name: body for name, body in known.items() if isinstance(body, str)}
    notes = _notes(unknown, of) if len(known) > 1 else []
    if len(compared) < len(pairs):
        notes.append(
            f"{len(pairs) - len(compared)} of {len(pairs)} pairs of volumes were not compared for "
            "being of one patient; "
            f"{as_typed_command('aslseg', 'patients', project.folder, '--compare')} does so."
        )
    return matching_bodies(bodies, compared, monitor), notes


def in_words(match: BodyMatch, project: Project) -> str:
    """Say that two volumes look like one patient, by what, and what to do."""
    first, second = project.case(match.first), project.case(match.second)
    named = [f"{case.id} ({IN_WORDS[case.split]})" for case in (first, second)]
    apart, same = first.split != second.split, f"{second.id}={first.patient}"
    return (
        f"{named[0]} and {named[1]} {likeness_in_words(match)} If they are, say so: "
        + as_typed_command("aslseg", "patients", project.folder, "--patient", same)
        + (" --split CASE=..., so that both are for one part." if apart else "")
    )


def likeness_in_words(match: BodyMatch) -> str:
    """Say by what two volumes look like one patient, as the end of a sentence about them."""
    return (
        f"look like one patient: laid over each other, {match.overlap:.0%} of the smaller body "
        f"overlap, and their fine structure has a correlation of {match.correlation:.2f}."
    )


def _pairs(
    project: Project, bodies: Collection[str], of: Collection[str] | None
) -> Iterator[tuple[Case, Case]]:
    compared = [case for case in project.cases if case.id in bodies]
    for first, second in combinations(compared, 2):
        is_wanted = of is None or first.id in of or second.id in of
        if is_wanted and first.patient != second.patient:
            yield first, second


def _matters_less(pair: tuple[Case, Case]) -> bool:
    """Tell whether two volumes are on one side, and nothing is learnt from one to judge another."""
    first, second = pair
    return first.split == second.split and not (first.label or second.label)


def _notes(unknown: Mapping[str, str], of: Collection[str] | None) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, reason in unknown.items():
        if of is None or name in of:
            reasons.setdefault(reason, []).append(name)
    return [
        f"Not compared with others for being of one patient: {listed(names)}; {reason}."
        for reason, names in reasons.items()
    ]


def _body(project: Project, case: Case) -> BodyDigest | str:
    path = _place(project, case)
    kept = _read(path)
    if kept is not None:
        return kept
    try:
        body = body_digest(read_volume(project.image_path(case)))
    except AslsegError as error:
        return f"its image cannot be read ({error})"
    keep_bodies(project, {case.id: body})
    return body


def _place(project: Project, case: Case) -> Path:
    return project.folder / PLACE / f"{case.image_sha256}-{_VERSION}.npy"


def _write(path: Path, body: BodyDigest) -> None:
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, np.where(body.mask, body.detail, np.nan).astype(np.float16))


def _read(path: Path) -> BodyDigest | None:
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if stored.ndim != 3 or stored.dtype != np.float16:
        return None
    mask = np.isfinite(stored)
    return BodyDigest(np.where(mask, stored, 0).astype(np.float32), mask)
