"""The bridge between volume nodes and the library's volumes: same voxels, same place.

Arrays are `(D, H, W)` in both; the affine is the node's own IJK-to-RAS matrix, so that oblique,
left-handed and anisotropic grids need no special case. A volume under a transform is worked on as
a hardened copy. The engine reads the file that a volume came from, or a copy of its voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

from aslseg.data.orientation import to_slices
from aslseg.data.volume import Geometry, Volume
from aslseg.errors import AslsegError, ImageError, StorageError

_HARDENED_FROM = "ASLseg.HardenedFrom"
_TYPES = {
    "int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "uint16", "int32": "int32",
    "uint32": "uint32", "int64": "int64", "uint64": "uint64", "float32": "float",
    "float64": "double",
}  # fmt: skip
_CHUNK_BYTES = 8 << 20
_LONG_BYTES = 8
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


class SceneError(AslsegError):
    """Something in the scene cannot be used as it is; the message says what to do."""


def geometry_of(node: Any) -> Geometry:
    """Return where the voxels of a volume node lie, without its parent transform.

    Raises:
        SceneError: When the node has no voxels.
    """
    image = node.GetImageData()
    if image is None or 0 in image.GetDimensions():
        msg = f"{node.GetName()} has no voxels; load the volume again."
        raise SceneError(msg)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    columns, rows, slices = image.GetDimensions()
    return Geometry((slices, rows, columns), as_array(matrix))


def shown_geometry_of(node: Any) -> Geometry:
    """Return where the voxels of a volume node are shown: a linear parent transform moves them."""
    geometry, transform = geometry_of(node), node.GetParentTransformNode()
    if transform is None or not transform.IsTransformToWorldLinear():
        return geometry
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return Geometry(geometry.shape, as_array(matrix) @ geometry.ijk_to_ras)


def slice_axis_of(node: Any) -> int:
    """Return the axis of a volume's (D, H, W) array along which its axial slices are numbered."""
    return to_slices(geometry_of(node)).axes[0]


def slice_geometry_of(node: Any) -> Geometry:
    """Return the grid that prompts are counted on: axial slices, however the volume is stored."""
    geometry = geometry_of(node)
    return to_slices(geometry).geometry(geometry)


def plane_geometry_of(node: Any, slice_index: int) -> Geometry:
    """Return where an axial slice of a volume node lies, as a volume of one slice."""
    geometry = slice_geometry_of(node)
    affine = geometry.ijk_to_ras.copy()
    affine[:3, 3] += slice_index * affine[:3, 2]
    return Geometry((1, *geometry.shape[1:]), affine)


def volume_of(node: Any) -> Volume:
    """Return a volume node as the library's volume; the voxels are shared, not copied.

    Raises:
        SceneError: When the node has no voxels or several values per voxel.
    """
    geometry = geometry_of(node)
    if node.GetImageData().GetNumberOfScalarComponents() != 1:
        msg = f"{node.GetName()} has several values per voxel; choose a scalar volume such as a CT."
        raise SceneError(msg)
    return Volume(slicer.util.arrayFromVolume(node), geometry)


def is_scalar(node: Any) -> bool:
    """Tell whether a volume node has one value per voxel that is not a label.

    Vector volumes (colour pictures) and label maps derive from scalar volumes in MRML.
    """
    if node.GetClassName() != "vtkMRMLScalarVolumeNode":
        return False
    image = node.GetImageData()
    return image is None or image.GetNumberOfScalarComponents() == 1


def add_volume(
    volume: Volume,
    name: str,
    kind: str = "vtkMRMLScalarVolumeNode",
    *,
    image: Any = None,
    window: tuple[float, float] | None = None,
) -> Any:
    """Add a library volume to the scene as a volume node.

    Args:
        volume: The volume.
        name: Of the node, with a number where it is taken.
        kind: Of the node.
        image: Its `image_of`, which may be made in a thread; made here when None.
        window: Least and greatest grey value that are shown; found by Slicer when None, which reads
            all voxels in the application's thread: 0.5 s for 512 x 512 x 300.
    """
    node = slicer.mrmlScene.AddNewNodeByClass(kind, free_name(name))
    node.SetIJKToRASMatrix(as_matrix(volume.geometry.ijk_to_ras))
    if window is not None:  # before there are voxels
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevelMinMax(*window)
    node.SetAndObserveImageData(image_of(volume.voxels) if image is None else image)
    node.CreateDefaultDisplayNodes()
    return node


def image_of(voxels: np.ndarray) -> Any:
    """Return a copy of voxels (D, H, W) as VTK's image; it touches no scene."""
    values, image = _as_shown(voxels), vtk.vtkImageData()
    image.SetDimensions(*reversed(values.shape))
    image.AllocateScalars(get_vtk_array_type(values.dtype), 1)
    array_of(image)[...] = values
    return image


def array_of(image: Any) -> np.ndarray:
    """Return the voxels of VTK's image, (D, H, W); they are shared, and kept as long as this is."""
    shape = tuple(reversed(image.GetDimensions()))
    return np.asarray(vtk_to_numpy(image.GetPointData().GetScalars())).reshape(shape)


def _as_shown(voxels: np.ndarray) -> np.ndarray:
    """Return voxels in a type that Slicer shows, which 64-bit integers are not."""
    if voxels.dtype.kind not in "iu" or voxels.dtype.itemsize < _LONG_BYTES:
        return voxels
    limits = np.iinfo(np.int32)
    fits = voxels.size == 0 or (voxels.min() >= limits.min and voxels.max() <= limits.max)
    return voxels.astype(np.int32 if fits else np.float64)


def free_name(name: str) -> str:
    """Return a node name that is not taken: the given one, or one with a number."""
    scene = slicer.mrmlScene
    return scene.GenerateUniqueName(name) if scene.GetFirstNodeByName(name) else name


def working_volume(node: Any) -> Any:
    """Return the node to work on: itself, or a hardened copy if it is under a linear transform.

    The copy is made once and renewed when volume or transform have changed, so that its results
    are updated in place.

    Raises:
        SceneError: When the node is not a scalar volume, or when the transform is not linear, for
            it would change the voxels.
    """
    if not is_scalar(node):
        msg = f"{node.GetName()} is no scalar volume but a colour picture or a label map; choose a "
        msg += "volume with one grey value per voxel, such as a CT."
        raise SceneError(msg)
    transform = node.GetParentTransformNode()
    if transform is None:
        return node
    if not transform.IsTransformToWorldLinear():
        msg = (
            f"{node.GetName()} is under the non-linear transform {transform.GetName()}; harden the "
            "transform on a copy of the volume (Data module), and choose that copy."
        )
        raise SceneError(msg)
    return _hardened(node)


def as_matrix(affine: np.ndarray) -> vtk.vtkMatrix4x4:
    """Return a (4, 4) array as VTK's matrix."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(affine, float).ravel().tolist())
    return matrix


def as_array(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """Return VTK's matrix as a (4, 4) array."""
    return np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])


def place_beside(node: Any, volume: Any) -> None:
    """Put a node under the volume's study in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    above, item = hierarchy.GetItemByDataNode(volume), hierarchy.GetItemByDataNode(node)
    if not above:
        return
    if item:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(above))
    else:
        hierarchy.CreateItem(hierarchy.GetItemParent(above), node)


def _hardened(node: Any) -> Any:
    copy, geometry = hardened_copy(node), shown_geometry_of(node)
    source = slicer.util.arrayFromVolume(node)
    volume = Volume(source.copy(), geometry)
    if copy is None:
        copy = add_volume(volume, f"{node.GetName()} (hardened)")
        copy.SetNodeReferenceID(_HARDENED_FROM, node.GetID())
        place_beside(copy, node)
        return copy
    same = np.allclose(geometry_of(copy).ijk_to_ras, geometry.ijk_to_ras)
    if not same or not np.array_equal(slicer.util.arrayFromVolume(copy), source):
        copy.SetIJKToRASMatrix(as_matrix(geometry.ijk_to_ras))
        slicer.util.updateVolumeFromArray(copy, volume.voxels)
    return copy


def hardened_copy(node: Any) -> Any | None:
    """Return the copy of a volume that `working_volume` made, or None."""
    for other in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if other.GetNodeReferenceID(_HARDENED_FROM) == node.GetID():
            return other
    return None


def own_file(volume: Any) -> Path | None:
    """Return the file that a volume node was read from, if that is still what the node shows."""
    from aslseg.data.images import read_geometry

    storage = volume.GetStorageNode()
    if storage is None or storage.GetNumberOfFileNames() > 1 or volume.GetModifiedSinceRead():
        return None  # more than one file name means a series
    path = Path(storage.GetFileName() or "")
    if not path.is_file():
        return None
    try:
        return path if read_geometry(path).matches(geometry_of(volume)) else None
    except ImageError:
        return None


def file_for(volume: Any, folder: Path) -> tuple[Path, Callable[[], None] | None]:
    """Return the file to read a volume from, and what has to be called in a thread before.

    Args:
        volume: Volume node.
        folder: Where to write its voxels if need be. They are written again when they or their
            place have changed; until then the engine goes on with what it has read.
    """
    own = own_file(volume)
    if own is not None:
        return own, None
    image = volume_of(volume)
    place = crc32(image.geometry.ijk_to_ras.tobytes())
    path = folder / f"image-{volume.GetImageData().GetMTime()}-{place:08x}.nrrd"
    return path, None if path.exists() else lambda: _replace_copies(image, path)


def _replace_copies(volume: Volume, path: Path) -> None:
    from aslseg.storage import atomic_path

    for old in path.parent.glob("image-*.nrrd"):
        old.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        write_raw(volume, temporary)


def write_raw(volume: Volume, path: Path, *, new: bool = False) -> None:
    """Write a volume as NRRD without compression.

    Args:
        volume: What to write; it must not change meanwhile.
        path: Ends in .nrrd.
        new: Refuse a file that is there; whatever cannot be written whole is deleted again then.

    Raises:
        StorageError: When the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb" if new else "wb") as file:
            _write_into(file, volume)
    except FileExistsError as error:
        msg = f"{path} is there already and is left as it is; choose another name."
        raise StorageError(msg) from error
    except OSError as error:
        if new:
            path.unlink(missing_ok=True)
        msg = f"Cannot write {path}: {error.strerror}; free some space or choose another folder."
        raise StorageError(msg) from error


def _write_into(file: BinaryIO, volume: Volume) -> None:
    flat = np.ascontiguousarray(volume.voxels).reshape(-1).data.cast("B")
    file.write(_header(volume).encode())
    for start in range(0, len(flat), _CHUNK_BYTES):
        file.write(flat[start : start + _CHUNK_BYTES])


def _header(volume: Volume) -> str:
    slices, rows, columns = volume.voxels.shape
    affine = volume.geometry.ijk_to_ras
    axes = [_vector(_RAS_TO_LPS @ affine[:3, axis]) for axis in range(3)]
    lines = [
        "NRRD0004",
        f"type: {_TYPES[volume.voxels.dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {columns} {rows} {slices}",
        f"space directions: {' '.join(axes)}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: {_vector(_RAS_TO_LPS @ affine[:3, 3])}",
    ]
    return "\n".join(lines) + "\n\n"


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"
