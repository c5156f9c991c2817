"""Draws the module's icon: a slice of the abdomen, a tumour in the liver, SAM's box, and the loop.

    python Testing/pictures/icon.py Resources/Icons/ASLseg.png

Shapes are signed distances (negative inside) in a square of 128 x 128 units, drawn at any size with
edges one pixel wide. Only NumPy is needed.
"""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

UNITS = 128
Field = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

BACKGROUND: Colour = (24, 32, 48)
BODY: Colour = (104, 116, 134)
INSIDE: Colour = (62, 72, 90)
BONE: Colour = (214, 220, 228)
LIVER: Colour = (201, 108, 84)
TUMOUR: Colour = (247, 207, 92)
PROMPT: Colour = (120, 226, 190)


class Canvas:
    """A square picture, and distances of its pixels to shapes."""

    def __init__(self, pixels: int) -> None:
        self.scale = pixels / UNITS
        self.y, self.x = (np.mgrid[0:pixels, 0:pixels] + 0.5) / self.scale
        self.picture = np.zeros((pixels, pixels, 3)) + np.array(BACKGROUND)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float) -> Field:
        """Distance to an ellipse, exact on its outline."""
        scaled = np.hypot((self.x - cx) / rx, (self.y - cy) / ry)
        slope = np.hypot((self.x - cx) / rx**2, (self.y - cy) / ry**2)
        return scaled * (scaled - 1) / np.maximum(slope, 1e-9)

    def rounded_box(
        self, cx: float, cy: float, half_w: float, half_h: float, radius: float
    ) -> Field:
        """Distance to a rectangle with round corners."""
        dx, dy = np.abs(self.x - cx) - half_w + radius, np.abs(self.y - cy) - half_h + radius
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
        return outside + np.minimum(np.maximum(dx, dy), 0) - radius

    @staticmethod
    def smooth_union(a: Field, b: Field, width: float) -> Field:
        """Two shapes grown together over a seam of this width."""
        share = np.clip(0.5 + 0.5 * (b - a) / width, 0, 1)
        return b * (1 - share) + a * share - width * share * (1 - share)

    def arc(
        self, cx: float, cy: float, radius: float, width: float, start: float, end: float
    ) -> Field:
        """Distance to a stroke along a circle from one angle to another (degrees, clockwise)."""
        turn = np.degrees(np.arctan2(self.y - cy, self.x - cx)) % 360
        ring = np.abs(np.hypot(self.x - cx, self.y - cy) - radius) - width / 2
        inside = ((turn - start) % 360) <= (end - start) % 360
        return np.where(inside, ring, 9.0)

    def arrow_head(self, cx: float, cy: float, radius: float, angle: float, size: float) -> Field:
        """Distance to a triangle that sits on a circle and points clockwise."""
        radial = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        along = np.array([-radial[1], radial[0]])
        u = (self.x - cx - radius * radial[0]) * along[0] + (
            self.y - cy - radius * radial[1]
        ) * along[1]
        v = (self.x - cx - radius * radial[0]) * radial[0] + (
            self.y - cy - radius * radial[1]
        ) * radial[1]
        return np.maximum(-u, (u + 1.35 * np.abs(v) - size) / 1.68)

    def dashed(self, box: Field, width: float) -> Field:
        """The outline of a shape, as dashes."""
        gap = ((self.x + self.y) % 9) > 6
        return np.where(gap, 9.0, np.abs(box) - width / 2)

    def paint(self, shape: Field, colour: Colour) -> None:
        """Lay a colour over the picture wherever the shape is."""
        cover = np.clip(0.5 - shape * self.scale, 0, 1)[..., None]
        self.picture = self.picture * (1 - cover) + np.array(colour) * cover

    def liver(self) -> Field:
        """The large right lobe (left in the picture) and the small left one."""
        right = self.ellipse(44, 57, 21, 23)
        return self.smooth_union(right, self.ellipse(67, 48, 17, 9.5), 12)


def draw(pixels: int = UNITS) -> npt.NDArray[np.uint8]:
    """The icon, (pixels, pixels, 4): red, green, blue and opacity."""
    on = Canvas(pixels)
    for shape, colour in [
        (on.ellipse(64, 64, 48, 38), BODY),
        (on.ellipse(64, 63.5, 43, 33), INSIDE),
        (on.ellipse(64, 84, 8.5, 7.5), BONE),
        (on.ellipse(90, 58, 9, 12), BODY),
        (on.liver(), LIVER),
        (on.ellipse(43, 62, 7.5, 6.8), TUMOUR),
        (on.dashed(on.rounded_box(43, 62, 12.5, 11.5, 2), 2.6), PROMPT),
        (on.arc(64, 64, 56, 4.6, 200, 318), TUMOUR),
        (on.arrow_head(64, 64, 56, 318, 12), TUMOUR),
        (on.arc(64, 64, 56, 4.6, 20, 138), PROMPT),
        (on.arrow_head(64, 64, 56, 138, 12), PROMPT),
    ]:
        on.paint(shape, colour)
    opacity = 255 * np.clip(0.5 - on.scale * on.rounded_box(64, 64, 64, 64, 20), 0, 1)
    return np.dstack([on.picture, opacity]).round().astype(np.uint8)


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """A picture with opacity as the bytes of a PNG file."""
    height, width, _ = picture.shape
    rows = b"".join(b"\0" + row.tobytes() for row in picture)

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(png(draw()))
