"""Small SAMs with random weights, that run in milliseconds."""

from __future__ import annotations

import torch
from torch import nn

from aslseg.sam.model import ViTSizes, assemble_sam
from aslseg.sam.tiny_vit import TinyViTSizes

TINY = TinyViTSizes(dims=(16, 32, 32, 64), depths=(1, 1, 1, 1), heads=(2, 2, 2))
SMALL_VIT = ViTSizes(dim=32, depth=2, heads=2, global_blocks=(1,), window=3)
SIZES = {"tiny": TINY, "vit": SMALL_VIT}


def a_small_sam(kind: str = "tiny", input_size: int = 128, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    sam = assemble_sam(SIZES[kind], input_size)
    for name, value in sam.named_parameters():  # zeros would hide a mix-up
        if "pos" in name or "attention_biases" in name:
            nn.init.normal_(value, std=0.5)
    return sam
