"""How fast this computer trains: a few optimiser steps of the specialist and one embedding of SAM.

Measured once per computer and settings, and kept in the cache; random patches and random weights
take as long as real ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from aslseg.config import RunConfig
from aslseg.errors import AslsegError, StorageError
from aslseg.events import Monitor
from aslseg.networks.unet import input_channels
from aslseg.preprocessing.patches import Batch
from aslseg.reading import read_object
from aslseg.sam.embeddings import embed_slices
from aslseg.sam.model import build_sam
from aslseg.sam.precision import hoped_precision
from aslseg.storage import cache_folder, write_json_atomic
from aslseg.targets import CascadeStage
from aslseg.training.cascade import default_ssl_method, scheduled, step_voxels
from aslseg.training.ssl.base import SSLMethod

logger = logging.getLogger(__name__)
STEPS = 3
"""Steps that are measured, after one that is not."""
_SLICE_PX = 512
_VERSION = 2  # raise it when the same computer is measured in another way


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a computer trains with some settings.

    Attributes:
        training_s: One step of the specialist's optimiser, per million voxels of its patches.
        embedding_s: SAM's encoder on one slice; 0 without SAM.
    """

    training_s: float
    embedding_s: float


_SPEED = TypeAdapter(Speed)


def speed_of(
    config: RunConfig, stage: CascadeStage, device: torch.device, monitor: Monitor | None = None
) -> Speed:
    """Return how fast this computer trains with some settings; measured if it is not known yet.

    Args:
        config: The settings.
        stage: The first stage of the cascade; others are taken to need as long per voxel.
        device: Where networks run.
        monitor: Told of the progress, and may ask to stop.
    """
    path = cache_folder() / f"speed-{_key(config, stage, device)}.json"
    known = _read(path)
    if known is not None:
        return known
    speed = measure_speed(config, stage, device, monitor)
    try:
        write_json_atomic(path, _SPEED.dump_python(speed, mode="json"))
    except StorageError as error:
        logger.info("The speed is measured again next time: %s", error)
    return speed


def measure_speed(
    config: RunConfig, stage: CascadeStage, device: torch.device, monitor: Monitor | None = None
) -> Speed:
    """Measure how fast this computer trains; takes seconds.

    Args:
        config: The settings.
        stage: Whose network is trained.
        device: Where networks run.
        monitor: Told of the progress, and may ask to stop.
    """
    ssl_method = default_ssl_method(config.paradigm, stage, scheduled(config, stage)).to(device)
    optimiser = torch.optim.SGD(ssl_method.student.parameters(), lr=1e-6)
    seconds = []
    for number in (monitor or Monitor()).track(range(STEPS + 1), "Measuring how fast this is"):
        began = time.perf_counter()
        _step(config, stage, ssl_method, optimiser, device)
        _finish(device)
        if number:
            seconds.append(time.perf_counter() - began)
    voxels = step_voxels(scheduled(config, stage))
    training_s = min(seconds) / (voxels / 1e6)
    return Speed(training_s, _embedding_s(config, device))


def _step(
    config: RunConfig,
    stage: CascadeStage,
    ssl_method: SSLMethod,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> None:
    settings = scheduled(config, stage)
    edges = (settings.patch_size,) * settings.network.dimensions
    batch = Batch(
        torch.rand(settings.batch_size, input_channels(stage, settings), *edges),
        torch.zeros(settings.batch_size, *edges, dtype=torch.long),
        torch.ones(settings.batch_size),
    ).to(device)
    extra = batch if ssl_method.uses_unlabelled else None
    optimiser.zero_grad(set_to_none=True)
    terms = ssl_method.loss(batch, extra, 0, torch.Generator().manual_seed(0))
    terms.total.backward()  # type: ignore[no-untyped-call, unused-ignore]
    optimiser.step()


def _embedding_s(config: RunConfig, device: torch.device) -> float:
    if config.sam.model == "none":
        return 0.0
    sam: nn.Module = build_sam(config.sam.model, input_size=config.sam.input_size).to(device)
    dtype = hoped_precision(device, config.sam)  # a trial of random weights says nothing
    seconds = []
    for _ in range(2):  # the first one prepares what the others find
        began = time.perf_counter()
        embed_slices(sam, torch.rand(1, _SLICE_PX, _SLICE_PX), dtype)
        _finish(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _finish(device: torch.device) -> None:
    """Wait for a graphics card, which works behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _read(path: Path) -> Speed | None:
    if not path.exists():
        return None
    try:
        return _SPEED.validate_python(read_object(path, StorageError, "delete it"))
    except (AslsegError, ValidationError) as error:
        logger.info("The speed is measured again: %s", error)
        return None


def _key(config: RunConfig, stage: CascadeStage, device: torch.device) -> str:
    """Return a digest of what the speed depends on."""
    facts = {
        "settings": scheduled(config, stage).model_dump(mode="json"),
        "paradigm": config.paradigm,
        "sam": [config.sam.model, config.sam.input_size, config.sam.precision],
        "device": str(device),
        "computer": [platform.node(), platform.machine(), torch.get_num_threads()],
        "torch": torch.__version__,
        "version": _VERSION,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
