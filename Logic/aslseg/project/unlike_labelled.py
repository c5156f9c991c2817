"""Cases whose organs are darker or brighter than those of all labelled cases (ours).

Networks are least to be trusted there, and their agreement does not show it: all of them learnt
from the same few cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from aslseg.data.volume import Labelmap, Volume
from aslseg.errors import RunError
from aslseg.events import Monitor
from aslseg.project.windows import Intensities, intensities_of
from aslseg.reading import damage_told, read_object
from aslseg.storage import write_json_atomic
from aslseg.targets import Target, organ_targets

FILE_NAME = "intensities.json"
MOST_NAMED = 5
"""So many cases are named in one sentence."""

_MEASURED = TypeAdapter(list[Intensities])


def organ_intensities(
    case_id: str, volume: Volume, labels: Labelmap, targets: Sequence[Target]
) -> list[Intensities]:
    """Measure a case's organs as `intensities_of`, without what lies inside of them."""
    return intensities_of(case_id, volume, labels, organ_targets(targets))


def write_intensities(run: Path, measured: Iterable[Intensities]) -> None:
    """Write what the organs of labelled cases look like to the folder of a run."""
    write_json_atomic(run / FILE_NAME, {"labelled": [asdict(one) for one in measured]})


def read_intensities(run: Path) -> list[Intensities]:
    """Read what the organs of labelled cases look like; nothing of a run of an earlier version.

    Raises:
        RunError: When the file is damaged.
    """
    path = run / FILE_NAME
    if not path.exists():
        return []
    remedy = "delete it; cases are then not compared with the labelled ones"
    found = read_object(path, RunError, remedy)
    with damage_told(path, RunError, remedy):
        return _MEASURED.validate_python(found.get("labelled"))


def unlike_labelled(
    volume: Volume, labels: Labelmap, targets: Sequence[Target], known: Sequence[Intensities]
) -> tuple[str, ...]:
    """Say which organs of a predicted label map look like those of no labelled case.

    That is where more than half of an organ's voxels, without what lies inside of it, are darker
    than 95 % of those of each labelled case, or brighter.

    Args:
        volume: The image.
        labels: Its label map, on the same grid.
        targets: All targets.
        known: Of the labelled cases, as `organ_intensities`.

    Returns:
        Half a sentence for each such organ.
    """
    usual = {
        name: (
            min(one.low for one in known if one.target == name),
            max(one.high for one in known if one.target == name),
        )
        for name in {one.target for one in known}
    }
    found = []
    for one in organ_intensities("", volume, labels, targets):
        low, high = usual.get(one.target, (-math.inf, math.inf))
        if not low <= one.middle <= high:
            found.append(
                f"its {one.target} is {'darker' if one.middle < low else 'brighter'} (median "
                f"{one.middle:.0f}) than in the labelled cases (90 % of voxels from {low:.0f} to "
                f"{high:.0f})"
            )
    return tuple(found)


def warn_of_unlike(
    monitor: Monitor,
    name: str,
    volume: Volume,
    labels: Labelmap,
    targets: Sequence[Target],
    known: Sequence[Intensities],
) -> None:
    """Warn of a volume that looks like no labelled case.

    Args:
        monitor: Told of it.
        name: Of the volume, for a person.
        volume: The image.
        labels: Its predicted label map, on the same grid.
        targets: All targets.
        known: Of the labelled cases, as for `unlike_labelled`.
    """
    if note := unlike_note({name: unlike_labelled(volume, labels, targets, known)}):
        monitor.warn(note)


def unlike_note(notes: Mapping[str, Sequence[str]]) -> str:
    """Return a warning about cases that look like no labelled one, with the remedy.

    Args:
        notes: What `unlike_labelled` says, by name of the case; cases of which it says nothing are
            left out.
    """
    found = {name: said for name, said in notes.items() if said}
    if not found:
        return ""
    named = [f"{name}: {', '.join(said)}" for name, said in list(found.items())[:MOST_NAMED]]
    more = f"; and {len(found) - MOST_NAMED} more cases" if len(found) > MOST_NAMED else ""
    return (
        f"Unlike the labelled cases: {'; '.join(named)}{more}. A label is more likely wrong there, "
        "also where networks agree: look at it first, or label such a case and train on."
    )
