"""A person's decisions about the lesions of a case: accepted, deleted, edited, added.

`lesions/<case>.jsonl` in the project folder has one line per decision, only ever appended to: the
last line of a lesion counts, and a decision that is taken back is a line too. Lines of one command
count all or none, see `lesion_lines`. A line holds the voxels that it is about, so decisions
outlive the run whose candidates they began with. The case gets a label map of its own, see
`review`, when all its candidates are decided and the person says that there are no more.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aslseg.data.masks import BoundingBox, box_of, crop
from aslseg.data.volume import Labelmap, Labels, Mask, Shape3
from aslseg.errors import ProjectError, finding_in_line
from aslseg.project.case import HISTORY, LESIONS
from aslseg.project.lesion_lines import MORE, REMEDY, read_lesion_lines
from aslseg.project.lock import changing
from aslseg.project.project import Project, open_project
from aslseg.reading import MOST_LINE_BYTES
from aslseg.storage import append_lines, inside, storage_errors
from aslseg.targets import Target

ENOUGH_DECIDED = 0.5
"""Least part of a candidate that decisions cover for it to be decided about (ours)."""

What: TypeAlias = Literal["accepted", "deleted", "edited", "added"]

_SPACES_BYTES = 4096
"""More than what spaces add to a line when it is written."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxedMask:
    """A mask as the box around it and what is in it.

    Attributes:
        box: Within the (D, H, W) array of the whole volume.
        mask: (d, h, w) bool, of the shape of the box.
    """

    box: BoundingBox
    mask: Mask

    @property
    def voxels(self) -> int:
        """How many there are."""
        return int(self.mask.sum())

    def equals(self, other: BoxedMask | None) -> bool:
        """Tell whether another mask has the same voxels, in a box of the same place and size."""
        if other is None or self.box != other.box:
            return False
        return np.array_equal(self.mask, other.mask)

    def within(self, box: BoundingBox) -> Mask:
        """Return which voxels of another box it has, of that box's shape."""
        part = np.zeros(box.shape, np.bool_)
        first = np.maximum(self.box.start, box.start)
        last = np.minimum(self.box.stop, box.stop)
        if (last > first).all():
            there, here = (
                tuple(slice(a, b) for a, b in zip(first - start, last - start, strict=True))
                for start in (box.start, self.box.start)
            )
            part[there] = self.mask[here]
        return part

    def write(self, whole: Labels | Mask, value: int) -> None:
        """Set its voxels in a (D, H, W) array to a value."""
        crop(whole, self.box)[self.mask] = value


def boxed(mask: Mask, start: Shape3 = (0, 0, 0)) -> BoxedMask | None:
    """Return a mask in its box, None for an empty one.

    Args:
        mask: (D, H, W), or a part of it.
        start: Index (k, j, i) of its first voxel.
    """
    box = box_of(mask)
    if box is None:
        return None
    first, last = (
        tuple(n + offset for n, offset in zip(corner, start, strict=True))
        for corner in (box.start, box.stop)
    )
    return BoxedMask(
        BoundingBox((first[0], first[1], first[2]), (last[0], last[1], last[2])),
        crop(mask, box).copy(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class LesionDecision:
    """What a person decided about one lesion.

    Attributes:
        what: `added` is a lesion that no candidate showed.
        target: Name of the target.
        found: Voxels of the candidate; None where there was none.
        final: Voxels of the lesion; None of a deleted one.
        run: Run whose candidate it is, or nothing.
        round: Its round; 0 without a run.
        candidate: Its number in the round's table of candidates; 0 where it has none.
    """

    what: What
    target: str
    found: BoxedMask | None
    final: BoxedMask | None
    run: str = ""
    round: int = 0
    candidate: int = 0

    def __post_init__(self) -> None:
        """Refuse a decision that contradicts itself."""
        if (self.final is None) != (self.what == "deleted"):
            msg = f"A lesion that is {self.what} cannot have {'no' if self.final is None else 'a'} "
            raise ValueError(msg + "mask.")
        if (self.found is None) != (self.what == "added"):
            msg = f"A lesion that is {self.what} needs its candidate, an added one has none."
            raise ValueError(msg)

    @property
    def masks(self) -> tuple[BoxedMask, ...]:
        """Candidate and lesion, those that there are."""
        return tuple(mask for mask in (self.found, self.final) if mask is not None)


@dataclass(frozen=True, slots=True, eq=False)
class CaseLesions:
    """The decisions about a case that hold.

    Attributes:
        case_id: The case.
        decisions: By number of the lesion, from 1, in the order of their numbers.
        latest: Number of the last line of the file that they were read from.
        highest: Number that no lesion of these lines goes beyond, undecided ones among them.
    """

    case_id: str
    decisions: Mapping[int, LesionDecision] = field(default_factory=dict)
    latest: int = 0
    highest: int = 0

    @property
    def next_number(self) -> int:
        """What a new lesion is numbered by the next line, as none was before.

        It is the number of the line, unless lines were removed by hand.
        """
        return 1 + max(self.latest, self.highest)

    def apply(self, labels: Labels, targets: Sequence[Target]) -> Labels:
        """Return a label map with the decisions: candidates taken out, lesions put in.

        Args:
            labels: (D, H, W) on the voxels of the image.
            targets: All targets.

        Raises:
            ProjectError: When a lesion lies outside, or is of no target with a parent.
        """
        final = labels.copy()
        by_name = {target.name: target for target in targets}
        for decision in self.decisions.values():
            target = by_name.get(decision.target)
            if target is None or target.inside is None:
                msg = f"A lesion of case {self.case_id} is of '{decision.target}', which is no "
                raise ProjectError(msg + "target inside another one of this project.")
            _require_inside(self.case_id, decision, labels.shape)
            if decision.found is not None:
                part = crop(final, decision.found.box)
                gone = decision.found.mask & (part == target.value)
                part[gone] = by_name[target.inside].value
        for decision in self.decisions.values():
            if decision.final is not None:
                decision.final.write(final, by_name[decision.target].value)
        return final

    def applied_to(self, labelmap: Labelmap, targets: Sequence[Target]) -> Labelmap:
        """Return a label map on the voxels of the image with the decisions, as `apply` does.

        Raises:
            ProjectError: As `apply`.
        """
        return Labelmap(self.apply(labelmap.labels, targets), labelmap.geometry)


def _require_inside(case_id: str, decision: LesionDecision, shape: tuple[int, ...]) -> None:
    stops = (mask.box.stop for mask in decision.masks)
    if any(n > size for stop in stops for n, size in zip(stop, shape, strict=True)):
        msg = f"A lesion of case {case_id} lies outside of its image; {REMEDY}."
        raise ProjectError(msg)


def read_lesions(project: Project, case_id: str, lines: int | None = None) -> CaseLesions:
    """Read the decisions about the lesions of a case.

    Args:
        project: The project.
        case_id: The case.
        lines: As they were after so many lines of the file; as they are now when None.

    Raises:
        ProjectError: When there is no such case, or the file is damaged.
    """
    path = _path(project, project.case(case_id).id)
    decisions: dict[int, LesionDecision] = {}
    latest = highest = 0
    for number, values in read_lesion_lines(path):
        if lines is not None and number > lines:
            break
        line = _line_of(values, f"{path} is damaged in line {number}")
        latest, highest = number, max(highest, line.lesion)
        decision = line.decision(f"{path} is damaged in line {number}")
        if decision is None:
            decisions.pop(line.lesion, None)
        else:
            decisions[line.lesion] = decision
    return CaseLesions(case_id, dict(sorted(decisions.items())), latest, highest)


def put_lesion(
    project: Project,
    case_id: str,
    decision: LesionDecision | None,
    *,
    lesion: int | None = None,
    seen: int | None = None,
) -> tuple[int, CaseLesions]:
    """Note a decision about a lesion, or take it back.

    Args:
        project: The project.
        case_id: The case.
        decision: None takes back the one that there is.
        lesion: Number of the lesion; a new one's if None.
        seen: As for `putting_lesions`.

    Returns:
        Number of the lesion, and all decisions about the case.

    Raises:
        ProjectError: As `putting_lesions`.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    with putting_lesions(project, case_id, [(lesion, decision)], seen=seen) as lesions:
        return lesion or lesions.highest, lesions


@contextmanager
def putting_lesions(
    project: Project,
    case_id: str,
    changes: Sequence[tuple[int | None, LesionDecision | None]],
    *,
    seen: int | None = None,
) -> Iterator[CaseLesions]:
    """Note decisions about lesions, all or none; they are taken back if the body fails.

    Args:
        project: The project.
        case_id: The case.
        changes: Number of each lesion, None for a new one, with the decision; None takes back the
            one that there is.
        seen: `CaseLesions.latest` of what the person saw; another state is refused.

    Yields:
        All decisions about the case.

    Raises:
        ProjectError: When there is no such case, the person saw another state, a decision is of
            no target that lies in another, or its masks are too large for a line of the file.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    with changing(project.folder):
        current = open_project(project.folder)
        before = read_lesions(current, case_id)
        if seen not in (None, before.latest):
            msg = f"The lesions of case {case_id} were decided about elsewhere meanwhile; load the "
            raise ProjectError(msg + "case again.")
        path = _path(current, case_id)
        lines = _lines_of(current, before, changes)
        length = append_lines(path, *lines, after=before.latest) if lines else None
        try:
            yield read_lesions(current, case_id)
        except BaseException:
            if length is not None:
                with suppress(OSError), path.open("rb+") as file:
                    file.truncate(length)
            raise


def _lines_of(
    project: Project,
    before: CaseLesions,
    changes: Sequence[tuple[int | None, LesionDecision | None]],
) -> list[dict[str, Any]]:
    """Return the line of each decision, see `putting_lesions`.

    Raises:
        ProjectError: When one is of no target that lies in another, or too long.
    """
    inner = {target.name for target in project.targets if target.inside is not None}
    lines = []
    for index, (lesion, decision) in enumerate(changes):
        if decision is not None and decision.target not in inner:
            msg = f"'{decision.target}' is no target inside another one, so it has no lesions."
            raise ProjectError(msg)
        number = lesion or before.next_number + index
        line = _Line.of(number, decision, more=len(changes) - 1 - index)
        if len(line.model_dump_json()) > MOST_LINE_BYTES - _SPACES_BYTES:
            msg = (
                f"The outline of a lesion of case {before.case_id} is too long to be kept; divide "
                "it, or smooth it."
            )
            raise ProjectError(msg)
        lines.append(line.model_dump(exclude=None if line.more else {MORE}))
    return lines


def lesions_aside(folder: Path, case_id: str) -> Path:
    """Return a place in the history for the decisions about a case, under the time of now.

    Args:
        folder: Of the project.
        case_id: The case.
    """
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")
    return folder / LESIONS / HISTORY / f"{case_id}-{now}.jsonl"


def set_lesions_aside(folder: Path, case_id: str, kept: Path | None = None) -> None:
    """Keep the decisions about a case that leaves a project, where no other case finds them.

    Args:
        folder: Of the project; the caller holds its lock.
        case_id: The case; nothing need have been decided about it.
        kept: Where they are kept; as `lesions_aside` when None.

    Raises:
        StorageError: When the folder cannot be written.
    """
    path = inside(folder, Path(LESIONS, f"{case_id}.jsonl"))
    kept = kept or lesions_aside(folder, case_id)
    if path.exists():
        with storage_errors(kept):
            kept.parent.mkdir(exist_ok=True)
            path.rename(kept)


def _path(project: Project, case_id: str) -> Path:
    return project.lesion_path(case_id)


Index = Annotated[int, Field(ge=0, lt=1 << 16)]


class _Mask(BaseModel):
    """A mask as text: its bits, compressed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    start: list[Index] = Field(min_length=3, max_length=3)
    shape: list[Annotated[int, Field(ge=1, lt=1 << 16)]] = Field(min_length=3, max_length=3)
    bits: str

    @classmethod
    def of(cls, mask: BoxedMask | None) -> _Mask | None:
        if mask is None:
            return None
        packed = zlib.compress(np.packbits(mask.mask).tobytes())
        bits = base64.b64encode(packed).decode()
        return cls(start=[*mask.box.start], shape=[*mask.box.shape], bits=bits)

    def boxed(self) -> BoxedMask:
        """Return the mask.

        Raises:
            ValueError: When the bits are not those of such a mask.
        """
        voxels = int(np.prod(self.shape, dtype=np.int64))
        size = -(-voxels // 8)
        unpacked = zlib.decompressobj().decompress(
            base64.b64decode(self.bits, validate=True), size + 1
        )
        if len(unpacked) != size:
            msg = "its bits are not those of its shape"
            raise ValueError(msg)
        flat = np.unpackbits(np.frombuffer(unpacked, np.uint8), count=voxels)
        (k, j, i), (depth, rows, columns) = self.start, self.shape
        box = BoundingBox((k, j, i), (k + depth, j + rows, i + columns))
        return BoxedMask(box, flat.reshape(box.shape).astype(np.bool_))


class _Line(BaseModel):
    """One line of the file: the lesion's number and what is so from now on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lesion: Annotated[int, Field(ge=1)]
    time: str
    what: What | Literal["undecided"]
    target: str = ""
    found: _Mask | None = None
    final: _Mask | None = None
    run: str = ""
    round: Index = 0
    candidate: Index = 0
    more: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def of(cls, number: int, decision: LesionDecision | None, *, more: int) -> _Line:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        if decision is None:
            return cls(lesion=number, time=now, what="undecided", more=more)
        return cls(
            lesion=number,
            time=now,
            what=decision.what,
            target=decision.target,
            found=_Mask.of(decision.found),
            final=_Mask.of(decision.final),
            run=decision.run,
            round=decision.round,
            candidate=decision.candidate,
            more=more,
        )

    def decision(self, damaged: str) -> LesionDecision | None:
        """Return the decision; None where it was taken back.

        Raises:
            ProjectError: When the masks are damaged; it begins with `damaged`.
        """
        if self.what == "undecided":
            return None
        try:
            found, final = (None if m is None else m.boxed() for m in (self.found, self.final))
            return LesionDecision(
                self.what, self.target, found, final, self.run, self.round, self.candidate
            )
        except (ValueError, zlib.error) as error:
            msg = f"{damaged} (the mask of lesion {self.lesion}); {REMEDY}."
            raise ProjectError(msg) from error


def _line_of(values: Any, damaged: str) -> _Line:
    try:
        return _Line.model_validate(values)
    except ValidationError as error:
        msg = f"{damaged} ({finding_in_line(error)}); {REMEDY}."
        raise ProjectError(msg) from error
