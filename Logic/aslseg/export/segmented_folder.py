"""A folder of segmented volumes: their label maps, `origin.json`, `cases.csv` and `lesions.csv`.

All of them are written after each volume, so that it can be stopped at any time and gone on with
later: the origin says which weights have made what of which image, and whether it was changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aslseg
from aslseg.data.images import (
    digest_of_image,
    read_labelmap,
    read_volume,
    suffix_of,
    write_labelmap,
)
from aslseg.data.volume import Labelmap, Volume
from aslseg.errors import ImageError, StorageError
from aslseg.export.origin import (
    CaseOrigin,
    FilesThereError,
    Origin,
    are_as_written,
    now,
    read_origin,
    run_origin,
    write_origin,
)
from aslseg.export.staging import check_place
from aslseg.export.tables import CASE_COLUMNS, CASES, LESIONS, Row, measured_rows, write_tables
from aslseg.project.case import name_key
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import read_table
from aslseg.storage import sha256_of
from aslseg.targets import Target

FORMAT = "segmented volumes"
_ENDING = ".nii.gz"
_SEGMENTED = "segmented"


@dataclass
class SegmentedFolder:
    """Label maps that a round of a run makes, and what they measure.

    Attributes:
        path: The folder.
        run: That segments.
        round: Whose networks segment.
        targets: Of the run's project.
        predictions: Whether it gets the label maps of specialist and SAM too.
        origin: Of what is in the folder by now.
        on_disk: The same as it was read or written last; None before anything was.
        cases: Rows of the table of cases, by name.
        lesions: Rows of the table of lesions, by name.
    """

    path: Path
    run: RunFolder
    round: int
    targets: tuple[Target, ...]
    predictions: bool
    origin: Origin
    on_disk: Origin | None
    cases: dict[str, Row] = field(default_factory=dict)
    lesions: dict[str, list[Row]] = field(default_factory=dict)

    def is_done(self, name: str, digest: str, masks: Mapping[str, Path]) -> bool:
        """Return whether the same weights have segmented the same image, and nobody changed it.

        Args:
            name: Of the volume.
            digest: Of its image; empty when it cannot be read.
            masks: Files of its given organs, by name.
        """
        case = self.origin.cases.get(name)
        if case is None or not digest or case.image_sha256 != digest:
            return False
        is_same = (case.run, case.round) == (self.run.run_id, self.round)
        organs = {organ: digest_if_readable(mask) for organ, mask in masks.items()}
        has_all = not self.predictions or len(case.files) > 1
        is_same = is_same and case.organs == organs
        return is_same and has_all and are_as_written(self.path, case.files, self.origin.files)

    def measure_done(self, name: str, image: Path) -> None:
        """Measure a volume that is done, where no table says what it measures."""
        if name not in self.cases:
            labelmap = read_labelmap(self.path / f"{name}{_ENDING}")
            self._measure(name, labelmap, read_volume(image))

    def keep(
        self,
        name: str,
        digest: str,
        image: Volume,
        masks: Mapping[str, Path],
        refined: Labelmap,
        others: Mapping[str, Labelmap | None],
    ) -> None:
        """Write the label maps of a volume, and tables and origin with it.

        Args:
            name: Of the volume.
            digest: Of its image.
            image: The image.
            masks: Files of its given organs, by name.
            refined: Its label map.
            others: Those of specialist and SAM by these names; None where there is none.

        Raises:
            StorageError: When the folder cannot be written, or another program has written to it.
        """
        wanted: dict[str, Labelmap | None] = {f"{name}{_ENDING}": refined}
        if self.predictions:
            wanted |= {f"{name}.{source}{_ENDING}": labels for source, labels in others.items()}
        files = []
        self._require_alone()
        for file, labels in wanted.items():
            if labels is not None:
                write_labelmap(labels, self.path / file)
                files.append(file)
        self._measure(name, refined, image)
        case = CaseOrigin(
            made_by="ai",
            run=self.run.run_id,
            round=self.round,
            image_sha256=digest,
            organs={organ: digest_of_image(mask) for organ, mask in masks.items()},
            files=tuple(files),
        )
        written = {file: sha256_of(self.path / file) for file in files}
        self.origin = self.origin.model_copy(
            update={
                "cases": {**self.origin.cases, name: case},
                "files": {**self.origin.files, **written},
            }
        )
        self.write()

    def note_failure(self, name: str, reason: str) -> None:
        """Write to the tables why a volume could not be segmented."""
        self.cases[name] = dict.fromkeys(CASE_COLUMNS, "") | {
            "case": name,
            "state": f"failed: {reason}",
        }
        self.lesions.pop(name, None)
        self.write()

    def write(self) -> None:
        """Write tables and origin as they are by now; the origin comes last.

        Raises:
            StorageError: When the folder cannot be written, or another program has written to it.
        """
        self._require_alone()
        lesions = [row for rows in self.lesions.values() for row in rows]
        write_tables(self.path, self.targets, self.cases.values(), lesions)
        tables = {name: sha256_of(self.path / name) for name in (CASES, LESIONS)}
        self.origin = self.origin.model_copy(
            update={"files": {**self.origin.files, **tables}, "written": now()}
        )
        write_origin(self.path, self.origin)
        self.on_disk = self.origin

    def unmeasured(self) -> list[str]:
        """Return the volumes without a row, for the tables were changed or lost."""
        return sorted(self.origin.cases.keys() - self.cases.keys())

    def read_rows(self) -> None:
        """Take over what the tables of an earlier call measure, if nobody has changed them."""
        if not are_as_written(self.path, [CASES, LESIONS], self.origin.files):
            return
        for row in read_table(self.path / CASES):
            if row["state"] == _SEGMENTED:
                self.cases[row["case"]] = dict(row)
        for row in read_table(self.path / LESIONS):
            self.lesions.setdefault(row["case"], []).append(dict(row))

    def _measure(self, name: str, labelmap: Labelmap, image: Volume) -> None:
        facts = {
            "case": name,
            "state": _SEGMENTED,
            "made_by": "ai",
            "run": self.run.run_id,
            "round": self.round,
        }
        self.cases[name], self.lesions[name] = measured_rows(labelmap, image, self.targets, facts)

    def _require_alone(self) -> None:
        """Make sure that no other program segments into the folder, whose rows would be lost."""
        if read_origin(self.path) != self.on_disk:
            msg = (
                f"Another program has written to {self.path} meanwhile; give the command again "
                "when it is done, or another folder."
            )
            raise StorageError(msg)


def open_segmented_folder(
    path: Path,
    run: RunFolder,
    round_number: int,
    project: Project,
    volumes: Collection[str],
    *,
    predictions: bool,
    replace: bool,
) -> SegmentedFolder:
    """Look at what an earlier call has left in a folder, which need not be there.

    Args:
        path: The folder.
        run: That segments into it.
        round_number: Whose networks segment.
        project: Of the run.
        volumes: Names of those that come.
        predictions: As of `SegmentedFolder`.
        replace: Whether files that this program did not write may be replaced, or lie beside those
            that it writes.

    Raises:
        FilesThereError: When files are in the way that this program did not write, or the folder
            holds label maps or images and no call has written to it yet.
        StorageError: When the folder is one of the project, has label maps of other targets, or
            cannot be read, or two volumes would share a file.
    """
    names = [name for volume in volumes for name in _files(volume, predictions=predictions)]
    before = check_place(project, path, FORMAT, [*names, CASES, LESIONS], replace=replace)
    if before is None and not replace:
        _refuse_others(path)
    _refuse_shared(volumes, {} if before is None else before.cases, predictions=predictions)
    runs = {} if before is None else before.runs
    origin = Origin(
        format=FORMAT,
        aslseg=aslseg.__version__,
        written=now(),
        targets=project.targets,
        runs={**runs, run.run_id: run_origin(run, [round_number])},
        cases={} if before is None else before.cases,
        files={} if before is None else before.files,
    )
    folder = SegmentedFolder(
        path, run, round_number, project.targets, predictions, origin, on_disk=before
    )
    folder.read_rows()
    if before is not None and before.runs.get(run.run_id) != origin.runs[run.run_id]:
        kept = {name: case for name, case in origin.cases.items() if case.run != run.run_id}
        folder.origin = origin.model_copy(update={"cases": kept})
    return folder


def _refuse_others(path: Path) -> None:
    """Refuse a folder that holds label maps or images already, as hand-drawn ones."""
    files = sorted(path.iterdir()) if path.is_dir() else []
    others = [one.name for one in files if suffix_of(one) and not one.name.startswith(".")]
    if others:
        many = f" and {len(others) - 1} more files" if len(others) > 1 else ""
        msg = (
            f"{path} holds {others[0]}{many}, which this program did not segment, and AI label "
            "maps would lie among them unnoticed; choose another folder, or let it be so (--force)."
        )
        raise FilesThereError(msg)


def _refuse_shared(
    volumes: Collection[str], earlier: Mapping[str, CaseOrigin], *, predictions: bool
) -> None:
    """Refuse volumes that would be written to one file, as `a` with `a.specialist` would."""
    kept = [name for name in earlier if name not in volumes]
    owners = {name_key(file): name for name in kept for file in earlier[name].files}
    for volume in volumes:
        for file in _files(volume, predictions=predictions):
            owner = owners.setdefault(name_key(file), volume)
            if owner != volume:
                msg = (
                    f"{owner} and {volume} would both be written to {file}; rename one of the "
                    "images, or segment them into two folders."
                )
                raise StorageError(msg)


def _files(name: str, *, predictions: bool) -> list[str]:
    """Return the files that a volume may get."""
    others = ("specialist", "sam") if predictions else ()
    return [f"{name}{_ENDING}", *(f"{name}.{source}{_ENDING}" for source in others)]


def digest_if_readable(path: Path) -> str:
    """Return the digest of an image; empty when it cannot be read, which is told later."""
    try:
        return digest_of_image(path)
    except (ImageError, OSError):
        return ""
