"""Requests about this computer: its device, and the weights of SAM that are here."""

from __future__ import annotations

from aslseg.engine.facts import (
    ComputerFacts,
    DeviceFacts,
    DownloadFacts,
    RemovalFacts,
    WeightsFacts,
)
from aslseg.engine.protocol import Describe, Done, Weights
from aslseg.errors import DeviceError
from aslseg.events import Monitor
from aslseg.networks.device import choose_device
from aslseg.sam.weights import DEFAULTS, get_weights, remove_weights, verify_weights


def describe(request: Describe, monitor: Monitor) -> Done:
    """Return where networks would run and why, and which default weights of SAM are here."""
    models = monitor.track(list(DEFAULTS), "Looking for weights")
    weights = [_weights(model) for model in models]
    return Done(facts=ComputerFacts(device=_device(request.device or "auto"), weights=weights))


def download(request: Weights, monitor: Monitor) -> Done:
    """Get the weights of a SAM model and check them.

    Raises:
        WeightsError: When no source works.
    """
    path = get_weights(request.model, monitor)
    facts = DownloadFacts(weights=_weights(request.model))
    return Done(facts=facts, files={"weights": str(path)})


def remove(request: Weights, _: Monitor) -> Done:
    """Delete what was downloaded of a SAM model's weights."""
    removed = remove_weights(DEFAULTS.get(request.model, request.model))
    return Done(facts=RemovalFacts(removed=[str(path) for path in removed]))


def _device(wish: str) -> DeviceFacts:
    try:
        device = choose_device(wish)
    except DeviceError as error:
        return DeviceFacts(name=wish, reason="", problem=str(error))
    return DeviceFacts(name=device.torch_device.type, reason=device.reason, problem="")


def _weights(model: str) -> WeightsFacts:
    status = verify_weights(DEFAULTS.get(model, model))
    source = status.source
    return WeightsFacts(
        model=model,
        name=source.name,
        licence=source.licence,
        bytes=source.remote.size if source.remote else None,
        path=str(status.path) if status.path else None,
        problem=status.problem,
    )
