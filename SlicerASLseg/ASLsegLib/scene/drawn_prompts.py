"""Prompts drawn into a label map, to be seen beside what SAM predicts from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from aslseg.prompts import SlicePrompts
    from aslseg.targets import Target

_ARM_PX = 2  # half the width of the cross of a drawn positive point; a negative one is a bar


def draw_prompts(
    prompts: Iterable[SlicePrompts], targets: Sequence[Target], shape: tuple[int, int, int]
) -> np.ndarray:
    """Draw boxes as frames of one pixel, positive points as crosses, negative ones as bars.

    Args:
        prompts: Of any slices.
        targets: Whose values are drawn.
        shape: (D, H, W) of the volume.

    Returns:
        (D, H, W) uint8.
    """
    values = {target.name: target.value for target in targets}
    labels = np.zeros(shape, np.uint8)
    for prompt in prompts:
        if prompt.target in values and 0 <= prompt.slice_index < shape[0]:
            _draw(labels[prompt.slice_index], prompt, values[prompt.target])
    return labels


def _draw(plane: np.ndarray, prompt: SlicePrompts, value: int) -> None:
    if prompt.box is not None:
        _frame(plane, prompt.box.xyxy, value)
    for point in prompt.points:
        x, y = int(point.xy[0]), int(point.xy[1])
        _fill(plane, (x - _ARM_PX, x + _ARM_PX), (y, y), value)
        if point.positive:
            _fill(plane, (x, x), (y - _ARM_PX, y + _ARM_PX), value)


def _frame(plane: np.ndarray, xyxy: tuple[float, float, float, float], value: int) -> None:
    left, top = int(np.floor(xyxy[0])), int(np.floor(xyxy[1]))
    right, bottom = int(np.ceil(xyxy[2])) - 1, int(np.ceil(xyxy[3])) - 1
    for row in (top, bottom):
        _fill(plane, (left, right), (row, row), value)
    for column in (left, right):
        _fill(plane, (column, column), (top, bottom), value)


def _fill(plane: np.ndarray, columns: tuple[int, int], rows: tuple[int, int], value: int) -> None:
    plane[max(rows[0], 0) : max(rows[1] + 1, 0), max(columns[0], 0) : max(columns[1] + 1, 0)] = (
        value
    )
