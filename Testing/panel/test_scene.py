"""Volumes and label maps cross between scene and library without moving."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SlicerASLseg"))

from harness import read_labels, read_mask, write_labels, write_mask

from aslseg.data.images import read_labelmap, read_volume, write_labelmap, write_volume
from aslseg.data.orientation import to_slices
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.engine.facts import PredictionFacts
from aslseg.engine.protocol import Done
from aslseg.prompts import PointPrompt, SlicePrompts
from aslseg.targets import LIVER_TARGETS
from ASLsegLib.engine.results import (
    ShownAnswer,
    SliceResult,
    read_slice_result,
    read_volume_result,
    show_slice_result,
    volume_result,
)
from ASLsegLib.scene.disagreement import find_overlay, image_of, show_disagreement
from ASLsegLib.scene.provenance import Provenance, read_provenance
from ASLsegLib.scene.segmentations import (
    PARENT_OPACITY_3D,
    find_prediction,
    flag_disagreement,
    holds_unsaved,
    is_as_written,
    note_saved,
    prediction_node,
    shown_in,
    write_prediction_slice,
)
from ASLsegLib.scene.segments import part_of, segment_ids, with_slice
from ASLsegLib.scene.volumes import (
    SceneError,
    add_volume,
    file_for,
    geometry_of,
    plane_geometry_of,
    volume_of,
    working_volume,
    write_raw,
)

SHAPE = (4, 5, 6)
COS, SIN = np.cos(np.pi / 6), np.sin(np.pi / 6)
AFFINES = {
    "LPS": np.diag([-2.0, -3.0, 4.0, 1.0]),
    "left-handed": np.diag([2.0, -3.0, 4.0, 1.0]),
    "anisotropic and moved": np.array(
        [[-0.5, 0, 0, 11], [0, -0.7, 0, -22], [0, 0, 7, 33], [0, 0, 0, 1]], float
    ),
    "oblique": np.array(
        [
            [-2 * COS, 3 * SIN, 0, 10],
            [-2 * SIN, -3 * COS, 0, 20],
            [0, 0, 4, 30],
            [0, 0, 0, 1],
        ]
    ),
    "sagittal slices": np.array([[0, 0, 4, 1], [-2, 0, 0, 2], [0, -3, 0, 3], [0, 0, 0, 1]], float),
}
ORIGIN = Provenance("")
PROVENANCE = Provenance("refined", "aslseg", "run-1", 2, "0123abcd")


@pytest.fixture(params=AFFINES, ids=str)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return Geometry(SHAPE, AFFINES[request.param])


@pytest.fixture
def voxels() -> Any:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


@pytest.fixture
def ct(scene: Any) -> Any:
    values = np.zeros(SHAPE, np.int16)
    return add_volume(Volume(values, Geometry(SHAPE, AFFINES["oblique"])), "ct")


@pytest.fixture
def labels() -> Any:
    values = np.zeros(SHAPE, np.uint8)
    values[1:3, 1:4, 1:5] = 1
    values[2, 2, 2:5] = 2
    return values


def test_a_volume_comes_back_with_its_voxels_and_its_place(
    scene: Any, geometry: Geometry, voxels: Any
) -> None:
    node = add_volume(Volume(voxels, geometry), "ct")
    back = volume_of(node)
    assert np.array_equal(back.voxels, voxels)
    assert np.allclose(back.geometry.ijk_to_ras, geometry.ijk_to_ras, atol=1e-9)


@pytest.mark.parametrize("kind", ["int64", "uint64"])
@pytest.mark.parametrize("value", [-1024, 3071, 5_000_000_000])
def test_volumes_of_64_bit_integers_are_shown(scene: Any, kind: str, value: int) -> None:
    value = abs(value) if kind == "uint64" else value
    voxels = np.full(SHAPE, value, kind)
    node = add_volume(Volume(voxels, Geometry.axis_aligned(SHAPE)), "ct")
    shown = volume_of(node).voxels
    assert np.array_equal(shown, voxels)
    assert shown.dtype == (np.int32 if value < 5_000_000_000 else np.float64)


def test_no_voxel_is_read_to_find_a_window_that_is_known(scene: Any) -> None:
    """Slicer reads all of them where a volume is there before its display node."""
    had_voxels: list[bool] = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def look(_caller: Any, _event: str, node: Any) -> None:
        if node.IsA("vtkMRMLScalarVolumeDisplayNode"):
            volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            had_voxels.append(any(one.GetImageData() is not None for one in volumes))

    scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, look)
    grid = Geometry.axis_aligned((2, 3, 4), (1.0, 1.0, 1.0))
    node = add_volume(Volume(np.zeros(grid.shape, np.int16), grid), "ct", window=(-100.0, 240.0))
    assert had_voxels == [False]
    shown = node.GetDisplayNode()
    limits = (shown.GetWindowLevelMin(), shown.GetWindowLevelMax())
    assert (limits, shown.GetAutoWindowLevel()) == ((-100.0, 240.0), 0)


def test_the_scene_shows_a_voxel_where_the_library_has_it(scene: Any) -> None:
    node = add_volume(Volume(np.zeros(SHAPE, np.int16), Geometry(SHAPE, AFFINES["oblique"])), "ct")
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    # i = 1, j = 2, k = 3: (10 - 2 cos + 6 sin, 20 - 2 sin - 6 cos, 30 + 12)
    expected = (10 - 2 * COS + 6 * SIN, 20 - 2 * SIN - 6 * COS, 42.0)
    assert matrix.MultiplyPoint((1, 2, 3, 1))[:3] == pytest.approx(expected)


def test_the_file_handed_to_the_engine_is_the_volume(
    tmp_path: Path, geometry: Geometry, voxels: Any
) -> None:
    write_raw(Volume(voxels, geometry), tmp_path / "image.nrrd")
    back = read_volume(tmp_path / "image.nrrd")
    assert np.array_equal(back.voxels, voxels)
    assert back.geometry.matches(geometry)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "float32", "float64"])
def test_every_type_of_voxel_is_handed_over(tmp_path: Path, kind: str) -> None:
    voxels = np.arange(24).reshape(2, 3, 4).astype(kind)
    write_raw(Volume(voxels, Geometry.axis_aligned((2, 3, 4))), tmp_path / "image.nrrd")
    assert np.array_equal(read_volume(tmp_path / "image.nrrd").voxels, voxels)


def test_the_file_handed_to_the_engine_is_written_again_only_when_the_volume_has_changed(
    scene: Any, geometry: Geometry, voxels: Any, tmp_path: Path
) -> None:
    volume = add_volume(Volume(voxels, geometry), "ct")

    def handed_over() -> Path | None:
        path, write = file_for(volume, tmp_path)
        if write is not None:
            write()
        assert list(tmp_path.iterdir()) == [path], "copies of former voxels are deleted"
        assert np.array_equal(read_volume(path).voxels, slicer.util.arrayFromVolume(volume))
        return None if write is None else path

    first = handed_over()
    assert first is not None
    volume.SetAttribute("a person's note", "changes no voxel")
    assert handed_over() is None
    slicer.util.arrayFromVolume(volume)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(volume)
    assert handed_over() not in (None, first)
    volume.SetOrigin(7, 8, 9)
    assert handed_over() is not None


def test_segments_hold_what_the_label_map_says(
    scene: Any, geometry: Geometry, voxels: Any, labels: Any
) -> None:
    volume = add_volume(Volume(voxels, geometry), "ct")
    node = write_labels(volume, labels, LIVER_TARGETS, PROVENANCE)
    assert np.array_equal(read_labels(node, volume, LIVER_TARGETS), labels)
    assert np.array_equal(read_mask(node, "tumour", volume), labels == 2)


def test_a_segment_lies_where_the_engines_file_says(ct: Any, labels: Any, tmp_path: Path) -> None:
    write_labelmap(Labelmap(labels, geometry_of(ct)), tmp_path / "refined.nii.gz")
    node = write_labels(
        ct, read_labelmap(tmp_path / "refined.nii.gz").labels, LIVER_TARGETS, PROVENANCE
    )
    # voxels i = 2..4, j = 2, k = 2: their middle is (3, 2, 2)
    expected = AFFINES["oblique"] @ np.array([3.0, 2.0, 2.0, 1.0])
    assert node.GetSegmentCenterRAS("tumour") == pytest.approx(expected[:3])


def test_the_node_is_named_and_tagged_and_ready_for_dicom(ct: Any, labels: Any) -> None:
    node = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    assert node.GetName() == "ct - final label"
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is ct
    liver = node.GetSegmentation().GetSegment("liver")
    assert "SCT^10200004^Liver" in liver.GetTerminology()
    assert liver.GetColor() == pytest.approx((221 / 255, 130 / 255, 101 / 255))
    assert read_provenance(liver) == PROVENANCE


def test_running_again_updates_in_place(ct: Any, labels: Any) -> None:
    first = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    second = write_labels(ct, np.roll(labels, 1, axis=2), LIVER_TARGETS, PROVENANCE)
    assert second is first
    assert segment_ids(first) == ["liver", "tumour"]
    assert np.array_equal(read_labels(first, ct, LIVER_TARGETS), np.roll(labels, 1, axis=2))


def test_a_foreign_segment_of_the_same_name_is_never_touched(ct: Any, labels: Any) -> None:
    node = prediction_node(ct, "refined")
    node.GetSegmentation().AddEmptySegment("liver", "liver", (1.0, 0.0, 0.0))
    mine = np.zeros(SHAPE, bool)
    mine[0, 0, 0] = True
    write_mask(node, "liver", mine, ct)
    write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    assert np.array_equal(read_mask(node, "liver", ct), mine)
    assert node.GetSegmentation().GetSegment("liver").GetColor() == (1.0, 0.0, 0.0)
    assert len(segment_ids(node)) == 3


def edit(node: Any, ct: Any) -> Any:
    mask = read_mask(node, "liver", ct)
    mask[0, 0, :] = True
    write_mask(node, "liver", mask, ct)
    return mask


def test_an_edited_segment_is_kept_and_the_new_result_lies_beside_it(ct: Any, labels: Any) -> None:
    node = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    mine = edit(node, ct)
    assert not is_as_written(node, ct)
    newer = np.roll(labels, 1, axis=1)
    write_labels(ct, newer, LIVER_TARGETS, PROVENANCE)
    assert np.array_equal(read_mask(node, "liver", ct), mine)
    names = [node.GetSegmentation().GetSegment(n).GetName() for n in segment_ids(node)]
    assert names == ["liver", "tumour", "liver (new)"]
    again = np.roll(labels, -1, axis=1)
    write_labels(ct, again, LIVER_TARGETS, PROVENANCE)
    assert len(segment_ids(node)) == 3
    assert np.array_equal(read_mask(node, segment_ids(node)[2], ct), again == 1)


def test_an_edited_segment_is_replaced_when_that_is_allowed(ct: Any, labels: Any) -> None:
    node = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    edit(node, ct)
    asked: list[list[str]] = []
    write_labels(
        ct,
        labels,
        LIVER_TARGETS,
        PROVENANCE,
        may_replace=lambda names: not asked.append(list(names)),
    )
    assert asked == [["liver"]]
    assert len(segment_ids(node)) == 2
    assert np.array_equal(read_labels(node, ct, LIVER_TARGETS), labels)


def test_a_slice_changes_alone(ct: Any, labels: Any) -> None:
    node = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    plane = np.zeros(SHAPE[1:], np.uint8)
    plane[0, 0] = 2
    write_prediction_slice(ct, 2, plane, LIVER_TARGETS, PROVENANCE)
    expected = labels.copy()
    expected[2] = plane
    assert np.array_equal(read_labels(node, ct, LIVER_TARGETS), expected)
    assert is_as_written(node, ct)


@pytest.mark.parametrize("seed", range(6))
def test_a_part_with_another_slice_is_that_of_the_whole_mask(seed: int) -> None:
    draw = np.random.default_rng(seed)
    mask, plane = np.zeros(SHAPE, bool), draw.random(SHAPE[1:]) < 0.1 * seed
    mask[1:3, 1:4, 2:5] = draw.random((2, 3, 3)) < 0.3 * seed
    part, k = part_of(mask), int(draw.integers(SHAPE[0]))
    mask[k] = plane
    expected, found = part_of(mask), with_slice(part, k, plane)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert found.extent == expected.extent
        assert np.array_equal(found.values, expected.values)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_of_any_axis_is_exchanged(axis: int) -> None:
    draw = np.random.default_rng(axis)
    mask, k = draw.random(SHAPE) < 0.2, 2
    plane = draw.random(np.moveaxis(mask, axis, 0).shape[1:]) < 0.5
    before = part_of(mask)
    np.moveaxis(mask, axis, 0)[k] = plane
    expected, found = part_of(mask), with_slice(before, k, plane, axis)
    assert found is not None
    assert expected is not None
    assert found.extent == expected.extent
    assert np.array_equal(found.values, expected.values)


def test_the_last_voxels_of_a_part_can_be_taken_away() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[2, 1, 1] = True
    assert with_slice(part_of(mask), 2, np.zeros(SHAPE[1:], bool)) is None
    assert with_slice(None, 2, np.zeros(SHAPE[1:], bool)) is None


def test_an_organ_is_seen_through_in_3d_but_not_what_lies_in_it(ct: Any, labels: Any) -> None:
    display = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE).GetDisplayNode()
    assert display.GetSegmentOpacity3D("liver") == PARENT_OPACITY_3D
    assert display.GetSegmentOpacity3D("tumour") == 1.0


def test_an_opacity_that_a_person_chose_stays(ct: Any, labels: Any) -> None:
    node = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    node.GetDisplayNode().SetSegmentOpacity3D("liver", 0.9)
    write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    assert node.GetDisplayNode().GetSegmentOpacity3D("liver") == 0.9


def test_the_overlay_shows_what_it_is_given_and_is_updated_in_place(ct: Any) -> None:
    percent = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE) % 101
    overlay = show_disagreement(ct, image_of(percent))
    assert np.array_equal(slicer.util.arrayFromVolume(overlay), percent)
    assert geometry_of(overlay).matches(geometry_of(ct))
    assert show_disagreement(ct, image_of(percent // 2)) is overlay
    assert np.array_equal(slicer.util.arrayFromVolume(overlay), percent // 2)


def test_a_result_about_a_slice_renews_that_slice_of_the_overlay(ct: Any, labels: Any) -> None:
    percent = np.full(SHAPE, 50, np.uint8)
    overlay = show_disagreement(ct, image_of(percent))
    plane = np.arange(30, dtype=np.uint8).reshape(SHAPE[1:])
    origin = Provenance("", "aslseg", "run-1", 2)
    result = SliceResult({"refined": labels[2]}, 2, list(LIVER_TARGETS), origin, plane)
    list(show_slice_result(ct, result, may_replace=lambda _: False, shown=ShownAnswer(ct)))
    percent[2] = plane
    assert np.array_equal(slicer.util.arrayFromVolume(overlay), percent)


def test_a_result_about_an_axial_slice_of_a_sagittal_volume_goes_to_its_place(scene: Any) -> None:
    """Rows (j) of the file run to inferior: axial slice 2 is its row 2."""
    geometry = Geometry(SHAPE, AFFINES["sagittal slices"])
    ct = add_volume(Volume(np.zeros(SHAPE, np.int16), geometry), "ct")
    overlay = show_disagreement(ct, image_of(np.full(SHAPE, 50, np.uint8)))
    plane = np.zeros((4, 6), np.uint8)
    plane[1:3, 2:5] = 1
    result = SliceResult({"refined": plane}, 2, list(LIVER_TARGETS), ORIGIN, plane)
    list(show_slice_result(ct, result, may_replace=lambda _: False, shown=ShownAnswer(ct)))
    found = read_labels(prediction_node(ct, "refined"), ct, LIVER_TARGETS)
    assert np.array_equal(found[:, 2], plane)
    assert found.sum() == plane.sum()
    assert np.array_equal(slicer.util.arrayFromVolume(overlay)[:, 2], plane)


def test_prompts_of_a_sagittal_volume_are_drawn_in_its_axial_slices() -> None:
    prompt = SlicePrompts(2, "liver", points=(PointPrompt((3.5, 1.5), positive=False),))
    result = volume_result(
        {}, [prompt], targets=list(LIVER_TARGETS), shape=SHAPE, origin=ORIGIN, axis=1
    )
    drawn = result.drawn["liver"]
    assert drawn is not None
    assert drawn.extent == (1, 5, 2, 2, 1, 1)  # a bar along i


def test_a_result_about_a_slice_makes_no_overlay(ct: Any, labels: Any) -> None:
    result = SliceResult({"refined": labels[2]}, 2, list(LIVER_TARGETS), ORIGIN, labels[2])
    list(show_slice_result(ct, result, may_replace=lambda _: False, shown=ShownAnswer(ct)))
    assert find_overlay(ct) is None


def test_segments_are_flagged_where_predictions_disagree(ct: Any, labels: Any) -> None:
    node = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    flag_disagreement({"refined": node}, {"liver": 0.95, "tumour": 0.3})
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    segmentation = node.GetSegmentation()
    assert logic.GetSegmentStatus(segmentation.GetSegment("tumour")) == logic.Flagged
    assert logic.GetSegmentStatus(segmentation.GetSegment("liver")) == logic.InProgress


def test_a_scene_that_was_saved_with_the_former_tag_is_read(ct: Any, labels: Any) -> None:
    node = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    segment = node.GetSegmentation().GetSegment(segment_ids(node)[0])
    node.RemoveAttribute("ASLseg.Source")
    node.SetAttribute("ASLseg.Voice", PROVENANCE.source)
    segment.RemoveTag("ASLseg.Source")
    segment.SetTag("ASLseg.Voice", PROVENANCE.source)
    assert find_prediction(ct, PROVENANCE.source) is node
    assert read_provenance(segment) == PROVENANCE


def test_what_was_saved_counts_as_saved_in_a_scene_that_comes_back(
    ct: Any, labels: Any, tmp_path: Path
) -> None:
    """Slicer's files of segmentations part the tags of a segment at '|'."""
    node = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    node.GetSegmentation().GetSegment("liver").SetName("tumour 2")
    note_saved(node, ct, shown_in(node, ct))
    assert not holds_unsaved(node, ct)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "labels.seg.nrrd"))
    assert storage.WriteData(node)
    assert storage.ReadData(node)
    assert not holds_unsaved(node, ct)


def test_the_predictions_lie_under_the_study_of_their_volume(ct: Any, labels: Any) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    hierarchy.CreateItem(study, ct)
    node = write_labels(ct, labels, LIVER_TARGETS, PROVENANCE)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def under_transform(node: Any, matrix: Any) -> Any:
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
    values = vtk.vtkMatrix4x4()
    values.DeepCopy(np.asarray(matrix, float).ravel().tolist())
    transform.SetMatrixTransformToParent(values)
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def test_a_volume_under_a_linear_transform_is_worked_on_as_a_hardened_copy(ct: Any) -> None:
    move = np.eye(4)
    move[:3, 3] = (100.0, 0.0, -50.0)
    transform = under_transform(ct, move)
    copy = working_volume(ct)
    assert copy is not ct
    assert copy.GetParentTransformNode() is None
    assert copy.GetName() == "ct (hardened)"
    assert geometry_of(copy).ijk_to_ras == pytest.approx(move @ AFFINES["oblique"])
    assert working_volume(ct) is copy
    move[0, 3] = 7.0
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(move.ravel().tolist())
    transform.SetMatrixTransformToParent(matrix)
    assert working_volume(ct) is copy
    assert geometry_of(copy).ijk_to_ras[0, 3] == pytest.approx(17.0)


def test_a_volume_under_a_warp_is_refused_with_a_remedy(ct: Any) -> None:
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    ct.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(SceneError, match="harden the transform"):
        working_volume(ct)


def test_a_free_volume_is_worked_on_itself(ct: Any) -> None:
    assert working_volume(ct) is ct


def test_a_segment_on_another_grid_is_read_on_the_volumes_grid(scene: Any) -> None:
    fine = add_volume(
        Volume(np.zeros((8, 10, 12), np.int16), Geometry.axis_aligned((8, 10, 12))), "fine"
    )
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    affine[:3, 3] = (-0.5, -0.5, 0.5)  # a coarse voxel covers 2 x 2 x 2 fine ones
    coarse_geometry = Geometry((4, 5, 6), affine)
    coarse = add_volume(Volume(np.zeros((4, 5, 6), np.int16), coarse_geometry), "coarse")
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 2, 3] = 1
    node = write_labels(coarse, labels, LIVER_TARGETS, PROVENANCE)
    mask = read_mask(node, "liver", fine)
    expected = np.zeros((8, 10, 12), bool)
    expected[2:4, 4:6, 6:8] = True
    assert np.array_equal(mask, expected)


def an_answer(folder: Path, geometry: Geometry) -> Done:
    """Write an answer about a whole volume whose final label has a grid."""
    labels = np.zeros(geometry.shape, np.uint8)
    labels[-1, 1:3, 2:4] = 1
    files = {"refined": folder / "refined.nii.gz", "prompts": folder / "prompts.json"}
    write_labelmap(Labelmap(labels, geometry), files["refined"])
    files["prompts"].write_text("[]")
    facts = PredictionFacts(
        run="r", method="aslseg", round=1, weights="", note="", device="cpu",
        slice_index=None, targets=list(LIVER_TARGETS), unmet_clicks=[],
    )  # fmt: skip
    return Done(facts=facts, files={name: str(path) for name, path in files.items()})


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_an_answer_that_lies_elsewhere_is_refused(affine: np.ndarray, tmp_path: Path) -> None:
    geometry = Geometry(SHAPE, affine)
    read = read_volume_result(an_answer(tmp_path, geometry), geometry)
    assert read.predictions["refined"]["liver"] is not None
    move = np.eye(4)
    move[:3, 3] = 3.0
    larger = Geometry((SHAPE[0], SHAPE[1] + 1, SHAPE[2]), affine)
    for elsewhere in (Geometry(SHAPE, move @ affine), larger):
        answer = an_answer(tmp_path, elsewhere)
        with pytest.raises(SceneError, match="lies on other voxels than the volume"):
            read_volume_result(answer, geometry)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_an_answer_about_another_slice_is_refused(
    scene: Any, affine: np.ndarray, tmp_path: Path
) -> None:
    geometry = Geometry(SHAPE, affine)
    node = add_volume(Volume(np.zeros(SHAPE, np.int16), geometry), "ct")
    turn = to_slices(geometry)
    stack = turn.geometry(geometry)

    def plane(at: int, rows: int = 0) -> Geometry:
        moved = stack.ijk_to_ras.copy()
        moved[:3, 3] += at * moved[:3, 2]
        return Geometry((1, stack.shape[1] + rows, stack.shape[2]), moved)

    def read(done: Done) -> Any:
        return read_slice_result(done, 1, plane_geometry_of(node, 1))

    right = read(an_answer(tmp_path, plane(1)))
    assert right.slice_index == 1
    assert right.planes["refined"].shape == stack.shape[1:]
    for elsewhere in (plane(2), plane(1, rows=1)):
        with pytest.raises(SceneError, match="lies on other voxels than the volume"):
            read(an_answer(tmp_path, elsewhere))
    apart = an_answer(tmp_path, plane(1))
    path = tmp_path / "disagreement.nii.gz"
    write_volume(Volume(np.zeros((1, *stack.shape[1:]), np.uint8), plane(2)), path)
    files = {**apart.files, "disagreement": str(path)}
    with pytest.raises(SceneError, match="lies on other voxels than the volume"):
        read(apart.model_copy(update={"files": files}))
