"""Prompts are placed with the mouse: a button of the panel, then clicks in a slice view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import slicer

from aslseg.data.volume import Geometry, Volume
from standin.harness import choose_node, click, run_event_loop

SHAPE = (8, 40, 50)


@pytest.fixture
def panel(open_module: Callable[..., Any]) -> Any:
    """The panel, with a volume in the slice views, which have a size."""
    panel = open_module().panel
    from ASLsegLib.scene.volumes import add_volume

    panel.ui.segmentSection.collapsed = False
    views = slicer.app.layoutManager()
    views.resize(700, 700)
    views.show()
    affine = np.diag([-2.0, -2.0, 4.0, 1.0])
    volume = add_volume(Volume(np.zeros(SHAPE, np.int16), Geometry(SHAPE, affine)), "ct")
    run_event_loop(0.1)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    choose_node(panel.ui.inputVolumeSelector, volume)
    panel.parameters.followEdits = False
    yield panel
    views.hide()


def red() -> Any:
    return slicer.app.layoutManager().sliceWidget("Red").sliceView()


def pixel_of(x: int, y: int) -> tuple[float, float, int]:
    """Return where a pixel of the red view lies: pixel (x, y) and slice of the volume."""
    from ASLsegLib.scene.volumes import as_array

    ras = as_array(red().mrmlSliceNode().GetXYToRAS()) @ np.array([x, y, 0.0, 1.0])
    return -ras[0] / 2 + 0.5, -ras[1] / 2 + 0.5, round(ras[2] / 4)


def prompts(panel: Any) -> list[Any]:
    from ASLsegLib.scene.prompts import read_prompts

    return read_prompts(panel.volume)


def test_clicks_in_a_slice_view_place_points_until_the_button_is_pressed_again(panel: Any) -> None:
    click(panel.ui.addPositiveButton)
    for x, y in ((120, 150), (200, 160)):
        red().standin_click(x, y)
        slicer.app.processEvents()
    assert panel.ui.addPositiveButton.checked
    click(panel.ui.addPositiveButton)
    assert not panel.ui.addPositiveButton.checked
    red().standin_click(220, 100)  # only looks now
    (prompt,) = prompts(panel)
    assert (prompt.target, prompt.box) == ("tumour", None)
    expected = [pixel_of(120, 150), pixel_of(200, 160)]
    assert [prompt.slice_index] * 2 == [k for _, _, k in expected]
    placed = np.array([point.xy for point in prompt.points])
    assert np.allclose(placed, [(x, y) for x, y, _ in expected], atol=0.3)
    assert all(point.positive for point in prompt.points)


def test_another_kind_takes_over_at_once(panel: Any) -> None:
    click(panel.ui.addPositiveButton)
    red().standin_click(150, 150)
    click(panel.ui.addNegativeButton)
    assert (panel.ui.addPositiveButton.checked, panel.ui.addNegativeButton.checked) == (False, True)
    red().standin_click(180, 150)
    click(panel.ui.addNegativeButton)
    (prompt,) = prompts(panel)
    assert [point.positive for point in prompt.points] == [True, False]


def test_two_clicks_place_a_box_one_slice_thick_and_end_placing(panel: Any) -> None:
    click(panel.ui.addBoxButton)
    red().standin_click(120, 200)
    red().standin_click(220, 120)
    slicer.app.processEvents()
    assert not panel.ui.addBoxButton.checked
    (prompt,) = prompts(panel)
    (left, top, k), (right, bottom, _) = sorted([pixel_of(120, 200), pixel_of(220, 120)])
    expected = (left, min(top, bottom), right, max(top, bottom))
    assert prompt.slice_index == k
    assert np.allclose(prompt.box.xyxy, expected, atol=0.5)


def test_a_box_that_was_never_drawn_leaves_nothing(panel: Any) -> None:
    click(panel.ui.addBoxButton)
    click(panel.ui.addBoxButton)
    assert prompts(panel) == []
    assert slicer.util.getNodesByClass("vtkMRMLMarkupsROINode") == []
