"""Which case of the project a volume node is, and whether it still is what the project holds.

A name alone says little: another project may have a case of that name, even of the same image, and
a node's voxels can be replaced. So a node carries the case's name, the digest of its image file,
the folder of the project, and a digest of voxels.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from ASLsegLib.paths import PROJECT_FILE
from ASLsegLib.scene.volumes import SceneError, geometry_of, hardened_copy

if TYPE_CHECKING:
    from aslseg.project.project import Project

CASE = "ASLseg.Case"
"""Attribute of a volume node: the name of the case that it is."""
_IMAGE, _VOXELS, _LABEL = "ASLseg.Image", "ASLseg.Voxels", "ASLseg.Label"
_PROJECT = "ASLseg.Project"
_SAMPLES_PER_AXIS = 48


def mark_case(node: Any, project: Project, case_id: str) -> None:
    """Note that a volume node is a case of a project; no label is shown with it yet.

    Args:
        node: Volume node.
        project: The project.
        case_id: Name of the case.
    """
    name_case(node, project, case_id)
    node.SetAttribute(_VOXELS, digest_of_voxels(node))
    note_project(node, project)
    note_label(node, "")


def name_case(node: Any, project: Project, case_id: str) -> None:
    """Note how the case that a volume node is is called in its project; nothing else changes."""
    node.SetAttribute(CASE, case_id)
    node.SetAttribute(_IMAGE, _identity(project, case_id))


def note_project(node: Any, project: Project) -> None:
    """Note whose case a volume node is: of the project in this folder."""
    node.SetAttribute(_PROJECT, str(project.folder.resolve()))


def note_label(node: Any, label: str) -> None:
    """Note which label map of its case a volume node is shown with, by its digest."""
    node.SetAttribute(_LABEL, label)


def shown_label(node: Any) -> str:
    """Return the digest of the label map that a case was shown with; empty for none."""
    return node.GetAttribute(_LABEL) or ""


def case_of(volume: Any | None, project: Project | None) -> str:
    """Return the case of a project that a volume node is; empty when it is none.

    A volume under a transform may have been added as a hardened copy, which is looked at then.
    """
    if volume is None or project is None:
        return ""
    nodes = (volume, hardened_copy(volume))
    for node in (one for one in nodes if one is not None):
        name = node.GetAttribute(CASE) or ""
        is_there = any(case.id == name for case in project.cases)
        is_image = is_there and node.GetAttribute(_IMAGE) == _identity(project, name)
        if is_image and is_of_project(node, project):
            return str(name)
    return ""


def find_case(project: Project | None, case_id: str) -> Any | None:
    """Return the volume node of a case if it is in the scene."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(CASE) == case_id and case_of(node, project) == case_id:
            return node
    return None


def is_intact(node: Any) -> bool:
    """Tell whether the voxels of a case's node are those that it was marked with."""
    return bool(node.GetAttribute(_VOXELS) == digest_of_voxels(node))


def require_intact(node: Any, case_id: str, *drawn_on: Any) -> None:
    """Make sure that a node's voxels are still those of its case.

    Args:
        node: Volume node that is the case.
        case_id: The case.
        drawn_on: Volume nodes that have the same voxels, for they are it, or copies of it.

    Raises:
        SceneError: When they were replaced, in one of the nodes.
    """
    for one in dict.fromkeys((node, *drawn_on)):
        if node.GetAttribute(_VOXELS) != digest_of_voxels(one):
            msg = (
                f"The voxels of {one.GetName()} are not those of case {case_id} any more; load the "
                "case again from the table."
            )
            raise SceneError(msg)


def forget_case(node: Any) -> None:
    """Note that a volume node is no case any more."""
    for name in (CASE, _IMAGE, _PROJECT, _VOXELS, _LABEL):
        node.RemoveAttribute(name)


def digest_of_voxels(node: Any) -> str:
    """Return a short digest of a grid of voxels that spans a volume; empty without voxels."""
    try:
        geometry_of(node)
    except SceneError:
        return ""
    voxels = slicer.util.arrayFromVolume(node)
    sample = np.ascontiguousarray(sample_of(voxels))
    key = str(voxels.shape).encode()
    digest = hashlib.blake2b(sample.view(np.uint8).data, digest_size=12, key=key)
    return digest.hexdigest()


def sample_of(voxels: np.ndarray) -> np.ndarray:
    """Return a grid of voxels that spans a volume, at most some ten thousand of them."""
    return voxels[
        tuple(slice(None, None, max(1, count // _SAMPLES_PER_AXIS)) for count in voxels.shape)
    ]


def known_as(node: Any) -> tuple[str, str]:
    """Return which image a case's node says to be, and the digest of the voxels that it has."""
    return node.GetAttribute(_IMAGE) or "", digest_of_voxels(node)


def is_of_project(node: Any, project: Project) -> bool:
    """Tell whether a node is of a project, and of no other one with the same image and name."""
    return other_project(node, project.folder) is None


def other_project(node: Any, folder: Path) -> Path | None:
    """Return the folder of the project that a node is a case of; None when it is free.

    A project that is not in its folder any more was moved, or the scene comes from elsewhere.

    Args:
        node: Volume node.
        folder: Of the project for which it is asked; a case of that one is free, too.
    """
    noted = node.GetAttribute(_PROJECT)
    if not noted or Path(noted) == folder.resolve():
        return None
    is_there = os.path.isfile(Path(noted, PROJECT_FILE))  # noqa: PTH113 - false for what cannot be
    return Path(noted) if is_there else None


def require_free(node: Any, folder: Path) -> None:
    """Make sure that a volume node can become a case of the project in a folder.

    Raises:
        SceneError: When it is a case of another one: what is drawn on it could not be saved there.
    """
    other = other_project(node, folder)
    if other is not None:
        msg = (
            f"{node.GetName()} is case {node.GetAttribute(CASE)} of the project {other}, and what "
            "is drawn on it belongs there; load its image into the scene once more, and add that "
            "volume."
        )
        raise SceneError(msg)


def _identity(project: Project, case_id: str) -> str:
    """Return what tells the image of a case from those of other projects' cases of its name."""
    case = project.case(case_id)
    return case.image_sha256 or str(project.image_path(case).resolve())
