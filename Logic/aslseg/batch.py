"""New volumes segmented with a trained run, one after the other, into a folder.

The folder gets a label map for each volume, `origin.json`, `cases.csv` and `lesions.csv`, all of
them after each volume, so that it can be stopped at any time and gone on with later: what the same
weights have made of the same image, and nobody has changed since, is not made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import aslseg
from aslseg.data.images import (
    read_geometry,
    read_labelmap,
    read_volume,
    stem_of,
    write_labelmap,
)
from aslseg.data.volume import Labelmap, Volume, give_back_memory
from aslseg.errors import AslsegError, CancelledError, ImageError, RunError, StorageError
from aslseg.events import Event, Monitor, Progress
from aslseg.export.origin import (
    CaseOrigin,
    Origin,
    are_as_written,
    now,
    read_origin,
    run_origin,
    write_origin,
)
from aslseg.export.staging import check_place
from aslseg.export.tables import CASE_COLUMNS, CASES, LESIONS, Row, measured_rows, write_tables
from aslseg.failures import failure_of
from aslseg.inference.prediction_cache import (
    LabelMaps,
    PredictionCache,
    open_predictions,
    unchanged,
)
from aslseg.project.organ_masks import find_organ_masks, volume_with_organs
from aslseg.project.pairing import label_maps_in, volumes_in
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder, best_round
from aslseg.project.run_tables import read_table
from aslseg.project.unlike_labelled import read_intensities, warn_of_unlike
from aslseg.project.windows import Intensities
from aslseg.storage import sha256_of, sweep
from aslseg.targets import Target

if TYPE_CHECKING:
    from aslseg.inference.ensemble import Ensemble

    LoadNetworks = Callable[[RunFolder, Monitor, str | None], Ensemble]

FORMAT = "segmented volumes"
_ENDING = ".nii.gz"
_TASK = "Segmenting volumes"
_SEGMENTED = "segmented"


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """How volumes are segmented.

    Attributes:
        predictions: Whether to write `<name>.specialist.nii.gz` and `<name>.sam.nii.gz` too.
        replace: Whether files that this program did not write may be replaced.
        device: Where to compute; what the run's settings say when None.
        organs: Masks that are used in place of predicted organs: by name of the organ a folder, or
            the file of the only image, as for `find_organ_masks`.
    """

    predictions: bool = False
    replace: bool = False
    device: str | None = None
    organs: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FolderSummary:
    """What became of the volumes.

    Attributes:
        folder: With the label maps.
        done: Names of volumes that were segmented now.
        skipped: Names of those that were done already.
        failed: Why others could not be segmented, by name.
    """

    folder: Path
    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: Mapping[str, str]


@dataclass
class _Batch:
    """Volumes under way.

    Attributes:
        run: That segments.
        round: Its best round when the folder was opened, whose networks segment.
        targets: Of its project.
        output: The folder of label maps.
        options: How.
        masks: Files of given organs, by name of the volume and of the organ.
        origin: Of what is in the folder by now.
        on_disk: The same as it was read or written last; None before anything was.
        known: What the organs look like in the run's labelled cases.
        cases: Rows of the table of cases, by name.
        lesions: Rows of the table of lesions, by name.
        load: Loads the networks, when the first volume needs them.
        predictions: Those of the run that are on disk; None where none are kept.
        ensemble: The networks, once they are loaded.
    """

    run: RunFolder
    round: int
    targets: tuple[Target, ...]
    output: Path
    options: FolderOptions
    masks: Mapping[str, Mapping[str, Path]]
    origin: Origin
    on_disk: Origin | None
    known: Sequence[Intensities]
    cases: dict[str, Row] = field(default_factory=dict)
    lesions: dict[str, list[Row]] = field(default_factory=dict)
    load: LoadNetworks | None = None
    predictions: PredictionCache | None = None
    ensemble: Ensemble | None = None


def segment_folder(
    run: RunFolder,
    images: Path | Sequence[Path],
    output: Path,
    options: FolderOptions | None = None,
    *,
    monitor: Monitor | None = None,
    load: LoadNetworks | None = None,
) -> FolderSummary:
    """Segment many volumes with the best round of a run.

    Each label map lies exactly on its image and is called `<image name>.nii.gz`. A volume that
    cannot be segmented does not stop the others: its reason is in the summary and in the column
    `state` of `cases.csv`, and it is tried again the next time.

    Args:
        run: With a finished round.
        images: Image files, DICOM folders, and folders of both.
        output: Where label maps go.
        options: How.
        monitor: Gets progress over all volumes, with the time left by their numbers of voxels; can
            stop between two parts of the work on a volume.
        load: Loads the networks; None is `load_ensemble`. They are loaded when the first volume
            comes whose prediction is not on disk.

    Raises:
        ImageError: When there is no image, one does not exist, or two have one name.
        FilesThereError: When files are in the way that this program did not write.
        StorageError: When the folder cannot be written.
        ProjectError: When a folder of organ masks has none of any volume.
        RunError: When the run has no finished round, or has finished another one when its networks
            are loaded.
        WeightsError: When its weights are damaged.
        CancelledError: When asked to stop; what is done stays.
    """
    monitor, options = monitor or Monitor(), options or FolderOptions()
    volumes = _named(images, output)
    _tell_left_out(images, monitor)
    sweep(output)
    batch = _opened(run, volumes, output, options)
    digests = {
        name: _digest(path)
        for name, path in monitor.track(list(volumes.items()), "Comparing volumes")
    }
    skipped = [name for name in volumes if _is_done(batch, name, digests[name])]
    for name in skipped:
        _take_rows(batch, name, volumes[name])
    left = {name: path for name, path in volumes.items() if name not in skipped}
    failed: dict[str, str] = {}
    if left:
        batch.load, batch.predictions = load, open_predictions(run, options.device)
        _require_same_round(batch)
    progress = _FolderProgress(monitor, [_size(path) for path in left.values()])
    for name, path in left.items():
        reason = _tried(batch, name, path, progress)
        if reason:
            failed[name] = reason
        give_back_memory()
        progress.next()
    _write_folder(batch)
    _tell_unmeasured(batch, monitor)
    done = tuple(name for name in left if name not in failed)
    return FolderSummary(output, done, tuple(skipped), failed)


def _named(images: Path | Sequence[Path], output: Path) -> dict[str, Path]:
    """Find the volumes, by the name of their label map."""
    found: dict[str, Path] = {}
    for path in _listed(images):
        if not path.exists():
            msg = f"{path} does not exist; give the path of an image or of a folder of images."
            raise ImageError(msg)
        inner = volumes_in(path) if path.is_dir() else [path]
        if not inner:
            msg = f"{path} holds no image; choose a folder of images or of DICOM folders."
            raise ImageError(msg)
        for image in inner:
            if image.resolve().parent == output.resolve():
                msg = f"{image} lies where label maps shall go; choose another folder for these."
                raise ImageError(msg)
            other = found.setdefault(stem_of(image), image)
            if other != image:
                msg = f"{other} and {image} have the same name; segment them into two folders."
                raise ImageError(msg)
    return found


def _tell_left_out(images: Path | Sequence[Path], monitor: Monitor) -> None:
    """Say which files of folders are no volumes by their names; one of another name may miss."""
    folders = [path for path in _listed(images) if path.is_dir()]
    names = [path.name for folder in folders for path in label_maps_in(folder)]
    if names:
        they = "it is named as a label map" if len(names) == 1 else "they are named as label maps"
        monitor.warn(
            f"Left out, for {they}: {', '.join(names)}. Give the file itself to segment it."
        )


def _tell_unmeasured(batch: _Batch, monitor: Monitor) -> None:
    """Say which label maps in the folder have no row, for its tables were changed or lost."""
    names = sorted(batch.origin.cases.keys() - batch.cases.keys())
    if names:
        monitor.warn(
            f"{CASES} and {LESIONS} were changed or lost, and have no rows of earlier volumes now: "
            f"{', '.join(names)}. Give these again to measure them; their label maps stay."
        )


def _listed(images: Path | Sequence[Path]) -> Sequence[Path]:
    return [images] if isinstance(images, Path) else images


def _opened(
    run: RunFolder, volumes: Mapping[str, Path], output: Path, options: FolderOptions
) -> _Batch:
    """Look at what an earlier call has left in the folder."""
    number = best_round(run)
    project = open_project(run.path.parents[1])
    names = [name for volume in volumes for name in _files(volume, options)]
    before = check_place(project, output, FORMAT, [*names, CASES, LESIONS], replace=options.replace)
    runs = {} if before is None else before.runs
    origin = Origin(
        format=FORMAT,
        aslseg=aslseg.__version__,
        written=now(),
        targets=project.targets,
        runs={**runs, run.run_id: run_origin(run, [number])},
        cases={} if before is None else before.cases,
        files={} if before is None else before.files,
    )
    masks, known = _masks_of(volumes, options), read_intensities(run.path)
    batch = _Batch(run, number, project.targets, output, options, masks, origin, before, known)
    _read_rows(batch)
    if before is not None and before.runs.get(run.run_id) != origin.runs[run.run_id]:
        kept = {name: case for name, case in origin.cases.items() if case.run != run.run_id}
        batch.origin = origin.model_copy(update={"cases": kept})
    return batch


def _masks_of(volumes: Mapping[str, Path], options: FolderOptions) -> dict[str, dict[str, Path]]:
    """Find the given masks of organs, by name of the volume and of the organ."""
    masks: dict[str, dict[str, Path]] = {name: {} for name in volumes}
    for organ, source in options.organs.items():
        for name, path in find_organ_masks(volumes, organ, source).items():
            masks[name][organ] = path
    return masks


def _files(name: str, options: FolderOptions) -> list[str]:
    """Return the files that a volume may get."""
    others = ("specialist", "sam") if options.predictions else ()
    return [f"{name}{_ENDING}", *(f"{name}.{source}{_ENDING}" for source in others)]


def _read_rows(batch: _Batch) -> None:
    """Take over what the tables of an earlier call measure, if nobody has changed them."""
    if not are_as_written(batch.output, [CASES, LESIONS], batch.origin.files):
        return
    for row in read_table(batch.output / CASES):
        if row["state"] == _SEGMENTED:
            batch.cases[row["case"]] = dict(row)
    for row in read_table(batch.output / LESIONS):
        batch.lesions.setdefault(row["case"], []).append(dict(row))


def _digest(path: Path) -> str:
    """Return the digest of an image; empty when it cannot be read, which is told later."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _is_done(batch: _Batch, name: str, digest: str) -> bool:
    case = batch.origin.cases.get(name)
    if case is None or not digest or case.image_sha256 != digest:
        return False
    is_same = (case.run, case.round) == (batch.run.run_id, batch.round)
    masks = {organ: _digest(mask) for organ, mask in batch.masks[name].items()}
    has_all = not batch.options.predictions or len(case.files) > 1
    is_same = is_same and case.organs == masks
    return is_same and has_all and are_as_written(batch.output, case.files, batch.origin.files)


def _take_rows(batch: _Batch, name: str, path: Path) -> None:
    """Measure a volume that is done, where no table says what it measures."""
    if name not in batch.cases:
        labelmap = read_labelmap(batch.output / f"{name}{_ENDING}")
        _measure(batch, name, labelmap, read_volume(path))


def _size(path: Path) -> int:
    """Return the number of voxels of an image; 0 where it cannot be read."""
    try:
        k, j, i = read_geometry(path).shape
    except (AslsegError, OSError):
        return 0
    return k * j * i


def _tried(batch: _Batch, name: str, path: Path, progress: _FolderProgress) -> str:
    """Segment a volume; return why it could not be, or nothing."""
    try:
        digest = sha256_of(path)
        image = volume_with_organs(read_volume(path), batch.masks[name], batch.targets)
        found = _predicted(batch, image, progress.monitor)
        warn_of_unlike(progress.monitor, name, image, found.refined, batch.targets, batch.known)
        _keep(batch, name, digest, image, found)
    except (CancelledError, StorageError, RunError):
        raise
    except Exception as error:  # one volume's edge: the others go on
        reason = failure_of(error, f"segmenting {name}").in_words
        progress.monitor.warn(f"{name} could not be segmented: {reason}")
        batch.cases[name] = dict.fromkeys(CASE_COLUMNS, "") | {
            "case": name,
            "state": f"failed: {reason}",
        }
        batch.lesions.pop(name, None)
        _write_folder(batch)
        return reason
    return ""


def _predicted(batch: _Batch, image: Volume, monitor: Monitor) -> LabelMaps:
    """Return the label maps of a volume: from disk, else from the networks."""
    stored = None if batch.predictions is None else batch.predictions.of(image)
    maps = None if stored is None else stored.label_maps(image.geometry)
    if maps is not None:
        return maps
    found = _networks(batch, monitor).segment(image, monitor)
    maps = LabelMaps(found.specialist, found.sam, found.refined)
    if stored is not None and batch.predictions is not None:
        stored.keep_label_maps(maps)
    return maps


def _require_same_round(batch: _Batch) -> None:
    """Make sure that what is loaded is of the round that label maps are said to be of.

    Raises:
        RunError: When the run has finished another round meanwhile.
    """
    if best_round(batch.run) != batch.round:
        msg = (
            f"Run '{batch.run.run_id}' has finished another round meanwhile; give the command "
            "again to segment with that one."
        )
        raise RunError(msg)


def _networks(batch: _Batch, monitor: Monitor) -> Ensemble:
    """Load the networks, once; imported here, as torch takes seconds that stored ones spare."""
    if batch.ensemble is None:
        from aslseg.inference.loading import load_ensemble

        load, device = batch.load or load_ensemble, batch.options.device
        ensemble = load(batch.run, monitor, device)
        _require_same_round(batch)
        batch.ensemble = ensemble
        batch.predictions = unchanged(batch.predictions, batch.run, device)
    return batch.ensemble


def _keep(batch: _Batch, name: str, digest: str, image: Volume, found: LabelMaps) -> None:
    """Write the label maps of a volume, and tables and origin with it."""
    wanted: list[tuple[str, Labelmap | None]] = [(f"{name}{_ENDING}", found.refined)]
    if batch.options.predictions:
        others = (("specialist", found.specialist), ("sam", found.sam))
        wanted += [(f"{name}.{source}{_ENDING}", labels) for source, labels in others]
    files = []
    _require_alone(batch)
    for file, labels in wanted:
        if labels is not None:
            write_labelmap(labels, batch.output / file)
            files.append(file)
    _measure(batch, name, found.refined, image)
    case = CaseOrigin(
        made_by="ai",
        run=batch.run.run_id,
        round=batch.round,
        image_sha256=digest,
        organs={organ: sha256_of(mask) for organ, mask in batch.masks[name].items()},
        files=tuple(files),
    )
    written = {file: sha256_of(batch.output / file) for file in files}
    batch.origin = batch.origin.model_copy(
        update={
            "cases": {**batch.origin.cases, name: case},
            "files": {**batch.origin.files, **written},
        }
    )
    _write_folder(batch)


def _measure(batch: _Batch, name: str, labelmap: Labelmap, image: Volume) -> None:
    facts = {
        "case": name,
        "state": _SEGMENTED,
        "made_by": "ai",
        "run": batch.run.run_id,
        "round": batch.round,
    }
    batch.cases[name], batch.lesions[name] = measured_rows(labelmap, image, batch.targets, facts)


def _write_folder(batch: _Batch) -> None:
    """Write tables and origin as they are by now; the origin comes last."""
    _require_alone(batch)
    lesions = [row for rows in batch.lesions.values() for row in rows]
    write_tables(batch.output, batch.targets, batch.cases.values(), lesions)
    tables = {name: sha256_of(batch.output / name) for name in (CASES, LESIONS)}
    batch.origin = batch.origin.model_copy(
        update={"files": {**batch.origin.files, **tables}, "written": now()}
    )
    write_origin(batch.output, batch.origin)
    batch.on_disk = batch.origin


def _require_alone(batch: _Batch) -> None:
    """Make sure that no other program segments into the folder, whose rows would be lost.

    Raises:
        StorageError: When one has written to it.
    """
    if read_origin(batch.output) != batch.on_disk:
        msg = (
            f"Another program has written to {batch.output} meanwhile; give the command again when "
            "it is done, or another folder."
        )
        raise StorageError(msg)


class _FolderProgress:
    """Tells how far all volumes are, also while one is worked on.

    The time left is that of the voxels that are left, at the speed of those done.

    Args:
        monitor: Is told.
        sizes: Number of voxels of each volume.
    """

    def __init__(self, monitor: Monitor, sizes: Sequence[int]) -> None:
        self.monitor = replace(monitor, listener=self._listen)
        self._tell: Callable[[Event], None] = monitor.listener
        self._sizes = sizes
        self._number = 0
        self._began = self._volume_began = time.monotonic()
        self._report()

    def next(self) -> None:
        """Say that a volume is finished."""
        self._number += 1
        self._volume_began = time.monotonic()
        self._report()
        self.monitor.check()

    def _listen(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._report()
        else:
            self._tell(event)

    def _report(self) -> None:
        self._tell(Progress(_TASK, self._number, len(self._sizes), self._seconds_left()))

    def _seconds_left(self) -> float | None:
        done, left = sum(self._sizes[: self._number]), self._sizes[self._number :]
        if not left:
            return 0.0
        if not done:
            return None
        pace = (self._volume_began - self._began) / done
        current = max(pace * left[0] - (time.monotonic() - self._volume_began), 0.0)
        return current + pace * sum(left[1:])
