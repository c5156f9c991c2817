"""The phantom's frame: skin, fat, muscles, bones, lungs, and the couch that it lies on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aslseg.data.phantom.space import (
    Canvas,
    Field,
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
