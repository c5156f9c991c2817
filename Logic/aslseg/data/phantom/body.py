"""The phantom but for its liver: frame (skin, fat, muscles, bones, lungs, couch) and other organs.

Several organs are as bright as the liver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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

SKIN_MM = 2.0


FAT_HU, VISCERAL_FAT_HU, MUSCLE_HU = -106.0, -98.0, 58.0


CORTEX_HU, MARROW_HU, DISC_HU = 420.0, 175.0, 85.0


LUNG_HU = -840.0


SPINE_Y = 48.0


VERTEBRA_MM = 34.0


@dataclass(frozen=True, slots=True)
class Frame:
    """What differs from body to body.

    Attributes:
        half_width_mm: Of the trunk.
        half_depth_mm: Of the trunk.
        fat_mm: Thickness of the fat beneath the skin.
        muscle_mm: Thickness of the abdominal wall.
        dome_mm: Height of the right dome of the diaphragm above the middle of the volume.
        level_mm: Height of one of the vertebral discs.
    """

    half_width_mm: float
    half_depth_mm: float
    fat_mm: float
    muscle_mm: float
    dome_mm: float
    level_mm: float


def draw_frame(rng: np.random.Generator) -> Frame:
    """Draw a body."""
    fat = float(rng.uniform(7.0, 20.0))
    return Frame(
        half_width_mm=float(rng.uniform(142.0, 154.0)) + 0.6 * fat,
        half_depth_mm=float(rng.uniform(98.0, 106.0)) + 0.6 * fat,
        fat_mm=fat,
        muscle_mm=float(rng.uniform(8.0, 12.0)),
        dome_mm=float(rng.uniform(62.0, 74.0)),
        level_mm=float(rng.uniform(0.0, VERTEBRA_MM)),
    )


def paint_body(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> Field:
    """Paint all that surrounds the abdominal organs.

    Returns:
        The field of the abdominal cavity, filled with fat: where organs may go.
    """
    space = canvas.space
    trunk = _trunk(space, frame)
    _paint_couch(canvas, frame)
    canvas.paint(trunk, 25.0)
    canvas.paint(trunk + SKIN_MM, _fat(space, rng))
    depth = trunk + SKIN_MM + _fat_thickness(space, frame, rng)
    canvas.paint(depth, MUSCLE_HU + 5.0 * smooth_noise(rng, space.axes_mm, scale_mm=14.0))
    # Thin fat between the layers of the abdominal wall, in front and at the sides only.
    between = np.abs(depth + 0.5 * frame.muscle_mm) - 0.4
    canvas.paint(np.maximum(between, space.y - 30.0), -20.0)
    cavity = depth + frame.muscle_mm
    canvas.paint(cavity, VISCERAL_FAT_HU)
    _paint_back_muscles(canvas, trunk, frame, rng)
    _paint_ribs(canvas, depth, frame)
    _paint_spine(canvas, trunk, frame, rng)
    _paint_lungs(canvas, cavity, frame, rng)
    return cavity


def spine_field(space: Space) -> Field:
    """Return the distance from the vertebral bodies, which organs keep away from."""
    flat = Space(space.x, space.y, np.zeros_like(space.z), space.axes_mm)
    return ellipsoid(flat, (0.0, SPINE_Y, 0.0), (22.0, 17.0, 1e3))


def _trunk(space: Space, frame: Frame) -> Field:
    # A superellipse, flatter at the back, with a groove over the spine.
    power = 2.35
    wide, deep = frame.half_width_mm, np.where(space.y > 0, 0.93, 1.0) * frame.half_depth_mm
    a, b = np.abs(space.x) / wide, np.abs(space.y) / deep
    level = (a**power + b**power + 1e-9) ** (1.0 / power)
    slope = np.hypot(a ** (power - 1) / wide, b ** (power - 1) / deep) / level ** (power - 1)
    groove = 7.0 * np.exp(-((space.x / 16.0) ** 2)) * (space.y > 0)
    return np.asarray((level - 1.0) / np.maximum(slope, 1e-4) + groove, dtype=np.float32)


def _fat(space: Space, rng: np.random.Generator) -> Field:
    return FAT_HU + 4.0 * smooth_noise(rng, space.axes_mm, scale_mm=18.0)


def _fat_thickness(space: Space, frame: Frame, rng: np.random.Generator) -> Field:
    around = 1.0 + 0.18 * space.y / 100.0 + 0.12 * smooth_noise(rng, space.axes_mm, scale_mm=90.0)
    return np.asarray(frame.fat_mm * np.clip(around, 0.5, 1.6), dtype=np.float32)


def _paint_couch(canvas: Canvas, frame: Frame) -> None:
    z, y, x = canvas.space.axes_mm
    bow = 0.93 * frame.half_depth_mm + 11.0 - (x / 120.0) ** 2 * 12.0
    sheet = np.maximum(np.abs(y[:, None] - bow[None]) - 1.2, np.abs(x)[None] - 175.0)
    canvas.paint(np.broadcast_to(sheet, (len(z), *sheet.shape)), -420.0)


def _paint_back_muscles(
    canvas: Canvas, trunk: Field, frame: Frame, rng: np.random.Generator
) -> None:
    space = canvas.space
    grain = 18.0 * np.minimum(smooth_noise(rng, space.axes_mm, scale_mm=9.0), 0.0)
    limit = trunk + SKIN_MM + 0.6 * frame.fat_mm
    for side in (-1.0, 1.0):
        erector = ellipsoid(space, (33.0 * side, SPINE_Y + 30.0, 0.0), (30.0, 22.0, 400.0))
        canvas.paint(np.maximum(erector, limit), MUSCLE_HU + grain)
        psoas = capsule(
            space, (26.0 * side, SPINE_Y - 2.0, -5.0), (46.0 * side, SPINE_Y - 8.0, -110.0), 13.0
        )
        canvas.paint(psoas, MUSCLE_HU + 4.0)
        crus = capsule(
            space, (13.0 * side, SPINE_Y - 20.0, -25.0), (19.0 * side, SPINE_Y - 26.0, 60.0), 4.5
        )
        canvas.paint(crus, MUSCLE_HU + 8.0)


def _paint_ribs(canvas: Canvas, depth: Field, frame: Frame) -> None:
    # Ribs fall from the spine to the front, so that a slice cuts several of them.
    space = canvas.space
    middle = depth + 0.5 * frame.muscle_mm
    fall = 0.5 * (space.y - SPINE_Y) - 0.34 * np.abs(space.x)
    for number in range(-1, 8):
        height = -28.0 + 29.0 * number
        across = (space.z - height - fall) * 0.85
        rib = (
            np.hypot(np.maximum(np.abs(middle) - 1.0, 0.0), np.maximum(np.abs(across) - 3.0, 0.0))
            - 3.2
        )
        # The lowest ribs are short; none reaches the midline in front.
        reach = -20.0 + 16.0 * max(0, 2 - number) - 8.0 * max(0, number - 3)
        rib = np.maximum(rib, np.maximum(reach - space.y, 30.0 - np.abs(space.x)))
        canvas.paint(rib, CORTEX_HU)
        canvas.paint(rib + 2.4, MARROW_HU + 40.0)


def _paint_spine(canvas: Canvas, trunk: Field, frame: Frame, rng: np.random.Generator) -> None:
    space = canvas.space
    phase = np.mod(space.z + frame.level_mm, VERTEBRA_MM)
    from_disc = np.abs(phase - 0.5 * VERTEBRA_MM)  # 0 in a disc's middle
    waist = 2.5 * np.cos(2.0 * np.pi * (phase / VERTEBRA_MM - 0.5))
    body = spine_field(space) - waist
    canal = capsule(space, (0.0, SPINE_Y + 24.0, -300.0), (0.0, SPINE_Y + 24.0, 300.0), 9.0)
    body = without(body, canal)
    _paint_arch(canvas, trunk + 8.0, canal, from_disc)
    canvas.paint(body, DISC_HU)
    bone = np.maximum(body, 4.0 - from_disc)
    canvas.paint(bone, CORTEX_HU)
    canvas.paint(bone + 2.2, MARROW_HU + 28.0 * smooth_noise(rng, space.axes_mm, scale_mm=7.0))
    canvas.paint(canal, 0.0)
    canvas.paint(canal + 4.0, 38.0)


def _paint_arch(canvas: Canvas, limit: Field, canal: Field, from_disc: Field) -> None:
    space = canvas.space
    spinous = capsule(space, (0.0, SPINE_Y + 33.0, -300.0), (0.0, SPINE_Y + 33.0, 300.0), 3.5)
    blade = np.maximum(np.abs(space.x) - 3.0, np.abs(space.y - SPINE_Y - 36.0) - 9.0)
    arch = union(np.abs(canal - 3.0) - 3.0, union(spinous, blade), 4.0)
    for side in (-1.0, 1.0):
        rod = capsule(
            _flat(space),
            (11.0 * side, SPINE_Y + 22.0, 0.0),
            (33.0 * side, SPINE_Y + 27.0, 0.0),
            4.0,
        )
        arch = union(arch, np.maximum(rod, 6.0 - from_disc), 3.0)
    arch = np.maximum(arch, limit)
    canvas.paint(arch, CORTEX_HU)
    canvas.paint(arch + 2.5, MARROW_HU + 30.0)


def _flat(space: Space) -> Space:
    return Space(space.x, space.y, np.zeros_like(space.z), space.axes_mm)


def _paint_lungs(canvas: Canvas, cavity: Field, frame: Frame, rng: np.random.Generator) -> None:
    space = canvas.space
    top = frame.dome_mm + 4.0
    right = ellipsoid(space, (-66.0, -4.0, top - 95.0), (84.0, 94.0, 95.0))
    left = ellipsoid(space, (70.0, 0.0, top - 102.0), (80.0, 92.0, 95.0))
    centre = np.maximum(np.abs(space.x) - 34.0, -space.y - 200.0)
    below = union(union(right, left, 12.0), centre, 14.0)
    recess = 24.0 - 0.28 * space.y - space.z  # the recess reaches lower at the back
    lung = np.maximum(np.maximum(cavity + 1.5, 1.0 - below), recess)
    vessels = smooth_noise(rng, space.axes_mm, scale_mm=7.0)
    canvas.paint(lung, LUNG_HU + 260.0 * np.maximum(vessels - 1.2, 0.0) + 18.0 * vessels)
    heart = ellipsoid(space, (20.0, -40.0, top + 26.0), (62.0, 48.0, 36.0))
    heart = np.maximum(heart, cavity + 4.0)
    canvas.paint(heart - 4.0, VISCERAL_FAT_HU)
    canvas.paint(heart, 118.0)
    canvas.paint(heart + 11.0, 142.0)


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
