"""Organs between slices that a person drew: a network learns them from these slices.

It learns the drawn slices of one volume (`slice_learning`), and predicts the slices between them.
Beside a drawn slice the drawn outlines count more, further away the prediction: signed distances of
both are averaged (ours), those of drawn outlines after linear interpolation (Raya and Udupa, IEEE
TMI 1990).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
import torch

from aslseg.data.filling_rules import why_too_small
from aslseg.data.masks import depth_in_slice, label_components
from aslseg.data.orientation import axial_labelmap, axial_volume, to_axial
from aslseg.data.volume import Float32, Labelmap, Labels, Mask, Volume
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities, Specialist
from aslseg.targets import Target, region_values
from aslseg.training.drawn_slices import DrawnSlices, drawn_slices, slab_of
from aslseg.training.slice_learning import NEW_STEPS, STEPS, newly_trained, tuned

NEAR_MM: Final = 10.0
"""From here on, measured to the nearest drawn slice, the prediction alone counts."""
NEAR_PART: Final = 0.1
"""Or from such a part of the width of the organs on, where that is nearer."""
FAR: Final = 1.5
"""Signed distances are cut off at so many times that; where a slice shows nothing they are so far
outside."""
THRESHOLD: Final = 0.5
LESION: Final = (Target(name="lesion", value=1),)
"""What a network learns that learns one lesion."""
BEYOND_MM: Final = 30.0
"""So much of the volume beyond the first and the last drawn slice is looked at, and no more."""

Learn = Callable[[DrawnSlices, Volume, Monitor], Specialist]
"""Returns what predicts the organs of slices on the axial grid, after it learnt drawn ones."""


def fill_between_slices(
    specialist: Specialist,
    volume: Volume,
    drawn: Labelmap,
    slices: Sequence[int],
    monitor: Monitor | None = None,
    *,
    steps: int = STEPS,
) -> Labelmap:
    """Return a label map whose organs are filled between slices that a person drew.

    Drawn slices stay as they are, and so do those before the first and after the last one. Organs
    are the targets that lie in no other one; what lies in them (lesions) stays.

    Args:
        specialist: Of a run; it is not changed.
        volume: The image.
        drawn: What is shown of it, on the volume's voxels.
        slices: Numbers of the drawn slices on the volume's axial grid (`data.orientation`).
        monitor: Told of the progress; asked whether to stop.
        steps: Of the optimiser.

    Raises:
        ConfigError: When nothing lies between the slices, when they show none of the organs, or
            when masks of these came with the volume, or the run has no network for them.
        CancelledError: When asked to stop.
    """

    def learn(known: DrawnSlices, image: Volume, monitor: Monitor) -> Specialist:
        return tuned(specialist, known, image, steps, monitor)

    return _filled(specialist.targets, volume, drawn, slices, learn, monitor or Monitor())


def fill_without_run(
    targets: tuple[Target, ...],
    volume: Volume,
    drawn: Labelmap,
    slices: Sequence[int],
    monitor: Monitor | None = None,
    *,
    device: torch.device,
    steps: int = NEW_STEPS,
) -> Labelmap:
    """Return what `fill_between_slices` does, by a new network: nothing has to be trained before.

    Args:
        targets: Of the label map.
        volume: The image.
        drawn: What is shown of it, on the volume's voxels.
        slices: Numbers of the drawn slices on the volume's axial grid (`data.orientation`).
        monitor: Told of the progress; asked whether to stop.
        device: Where the network learns and predicts.
        steps: Of the optimiser.

    Raises:
        ConfigError: As `fill_between_slices`.
        CancelledError: When asked to stop.
    """

    def learn(known: DrawnSlices, image: Volume, monitor: Monitor) -> Specialist:
        return newly_trained(known, image, device, steps, monitor)

    return _filled(targets, volume, drawn, slices, learn, monitor or Monitor())


def fill_lesion(
    volume: Volume,
    lesion: Mask,
    slices: Sequence[int],
    within: Mask | None = None,
    monitor: Monitor | None = None,
    *,
    device: torch.device,
    steps: int = NEW_STEPS,
) -> Mask:
    """Return a lesion that is filled between slices in which a person drew it, by a new network.

    Drawn slices stay as they are, and so do those before the first and after the last one.

    Args:
        volume: The image.
        lesion: (D, H, W) what is shown of this lesion, on the volume's voxels.
        slices: Numbers of the drawn slices on the volume's axial grid (`data.orientation`).
        within: (D, H, W) where it may be filled; everywhere when None.
        monitor: Told of the progress; asked whether to stop.
        device: Where the network learns and predicts.
        steps: Of the optimiser.

    Raises:
        ConfigError: When the lesion is too small or drawn in too few slices (`why_too_small`), when
            nothing lies between them, or they show nothing.
        CancelledError: When asked to stop.
    """
    shown = Labelmap(lesion.astype(np.uint8), volume.geometry)
    alone = Volume(volume.voxels, volume.geometry)  # organs that came with it stay what they are
    drawn = drawn_slices(LESION, alone, axial_labelmap(shown), slices)
    problem = why_too_small(len(drawn.slices), drawn.across_mm)
    if problem:
        raise ConfigError(problem)
    filled = fill_without_run(LESION, alone, shown, slices, monitor, device=device, steps=steps)
    found: Mask = filled.labels > 0
    return found if within is None else found & (within | lesion)


def _filled(
    targets: tuple[Target, ...],
    volume: Volume,
    drawn: Labelmap,
    slices: Sequence[int],
    learn: Learn,
    monitor: Monitor,
) -> Labelmap:
    """Return the label map on the volume's voxels, its organs filled by what `learn` returns."""
    turn = to_axial(volume.geometry)
    labels = axial_labelmap(drawn)
    known = drawn_slices(targets, volume, labels, slices)
    slab = _around(known)
    image, known = slab_of(axial_volume(volume), slab), known.within(slab)
    predicted = learn(known, image, monitor).predict(image, monitor)
    painted = labels.labels.copy()
    painted[slab] = _painted(known, _regions(known, predicted))
    return turn.inverse.labelmap(Labelmap(painted, labels.geometry), volume.geometry)


def _around(known: DrawnSlices) -> slice:
    """Return the slices that are looked at."""
    beyond = round(BEYOND_MM / known.labels.geometry.spacing_mm[0])
    span, depth = known.span, len(known.labels.labels)
    return slice(max(0, span.start - beyond), min(depth, span.stop + beyond))


def _regions(known: DrawnSlices, predicted: Probabilities) -> list[Mask]:
    """Return the region (D, H, W) of each target of the stage, filled between drawn slices."""
    depth_mm, *pixel_mm = known.labels.geometry.spacing_mm
    near_mm = min(NEAR_MM, NEAR_PART * known.across_mm)
    signed_mm = partial(_signed_mm, pixel_mm=pixel_mm, far_mm=FAR * near_mm)
    regions = [known.region(target).copy() for target in known.stage.targets]
    for gap in known.gaps:
        before, after = gap[0] - 1, gap[-1] + 1
        ends = [[signed_mm(region[k]) for k in (before, after)] for region in regions]
        for k in gap:
            along = (k - before) / (after - before)
            share = min(1.0, min(k - before, after - k) * depth_mm / near_mm)
            scores = []
            for target, (first, last) in zip(known.stage.targets, ends, strict=True):
                drawn = (1 - along) * first + along * last
                found = signed_mm(predicted[target.name][k] > THRESHOLD)
                scores.append((1 - share) * drawn + share * found)
            best = np.argmax(scores, axis=0)
            for n, score in enumerate(scores):
                regions[n][k] = (score > 0) & (best == n)
    return regions


def _signed_mm(mask: Mask, pixel_mm: Sequence[float], far_mm: float) -> Float32:
    """Return the distance (H, W) to the outline, positive inside, cut off."""
    if not mask.any():
        return np.full(mask.shape, -far_mm, np.float32)
    return np.clip(depth_in_slice(mask, pixel_mm), -far_mm, far_mm)


def _painted(known: DrawnSlices, regions: Sequence[Mask]) -> Labels:
    """Return the label map (D, H, W) with the regions between drawn slices.

    A part of a region that hangs together with nothing that was drawn is left out.
    """
    painted, first = known.labels.labels.copy(), known.slices[0]
    drawn = [k - first for k in known.slices]
    for target, region in zip(known.stage.targets, regions, strict=True):
        numbered, _ = label_components(region[known.span])
        kept = np.isin(numbered, np.unique(numbered[drawn])) & (numbered > 0)
        inside = [v for v in region_values(target, known.targets) if v != target.value]
        for k in itertools.chain(*known.gaps):
            section, now = painted[k], kept[k - first]
            section[(section == target.value) & ~now] = 0
            section[now & ~np.isin(section, inside)] = target.value
    return painted
