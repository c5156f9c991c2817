"""New volumes segmented with a trained run, one after the other, into a folder.

What the same weights have made of the same image, and nobody has changed since, is not made again
(`export.segmented_folder`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aslseg.data.images import (
    digest_of_image,
    read_geometry,
    read_volume,
    stem_of,
)
from aslseg.data.volume import Volume, give_back_memory
from aslseg.errors import AslsegError, CancelledError, ImageError, RunError, StorageError
from aslseg.events import Event, Monitor, Progress
from aslseg.export.segmented_folder import (
    SegmentedFolder,
    digest_if_readable,
    open_segmented_folder,
)
from aslseg.export.tables import CASES, LESIONS
from aslseg.failures import failure_of
from aslseg.inference.prediction_cache import (
    LabelMaps,
    PredictionCache,
    open_predictions,
    unchanged,
)
from aslseg.leftovers import sweep
from aslseg.project.case import name_key
from aslseg.project.organ_masks import find_organ_masks, volume_with_organs
from aslseg.project.pairing import (
    label_maps_in,
    left_out_in_words,
    passed_over_by_volumes,
    volumes_in,
)
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder, best_round
from aslseg.project.unlike_labelled import read_intensities, warn_of_unlike
from aslseg.project.windows import Intensities

if TYPE_CHECKING:
    from aslseg.inference.ensemble import Ensemble

    LoadNetworks = Callable[[RunFolder, Monitor, str | None], Ensemble]

_TASK = "Segmenting volumes"


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
        folder: Of the label maps; its round is the best one when it was opened.
        device: Where to compute; what the run's settings say when None.
        masks: Files of given organs, by name of the volume and of the organ.
        known: What the organs look like in the run's labelled cases.
        load: Loads the networks, when the first volume needs them.
        predictions: Those of the run that are on disk; None where none are kept.
        ensemble: The networks, once they are loaded.
    """

    run: RunFolder
    folder: SegmentedFolder
    device: str | None
    masks: Mapping[str, Mapping[str, Path]]
    known: Sequence[Intensities]
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
        StorageError: When the folder cannot be written, or has label maps of other targets.
        ProjectError: When a folder of organ masks has none of any volume.
        RunError: When the run has no finished round, or has finished another one when its networks
            are loaded.
        WeightsError: When its weights are damaged.
        CancelledError: When asked to stop; what is done stays.
    """
    monitor, options = monitor or Monitor(), options or FolderOptions()
    volumes = _named(images, output)
    _tell_left_out(images, output, monitor)
    sweep(output)
    folder = open_segmented_folder(
        output,
        run,
        best_round(run),
        open_project(run.path.parents[1]),
        volumes,
        predictions=options.predictions,
        replace=options.replace,
    )
    masks = _masks_of(volumes, options)
    batch = _Batch(run, folder, options.device, masks, read_intensities(run.path))
    digests = {
        name: digest_if_readable(path)
        for name, path in monitor.track(list(volumes.items()), "Comparing volumes")
    }
    skipped = [name for name in volumes if folder.is_done(name, digests[name], masks[name])]
    for name in skipped:
        folder.measure_done(name, volumes[name])
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
    folder.write()
    _tell_unmeasured(folder, monitor)
    done = tuple(name for name in left if name not in failed)
    return FolderSummary(output, done, tuple(skipped), failed)


def _named(images: Path | Sequence[Path], output: Path) -> dict[str, Path]:
    """Find the volumes, by the name of their label map."""
    found: dict[str, Path] = {}
    keys: dict[str, Path] = {}
    for path in _listed(images):
        if not path.exists():
            msg = f"{path} does not exist; give the path of an image or of a folder of images."
            raise ImageError(msg)
        inner = volumes_in(path) if path.is_dir() else [path]
        if not inner:
            deeper = passed_over_by_volumes(path, (output,))
            remedy = "; choose a folder of images or of DICOM folders."
            msg = f"{path} holds no image" + (f". {deeper}" if deeper else remedy)
            raise ImageError(msg)
        for image in inner:
            if image.resolve().parent == output.resolve():
                msg = f"{image} lies where label maps shall go; choose another folder for these."
                raise ImageError(msg)
            other = keys.setdefault(name_key(stem_of(image)), image)
            if other != image:
                msg = f"{other} and {image} have the same name; segment them into two folders."
                raise ImageError(msg)
            found[stem_of(image)] = image
    return found


def _tell_left_out(images: Path | Sequence[Path], output: Path, monitor: Monitor) -> None:
    """Say which files of folders are no volumes by their names, and what lies too deep in them."""
    folders = [path for path in _listed(images) if path.is_dir()]
    files = [path for folder in folders for path in label_maps_in(folder)]
    if files:
        monitor.warn(f"{left_out_in_words(files)}. Give the file itself to segment it.")
    for folder in folders:
        if deeper := passed_over_by_volumes(folder, (output, *folders)):
            monitor.warn(deeper)


def _tell_unmeasured(folder: SegmentedFolder, monitor: Monitor) -> None:
    """Say which label maps in the folder have no row, for its tables were changed or lost."""
    names = folder.unmeasured()
    if names:
        monitor.warn(
            f"{CASES} and {LESIONS} were changed or lost, and have no rows of earlier volumes now: "
            f"{', '.join(names)}. Give these again to measure them; their label maps stay."
        )


def _listed(images: Path | Sequence[Path]) -> Sequence[Path]:
    return [images] if isinstance(images, Path) else images


def _masks_of(volumes: Mapping[str, Path], options: FolderOptions) -> dict[str, dict[str, Path]]:
    """Find the given masks of organs, by name of the volume and of the organ."""
    masks: dict[str, dict[str, Path]] = {name: {} for name in volumes}
    for organ, source in options.organs.items():
        for name, path in find_organ_masks(volumes, organ, source).items():
            masks[name][organ] = path
    return masks


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
        digest = digest_of_image(path)
        masks, targets = batch.masks[name], batch.folder.targets
        image = volume_with_organs(read_volume(path), masks, targets)
        found = _predicted(batch, image, progress.monitor)
        warn_of_unlike(progress.monitor, name, image, found.refined, targets, batch.known)
        others = {"specialist": found.specialist, "sam": found.sam}
        batch.folder.keep(name, digest, image, masks, found.refined, others)
    except (CancelledError, StorageError, RunError):
        raise
    except Exception as error:  # one volume's edge: the others go on
        reason = failure_of(error, f"segmenting {name}").in_words
        progress.monitor.warn(f"{name} could not be segmented: {reason}")
        batch.folder.note_failure(name, reason)
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
    if best_round(batch.run) != batch.folder.round:
        msg = (
            f"Run '{batch.run.run_id}' has finished another round meanwhile; give the command "
            "again to segment with that one."
        )
        raise RunError(msg)


def _networks(batch: _Batch, monitor: Monitor) -> Ensemble:
    """Load the networks, once; imported here, as torch takes seconds that stored ones spare."""
    if batch.ensemble is None:
        from aslseg.inference.loading import load_ensemble

        load = batch.load or load_ensemble
        ensemble = load(batch.run, monitor, batch.device)
        _require_same_round(batch)
        batch.ensemble = ensemble
        batch.predictions = unchanged(batch.predictions, batch.run, batch.device)
    return batch.ensemble


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
