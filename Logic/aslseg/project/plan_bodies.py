"""Which volumes of a planned project look like one patient, before it is made."""

from __future__ import annotations

from itertools import combinations

from aslseg.data.body_match import BodyDigest, BodyMatch, body_digest, matching_bodies
from aslseg.data.images import read_volume
from aslseg.errors import ImageError
from aslseg.events import Monitor
from aslseg.project.case import CaseFiles
from aslseg.project.plan import Plan, patients_of
from aslseg.project.similar_bodies import MOST_PAIRS, likeness_in_words


def look_alike(plan: Plan, monitor: Monitor | None = None) -> list[str]:
    """Compare the volumes of a plan that are said to be of different patients; all are read.

    Args:
        plan: The plan; volumes that are no files yet are compared when the project is made.
        monitor: Told of the progress.

    Returns:
        A sentence for each pair that looks alike, the most alike first, and one if there were too
        many pairs.

    Raises:
        CancelledError: When the monitor says so.
    """
    monitor = monitor or Monitor()
    files = [case for case in plan.cases if case.image.exists()]
    known = [(case.id, _body(case)) for case in monitor.track(files, "reading volumes")]
    bodies = {name: body for name, body in known if isinstance(body, BodyDigest)}
    patients = dict(zip((case.id for case in plan.cases), patients_of(plan), strict=True))
    pairs = [(a, b) for a, b in combinations(bodies, 2) if patients[a] != patients[b]]
    found = [_in_words(m) for m in matching_bodies(bodies, pairs[:MOST_PAIRS], monitor)]
    if len(pairs) > MOST_PAIRS:
        found.append(f"{len(pairs) - MOST_PAIRS} of {len(pairs)} pairs were not compared.")
    return found


def _in_words(match: BodyMatch) -> str:
    return (
        f"{match.first} and {match.second} {likeness_in_words(match)} If they are, give both one "
        "patient and one part."
    )


def _body(case: CaseFiles) -> BodyDigest | str:
    try:
        return body_digest(read_volume(case.image))
    except ImageError as error:
        return str(error)
