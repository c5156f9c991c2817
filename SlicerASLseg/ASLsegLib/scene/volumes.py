"""The bridge between volume nodes and the library's volumes: same voxels, same place.

Arrays are `(D, H, W)` in both; the affine is the node's own IJK-to-RAS matrix, so that oblique,
left-handed and anisotropic grids need no special case. A volume under a transform is worked on as
a hardened copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk

from aslseg.data.orientation import to_slices
from aslseg.data.volume import Geometry, Volume
from aslseg.errors import AslsegError

_HARDENED_FROM = "ASLseg.HardenedFrom"


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


def slice_axis_of(node: Any) -> int:
    """Return the axis of a volume's (D, H, W) array along which its axial slices are numbered."""
    return to_slices(geometry_of(node)).axes[0]


def slice_geometry_of(node: Any) -> Geometry:
    """Return the grid that prompts are counted on: axial slices, however the volume is stored."""
    geometry = geometry_of(node)
    return to_slices(geometry).geometry(geometry)


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


def add_volume(volume: Volume, name: str, kind: str = "vtkMRMLScalarVolumeNode") -> Any:
    """Add a library volume to the scene as a volume node."""
    node = slicer.mrmlScene.AddNewNodeByClass(kind, free_name(name))
    node.SetIJKToRASMatrix(as_matrix(volume.geometry.ijk_to_ras))
    slicer.util.updateVolumeFromArray(node, volume.voxels)
    node.CreateDefaultDisplayNodes()
    return node


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
    copy = hardened_copy(node)
    source = slicer.util.arrayFromVolume(node)
    matrix = vtk.vtkMatrix4x4()
    node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    affine = as_array(matrix) @ geometry_of(node).ijk_to_ras
    volume = Volume(source.copy(), Geometry(source.shape, affine))
    if copy is None:
        copy = add_volume(volume, f"{node.GetName()} (hardened)")
        copy.SetNodeReferenceID(_HARDENED_FROM, node.GetID())
        place_beside(copy, node)
        return copy
    same = np.allclose(geometry_of(copy).ijk_to_ras, affine)
    if not same or not np.array_equal(slicer.util.arrayFromVolume(copy), source):
        copy.SetIJKToRASMatrix(as_matrix(affine))
        slicer.util.updateVolumeFromArray(copy, volume.voxels)
    return copy


def hardened_copy(node: Any) -> Any | None:
    """Return the copy of a volume that `working_volume` made, or None."""
    for other in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if other.GetNodeReferenceID(_HARDENED_FROM) == node.GetID():
            return other
    return None
