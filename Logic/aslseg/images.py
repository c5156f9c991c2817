"""Volumes and label maps in files: read with every doubt spoken out, written whole or never."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from aslseg import images_dicom, images_nifti
from aslseg.errors import ImageError, StorageError
from aslseg.storage import atomic_path
from aslseg.volume import Geometry, Labelmap, Volume

logger = logging.getLogger(__name__)

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".nhdr", ".mhd")
_ONE_FILE_SUFFIXES = SUFFIXES[:4]
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_WRITABLE: Mapping[str, type[np.generic]] = {
    "bool": np.uint8,
    "float16": np.float32,
}


def suffix_of(path: Path) -> str:
    """Return the image suffix of a file name in lower case, or nothing when it is no image's."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """Return the file name without its image suffix; folders keep their name."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_volume(path: Path) -> Volume:
    """Read a scalar image with its exact position.

    Args:
        path: A NIfTI, NRRD or MetaImage file, or a folder of DICOM slices.

    Returns:
        The volume in the file's own data type; oblique and mirrored axes stay as they are.

    Raises:
        ImageError: When it is missing, damaged, not 3-D, not scalar, or holds NaN or infinity.
    """
    image = _read_image(path)
    voxels = sitk.GetArrayFromImage(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        msg = f"{path} holds voxels that are no numbers (NaN or infinity); repair or leave it out."
        raise ImageError(msg)
    return Volume(voxels, _geometry_of(image, path))


def read_labelmap(path: Path) -> Labelmap:
    """Read a label map with its exact position.

    Args:
        path: A NIfTI, NRRD or MetaImage file; whole numbers from 0 to 255 in any data type.

    Raises:
        ImageError: When it cannot be read, or holds anything but whole numbers from 0 to 255.
    """
    if path.is_dir():
        msg = f"{path} is a folder, not a label map; export the segmentation as NIfTI or NRRD."
        raise ImageError(msg)
    image = _read_image(path)
    return Labelmap(_labels_of(sitk.GetArrayViewFromImage(image), path), _geometry_of(image, path))


def read_geometry(path: Path) -> Geometry:
    """Read where an image lies; of a file, only the header is read.

    Raises:
        ImageError: When it is missing, damaged, or not a 3-D scalar image.
    """
    if path.is_dir():
        return _geometry_of(_read_image(path), path)
    reader = _open(path)
    return Geometry(
        _shape_of(reader.GetSize()),
        _affine(reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection(), path),
    )


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image, whole or not at all.

    Args:
        volume: What to write; bool becomes uint8 and float16 becomes float32.
        path: Ends in .nii.gz, .nii, .nrrd or .mha.

    Raises:
        StorageError: When the place cannot be written; what was there stays.
        ImageError: When the format cannot hold the volume.
    """
    _write(volume.voxels, volume.geometry, path)


def write_labelmap(labelmap: Labelmap, path: Path) -> None:
    """Write a label map, compressed, whole or not at all.

    Args:
        labelmap: What to write.
        path: Ends in .nii.gz, .nii, .nrrd or .mha.

    Raises:
        StorageError: When the place cannot be written; what was there stays.
        ImageError: When the format cannot hold the label map.
    """
    _write(labelmap.labels, labelmap.geometry, path)


def _read_image(path: Path) -> Any:
    if path.is_dir():
        return _one_volume(images_dicom.read_folder(path), path)
    reader = _open(path)
    images_nifti.check_complete(path, reader)
    images_nifti.check_finite(path, reader)
    try:
        return _one_volume(reader.Execute(), path)
    except RuntimeError as error:
        msg = f"{path} is damaged or cut off: its voxels cannot be read; copy or export it again."
        raise ImageError(msg) from error


def _open(path: Path) -> Any:
    """Return a reader that has read the header of a 3-D scalar image."""
    if not path.is_file():
        msg = f"{path} does not exist; check the path, or restore the file."
        raise ImageError(msg)
    if not suffix_of(path):
        msg = f"{path} is no image that can be read; give {', '.join(SUFFIXES)}, or a DICOM folder."
        raise ImageError(msg)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        msg = f"{path} cannot be read as an image; it is damaged or of another format."
        raise ImageError(msg) from error
    _check_scalar(reader, path)
    return reader


def _check_scalar(reader: Any, path: Path) -> None:
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1:
        msg = (
            f"{path} has {reader.GetNumberOfComponents()} values per voxel, one is needed; "
            "export it as a scalar volume, or its segments without overlap."
        )
        raise ImageError(msg)
    if len(size) < 3 or any(n != 1 for n in size[3:]):
        msg = (
            f"{path} has {len(size)} axes {size}; a 3-D volume is needed: export one of its parts."
        )
        raise ImageError(msg)
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        msg = f"{path} holds complex numbers; export its magnitude as a scalar volume."
        raise ImageError(msg)


def _one_volume(image: Any, path: Path) -> Any:
    """Return a 3-D image without further axes of length one."""
    if image.GetDimension() > 3:
        image = image[(slice(None),) * 3 + (0,) * (image.GetDimension() - 3)]
    if image.GetDimension() < 3 or image.GetNumberOfComponentsPerPixel() != 1:
        msg = f"{path} is not a 3-D scalar image; export it as a scalar volume."
        raise ImageError(msg)
    return image


def _geometry_of(image: Any, path: Path) -> Geometry:
    affine = _affine(image.GetSpacing(), image.GetOrigin(), image.GetDirection(), path)
    return Geometry(_shape_of(image.GetSize()), affine)


def _shape_of(size: tuple[int, ...]) -> tuple[int, int, int]:
    return int(size[2]), int(size[1]), int(size[0])


def _affine(
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    direction: tuple[float, ...],
    path: Path,
) -> NDArray[np.float64]:
    axes = int(np.sqrt(len(direction)))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (axes, axes))[:3, :3] * spacing[:3]
    affine[:3, 3] = origin[:3]
    affine[:3] *= _LPS_TO_RAS[:, None]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        msg = f"{path} does not say where its voxels lie (no valid spacing); export it again."
        raise ImageError(msg)
    return affine


def _labels_of(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Check and convert values one slice at a time, so that no second large array is made."""
    labels = np.empty(values.shape, np.uint8)
    for target, plane in zip(labels, values, strict=True):
        with np.errstate(invalid="ignore"):
            target[...] = plane.astype(np.uint8)
        wrong = plane[~(plane == target)]  # NaN is unequal to everything
        if wrong.size:
            msg = (
                f"{path} holds the value {wrong[0]:g}, labels are whole numbers from 0 to 255; "
                "export it as a label map."
            )
            raise ImageError(msg)
    return labels


def _write(array: NDArray[Any], geometry: Geometry, path: Path) -> None:
    if suffix_of(path) not in _ONE_FILE_SUFFIXES:
        msg = f"{path} cannot be written; end its name in {', '.join(_ONE_FILE_SUFFIXES)}."
        raise ImageError(msg)
    image = _image_of(array, geometry)
    if suffix_of(path).startswith(".nii") and _is_sheared(geometry):
        msg = f"{path} cannot hold axes that are not at right angles; end its name in .nrrd."
        raise ImageError(msg)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=suffix_of(path) != ".nii")
            images_nifti.check_complete(temporary, _open(temporary))
        except (RuntimeError, ImageError) as error:
            msg = f"{path} could not be written whole; check the free space and the permissions."
            raise StorageError(msg) from error


def _image_of(array: NDArray[Any], geometry: Geometry) -> Any:
    array = array.astype(_WRITABLE.get(array.dtype.name, array.dtype), copy=False)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    affine = geometry.ijk_to_ras[:3] * _LPS_TO_RAS[:, None]
    spacing = geometry.spacing_mm[::-1]
    image.SetSpacing(spacing)
    image.SetOrigin(affine[:, 3].tolist())
    image.SetDirection((affine[:, :3] / spacing).ravel().tolist())
    return image


def _is_sheared(geometry: Geometry) -> bool:
    axes = geometry.ijk_to_ras[:3, :3] / geometry.spacing_mm[::-1]
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)
