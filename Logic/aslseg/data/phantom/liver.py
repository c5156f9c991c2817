"""The phantom's liver: its shape, its vessels, and tumours darker or brighter than it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aslseg.data.phantom.body import Organs
from aslseg.data.phantom.space import (
    Canvas,
    Field,
    Point,
    Space,
    capsule,
    ellipsoid,
    smooth_noise,
    union,
    without,
)

HILUM: Point = (-36.0, -4.0, 4.0)
OUTLET: Point = (-18.0, 10.0, 52.0)

MOST_TUMOURS = 6


@dataclass(frozen=True, slots=True)
class LiverShape:
    """What differs from liver to liver.

    Attributes:
        right_mm: Half-axes of the right lobe.
        left_mm: Half-axes of the left lobe.
        left_centre: Middle of the left lobe.
        ragged_mm: Depth of the irregularities of the surface.
    """

    right_mm: Point
    left_mm: Point
    left_centre: Point
    ragged_mm: float


@dataclass(frozen=True, slots=True)
class Tumour:
    """One tumour.

    Attributes:
        centre: Its middle.
        radius_mm: Its mean radius.
        stretch: Its half-axes as parts of the radius.
        contrast_hu: Its intensity relative to the liver.
        rim_hu: That of its rim relative to the rest of it.
        core_hu: That of its core relative to the rest of it.
    """

    centre: Point
    radius_mm: float
    stretch: Point
    contrast_hu: float
    rim_hu: float
    core_hu: float


def draw_liver(rng: np.random.Generator, *, top_mm: float) -> LiverShape:
    """Draw a liver that reaches up to the dome of the diaphragm at `top_mm`."""
    right = rng.uniform((58.0, 76.0), (68.0, 90.0))
    left = rng.uniform((58.0, 28.0, 28.0), (88.0, 38.0, 40.0))
    middle = rng.uniform((-22.0, -56.0, 18.0), (0.0, -44.0, 34.0))
    return LiverShape(
        right_mm=(float(right[0]), float(right[1]), top_mm - 1.0),
        left_mm=(float(left[0]), float(left[1]), float(left[2])),
        left_centre=(float(middle[0]), float(middle[1]), float(middle[2])),
        ragged_mm=float(rng.uniform(2.0, 4.0)),
    )


def liver_field(
    space: Space, shape: LiverShape, cavity: Field, others: Field, rng: np.random.Generator
) -> Field:
    """Shape a liver that fills its corner of the cavity and leaves room for its neighbours."""
    right = ellipsoid(space, (-72.0, -2.0, 2.0), shape.right_mm)
    left = ellipsoid(space, shape.left_centre, shape.left_mm)
    caudate = ellipsoid(space, (-24.0, 8.0, 22.0), (17.0, 16.0, 24.0))
    liver = union(union(right, left, 26.0), caudate, 8.0)
    liver = liver + shape.ragged_mm * smooth_noise(rng, space.axes_mm, scale_mm=34.0)
    x, y, z = shape.left_centre
    bend = 5.0 * smooth_noise(rng, space.axes_mm, scale_mm=22.0)
    fissure = ellipsoid(space, (x - 20.0, y - 4.0, z - 34.0), (5.0, 30.0, 26.0)) + bend
    hilum = ellipsoid(space, (HILUM[0] + 4.0, HILUM[1] + 2.0, HILUM[2] - 16.0), (13.0, 9.0, 17.0))
    liver = without(without(liver, fissure), union(hilum, gallbladder_field(space), 4.0), 1.0)
    return np.asarray(np.maximum(without(liver, others, 2.0), cavity + 2.5))


def gallbladder_field(space: Space) -> Field:
    """Return the distance from the gallbladder, beneath the liver."""
    return capsule(space, (-50.0, -34.0, -22.0), (-56.0, -62.0, -40.0), 12.0)


def paint_liver(
    canvas: Canvas, liver: Field, cavity: Field, organs: Organs, rng: np.random.Generator
) -> None:
    """Paint the liver, its vessels and the gallbladder."""
    texture = 2.5 * smooth_noise(rng, canvas.space.axes_mm, scale_mm=16.0)
    gallbladder = np.maximum(gallbladder_field(canvas.space), cavity + 2.0)
    canvas.paint(gallbladder, 70.0)
    canvas.paint(gallbladder + 1.8, 8.0)
    canvas.rod((-10.0, 0.0, -14.0), HILUM, 6.5, organs.blood_hu)
    canvas.paint(liver, organs.liver_hu + texture)
    for start, end, radius in vessel_trees(rng):
        box = canvas.box_of_rod(start, end, radius)
        rod = capsule(canvas.space.within(box), start, end, radius)
        canvas.paint(np.maximum(rod, liver[box] + 3.0), organs.blood_hu - 6.0, box)


def vessel_trees(rng: np.random.Generator) -> list[tuple[Point, Point, float]]:
    """Draw the branches of the portal vein and of the three hepatic veins.

    Returns:
        Start, end and radius in mm of each branch.
    """
    branches: list[tuple[Point, Point, float]] = []
    for way in ((-1.0, 0.1, 0.15), (-0.8, 0.5, -0.5), (0.45, -0.9, 0.3)):
        _grow(branches, HILUM, np.array(way), (26.0, 5.4), rng)
    for way in ((-0.9, 0.35, -0.35), (-0.45, -0.75, -0.35), (0.35, -0.85, -0.2)):
        _grow(branches, OUTLET, np.array(way), (30.0, 5.0), rng)
    return branches


def _grow(
    branches: list[tuple[Point, Point, float]],
    start: Point,
    way: np.ndarray[tuple[int], np.dtype[np.float64]],
    size: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    length, radius = size
    way = way / np.linalg.norm(way)
    tip = np.array(start) + length * way
    end = (float(tip[0]), float(tip[1]), float(tip[2]))
    branches.append((start, end, radius))
    if radius < 1.5:
        return
    for _ in range(2):
        _grow(branches, end, way + rng.normal(0.0, 0.55, 3), (length * 0.84, radius * 0.74), rng)


def draw_tumours(space: Space, liver: Field, rng: np.random.Generator) -> list[Tumour]:
    """Draw two to `MOST_TUMOURS` tumours that lie inside the liver and apart from each other.

    Most are darker than the liver, some brighter; the first two are one of each.
    """
    wanted = int(rng.integers(2, MOST_TUMOURS + 1))
    found: list[Tumour] = []
    for _ in range(12 * wanted):
        radius = float(np.clip(rng.lognormal(2.4, 0.5), 6.0, 28.0))
        centre = _free_place(space, liver, found, radius, rng)
        if centre is not None:
            found.append(_draw_tumour(centre, radius, bright=_is_bright(len(found), rng), rng=rng))
        if len(found) == wanted:
            break
    return found


def _is_bright(number: int, rng: np.random.Generator) -> bool:
    return number == 1 or (number > 1 and rng.random() < 0.3)


def _free_place(
    space: Space, liver: Field, found: list[Tumour], radius: float, rng: np.random.Generator
) -> Point | None:
    deep = np.flatnonzero(liver.ravel() < -0.55 * radius - 2.0)
    if deep.size == 0:
        return None
    index = deep[rng.integers(deep.size)]
    x, y, z = (float(axis.ravel()[index]) for axis in (space.x, space.y, space.z))
    for other in found:
        if np.hypot(np.hypot(x - other.centre[0], y - other.centre[1]), z - other.centre[2]) < (
            radius + other.radius_mm + 6.0
        ):
            return None
    return x, y, z


def _draw_tumour(centre: Point, radius: float, *, bright: bool, rng: np.random.Generator) -> Tumour:
    stretch = rng.uniform(0.82, 1.22, 3)
    contrast = rng.uniform(26.0, 48.0) if bright else -rng.uniform(26.0, 52.0)
    has_core = radius > 11.0 and rng.random() < 0.5
    return Tumour(
        centre=centre,
        radius_mm=radius,
        stretch=(float(stretch[0]), float(stretch[1]), float(stretch[2])),
        contrast_hu=float(contrast),
        rim_hu=float(rng.uniform(4.0, 22.0)) if rng.random() < 0.4 else 0.0,
        core_hu=-float(rng.uniform(12.0, 28.0)) if has_core else 0.0,
    )


def paint_tumour(
    canvas: Canvas, tumour: Tumour, liver: Field, liver_hu: float, rng: np.random.Generator
) -> Field:
    """Paint a tumour.

    Returns:
        Its field, no larger than the liver.
    """
    space, radius = canvas.space, tumour.radius_mm
    half = (radius * tumour.stretch[0], radius * tumour.stretch[1], radius * tumour.stretch[2])
    lobes = 0.14 * radius * smooth_noise(rng, space.axes_mm, scale_mm=max(10.0, 1.2 * radius))
    field = np.maximum(ellipsoid(space, tumour.centre, half) + lobes, liver)
    grain = 3.0 * smooth_noise(rng, space.axes_mm, scale_mm=8.0)
    hu = liver_hu + tumour.contrast_hu + grain
    canvas.paint(field, hu + tumour.rim_hu)
    canvas.paint(field + 2.5, hu)
    canvas.paint(field + 0.55 * radius + 0.5 * grain, hu + tumour.core_hu)
    return field
