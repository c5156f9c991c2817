"""The size that a PNG file states in its head."""

from __future__ import annotations

import struct
from pathlib import Path


def png_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels.

    Raises:
        ValueError: The file is no PNG.
    """
    head = path.read_bytes()[:24]
    if head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        msg = f"{path} is no PNG file"
        raise ValueError(msg)
    width, height = struct.unpack(">II", head[16:24])
    return width, height
