"""Requests about this computer: its device, and the weights of SAM that are here."""

from __future__ import annotations

from typing import Any

from aslseg.engine.requests import Describe, Weights
from aslseg.errors import DeviceError
from aslseg.events import Monitor
from aslseg.networks.device import choose_device
from aslseg.sam.weights import DEFAULTS, WeightStatus, get_weights, remove_weights, verify_weights


def describe(request: Describe, monitor: Monitor) -> dict[str, Any]:
    """Return where networks would run and why, and which default weights of SAM are here.

    Returns:
        `device` with `name`, `reason` and `problem`; `weights` with one object per SAM model.
    """
    models = monitor.track(list(DEFAULTS), "Looking for weights")
    return {
        "device": _device(request.device or "auto"),
        "weights": [_weights(model) for model in models],
    }


def download(request: Weights, monitor: Monitor) -> dict[str, Any]:
    """Get the weights of a SAM model and check them.

    Raises:
        WeightsError: When no source works.
    """
    path = get_weights(request.model, monitor)
    return {"files": {"weights": str(path)}, "facts": {"weights": _weights(request.model)}}


def remove(request: Weights, _: Monitor) -> dict[str, Any]:
    """Delete what was downloaded of a SAM model's weights."""
    removed = remove_weights(DEFAULTS.get(request.model, request.model))
    return {"files": {}, "facts": {"removed": [str(path) for path in removed]}}


def _device(wish: str) -> dict[str, str]:
    try:
        device = choose_device(wish)
    except DeviceError as error:
        return {"name": wish, "reason": "", "problem": str(error)}
    return {"name": device.torch_device.type, "reason": device.reason, "problem": ""}


def _weights(model: str) -> dict[str, Any]:
    status: WeightStatus = verify_weights(DEFAULTS[model])
    source = status.source
    return {
        "model": model,
        "name": source.name,
        "licence": source.licence,
        "bytes": source.remote.size if source.remote else None,
        "path": str(status.path) if status.path else None,
        "problem": status.problem,
    }
