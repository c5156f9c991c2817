"""From prompts to masks: one pass of the mask decoder for many prompts.

Prompts of different slices may share a pass, because each has its own image embedding; the mask of
a prompt does not depend on the others of the pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.prompts import MASK_LOGIT, SlicePrompts
from aslseg.sam.embeddings import SliceFrame
from aslseg.sam.model import CHANNELS

PROMPTS_PER_PASS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """SAM's masks of P prompts.

    Attributes:
        logits: (P, H, W) at the resolution of the slice; above 0 is inside.
        low_res: (P, S/4, S/4), the same before scaling, padding included.
    """

    logits: Tensor
    low_res: Tensor


@torch.no_grad()
def decode(
    sam: nn.Module,
    embedding: Tensor,
    prompts: Sequence[SlicePrompts],
    frame: SliceFrame,
) -> Decoded:
    """Predict the masks of all prompts of one slice.

    Args:
        sam: The model.
        embedding: (256, h, w) of the slice.
        prompts: P prompts, which may be none.
        frame: How the slice lies in SAM's input.
    """
    index = torch.zeros(len(prompts), dtype=torch.long)
    passes = [
        decode_batch(
            sam,
            embedding[None],
            prompts[start : start + PROMPTS_PER_PASS],
            index=index[start : start + PROMPTS_PER_PASS],
            frame=frame,
        )
        for start in range(0, max(len(prompts), 1), PROMPTS_PER_PASS)
    ]
    return Decoded(
        torch.cat([p.logits for p in passes]),
        torch.cat([p.low_res for p in passes]),
    )


def decode_batch(
    sam: nn.Module,
    embeddings: Tensor,
    prompts: Sequence[SlicePrompts],
    *,
    index: Tensor,
    frame: SliceFrame,
) -> Decoded:
    """Predict the masks of prompts of several slices of one shape, differentiably.

    Args:
        sam: The model.
        embeddings: (N, 256, h, w), of N slices; any floating type, on any device.
        prompts: P prompts.
        index: (P,) integers, which of the N slices each prompt is about.
        frame: How a slice lies in SAM's input.
    """
    model: Any = sam
    height, width = embeddings.shape[-2:]
    low_res = torch.empty(0, 4 * height, 4 * width, device=model.device)
    if prompts:
        sparse_by_layout = encode_sparse(sam, prompts, frame)
        dense = encode_dense(sam, prompts, frame)
        images = embeddings.to(model.device, dense.dtype)
        pieces = [
            decode_tokens(sam, images[index[rows]], sparse, dense[rows])
            for rows, sparse in sparse_by_layout
        ]
        order = torch.argsort(torch.cat([rows for rows, _ in sparse_by_layout]))
        low_res = torch.cat(pieces)[order]
    logits = frame.mask_to_slice(low_res[:, None])[:, 0] if prompts else _no_masks(low_res, frame)
    return Decoded(logits, low_res)


def _no_masks(like: Tensor, frame: SliceFrame) -> Tensor:
    return like.new_empty(0, frame.height, frame.width)


def encode_sparse(
    sam: nn.Module, prompts: Sequence[SlicePrompts], frame: SliceFrame
) -> list[tuple[Tensor, Tensor]]:
    """Encode boxes and points.

    Prompts with equal numbers of points and boxes make one batch. (Filling up with empty points
    would make one batch of all, but each empty point changes the mask a little.)

    Returns:
        Pairs of (n,) positions in `prompts` and their (n, T, 256) tokens.
    """
    layouts: dict[tuple[int, bool], list[int]] = {}
    for position, prompt in enumerate(prompts):
        layouts.setdefault((len(prompt.points), prompt.box is not None), []).append(position)
    return [
        (torch.tensor(rows), _encode_layout(sam, [prompts[row] for row in rows], frame))
        for rows in layouts.values()
    ]


def _encode_layout(sam: nn.Module, prompts: list[SlicePrompts], frame: SliceFrame) -> Tensor:
    model: Any = sam
    points, boxes = None, None
    if prompts[0].points:
        xy = _to_stock([[p.xy for p in prompt.points] for prompt in prompts], frame)
        labels = torch.tensor([[int(p.positive) for p in prompt.points] for prompt in prompts])
        points = (xy.to(model.device), labels.to(model.device))
    if prompts[0].box is not None:
        corners = [_corners(prompt) for prompt in prompts]
        boxes = _to_stock(corners, frame).flatten(1).to(model.device)
    if points is None and boxes is None:
        return torch.empty(len(prompts), 0, CHANNELS, device=model.device)
    sparse: Tensor = model.prompt_encoder(points=points, boxes=boxes, masks=None)[0]
    return sparse


def _corners(prompt: SlicePrompts) -> list[tuple[float, float]]:
    if prompt.box is None:
        msg = "This prompt has no box."
        raise ValueError(msg)
    left, top, right, bottom = prompt.box.xyxy
    return [(left, top), (right, bottom)]


def _to_stock(xy: list[list[tuple[float, float]]], frame: SliceFrame) -> Tensor:
    # segment_anything adds the half pixel that our coordinates have already.
    return frame.to_input(torch.tensor(xy, dtype=torch.float32)) - 0.5


def encode_dense(sam: nn.Module, prompts: Sequence[SlicePrompts], frame: SliceFrame) -> Tensor:
    """Encode mask prompts, or their absence.

    Returns:
        (P, 256, h, w).
    """
    encoder: Any = sam.prompt_encoder
    height, width = encoder.image_embedding_size
    absent = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    dense: Tensor = absent.expand(len(prompts), -1, height, width)
    given = [row for row, prompt in enumerate(prompts) if prompt.mask_logits is not None]
    if not given:
        return dense
    masks = torch.stack([_mask_input(prompts[row], frame, encoder) for row in given])
    rows = torch.tensor(given, device=dense.device)
    return dense.index_copy(0, rows, encoder.mask_downscaling(masks.to(dense.device)))


def _mask_input(prompt: SlicePrompts, frame: SliceFrame, encoder: Any) -> Tensor:
    logits = torch.from_numpy(np.ascontiguousarray(prompt.mask_logits, dtype=np.float32))
    whole = logits[None, None]
    if logits.shape != (frame.height, frame.width):
        whole = F.interpolate(whole, (frame.height, frame.width), mode="bilinear")
    square = frame.image_to_input(whole, fill=-MASK_LOGIT)
    small = F.interpolate(square, encoder.mask_input_size, mode="bilinear", antialias=True)
    return small[0]


def decode_tokens(sam: nn.Module, images: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
    """Run the mask decoder on prompts with one image embedding each.

    segment_anything's own call takes a single image and repeats it; the numbers are the same.

    Args:
        sam: The model.
        images: (P, 256, h, w).
        sparse: (P, T, 256).
        dense: (P, 256, h, w).

    Returns:
        Logits of SAM's single mask of each prompt, (P, 4 h, 4 w).
    """
    model: Any = sam
    decoder = model.mask_decoder
    position = model.prompt_encoder.get_dense_pe()
    tokens, features = attend(decoder, images, position, sparse, dense)
    weights = decoder.output_hypernetworks_mlps[0](tokens[:, 1])  # (P, 32)
    return torch.einsum("pc,pchw->phw", weights, features)


def attend(
    decoder: nn.Module, images: Tensor, position: Tensor, sparse: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the transformer of a mask decoder on images, each with prompts of its own.

    Args:
        decoder: With any number of mask tokens, M.
        images: (P, 256, h, w).
        position: (1, 256, h, w) of the prompt encoder.
        sparse: (P, T, 256).
        dense: (P, 256, h, w).

    Returns:
        Its tokens, (P, 1 + M, 256), and the features that masks are sums of, (P, 32, 4 h, 4 w).
    """
    model: Any = decoder
    output_tokens = torch.cat([model.iou_token.weight, model.mask_tokens.weight])
    tokens = torch.cat([output_tokens.expand(len(images), -1, -1), sparse], dim=1)
    # The transformer wants pixels one after the other; else each of its products copies them.
    pixels = (images + dense).contiguous(memory_format=torch.channels_last)
    positions = position.contiguous(memory_format=torch.channels_last)
    positions = positions.expand(len(images), -1, -1, -1)
    attended, pixels = model.transformer(pixels, positions, tokens)
    features = model.output_upscaling(pixels.transpose(1, 2).reshape(images.shape))
    return attended[:, : len(output_tokens)], features
