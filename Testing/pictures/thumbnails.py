"""Draws the pictures that the module Sample Data shows for our samples, 260 x 280 pixels.

    python Testing/pictures/thumbnails.py Resources/Icons

The phantom's is a slice of the phantom; that of the public CT is a drawing, for its voxels are not
ours to keep here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from icon import BACKGROUND, draw, png

from aslseg.data.phantom.dataset import make_phantom

WIDTH, HEIGHT = 260, 280
PHANTOM_SEED = 3
"""As in ASLsegLib/sample_data.py."""
WINDOW_HU = (-100.0, 240.0)

Picture = npt.NDArray[np.uint8]


def on_card(inner: Picture) -> Picture:
    """Put a picture in the middle of a card."""
    card = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    card[:] = (*BACKGROUND, 255)
    top, left = (HEIGHT - inner.shape[0]) // 2, (WIDTH - inner.shape[1]) // 2
    card[top : top + inner.shape[0], left : left + inner.shape[1], :3] = inner[..., :3]
    return card


def phantom_slice() -> Picture:
    """The slice of the phantom with most tumour, as wide as the card."""
    volume, labelmap = make_phantom(PHANTOM_SEED)
    k = int((labelmap.labels == 2).sum(axis=(1, 2)).argmax())
    low, high = WINDOW_HU
    grey = 255 * np.clip((volume.voxels[k] - low) / (high - low), 0, 1)
    rows, columns = grey.shape
    side = WIDTH / columns
    take_j = np.minimum((np.arange(round(rows * side)) / side).astype(int), rows - 1)
    take_i = np.minimum((np.arange(WIDTH) / side).astype(int), columns - 1)
    scaled = grey[np.ix_(take_j, take_i)][:HEIGHT]
    return np.repeat(scaled.round().astype(np.uint8)[..., None], 3, axis=2)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "ASLsegPhantom.png").write_bytes(png(on_card(phantom_slice())))
    (folder / "ASLsegCTLiver.png").write_bytes(png(on_card(draw(WIDTH - 4))))
