"""What the header of an image file says, and what no image may say.

Headers are read by this library itself and checked before any voxel is read or memory is taken.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aslseg.data.volume import Shape3
from aslseg.errors import ConfigError, ImageError

MEMORY_SETTING = "ASLSEG_MAX_VOLUME_GIB"

Encoding: TypeAlias = Literal["raw", "gzip", "zlib", "bzip2"]

_DEFAULT_GIB = 1.5  # 3000 slices of 512 x 512 in 16 bits
_LONGEST_AXIS = 32767  # label maps are kept as NIfTI, which counts no further
_SPACING_MM = (0.01, 50.0)
_FARTHEST_MM = 1e5
# The cosine of two axes. Below the first, it is rounding; up to the second, a corner of a 400 mm
# volume moves by less than half a millimetre when the axes are set upright.
_UPRIGHT, _ROUNDED = 1e-4, 1e-3


@dataclass(frozen=True, slots=True)
class Header:
    """Where the voxels of an image are in its file, and where they lie in the patient.

    Attributes:
        path: The image file.
        shape: Number of voxels along (k, j, i).
        dtype: Type of the stored voxels, with their order of bytes.
        ijk_to_ras: (4, 4) affine from (i, j, k, 1) to RAS mm.
        data: The file that holds the voxels, often `path`.
        start: Byte of `data` where the voxels, or the compressed stream with them, begin.
        encoding: How that stream is compressed.
        skip: Unpacked bytes of the stream before the first voxel.
        slope: Factor from stored to true values.
        intercept: Added to true values.
        fields: What else the header says, by name.
    """

    path: Path
    shape: Shape3
    dtype: np.dtype[Any]
    ijk_to_ras: NDArray[np.float64]
    data: Path
    start: int
    encoding: Encoding = "raw"
    skip: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def data_bytes(self) -> int:
        """Length of the unpacked voxels."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_scaled(self) -> bool:
        """Whether true values differ from stored ones."""
        return (self.slope, self.intercept) != (1.0, 0.0)


def refuse(path: Path, what: str, remedy: str = "export it again") -> NoReturn:
    """Say why a file cannot be used.

    Raises:
        ImageError: Always.
    """
    msg = f"{path} {what}; {remedy}."
    raise ImageError(msg)


def shown(text: str) -> str:
    """Return what a header holds as it may stand in a message: quoted, in ASCII, and short."""
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")


def check_name(path: Path) -> None:
    """Refuse a path that is no text: ITK ends the whole program on it, and JSON cannot hold it.

    Raises:
        ImageError: When its bytes are no UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        name = os.fsencode(path).decode("utf-8", "backslashreplace")
        msg = f"{name} has a name that is no UTF-8 text; rename the file or its folder."
        raise ImageError(msg) from None


def scalar_shape(path: Path, sizes: Sequence[int], components: int = 1) -> Shape3:
    """Check that a header describes a 3-D scalar image.

    Args:
        path: The image file.
        sizes: Number of voxels along (i, j, k) and further axes, which have to be of length one.
        components: Values per voxel.

    Returns:
        Number of voxels along (k, j, i).

    Raises:
        ImageError: When it is none, or an axis has no voxel or far too many.
    """
    if components != 1:
        remedy = "export it as a scalar volume, or its segments without overlap"
        refuse(path, f"has {components} values per voxel, one is needed", remedy)
    if len(sizes) < 3 or any(n != 1 for n in sizes[3:]):
        what = f"has {len(sizes)} axes {tuple(sizes)}; a 3-D volume is needed: "
        msg = f"{path} {what}export one of its parts."
        raise ImageError(msg)
    if not all(1 <= n <= _LONGEST_AXIS for n in sizes[:3]):
        refuse(path, f"is damaged: it says that it has {' x '.join(map(str, sizes[:3]))} voxels")
    return int(sizes[2]), int(sizes[1]), int(sizes[0])


def patient_affine(
    path: Path, axes_ras: NDArray[np.float64], origin_ras: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Check where a header places its voxels.

    Args:
        path: The image file.
        axes_ras: (3, 3), one column for each of (i, j, k): the step to the next voxel in RAS mm.
        origin_ras: (3,) centre of the first voxel in RAS mm.

    Returns:
        (4, 4) affine from (i, j, k, 1) to RAS mm; axes that rounding has tilted are set upright.

    Raises:
        ImageError: When that is no place, spacing is beyond 0.01 to 50 mm, or axes are oblique to
            each other.
    """
    if not (np.isfinite(axes_ras).all() and np.isfinite(origin_ras).all()):
        refuse(path, "does not say where its voxels lie (its position holds no numbers)")
    spacing = np.linalg.norm(axes_ras, axis=0)
    check_spacing(path, spacing.tolist())
    if np.abs(origin_ras).max() > _FARTHEST_MM:
        refuse(path, f"lies {np.abs(origin_ras).max() / 1000:.3g} m away from the origin")
    directions = axes_ras / spacing
    tilt = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if tilt > _ROUNDED:
        remedy = "resample it to a grid at right angles"
        refuse(path, "has axes that are not at right angles (gantry tilt or shear)", remedy)
    if tilt > _UPRIGHT:
        left, _, right = np.linalg.svd(directions)
        directions = left @ right
    affine = np.eye(4)
    affine[:3, :3] = axes_ras if tilt <= _UPRIGHT else directions * spacing
    affine[:3, 3] = origin_ras
    return affine


def check_spacing(path: Path, spacing_mm: Sequence[float]) -> None:
    """Refuse distances of voxels that no scanner makes: zero, metres taken for millimetres, NaN.

    Raises:
        ImageError: When one is beyond 0.01 to 50 mm.
    """
    least, most = _SPACING_MM
    if not all(least <= edge <= most for edge in spacing_mm):  # NaN is not within
        edges = " x ".join(f"{edge:.4g}" for edge in spacing_mm)
        what = f"does not say where its voxels lie: no valid spacing ({edges} mm)"
        remedy = f"export it again with a spacing in mm, from {least:g} to {most:g}"
        refuse(path, what, remedy)


def check_memory(path: Path, voxels: int, voxel_bytes: int) -> None:
    """Refuse a volume that would take more memory than is allowed.

    Args:
        path: The image.
        voxels: How many there are.
        voxel_bytes: Bytes of each when it is read.

    Raises:
        ImageError: When it is too large; the setting `ASLSEG_MAX_VOLUME_GIB` raises the limit.
        ConfigError: When that setting is no number.
    """
    limit = memory_limit_gib()
    needed = voxels * voxel_bytes / 2**30
    if needed > limit:
        what = f"would take {needed:.1f} GiB of memory, {limit:g} GiB are allowed"
        remedy = f"crop it, resample it, or set the environment variable {MEMORY_SETTING} higher"
        refuse(path, what, remedy)


def memory_limit_gib() -> float:
    """Return how much memory the voxels of one image may take.

    Raises:
        ConfigError: When the environment variable is no number above 0.
    """
    text = os.environ.get(MEMORY_SETTING, "")
    try:
        limit = float(text or _DEFAULT_GIB)
    except ValueError:
        limit = math.nan
    if not limit > 0:
        msg = f"{MEMORY_SETTING} is {shown(text)}; give a number of GiB above 0, or unset it."
        raise ConfigError(msg)
    return limit


def numbers(path: Path, name: str, text: str, count: int | None = None) -> list[float]:
    """Read numbers of a header.

    Args:
        path: The image file.
        name: Of the field, for messages.
        text: The numbers, with space between them.
        count: How many there must be; None for any number of them.

    Raises:
        ImageError: When one is no number, or there are fewer or more.
    """
    try:
        values = [float(part) for part in text.split()]
    except ValueError:
        values = []
    if not values or (count is not None and len(values) != count):
        refuse(path, f"is damaged: its header says {shown(f'{name}: {text}')}")
    return values


def needed(path: Path, fields: Mapping[str, str], name: str) -> str:
    """Return what a header says under a name.

    Raises:
        ImageError: When it says nothing.
    """
    if not fields.get(name):
        refuse(path, f"is damaged: its header does not say {shown(name)}")
    return fields[name]


def whole_numbers(path: Path, name: str, text: str, count: int | None = None) -> list[int]:
    """Read whole numbers of a header, as `numbers` does.

    Raises:
        ImageError: When one is no whole number, or there are fewer or more.
    """
    values = numbers(path, name, text, count)
    if not all(abs(value) < 2**53 and value == int(value) for value in values):
        refuse(path, f"is damaged: its header says {shown(f'{name}: {text}')}")
    return [int(value) for value in values]


def data_file(path: Path, name: str) -> Path:
    """Find the file of the voxels that a header names.

    Args:
        path: The file of the header.
        name: What it says.

    Raises:
        ImageError: When that is a list or pattern of files, lies outside of its folder, or is
            absent.
    """
    words = name.split()
    if "%" in name or not words or words[0].upper() == "LIST" or "\0" in name:
        remedy = "save it as one .nrrd or .mha file"
        refuse(path, f"names its voxels by {shown(name)}, not by one file", remedy)
    given = Path(name)
    if given.is_absolute() or ".." in given.parts or "\\" in name or ":" in name:
        remedy = "put both into one folder"
        refuse(path, f"names a file outside of its folder ({shown(name)})", remedy)
    found = path.parent / given
    if not found.is_file():
        refuse(path, f"has its voxels in {shown(name)}, which is absent", "restore that file")
    return found
