"""The adaptation networks on one slice, in place of the whole volume.

The parent masks around a slice are those of the last whole volume. As long as an edit does not
change them, the probabilities of a slice are exactly those of refining the whole volume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aslseg.data.masks import clean_parent, within_reach
from aslseg.data.volume import Float32, Geometry, Mask, Volume
from aslseg.inference.cascade import Probabilities
from aslseg.inference.postprocessing import dilated_in_plane, parts_touching
from aslseg.inference.refinement import Refiner, refine_slice
from aslseg.networks.adaptation import adaptation_roi_settings
from aslseg.preprocessing.patches import slice_channels
from aslseg.preprocessing.roi import Roi, build_roi, resample
from aslseg.targets import CascadeStage, Target, cascade_stages

Planes = dict[str, Float32]
"""By target name, (H, W) probability of one slice."""


Stack = Callable[[str, Sequence[int]], Float32]
"""From a target's name and slice numbers to (n, H, W) probability."""


class SliceRefiner:
    """The adaptation networks on single slices of one volume.

    Args:
        refiner: The networks.
        volume: The image.
        refined: Their probabilities of the whole volume; they give the parent masks.
    """

    def __init__(self, refiner: Refiner, volume: Volume, refined: Probabilities) -> None:
        self._refiner = refiner
        self._volume = volume
        self._rois: dict[str, Roi] = {}
        self._parents: dict[str, Mask] = {}
        for stage in cascade_stages(refiner.targets):
            self._prepare(stage, refined)

    def refine(self, k: int, specialist: Stack, sam: Stack) -> Planes:
        """Return the refined probabilities of slice `k`.

        Args:
            k: Number of the slice.
            specialist: Gives the specialist's probabilities.
            sam: Gives SAM's; without SAM, the specialist's again.
        """
        refined: Planes = {}
        for stage in cascade_stages(self._refiner.targets):
            reach = None
            if stage.inside is not None:
                name = stage.inside.name
                before = self._parents[name]
                parent = parts_touching(
                    refined[name] > 0.5, dilated_in_plane(before, k), is_first=not before.any()
                )
                reach = within_reach(parent[None], self._volume)[0]
            for target in stage.targets:
                plane = self._plane(stage, target, k, (specialist, sam))
                refined[target.name] = plane if reach is None else plane * reach
        return refined

    def _prepare(self, stage: CascadeStage, refined: Probabilities) -> None:
        parent = None
        if stage.inside is not None:
            parent = clean_parent(refined[stage.inside.name] > 0.5)
            self._parents[stage.inside.name] = parent
            if not parent.any():
                return
        settings = adaptation_roi_settings(stage, self._refiner.config)
        self._rois[stage.name] = build_roi(self._volume, stage, settings, parent=parent)

    def _plane(
        self, stage: CascadeStage, target: Target, k: int, probabilities: tuple[Stack, Stack]
    ) -> Float32:
        plane = np.zeros(self._volume.geometry.shape[1:], np.float32)
        roi = self._rois.get(stage.name)
        if roi is None or not 0 <= k - roi.box.start[0] < len(roi.image):
            return plane
        row = k - roi.box.start[0]
        settings = adaptation_roi_settings(stage, self._refiner.config)
        reach = self._refiner.config.adaptation.context_slices
        rows = np.clip(row + roi.neighbour * np.arange(-reach, reach + 1), 0, len(roi.image) - 1)
        slices = [int(n) + roi.box.start[0] for n in rows]
        predictions = np.stack(
            [_to_roi(source(target.name, slices), roi) for source in probabilities]
        )
        image = slice_channels(roi, row, settings)
        corrected = refine_slice(
            self._refiner.networks[target.name],
            image,
            predictions,
            self._refiner.config.adaptation,
            settings,
        )
        inside = roi.box.slices[1:]
        plane[inside] = resample(corrected[None], (1, *plane[inside].shape), "linear")[0]
        return plane


def geometry_of_slice(geometry: Geometry, k: int) -> Geometry:
    """Return the geometry of slice `k` as a volume of one slice."""
    affine = geometry.ijk_to_ras.copy()
    affine[:3, 3] += k * affine[:3, 2]
    return Geometry((1, *geometry.shape[1:]), affine)


def _to_roi(planes: Float32, roi: Roi) -> Float32:
    """Resample (n, H, W) slices of the volume to the pixels of a ROI: (n, h, w)."""
    cropped = planes[:, roi.box.slices[1], roi.box.slices[2]]
    return resample(cropped, (len(planes), *roi.image.shape[1:]), "linear")
