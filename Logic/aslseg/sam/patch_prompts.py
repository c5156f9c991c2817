"""Box and mask prompts of a mask that lies on a turned and scaled patch of a slice."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from aslseg.config import PromptConfig
from aslseg.data.volume import Mask
from aslseg.prompts import prompts_from_mask
from aslseg.sam.clicks import ClickTask, sampled_at
from aslseg.sam.decoder import decode


def mask_on_slice(mask: Mask, points: Tensor, shape: tuple[int, int]) -> Mask:
    """Resample a mask of a patch to the pixels of its slice.

    Args:
        mask: (rows, columns) of the patch.
        points: (rows, columns, 2) the point (x, y) of the slice under each pixel; an affine grid.
        shape: (H, W) of the slice.

    Returns:
        (H, W); nearest neighbours, empty beside the patch.
    """
    grid = points.double().numpy()
    origin = grid[0, 0]
    to_slice = np.stack([grid[0, 1] - origin, grid[1, 0] - origin], 1)  # of (column, row)
    y, x = np.indices(shape) + 0.5
    column_row = np.stack([x, y], -1) - origin
    columns, rows = np.rint(column_row @ np.linalg.inv(to_slice).T).astype(int).transpose(2, 0, 1)
    here = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    found = np.zeros(shape, np.bool_)
    found[here] = mask[rows[here], columns[here]]
    return found


def box_and_mask(settings: PromptConfig) -> PromptConfig:
    """Return the settings of prompts that are a box and a mask, without a point."""
    return settings.model_copy(
        update={"positive_points": 0, "negative_points": 0, "use_mask": True}
    )


@torch.no_grad()
def prompted_logits(sam: nn.Module, task: ClickTask, settings: PromptConfig) -> Tensor | None:
    """Prompt SAM with box and mask of each component of a wanted mask.

    Args:
        sam: The model.
        task: The mask, and where it lies.
        settings: Smallest component, box margin, most components.

    Returns:
        (rows, columns) SAM's logits under the pixels of the mask, the largest over its components;
        None if no component is large enough.
    """
    frame = task.frame
    shown = mask_on_slice(task.wanted, task.points, (frame.height, frame.width))
    prompts = prompts_from_mask(shown, target="", settings=box_and_mask(settings))
    if not prompts:
        return None
    logits = decode(sam, task.embedding.float(), prompts, frame).logits.amax(0)
    size = torch.tensor([frame.width, frame.height], dtype=torch.float32)
    return sampled_at(logits, task.points.to(logits) / size.to(logits))
