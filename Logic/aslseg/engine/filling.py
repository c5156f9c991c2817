"""Organs between drawn slices: what a person drew goes in, a label map comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from aslseg.data.geometry import fit_labels
from aslseg.data.orientation import axial_labelmap, axial_to_slices, axial_volume, to_axial
from aslseg.data.slice_numbers import slices_between
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.engine.facts import FillFacts, PredictionFacts
from aslseg.errors import ConfigError, RunError
from aslseg.events import Monitor

if TYPE_CHECKING:
    from aslseg.inference.interactive.session import Session
    from aslseg.networks.device import Device
    from aslseg.targets import Target

Fill = Callable[[Volume, Labelmap, Sequence[int]], Labelmap]
"""Takes a volume, what is shown of it, and the drawn slices, all on the axial grid."""
NEW_NETWORK = FillFacts(
    run=None, method="drawn slices", round=0, weights="", device="", filled_slices=[]
)
"""About a label map that no run has to do with."""


def filled_by_run(
    session: Session,
    about: PredictionFacts,
    drawn: Labelmap,
    slices: Sequence[int],
    monitor: Monitor,
) -> tuple[Labelmap, FillFacts]:
    """Fill the organs of a volume between slices that a person drew, by the network of a run.

    Args:
        session: Of the volume, with a run.
        about: The models.
        drawn: What is shown, on the volume's voxels.
        slices: The slices that were drawn, in the file's own numbers.
        monitor: Told of the progress; asked whether to stop.

    Returns:
        The label map, on the voxels of `drawn`; and what is to be said of it.

    Raises:
        RunError: When the session has no run.
        ConfigError: As `fill_between_slices`.
        GeometryMismatchError: When the label map does not lie on the volume.
        CancelledError: When asked to stop.
    """
    from aslseg.training.slice_filling import fill_between_slices  # no other request needs it

    ensemble = session.models.ensemble
    if ensemble is None:
        msg = "The session has no run; let a new network learn the slices, or train first."
        raise RunError(msg)
    fill = partial(fill_between_slices, ensemble.specialist, monitor=monitor)
    known = about.model_dump(include={"run", "method", "round", "weights", "device"})
    facts = FillFacts(**known, filled_slices=[])
    return _filled(session.volume, session.stored, fill, drawn, slices, facts)


def filled_without_run(
    volume: Volume,
    targets: tuple[Target, ...],
    drawn: Labelmap,
    slices: Sequence[int],
    device: Device,
    monitor: Monitor,
) -> tuple[Labelmap, FillFacts]:
    """Do as `filled_by_run` by a network that learns the drawn slices alone.

    Args:
        volume: As it is stored.
        targets: Of the label map.
        drawn: As for `filled_by_run`.
        slices: As for `filled_by_run`.
        device: Where the network learns and predicts.
        monitor: Told of the progress; asked whether to stop.

    Raises:
        ConfigError: As `filled_by_run`; so are the others.
    """
    from aslseg.training.slice_filling import fill_without_run

    there = device.torch_device
    fill = partial(fill_without_run, targets, monitor=monitor, device=there)
    facts = NEW_NETWORK.model_copy(update={"device": there.type})
    return _filled(axial_volume(volume), volume.geometry, fill, drawn, slices, facts)


def _filled(
    volume: Volume,
    stored: Geometry,
    fill: Fill,
    drawn: Labelmap,
    slices: Sequence[int],
    facts: FillFacts,
) -> tuple[Labelmap, FillFacts]:
    """Fill on the axial grid, and say which slices were filled in the file's own numbers."""
    turn = axial_to_slices(stored).inverse
    depth = len(volume.voxels)
    _require_gaps(slices, depth)
    labels = axial_labelmap(fit_labels(drawn, stored, "The label map"))
    found = fill(volume, labels, [turn.index(k, depth) for k in slices])
    said = facts.model_copy(update={"filled_slices": slices_between(slices)})
    return to_axial(stored).inverse.labelmap(found, stored), said


def _require_gaps(slices: Sequence[int], depth: int) -> None:
    """Make sure that slices are there, and others between them.

    Raises:
        ConfigError: When not, in the file's own numbers.
    """
    if max(slices, default=0) >= depth:
        msg = f"There is no slice {max(slices)}; the volume has 0 to {depth - 1}."
        raise ConfigError(msg)
    if not slices_between(slices):
        msg = f"Nothing lies between slices {sorted(slices)}; draw two that are further apart."
        raise ConfigError(msg)
