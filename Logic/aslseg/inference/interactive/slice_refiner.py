"""One slice refined and labelled, in place of the whole volume: what an edited prompt waits for.

The containers around a slice are those of the last whole volume. As long as the edit leaves them as
they are, a slice's probabilities are exactly those that the whole volume would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aslseg.data.masks import clean_container, within_reach
from aslseg.data.volume import Float32, Geometry, Mask, Volume
from aslseg.inference.cascade import Probabilities
from aslseg.inference.postprocessing import around, attached
from aslseg.inference.refinement import Refiner, refine_slice
from aslseg.networks.adaptation import adaptation_view_settings
from aslseg.preprocessing.patches import slice_channels
from aslseg.preprocessing.roi import View, build_view, resample
from aslseg.targets import Stage, Target, stages_of

Planes = dict[str, Float32]
"""By target name, (H, W) probability of one slice."""


Stack = Callable[[str, Sequence[int]], Float32]
"""From a target's name and slice numbers to (n, H, W) probability."""


class SliceRefiner:
    """The adaptation networks on single slices of one volume.

    Args:
        refiner: The networks.
        volume: The image.
        refined: What they made of the whole volume; gives the containers.
    """

    def __init__(self, refiner: Refiner, volume: Volume, refined: Probabilities) -> None:
        self._refiner = refiner
        self._volume = volume
        self._views: dict[str, View] = {}
        self._bodies: dict[str, Mask] = {}
        for stage in stages_of(refiner.targets):
            self._look(stage, refined)

    def refine(self, k: int, specialist: Stack, sam: Stack) -> Planes:
        """Return the refined probabilities of slice `k`.

        Args:
            k: Number of the slice.
            specialist: What the specialist says.
            sam: What SAM says; without SAM, the specialist again.
        """
        refined: Planes = {}
        for stage in stages_of(self._refiner.targets):
            reach = None
            if stage.inside is not None:
                name = stage.inside.name
                body = self._bodies[name]
                organ = attached(refined[name] > 0.5, around(body, k), is_first=not body.any())
                reach = within_reach(organ[None], self._volume)[0]
            for target in stage.targets:
                plane = self._plane(stage, target, k, (specialist, sam))
                refined[target.name] = plane if reach is None else plane * reach
        return refined

    def _look(self, stage: Stage, refined: Probabilities) -> None:
        organ = None
        if stage.inside is not None:
            organ = clean_container(refined[stage.inside.name] > 0.5)
            self._bodies[stage.inside.name] = organ
            if not organ.any():
                return
        settings = adaptation_view_settings(stage, self._refiner.config)
        self._views[stage.name] = build_view(self._volume, stage, settings, organ=organ)

    def _plane(self, stage: Stage, target: Target, k: int, said: tuple[Stack, Stack]) -> Float32:
        plane = np.zeros(self._volume.geometry.shape[1:], np.float32)
        view = self._views.get(stage.name)
        if view is None or not 0 <= k - view.box.start[0] < len(view.image):
            return plane
        row = k - view.box.start[0]
        settings = adaptation_view_settings(stage, self._refiner.config)
        reach = self._refiner.config.adaptation.voices
        rows = np.clip(row + view.neighbour * np.arange(-reach, reach + 1), 0, len(view.image) - 1)
        slices = [int(n) + view.box.start[0] for n in rows]
        voices = np.stack([_into_view(voice(target.name, slices), view) for voice in said])
        image = slice_channels(view, row, settings)
        corrected = refine_slice(
            self._refiner.networks[target.name],
            image,
            voices,
            self._refiner.config.adaptation,
            settings,
        )
        inside = view.box.slices[1:]
        plane[inside] = resample(corrected[None], (1, *plane[inside].shape), "linear")[0]
        return plane


def geometry_of_slice(geometry: Geometry, k: int) -> Geometry:
    """Return where slice `k` lies, as a volume of one slice."""
    affine = geometry.ijk_to_ras.copy()
    affine[:3, 3] += k * affine[:3, 2]
    return Geometry((1, *geometry.shape[1:]), affine)


def _into_view(planes: Float32, view: View) -> Float32:
    """Bring (n, H, W) slices of the volume to the view's pixels: (n, h, w)."""
    cropped = planes[:, view.box.slices[1], view.box.slices[2]]
    return resample(cropped, (len(planes), *view.image.shape[1:]), "linear")
