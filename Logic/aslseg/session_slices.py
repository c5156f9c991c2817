"""One slice refined and labelled, in place of the whole volume: what an edited prompt waits for.

The containers around a slice are those of the last whole volume. As long as the edit leaves them as
they are, a slice's probabilities are exactly those that the whole volume would give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from aslseg.adaptation_views import refine_slice
from aslseg.batches import slice_channels
from aslseg.components import label_components, region_values
from aslseg.config import Target
from aslseg.inference import Probabilities, clean_container, within_reach
from aslseg.lessons import adaptation_view_settings
from aslseg.refinement import Refiner
from aslseg.stages import Stage, stages_of
from aslseg.views import Float32, View, build_view, resample
from aslseg.volume import Geometry, Labels, Mask, Volume

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


def label_slice(
    planes: Mapping[str, Float32],
    k: int,
    before: Labels,
    targets: Sequence[Target],
    volume: Volume,
    *,
    min_component_ml: float,
) -> Labels:
    """Turn the probabilities of one slice into labels, in the light of its neighbours.

    What the whole volume decides by connected bodies is decided here by contact with the labels
    around: a container keeps the parts that touch it there, a content those that touch one there
    or are large enough.

    Args:
        planes: By target, (H, W).
        k: Number of the slice.
        before: (D, H, W) label map of the volume as it was.
        targets: All targets.
        volume: Gives spacing.
        min_component_ml: Smaller parts of contents are dropped.

    Returns:
        (H, W) uint8.
    """
    labels = np.zeros(before.shape[1:], np.uint8)
    containers = {target.inside for target in targets}
    least = max(1, round(min_component_ml / volume.geometry.voxel_ml))
    bodies: dict[str, Mask] = {}
    for stage in stages_of(targets):
        best = np.max([planes[t.name] for t in stage.targets], axis=0)
        for target in sorted(stage.targets, key=lambda t: t.name not in containers):
            mask: Mask = (planes[target.name] > 0.5) & (planes[target.name] >= best)
            if stage.inside is not None:
                mask &= within_reach(bodies[stage.inside.name][None], volume)[0]
            values = region_values(target, targets)
            beside = around(np.isin(before[max(k - 1, 0) : k + 2], values), None)
            if target.name in containers:
                is_first = not beside.any() and not np.isin(before, values).any()
                mask = ndimage.binary_fill_holes(attached(mask, beside, is_first=is_first))
                bodies[target.name] = mask
            else:
                mask = _large_or_touching(mask, beside, least)
            labels[mask] = target.value
    return labels


def attached(mask: Mask, beside: Mask, *, is_first: bool) -> Mask:
    """Return the parts of a slice's mask that touch a body; the largest part if it is the first.

    Args:
        mask: (H, W).
        beside: (H, W) where the body is, in this slice and its neighbours.
        is_first: There is no body in any slice yet.
    """
    numbered, _ = label_components(mask)
    touching = np.unique(numbered[beside & mask])
    if is_first and mask.any():
        touching = np.array([1 + int(np.argmax(np.bincount(numbered.ravel())[1:]))])
    found: Mask = np.isin(numbered, touching) & mask
    return found


def around(body: Mask, k: int | None) -> Mask:
    """Return where a body is in slice `k` or beside it (None: in any of its slices), widened."""
    part = body if k is None else body[max(k - 1, 0) : k + 2]
    widened: Mask = ndimage.binary_dilation(part.any(axis=0))
    return widened


def geometry_of_slice(geometry: Geometry, k: int) -> Geometry:
    """Return where slice `k` lies, as a volume of one slice."""
    affine = geometry.ijk_to_ras.copy()
    affine[:3, 3] += k * affine[:3, 2]
    return Geometry((1, *geometry.shape[1:]), affine)


def _large_or_touching(mask: Mask, beside: Mask, least: int) -> Mask:
    numbered, count = label_components(mask)
    keep = np.bincount(numbered.ravel(), minlength=count + 1) >= least
    keep[np.unique(numbered[beside & mask])] = True
    keep[0] = False
    kept: Mask = keep[numbered]
    return kept


def _into_view(planes: Float32, view: View) -> Float32:
    """Bring (n, H, W) slices of the volume to the view's pixels: (n, h, w)."""
    cropped = planes[:, view.box.slices[1], view.box.slices[2]]
    return resample(cropped, (len(planes), *view.image.shape[1:]), "linear")
