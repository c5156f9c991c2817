"""Points and boxes in the scene are the prompts that SAM gets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SlicerASLseg"))

from harness import put_under, remove_prompts, shift_up, show_slice_of

from aslseg.data.volume import Geometry, Volume
from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts
from aslseg.targets import LIVER_TARGETS
from ASLsegLib.scene.drawn_prompts import draw_prompts
from ASLsegLib.scene.prompts import (
    NEGATIVE,
    POSITIVE,
    Group,
    add_point,
    box_node,
    clear_slice,
    edited_slices,
    flatten_box,
    group,
    points_node,
    prompt_nodes,
    read_prompts,
    take_over,
)
from ASLsegLib.scene.slice_views import current_slice, draw_in_plane, show_slice, slice_view_of
from ASLsegLib.scene.volumes import add_volume, slice_geometry_of, working_volume

SHAPE = (6, 40, 50)
SAGITTAL_SHAPE = (40, 6, 50)
"""Stored in sagittal slices, with axial ones of the same shape."""
COS, SIN = np.cos(np.pi / 6), np.sin(np.pi / 6)
AFFINES = {
    "LPS": np.diag([-2.0, -3.0, 4.0, 1.0]),
    "left-handed": np.diag([2.0, -3.0, 4.0, 1.0]),
    "oblique": np.array(
        [[-2 * COS, 3 * SIN, 0, 10], [-2 * SIN, -3 * COS, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]]
    ),
    "sagittal slices": np.array([[0, 0, 4, 1], [-2, 0, 0, 2], [0, -3, 0, 3], [0, 0, 0, 1]], float),
}


@pytest.fixture(params=AFFINES, ids=str)
def ct(request: pytest.FixtureRequest, scene: Any) -> Any:
    shape = SAGITTAL_SHAPE if request.param == "sagittal slices" else SHAPE
    volume = Volume(np.zeros(shape, np.int16), Geometry(shape, AFFINES[request.param]))
    return add_volume(volume, "ct")


@pytest.fixture
def lps(scene: Any) -> Any:
    return add_volume(Volume(np.zeros(SHAPE, np.int16), Geometry(SHAPE, AFFINES["LPS"])), "ct")


PROPOSED = [
    SlicePrompts(2, "liver", 0, BoxPrompt((5.0, 6.0, 25.0, 30.0))),
    SlicePrompts(2, "tumour", 0, BoxPrompt((10.0, 10.0, 14.0, 15.0)), (PointPrompt((12.5, 12.5)),)),
    SlicePrompts(3, "liver", 0, BoxPrompt((5.0, 6.0, 20.0, 20.0))),
]


def as_values(prompts: list[Any]) -> list[Any]:
    return [
        (p.slice_index, p.target, p.box and p.box.xyxy, [(q.xy, q.positive) for q in p.points])
        for p in prompts
    ]


def rounded(prompts: list[Any]) -> list[Any]:
    return [
        (
            k,
            target,
            box and tuple(round(x, 3) for x in box),
            [((round(x, 3), round(y, 3)), positive) for (x, y), positive in points],
        )
        for k, target, box, points in as_values(prompts)
    ]


def test_handles_of_a_box_are_small_enough_to_see_what_is_in_it(ct: Any) -> None:
    usual = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    usual.CreateDefaultDisplayNodes()
    box = box_node(ct, "liver", (3, 4, 9, 8), 2)
    scales = [node.GetDisplayNode().GetInteractionHandleScale() for node in (box, usual)]
    assert scales == [1.5, 3.0]


def test_prompts_go_to_the_scene_and_come_back(ct: Any) -> None:
    take_over(ct, PROPOSED, 2)
    assert rounded(read_prompts(ct, (), 2)) == rounded(PROPOSED[:2])
    assert len(prompt_nodes(ct)) == 3


def test_a_click_in_the_scene_is_the_pixel_under_it(lps: Any) -> None:
    # voxel (i, j, k) = (7, 4, 3) lies at RAS (-14, -12, 12); its pixel's middle is (7.5, 4.5)
    points_node(lps, "tumour", POSITIVE).AddControlPointWorld(-14.0, -12.0, 12.0)
    assert as_values(read_prompts(lps)) == [(3, "tumour", None, [((7.5, 4.5), True)])]


def test_a_box_covers_its_pixels_from_edge_to_edge(lps: Any) -> None:
    node = box_node(lps, "tumour", (10.0, 20.0, 14.0, 26.0), 3)
    size, centre = [0.0] * 3, [0.0] * 3
    node.GetSizeWorld(size)
    node.GetCenterWorld(centre)
    # 4 pixels of 2 mm, 6 of 3 mm; the middle is i = 11.5, j = 22.5 on an LPS grid
    assert size[:2] == pytest.approx([8.0, 18.0])
    assert centre == pytest.approx([-23.0, -67.5, 12.0])


def test_a_box_through_several_slices_counts_in_each_of_them(lps: Any) -> None:
    node = box_node(lps, "liver", (10.0, 20.0, 14.0, 26.0), 3)
    node.SetSize(8.0, 18.0, 10.0)  # from k = 1.75 to k = 4.25
    assert [p.slice_index for p in read_prompts(lps)] == [2, 3, 4]
    flatten_box(node, lps)
    assert [p.slice_index for p in read_prompts(lps)] == [3]


def test_what_lies_outside_of_the_volume_says_nothing(lps: Any) -> None:
    points_node(lps, "liver", POSITIVE).AddControlPointWorld(900.0, 0.0, 0.0)
    box_node(lps, "liver", (10.0, 20.0, 14.0, 26.0), 40)
    assert read_prompts(lps) == []


def test_a_click_on_a_proposed_box_joins_it(lps: Any) -> None:
    add_point(lps, "tumour", (11.5, 13.5), 2, NEGATIVE)
    tumour = next(p for p in as_values(read_prompts(lps, PROPOSED, 2)) if p[1] == "tumour")
    assert tumour[2] == (10.0, 10.0, 14.0, 15.0)
    assert sorted(tumour[3]) == [((11.5, 13.5), False), ((12.5, 12.5), True)]


def test_slices_that_were_taken_over_have_the_scenes_prompts_alone(lps: Any) -> None:
    take_over(lps, PROPOSED, 2)
    forgotten = next(n for n in prompt_nodes(lps) if "liver" in n.GetName())
    slicer.mrmlScene.RemoveNode(forgotten)
    found = as_values(read_prompts(lps, PROPOSED))
    assert [(k, target) for k, target, _, _ in found] == [(2, "tumour"), (3, "liver")]
    take_over(lps, PROPOSED, 2)
    assert len(prompt_nodes(lps)) == 2


def test_a_cleared_slice_has_no_prompts(lps: Any) -> None:
    add_point(lps, "tumour", (11.5, 13.5), 2)
    add_point(lps, "tumour", (11.5, 13.5), 4)
    clear_slice(lps, 2)
    assert [p[:2] for p in as_values(read_prompts(lps, PROPOSED))] == [
        (3, "liver"),
        (4, "tumour"),
    ]
    assert edited_slices(lps) == {2, 4}
    remove_prompts(lps)
    assert as_values(read_prompts(lps, PROPOSED)) == as_values(PROPOSED)


SMALL, LARGE = (10.0, 10.0, 20.0, 20.0), (0.0, 0.0, 40.0, 40.0)


def test_a_point_belongs_to_the_smallest_box_around_it() -> None:
    found = group([LARGE, SMALL], [((15.0, 15.0), True), ((30.0, 30.0), False)])
    assert found == [
        Group(LARGE, [((30.0, 30.0), False)]),
        Group(SMALL, [((15.0, 15.0), True)]),
    ]


def test_positive_points_outside_of_boxes_are_one_object_with_the_negative_ones() -> None:
    points = [((30.0, 30.0), True), ((32.0, 30.0), True), ((35.0, 30.0), False)]
    assert group([SMALL], points) == [Group(SMALL), Group(None, points)]


def test_a_negative_point_alone_goes_to_the_nearest_box() -> None:
    far = (100.0, 100.0, 110.0, 110.0)
    assert group([far, SMALL], [((24.0, 15.0), False)])[1].points == [((24.0, 15.0), False)]


def test_a_negative_point_without_anything_says_nothing() -> None:
    assert group([], [((24.0, 15.0), False)]) == []


def test_removed_prompts_leave_neither_display_nodes_nor_anything_drawn(ct: Any) -> None:
    view = slicer.app.layoutManager().threeDWidget(0).threeDView()
    renderer = view.renderWindow().GetRenderers().GetFirstRenderer()
    props = renderer.GetViewProps().GetNumberOfItems()
    displays = len(slicer.util.getNodesByClass("vtkMRMLMarkupsDisplayNode"))
    box_node(ct, "liver", (2.0, 3.0, 6.0, 9.0), 1)
    add_point(ct, "liver", (4.5, 5.5), 1)
    slicer.app.processEvents()
    assert renderer.GetViewProps().GetNumberOfItems() > props
    remove_prompts(ct)
    assert renderer.GetViewProps().GetNumberOfItems() == props
    assert len(slicer.util.getNodesByClass("vtkMRMLMarkupsDisplayNode")) == displays


def test_prompts_are_drawn_as_frames_and_crosses() -> None:
    prompt = SlicePrompts(
        1, "tumour", 0, BoxPrompt((2.0, 3.0, 6.0, 9.0)), (PointPrompt((20.5, 20.5)),)
    )
    drawn = draw_prompts([prompt], LIVER_TARGETS, SHAPE)
    # 4 x 6 pixels: 2 * 4 + 2 * 4 on the frame; a cross of 5 + 5 - 1
    assert (drawn == 2).sum() == 16 + 9
    assert drawn[1, 3, 2:6].tolist() == [2, 2, 2, 2]
    assert drawn[1, 5, 2:6].tolist() == [2, 0, 0, 2]
    assert drawn[1, 20, 18:23].tolist() == [2] * 5


def test_the_slice_that_is_looked_at_is_found_in_any_orientation(ct: Any) -> None:
    slicer.util.setSliceViewerLayers(background=ct, fit=True)
    for k in (1, 4):
        show_slice_of(ct, k)
        assert current_slice(ct) == k


def test_the_slice_that_is_looked_at_is_found_under_a_transform(ct: Any) -> None:
    put_under(ct, shift_up(8.0) @ np.diag([-1.0, -1.0, 1.0, 1.0]))
    moved = working_volume(ct)
    slicer.util.setSliceViewerLayers(background=ct, fit=True)
    for k in (1, 4):
        show_slice_of(moved, k)
        assert current_slice(ct) == current_slice(moved) == k
        show_slice(ct, 2)
        assert current_slice(moved) == 2


def test_the_slice_that_is_looked_at_is_one_of_a_view_that_the_layout_has(ct: Any) -> None:
    manager, layouts = slicer.app.layoutManager(), slicer.vtkMRMLLayoutNode
    green = manager.sliceWidget("Green").mrmlSliceNode()
    green.SetOrientation("Axial")
    show_slice_of(ct, 1)
    manager.setLayout(layouts.SlicerLayoutOneUpGreenSliceView)
    green.JumpSliceByOffsetting(*(slice_geometry_of(ct).ijk_to_ras @ (0, 0, 3, 1))[:3].tolist())
    assert current_slice(ct) == 3
    manager.setLayout(layouts.SlicerLayoutOneUpRedSliceView)
    assert current_slice(ct) == 1
    manager.setLayout(layouts.SlicerLayoutOneUpYellowSliceView)  # shows no axial slice
    assert slice_view_of(ct).GetName() == "Red"


def test_what_is_drawn_in_plane_is_drawn_in_views_of_the_volumes_own_slices(ct: Any) -> None:
    node = points_node(ct, "liver", POSITIVE)
    draw_in_plane(node.GetDisplayNode(), ct)
    views = [node.GetDisplayNode().GetNthViewNodeID(n) for n in range(5)]
    assert views == [slice_view_of(ct).GetID(), None, None, None, None]


def test_axial_slices_of_a_sagittal_volume_are_looked_for_in_the_red_view(scene: Any) -> None:
    geometry = Geometry(SAGITTAL_SHAPE, AFFINES["sagittal slices"])
    ct = add_volume(Volume(np.zeros(SAGITTAL_SHAPE, np.int16), geometry), "ct")
    assert slice_view_of(ct).GetName() == "Red"


def test_a_click_on_a_sagittal_volume_is_a_pixel_of_an_axial_slice(scene: Any) -> None:
    """Voxel (i, j, k) = (7, 4, 3): slice j, in which columns are i and rows are k."""
    geometry = Geometry(SAGITTAL_SHAPE, AFFINES["sagittal slices"])
    ct = add_volume(Volume(np.zeros(SAGITTAL_SHAPE, np.int16), geometry), "ct")
    place = geometry.ijk_to_ras @ np.array([7.0, 4.0, 3.0, 1.0])
    points_node(ct, "tumour", POSITIVE).AddControlPointWorld(*place[:3])
    assert as_values(read_prompts(ct)) == [(4, "tumour", None, [((7.5, 3.5), True)])]
