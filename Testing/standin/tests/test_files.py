"""Files are read and written by MRML's own storage, through the names that slicer.util uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer

from .conftest import BlockScene


@pytest.mark.parametrize("name", ["body.nrrd", "body.nii.gz", "body.mha"])
def test_a_volume_comes_back_with_its_voxels_and_its_place(
    block: BlockScene, tmp_path: Path, name: str
) -> None:
    block.volume.SetOrigin(10.0, -20.0, 30.0)
    assert slicer.util.exportNode(block.volume, tmp_path / name)
    read = slicer.util.loadVolume(str(tmp_path / name), {"name": "again", "show": False})
    assert read.GetName() == "again"
    np.testing.assert_array_equal(
        slicer.util.arrayFromVolume(read), slicer.util.arrayFromVolume(block.volume)
    )
    np.testing.assert_allclose(read.GetOrigin(), (10.0, -20.0, 30.0), atol=1e-4)
    np.testing.assert_allclose(read.GetSpacing(), (2.0, 2.0, 4.0), atol=1e-4)


def test_an_export_leaves_the_nodes_own_storage_alone(block: BlockScene, tmp_path: Path) -> None:
    assert block.volume.GetStorageNode() is None
    assert slicer.util.exportNode(block.volume, tmp_path / "copy.nrrd")
    assert block.volume.GetStorageNode() is None
    assert slicer.util.saveNode(block.volume, str(tmp_path / "own.nrrd"))
    assert block.volume.GetStorageNode().GetFileName() == str(tmp_path / "own.nrrd")


def test_a_segmentation_is_known_by_its_long_ending(block: BlockScene, tmp_path: Path) -> None:
    manager = slicer.app.coreIOManager()
    assert manager.fileType("liver.seg.nrrd") == "SegmentationFile"
    assert manager.fileType("liver.nrrd") == "VolumeFile"
    assert manager.extractKnownExtension("a.b.seg.nrrd", block.segmentation) == ".seg.nrrd"
    path = tmp_path / "labels.seg.nrrd"
    assert slicer.util.saveNode(block.segmentation, str(path))
    read = slicer.util.loadSegmentation(str(path))
    found = slicer.util.arrayFromSegmentBinaryLabelmap(read, "block", block.volume)
    np.testing.assert_array_equal(found, block.mask)


def test_a_file_that_is_not_there_is_an_error_as_in_slicer(scene: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"absent\.nrrd"):
        slicer.util.loadVolume(str(tmp_path / "absent.nrrd"))


def test_a_loaded_volume_is_shown_unless_that_is_declined(
    block: BlockScene, tmp_path: Path
) -> None:
    slicer.util.exportNode(block.volume, tmp_path / "body.nrrd")
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    for show in (False, True):
        read = slicer.util.loadVolume(str(tmp_path / "body.nrrd"), {"show": show})
        assert (composite.GetBackgroundVolumeID() == read.GetID()) == show
