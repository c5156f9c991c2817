"""The numbers that SAM's image encoder computes with when it is not trained (ours).

On a GPU these are float16. Some processors compute in bfloat16, in half the time, with three digits
in place of seven. Whether the masks stay what they are is tried on a made-up patient, once per
computer and model; the result is kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from dataclasses import dataclass

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from aslseg.config import SamConfig
from aslseg.data.phantom.dataset import make_phantom
from aslseg.data.volume import Mask
from aslseg.errors import AslsegError, StorageError
from aslseg.networks.device import mixed_precision
from aslseg.preprocessing.intensity import window
from aslseg.prompts import SlicePrompts, box_around
from aslseg.reading import read_object
from aslseg.sam.decoder import decode
from aslseg.sam.embeddings import SliceFrame, embed_slices, encoder_digest
from aslseg.storage import cache_folder, write_json_atomic

logger = logging.getLogger(__name__)

LEAST_DICE = 0.99
"""Of the masks of both precisions, for the shorter numbers to be used."""
_SHAPE, _SPACING_MM = (3, 256, 256), (40.0, 1.6, 1.6)


@dataclass(frozen=True, slots=True)
class Trial:
    """How bfloat16 did beside float32 on this computer.

    Times are for the log: a choice by them would be another one the next time, and so would labels.

    Attributes:
        dice: Of the masks of both.
        float32_s: Of encoding a slice.
        bfloat16_s: The same.
    """

    dice: float
    float32_s: float
    bfloat16_s: float

    @property
    def holds(self) -> bool:
        """Whether masks stay the same."""
        return self.dice >= LEAST_DICE


_TRIAL = TypeAdapter(Trial)


def choose_precision(sam: nn.Module, settings: SamConfig) -> torch.dtype:
    """Return the type of numbers that the image encoder shall compute with.

    Args:
        sam: On its device, in evaluation mode.
        settings: `precision` is what a person wants.
    """
    hoped = hoped_precision(next(sam.parameters()).device, settings)
    if hoped != torch.bfloat16 or settings.precision == "half":
        return hoped
    trial = _trial_of(sam, settings)
    chosen = torch.bfloat16 if trial.holds else torch.float32
    logger.info(
        "SAM's encoder computes in %s: on this computer a slice takes %.2f s in bfloat16 and %.2f s"
        " in float32, with masks of Dice %.4f.",
        str(chosen).removeprefix("torch."),
        trial.bfloat16_s,
        trial.float32_s,
        trial.dice,
    )
    return chosen


def hoped_precision(device: torch.device, settings: SamConfig) -> torch.dtype:
    """Return the type that `choose_precision` chooses where it keeps the masks; nothing is tried.

    Args:
        device: Of SAM.
        settings: As there.
    """
    if settings.precision == "float32" or device.type == "mps":
        return torch.float32
    if device.type == "cuda":
        return torch.float16
    if settings.precision == "half" or mixed_precision(device):
        return torch.bfloat16
    logger.info("SAM's encoder computes in float32: this processor has no bfloat16.")
    return torch.float32


def _trial_of(sam: nn.Module, settings: SamConfig) -> Trial:
    """Return what was found on this computer before, or try."""
    path = cache_folder() / f"precision-{_key(sam, settings)}.json"
    if path.exists():
        try:
            return _TRIAL.validate_python(read_object(path, StorageError, "delete it"))
        except (AslsegError, ValidationError) as error:
            logger.info("The precision of SAM's encoder is tried again: %s", error)
    trial = try_bfloat16(sam, settings)
    try:
        write_json_atomic(path, _TRIAL.dump_python(trial, mode="json"))
    except StorageError as error:
        logger.info("The precision of SAM's encoder is tried again next time: %s", error)
    return trial


def _key(sam: nn.Module, settings: SamConfig) -> str:
    facts = {
        "sam": [encoder_digest(sam), settings.input_size, settings.window_hu],
        "computer": [platform.node(), platform.machine(), torch.backends.cpu.get_cpu_capability()],
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def try_bfloat16(sam: nn.Module, settings: SamConfig) -> Trial:
    """Encode slices of a made-up patient in both precisions, and compare the livers' masks.

    Args:
        sam: On the CPU, in evaluation mode.
        settings: Window and input size.
    """
    volume, labels = make_phantom(0, _SHAPE, _SPACING_MM)
    slices01 = torch.from_numpy(window(volume.voxels, settings.window_hu))
    frame = SliceFrame(*_SHAPE[1:], settings.input_size)
    livers = [labels.labels[k] > 0 for k in range(_SHAPE[0])]
    masks, seconds = [], []
    for dtype in (torch.float32, torch.bfloat16):
        embed_slices(sam, slices01[:1], dtype)
        began = time.process_time()
        embeddings = embed_slices(sam, slices01, dtype)
        seconds.append((time.process_time() - began) / len(livers))
        masks.append(
            [
                _mask_of(sam, embedding, liver, frame)
                for embedding, liver in zip(embeddings, livers, strict=True)
            ]
        )
    shared = sum(int((a & b).sum()) for a, b in zip(*masks, strict=True))
    both = sum(int(mask.sum()) for found in masks for mask in found)
    return Trial(2 * shared / max(both, 1), *seconds)


def _mask_of(sam: nn.Module, embedding: torch.Tensor, liver: Mask, frame: SliceFrame) -> Mask:
    prompt = SlicePrompts(0, "liver", box=box_around(liver))
    decoded = decode(sam, embedding.float(), [prompt], frame)
    mask: Mask = (decoded.logits[0] > 0).numpy()
    return mask
