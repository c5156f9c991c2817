"""Regions in which one patch is replaced by another one: drawn here, applied by `torch.where`.

Regions lie in the plane of the last two axes, and go through all planes of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

CUTMIX_AREA = (0.02, 0.4)
"""Smallest and largest part of a plane that a CutMix box covers; UniMatch's release."""
CUTMIX_ASPECT = (0.3, 1 / 0.3)
"""Smallest and largest ratio of a CutMix box's edges; UniMatch's release."""


def cutmix_boxes(shape: torch.Size, generator: torch.Generator, share: float) -> Tensor:
    """Draw a box for each element of a batch (CutMix: Yun et al., ICCV 2019).

    Args:
        shape: (B, C, *spatial).
        generator: Source of randomness.
        share: Chance of an element to have a box.

    Returns:
        (B, *spatial) bool, True inside of the box.
    """
    boxes = torch.zeros(shape[0], *shape[2:], dtype=torch.bool)
    height, width = shape[-2:]
    for box in boxes:
        chance, size, ratio, top, left = torch.rand(5, generator=generator).tolist()
        if chance >= share:
            continue
        area = (CUTMIX_AREA[0] + size * (CUTMIX_AREA[1] - CUTMIX_AREA[0])) * height * width
        aspect = CUTMIX_ASPECT[0] + ratio * (CUTMIX_ASPECT[1] - CUTMIX_ASPECT[0])
        rows = min(max(int((area * aspect) ** 0.5), 1), height)
        columns = min(max(int((area / aspect) ** 0.5), 1), width)
        row, column = int(top * (height - rows + 1)), int(left * (width - columns + 1))
        box[..., row : row + rows, column : column + columns] = True
    return boxes


def paste_region(spatial: torch.Size, generator: torch.Generator, edge_share: float) -> Tensor:
    """Draw where the foreground of a copy-paste lies: a box at a random place.

    Bidirectional copy-paste (Bai et al., CVPR 2023): their mask is zero in here and one outside.

    Args:
        spatial: (h, w) or (d, h, w) of a patch; of a block the box is cut along all three axes.
        generator: Source of randomness.
        edge_share: Part of each edge that the box takes.

    Returns:
        Bool of the spatial shape, True inside of the box.
    """
    region = torch.zeros(spatial, dtype=torch.bool)
    inside = []
    for edge in spatial:
        length = min(max(int(edge * edge_share), 1), edge)
        start = int(torch.randint(edge - length + 1, (), generator=generator))
        inside.append(slice(start, start + length))
    region[tuple(inside)] = True
    return region
