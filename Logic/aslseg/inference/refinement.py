"""The adaptation network on all slices of a ROI, or on one; and simpler rules of fusion.

`SliceRefiner` refines one slice in place of the whole volume: the parent masks around it are those
of the last whole volume. As long as an edit does not change them, its probabilities are exactly
those of refining the whole volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aslseg.config import AdaptationConfig, RunConfig, SpecialistConfig
from aslseg.data.masks import within_reach
from aslseg.data.volume import Float32, Geometry, Mask, Volume, zeros
from aslseg.inference.cascade import (
    SLICES_AT_ONCE,
    Probabilities,
    on_volume,
    stage_parent,
    with_given,
)
from aslseg.inference.postprocessing import dilated_in_plane, parts_touching
from aslseg.networks.adaptation import (
    AdaptationNetwork,
    ProbabilityPair,
    RoiSlices,
    adaptation_roi_settings,
    fuse,
    log_odds,
    prediction_channels,
)
from aslseg.networks.device import predict_mirrored, require_finite
from aslseg.preprocessing.roi import Roi, build_roi, resample, slice_channels
from aslseg.targets import CascadeStage, Target, cascade_stages, is_given


def refine_roi(
    network: AdaptationNetwork,
    roi: Roi,
    predictions: ProbabilityPair,
    settings: AdaptationConfig,
    roi_settings: SpecialistConfig,
) -> Float32:
    """Return the corrected probability of a target on a ROI.

    Returns:
        (d, h, w) float32 in [0, 1].
    """
    weights = network.fusion_weights
    corrected = zeros(roi.image.shape)
    if weights.correction == 0:  # no need to run the network
        for part in _in_parts(roi):
            pair = (predictions.specialist[part], predictions.sam[part])
            specialist, sam = (log_odds(torch.from_numpy(each)).numpy() for each in pair)
            corrected[part] = _probability(fuse(specialist, sam, weights))
    else:
        for part, (specialist, sam, correction) in _terms_in_parts(
            network, roi, predictions, settings, roi_settings
        ):
            corrected[part] = _probability(fuse(specialist, sam, weights, correction))
    return corrected


def _probability(odds: Float32) -> Float32:
    found = np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float32)
    return require_finite(found, "The adaptation network")


def _in_parts(roi: Roi) -> Iterator[slice]:
    """Yield the slices of a ROI, a few at a time."""
    for first in range(0, len(roi.image), SLICES_AT_ONCE):
        yield slice(first, min(first + SLICES_AT_ONCE, len(roi.image)))


@torch.no_grad()
def refine_slice(
    network: AdaptationNetwork,
    image: Float32,
    predictions: Float32,
    settings: AdaptationConfig,
    roi_settings: SpecialistConfig,
) -> Float32:
    """Return the corrected probability of one slice of a ROI, as `refine_roi` gives it.

    Args:
        network: Of the target.
        image: (C, h, w), from `slice_channels`.
        predictions: (2, n, h, w) specialist and SAM on the slice and its neighbours.
        settings: Of the network.
        roi_settings: Of the ROI.

    Returns:
        (h, w) float32 in [0, 1].
    """
    device = next(network.parameters()).device
    stride = 2 ** (len(settings.channels) - 1)
    network.eval()
    weights = network.fusion_weights
    if weights.correction == 0:
        odds = log_odds(torch.from_numpy(predictions[:, predictions.shape[1] // 2]))
        return np.asarray(fuse(odds[0], odds[1], weights).sigmoid().numpy())
    inputs = (
        torch.from_numpy(image)[None].to(device),
        torch.from_numpy(predictions)[None].to(device),
    )
    parts = _terms(network, *inputs, stride, mirror=roi_settings.mirror)
    specialist, sam, correction = parts[:, 0]
    odds = fuse(specialist, sam, weights, correction)
    found = np.asarray(odds.sigmoid().cpu().numpy(), dtype=np.float32)
    return require_finite(found, "The adaptation network")


def roi_terms(
    network: AdaptationNetwork,
    roi: Roi,
    predictions: ProbabilityPair,
    settings: AdaptationConfig,
    roi_settings: SpecialistConfig,
) -> tuple[Float32, Float32, Float32]:
    """Return the log-odds of specialist and SAM, and the correction.

    Returns:
        Three (d, h, w) float32 arrays.
    """
    parts = _terms_in_parts(network, roi, predictions, settings, roi_settings)
    specialist, sam, correction = np.concatenate([terms for _, terms in parts], axis=1)
    return specialist, sam, correction


def _terms_in_parts(
    network: AdaptationNetwork,
    roi: Roi,
    predictions: ProbabilityPair,
    settings: AdaptationConfig,
    roi_settings: SpecialistConfig,
) -> Iterator[tuple[slice, Float32]]:
    """Yield the terms of `roi_terms` for a few slices at a time, (3, n, h, w)."""
    device = next(network.parameters()).device
    stride = 2 ** (len(settings.channels) - 1)
    reach = settings.context_slices
    network.eval()
    for part in _in_parts(roi):
        ks = range(part.start, part.stop)
        image = np.stack([slice_channels(roi, k, roi_settings) for k in ks])
        probabilities = np.stack(
            [prediction_channels(predictions, k, reach, roi.neighbour) for k in ks]
        )
        inputs = torch.from_numpy(image).to(device), torch.from_numpy(probabilities).to(device)
        with torch.no_grad():
            terms = _terms(network, *inputs, stride, mirror=roi_settings.mirror)
        yield part, terms.cpu().numpy()


def _terms(
    network: AdaptationNetwork, image: Tensor, predictions: Tensor, stride: int, *, mirror: bool
) -> Tensor:
    """Return the three terms, (3, B, h, w)."""

    def terms(image: Tensor, predictions: Tensor) -> Tensor:
        return torch.stack(network.terms(image, predictions)).float()

    return predict_mirrored(terms, [image, predictions], stride, ((), (-1,)) if mirror else ((),))


@dataclass(frozen=True, slots=True, eq=False)
class Refiner:
    """The adaptation networks.

    Attributes:
        networks: By target name.
        targets: All targets.
        config: The run's settings.
    """

    networks: Mapping[str, AdaptationNetwork]
    targets: tuple[Target, ...]
    config: RunConfig

    def refine(
        self, volume: Volume, specialist: Probabilities, sam: Probabilities | None
    ) -> Probabilities:
        """Return the refined probability of each target's region, (D, H, W).

        Parents come first: contents are refined inside the refined parent.

        Args:
            volume: The image.
            specialist: Its probability of each target's region.
            sam: SAM's; targets without a prompt are missing. None when there is no SAM: the
                specialist's then stand for them.
        """
        second = specialist if sam is None else _all_of(sam, specialist)
        refined: Probabilities = {}
        for stage in cascade_stages(self.targets):
            refined.update(self._stage(volume, stage, (specialist, second), refined))
        return refined

    def _stage(
        self,
        volume: Volume,
        stage: CascadeStage,
        probabilities: tuple[Probabilities, Probabilities],
        refined: Probabilities,
    ) -> Probabilities:
        if is_given(stage, volume.given):
            return with_given({}, stage, volume)
        parent = stage_parent(volume, stage, refined)
        if parent is not None and not parent.any():
            return {t.name: zeros(volume.geometry.shape) for t in stage.targets}
        settings = adaptation_roi_settings(stage, self.config)
        roi = build_roi(volume, stage, settings, parent=parent)
        corrected = []
        for target in stage.targets:
            specialist, sam = (of_all[target.name] for of_all in probabilities)
            predictions = ProbabilityPair(RoiSlices(specialist, roi), RoiSlices(sam, roi))
            network = self.networks[target.name]
            corrected.append(
                refine_roi(network, roi, predictions, self.config.adaptation, settings)
            )
        found = on_volume(corrected, stage, roi, parent, volume)
        return with_given(found, stage, volume)


class UseSpecialist:
    """The rule of methods that segment without SAM."""

    def refine(
        self, volume: Volume, specialist: Probabilities, sam: Probabilities | None
    ) -> Probabilities:
        """Return the specialist's probabilities, the same object."""
        return specialist


class UseSam:
    """The rule of methods whose prediction is SAM's."""

    def refine(
        self, volume: Volume, specialist: Probabilities, sam: Probabilities | None
    ) -> Probabilities:
        """Return SAM's probabilities; zero for targets without a prompt."""
        return _all_of(sam or {}, specialist)


def _all_of(sam: Probabilities, specialist: Probabilities) -> Probabilities:
    """Return SAM's probability of every target of the specialist, zero where it has no prompt."""
    return {
        name: sam[name] if name in sam else zeros(values.shape)
        for name, values in specialist.items()
    }


Planes = dict[str, Float32]
"""By target name, (H, W) probability of one slice."""


Stack = Callable[[str, Sequence[int]], Float32]
"""From a target's name and slice numbers to (n, H, W) probability."""


class SliceRefiner:
    """The adaptation networks on single slices of one volume.

    Args:
        refiner: The networks.
        volume: The image.
        parents: Masks (D, H, W) of the targets that others lie in, of their probabilities of the
            whole volume.
    """

    def __init__(self, refiner: Refiner, volume: Volume, parents: Mapping[str, Mask]) -> None:
        self._refiner = refiner
        self._volume = volume
        self._rois: dict[str, Roi] = {}
        self._parents = parents
        for stage in cascade_stages(refiner.targets):
            self._prepare(stage)

    def refine(self, k: int, specialist: Stack, sam: Stack) -> Planes:
        """Return the refined probabilities of slice `k`.

        Args:
            k: Number of the slice.
            specialist: Gives the specialist's probabilities.
            sam: Gives SAM's; without SAM, the specialist's again.
        """
        refined: Planes = {}
        given = {name: mask[k] for name, mask in self._volume.given.items()}
        for stage in cascade_stages(self._refiner.targets):
            reach = None
            if stage.inside is not None:
                parent = self._parent(stage.inside.name, k, refined)
                reach = within_reach(parent[None], self._volume)
            for target in stage.targets:
                if target.name in given:
                    refined[target.name] = given[target.name].astype(np.float32)
                    continue
                plane = self._plane(stage, target, k, (specialist, sam))
                refined[target.name] = plane if reach is None else plane * reach[0]
        return refined

    def _parent(self, name: str, k: int, refined: Planes) -> Mask:
        """Return the mask (H, W) of a parent on a slice: given, else what touches it around."""
        before = self._parents[name]
        if name in self._volume.given:
            given: Mask = before[k]
            return given
        beside = dilated_in_plane(before, k)
        return parts_touching(refined[name] > 0.5, beside, is_first=not before.any())

    def _prepare(self, stage: CascadeStage) -> None:
        parent = None
        if stage.inside is not None:
            parent = self._parents[stage.inside.name]
            if not parent.any():
                return
        if is_given(stage, self._volume.given):
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
