"""The parts that are segment_anything's own, imported in one place.

Importing the package itself would import torchvision, for functions that nothing here needs: that
takes as long as importing torch, and ends in an error where torchvision was made for another build
of torch. Its networks need torch alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec


@contextmanager
def without_its_init(package: str) -> Iterator[None]:
    """Let modules of a package be imported in the body without running its `__init__`.

    Afterwards the package is as if it had not been imported, but its modules stay.
    """
    spec = None if package in sys.modules else find_spec(package)
    if spec is None:  # imported already; or absent, which the import in the body says
        yield
        return
    sys.modules[package] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[package]


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
