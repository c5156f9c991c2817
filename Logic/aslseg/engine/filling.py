"""Organs between drawn slices: what a person drew goes in, a label map comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aslseg.data.geometry import fit_labels
from aslseg.data.orientation import axial_labelmap, axial_to_slices, to_axial
from aslseg.data.slice_numbers import slices_between
from aslseg.data.volume import Labelmap
from aslseg.engine.facts import FillFacts, PredictionFacts
from aslseg.errors import ConfigError, RunError
from aslseg.events import Monitor

if TYPE_CHECKING:
    from aslseg.inference.interactive.session import Session


def filled(
    session: Session,
    about: PredictionFacts,
    drawn: Labelmap,
    slices: Sequence[int],
    monitor: Monitor,
) -> tuple[Labelmap, FillFacts]:
    """Fill the organs of a volume between slices that a person drew.

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
    if ensemble is None or about.run is None:
        msg = "Filling between drawn slices needs a trained run, and there is none; train first."
        raise RunError(msg)
    volume, turn = session.volume, axial_to_slices(session.stored).inverse
    depth = len(volume.voxels)
    _require_gaps(slices, depth)
    labels = axial_labelmap(fit_labels(drawn, session.stored, "The label map"))
    known = [turn.index(k, depth) for k in slices]
    found = fill_between_slices(ensemble.specialist, volume, labels, known, monitor)
    facts = FillFacts(
        **about.model_dump(include={"method", "round", "weights", "device"}),
        run=about.run,
        filled_slices=slices_between(slices),
    )
    return to_axial(session.stored).inverse.labelmap(found, session.stored), facts


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
