"""Prompts are placed with the mouse: a button of the panel, then clicks in a slice view."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer
from harness import reload_module, show_slice_of
from test_bare import make_project

from aslseg.data.volume import Geometry, Volume
from standin.harness import choose_node, click, run_event_loop, wait_until
from support.synthetic_run import write_run

SHAPE = (8, 40, 50)


@pytest.fixture
def panel(open_module: Callable[..., Any]) -> Any:
    """The panel, with a volume in the slice views, which have a size."""
    panel = open_module().panel
    from ASLsegLib.scene.volumes import add_volume

    panel.ui.reviewSection.collapsed = False
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


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of three phantoms with a finished run."""
    from aslseg.project.project import open_project

    make_project(tmp_path / "project")
    opened = open_project(tmp_path / "project")
    truth = opened.load_labels(opened.case("p0"))
    run = write_run(opened.folder / "runs" / "run-1", {"p0": truth})
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    (run / "status.json").write_text(json.dumps({**status, "best_round": 2}))
    return opened.folder


@contextmanager
def looked_at(folder: Path) -> Iterator[list[str]]:
    """What is opened or listed below a folder meanwhile."""
    seen: list[str] = []
    is_open = True

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if is_open and event in ("open", "os.listdir", "os.scandir"):
            path = str(arguments[0])
            seen.extend([path] if path.startswith(str(folder)) else [])

    sys.addaudithook(note)  # it cannot be removed again
    try:
        yield seen
    finally:
        is_open = False


@contextmanager
def updates_of(panel: Any) -> Iterator[list[int]]:
    """One entry for each update of the panel meanwhile."""
    seen: list[int] = []
    panel._update = lambda sections: (seen.append(1), type(panel)._update(panel, sections))
    try:
        yield seen
    finally:
        del panel._update


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


def test_a_box_of_which_one_corner_was_placed_leaves_nothing(panel: Any) -> None:
    click(panel.ui.addBoxButton)
    red().standin_click(120, 200)
    click(panel.ui.addBoxButton)
    assert prompts(panel) == []
    assert slicer.util.getNodesByClass("vtkMRMLMarkupsROINode") == []


def test_a_panel_that_is_reloaded_places_nothing_more(panel: Any) -> None:
    click(panel.ui.addPositiveButton)
    assert reload_module().panel is not panel
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform


@pytest.mark.parametrize("count", [1, 3])
def test_placed_points_make_one_update_and_open_or_list_no_file(
    panel: Any, project: Path, count: int
) -> None:
    panel.logic.open_project(project)
    assert panel.logic.usable_run() == "run-1"
    click(panel.ui.addPositiveButton)
    run_event_loop(0.3)
    assert not panel.ui.refineButton.enabled
    with looked_at(project) as paths, updates_of(panel) as updates:
        for number in range(count):
            red().standin_click(150 + 20 * number, 150)
        run_event_loop(0.6)
    assert sum(len(one.points) for one in prompts(panel)) == count
    assert (len(updates), paths) == (1, [])
    assert panel.ui.refineButton.enabled


def test_a_look_at_a_project_is_noticed(panel: Any, project: Path) -> None:
    panel.logic.open_project(project)
    with looked_at(project) as paths, updates_of(panel) as updates:
        panel.logic.refresh()
    assert str(project / "project.json") in paths
    assert str(project / "runs") in paths
    assert updates


@pytest.fixture
def asked(panel: Any, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The slices that SAM is asked about, while prompts are followed."""
    slices: list[int | None] = []
    refine = lambda volume, slice_index=None, *_, **__: slices.append(slice_index)  # noqa: E731
    monkeypatch.setattr(panel.logic, "refine", SimpleNamespace(begin=refine))
    panel.parameters.followEdits = True
    return slices


def test_sam_is_asked_about_the_slice_of_the_prompt_whichever_is_shown_by_then(
    panel: Any, asked: list[int | None]
) -> None:
    from ASLsegLib.scene.prompts import add_point

    show_slice_of(panel.volume, 3)
    run_event_loop(0.2)
    add_point(panel.volume, "tumour", (10.5, 10.5), 3)
    show_slice_of(panel.volume, 4)
    run_event_loop(1.0)
    assert asked == [3]


def test_sam_is_asked_about_each_slice_whose_prompts_have_changed(
    panel: Any, asked: list[int | None]
) -> None:
    from ASLsegLib.scene.prompts import add_point

    show_slice_of(panel.volume, 4)
    for k in (2, 4, 6):
        add_point(panel.volume, "tumour", (10.5, 10.5), k)
    run_event_loop(2.0)
    assert asked == [4, 2, 6]  # the one that is shown first
    add_point(panel.volume, "tumour", (12.5, 10.5), 6)
    run_event_loop(1.0)
    assert asked == [4, 2, 6, 6]


def test_a_box_that_a_lesion_grows_from_holds_up_no_other_slice(
    panel: Any, asked: list[int | None], dialogs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ASLsegLib.scene.prompts import add_point, box_node
    from ASLsegLib.scene.volumes import SceneError

    def refuse(*_: Any, **__: Any) -> None:
        raise SceneError("It cannot grow.")

    monkeypatch.setattr(panel.logic, "grow", SimpleNamespace(begin=refuse))
    panel.parameters.eachBoxGrows = True
    box_node(panel.volume, "tumour", (5, 5, 20, 20), 2)
    wait_until(lambda: bool(dialogs.messages), 30.0)
    run_event_loop(0.8)
    dialogs.take("It cannot grow")
    assert asked == []
    add_point(panel.volume, "tumour", (10.5, 10.5), 5)
    run_event_loop(1.0)
    assert asked == [5]
