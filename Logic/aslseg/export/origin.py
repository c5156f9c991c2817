"""`origin.json`: who or what made each label map of a folder, from what, and the digests of both.

It also names each file that was written with its SHA-256: a file that is not named, or has another
content by now, is somebody else's, and is not written over without being asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationError

from aslseg.config import Settings
from aslseg.errors import StorageError
from aslseg.project.external_labels import read_external
from aslseg.project.label_origin import KIND, ORIGIN
from aslseg.project.run_folder import RunFolder, weights_digest
from aslseg.reading import read_object
from aslseg.storage import sha256_of, write_json_atomic
from aslseg.targets import Target

MadeBy: TypeAlias = Literal["given", "drawn", "corrected", "accepted", "ai"]
"""A label map was brought in with the image, drawn by a person, corrected by a person from a
prediction, predicted and accepted unchanged by a person, or predicted and not looked at."""


class RunOrigin(Settings):
    """A run that predicted.

    Attributes:
        method: That it was trained by.
        settings: Its `config.json`; of labels of another model its `external.json`.
        weights: By number of the round, a digest of the trained weights.
    """

    method: str
    settings: dict[str, Any]
    weights: dict[str, str]


class CaseOrigin(Settings):
    """Where the label map of a case comes from.

    Attributes:
        made_by: Who or what made it.
        run: Of the prediction that it is or was corrected from; empty without one.
        round: Of that run; 0 without one.
        decided: When a person decided, ISO 8601; empty where nobody did.
        split: What the case is for in its project; empty outside of one.
        image_sha256: Digest of the image.
        label_sha256: Digest of the label map in the project; empty where a run has just made it.
        organs: Digests of masks of organs that were used in place of predicted ones, by name.
        unknown_targets: Names of targets that the label map says nothing of.
        complete_slices: Axial slices that a person marked as complete, as the file numbers them:
            the others are labelled in part or not at all. None: all of the label map counts.
        ignored_voxels: Voxels with the value `ignore`, for it is in doubt or unknown what they are.
        files: Of this case, relative to the folder.
    """

    made_by: MadeBy
    run: str = ""
    round: int = 0
    decided: str = ""
    split: str = ""
    image_sha256: str
    label_sha256: str = ""
    organs: Mapping[str, str] = Field(default_factory=dict)
    unknown_targets: tuple[str, ...] = ()
    complete_slices: tuple[int, ...] | None = None
    ignored_voxels: int = 0
    files: tuple[str, ...] = ()


class Origin(Settings):
    """What `origin.json` says.

    Attributes:
        kind: What kind of file this is.
        schema_version: Of its fields.
        format: Of the label maps.
        aslseg: Version that wrote them.
        written: When, ISO 8601.
        targets: What the values of label maps mean in the project.
        runs: That predicted, by name.
        cases: By name.
        files: SHA-256 of every file that was written, by its place in the folder.
    """

    kind: Literal["aslseg labels"] = KIND
    schema_version: Literal[1] = 1
    format: str
    aslseg: str
    written: str
    targets: tuple[Target, ...]
    runs: dict[str, RunOrigin]
    cases: dict[str, CaseOrigin]
    files: dict[str, str]


class FilesThereError(StorageError):
    """Files are in the way that this program did not write; a person may let them be replaced."""


def now() -> str:
    """Return the time as it is written in an origin."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def run_origin(run: RunFolder, rounds: Iterable[int]) -> RunOrigin:
    """Describe a run by its settings and the weights of some rounds."""
    config = run.config
    if run.is_external:
        known = read_external(run).model_dump(mode="json")
        return RunOrigin(method=config.method, settings=known, weights={})
    return RunOrigin(
        method=config.method,
        settings=config.model_dump(mode="json"),
        weights={str(number): weights_digest(run, number) for number in rounds if number},
    )


def read_origin(folder: Path) -> Origin | None:
    """Read the origin of a folder; None when it has none.

    Raises:
        StorageError: When the file is damaged or another program's.
    """
    path = folder / ORIGIN
    if not path.exists():
        return None
    remedy = "choose another folder, or move that file away"
    try:
        return Origin.model_validate(read_object(path, StorageError, remedy))
    except ValidationError as error:
        msg = f"{path} does not say where label maps come from as this program does; {remedy}."
        raise StorageError(msg) from error


def write_origin(folder: Path, origin: Origin) -> None:
    """Write the origin of a folder, whole or not at all."""
    write_json_atomic(folder / ORIGIN, origin.model_dump(mode="json"))


def foreign_files(folder: Path, names: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """List those of some files of a folder that are there and not as they were written.

    Args:
        folder: Where they are.
        names: Of files that will be written, relative to the folder.
        known: SHA-256 of files as they were written.
    """
    return [
        name
        for name in names
        if (folder / name).exists()
        and (name not in known or sha256_of(folder / name) != known[name])
    ]


def are_as_written(folder: Path, names: Collection[str], known: Mapping[str, str]) -> bool:
    """Tell whether some files of a folder are all there, and as they were written.

    Args:
        folder: Where they are.
        names: Of the files, relative to the folder.
        known: SHA-256 of files as they were written.
    """
    there = all(name in known and (folder / name).exists() for name in names)
    return there and not foreign_files(folder, names, known)
