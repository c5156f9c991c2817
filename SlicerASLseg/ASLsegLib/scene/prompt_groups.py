"""Which clicks and boxes of a slice speak about the same object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

XY = tuple[float, float]
XYXY = tuple[float, float, float, float]


@dataclass
class Group:
    """What is said about one object of a slice, in pixels as in `aslseg.prompts`.

    Attributes:
        box: Left, top, right and bottom edge, or None.
        points: (x, y) and whether the point lies in the object.
    """

    box: XYXY | None = None
    points: list[tuple[XY, bool]] = field(default_factory=list)


def group(boxes: Sequence[XYXY], points: Sequence[tuple[XY, bool]]) -> list[Group]:
    """Sort points to the objects of a slice.

    A point belongs to the smallest box that holds it. All positive points outside of boxes are
    about one further object. A negative point outside of boxes belongs to that object, or, if there
    is none, to the nearest box; alone it says nothing and is left out.
    """
    groups = [Group(box) for box in boxes]
    free = Group()
    for xy, positive in points:
        holding = [g for g in groups if g.box is not None and _holds(g.box, xy)]
        chosen = min(holding, key=lambda g: _area(g.box)) if holding else free
        chosen.points.append((xy, positive))
    if any(positive for _, positive in free.points):
        return [*groups, free]
    for xy, positive in free.points if groups else []:
        min(groups, key=lambda g: _distance(g.box, xy)).points.append((xy, positive))
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
