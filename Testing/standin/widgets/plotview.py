"""The plot view: draws the series of the chart that its view node shows."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

from standin.pythonqt.base import Widget, observe

from .qmrml import qMRMLWidget

_MARGIN, _GAP = 34, 4
_LINE_PX = 14


class qMRMLPlotView(Widget):
    """The curves of one chart."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self._node = node
        observe(self, node, vtk.vtkCommand.ModifiedEvent, lambda *_: self.update())
        self.setMinimumSize(QtCore.QSize(200, 150))

    def chart(self) -> Any:
        """Return the chart node that is shown (None: there is none)."""
        return self._node.GetPlotChartNode()

    def fitToContent(self) -> None:
        self.update()

    def _curves(self) -> list[tuple[str, QtGui.QColor, list[tuple[float, float]]]]:
        """Return name, colour and points of each curve."""
        chart = self._node.GetPlotChartNode()
        count = chart.GetNumberOfPlotSeriesNodes() if chart is not None else 0
        return [self._curve(chart.GetNthPlotSeriesNode(index)) for index in range(count)]

    @staticmethod
    def _curve(series: Any) -> tuple[str, QtGui.QColor, list[tuple[float, float]]]:
        table = series.GetTableNode().GetTable()
        columns = [
            table.GetColumnByName(name or "")
            for name in (series.GetXColumnName(), series.GetYColumnName())
        ]
        y = vtk_to_numpy(columns[1]).tolist() if columns[1] is not None else []
        x = vtk_to_numpy(columns[0]).tolist() if columns[0] is not None else list(range(len(y)))
        return (
            series.GetName(),
            QtGui.QColor.fromRgbF(*series.GetColor()),
            list(zip(x, y, strict=True)),
        )

    def paintEvent(self, event: Any) -> None:
        with QtGui.QPainter(self) as painter:
            painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
            painter.fillRect(self.rect, QtGui.QColor("white"))
            self._draw(painter)

    def _draw(self, painter: Any) -> None:
        curves = self._curves()
        points = [point for _, _, curve in curves for point in curve]
        if not points:
            return
        self._draw_axes(painter, points)
        for index, (name, colour, curve) in enumerate(curves):
            painter.setPen(QtGui.QPen(colour, 2))
            painter.drawPolyline([self._place(point, points) for point in curve])
            top = _MARGIN // 2 + _LINE_PX * (index + 1) - 4
            painter.drawText(self._area.right() + 8, top, name)

    def _draw_axes(self, painter: Any, points: list[tuple[float, float]]) -> None:
        painter.setPen(QtGui.QColor("black"))
        area = self._area
        painter.drawRect(area)
        title = self._node.GetPlotChartNode().GetTitle()
        painter.drawText(area.left(), 12, title or "")
        for value in (min(p[1] for p in points), max(p[1] for p in points)):
            place, text = self._place((points[0][0], value), points), f"{value:.3g}"
            left = area.left() - _GAP - self._text_px(text)
            painter.drawText(left, round(place.y()) + _GAP, text)
        for value in (min(p[0] for p in points), max(p[0] for p in points)):
            place, text = self._place((value, points[0][1]), points), f"{value:g}"
            left = round(place.x() - self._text_px(text) / 2)
            painter.drawText(left, area.bottom() + _LINE_PX, text)

    def _text_px(self, text: str) -> int:
        return int(self.fontMetrics().horizontalAdvance(text))

    @property
    def _area(self) -> QtCore.QRect:
        """Where the curves are drawn, with names to the right of it, and heights to the left."""
        curves = self._curves()
        wide = max(self._text_px(name) for name, _, _ in curves) + 16
        heights = [y for _, _, curve in curves for _, y in curve]
        margin = max(self._text_px(f"{value:.3g}") for value in (min(heights), max(heights)))
        left = max(_MARGIN, margin + 2 * _GAP)
        return self.rect.adjusted(left, _MARGIN // 2, -wide, -_MARGIN // 2 - 8)

    def _place(
        self, point: tuple[float, float], points: list[tuple[float, float]]
    ) -> QtCore.QPointF:
        xs, ys = zip(*points, strict=True)
        across = (point[0] - min(xs)) / ((max(xs) - min(xs)) or 1.0)
        up = (point[1] - min(ys)) / ((max(ys) - min(ys)) or 1.0)
        area = self._area
        return QtCore.QPointF(
            area.left() + across * area.width(), area.bottom() - up * area.height()
        )


class qMRMLPlotWidget(qMRMLWidget):
    """The plot view in its frame."""

    def __init__(self, scene: Any) -> None:
        super().__init__()
        node = slicer.vtkMRMLPlotViewNode()
        node.SetLayoutName("PlotView1")
        node.SetSingletonTag("PlotView1")
        node.SetMappedInLayout(1)
        self._node = scene.AddNode(node)
        self._view = qMRMLPlotView(self._node)
        QtWidgets.QVBoxLayout(self).addWidget(self._view)

    def plotView(self) -> Any:
        return self._view

    def mrmlPlotViewNode(self) -> Any:
        return self._node
