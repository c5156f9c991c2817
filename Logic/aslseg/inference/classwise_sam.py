"""A SAM that tells classes apart as a voice: prompts from the specialist's map, and its answers.

SAM sees what the specialist sees, a stage's view, in tiles of the size of its training patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aslseg.config import RunConfig
from aslseg.data.masks import within_reach
from aslseg.data.volume import Float32, Mask, Volume
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities, Specialist, StagePrediction
from aslseg.inference.tiles import Tile, TileAggregator, planes_on, slice_of, tiles_of
from aslseg.networks.device import mixed_precision
from aslseg.networks.finite import require_finite
from aslseg.preprocessing.roi import Roi, to_volume
from aslseg.prompts import XY, PointPrompt, SlicePrompts
from aslseg.sam.classwise import (
    NEGATIVE,
    POSITIVE,
    ClasswiseSam,
    deep_points,
    points_of_nothing,
    stacked_points,
)
from aslseg.targets import CascadeStage, Target

REACH = {False: 2.0, True: 4.0}
"""Normalised intensities that become black and white: of whole images, and inside containers."""
CACHED_VOLUMES = 64
"""Tiles whose embeddings are kept, for a person who asks again about the same slice."""


def picture01(intensities: Tensor, *, in_container: bool) -> Tensor:
    """Return a stage's normalised intensities as a picture in [0, 1]."""
    reach = REACH[in_container]
    return ((intensities + reach) / (2 * reach)).clamp(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _StageTiles:
    """A stage of a volume that SAM can be asked about."""

    stage: CascadeStage
    roi: Roi
    shown: Mask
    organ: Mask | None
    tiles: list[Tile]


class ClasswisePredictor:
    """SAM's voice in a method whose SAM was trained beside the specialist.

    Args:
        specialist: Whose view is shown, and whose classes give the points.
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
        self._scenes: list[_StageTiles] = []
        self._embeddings: dict[tuple[str, int, Tile], Tensor] = {}

    def propose_prompts(
        self, volume: Volume, probabilities: Probabilities, targets: Sequence[Target]
    ) -> list[SlicePrompts]:
        """Return points deep in and around each target, for every tile of every slice.

        Where the specialist sees none of a target its points are all negative: SAM is asked there
        too, and may find what the specialist missed.
        """
        prompts: list[SlicePrompts] = []
        for scene in self._look(volume, None):
            planes = {slice_of(p, scene.roi): p for p in reversed(range(len(scene.shown)))}
            for k in sorted(planes):
                for number, tile in enumerate(scene.tiles):
                    shown = tile.cut(scene.shown[planes[k]])
                    prompts += self._prompts_of(scene, k, number, shown)
        return prompts

    def _prompts_of(
        self, scene: _StageTiles, k: int, number: int, shown: np.ndarray
    ) -> list[SlicePrompts]:
        tile, prompts = scene.tiles[number], []
        for value, target in enumerate(scene.stage.targets, start=1):
            points = tuple(
                PointPrompt(tile.to_slice(xy, scene.roi), label == POSITIVE)
                for xy, label in deep_points(shown == value, self._config.scsam.points)
                if label in (POSITIVE, NEGATIVE)
            )
            prompts.append(SlicePrompts(k, target.name, number, points=points))
        return prompts

    @torch.no_grad()
    def predict(
        self, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor | None = None
    ) -> Probabilities:
        """Answer prompts, whoever made them; slices without one stay silent.

        A prompt belongs to the tile of its number, or, if it has no point there, to every tile that
        it has a point in. A box is read as its middle and four points just outside of it.

        Returns:
            By target name, (D, H, W) probability; targets without a prompt are missing.
        """
        monitor = monitor or Monitor()
        sam_probabilities: Probabilities = {}
        for scene in self._look(volume, monitor):
            names = [target.name for target in scene.stage.targets]
            own = [prompt for prompt in prompts if prompt.target in names]
            if own:
                sam_probabilities.update(self._answer(volume, scene, own, monitor))
        asked = {prompt.target for prompt in prompts}
        return {name: found for name, found in sam_probabilities.items() if name in asked}

    def _answer(
        self, volume: Volume, scene: _StageTiles, prompts: Sequence[SlicePrompts], monitor: Monitor
    ) -> Probabilities:
        aggregator = TileAggregator(scene.roi, 1 + len(scene.stage.targets))
        for k in monitor.track(sorted({p.slice_index for p in prompts}), "Running SAM"):
            here = [prompt for prompt in prompts if prompt.slice_index == k]
            for plane in planes_on(k, scene.roi):
                for number, tile in enumerate(scene.tiles):
                    told = _points_in(here, number, tile, scene)
                    if told:
                        aggregator.add(plane, tile, self._tile(scene, plane, tile, told))
        native = to_volume(aggregator.mean()[1:], scene.roi)
        if scene.organ is not None:
            native *= within_reach(scene.organ, volume)
        return {target.name: native[n] for n, target in enumerate(scene.stage.targets)}

    def _tile(
        self,
        scene: _StageTiles,
        plane: int,
        tile: Tile,
        told: Mapping[str, Sequence[tuple[XY, int]]],
    ) -> Float32:
        """Return (classes, edge, edge) probabilities."""
        sam = self._sams[scene.stage.name]
        count, shown = self._config.scsam.points, tile.cut(scene.shown[plane])
        points = [deep_points(shown == 0, count)]
        nothing = points_of_nothing(tile.edge, count)
        points += [list(told.get(t.name, nothing)) for t in scene.stage.targets]
        device = self._specialist.device
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision(device)):
            embedding = self._embedding(scene, plane, tile)
            logits = sam.decode(embedding, stacked_points([points]), tile.edge)
        probability: Float32 = logits[0].float().softmax(0).cpu().numpy()
        return require_finite(probability, "SAM")

    def _embedding(self, scene: _StageTiles, plane: int, tile: Tile) -> Tensor:
        key = (scene.stage.name, plane, tile)
        if key not in self._embeddings:
            if len(self._embeddings) >= CACHED_VOLUMES:
                self._embeddings.pop(next(iter(self._embeddings)))
            cut = torch.from_numpy(np.ascontiguousarray(tile.cut(scene.roi.image[plane])))
            picture = picture01(cut.float(), in_container=scene.organ is not None)
            self._embeddings[key] = self._sams[scene.stage.name].embed(picture[None])
        return self._embeddings[key]

    def _look(self, volume: Volume, monitor: Monitor | None) -> list[_StageTiles]:
        """Return what the specialist saw of a volume; that of the last one is remembered."""
        if volume is not self._volume:
            seen = self._specialist.look(volume, monitor)
            self._embeddings.clear()
            self._scenes = [scene for one in seen for scene in self._scenes_of(one)]
            self._volume = volume
        return self._scenes

    def _scenes_of(self, seen: StagePrediction) -> list[_StageTiles]:
        if seen.roi is None or seen.classes is None:
            return []
        settings = self._config.stage(seen.stage.inside.name if seen.stage.inside else None)
        tiles = tiles_of(seen.roi, settings.patch_size)
        return [_StageTiles(seen.stage, seen.roi, seen.classes.argmax(0), seen.organ, tiles)]


def _points_in(
    prompts: Sequence[SlicePrompts], number: int, tile: Tile, scene: _StageTiles
) -> dict[str, list[tuple[XY, int]]]:
    """Return, by target, the points that a tile is told of."""
    told: dict[str, list[tuple[XY, int]]] = {}
    for prompt in prompts:
        points = [(tile.from_slice(xy, scene.roi), label) for xy, label in _points_of(prompt)]
        home = scene.tiles[prompt.component] if prompt.component < len(scene.tiles) else None
        at_home = home is not None and any(
            home.holds(home.from_slice(xy, scene.roi)) for xy, _ in _points_of(prompt)
        )
        here = [point for point in points if tile.holds(point[0])]
        if here and (prompt.component == number or not at_home):
            told.setdefault(prompt.target, []).extend(here)
    return told


def _points_of(prompt: SlicePrompts) -> list[tuple[XY, int]]:
    points = [(p.xy, POSITIVE if p.positive else NEGATIVE) for p in prompt.points]
    if prompt.box is None:
        return points
    left, top, right, bottom = prompt.box.xyxy
    x, y = (left + right) / 2, (top + bottom) / 2
    around = [(left - 1, y), (right + 1, y), (x, top - 1), (x, bottom + 1)]
    return [*points, ((x, y), POSITIVE), *[(xy, NEGATIVE) for xy in around]]
