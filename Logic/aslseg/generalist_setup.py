"""Build the generalist that a run's settings ask for, with its weights at hand."""

from __future__ import annotations

from pathlib import Path

import torch

from aslseg.config import RunConfig
from aslseg.events import Monitor
from aslseg.generalist import Generalist
from aslseg.sam.models import build_sam
from aslseg.sam.tuning import tune
from aslseg.sam.weights import get_weights


def build_generalist(
    config: RunConfig, cache: Path, device: torch.device, monitor: Monitor
) -> Generalist | None:
    """Build SAM with released weights, ready for tuning; None when the settings want none.

    Args:
        config: Model, input size, tuning.
        cache: Folder of the embeddings.
        device: Where SAM goes.
        monitor: Told of a download.

    Raises:
        WeightsError: When the weights cannot be had or are not what they should be.
    """
    settings = config.sam
    if settings.model == "none":
        return None
    if settings.checkpoint is None:
        checkpoint = get_weights(settings.model, monitor=monitor)
    else:
        checkpoint = Path(settings.checkpoint)
    sam = build_sam(settings.model, input_size=settings.input_size, checkpoint=checkpoint)
    torch.manual_seed(config.seed)
    tune(sam, settings.tuning, rank=settings.rank)
    return Generalist(sam.to(device), settings, cache)
