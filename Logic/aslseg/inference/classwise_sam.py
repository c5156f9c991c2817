"""A SAM that tells classes apart on a volume: prompts from the specialist's map, probabilities.

Its input is that of the specialist: the ROI of a cascade stage is cut into tiles of the size of a
training patch, and their predictions are put together again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aslseg.config import RunConfig
from aslseg.data.volume import Float32, Mask, Volume
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities, Specialist, StagePrediction, on_volume
from aslseg.networks.device import mixed_precision, require_finite
from aslseg.preprocessing.roi import Roi
from aslseg.prompts import XY, BoxPrompt, PointPrompt, SlicePrompts
from aslseg.sam.classwise import (
    NEGATIVE,
    POSITIVE,
    ClasswiseSam,
    deep_points,
    points_of_nothing,
    stacked_points,
)
from aslseg.targets import CascadeStage, Target


@dataclass(frozen=True, slots=True)
class Tile:
    """A square of a ROI's plane; it may reach beyond a ROI that is smaller than itself.

    Attributes:
        row: Of the ROI, where the tile begins.
        column: Of the ROI, where the tile begins.
        edge: In pixels.
    """

    row: int
    column: int
    edge: int

    def cut(self, plane: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return (edge, edge) of a plane (h, w), whose border is repeated beyond it."""
        rows = np.clip(np.arange(self.row, self.row + self.edge), 0, plane.shape[0] - 1)
        columns = np.clip(np.arange(self.column, self.column + self.edge), 0, plane.shape[1] - 1)
        return plane[np.ix_(rows, columns)]

    def inside(self, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of a plane (h, w) under the tile, and the tile's part on the plane."""
        spans = []
        for start, length in zip((self.row, self.column), shape, strict=True):
            first, last = max(start, 0), min(start + self.edge, length)
            spans.append((slice(first, last), slice(first - start, last - start)))
        return (spans[0][0], spans[1][0]), (spans[0][1], spans[1][1])

    def to_slice(self, xy: tuple[float, float], roi: Roi) -> tuple[float, float]:
        """Map a point of the tile to the volume's slice; centres of pixels are at half numbers."""
        x, y = xy[0] + self.column, xy[1] + self.row
        return _stretch(x, roi, 2), _stretch(y, roi, 1)

    def from_slice(self, xy: tuple[float, float], roi: Roi) -> tuple[float, float]:
        """Map a point of the volume's slice to the tile."""
        x, y = _shrink(xy[0], roi, 2), _shrink(xy[1], roi, 1)
        return x - self.column, y - self.row

    def holds(self, xy: tuple[float, float]) -> bool:
        """Tell whether a point of the tile's coordinates lies on it."""
        return all(0 <= at < self.edge for at in xy)


def tiles_of(roi: Roi, edge: int) -> list[Tile]:
    """Cover the planes of a ROI with as few tiles as possible, evenly spread."""
    rows, columns = (_starts(length, edge) for length in roi.image.shape[1:])
    return [Tile(row, column, edge) for row in rows for column in columns]


def slice_of(plane: int, roi: Roi) -> int:
    """Return the volume's slice that the middle of a ROI's plane lies in."""
    return math.floor(_stretch(plane + 0.5, roi, 0))


def planes_on(k: int, roi: Roi) -> list[int]:
    """Return the planes of a ROI that lie on a slice of the volume, or else the nearest one."""
    planes = range(roi.image.shape[0])
    on_it = [plane for plane in planes if slice_of(plane, roi) == k]
    return on_it or [min(planes, key=lambda plane: abs(slice_of(plane, roi) - k))]


class TileAggregator:
    """Class probabilities of a ROI, averaged where tiles overlap.

    Args:
        roi: Whose planes are put together.
        classes: How many, the background included.
    """

    def __init__(self, roi: Roi, classes: int) -> None:
        self._sum = np.zeros((classes, *roi.image.shape), np.float32)
        self._count = np.zeros(roi.image.shape, np.float32)

    def add(self, plane: int, tile: Tile, probability: Float32) -> None:
        """Add (classes, edge, edge) of a tile."""
        there, here = tile.inside(self._count.shape[1:])
        self._sum[(slice(None), plane, *there)] += probability[(slice(None), *here)]
        self._count[(plane, *there)] += 1

    def mean(self) -> Float32:
        """Return (classes, d, h, w); zero where no tile was added."""
        return np.divide(self._sum, np.maximum(self._count, 1), dtype=np.float32)


def _starts(length: int, edge: int) -> list[int]:
    if length <= edge:
        return [-((edge - length) // 2)]
    return [round(at) for at in np.linspace(0, length - edge, math.ceil(length / edge))]


def _stretch(at: float, roi: Roi, axis: int) -> float:
    part = roi.box.slices[axis]
    return float(part.start + at * (part.stop - part.start) / roi.image.shape[axis])


def _shrink(at: float, roi: Roi, axis: int) -> float:
    part = roi.box.slices[axis]
    return float((at - part.start) * roi.image.shape[axis] / (part.stop - part.start))


REACH = {False: 2.0, True: 4.0}
"""Normalised intensities that become black and white: of whole images, and inside parents."""


CACHED_VOLUMES = 64
"""Tiles whose embeddings are cached, for further prompts on the same slice."""


def picture01(intensities: Tensor, *, has_parent: bool) -> Tensor:
    """Return a stage's normalised intensities as a picture in [0, 1].

    Args:
        intensities: Any shape, in deviations from the parent or, without one, from the body.
        has_parent: Whether the stage lies inside of another.

    Returns:
        Of the same shape.
    """
    reach = REACH[has_parent]
    return ((intensities + reach) / (2 * reach)).clamp(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _StageTiles:
    """The tiles of a stage's ROI, with the specialist's class (d, h, w) of each pixel."""

    stage: CascadeStage
    roi: Roi
    classes: NDArray[np.int64]
    parent: Mask | None
    tiles: list[Tile]


class ClasswisePredictor:
    """SAM of a method that trains it beside the specialist.

    Args:
        specialist: Gives the ROIs, and the classes that points are made from.
        sams: By stage name.
        config: The run's settings.
    """

    def __init__(
        self, specialist: Specialist, sams: Mapping[str, ClasswiseSam], config: RunConfig
    ) -> None:
        self._specialist = specialist
        self._sams = sams
        self._config = config
        self._volume: Volume | None = None
        self._stages: list[_StageTiles] = []
        self._embeddings: dict[tuple[str, int, Tile], Tensor] = {}

    def propose_prompts(
        self, volume: Volume, probabilities: Probabilities, targets: Sequence[Target]
    ) -> list[SlicePrompts]:
        """Return points deep in and around each target, for every tile of every slice.

        Where the specialist predicts none of a target its points are all negative: SAM predicts
        there too, and may find what the specialist missed. A SAM that was trained without points
        is given the tile's outline instead, which says where to predict and nothing else.
        """
        prompts: list[SlicePrompts] = []
        for tiled in self._stages_of(volume, None):
            planes = {slice_of(p, tiled.roi): p for p in reversed(range(len(tiled.classes)))}
            for k in sorted(planes):
                for number, tile in enumerate(tiled.tiles):
                    classes = tile.cut(tiled.classes[planes[k]])
                    prompts += self._prompts_of(tiled, k, number, classes)
        return prompts

    def _prompts_of(
        self, tiled: _StageTiles, k: int, number: int, classes: np.ndarray
    ) -> list[SlicePrompts]:
        tile, prompts = tiled.tiles[number], []
        if not self._config.scsam.points:
            box = _outline(tile, tiled.roi)
            return [SlicePrompts(k, target.name, number, box) for target in tiled.stage.targets]
        for value, target in enumerate(tiled.stage.targets, start=1):
            points = tuple(
                PointPrompt(tile.to_slice(xy, tiled.roi), label == POSITIVE)
                for xy, label in deep_points(classes == value, self._config.scsam.points)
                if label in (POSITIVE, NEGATIVE)
            )
            prompts.append(SlicePrompts(k, target.name, number, points=points))
        return prompts

    @torch.no_grad()
    def predict(
        self, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor | None = None
    ) -> Probabilities:
        """Return the probabilities of the prompted targets; zero in slices without a prompt.

        A prompt belongs to the tile of its number, or, if it has no point there, to every tile that
        it has a point in. A box is read as its middle and four points just outside of it.

        Returns:
            By target name, (D, H, W) probability; targets without a prompt are missing.
        """
        monitor = monitor or Monitor()
        sam_probabilities: Probabilities = {}
        for tiled in self._stages_of(volume, monitor):
            names = [target.name for target in tiled.stage.targets]
            of_stage = [prompt for prompt in prompts if prompt.target in names]
            if of_stage:
                sam_probabilities.update(self._predict_stage(volume, tiled, of_stage, monitor))
        prompted = {prompt.target for prompt in prompts}
        return {name: found for name, found in sam_probabilities.items() if name in prompted}

    def _predict_stage(
        self,
        volume: Volume,
        tiled: _StageTiles,
        prompts: Sequence[SlicePrompts],
        monitor: Monitor,
    ) -> Probabilities:
        aggregator = TileAggregator(tiled.roi, 1 + len(tiled.stage.targets))
        for k in monitor.track(sorted({p.slice_index for p in prompts}), "Running SAM"):
            here = [prompt for prompt in prompts if prompt.slice_index == k]
            for plane in planes_on(k, tiled.roi):
                for number, tile in enumerate(tiled.tiles):
                    points = _points_in(here, number, tile, tiled)
                    if points:
                        aggregator.add(plane, tile, self._tile(tiled, plane, tile, points))
        return on_volume(aggregator.mean()[1:], tiled.stage, tiled.roi, tiled.parent, volume)

    def _tile(
        self,
        tiled: _StageTiles,
        plane: int,
        tile: Tile,
        given: Mapping[str, Sequence[tuple[XY, int]]],
    ) -> Float32:
        """Return (classes, edge, edge) probabilities."""
        sam = self._sams[tiled.stage.name]
        count, classes = self._config.scsam.points, tile.cut(tiled.classes[plane])
        points = [deep_points(classes == 0, count)]
        nothing = points_of_nothing(tile.edge, count)
        points += [list(given.get(t.name, nothing)) for t in tiled.stage.targets]
        device = self._specialist.device
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision(device)):
            embedding = self._embedding(tiled, plane, tile)
            logits = sam.decode(embedding, stacked_points([points]), tile.edge)
        probability: Float32 = logits[0].float().softmax(0).cpu().numpy()
        return require_finite(probability, "SAM")

    def _embedding(self, tiled: _StageTiles, plane: int, tile: Tile) -> Tensor:
        key = (tiled.stage.name, plane, tile)
        if key not in self._embeddings:
            if len(self._embeddings) >= CACHED_VOLUMES:
                self._embeddings.pop(next(iter(self._embeddings)))
            cut = torch.from_numpy(np.ascontiguousarray(tile.cut(tiled.roi.image[plane])))
            picture = picture01(cut.float(), has_parent=tiled.parent is not None)
            self._embeddings[key] = self._sams[tiled.stage.name].embed(picture[None])
        return self._embeddings[key]

    def _stages_of(self, volume: Volume, monitor: Monitor | None) -> list[_StageTiles]:
        """Return the tiles of all stages of a volume; those of the last one are cached."""
        if volume is not self._volume:
            predictions = self._specialist.predict_stages(volume, monitor)
            self._embeddings.clear()
            self._stages = [tiled for one in predictions for tiled in self._tiles_of(one)]
            self._volume = volume
        return self._stages

    def _tiles_of(self, prediction: StagePrediction) -> list[_StageTiles]:
        if prediction.roi is None or prediction.classes is None:
            return []
        settings = self._config.stage(prediction.stage.parent_name)
        tiles = tiles_of(prediction.roi, settings.patch_size)
        classes = prediction.classes.argmax(0)
        return [_StageTiles(prediction.stage, prediction.roi, classes, prediction.parent, tiles)]


def _points_in(
    prompts: Sequence[SlicePrompts], number: int, tile: Tile, tiled: _StageTiles
) -> dict[str, list[tuple[XY, int]]]:
    """Return, by target, the points of prompts that belong to a tile; none for its outline."""
    found: dict[str, list[tuple[XY, int]]] = {}
    for prompt in prompts:
        if prompt.box in [_outline(each, tiled.roi) for each in tiled.tiles]:
            if prompt.component == number:
                found.setdefault(prompt.target, [])
            continue
        points = [(tile.from_slice(xy, tiled.roi), label) for xy, label in _points_of(prompt)]
        home = tiled.tiles[prompt.component] if prompt.component < len(tiled.tiles) else None
        at_home = home is not None and any(
            home.holds(home.from_slice(xy, tiled.roi)) for xy, _ in _points_of(prompt)
        )
        here = [point for point in points if tile.holds(point[0])]
        if here and (prompt.component == number or not at_home):
            found.setdefault(prompt.target, []).extend(here)
    return found


def _outline(tile: Tile, roi: Roi) -> BoxPrompt:
    """Return the box of a tile, in pixels of the volume's slice."""
    return BoxPrompt((*tile.to_slice((0, 0), roi), *tile.to_slice((tile.edge, tile.edge), roi)))


def _points_of(prompt: SlicePrompts) -> list[tuple[XY, int]]:
    points = [(p.xy, POSITIVE if p.positive else NEGATIVE) for p in prompt.points]
    if prompt.box is None:
        return points
    left, top, right, bottom = prompt.box.xyxy
    x, y = (left + right) / 2, (top + bottom) / 2
    around = [(left - 1, y), (right + 1, y), (x, top - 1), (x, bottom + 1)]
    return [*points, ((x, y), POSITIVE), *[(xy, NEGATIVE) for xy in around]]
