"""The parts that are segment_anything's own, imported in one place."""

from __future__ import annotations

from aslseg.sam.torchvision_shim import ensure_torchvision

ensure_torchvision()  # segment_anything imports torchvision at its top

from segment_anything.modeling import (  # noqa: E402
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from segment_anything.modeling.common import LayerNorm2d  # noqa: E402
from segment_anything.modeling.image_encoder import Attention as ViTAttention  # noqa: E402

__all__ = [
    "ImageEncoderViT",
    "LayerNorm2d",
    "MaskDecoder",
    "PromptEncoder",
    "Sam",
    "TwoWayTransformer",
    "ViTAttention",
]
