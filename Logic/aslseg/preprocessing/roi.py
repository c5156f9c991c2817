"""The region of interest (ROI) of a stage, and the way back to the volume's voxels.

An ROI is a crop around the parent target (or the whole image), resampled to the stage's working
pixel and with normalised intensities, on the volume's axial grid. ROIs are plain arrays on disk,
memory-mapped, so that memory does not grow with the number of volumes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from aslseg.config import SpecialistConfig
from aslseg.data.masks import BoundingBox, box_of
from aslseg.data.orientation import UNTURNED, Turn, to_axial
from aslseg.data.volume import Float32, Labelmap, Mask, Shape3, Volume, zeros
from aslseg.errors import StorageError
from aslseg.preprocessing.intensity import IntensityScale, organ_scale, window_scale
from aslseg.reading import read_object
from aslseg.storage import storage_errors, write_json_atomic
from aslseg.targets import CascadeStage, Target, region_mask

IGNORED = 255
"""Class number of pixels whose label is in doubt: no loss counts them, no patch seeks them."""


NO_LIMITS = (-1e30, 1e30)


_SLICES_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Roi:
    """The part of a volume that is the input of one stage.

    Attributes:
        image: (d, h, w) float32, normalised, beyond `limits` too: training changes intensities
            before they are cut off.
        parent: (d, h, w) float32 in [0, 1], the mask of the parent target; None when there is none.
        labels: (d, h, w) uint8 class numbers of the stage, `IGNORED` where the label is in doubt;
            None for a case without labels.
        box: The crop, in voxels of the axial grid.
        volume_shape: (D, H, W) of the axial grid.
        neighbour: Distance in slices of the neighbours that are given as channels.
        turn: From the volume as it was given to its axial grid.
        limits: Lowest and highest intensity that a network is given.
    """

    image: Float32
    parent: Float32 | None
    labels: NDArray[np.uint8] | None
    box: BoundingBox
    volume_shape: Shape3
    neighbour: int
    turn: Turn = UNTURNED
    limits: tuple[float, float] = NO_LIMITS

    @property
    def inputs(self) -> Float32:
        """(C, d, h, w): the image within its limits, and the parent mask where there is one."""
        image = np.clip(self.image, *self.limits)
        return np.stack([image] if self.parent is None else [image, self.parent])


def build_roi(
    volume: Volume,
    stage: CascadeStage,
    settings: SpecialistConfig,
    *,
    parent: Mask | None = None,
    labels: Labelmap | None = None,
    ignored: Mask | None = None,
    targets: tuple[Target, ...] = (),
) -> Roi:
    """Crop, normalise and resample a volume for a stage.

    Args:
        volume: The image.
        stage: Its targets and their parent.
        settings: Working pixel, window, margin, neighbours.
        parent: (D, H, W) mask of the parent target; required if the stage has one.
        labels: Label map on the same grid, for training.
        ignored: (D, H, W) voxels whose label is in doubt.
        targets: All targets, to read regions out of `labels`.

    Raises:
        ValueError: When the stage has a parent and `parent` is missing or empty.
    """
    turn = to_axial(volume.geometry)
    volume = turn.volume(volume)
    parent = None if parent is None else turn.array(parent)
    box, scale = _crop_and_scale(volume, stage, settings, parent)
    spacing = volume.geometry.spacing_mm
    shape = _working_shape(box, spacing, settings)
    classes = None
    if labels is not None:
        classes = turn.array(_classes(labels, ignored, stage, targets))[box.slices]
    return Roi(
        image=resample(volume.voxels[box.slices], shape, "linear", scale.normalised),
        parent=None if parent is None else resample(parent[box.slices], shape, "linear"),
        labels=None if classes is None else resample(classes, shape, "nearest").astype(np.uint8),
        box=box,
        volume_shape=volume.geometry.shape,
        neighbour=max(1, round(settings.roi.context_mm / spacing[0])),
        turn=turn,
        limits=scale.limits(float(volume.voxels.min()), float(volume.voxels.max())),
    )


def to_volume(probability: Float32 | Sequence[Float32], roi: Roi) -> Float32:
    """Resample class probabilities of an ROI to the voxels of its volume.

    Args:
        probability: (C, d, h, w), or C arrays (d, h, w).
        roi: That they belong to.

    Returns:
        (C, D, H, W) float32, zero outside of the ROI's box.
    """
    size, back = tuple(part.stop - part.start for part in roi.box.slices), roi.turn.inverse
    result = zeros((len(probability), *back.shape(roi.volume_shape)))
    for channel, values in zip(result, probability, strict=True):
        resample(values, size, "linear", out=roi.turn.array(channel)[roi.box.slices])
    return result


def from_volume(values: NDArray[np.generic], roi: Roi) -> Float32:
    """Resample an array on the volume's voxels to an ROI: (D, H, W) -> (d, h, w) float32."""
    return resample(roi.turn.array(values)[roi.box.slices], roi.image.shape, "linear")


def _as_float(values: NDArray[Any]) -> Float32:
    return values.astype(np.float32, copy=False)


def resample(
    values: NDArray[np.generic],
    shape: tuple[int, ...],
    how: str,
    convert: Callable[[NDArray[Any]], Float32] = _as_float,
    out: Float32 | None = None,
) -> Float32:
    """Resample a (d, h, w) array onto another grid over the same extent.

    A few slices are converted and resampled at a time: of a whole volume no copy is made.

    Args:
        values: Any real dtype.
        shape: (d, h, w) of the result.
        how: `linear` (with smoothing where it shrinks in plane) or `nearest`.
        convert: Makes float32 of some slices.
        out: Where the result is written.
    """
    if how == "nearest":
        tensor = torch.from_numpy(_writable(convert(values)))
        found = F.interpolate(tensor[None, None], tuple(shape), mode="nearest-exact")[0, 0]
        return _written(_numpy(found), out)
    if out is None and convert is _as_float and values.shape == tuple(shape):
        return np.ascontiguousarray(values, np.float32)
    if shape[0] == values.shape[0]:
        return _in_plane(values, shape, convert, out)
    flat = torch.from_numpy(_in_plane(values, (len(values), *shape[1:]), convert, None))
    found = F.interpolate(flat[None, None], tuple(shape), mode="trilinear", align_corners=False)
    return _written(_numpy(found[0, 0]), out)


def _in_plane(
    values: NDArray[np.generic],
    shape: tuple[int, ...],
    convert: Callable[[NDArray[Any]], Float32],
    out: Float32 | None,
) -> Float32:
    """Resample each slice, linearly with smoothing where it shrinks."""
    result = zeros(shape) if out is None else out
    for first in range(0, len(values), _SLICES_AT_ONCE):
        part = slice(first, first + _SLICES_AT_ONCE)
        slices = np.ascontiguousarray(convert(values[part]))
        if slices.shape[1:] != tuple(shape[1:]):
            tensor = torch.from_numpy(_writable(slices))[:, None]
            slices = F.interpolate(
                tensor, tuple(shape[1:]), mode="bilinear", align_corners=False, antialias=True
            )[:, 0].numpy()
        result[part] = slices
    return result


def _writable(values: Float32) -> Float32:
    """Return an array that torch takes without a warning: a copy of one that is only read."""
    return np.require(values, requirements=["C", "W"])


def _written(values: Float32, out: Float32 | None) -> Float32:
    if out is None:
        return values
    out[...] = values
    return out


def slice_channels(
    roi: Roi, k: int, settings: SpecialistConfig, *, within_limits: bool = True
) -> Float32:
    """Return slice `k` with its neighbours, then the parent mask.

    Args:
        roi: Of any depth; beyond its ends the last slice is repeated.
        k: Slice of the ROI.
        settings: Number of neighbours.
        within_limits: Whether intensities are cut off at the ROI's limits.

    Returns:
        (C, h, w) float32; the first `image_channels` are intensities.
    """
    reach = settings.roi.context_slices
    wanted = k + roi.neighbour * np.arange(-reach, reach + 1)
    images = np.stack([roi.image[n] for n in np.clip(wanted, 0, len(roi.image) - 1)])
    if within_limits:
        np.clip(images, *roi.limits, out=images)
    return images if roi.parent is None else np.concatenate([images, roi.parent[k][None]])


def image_channels(settings: SpecialistConfig) -> int:
    """Return how many leading channels are intensities."""
    return 1 if settings.network.dimensions == 3 else 2 * settings.roi.context_slices + 1


def save_roi(roi: Roi, folder: Path) -> None:
    """Write an ROI as memory-mappable arrays, in place of whatever the folder held.

    Raises:
        StorageError: When the disk is full or the folder cannot be written.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("image", "parent", "labels"):
            array, path = getattr(roi, name), folder / f"{name}.npy"
            path.unlink(missing_ok=True)
            if array is not None:
                np.save(path, array.astype(np.uint8 if name == "labels" else "f4"))
    facts = {
        "start": roi.box.start,
        "stop": roi.box.stop,
        "shape": roi.volume_shape,
        "neighbour": roi.neighbour,
        "turn": asdict(roi.turn),
        "limits": roi.limits,
    }
    write_json_atomic(folder / "roi.json", facts)


def load_roi(folder: Path) -> Roi:
    """Open an ROI that `save_roi` wrote, without reading its arrays into memory.

    Raises:
        StorageError: When a file of it is missing or damaged.
    """
    remedy = f"delete the folder {folder} and resume the run"
    facts = read_object(folder / "roi.json", StorageError, remedy)
    try:
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("image", "parent", "labels")
            if (folder / f"{name}.npy").exists()
        }
        d, h, w = map(int, facts["shape"])
        first, last = (tuple(map(int, facts[name])) for name in ("start", "stop"))
        low, high = map(float, facts["limits"])
        return Roi(
            image=arrays["image"],
            parent=arrays.get("parent"),
            labels=arrays.get("labels"),
            box=BoundingBox((first[0], first[1], first[2]), (last[0], last[1], last[2])),
            volume_shape=(d, h, w),
            neighbour=int(facts["neighbour"]),
            turn=Turn(**{name: tuple(values) for name, values in facts["turn"].items()}),
            limits=(low, high),
        )
    except (EOFError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        msg = f"{folder} holds no whole view ({error}); {remedy}."
        raise StorageError(msg) from error


def _crop_and_scale(
    volume: Volume, stage: CascadeStage, settings: SpecialistConfig, parent: Mask | None
) -> tuple[BoundingBox, IntensityScale]:
    """Return the crop, and the scale of its intensities."""
    if stage.inside is None:
        whole = BoundingBox((0, 0, 0), volume.geometry.shape)
        return whole, window_scale(settings.roi.window_hu)
    box = None
    if parent is not None:
        margin_mm, spacing_mm = settings.roi.margin_mm, volume.geometry.spacing_mm
        box = box_of(parent, margin_mm=margin_mm, spacing_mm=spacing_mm)
    if parent is None or box is None:
        msg = f"Stage {stage.name} needs a mask of '{stage.inside.name}' that is not empty."
        raise ValueError(msg)
    least = settings.roi.least_scale_hu
    return box, organ_scale(volume.voxels[box.slices], parent[box.slices], least)


def _working_shape(
    box: BoundingBox, spacing_mm: tuple[float, float, float], settings: SpecialistConfig
) -> Shape3:
    depth, height, width = (part.stop - part.start for part in box.slices)
    pixel = settings.roi.pixel_mm
    if settings.network.dimensions == 3:
        depth = max(1, round(depth * spacing_mm[0] / settings.roi.slice_mm))
    rows = max(1, round(height * spacing_mm[1] / pixel))
    return depth, rows, max(1, round(width * spacing_mm[2] / pixel))


def _classes(
    labels: Labelmap, ignored: Mask | None, stage: CascadeStage, targets: tuple[Target, ...]
) -> NDArray[np.uint8]:
    classes = np.zeros(labels.labels.shape, np.uint8)
    for number, target in enumerate(stage.targets, start=1):
        classes[region_mask(labels.labels, target, targets)] = number
    if ignored is not None:
        classes[ignored] = IGNORED
    return classes


def _numpy(tensor: Tensor) -> Float32:
    return np.ascontiguousarray(tensor.numpy(), dtype=np.float32)
