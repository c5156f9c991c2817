"""How networks run: device, precision, padding, mirrored images, and a check for numbers."""

from __future__ import annotations

import ctypes
import logging
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aslseg.data.volume import Float32
from aslseg.errors import DeviceError, RunError

logger = logging.getLogger(__name__)


# Names from glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


_NEVER, _TOP_PAD_BYTES = -1, 256 << 20


@dataclass(frozen=True, slots=True)
class Device:
    """Where to compute.

    Attributes:
        torch_device: What tensors are moved to.
        reason: Why this one, for a person.
    """

    torch_device: torch.device
    reason: str


def choose_device(wish: str = "auto") -> Device:
    """Choose the computing device.

    Args:
        wish: `cpu`, `cuda` or `mps`; `auto` takes a GPU if there is one.

    Raises:
        DeviceError: When the wish is unknown or cannot be met.
    """
    if wish == "auto":
        return _best_device()
    if wish == "cpu":
        return Device(torch.device("cpu"), "the CPU was asked for")
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wish not in present:
        msg = f"Device {wish!r} is unknown; choose auto, cpu, cuda or mps."
        raise DeviceError(msg)
    if not present[wish]:
        raise DeviceError(_absent(wish))
    return Device(torch.device(wish), f"{wish} was asked for: {_name(wish)}")


def _best_device() -> Device:
    if torch.cuda.is_available():
        return Device(torch.device("cuda"), f"found the GPU {_name('cuda')}")
    if torch.backends.mps.is_available():
        return Device(torch.device("mps"), f"found the {_name('mps')}")
    return Device(torch.device("cpu"), "no GPU was found")


def _name(kind: str) -> str:
    return torch.cuda.get_device_name() if kind == "cuda" else "GPU of this Mac"


def _absent(wish: str) -> str:
    build = torch.__version__
    if wish == "cuda" and torch.version.cuda is None:
        return (
            f"PyTorch {build} was built without CUDA; install a CUDA build or choose device auto."
        )
    return f"No {wish} device answers to PyTorch {build}; check the driver or choose device auto."


def tune_allocator() -> bool:
    """Let glibc keep freed memory instead of handing it back to the system after every tensor.

    Without this, each large tensor costs a page fault per 4 KiB, which can double the time of
    training on the CPU. The price is that the process keeps its peak of memory, until
    `volume.give_back_memory`.

    Returns:
        Whether it was done; there is nothing to do on systems without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER, _M_TOP_PAD: _TOP_PAD_BYTES}
    done = [mallopt(name, value) for name, value in settings.items()] == [1] * len(settings)
    logger.debug("glibc keeps freed memory: %s", done)
    return done


def mixed_precision(device: torch.device) -> bool:
    """Tell whether steps run in bfloat16: on CUDA GPUs and CPUs that compute in it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def padding_of(images: Tensor, stride: int) -> tuple[int, int, int, int]:
    """Return the padding (left, right, top, bottom) with which a U-Net of a stride can see images.

    Edges become multiples of the stride. Of an image no larger than the stride one pixel would be
    left on the coarsest level, which instance normalisation refuses: it is padded to two strides.

    Args:
        images: (..., h, w).
        stride: Of the whole network.
    """
    height, width = images.shape[-2:]
    least = 2 * stride if max(height, width) <= stride else stride
    right, bottom = (max(-edge % stride, least - edge) for edge in (width, height))
    return 0, right, 0, bottom


@torch.no_grad()
def predict_mirrored(
    predict: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    stride: int,
    flips: Sequence[tuple[int, ...]],
) -> Tensor:
    """Return the mean prediction of images and of mirrored ones, mirrored back.

    Args:
        predict: Runs a network on all inputs; its result is (..., h, w) float32.
        inputs: (B, ..., h, w), all on one device; padded for a network of the stride.
        stride: Of the whole network.
        flips: Axes to mirror along, one set after the other; an empty set mirrors nothing.
    """
    height, width = inputs[0].shape[-2:]
    pad, device = padding_of(inputs[0], stride), inputs[0].device
    padded = [F.pad(each, (*pad, *[0, 0] * (each.ndim - 4)), mode="replicate") for each in inputs]
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision(device)):
        found = [predict(*(each.flip(axes) for each in padded)).flip(axes) for axes in flips]
    return torch.stack(found).mean(0)[..., :height, :width]


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Tell whether no tensor holds NaN or infinity; whole numbers never do."""
    return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())


def require_finite(prediction: Float32, who: str) -> Float32:
    """Return a prediction, any shape, if it is made of numbers.

    Args:
        prediction: Of a network.
        who: The network, at the beginning of a sentence.

    Raises:
        RunError: When one value is NaN or infinite: as a label map it would be empty.
    """
    if not np.isfinite(prediction).all():
        msg = (
            f"{who} predicts values that are no numbers: its weights are damaged, or the volume "
            "holds extreme intensities. Look at the volume's intensities, or train again."
        )
        raise RunError(msg)
    return prediction
