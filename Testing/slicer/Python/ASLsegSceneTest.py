"""Volumes and predictions go from the scene to the library and back without moving by a voxel."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import slicer
import vtk

from aslseg.data.volume import Geometry, Volume
from ASLsegLib.scene.provenance import Provenance
from ASLsegLib.scene.segmentations import find_prediction, write_prediction
from ASLsegLib.scene.segments import parts_of
from ASLsegLib.scene.shown_labels import shown_labels
from ASLsegLib.scene.volumes import add_volume, volume_of, working_volume
from ASLsegLib.widgets.segment import show_volume

SHAPE = (6, 20, 24)


def read_labels(node, volume, targets):
    return shown_labels(node, volume, targets, may_leave_out=lambda *_: True).labels


class Target:
    def __init__(self, name, value, inside=None):
        self.name, self.value, self.inside = name, value, inside
        self.color = self.terminology = None


TARGETS = (Target("liver", 1), Target("tumour", 2, "liver"))


def write_labels(volume, labels, provenance):
    """Show a label map as a prediction about a volume."""
    return write_prediction(volume, parts_of(labels, TARGETS), TARGETS, provenance)


def oblique_left_handed_geometry():
    """Return slices 4 mm apart, pixels of 2 x 1.5 mm, turned by 30 degrees, one axis mirrored."""
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, -1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.5, 2.0, 4.0])
    affine[:3, 3] = (12.5, -40.0, 103.25)
    return Geometry(SHAPE, affine)


def numbered_volume():
    """Return a volume in which each voxel has a value of its own."""
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return Volume(voxels, oblique_left_handed_geometry())


def some_labels():
    """Return a block of liver that holds a smaller block of tumour."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:5, 4:16, 5:20] = 1
    labels[2:4, 7:11, 8:12] = 2
    return labels


class ASLsegSceneTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear()
        self.node = add_volume(numbered_volume(), "ct")

    def test_a_volume_comes_back_as_it_went(self):
        back = volume_of(self.node)
        np.testing.assert_array_equal(back.voxels, numbered_volume().voxels)
        np.testing.assert_allclose(back.geometry.ijk_to_ras, numbered_volume().geometry.ijk_to_ras)

    def test_a_voxel_lies_where_its_matrix_says(self):
        ijk_to_ras = np.array(numbered_volume().geometry.ijk_to_ras)
        corner = [0.0] * 6
        self.node.GetRASBounds(corner)
        first = ijk_to_ras[:3, 3]
        self.assertTrue(np.all(first > np.array(corner[::2]) - 1e-6))
        self.assertTrue(np.all(first < np.array(corner[1::2]) + 1e-6))

    def test_a_prediction_comes_back_voxel_by_voxel(self):
        source = write_labels(self.node, some_labels(), Provenance("refined", "aslseg"))
        np.testing.assert_array_equal(read_labels(source, self.node, TARGETS), some_labels())

    def test_a_prediction_is_renewed_in_place_and_leaves_other_segments_alone(self):
        source = write_labels(self.node, some_labels(), Provenance("refined", "aslseg"))
        segmentation = source.GetSegmentation()
        mine = segmentation.AddEmptySegment("mine", "mine")
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            (some_labels() == 2).astype(np.uint8), source, mine, self.node
        )
        moved = np.roll(some_labels(), 2, axis=2)
        again = write_labels(self.node, moved, Provenance("refined", "aslseg"))
        self.assertEqual(again.GetID(), source.GetID())
        np.testing.assert_array_equal(read_labels(again, self.node, TARGETS), moved)
        kept = slicer.util.arrayFromSegmentBinaryLabelmap(source, mine, self.node)
        np.testing.assert_array_equal(kept, some_labels() == 2)

    def test_a_volume_under_a_transform_is_worked_on_as_a_hardened_copy(self):
        shift = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 10.0)
        shift.SetMatrixTransformToParent(matrix)
        self.node.SetAndObserveTransformNodeID(shift.GetID())
        copy = working_volume(self.node)
        self.assertNotEqual(copy.GetID(), self.node.GetID())
        moved = volume_of(copy).geometry.ijk_to_ras[:3, 3]
        np.testing.assert_allclose(moved, (22.5, -40.0, 103.25))

    def test_showing_a_volume_hides_what_was_said_about_another(self):
        first = write_labels(self.node, some_labels(), Provenance("refined", "aslseg"))
        other = add_volume(numbered_volume(), "other")
        second = write_labels(other, some_labels(), Provenance("refined", "aslseg"))
        show_volume(other)
        shown = [each.GetDisplayNode().GetVisibility() for each in (first, second)]
        self.assertEqual(shown, [0, 1])

    def test_a_saved_scene_brings_the_predictions_back(self):
        write_labels(self.node, some_labels(), Provenance("refined", "aslseg", "run-1", 1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scene.mrb"
            self.assertTrue(slicer.util.saveScene(str(path)))
            slicer.mrmlScene.Clear()
            slicer.util.loadScene(str(path))
        node = slicer.util.getNode("ct")
        source = find_prediction(node, "refined")
        self.assertIsNotNone(source)
        np.testing.assert_array_equal(read_labels(source, node, TARGETS), some_labels())
