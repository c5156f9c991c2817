"""The views are Slicer's own: what is in the scene can be seen in them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer

from standin.harness import measured_event_loop, run_event_loop

from .conftest import BlockScene

pytestmark = pytest.mark.usefixtures("scene")


def _pixels(name: str = "Red") -> Any:
    view = slicer.app.layoutManager().sliceWidget(name).sliceView()
    view.resize(300, 300)
    return view.standin_pixels().astype(int)


def _coloured(pixels: Any) -> int:
    """Count the pixels that are not grey."""
    return int((np.ptp(pixels, axis=2) > 30).sum())


def test_a_slice_view_shows_the_volume_in_grey_and_black_around_it(block: BlockScene) -> None:
    block.segmentation.GetDisplayNode().SetVisibility(False)
    pixels = _pixels()
    assert _coloured(pixels) == 0
    assert pixels.max() > 120
    assert pixels[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("view", ["Red", "Green", "Yellow"])
def test_a_slice_view_shows_a_segmentation_in_its_colour(block: BlockScene, view: str) -> None:
    depth, rows, columns = (round(float(m)) for m in np.argwhere(block.mask > 0).mean(axis=0))
    ijk = [columns, rows, depth, 1]
    ras = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(block.volume)) @ ijk
    node = slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode()
    assert isinstance(node, slicer.vtkMRMLSliceNode)
    node.JumpSliceByCentering(*ras[:3])
    before = _coloured(_pixels(view))
    block.segmentation.GetDisplayNode().SetVisibility(False)
    assert before > 100
    assert _coloured(_pixels(view)) == 0


def test_the_volume_is_seen_through_a_segmentation(scene: Any) -> None:
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    slicer.util.updateVolumeFromArray(volume, np.full((4, 50, 50), 100, np.int16))
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().SetAutoWindowLevel(0)
    volume.GetDisplayNode().SetWindowLevel(200, 100)  # 100 HU is the middle of black and white
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.GetSegmentation().AddEmptySegment("all", "all", (1, 0, 0))
    mask = np.zeros((4, 50, 50), np.uint8)
    mask[:, 10:40, 10:40] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "all", volume)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    middle = _pixels()[150, 150]
    # Half of red (255, 0, 0) over half of grey (127, 127, 127).
    assert np.abs(middle - [191, 63, 63]).max() <= 2


def _ijk_to_ras(volume: Any) -> Any:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_fit_puts_the_volume_into_the_middle_of_each_view(block: BlockScene) -> None:
    slicer.util.resetSliceViews()
    for name in slicer.app.layoutManager().sliceViewNames():
        bright = np.argwhere(_pixels(name).max(axis=2) > 40)
        assert np.abs(bright.mean(axis=0) - 150).max() < 40


def test_views_rest_while_rendering_is_paused(block: BlockScene) -> None:
    views = slicer.app.layoutManager()
    views.resize(600, 600)
    views.show()
    view = views.sliceWidget("Red").sliceView()
    run_event_loop(0.05)
    with slicer.util.RenderBlocker():
        block.segmentation.GetDisplayNode().SetVisibility(False)
        run_event_loop(0.05)
        resting = view.grab().toImage()
    run_event_loop(0.2)
    assert view.grab().toImage() != resting
    views.hide()


def test_the_plot_view_shows_a_chart() -> None:
    slicer.util.plot(np.array([[1, 0.5], [2, 0.8], [3, 0.9]]), xColumnIndex=0, title="Dice")
    view = slicer.app.layoutManager().plotWidget(0).plotView()
    (curve,) = view._curves()
    assert curve[2] == [(1.0, 0.5), (2.0, 0.8), (3.0, 0.9)]


@pytest.mark.usefixtures("block")
def test_a_picture_of_the_window_holds_panel_and_views(tmp_path: Path) -> None:
    import qt

    from standin.pictures import WindowSize, window_picture

    panel = qt.QLabel("the panel")
    panel.setStyleSheet("background: rgb(0, 0, 255)")
    path = tmp_path / "pictures" / "window.png"
    picture = window_picture(panel, path, title="Probe", size=WindowSize(900, 600, 300))
    assert (picture.width(), picture.height()) == (900, 600)
    assert picture.pixelColor(150, 500).getRgb()[:3] == (0, 0, 255)
    red_bar = picture.pixelColor(450, 68)
    assert red_bar.red() > 200 > red_bar.green()
    assert path.stat().st_size > 5000


def test_a_picture_shows_the_panel_scrolled_to_a_widget(tmp_path: Path) -> None:
    import qt

    from standin.pictures import WindowSize, window_picture

    panel, layout, colors = qt.QWidget(), qt.QVBoxLayout(), ("255, 0, 0", "0, 0, 255", "0, 128, 0")
    panel.setLayout(layout)
    parts = [qt.QLabel("part") for _ in colors]
    for part, color in zip(parts, colors, strict=True):
        part.setStyleSheet(f"background: rgb({color})")
        part.setMinimumHeight(600)
        layout.addWidget(part)

    def middle(scroll_to: Any) -> tuple[int, int, int]:
        picture = window_picture(
            panel, tmp_path / "one.png", size=WindowSize(900, 600, 300), scroll_to=scroll_to
        )
        red, green, blue, _ = picture.pixelColor(250, 300).getRgb()
        return red, green, blue

    assert middle(None) == middle(parts[0]) == (255, 0, 0)
    assert middle(parts[1]) == (0, 0, 255)
    assert middle(parts[2]) == (0, 128, 0)


def test_a_block_of_the_event_loop_is_measured() -> None:
    import qt

    with measured_event_loop() as blocks:
        qt.QTimer.singleShot(20, lambda: time.sleep(0.15))
        run_event_loop(0.3)
    assert 130 < blocks.longest_ms < 400


@pytest.mark.parametrize("suffix", [".mrb", ".mrml"])
def test_a_segmentation_returns_with_a_saved_scene(
    block: BlockScene, tmp_path: Path, suffix: str
) -> None:
    assert slicer.util.saveScene(str(tmp_path / f"scene{suffix}"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / f"scene{suffix}"))
    (segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    (volume,) = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "block", volume)
    np.testing.assert_array_equal(found > 0, block.mask > 0)
