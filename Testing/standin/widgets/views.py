"""Slice and 3D views, rendered off screen by the displayable managers of slicer-core."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from PySide6 import QtCore, QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

from standin.pythonqt.base import InnerLabel, Property, Widget, observe
from standin.pythonqt.qtdialogs import single_shot

from .qmrml import qMRMLWidget

SLICE_MANAGERS = [
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager2D",
]
THREED_MANAGERS = [
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
]


def register_managers(logic: Any) -> None:
    """Tell the two factories which managers draw, as the application does when it starts."""
    for factory_class, names in (
        (slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS),
        (slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREED_MANAGERS),
    ):
        factory = factory_class.GetInstance()
        factory.SetMRMLApplicationLogic(logic)
        for name in names:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)


class _View(Widget):
    """A widget with a render window of its own, drawn off screen when it is asked to."""

    renderEnabled = Property(True)

    def __init__(self, renderer: Any, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.AddRenderer(renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._managers: Any = None
        self._asked = False
        self._picture: QtGui.QImage | None = None
        self.setMinimumSize(QtCore.QSize(80, 80))

    def _instantiate_managers(self, factory: Any, renderer: Any, node: Any) -> None:
        self._managers = factory.GetInstance().InstantiateDisplayableManagers(renderer)
        self._managers.SetMRMLDisplayableNode(node)
        event = vtk.vtkCommand.UpdateEvent
        observe(self, self._managers, event, lambda *_: self.scheduleRender())

    def standin_take_down(self) -> None:
        """Let the managers and the render window go."""
        self._managers.SetMRMLDisplayableNode(None)
        self._managers = None
        self._window.Finalize()

    def renderWindow(self) -> Any:
        return self._window

    def interactor(self) -> Any:
        return self._interactor

    def scheduleRender(self) -> None:
        if not self._asked and self.visible:
            self._asked = True
            single_shot(0, self._render_if_asked)

    def _render_if_asked(self) -> None:
        asked, self._asked = self._asked, False
        if asked and not slicer.app.render_paused():
            self.forceRender()

    def forceRender(self) -> None:
        self._asked = False
        self._picture = to_image(self.standin_pixels())
        self.update()

    def standin_pixels(self) -> NDArray[np.uint8]:
        """Return what the view shows now, (height, width, 3), first row at the top."""
        self._fit_to(self.size)
        self._window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self._window)
        grabber.ReadFrontBufferOff()
        grabber.ShouldRerenderOff()
        grabber.Update()
        image = grabber.GetOutput()
        width, height, _ = image.GetDimensions()
        rows = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
        return np.ascontiguousarray(rows[::-1, :, :3])

    def _fit_to(self, size: QtCore.QSize) -> None:
        if self._window.GetSize() != (size.width(), size.height()):
            self._window.SetSize(size.width(), size.height())

    def resizeEvent(self, event: Any) -> None:
        self._fit_to(event.size())
        self._picture = None

    def paintEvent(self, event: Any) -> None:
        if self._picture is None:
            self._picture = to_image(self.standin_pixels())
        with QtGui.QPainter(self) as painter:
            painter.drawImage(0, 0, self._picture)


def to_image(pixels: NDArray[np.uint8]) -> QtGui.QImage:
    """Return an image that owns its memory."""
    height, width, _ = pixels.shape
    image = QtGui.QImage(pixels.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888)
    return image.copy()


class qMRMLSliceView(_View):
    """The picture of one slice."""

    def __init__(self, logic: Any, parent: Any = None) -> None:
        renderer = vtk.vtkRenderer()
        renderer.GetActiveCamera().ParallelProjectionOn()
        super().__init__(renderer, parent)
        self._renderer, self._logic = renderer, logic
        self._make_image()
        renderer.AddViewProp(self._actor)  # first, so that all else is drawn on it
        self._instantiate_managers(
            slicer.vtkMRMLSliceViewDisplayableManagerFactory, self._renderer, logic.GetSliceNode()
        )
        observe(self, logic, vtk.vtkCommand.ModifiedEvent, lambda *_: self.scheduleRender())
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())  # none of its own ways
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetSliceLogic(logic)
        self._style.SetDisplayableManagers(self._managers)
        self._style.SetInteractor(self._interactor)

    def standin_take_down(self) -> None:
        self._style.SetInteractor(None)
        self._style.SetDisplayableManagers(None)
        super().standin_take_down()

    def standin_click(self, x: int, y: int) -> None:
        """Move the mouse to a pixel, counted from the lower left corner, and click there."""
        self._fit_to(self.size)
        self._interactor.SetEventInformation(x, y, 0, 0, chr(0), 0, None)
        for event in ("Enter", "MouseMove", "LeftButtonPress", "LeftButtonRelease"):
            self._interactor.InvokeEvent(f"{event}Event")

    def _make_image(self) -> None:
        self._colours, self._opacity = (vtk.vtkImageExtractComponents() for _ in range(2))
        self._colours.SetComponents(0, 1, 2)
        self._opacity.SetComponents(3)
        inside = vtk.vtkImageMask()  # what lies outside of the volume is black
        inside.SetInputConnection(0, self._colours.GetOutputPort())
        inside.SetInputConnection(1, self._opacity.GetOutputPort())
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(inside.GetOutputPort())
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()

    def _fit_to(self, size: QtCore.QSize) -> None:
        super()._fit_to(size)
        node = self._logic.GetSliceNode()
        if node.GetDimensions()[:2] != (size.width(), size.height()):
            self._logic.ResizeSliceNode(size.width(), size.height())

    def standin_pixels(self) -> NDArray[np.uint8]:
        image = self._logic.GetImageDataConnection()  # another one whenever the layers change
        for part in (self._colours, self._opacity):
            part.SetInputConnection(image)
        self._actor.SetVisibility(image is not None)
        return super().standin_pixels()

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()


class qMRMLSliceWidget(qMRMLWidget):
    """A slice view with the coloured bar of its name above it."""

    def __init__(self, logic: Any, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        self._logic = logic
        self._view = qMRMLSliceView(logic)
        self._bar = InnerLabel()
        self._bar.setFixedHeight(20)
        red, green, blue = (round(255 * part) for part in logic.GetSliceNode().GetLayoutColor())
        self._bar.setStyleSheet(
            f"background: rgb({red},{green},{blue}); color: black; padding-left: 4px; font: 11px"
        )
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._bar)
        column.addWidget(self._view, 1)
        node = logic.GetSliceNode()
        observe(self, node, vtk.vtkCommand.ModifiedEvent, lambda *_: self._name_slice())
        self._name_slice()

    def _name_slice(self) -> None:
        node = self._logic.GetSliceNode()
        offset = node.GetSliceOffset()
        self._bar.setText(f"{node.GetLayoutLabel()}   {node.GetOrientation()}   {offset:.1f} mm")

    def sliceView(self) -> Any:
        return self._view

    viewWidget = sliceView

    def sliceLogic(self) -> Any:
        return self._logic

    logic = sliceLogic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()
