"""Organs between drawn slices: what a person drew goes in, a label map comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from aslseg.data.filling_rules import why_nothing_between
from aslseg.data.geometry import fit_labels
from aslseg.data.orientation import axial_labelmap, axial_to_slices, axial_volume, to_axial
from aslseg.data.slice_numbers import slices_between
from aslseg.data.volume import Geometry, Labelmap, Labels, Mask, Volume
from aslseg.engine.facts import FillFacts, PredictionFacts
from aslseg.errors import ConfigError, RunError
from aslseg.events import Monitor
from aslseg.targets import Target, region_mask, region_values

if TYPE_CHECKING:
    from aslseg.inference.interactive.session import Session
    from aslseg.networks.device import Device
    from aslseg.project.run_folder import RunFolder

Fill = Callable[[Volume, Labelmap, Sequence[int]], Labelmap]
"""Takes a volume, what is shown of it, and the drawn slices, all on the axial grid."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnLesion:
    """A lesion that a person drew in some slices.

    Attributes:
        target: Its target.
        labels: All that is shown.
        lesion: The lesion; all that the label map shows of the target when None.
    """

    target: str
    labels: Labelmap
    lesion: Labelmap | None = None


NEW_NETWORK = FillFacts(
    run=None, method="drawn slices", round=0, weights="", device="", filled_slices=[]
)
"""About a label map that no run has to do with."""


def learns_slices(run: RunFolder) -> bool:
    """Tell whether the network of a run can learn a person's slices: CPC-SAM's is SAM itself."""
    return run.config.method != "cpcsam"


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


def filled_lesion(
    volume: Volume,
    targets: Sequence[Target],
    drawn: DrawnLesion,
    slices: Sequence[int],
    device: Device,
    monitor: Monitor,
) -> tuple[Labelmap, FillFacts]:
    """Fill one lesion of a volume between slices that a person drew, by a new network.

    It stays in its parent, where that is shown, and out of what else is shown there.

    Args:
        volume: As it is stored.
        targets: Of the label map.
        drawn: What is shown.
        slices: As for `filled_by_run`.
        device: Where the network learns and predicts.
        monitor: Told of the progress; asked whether to stop.

    Returns:
        The label map with the lesion, on the voxels of the volume: what it lost is its parent's.

    Raises:
        ConfigError: When the target is none, or lies in no other one; else as `filled_by_run`.
        GeometryMismatchError: When the label map or the mask does not lie on the volume.
        CancelledError: When asked to stop.
    """
    from aslseg.training.slice_filling import fill_lesion

    target, parent = _lesion_target(targets, drawn.target)
    shown = fit_labels(drawn.labels, volume.geometry, "The label map")
    lesion = shown.labels == target.value
    if drawn.lesion is not None:
        lesion = fit_labels(drawn.lesion, volume.geometry, "The mask of the lesion").labels > 0
    turn, there = to_axial(volume.geometry), device.torch_device
    room = _room_for(turn.array(lesion), turn.array(shown.labels), parent, targets)

    def fill(axial: Volume, known: Labelmap, axial_slices: Sequence[int]) -> Labelmap:
        filled = fill_lesion(axial, known.labels > 0, axial_slices, room, monitor, device=there)
        return Labelmap(filled.astype(np.uint8), known.geometry)

    facts = NEW_NETWORK.model_copy(update={"device": there.type})
    mask = Labelmap(lesion.astype(np.uint8), volume.geometry)
    found, facts = _filled(axial_volume(volume), volume.geometry, fill, mask, slices, facts)
    labels = shown.labels.copy()
    labels[lesion & (found.labels == 0)] = parent.value
    labels[found.labels > 0] = target.value
    return Labelmap(labels, volume.geometry), facts


def _room_for(lesion: Mask, shown: Labels, parent: Target, targets: Sequence[Target]) -> Mask:
    """Return where a lesion may be, (D, H, W) on the axial grid.

    That is in its parent, in slices that show it, and not in what else lies there.
    """
    region = region_mask(shown, parent, targets) & ~lesion
    others = np.isin(shown, region_values(parent, targets)[1:]) & ~lesion
    is_shown = region.any(axis=(1, 2), keepdims=True)
    room: Mask = (region | lesion | ~is_shown) & ~others
    return room


def _lesion_target(targets: Sequence[Target], name: str) -> tuple[Target, Target]:
    """Return a target of lesions, and the one that they lie in.

    Raises:
        ConfigError: When there is none of that name, or it lies in no other one.
    """
    by_name = {target.name: target for target in targets}
    target = by_name.get(name)
    if target is None or target.inside is None:
        names = ", ".join(one.name for one in targets if one.inside is not None)
        msg = f"'{name}' lies inside no other target; name one that does ({names or 'none here'})."
        raise ConfigError(msg)
    return target, by_name[target.inside]


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
    problem = why_nothing_between(slices)
    if problem:
        raise ConfigError(problem)
