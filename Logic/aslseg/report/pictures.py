"""Pictures of single slices with the outlines of truth and predictions."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aslseg.data.volume import Geometry, Labelmap, Labels, Mask, Volume
from aslseg.evaluation.metrics import dice
from aslseg.targets import Target, region_mask

# Bright colours of Okabe and Ito: distinct on grey, and for colour-blind people.
SOURCE_COLOURS = {
    "truth": "#F0E442",
    "specialist": "#56B4E9",
    "sam": "#FF7A33",
    "refined": "#2FE0A0",
}
SOURCE_WIDTHS = {"truth": 2.6, "specialist": 1.2, "sam": 1.2, "refined": 1.6}
DASHES = ("solid", (0, (2.4, 0.8)), (0, (0.8, 0.8)))
WINDOW_HU = (-100.0, 250.0)
MARGIN_MM = 25.0
LEAST_MM = 150.0
LEAST_SHARE = 0.05
WIDTH_INCH = 4.6


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice and how good it is.

    Attributes:
        index: Along k, from 0.
        dice: By target; absent where truth and label have next to none of it in this slice.
        mean: Mean of these.
    """

    index: int
    dice: Mapping[str, float]
    mean: float


def rank_slices(
    labels: Labelmap, truth: Labelmap, targets: Sequence[Target]
) -> tuple[Slice, Slice] | None:
    """Find the worst and the best slice of a label map.

    Args:
        labels: What is judged.
        truth: The human labels on the same grid.
        targets: All targets; a target counts with all that lies inside of it.

    Returns:
        Worst and best, or None when no slice has any target.
    """
    pairs = [_Pair.of(labels, truth, target, targets) for target in targets]
    judged = [_judge(index, pairs) for index in range(truth.geometry.shape[0])]
    slices = [slice_ for slice_ in judged if slice_.dice]
    if not slices:
        return None
    # Of equally good slices the one with more targets tells more.
    key = [(slice_.mean, len(slice_.dice)) for slice_ in slices]
    worst = min(range(len(slices)), key=lambda number: (key[number][0], -key[number][1]))
    best = max(range(len(slices)), key=lambda number: key[number])
    return slices[worst], slices[best]


def slice_picture(
    image: Volume, predictions: Mapping[str, Labelmap], index: int, targets: Sequence[Target]
) -> str:
    """Draw a slice bare and with the outlines of all predictions.

    Args:
        image: On its axial grid, so that the patient's right is on the left and the front is up.
        predictions: `truth`, `specialist`, `sam` or `refined` to their label maps on that grid.
        index: Slice along k.
        targets: Targets to outline: the first solid, the next dashed, then dotted.

    Returns:
        A PNG as a `data:` address.
    """
    window = _crop(predictions, index, image.geometry)
    pixels = image.voxels[index][window]
    height_mm = pixels.shape[0] * image.geometry.spacing_mm[1]
    width_mm = pixels.shape[1] * image.geometry.spacing_mm[2]
    size = (2 * WIDTH_INCH, WIDTH_INCH * min(height_mm / width_mm, 1.5))
    figure = Figure(figsize=size, facecolor="black")
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.01)
    bare, outlined = figure.subplots(1, 2)
    for axes in (bare, outlined):
        _show(axes, pixels, image.geometry)
    for source, colour in SOURCE_COLOURS.items():
        if source in predictions:
            labels = predictions[source].labels[index][window]
            _outline(outlined, labels, targets, colour, SOURCE_WIDTHS[source])
    return _png(figure)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A target's region twice, and in which slices it is large enough to be judged."""

    name: str
    predicted: Mask
    truth: Mask
    counts: Mask

    @classmethod
    def of(
        cls, labels: Labelmap, truth: Labelmap, target: Target, targets: Sequence[Target]
    ) -> _Pair:
        first, second = (region_mask(each.labels, target, targets) for each in (labels, truth))
        areas = (first | second).sum(axis=(1, 2))
        return cls(target.name, first, second, (areas > 0) & (areas >= LEAST_SHARE * areas.max()))


def _judge(index: int, pairs: Sequence[_Pair]) -> Slice:
    scores = {
        pair.name: dice(pair.predicted[index], pair.truth[index])
        for pair in pairs
        if pair.counts[index]
    }
    mean = sum(scores.values()) / len(scores) if scores else float("nan")
    return Slice(index, scores, mean)


def _crop(
    predictions: Mapping[str, Labelmap], index: int, geometry: Geometry
) -> tuple[slice, slice]:
    """Cut to what is outlined and some of its surroundings."""
    union = np.logical_or.reduce([source.labels[index] > 0 for source in predictions.values()])
    if not union.any():
        return slice(None), slice(None)
    spans = []
    for axis, edge_mm in zip((1, 0), geometry.spacing_mm[1:], strict=True):
        hits = np.flatnonzero(union.any(axis=axis))
        missing_mm = LEAST_MM - edge_mm * (hits[-1] - hits[0] + 1)
        margin = round(max(MARGIN_MM, missing_mm / 2) / edge_mm)
        spans.append(slice(max(int(hits[0]) - margin, 0), int(hits[-1]) + margin + 1))
    return spans[0], spans[1]


def _show(axes: Axes, pixels: NDArray[Any], geometry: Geometry) -> None:
    _, j_mm, i_mm = geometry.spacing_mm
    low, high = WINDOW_HU
    if pixels.min() >= low and pixels.max() > 4 * high:  # no CT: its own range
        low, high = (float(value) for value in np.percentile(pixels, (1, 99)))
    axes.imshow(
        pixels, cmap="gray", vmin=low, vmax=high, aspect=j_mm / i_mm, interpolation="bicubic"
    )
    axes.set_axis_off()
    axes.set_autoscale_on(False)


def _outline(
    axes: Axes, labels: Labels, targets: Sequence[Target], colour: str, width: float
) -> None:
    for number, target in enumerate(targets):
        mask = region_mask(labels, target, targets)
        if mask.any():
            # A frame of background closes outlines that touch the edge of the picture.
            closed = np.pad(mask, 1).astype(np.float32)
            rows, columns = (np.arange(-1, count + 1) for count in mask.shape)
            dash = DASHES[min(number, len(DASHES) - 1)]
            axes.contour(
                columns, rows, closed, [0.5], colors=[colour], linewidths=width, linestyles=[dash]
            )


def _png(figure: Figure) -> str:
    data = BytesIO()
    figure.savefig(data, format="png", dpi=105, facecolor="black", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
