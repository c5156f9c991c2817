"""Import torchvision where its compiled operators do not load.

A torchvision wheel made for another build of torch (CPU against CUDA, say) cannot load its compiled
operators, and `import torchvision` ends with "operator torchvision::nms does not exist". Nothing
that this library uses needs these operators, but segment_anything imports torchvision at its top.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

import torch

logger = logging.getLogger(__name__)

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[Any] = []  # a schema lives as long as the object declaring it


def ensure_torchvision() -> bool:
    """Make `import torchvision` work, and change nothing where it works already.

    Returns:
        Whether missing operators had to be declared.

    Raises:
        ImportError: When torchvision is not installed.
        RuntimeError: When importing it fails for another reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        logger.info("torchvision's compiled operators do not load; declaring them: %s", error)
        _declare_missing_operators()
        _forget_half_imported()
        importlib.import_module("torchvision")
        return True
    return False


def _declare_missing_operators() -> None:
    library: Any = torch.library
    declaration = library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            declaration.define(schema)
    _declared.append(declaration)


def _forget_half_imported() -> None:
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]
