"""Whether what networks and SAM are shown of intensities shows the targets: CT's is not MRI's.

Windows may cut targets off, and units of deviation may be too coarse or too fine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslseg.config import RunConfig
from aslseg.data.volume import Labelmap, Volume
from aslseg.errors import listed
from aslseg.targets import Target, organ_targets, region_mask

ENOUGH = 1_000_000
"""Of more voxels, evenly spread ones are looked at."""
FLAT_SHARE = 0.1
"""An image whose intensities span less of a window than this looks the same everywhere."""

FINE_SHARE = 0.25
"""A likelihood whose deviation is less than this part of an organ's own shows its noise."""
_SPAN_SD = 3.29
"""From the 5th to the 95th percentile of a normal distribution, in standard deviations."""

Window = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Intensities:
    """What a target looks like in one case.

    Attributes:
        case_id: The case.
        target: Name of the target; its region with what lies inside of it.
        low: 5th percentile.
        middle: Median.
        high: 95th percentile.
        image: 1st and 99th percentile of the whole image.
    """

    case_id: str
    target: str
    low: float
    middle: float
    high: float
    image: Window

    def is_hidden(self, window: Window) -> bool:
        """Tell whether a window cuts off more than half of the target, or shows no contrast."""
        span = self.image[1] - self.image[0]
        is_flat = span < FLAT_SHARE * (window[1] - window[0])
        return is_flat or not window[0] <= self.middle <= window[1]

    @property
    def spread(self) -> float:
        """Standard deviation, as that of a normal distribution with these percentiles."""
        return (self.high - self.low) / _SPAN_SD

    def is_lost(self, unit: float, fine_share: float) -> bool:
        """Tell whether a unit of deviations shows no contrast, or nothing but noise.

        Args:
            unit: In the unit of the voxels.
            fine_share: Part of the organ's own spread below which it shows noise.
        """
        return self.image[1] - self.image[0] < unit or unit < fine_share * self.spread


def intensities_of(
    case_id: str, volume: Volume, labels: Labelmap, targets: Sequence[Target]
) -> list[Intensities]:
    """Measure the targets that a case shows.

    Args:
        case_id: The case.
        volume: Its image.
        labels: Its label map, on the same grid.
        targets: All targets.
    """
    low, high = _percentiles(volume.voxels.ravel(), (1, 99))
    found = []
    for target in targets:
        inside = volume.voxels[region_mask(labels.labels, target, targets)]
        if inside.size:
            a, b, c = _percentiles(inside, (5, 50, 95))
            found.append(Intensities(case_id, target.name, a, b, c, (low, high)))
    return found


def window_notes(
    measured: Sequence[Intensities], targets: Sequence[Target], config: RunConfig
) -> list[str]:
    """Say which targets the windows of the settings hide, with numbers and the remedy.

    Args:
        measured: Of the labelled cases.
        targets: All targets.
        config: The settings to train with.

    Returns:
        One sentence or two for each window that hides a target, and for each unit of deviations
        in which it is lost.
    """
    outermost = {target.name for target in organ_targets(targets)}
    seen = [("organ.roi.window_hu", config.organ.roi.window_hu, outermost)]
    if config.sam.model != "none":
        everything = {target.name for target in targets}
        seen.append(("sam.window_hu", config.sam.window_hu, everything))
    notes = []
    for setting, window, names in seen:
        hidden = [m for m in measured if m.target in names and m.is_hidden(window)]
        if hidden:
            notes.append(_sentence(setting, window, hidden, _suggested(measured)))
    return notes + _unit_notes(measured, targets, config)


def _unit_notes(
    measured: Sequence[Intensities], targets: Sequence[Target], config: RunConfig
) -> list[str]:
    """Say in which units of deviations a target is lost: those of the second pass, of lesions."""
    outermost = {target.name for target in organ_targets(targets)}
    parents = {target.inside for target in targets if target.inside is not None}
    seen = []
    if config.organ.second_pass and len(outermost) == 1:
        unit = config.organ.roi.likelihood_sd_hu
        seen.append(("organ.roi.likelihood_sd_hu", unit, FINE_SHARE, outermost))
    if parents:  # the organ's own spread is the unit where it is wider, so none is too fine
        unit = config.lesion.roi.least_scale_hu
        seen.append(("lesion.roi.least_scale_hu", unit, 0.0, parents))
    notes = []
    for setting, unit, fine_share, names in seen:
        lost = [m for m in measured if m.target in names and m.is_lost(unit, fine_share)]
        if lost:
            notes.append(_unit_sentence(setting, unit, lost))
    return notes


def _unit_sentence(setting: str, unit: float, lost: Sequence[Intensities]) -> str:
    names = listed(dict.fromkeys(m.target for m in lost))
    cases = listed(dict.fromkeys(m.case_id for m in lost))
    spread = float(f"{max(m.spread for m in lost):.2g}")
    return (
        f"{setting} is {unit:g}, which is of no use where {names} in {cases} varies by "
        f"{spread:g}. Train with --set {setting}={spread or 1.0:g}."
    )


def _sentence(
    setting: str, window: Window, hidden: Sequence[Intensities], suggested: Window
) -> str:
    names = listed(dict.fromkeys(m.target for m in hidden))
    cases = listed(dict.fromkeys(m.case_id for m in hidden))
    low, high = min(m.low for m in hidden), max(m.high for m in hidden)
    return (
        f"{setting} shows intensities from {window[0]:g} to {window[1]:g}; those of {names} in "
        f"{cases} are {low:g} to {high:g}, and would look like their surroundings. Train with "
        f"--set {setting}=[{suggested[0]:.9g},{suggested[1]:.9g}]."
    )


def _suggested(measured: Sequence[Intensities]) -> Window:
    """Return a window around all targets and as much again on both sides, as far as images go."""
    low, high = min(m.low for m in measured), max(m.high for m in measured)
    first, last = min(m.image[0] for m in measured), max(m.image[1] for m in measured)
    reach = max(high - low, (last - first) / 4)
    low, high = max(low - reach, min(first, low)), min(high + reach, max(last, high))
    least = 1e-6 * max(1.0, abs(low), abs(high))
    if high - low < least:  # a uniform image
        low, high = low - least, high + least
    step = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _percentiles(values: NDArray[np.generic], wanted: tuple[int, ...]) -> list[float]:
    sample = values[:: max(1, values.size // ENOUGH)]
    return [float(value) for value in np.percentile(sample.astype(np.float64), wanted)]
