"""The phantom's organs other than the liver, several of them as bright as the liver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aslseg.data.phantom.body import spine_field
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


@dataclass(frozen=True, slots=True)
class Organs:
    """What differs from patient to patient.

    Attributes:
        liver_hu: Intensity of the liver.
        spleen_hu: Of the spleen.
        stomach_hu: Of what fills the stomach.
        pancreas_hu: Of the pancreas.
        kidney_hu: Of the renal cortex.
        blood_hu: Of the vessels.
        size: Scale of all organs.
        shift_mm: How far the upper organs lie from their usual place.
        bubble_y: Everything in front of this level of the stomach is gas.
    """

    liver_hu: float
    spleen_hu: float
    stomach_hu: float
    pancreas_hu: float
    kidney_hu: float
    blood_hu: float
    size: float
    shift_mm: Point
    bubble_y: float


def draw_organs(rng: np.random.Generator) -> Organs:
    """Draw intensities and sizes; spleen, pancreas and stomach come close to the liver."""
    liver = float(rng.uniform(96.0, 118.0))
    return Organs(
        liver_hu=liver,
        spleen_hu=liver + float(rng.uniform(-4.0, 14.0)),
        stomach_hu=liver - float(rng.uniform(4.0, 34.0)),
        pancreas_hu=liver - float(rng.uniform(6.0, 20.0)),
        kidney_hu=float(rng.uniform(160.0, 185.0)),
        blood_hu=float(rng.uniform(145.0, 175.0)),
        size=float(rng.uniform(0.93, 1.06)),
        shift_mm=(float(rng.normal(0, 4)), float(rng.normal(0, 4)), float(rng.normal(0, 6))),
        bubble_y=float(rng.uniform(-80.0, -58.0)),
    )


def paint_organs(canvas: Canvas, organs: Organs, cavity: Field, rng: np.random.Generator) -> Field:
    """Paint bowel, kidneys, spleen, pancreas, stomach and vessels into the cavity.

    Returns:
        The field of all that the liver must leave room for.
    """
    inside = np.maximum(cavity + 2.0, 3.0 - spine_field(canvas.space))
    _paint_mesentery(canvas, rng)
    _paint_bowel(canvas, inside, rng)
    kidneys = _paint_kidneys(canvas, organs, inside, rng)
    spleen = _paint_spleen(canvas, organs, inside, kidneys, rng)
    _paint_pancreas(canvas, organs, np.maximum(inside, 2.0 - kidneys), rng)
    stomach = _paint_stomach(canvas, organs, np.maximum(inside, 2.0 - union(kidneys, spleen)), rng)
    _paint_great_vessels(canvas, organs)
    return union(union(kidneys, stomach), union(spleen, cava_field(canvas.space)))


def cava_field(space: Space) -> Field:
    """Return the distance from the inferior vena cava."""
    return union(
        capsule(space, (-20.0, 28.0, -120.0), (-20.0, 26.0, 5.0), 10.5),
        capsule(space, (-20.0, 26.0, 5.0), (-17.0, 8.0, 85.0), 11.5),
        3.0,
    )


def _placed(organs: Organs, centre: Point) -> Point:
    x, y, z = (a + b for a, b in zip(centre, organs.shift_mm, strict=True))
    return x, y, z


def _sized(organs: Organs, radii: Point) -> Point:
    x, y, z = (organs.size * radius for radius in radii)
    return x, y, z


def _paint_mesentery(canvas: Canvas, rng: np.random.Generator) -> None:
    for _ in range(70):
        start = (rng.uniform(-75, 75), rng.uniform(-70, 15), rng.uniform(-85, 5))
        end = tuple(a + b for a, b in zip(start, rng.normal(0.0, (9.0, 9.0, 14.0)), strict=True))
        canvas.rod(start, (end[0], end[1], end[2]), float(rng.uniform(1.0, 2.2)), 95.0)


def _paint_bowel(canvas: Canvas, inside: Field, rng: np.random.Generator) -> None:
    for _ in range(44):
        start = (rng.uniform(-70, 105), rng.uniform(-85, 10), rng.uniform(-105, -8))
        bend = rng.normal(0.0, (22.0, 10.0, 12.0))
        end = (start[0] + bend[0], start[1] + bend[1], start[2] + bend[2])
        _paint_loop(canvas, start, end, inside, rng)
    for start, end in (
        ((-104.0, 0.0, -110.0), (-98.0, -8.0, -48.0)),
        ((108.0, 28.0, -110.0), (112.0, 30.0, 0.0)),
        ((-85.0, -66.0, -58.0), (82.0, -72.0, -36.0)),
    ):
        _paint_colon(canvas, start, end, inside, rng)


def _paint_loop(
    canvas: Canvas, start: Point, end: Point, inside: Field, rng: np.random.Generator
) -> None:
    radius = float(rng.uniform(9.0, 14.0))
    box = canvas.box_of_rod(start, end, radius)
    loop = np.maximum(capsule(canvas.space.within(box), start, end, radius), inside[box])
    canvas.paint(loop, float(rng.uniform(70.0, 100.0)), box)
    canvas.paint(loop + 2.5, float(rng.uniform(15.0, 75.0)), box)
    if rng.random() < 0.25:
        level = start[1] - rng.uniform(-3.0, 5.0)
        gas = np.maximum(loop + 3.0, canvas.space.y[box] - level)
        canvas.paint(gas, -880.0, box)


def _paint_colon(
    canvas: Canvas, start: Point, end: Point, inside: Field, rng: np.random.Generator
) -> None:
    radius = float(rng.uniform(15.0, 20.0))
    box = canvas.box_of_rod(start, end, radius + 4.0)
    space = canvas.space.within(box)
    haustra = 3.0 * np.sin((space.x + space.z) / 7.0)
    tube = np.maximum(capsule(space, start, end, radius) + haustra, inside[box])
    canvas.paint(tube, 65.0, box)
    mottled = smooth_noise(rng, space.axes_mm, scale_mm=5.0)
    canvas.paint(tube + 2.5, np.where(mottled > 0.9, -420.0, 8.0 + 30.0 * mottled), box)
    if rng.random() < 0.7:
        level = min(start[1], end[1]) - rng.uniform(-4.0, 8.0)
        canvas.paint(np.maximum(tube + 3.0, space.y - level), -930.0, box)


def _paint_kidneys(
    canvas: Canvas, organs: Organs, inside: Field, rng: np.random.Generator
) -> Field:
    space, both = canvas.space, np.full(canvas.space.shape, 1e3, np.float32)
    for side, height in ((-1.0, -42.0), (1.0, -22.0)):
        centre = (62.0 * side + rng.normal(0, 2), 53.0, height + rng.normal(0, 5))
        kidney = ellipsoid(space, centre, _sized(organs, (29.0, 25.0, 54.0)))
        hilum = ellipsoid(
            space, (centre[0] - 27.0 * side, centre[1] - 8.0, centre[2]), (17.0, 10.0, 20.0)
        )
        kidney = np.maximum(without(kidney, hilum), inside)
        grain = smooth_noise(rng, space.axes_mm, scale_mm=11.0)
        pyramids = kidney + 7.0 + 3.0 * grain
        canvas.paint(kidney, organs.kidney_hu)
        canvas.paint(pyramids, organs.kidney_hu - 40.0)
        sinus = ellipsoid(
            space, (centre[0] - 8.0 * side, centre[1] - 2.0, centre[2]), (11.0, 8.0, 27.0)
        )
        canvas.paint(sinus + 2.0 * grain, -70.0)
        canvas.paint(np.maximum(sinus + 5.0, kidney), 12.0)
        both = union(both, kidney)
    return both


def _paint_spleen(
    canvas: Canvas, organs: Organs, inside: Field, kidneys: Field, rng: np.random.Generator
) -> Field:
    space = canvas.space
    centre = _placed(organs, (99.0, 34.0, 24.0))
    spleen = ellipsoid(space, centre, _sized(organs, (36.0, 52.0, 46.0)))
    hollow = ellipsoid(space, (centre[0] - 40.0, centre[1] - 12.0, centre[2]), (34.0, 50.0, 60.0))
    spleen = without(spleen, hollow) + 3.0 * smooth_noise(rng, space.axes_mm, scale_mm=30.0)
    spleen = np.asarray(np.maximum(spleen, np.maximum(inside, 3.0 - kidneys)))
    canvas.paint(spleen, organs.spleen_hu)
    return spleen


def _paint_pancreas(
    canvas: Canvas, organs: Organs, inside: Field, rng: np.random.Generator
) -> None:
    space, (_, y, z) = canvas.space, organs.shift_mm
    course = [
        (-28.0, 4.0, -22.0),
        (-6.0, -8.0, -6.0),
        (28.0, -6.0, 2.0),
        (58.0, 12.0, 12.0),
        (80.0, 26.0, 20.0),
    ]
    radii = (13.0, 10.0, 9.0, 9.0)
    pancreas = np.full(space.shape, 1e3, np.float32)
    for start, end, radius in zip(course, course[1:], radii, strict=False):
        part = capsule(
            space, (start[0], start[1] + y, start[2] + z), (end[0], end[1] + y, end[2] + z), radius
        )
        pancreas = union(pancreas, part, 6.0)
    lobules = 2.6 * smooth_noise(rng, space.axes_mm, scale_mm=8.0)
    canvas.paint(np.maximum(pancreas + lobules, inside), organs.pancreas_hu)


def _paint_stomach(
    canvas: Canvas, organs: Organs, inside: Field, rng: np.random.Generator
) -> Field:
    space = canvas.space
    fundus = ellipsoid(
        space, _placed(organs, (62.0, -34.0, 28.0)), _sized(organs, (37.0, 44.0, 42.0))
    )
    antrum = ellipsoid(
        space, _placed(organs, (26.0, -58.0, -14.0)), _sized(organs, (36.0, 22.0, 22.0))
    )
    folds = 2.5 * smooth_noise(rng, space.axes_mm, scale_mm=28.0)
    stomach = np.asarray(np.maximum(union(fundus, antrum, 22.0) + folds, inside))
    canvas.paint(stomach, organs.liver_hu - 14.0)
    food = organs.stomach_hu + 9.0 * smooth_noise(rng, space.axes_mm, scale_mm=10.0)
    canvas.paint(stomach + 4.5, food)
    gas = np.maximum(stomach + 4.5, space.axes_mm[1][None, :, None] - organs.bubble_y)
    canvas.paint(gas, -940.0)
    return stomach


def _paint_great_vessels(canvas: Canvas, organs: Organs) -> None:
    blood = organs.blood_hu
    aorta = capsule(canvas.space, (9.0, 27.0, -130.0), (7.0, 30.0, 130.0), 10.0)
    canvas.paint(aorta - 1.0, blood - 30.0)
    canvas.paint(aorta, blood + 12.0)
    canvas.paint(cava_field(canvas.space), blood - 12.0)
    for start, end, radius in (
        ((9.0, 20.0, -6.0), (4.0, 2.0, -24.0), 3.4),
        ((4.0, 2.0, -24.0), (2.0, -12.0, -110.0), 3.6),
        ((-10.0, 0.0, -14.0), (-12.0, -12.0, -110.0), 5.0),
        ((14.0, 27.0, -22.0), (44.0, 44.0, -22.0), 3.2),
        ((-20.0, 29.0, -34.0), (-44.0, 44.0, -34.0), 4.2),
        ((12.0, 12.0, -2.0), (78.0, 28.0, 20.0), 4.4),
        ((-10.0, 0.0, -14.0), (12.0, 12.0, -2.0), 5.0),
    ):
        canvas.rod(start, end, radius, blood)
