"""A scribble is points along its line; a lasso is a box and points deep within it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import slicer
import vtk

from aslseg.data.volume import Geometry, Volume

SHAPE = (6, 40, 50)
AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])


@pytest.fixture
def volume(open_module: Callable[..., Any]) -> Any:
    open_module()
    from ASLsegLib.scene.volumes import add_volume

    return add_volume(Volume(np.zeros(SHAPE, np.int16), Geometry(SHAPE, AFFINE)), "ct")


def draw(volume: Any, kind: str, k: int, pixels: Sequence[tuple[float, float]]) -> Any:
    from ASLsegLib.scene.prompts import new_curve

    node = new_curve(volume, "tumour", kind)
    for x, y in pixels:
        world = AFFINE @ (x - 0.5, y - 0.5, k, 1.0)
        node.AddControlPointWorld(vtk.vtkVector3d(world[:3].tolist()))
    return node


def test_a_scribble_is_a_few_positive_points_along_its_line(volume: Any) -> None:
    from ASLsegLib.scene.prompts import read_prompts

    draw(volume, "scribble", 3, [(10.5, 20.5), (20.5, 20.5), (30.5, 20.5)])
    (prompt,) = read_prompts(volume)
    assert (prompt.slice_index, prompt.target, prompt.box) == (3, "tumour", None)
    assert len(prompt.points) == 8
    assert all(point.positive for point in prompt.points)
    assert [round(point.xy[1], 1) for point in prompt.points] == [20.5] * 8
    assert min(point.xy[0] for point in prompt.points) == pytest.approx(10.5, abs=0.1)
    assert max(point.xy[0] for point in prompt.points) == pytest.approx(30.5, abs=0.1)
    first = prompt.points[0].xy[0]  # with which a lesion begins
    assert first == pytest.approx(20.5, abs=2.0)


def test_a_scribble_has_no_points_where_it_lies_outside_of_the_volume(volume: Any) -> None:
    from ASLsegLib.scene.prompts import read_prompts

    draw(volume, "scribble", 3, [(60.5, 20.5), (70.5, 20.5), (80.5, 20.5)])
    assert read_prompts(volume) == []
    draw(volume, "scribble", 2, [(40.5, 20.5), (60.5, 20.5), (80.5, 20.5)])
    (prompt,) = read_prompts(volume)
    assert all(40 < point.xy[0] < 50 for point in prompt.points)


def test_a_scribble_that_is_drawn_outside_of_the_volume_is_not_placed(volume: Any) -> None:
    from ASLsegLib.scene.placement import Placement
    from ASLsegLib.scene.prompts import prompt_nodes

    placement = Placement(lambda: None)
    placement.start(volume, "tumour", "scribble")
    (node,) = prompt_nodes(volume)
    for x in (60.5, 70.5, 80.5):
        node.AddControlPointWorld(vtk.vtkVector3d((AFFINE @ (x, 20.0, 3, 1.0))[:3].tolist()))
    placement.stop()
    assert prompt_nodes(volume) == []


def test_a_lesion_that_begins_with_a_scribble_does_so_after_points_elsewhere(volume: Any) -> None:
    from ASLsegLib.scene.prompts import add_point, claim_prompts, read_prompts_of

    add_point(volume, "tumour", (5.5, 5.5), 1)  # of another lesion, in the same node
    draw(volume, "scribble", 3, [(10.5, 20.5), (20.5, 20.5), (30.5, 20.5)])
    claim_prompts(volume, "tumour", "a lesion", [3])
    (before,) = read_prompts_of(volume, "a lesion", 3)
    add_point(volume, "tumour", (40.5, 30.5), 3)
    claim_prompts(volume, "tumour", "a lesion", [3])
    (after,) = read_prompts_of(volume, "a lesion", 3)
    assert after.points[:-1] == before.points
    assert after.points[-1].xy == (40.5, 30.5)


def test_a_lasso_is_its_box_with_points_deep_within_it(volume: Any) -> None:
    from ASLsegLib.scene.prompts import read_prompts

    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    draw(volume, "lasso", 2, [(25 + 8 * np.cos(a), 15 + 6 * np.sin(a)) for a in angles])
    (prompt,) = read_prompts(volume)
    assert prompt.slice_index == 2
    assert prompt.box.xyxy == pytest.approx((17, 9, 33, 21), abs=0.6)
    assert len(prompt.points) == 3
    for point in prompt.points:
        assert point.positive
        assert ((point.xy[0] - 25) / 8) ** 2 + ((point.xy[1] - 15) / 6) ** 2 < 1


@pytest.mark.parametrize(("kind", "count"), [("scribble", 1), ("lasso", 2)])
def test_what_was_hardly_begun_is_no_prompt(volume: Any, kind: str, count: int) -> None:
    from ASLsegLib.scene.prompts import read_prompts

    draw(volume, kind, 3, [(10.5, 20.5), (20.5, 25.5)][:count])
    assert read_prompts(volume) == []


def test_a_lesion_grows_from_a_lasso_and_not_its_slice(volume: Any) -> None:
    from ASLsegLib.scene.prompts import claim_prompts, clear_slice, read_prompts, read_prompts_of

    node = draw(volume, "lasso", 2, [(10, 10), (20, 10), (20, 20), (10, 20)])
    assert claim_prompts(volume, "tumour", "a lesion", [2])
    assert read_prompts(volume) == []
    (prompt,) = read_prompts_of(volume, "a lesion", 2)
    assert prompt.box is not None
    assert prompt.points
    clear_slice(volume, 2)
    assert slicer.mrmlScene.IsNodePresent(node)


def test_clearing_the_slice_removes_what_was_drawn(volume: Any) -> None:
    from ASLsegLib.scene.prompts import clear_slice, prompt_nodes

    draw(volume, "scribble", 3, [(10.5, 20.5), (20.5, 20.5)])
    clear_slice(volume, 2)
    assert len(prompt_nodes(volume)) == 1
    clear_slice(volume, 3)
    assert prompt_nodes(volume) == []


@pytest.mark.parametrize(("kind", "least"), [("scribble", 2), ("lasso", 3)])
def test_a_button_draws_with_slicers_own_curve_and_keeps_what_is_enough(
    volume: Any, kind: str, least: int
) -> None:
    from ASLsegLib.scene.placement import Placement
    from ASLsegLib.scene.prompts import prompt_nodes

    ended: list[bool] = []
    for count in (least - 1, least):
        placement = Placement(lambda: ended.append(True))
        placement.start(volume, "tumour", kind)
        (node,) = prompt_nodes(volume)
        selection = slicer.app.applicationLogic().GetSelectionNode()
        assert selection.GetActivePlaceNodeClassName() == node.GetClassName()
        for n in range(count):
            node.AddControlPointWorld(vtk.vtkVector3d(-20.0 - 4 * n, -20.0 - 3 * n * n, 8.0))
        placement.stop()
        assert len(prompt_nodes(volume)) == int(count == least)
    assert ended == [True, True]
