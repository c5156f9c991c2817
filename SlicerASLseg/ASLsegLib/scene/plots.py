"""Live curves of a training in Slicer's plot view."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import slicer
import vtk

from aslseg.events import Metric
from aslseg.steps import step_title

_COLORS = (
    (0.30, 0.55, 0.90), (0.95, 0.60, 0.15), (0.30, 0.75, 0.40), (0.85, 0.35, 0.55),
    (0.55, 0.40, 0.80), (0.60, 0.45, 0.30), (0.15, 0.70, 0.75), (0.45, 0.45, 0.45),
)  # fmt: skip
_MOST_POINTS = 500


class Curves:
    """Points by name of a curve, and the plot that shows them.

    Points are kept here; tables in the scene are made when the plot is first shown, so that a
    training that nobody watches leaves nothing in the scene.
    """

    def __init__(self) -> None:
        self._points: dict[str, list[tuple[float, float]]] = {}
        self._nodes: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        """Names of the curves that have points."""
        return list(self._points)

    def add(self, metric: Metric) -> None:
        """Add a point."""
        about = step_title(metric.task) or metric.source or metric.case
        line = f"round {metric.round}, {about}" if about else ""
        name = ": ".join(part for part in (line, metric.name.replace("_", " ")) if part)
        points = self._points.setdefault(name, [])
        points.append((float(metric.step), metric.value))
        if len(points) > _MOST_POINTS:
            del points[1:-1:2]

    def clear(self) -> None:
        """Forget all points, and take the plot out of the scene."""
        self._points.clear()
        for node in self._nodes.values():
            slicer.mrmlScene.RemoveNode(node)
        self._nodes.clear()

    def forget_nodes(self) -> None:
        """Forget the nodes, for the scene was closed."""
        self._nodes.clear()

    def show(self) -> Any:
        """Show all curves in the plot view.

        Returns:
            The chart node.
        """
        chart = self._node("chart", "vtkMRMLPlotChartNode", "ASLseg training")
        chart.SetXAxisTitle("step")
        chart.SetYAxisTitle("loss, Dice")
        chart.SetTitle("Training")
        self.update()
        slicer.modules.plots.logic().ShowChartInLayout(chart)
        return chart

    def update(self) -> None:
        """Bring the plot up to date if it is shown."""
        chart = self._nodes.get("chart")
        if chart is None:
            return
        was = chart.StartModify()
        for number, name in enumerate(self._points):
            self._update_one(chart, name, _COLORS[number % len(_COLORS)])
        chart.EndModify(was)

    def _update_one(self, chart: Any, name: str, color: tuple[float, float, float]) -> None:
        table = self._node(f"table {name}", "vtkMRMLTableNode", f"ASLseg {name}")
        _fill(table, self._points[name])
        is_new = f"series {name}" not in self._nodes
        series = self._node(f"series {name}", "vtkMRMLPlotSeriesNode", name)
        if not is_new:
            return
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("step")
        series.SetYColumnName("value")
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetLineWidth(2)
        series.SetColor(*color)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())

    def _node(self, key: str, kind: str, name: str) -> Any:
        node = self._nodes.get(key)
        if node is None or not slicer.mrmlScene.IsNodePresent(node):
            node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
            node.SetSaveWithScene(False)
            self._nodes[key] = node
        return node


def _fill(table: Any, points: Iterable[tuple[float, float]]) -> None:
    steps, values = vtk.vtkFloatArray(), vtk.vtkFloatArray()
    steps.SetName("step")
    values.SetName("value")
    for step, value in points:
        steps.InsertNextValue(step)
        values.InsertNextValue(value)
    was = table.StartModify()
    table.RemoveAllColumns()
    table.AddColumn(steps)
    table.AddColumn(values)
    table.EndModify(was)
