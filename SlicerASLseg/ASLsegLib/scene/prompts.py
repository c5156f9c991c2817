"""Prompts that a person edits: points and boxes as markups, there and back.

In the scene a point is RAS mm; for SAM it is a pixel of an axial slice. The centre of voxel
(i, j, k) of the volume's slice grid (see `aslseg.data.orientation`) is the pixel
(i + 0.5, j + 0.5) of slice k, as in `aslseg.prompts`. A box is taken as what it covers in axial
slices, in whatever view it was drawn.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk

from ASLsegLib.scene.volumes import as_array, as_matrix, free_name, place_beside, slice_geometry_of

if TYPE_CHECKING:
    from aslseg.data.volume import Geometry
    from aslseg.prompts import SlicePrompts

logger = logging.getLogger(__name__)

XY = tuple[float, float]
XYXY = tuple[float, float, float, float]

FreePrompts = tuple[int, str, list[XYXY], list[tuple[XY, bool]]]

_VOLUME, TARGET, KIND = "ASLseg.Volume", "ASLseg.Target", "ASLseg.Prompt"
TAKEN_OVER = "ASLseg.SlicesTakenOver"
GROWTH = "ASLseg.Growth"
"""Attribute of a box or curve: the id of the growing lesion that it belongs to."""
GROWTH_OF_POINT = f"{GROWTH}:"
"""Begins the description of a point that belongs to a growing lesion, before its id."""
POSITIVE, NEGATIVE, BOX = "positive", "negative", "box"
SCRIBBLE, LASSO = "scribble", "lasso"
SHAPES = (BOX, SCRIBBLE, LASSO)
"""Prompts that are a node each; points share a node by target and sign."""
CURVES = {SCRIBBLE: "vtkMRMLMarkupsCurveNode", LASSO: "vtkMRMLMarkupsClosedCurveNode"}
_SCRIBBLE_POINTS, _LASSO_POINTS = 8, 3
_SIGNS = {POSITIVE: "+", NEGATIVE: "-"}
_GREEN, _RED, _WHITE = (0.2, 0.9, 0.3), (0.95, 0.25, 0.2), (1.0, 1.0, 1.0)
_COLORS = {POSITIVE: _GREEN, NEGATIVE: _RED, BOX: _WHITE, SCRIBBLE: _GREEN, LASSO: _WHITE}
_DIGITS = 4  # of pixels that are read
_HANDLES_PERCENT = 1.5
"""Of the view: half of Slicer's usual size, at which nine of them cover a small lesion."""
_THICKNESS = 0.9  # of the distance of two slices: a box of one slice holds that slice only


def points_node(volume: Any, target: str, kind: str) -> Any:
    """Return the node with the `POSITIVE` or `NEGATIVE` points of a target; make it if need be."""
    for node in prompt_nodes(volume):
        if node.GetAttribute(KIND) == kind and node.GetAttribute(TARGET) == target:
            return node
    name = f"{volume.GetName()} - {target} {_SIGNS[kind]}"
    node = _new_node("vtkMRMLMarkupsFiducialNode", volume, name, target, kind)
    node.SetControlPointLabelFormat("")
    node.GetDisplayNode().SetTextScale(0)
    return node


def box_node(volume: Any, target: str, xyxy: XYXY, slice_index: int) -> Any:
    """Add a box around pixels of a slice as a region of interest one slice thick."""
    node = new_box(volume, target)
    place_box(node, volume, xyxy, slice_index)
    return node


def new_box(volume: Any, target: str) -> Any:
    """Add a region of interest that has no place yet."""
    name = f"{volume.GetName()} - {target} box"
    return _new_node("vtkMRMLMarkupsROINode", volume, name, target, BOX)


def new_curve(volume: Any, target: str, kind: str) -> Any:
    """Add a `SCRIBBLE`, an open curve in the object, or a `LASSO`, a closed one around it.

    It has no points yet.
    """
    node = _new_node(CURVES[kind], volume, f"{volume.GetName()} - {target} {kind}", target, kind)
    node.SetControlPointLabelFormat("")
    node.GetDisplayNode().SetPropertiesLabelVisibility(False)
    return node


def place_box(node: Any, volume: Any, xyxy: XYXY, slice_index: int) -> None:
    """Move a region of interest to pixels of a slice, one slice thick."""
    geometry = slice_geometry_of(volume)
    left, top, right, bottom = xyxy
    centre = ((left + right) / 2 - 0.5, (top + bottom) / 2 - 0.5, slice_index)
    k_mm, j_mm, i_mm = geometry.spacing_mm
    node.SetAndObserveObjectToNodeMatrix(as_matrix(_axes_at(geometry, centre)))
    node.SetSize((right - left) * i_mm, (bottom - top) * j_mm, k_mm * _THICKNESS)


def flatten_box(node: Any, volume: Any) -> None:
    """Make a box that was drawn in a slice view one slice thick: the slice of its centre."""
    xyxy, slices = _box_on_slices(node, slice_geometry_of(volume))
    if len(slices):
        place_box(node, volume, xyxy, slices[len(slices) // 2])


def is_in_volume(node: Any, volume: Any) -> bool:
    """Tell whether a box, scribble or lasso has something of a volume in it."""
    return bool(_shape_on_slices(node, slice_geometry_of(volume))[1])


def adopt(node: Any, volume: Any, target: str, kind: str) -> None:
    """Make a markups node that a person placed a prompt about a target of a volume."""
    node.SetNodeReferenceID(_VOLUME, volume.GetID())
    node.SetAttribute(TARGET, target)
    node.SetAttribute(KIND, kind)


def prompt_nodes(volume: Any) -> list[Any]:
    """Return all markups nodes that are prompts about a volume."""
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLMarkupsNode")
        if node.GetAttribute(KIND) and node.GetNodeReferenceID(_VOLUME) == volume.GetID()
    ]


def show_prompts_of(volume: Any) -> None:
    """Show the prompts about a volume, and hide those about others, which lie elsewhere in it."""
    for node in slicer.util.getNodesByClass("vtkMRMLMarkupsNode"):
        if node.GetAttribute(KIND):
            is_about = node.GetNodeReferenceID(_VOLUME) == volume.GetID()
            node.GetDisplayNode().SetVisibility(is_about)


def take_over(volume: Any, prompts: Iterable[SlicePrompts], slice_index: int) -> None:
    """Put the proposed prompts of a slice into the scene; from now on the scene's count there."""
    if slice_index in taken_over(volume):
        return
    for prompt in (one for one in prompts if one.slice_index == slice_index):
        if prompt.box is not None:
            box_node(volume, prompt.target, prompt.box.xyxy, slice_index)
        for point in prompt.points:
            kind = POSITIVE if point.positive else NEGATIVE
            add_point(volume, prompt.target, point.xy, slice_index, kind)
    _note(volume, slice_index)


def add_point(volume: Any, target: str, xy: XY, slice_index: int, kind: str = POSITIVE) -> None:
    """Add a point at a pixel of a slice."""
    index = np.array([xy[0] - 0.5, xy[1] - 0.5, slice_index, 1.0])
    position = slice_geometry_of(volume).ijk_to_ras @ index
    points_node(volume, target, kind).AddControlPointWorld(vtk.vtkVector3d(position[:3].tolist()))


def read_prompts(
    volume: Any, proposed: Iterable[SlicePrompts] = (), slice_index: int | None = None
) -> list[SlicePrompts]:
    """Return the prompts in force: those of the scene and the proposed ones.

    On slices that were taken over the scene's alone count; on all others both do, and a point of
    the scene may belong to a proposed box.

    Args:
        volume: Volume node.
        proposed: By the run, for all slices.
        slice_index: Only of this slice; of all slices when None.

    Returns:
        In the order of slices and targets.
    """
    from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts

    placed = _with_proposals(_by_slice(volume), proposed, taken_over(volume))
    found: list[SlicePrompts] = []
    for (k, target), (boxes, points) in sorted(placed.items()):
        groups = group(boxes, points) if slice_index in (None, k) else []
        for number, one in enumerate(groups):
            box = None if one.box is None else BoxPrompt(one.box)
            clicks = tuple(PointPrompt(xy, positive) for xy, positive in one.points)
            found.append(SlicePrompts(k, target, number, box, clicks))
    return found


def clear_slice(volume: Any, slice_index: int) -> None:
    """Let a slice have no prompts at all, not even the proposed ones; those of growths stay."""
    geometry = slice_geometry_of(volume)
    for node in prompt_nodes(volume):
        if node.GetAttribute(KIND) in SHAPES:
            if not growth_of_shape(node) and slice_index in _shape_on_slices(node, geometry)[1]:
                remove_prompt(node)
        else:
            _clear_points(node, lambda k, growth: k == slice_index and not growth, geometry)
    _note(volume, slice_index)


def free_prompts(volume: Any, slice_index: int | None = None) -> list[FreePrompts]:
    """Return the prompts in the scene that belong to no growing lesion.

    Args:
        volume: Volume node.
        slice_index: Only of this slice; of all slices when None.

    Returns:
        Slice, target, boxes, and points with whether they are positive; in the order of the nodes.
    """
    return [
        (k, target, boxes, points)
        for (k, target), (boxes, points) in _by_slice(volume).items()
        if slice_index in (None, k)
    ]


def claim_prompts(
    volume: Any, target: str, growth: str, slices: Iterable[int], within: XYXY | None = None
) -> bool:
    """Let the prompts about a target on some slices belong to a growing lesion from now on.

    Of several boxes the one that was placed last, with the points in it; without a box all points.

    Args:
        volume: Volume node.
        target: Of the lesion.
        growth: Id of the lesion.
        slices: Which axial slices.
        within: Pixels of a slice that hold the middle of the box, and the points; None for all.

    Returns:
        Whether there were any.
    """
    geometry, wanted = slice_geometry_of(volume), set(slices)
    nodes = [node for node in prompt_nodes(volume) if node.GetAttribute(TARGET) == target]
    shapes = [n for n in nodes if n.GetAttribute(KIND) in SHAPES]
    boxes = [(n, *_shape_on_slices(n, geometry)) for n in shapes]
    free = [
        (node, xyxy)
        for node, xyxy, ks in boxes
        if wanted & set(ks) and not growth_of_shape(node) and _is_in(_middle(xyxy), within)
    ]
    if free:
        free[-1][0].SetAttribute(GROWTH, growth)
    around, claimed = free[-1][1] if free else within, bool(free)
    for node in (node for node in nodes if node.GetAttribute(KIND) not in SHAPES):
        for index, (i, j, k) in _points_ijk(node, geometry):
            is_near = round(k) in wanted and _is_in((i + 0.5, j + 0.5), around)
            if is_near and not growth_of_point(node, index):
                node.SetNthControlPointDescription(index, GROWTH_OF_POINT + growth)
                claimed = True
    return claimed


def prompted_growths(volume: Any) -> set[str]:
    """Return the ids of the growing lesions that prompts about a volume belong to."""
    found = set()
    for node in prompt_nodes(volume):
        if node.GetAttribute(KIND) in SHAPES:
            found.add(growth_of_shape(node))
        else:
            found |= {growth_of_point(node, n) for n in range(node.GetNumberOfControlPoints())}
    return found - {""}


def release_prompts(volume: Any, growth: str) -> None:
    """Let the prompts of a growing lesion belong to none."""
    for node in prompt_nodes(volume):
        if node.GetAttribute(KIND) in SHAPES:
            if growth_of_shape(node) == growth:
                node.RemoveAttribute(GROWTH)
            continue
        for index in range(node.GetNumberOfControlPoints()):
            if growth_of_point(node, index) == growth:
                node.SetNthControlPointDescription(index, "")


def read_prompts_of(volume: Any, growth: str, first: int) -> list[SlicePrompts]:
    """Return the prompts of a growing lesion, one a slice; those of slice `first` come first."""
    from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts

    found = []
    placed = _by_slice(volume, growth)
    for (k, target), (boxes, points) in sorted(placed.items(), key=lambda one: one[0][0] != first):
        box = BoxPrompt(_around(boxes)) if boxes else None
        clicks = tuple(PointPrompt(xy, positive) for xy, positive in points)
        found.append(SlicePrompts(k, target, 0, box, clicks))
    return found


def edited_slices(volume: Any) -> set[int]:
    """Return the slices with a person's prompts, or whose proposals were taken over."""
    return taken_over(volume) | {k for k, _ in _by_slice(volume)}


def taken_over(volume: Any) -> set[int]:
    """Return the slices whose proposed prompts count no more, for the scene has them."""
    try:
        values = json.loads(volume.GetAttribute(TAKEN_OVER) or "[]")
        return {int(value) for value in values}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # A scene may come from anywhere.
        logger.warning("The slices that were taken over cannot be read: %s", error)
        return set()


def remove_prompt(node: Any) -> None:
    """Remove a prompt from the scene and from all views.

    The display node has to go first: it would stay in the scene, and the views would go on to draw
    what it shows.
    """
    slicer.mrmlScene.RemoveNode(node.GetDisplayNode())
    slicer.mrmlScene.RemoveNode(node)


def _note(volume: Any, slice_index: int) -> None:
    volume.SetAttribute(TAKEN_OVER, json.dumps(sorted(taken_over(volume) | {int(slice_index)})))


def _new_node(kind_of_node: str, volume: Any, name: str, target: str, kind: str) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass(kind_of_node, free_name(name))
    node.CreateDefaultDisplayNodes()
    adopt(node, volume, target, kind)
    place_beside(node, volume)
    display = node.GetDisplayNode()
    display.SetSelectedColor(*_COLORS[kind])
    display.SetColor(*_COLORS[kind])
    if kind == BOX:
        display.SetPropertiesLabelVisibility(False)
        display.SetFillOpacity(0.05)
        display.SetInteractionHandleScale(_HANDLES_PERCENT)
    return node


def _axes_at(geometry: Geometry, centre_ijk: Sequence[float]) -> np.ndarray:
    """Return the frame of a box: right-handed, along the volume's axes."""
    frame = np.eye(4)
    axes = geometry.ijk_to_ras[:3, :3]
    frame[:3, :3] = axes / np.linalg.norm(axes, axis=0)
    if np.linalg.det(frame[:3, :3]) < 0:
        frame[:3, 2] *= -1
    frame[:, 3] = geometry.ijk_to_ras @ np.array([*centre_ijk, 1.0])
    return frame


TargetPrompts = tuple[list[XYXY], list[tuple[XY, bool]]]


def _with_proposals(
    placed: dict[tuple[int, str], TargetPrompts], proposed: Iterable[SlicePrompts], taken: set[int]
) -> dict[tuple[int, str], TargetPrompts]:
    for prompt in proposed:
        if prompt.slice_index not in taken:
            boxes, points = placed.setdefault((prompt.slice_index, prompt.target), ([], []))
            boxes += [] if prompt.box is None else [prompt.box.xyxy]
            points += [(point.xy, point.positive) for point in prompt.points]
    return placed


def _by_slice(volume: Any, growth: str = "") -> dict[tuple[int, str], TargetPrompts]:
    """Return the prompts in the scene: those of a growing lesion, or those of none.

    Points of a scribble come before others, whichever node is older: a lesion begins with the first
    point, and a scribble is the better start.
    """
    nodes = prompt_nodes(volume)
    if not nodes:
        return {}  # also when the volume has no voxels yet
    geometry = slice_geometry_of(volume)
    found: dict[tuple[int, str], TargetPrompts] = {}
    for node in sorted(nodes, key=lambda one: one.GetAttribute(KIND) not in SHAPES):
        target = node.GetAttribute(TARGET)
        if node.GetAttribute(KIND) == BOX:
            xyxy, slices = _box_on_slices(node, geometry)
            for index in slices if growth_of_shape(node) == growth else ():
                found.setdefault((index, target), ([], []))[0].append(_rounded(xyxy))
            continue
        if node.GetAttribute(KIND) in CURVES:
            if growth_of_shape(node) == growth:
                _add_curve(found, node, geometry)
            continue
        positive = node.GetAttribute(KIND) == POSITIVE
        for index, (i, j, k) in _points_ijk(node, geometry):
            if _is_inside((i, j, k), geometry) and growth_of_point(node, index) == growth:
                placed = found.setdefault((round(k), target), ([], []))
                placed[1].append((_rounded((i + 0.5, j + 0.5)), positive))
    return found


def _rounded(pixels: Any) -> Any:
    """Return pixels without the noise of matrices, so that the same prompt has the same ones."""
    return tuple(round(x, _DIGITS) + 0.0 for x in pixels)  # no -0.0


def _add_curve(found: dict[tuple[int, str], TargetPrompts], node: Any, geometry: Geometry) -> None:
    """Add a lasso as its box and points deep within it, and a scribble as points along it.

    Of a scribble the middle comes first: a lesion begins with the first point of its slice.
    """
    curve = _curve_on_slice(node, geometry)
    if curve is None:
        return
    k, line = curve
    boxes, points = found.setdefault((k, node.GetAttribute(TARGET)), ([], []))
    if node.GetAttribute(KIND) == SCRIBBLE:
        steps = np.linspace(0, len(line) - 1, min(len(line), _SCRIBBLE_POINTS)).round()
        along = [((float(x), float(y)), True) for x, y in line[steps.astype(int)]]
        points += [along.pop(len(along) // 2), *along]
        return
    from aslseg.prompts import interior_points

    boxes.append(_bounds(line))
    inside = _inside_of(line, geometry.shape[1:])
    points += [(xy, True) for xy in interior_points(inside, _LASSO_POINTS)]


def _curve_on_slice(node: Any, geometry: Geometry) -> tuple[int, np.ndarray] | None:
    """Return the slice that a curve lies on, and its line (n, 2) in pixels of it.

    A lasso is cut to the volume; of a scribble the points outside are left out.

    None when the curve has too few points, or when it lies outside of the volume.
    """
    least = 2 if node.GetAttribute(KIND) == SCRIBBLE else 3
    points = node.GetCurvePointsWorld()
    if node.GetNumberOfDefinedControlPoints() < least or points is None:
        return None
    world = np.array([points.GetPoint(n) for n in range(points.GetNumberOfPoints())])
    inverse = np.linalg.inv(geometry.ijk_to_ras)
    ijk = world @ inverse[:3, :3].T + inverse[:3, 3]
    slices, rows, columns = geometry.shape
    k = round(float(np.median(ijk[:, 2])))
    line = ijk[:, :2] + 0.5
    if node.GetAttribute(KIND) == SCRIBBLE:
        line = line[((line >= 0) & (line < (columns, rows))).all(axis=1)]
        is_empty = not len(line)
    else:
        line = np.clip(line, 0, (columns, rows))
        is_empty = bool((np.ptp(line, axis=0) == 0).any())
    return None if is_empty or not 0 <= k < slices else (k, line)


def _shape_on_slices(node: Any, geometry: Geometry) -> tuple[XYXY, range]:
    """Return what a box, scribble or lasso covers in pixels, and on which slices."""
    if node.GetAttribute(KIND) == BOX:
        return _box_on_slices(node, geometry)
    curve = _curve_on_slice(node, geometry)
    if curve is None:
        return (0.0, 0.0, 0.0, 0.0), range(0)
    return _bounds(curve[1]), range(curve[0], curve[0] + 1)


def _bounds(line: np.ndarray) -> XYXY:
    (left, top), (right, bottom) = line.min(axis=0), line.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _inside_of(line: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels (H, W) whose centres a closed line goes around, by the even-odd rule."""
    rows, columns = np.indices(shape) + 0.5
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(line, np.roll(line, -1, axis=0), strict=True):
        if y0 != y1:
            crosses = (rows < max(y0, y1)) & (rows >= min(y0, y1))
            inside ^= crosses & (columns < x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
    return inside


def _points_ijk(node: Any, geometry: Geometry) -> list[tuple[int, tuple[float, float, float]]]:
    inverse = np.linalg.inv(geometry.ijk_to_ras)
    found = []
    for index in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(index) == node.PositionDefined:
            position = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(index, position)
            i, j, k, _ = inverse @ np.array([*position, 1.0])
            found.append((index, (float(i), float(j), float(k))))
    return found


def _is_inside(ijk: tuple[float, float, float], geometry: Geometry) -> bool:
    return all(-0.5 <= x < n - 0.5 for x, n in zip(ijk, geometry.shape[::-1], strict=True))


def _box_on_slices(node: Any, geometry: Geometry) -> tuple[XYXY, range]:
    """Return a box in pixels, within the volume, and the slices whose centres it holds."""
    half = np.array(node.GetSize()) / 2
    corners = np.array([[*half * signs, 1.0] for signs in itertools.product((-1, 1), repeat=3)])
    to_world = as_array(node.GetObjectToWorldMatrix())
    ijk = (np.linalg.inv(geometry.ijk_to_ras) @ to_world @ corners.T)[:3]
    low, high = ijk.min(axis=1), ijk.max(axis=1)
    slices, rows, columns = geometry.shape
    left, right = np.clip([low[0] + 0.5, high[0] + 0.5], 0, columns).tolist()
    top, bottom = np.clip([low[1] + 0.5, high[1] + 0.5], 0, rows).tolist()
    first, last = max(int(np.ceil(low[2])), 0), min(int(np.floor(high[2])), slices - 1)
    if first > last:  # thinner than the distance of two slices
        first = last = int(np.clip(round((low[2] + high[2]) / 2), 0, slices - 1))
    is_empty = left >= right or top >= bottom or high[2] < -0.5 or low[2] > slices - 0.5
    return (left, top, right, bottom), range(0) if is_empty else range(first, last + 1)


def _clear_points(node: Any, is_meant: Callable[[int, str], bool], geometry: Geometry) -> None:
    """Remove the points whose slice and growth are meant."""
    for index, (_, _, k) in reversed(_points_ijk(node, geometry)):
        if is_meant(round(k), growth_of_point(node, index)):
            node.RemoveNthControlPoint(index)


def growth_of_shape(node: Any) -> str:
    """Return the id of the growing lesion that a box, scribble or lasso belongs to, or nothing."""
    return node.GetAttribute(GROWTH) or ""


def growth_of_point(node: Any, index: int) -> str:
    """Return the id of the growing lesion that a point belongs to, or nothing."""
    text = str(node.GetNthControlPointDescription(index) or "")
    return text.removeprefix(GROWTH_OF_POINT) if text.startswith(GROWTH_OF_POINT) else ""


def _middle(xyxy: XYXY) -> XY:
    return (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2


def _is_in(xy: XY, box: XYXY | None) -> bool:
    return box is None or _holds(box, xy)


def _around(boxes: Sequence[XYXY]) -> XYXY:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


@dataclass
class Group:
    """The prompts of one object of a slice, in pixels as in `aslseg.prompts`.

    Attributes:
        box: Left, top, right and bottom edge, or None.
        points: (x, y), and whether the point lies in the object.
    """

    box: XYXY | None = None
    points: list[tuple[XY, bool]] = field(default_factory=list)


def group(boxes: Sequence[XYXY], points: Sequence[tuple[XY, bool]]) -> list[Group]:
    """Sort points to the objects of a slice.

    A point belongs to the smallest box that holds it. All positive points outside of boxes are
    about one further object. A negative point outside of boxes belongs to that object, or, if there
    is none, to the nearest box; alone it is left out.
    """
    boxed = [(box, Group(box)) for box in boxes]
    groups, free = [one for _, one in boxed], Group()
    for xy, positive in points:
        holding = [(box, one) for box, one in boxed if _holds(box, xy)]
        chosen = min(holding, key=lambda pair: _area(pair[0]))[1] if holding else free
        chosen.points.append((xy, positive))
    if any(positive for _, positive in free.points):
        return [*groups, free]
    for xy, positive in free.points if boxed else []:
        nearest = min(boxed, key=lambda pair: _distance(pair[0], xy))[1]
        nearest.points.append((xy, positive))
    return groups


def _holds(box: XYXY, xy: XY) -> bool:
    left, top, right, bottom = box
    return left <= xy[0] <= right and top <= xy[1] <= bottom


def _area(box: XYXY) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _distance(box: XYXY, xy: XY) -> float:
    dx = max(box[0] - xy[0], 0.0, xy[0] - box[2])
    dy = max(box[1] - xy[1], 0.0, xy[1] - box[3])
    return float(dx * dx + dy * dy)
