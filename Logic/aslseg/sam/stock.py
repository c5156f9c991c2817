"""The parts that are segment_anything's own, imported in one place.

Importing the package itself would import torchvision, for functions that nothing here needs: that
takes as long as importing torch, and ends in an error where torchvision was made for another build
of torch. Its networks need torch alone.
"""

from __future__ import annotations

from aslseg.imports import without_its_init

with without_its_init("segment_anything"):
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )
    from segment_anything.modeling.common import LayerNorm2d

__all__ = [
    "ImageEncoderViT",
    "LayerNorm2d",
    "MaskDecoder",
    "PromptEncoder",
    "Sam",
    "TwoWayTransformer",
]
