"""What is saved as a label is what is shown, where it is shown, of the case that is shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from harness import wait_for_files

from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import AslsegError, CancelledError
from aslseg.project.given_masks import set_organ_masks
from aslseg.project.project import Project

SHAPE = (8, 20, 24)
GEOMETRY = Geometry(SHAPE, np.diag([-2.0, -2.0, 5.0, 1.0]))


@pytest.fixture
def logic(open_module: Callable[..., Any], tmp_path: Path) -> Any:
    """A logic with a project of one case, `ct`, whose volume is in the scene."""
    open_module()
    from ASLsegLib.logic.logic import Logic

    made = Logic()
    made.add_volume(add_ct("ct"), folder=tmp_path / "project")
    return made


def test_a_label_of_sam_that_is_taken_back_is_as_before_it_was_saved(logic: Any) -> None:
    from ASLsegLib.scene.hidden_segments import show_hidden
    from ASLsegLib.scene.prompts import box_node
    from ASLsegLib.scene.provenance import Provenance
    from ASLsegLib.scene.segmentations import find_prediction, is_approved, write_prediction
    from ASLsegLib.scene.segments import parts_of, segment_ids

    volume, targets = logic.case_node("ct"), logic.targets()
    box = box_node(volume, "liver", (5, 5, 18, 15), 3)
    origin = Provenance("sam", "sam", prompted=True)
    write_prediction(volume, parts_of(liver_mask().astype(np.uint8), targets), targets, origin)
    node = find_prediction(volume, "sam")
    show_hidden(node, segment_ids(node))
    logic.save_label(node)
    assert is_approved(node)
    assert not box.GetDisplayNode().GetHandlesInteractive()
    logic.undo_decision()
    assert not is_approved(node)
    assert box.GetDisplayNode().GetHandlesInteractive()


def test_volumes_are_added_as_those_of_a_patient(logic: Any, tmp_path: Path) -> None:
    from aslseg.data.images import write_volume
    from aslseg.project.patients import with_patients

    logic.add_volume(add_ct("later", value=1), patient="ct")
    for number in (2, 3):
        volume = Volume(np.full(SHAPE, number, np.int16), GEOMETRY)
        write_volume(volume, tmp_path / "more" / f"p9_{number}.nii.gz")
    plan = logic.plan_additions(tmp_path / "more")
    named = with_patients(plan.cases, source="^(p[0-9]+)_")
    logic.write_plan(replace(plan, cases=tuple(named)))
    assert {case.id: case.patient for case in logic.project.cases} == {
        "ct": "ct", "later": "ct", "p9_2": "p9", "p9_3": "p9",
    }  # fmt: skip
    logic.add_volume(add_ct("last", value=4), patient="p9_2")
    assert logic.project.case("last").patient == "p9"


def add_ct(name: str, geometry: Geometry = GEOMETRY, value: int = 0) -> Any:
    from ASLsegLib.scene.volumes import add_volume

    return add_volume(Volume(np.full(geometry.shape, value, np.int16), geometry), name)


def liver_mask() -> Any:
    mask = np.zeros(SHAPE, bool)
    mask[2:6, 5:15, 5:18] = True
    return mask


def lesion_mask(number: int) -> Any:
    mask = np.zeros(SHAPE, bool)
    mask[3:5, 7:10, 3 + 4 * number : 6 + 4 * number] = True
    return mask


def draw(volume: Any, **segments: Any) -> Any:
    """Draw a segmentation; keywords are names of segments, with blanks as '_'."""
    return draw_named(volume, [(name.replace("_", " "), mask) for name, mask in segments.items()])


def draw_named(volume: Any, segments: list[tuple[str, Any]]) -> Any:
    """Draw a segmentation with an empty segment of the target that it has nothing of."""
    from aslseg.targets import LIVER_TARGETS
    from ASLsegLib.scene.lesion_masks import lacking_segments

    node = draw_only(volume, segments)
    for name in lacking_segments(node, LIVER_TARGETS, ["tumour"]):
        node.GetSegmentation().AddEmptySegment("", name)
    return node


def draw_only(volume: Any, segments: list[tuple[str, Any]]) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, mask in segments:
        segment = node.GetSegmentation().AddEmptySegment("", name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask.astype(np.uint8), node, segment, volume
        )
    return node


def move_by(node: Any, mm: tuple[float, float, float]) -> Any:
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
    matrix = vtk.vtkMatrix4x4()
    for axis, distance in enumerate(mm):
        matrix.SetElement(axis, 3, distance)
    transform.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def ct_of(logic: Any) -> Any:
    return logic.case_node("ct")


def saved(project: Project, case_id: str = "ct") -> Any:
    return read_labelmap(project.label_path(project.case(case_id))).labels


def allow_all() -> Any:
    from ASLsegLib.logic.questions import Questions

    return Questions(lambda *_: True, lambda *_: True)


# Which segments make which target.


@pytest.mark.parametrize(
    "names",
    [
        ("tumour 1", "tumour 2"),
        ("tumour", "tumour"),
        (" Tumour ", "TUMOR 2"),
        ("tumour_(1)", "tumour #2"),
    ],
    ids=str,
)
def test_several_segments_make_one_target(logic: Any, names: tuple[str, str]) -> None:
    lesions = [(name, lesion_mask(n)) for n, name in enumerate(names, start=1)]
    logic.save_label(draw_named(ct_of(logic), [("liver", liver_mask()), *lesions]))
    expected = np.where(liver_mask(), 1, 0)
    expected[lesion_mask(1) | lesion_mask(2)] = 2
    assert np.array_equal(saved(logic.project), expected)


def test_a_segment_that_makes_no_target_is_refused_by_its_name(logic: Any) -> None:
    node = draw(ct_of(logic), liver=liver_mask(), cyst=lesion_mask(1), metastasis_3=lesion_mask(2))
    with pytest.raises(AslsegError, match="'cyst' makes no target; 'metastasis 3' makes no target"):
        logic.save_label(node)
    assert logic.project.case("ct").label is None


def test_an_empty_segment_without_a_target_is_no_question(logic: Any) -> None:
    node = draw(ct_of(logic), liver=liver_mask())
    node.GetSegmentation().AddEmptySegment("", "Segment_1")
    logic.save_label(node)
    assert saved(logic.project).sum() == liver_mask().sum()


def test_what_may_be_left_out_is_asked_and_no_saves_nothing(logic: Any) -> None:
    from ASLsegLib.logic.questions import Questions

    node, asked = draw(ct_of(logic), liver=liver_mask(), cyst=lesion_mask(1)), []

    def answer(reply: bool) -> Any:
        return Questions(lambda name, lacking: asked.append((name, *lacking)) or reply)

    with pytest.raises(CancelledError):
        logic.save_label(node, questions=answer(False))
    assert logic.project.case("ct").label is None
    logic.save_label(node, questions=answer(True))
    assert asked == [("drawn", "'cyst' makes no target")] * 2
    assert set(np.unique(saved(logic.project))) == {0, 1}


def test_the_name_that_is_shown_counts_not_the_one_that_was_given_first(logic: Any) -> None:
    from harness import write_labels

    from aslseg.targets import LIVER_TARGETS
    from ASLsegLib.scene.provenance import Provenance

    labels = liver_mask().astype(np.uint8)
    labels[lesion_mask(1)] = 2
    node = write_labels(ct_of(logic), labels, LIVER_TARGETS, Provenance("refined", "aslseg"))
    node.GetSegmentation().GetSegment("tumour").SetName("cyst")
    with pytest.raises(AslsegError, match="'cyst' makes no target"):
        logic.save_label(node)


def test_a_newer_result_beside_an_edited_segment_is_named(logic: Any) -> None:
    node = draw_named(ct_of(logic), [("liver", liver_mask()), ("liver (new)", lesion_mask(5))])
    with pytest.raises(AslsegError, match=r"'liver \(new\)' makes no target"):
        logic.save_label(node)
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetNthSegmentID(0))
    logic.save_label(node)
    assert np.array_equal(saved(logic.project) > 0, lesion_mask(5))


# Which targets it lacks, and what of it is seen.


def test_a_target_that_was_not_drawn_is_asked_about_in_a_first_label(logic: Any) -> None:
    from ASLsegLib.logic.questions import Questions

    node, asked = draw_only(ct_of(logic), [("liver", liver_mask())]), []
    with pytest.raises(AslsegError, match="drawn has no segment of tumour, so its label would say"):
        logic.save_label(node)

    def answer(reply: bool) -> Any:
        return Questions(may_omit=lambda *words: asked.append(words) or reply)

    with pytest.raises(CancelledError):
        logic.save_label(node, questions=answer(False))
    assert logic.project.case("ct").label is None
    logic.save_label(node, questions=answer(True))
    assert asked == [("drawn", ["tumour"], [])] * 2
    logic.save_label(node)  # the label of before has none either
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetNthSegmentID(0))
    node.GetSegmentation().AddEmptySegment("", "tumour")
    with pytest.raises(
        AslsegError, match=r"has no segment of liver.* and liver of the label befor"
    ):
        logic.save_label(node)


def test_lesions_of_the_label_before_do_not_go_unasked(logic: Any) -> None:
    logic.save_label(draw(ct_of(logic), liver=liver_mask(), tumour=lesion_mask(1)))
    node = draw_only(ct_of(logic), [("liver", liver_mask())])
    with pytest.raises(AslsegError, match="and tumour of the label before would be gone; draw"):
        logic.save_label(node)
    assert (saved(logic.project) == 2).any()
    node.GetSegmentation().AddEmptySegment("", "tumour")  # says that there is none
    logic.save_label(node)
    assert not (saved(logic.project) == 2).any()


def test_what_a_label_says_nothing_of_and_given_organs_need_no_segment(logic: Any) -> None:
    node = draw(ct_of(logic), liver=liver_mask())
    logic.save_label(node)
    logic.updated(logic.project.set_label_targets("ct", ["liver"]))
    logic.save_label(draw_only(ct_of(logic), [("liver", liver_mask())]))
    assert logic.project.case("ct").label_targets == ("liver",)
    logic.add_volume(add_ct("other", value=7))
    organ = Labelmap(liver_mask().astype(np.uint8), GEOMETRY)
    logic.updated(set_organ_masks(logic.project, "liver", {"other": organ}))
    logic.save_label(draw_only(logic.case_node("other"), [("tumour", lesion_mask(1))]))
    assert logic.project.case("other").label is not None


@pytest.mark.parametrize("hide", ["segment", "node", "no display"])
def test_what_is_hidden_is_not_saved_by_a_script_unless_it_says_so(logic: Any, hide: str) -> None:
    from ASLsegLib.logic.questions import Questions

    node = draw(ct_of(logic), liver=liver_mask(), tumour_2=lesion_mask(1))
    display, segmentation = node.GetDisplayNode(), node.GetSegmentation()
    if hide == "segment":
        display.SetSegmentVisibility(segmentation.GetSegmentIdBySegmentName("tumour 2"), False)
    elif hide == "node":
        display.SetVisibility(False)
    else:
        slicer.mrmlScene.RemoveNode(display)
    names = "tumour 2" if hide == "segment" else "liver, tumour 2"
    with pytest.raises(AslsegError, match=rf"drawn is hidden \({names}\), and what is saved has"):
        logic.save_label(node)
    assert logic.project.case("ct").label is None
    logic.save_label(node, questions=Questions(may_hide=lambda *_: True))
    assert set(np.unique(saved(logic.project))) == {0, 1, 2}


# Where it is shown.


@pytest.mark.parametrize("moved", ["both", "segmentation", "volume"])
def test_a_label_is_saved_where_it_is_shown_on_the_volume(logic: Any, moved: str) -> None:
    node = draw(ct_of(logic), liver=liver_mask())
    if moved != "segmentation":
        move_by(ct_of(logic), (10.0, 0.0, 0.0))
    if moved != "volume":
        move_by(node, (10.0, 0.0, 0.0))
    logic.save_label(node)
    steps = {"both": 0, "segmentation": -5, "volume": 5}[moved]  # of 2 mm, i runs to the left
    assert np.array_equal(saved(logic.project) > 0, np.roll(liver_mask(), steps, axis=2))


def test_a_volume_that_was_added_under_a_transform_keeps_its_labels_in_place(
    open_module: Any, tmp_path: Path
) -> None:
    open_module()
    from ASLsegLib.logic.logic import Logic

    made, volume = Logic(), add_ct("moved")
    node = draw(volume, liver=liver_mask())
    for moved in (volume, node):
        move_by(moved, (10.0, 0.0, 0.0))
    made.add_volume(volume, folder=tmp_path / "project")
    made.save_label(node)
    labels = read_labelmap(made.project.label_path(made.project.case("moved")))
    centre = labels.geometry.ijk_to_ras @ [*np.argwhere(labels.labels).mean(axis=0)[::-1], 1]
    assert centre[0] == pytest.approx(-2.0 * 11.0 + 10.0)  # columns 5 to 17, moved


def test_a_segmentation_of_another_place_is_refused(logic: Any) -> None:
    node = draw(ct_of(logic), liver=liver_mask())
    move_by(node, (500.0, 0.0, 0.0))
    with pytest.raises(AslsegError, match="holds nothing that lies within ct"):
        logic.save_label(node)
    assert logic.project.case("ct").label is None


def test_a_part_outside_of_the_volume_is_named(logic: Any) -> None:
    node = draw(ct_of(logic), liver=liver_mask())
    move_by(node, (20.0, 0.0, 0.0))  # ten columns: 5 to 17 become -5 to 7
    with pytest.raises(AslsegError, match="38% of 'liver' lies outside of ct"):
        logic.save_label(node)
    logic.save_label(node, questions=allow_all())
    assert np.array_equal(saved(logic.project) > 0, np.roll(liver_mask(), -10, axis=2) & inside())


def inside() -> Any:
    mask = np.zeros(SHAPE, bool)
    mask[:, :, :8] = True
    return mask


def test_a_segmentation_that_is_a_surface_only_is_saved_as_its_voxels(logic: Any) -> None:
    node = draw(ct_of(logic), liver=liver_mask())
    segmentation = node.GetSegmentation()
    converter = slicer.vtkSegmentationConverter
    surface = converter.GetSegmentationClosedSurfaceRepresentationName()
    node.CreateClosedSurfaceRepresentation()
    segmentation.SetSourceRepresentationName(surface)
    segmentation.RemoveRepresentation(converter.GetSegmentationBinaryLabelmapRepresentationName())
    logic.save_label(node)
    both = (saved(logic.project) > 0) & liver_mask()
    assert both.sum() > 0.7 * liver_mask().sum()


def test_lesions_are_measured_where_they_are_shown(logic: Any) -> None:
    node = draw(ct_of(logic), liver=liver_mask(), tumour=lesion_mask(1))
    for moved in (node, ct_of(logic)):
        move_by(moved, (10.0, 0.0, 0.0))
    found = logic.lesions(node)
    assert found[0].centroid_ras[0] == pytest.approx(-2.0 * 8.0 + 10.0)


# Of the case that is shown.


def test_the_case_is_that_of_the_segmentations_volume(logic: Any) -> None:
    logic.add_volume(add_ct("other", value=7))
    node = draw(ct_of(logic), liver=liver_mask())
    with pytest.raises(AslsegError, match="drawn on case ct, so it cannot be the label of other"):
        logic.save_label(node, "other")
    with pytest.raises(AslsegError, match="was drawn on ct, not on other"):
        logic.save_label(node, "other", logic.case_node("other"))
    assert all(case.label is None for case in logic.project.cases)
    logic.save_label(node)
    assert [case.id for case in logic.project.labelled] == ["ct"]


def test_a_volume_that_is_no_case_has_no_label(logic: Any) -> None:
    node = draw(add_ct("stranger"), liver=liver_mask())
    with pytest.raises(AslsegError, match="stranger, which is no case of"):
        logic.save_label(node)


def test_a_case_of_another_project_is_not_the_case_of_this_name(logic: Any, tmp_path: Path) -> None:
    node = draw(ct_of(logic), liver=liver_mask())
    logic.add_volume(add_ct("ct", value=3), case_id="ct", folder=tmp_path / "second")
    assert logic.project.folder == tmp_path / "second"
    with pytest.raises(AslsegError, match="which is no case of"):
        logic.save_label(node)


def test_a_volume_whose_voxels_were_replaced_is_its_case_no_more(logic: Any) -> None:
    node, volume = draw(ct_of(logic), liver=liver_mask()), ct_of(logic)
    slicer.util.updateVolumeFromArray(volume, np.full(SHAPE, 9, np.int16))
    with pytest.raises(AslsegError, match="are not those of case ct any more"):
        logic.save_label(node)
    fresh = logic.load_case("ct")
    assert fresh is not volume
    assert slicer.util.arrayFromVolume(fresh).max() == 0


def copy_of_node(volume: Any) -> Any:
    """Clone a volume node as the Data module does: with its attributes."""
    copy = add_ct("ct Copy")
    for name in ("Case", "Image", "Voxels", "Project", "Label"):
        copy.SetAttribute(f"ASLseg.{name}", volume.GetAttribute(f"ASLseg.{name}"))
    return copy


def test_what_was_drawn_on_a_copy_with_other_voxels_is_no_label(logic: Any) -> None:
    copy = copy_of_node(ct_of(logic))
    slicer.util.updateVolumeFromArray(copy, np.full(SHAPE, 9, np.int16))
    copy.SetOrigin(100.0, 0.0, 0.0)
    node = draw(copy, liver=liver_mask())
    for save in (logic.save_label, logic.save_organ_mask):
        with pytest.raises(
            AslsegError, match="voxels of ct Copy are not those of case ct any more"
        ):
            save(node)
    assert logic.project.case("ct").label is None


def test_what_was_drawn_on_a_mere_copy_is_a_label(logic: Any) -> None:
    logic.save_label(draw(copy_of_node(ct_of(logic)), liver=liver_mask()))
    assert np.array_equal(saved(logic.project) > 0, liver_mask())


def test_a_project_that_was_moved_away_is_not_made_anew(logic: Any, tmp_path: Path) -> None:
    folder = logic.project.folder
    folder.rename(tmp_path / "moved")
    for act in (
        lambda: logic.add_volume(add_ct("more", value=4)),
        lambda: logic.reject("ct"),
        lambda: logic.set_split("ct", "test"),
        lambda: logic.rename_case("ct", "other"),
        lambda: logic.undo_decision(),
        lambda: logic.save_label(draw(ct_of(logic), liver=liver_mask())),
    ):
        with pytest.raises(AslsegError, match=r"There is no folder"):
            act()
    assert not folder.exists()


def test_a_volume_that_was_put_elsewhere_is_refused(logic: Any) -> None:
    node, volume = draw(ct_of(logic), liver=liver_mask()), ct_of(logic)
    volume.SetOrigin(100.0, 0.0, 0.0)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    with pytest.raises(AslsegError):
        logic.save_label(node, questions=allow_all())
    assert logic.project.case("ct").label is None


def test_a_label_that_was_saved_meanwhile_is_not_overwritten(logic: Any) -> None:
    theirs = Labelmap(np.where(lesion_mask(2), 1, 0).astype(np.uint8), GEOMETRY)
    logic.project.save_label("ct", theirs)  # by another program
    node = draw(ct_of(logic), liver=liver_mask())
    with pytest.raises(AslsegError, match="was changed since it was loaded"):
        logic.save_label(node)
    logic.load_case("ct")
    logic.save_label(node)  # they have seen it now
    assert np.array_equal(saved(logic.project) > 0, liver_mask())
    logic.undo_decision()
    assert np.array_equal(saved(logic.project) > 0, lesion_mask(2))


def test_nothing_is_exported_over_what_the_project_keeps(logic: Any, tmp_path: Path) -> None:
    node = draw(ct_of(logic), liver=liver_mask())
    project = logic.save_label(node)
    case = project.case("ct")
    kept = {
        path: path.read_bytes() for path in (project.label_path(case), project.image_path(case))
    }
    link = tmp_path / "link.nii.gz"
    link.symlink_to(project.image_path(case))
    for path in (*kept, link):
        with pytest.raises(AslsegError, match=r"never replaced|keeps its own files"):
            logic.export_nifti(node, path)
        with pytest.raises(AslsegError, match=r"never replaced|keeps its own files"):
            logic.write_lesions([], path)
    assert {path: path.read_bytes() for path in kept} == kept
    for name in ("project.json", "reviews.jsonl"):
        before = (project.folder / name).read_bytes()
        with pytest.raises(AslsegError, match="keeps its own files"):
            logic.write_lesions([], project.folder / name)
        assert (project.folder / name).read_bytes() == before
    logic.export_nifti(node, project.folder / "liver.nii.gz")
    assert (project.folder / "liver.nii.gz").exists()


def test_slices_that_were_marked_elsewhere_are_not_taken_back(logic: Any) -> None:
    from aslseg.project.complete_slices import set_complete_slices

    logic.save_label(draw(ct_of(logic), liver=liver_mask()))
    logic.mark_slice_complete("ct", 3)
    set_complete_slices(logic.project, "ct", [2, 3, 4])  # by another program
    with pytest.raises(AslsegError, match="complete was changed elsewhere; look again"):
        logic.undo()
    assert logic.project.case("ct").complete_slices == (2, 3, 4)
    logic.mark_slice_complete("ct", 5)
    logic.undo()
    assert logic.project.case("ct").complete_slices == (2, 3, 4)


def test_a_saved_label_is_taken_back(logic: Any) -> None:
    logic.save_label(draw(ct_of(logic), liver=liver_mask()))
    assert logic.last_decision() == "ct: labelled"
    assert [one.state for one in logic.case_reports()] == ["labelled"]
    logic.undo_decision("ct: labelled")
    assert logic.project.case("ct").label is None


def test_only_the_decision_that_was_named_is_taken_back(logic: Any) -> None:
    logic.save_label(draw(ct_of(logic), liver=liver_mask()))
    with pytest.raises(AslsegError, match="another one by now"):
        logic.undo_decision("ct: rejected")
    assert logic.project.case("ct").label is not None


# Names.


def test_a_second_volume_of_a_name_leaves_the_first_image_alone(logic: Any) -> None:
    image = logic.project.folder / "images" / "ct.nrrd"
    before = image.read_bytes()
    with pytest.raises(AslsegError, match="has a case 'ct' already"):
        logic.add_volume(add_ct("second", value=5), case_id="CT")
    (logic.project.folder / "images" / "free.nrrd").write_bytes(b"somebody's")
    with pytest.raises(AslsegError, match="is there already and is left as it is"):
        logic.add_volume(add_ct("third", value=6), case_id="free")
    assert image.read_bytes() == before
    assert (image.parent / "free.nrrd").read_bytes() == b"somebody's"
    assert [case.id for case in logic.project.cases] == ["ct"]
    logic.add_volume(add_ct("fourth", value=7), case_id="ven\u00f6s")
    with pytest.raises(AslsegError, match="has a case 'ven\u00f6s' already; rename the volume"):
        logic.add_volume(add_ct("fifth", value=8), case_id="veno\u0308s")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("腹部CT", "case-腹部CT"),
        ("Leber & venös", "Leber---venös"),
        ("3: Abdomen 5.0 B30f", "3--Abdomen-5-0-B30f"),
        ("...", "case"),
        ("é", "case-é"),
        ("x" * 150, "x" * 100),
        ("肝" * 150, "case-" + "肝" * 31),
        ("-a-", "a"),
        ("½", "1-2"),
    ],
)
def test_every_name_of_a_volume_makes_a_case(
    logic: Any, tmp_path: Path, name: str, expected: str
) -> None:
    logic.add_volume(add_ct(name, value=4))
    assert logic.project.cases[-1].id == expected
    assert (tmp_path / "project" / "images" / f"{expected}.nrrd").exists()


# What was shown, when a run goes on.


@pytest.fixture
def reviewing(open_module: Any, trained: Path) -> Any:
    logic = open_module().logic
    logic.open_project(trained)
    return logic


def newer_round(project: Project, case_id: str, labels: Any) -> None:
    """Let the run of a project have a second, better round that says something else of a case."""
    run = next((project.folder / "runs").iterdir())
    shutil.copytree(run / "round-01", run / "round-02")
    path = run / "round-02" / "predictions" / case_id / "refined.nii.gz"
    write_labelmap(Labelmap(labels, read_labelmap(path).geometry), path)
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    (run / "status.json").write_text(json.dumps({**status, "best_round": 2}))


def test_what_a_run_says_of_other_voxels_is_not_shown(reviewing: Any) -> None:
    run = next((reviewing.project.folder / "runs").iterdir())
    path = run / "round-01" / "predictions" / "c2" / "specialist.nii.gz"
    found = read_labelmap(path)
    affine = found.geometry.ijk_to_ras.copy()
    affine[0, 3] += 10.0
    write_labelmap(Labelmap(found.labels, Geometry(found.labels.shape, affine)), path)
    with pytest.raises(AslsegError, match="lies on other voxels than the image of its case"):
        reviewing.load_case("c2")
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []


def test_what_is_shown_is_accepted_though_a_newer_round_is_there(reviewing: Any) -> None:
    from aslseg.project.review import history

    volume = reviewing.load_case("c2")
    shown = reviewing.labelmap_of(reviewing.predictions(volume)["refined"]).labels
    newer = np.roll(shown, 3, axis=1)
    newer_round(reviewing.project, "c2", newer)
    reviewing.refresh()
    reviewing.accept("c2")
    assert np.array_equal(saved(reviewing.project, "c2"), shown)
    decision = history(reviewing.project)[-1]
    assert (decision.what, decision.round) == ("accepted", 1)


def test_labels_that_nobody_edited_are_renewed_when_the_case_is_loaded(reviewing: Any) -> None:
    volume = reviewing.load_case("c2")
    node = reviewing.predictions(volume)["refined"]
    newer = np.roll(reviewing.labelmap_of(node).labels, 3, axis=1)
    newer_round(reviewing.project, "c2", newer)
    reviewing.refresh()
    assert reviewing.load_case("c2") is volume
    assert np.array_equal(reviewing.labelmap_of(node).labels, newer)


def edited_liver(logic: Any) -> tuple[Any, Any, np.ndarray]:
    """Load case c2, and draw in its final label; return volume, node and what the liver is now."""
    from harness import read_mask, write_mask

    volume = logic.load_case("c2")
    node = logic.predictions(volume)["refined"]
    mask = read_mask(node, "liver", volume)
    mask[0, :3, :3] = True
    write_mask(node, "liver", mask, volume)
    return volume, node, mask


def test_labels_that_a_person_edited_are_not_renewed(reviewing: Any) -> None:
    from harness import read_mask

    volume, node, mask = edited_liver(reviewing)
    newer_round(reviewing.project, "c2", np.zeros(mask.shape, np.uint8))
    reviewing.refresh()
    reviewing.load_case("c2")
    assert np.array_equal(read_mask(node, "liver", volume), mask)


def test_a_label_beside_what_a_person_drew_is_not_taken_for_seen(reviewing: Any) -> None:
    from aslseg.project.review import draw as save_drawn

    _, node, mask = edited_liver(reviewing)
    other = Labelmap(np.ones(mask.shape, np.uint8), reviewing.labelmap_of(node).geometry)
    save_drawn(reviewing.project, "c2", other)
    reviewing.load_case("c2")
    with pytest.raises(AslsegError, match="changed since it was loaded; undo what was drawn"):
        reviewing.accept("c2")
    assert np.array_equal(saved(reviewing.project, "c2"), other.labels)


def show_result_of_prompts(logic: Any, volume: Any, plane: Any, k: int) -> None:
    """Show what the engine makes of a person's prompts about a slice."""
    from ASLsegLib.engine.results import ShownAnswer, SliceResult, show_slice_result
    from ASLsegLib.scene.provenance import Provenance

    origin = Provenance("", "aslseg", logic.usable_run(), 1, prompted=True)
    result = SliceResult({"refined": plane}, k, list(logic.targets()), origin)
    list(show_slice_result(volume, result, may_replace=lambda _: False, shown=ShownAnswer(volume)))


def test_the_result_of_a_prompt_is_saved_as_the_persons_correction(reviewing: Any) -> None:
    from aslseg.project.review import history

    volume = reviewing.load_case("c2")
    node = reviewing.predictions(volume)["refined"]
    expected = reviewing.labelmap_of(node).labels.copy()
    plane = np.roll(expected[6], 5, axis=0)
    expected[6] = plane
    show_result_of_prompts(reviewing, volume, plane, 6)
    assert node.GetSegmentation().GetNumberOfSegments() == 2
    reviewing.accept("c2")
    assert np.array_equal(saved(reviewing.project, "c2"), expected)
    assert history(reviewing.project)[-1].what == "corrected"


def test_a_further_prompt_replaces_the_result_of_the_one_before(reviewing: Any) -> None:
    volume = reviewing.load_case("c2")
    node = reviewing.predictions(volume)["refined"]
    for number in (1, 2):
        plane = np.roll(reviewing.labelmap_of(node).labels[6], number, axis=0)
        show_result_of_prompts(reviewing, volume, plane, 6)
    assert node.GetSegmentation().GetNumberOfSegments() == 2
    assert np.array_equal(reviewing.labelmap_of(node).labels[6], plane)


def test_a_new_segmentation_does_not_replace_the_result_of_a_prompt(reviewing: Any) -> None:
    from harness import write_labels

    from ASLsegLib.scene.provenance import Provenance

    volume = reviewing.load_case("c2")
    node = reviewing.predictions(volume)["refined"]
    labels = reviewing.labelmap_of(node).labels
    show_result_of_prompts(reviewing, volume, np.roll(labels[6], 5, axis=0), 6)
    asked: list[list[str]] = []
    write_labels(
        volume,
        labels,
        reviewing.targets(),
        Provenance("refined", "aslseg"),
        may_replace=lambda names: asked.append(list(names)),
    )
    assert asked == [["liver", "tumour"]]
    assert node.GetSegmentation().GetNumberOfSegments() == 4


# What goes away meanwhile.


def test_a_segmentation_that_is_deleted_while_it_is_saved_is_saved_as_it_was(
    reviewing: Any,
) -> None:
    volume = reviewing.load_case("c2")
    node = reviewing.predictions(volume)["refined"]
    shown = reviewing.labelmap_of(node).labels
    reviewing.accept.begin("c2")
    slicer.mrmlScene.RemoveNode(node)
    slicer.mrmlScene.RemoveNode(volume)
    wait_for_files(reviewing)
    assert np.array_equal(saved(reviewing.project, "c2"), shown)


def test_a_result_that_comes_while_the_one_before_is_saved_is_not_taken_for_it(
    reviewing: Any,
) -> None:
    from harness import write_labels

    from ASLsegLib.scene.provenance import Provenance

    volume = reviewing.load_case("c2")
    node = reviewing.predictions(volume)["refined"]
    shown = reviewing.labelmap_of(node).labels.copy()
    reviewing.accept.begin("c2")
    origin = Provenance("refined", "aslseg", reviewing.usable_run(), 1)
    write_labels(volume, np.roll(shown, 3, axis=1), reviewing.targets(), origin)
    wait_for_files(reviewing)
    assert np.array_equal(saved(reviewing.project, "c2"), shown)
    reviewing.load_case("c2")
    assert np.array_equal(reviewing.labelmap_of(node).labels, shown)


def test_a_decision_about_a_project_does_not_open_it_again(reviewing: Any, tmp_path: Path) -> None:
    second = shutil.copytree(reviewing.project.folder, tmp_path / "second")
    volume = reviewing.load_case("c2")
    reviewing.accept.begin("c2")
    reviewing.open_project(second)
    wait_for_files(reviewing)
    assert reviewing.project.folder == second
    assert volume is not None


def test_a_case_that_is_loaded_while_the_scene_is_closed_stays_away(reviewing: Any) -> None:
    reviewing.load_case.begin("c2")
    slicer.mrmlScene.Clear(0)
    wait_for_files(reviewing)
    assert reviewing.case_node("c2") is None


def test_a_volume_that_is_deleted_while_its_case_is_read_is_asked_for_again(
    reviewing: Any, dialogs: Any
) -> None:
    volume = reviewing.load_case("c2")
    reviewing.load_case.begin("c2")
    slicer.mrmlScene.RemoveNode(volume)
    wait_for_files(reviewing)
    dialogs.take("was removed from the scene; load the case again")
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == []


# Scenes that come from elsewhere.


def test_a_scene_that_calls_another_volume_a_case_is_not_believed(logic: Any) -> None:
    from ASLsegLib.scene.case_nodes import CASE, digest_of_voxels

    stranger = add_ct("stranger", value=8)
    for name in (CASE, "ASLseg.Image"):
        stranger.SetAttribute(name, ct_of(logic).GetAttribute(name))
    stranger.SetAttribute("ASLseg.Voxels", digest_of_voxels(stranger))
    slicer.mrmlScene.RemoveNode(ct_of(logic))
    assert logic.case_node("ct") is stranger
    with pytest.raises(AslsegError, match="is not the image of case ct, whatever the scene says"):
        logic.save_label(draw(stranger, liver=liver_mask()))
    assert logic.project.case("ct").label is None


def test_a_file_that_was_replaced_after_it_was_loaded_gets_no_label_of_what_was_loaded(
    logic: Any, tmp_path: Path
) -> None:
    from aslseg.data.images import write_volume
    from ASLsegLib.scene.volumes import own_file

    paths = [tmp_path / f"{name}.nrrd" for name in ("same", "other")]
    nodes = []
    for number, path in enumerate(paths, start=1):
        write_volume(Volume(np.full(SHAPE, number, np.int16), GEOMETRY), path)
        nodes.append(slicer.util.loadVolume(str(path)))
    write_volume(Volume(np.full(SHAPE, 70, np.int16), GEOMETRY), paths[1])
    assert [own_file(node) for node in nodes] == paths
    same, other = nodes
    logic.add_volume(same, case_id="same")
    logic.save_label(draw(same, liver=liver_mask()))
    assert logic.project.case("same").label is not None
    logic.add_volume(other, case_id="other")
    drawn = draw(other, liver=liver_mask())
    with pytest.raises(AslsegError, match=r"case other, .*may have been replaced"):
        logic.save_label(drawn)
    assert logic.project.case("other").label is None
    slicer.mrmlScene.RemoveNode(other)
    volume = logic.load_case("other")
    assert slicer.util.arrayFromVolume(volume).min() == 70
    logic.save_label(draw(volume, liver=liver_mask()))


def test_a_case_that_comes_back_with_its_scene_is_still_the_case(
    logic: Any, tmp_path: Path
) -> None:
    from ASLsegLib.logic.logic import Logic

    draw(ct_of(logic), liver=liver_mask())
    path, folder = tmp_path / "scene.mrb", logic.project.folder
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(path))
    fresh = Logic()
    fresh.open_project(folder)
    fresh.save_label(slicer.util.getNode("drawn"))
    assert np.array_equal(saved(fresh.project) > 0, liver_mask())
