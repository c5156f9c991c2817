"""Training patches: sampled from ROIs, in batches, with their location in the volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aslseg.config import SpecialistConfig
from aslseg.data.masks import label_components
from aslseg.data.volume import Float32
from aslseg.distributed import WHOLE, WorkPart
from aslseg.preprocessing.augmentation import (
    CPU,
    PatchTransform,
    apply_intensity,
    cut_patches,
    located_pixels,
    part_of_change,
    sample_intensity,
    sample_patch_transform,
    sample_target_shifts,
    shift_targets,
)
from aslseg.preprocessing.roi import IGNORED, Roi, image_channels, load_roi, slice_channels
from aslseg.preprocessing.synthetic_lesions import (
    SyntheticLesion,
    draw_lesions,
    healthy_tissue,
    sample_lesions,
)
from aslseg.storage import storage_errors


@dataclass(frozen=True, slots=True)
class PatchLocation:
    """Where a patch was cut.

    Attributes:
        case: Number of the case among those of the batch source.
        transform: Centre, turn and scale in the pixels of the case's ROI.
        slice_index: Of the ROI, for a patch of one slice; None for a block.
        mirrored: Axes (-1 columns, -2 rows) that the patch was mirrored along afterwards.
    """

    case: int
    transform: PatchTransform
    slice_index: int | None = None
    mirrored: tuple[int, ...] = ()


def slices_under(location: PatchLocation, roi: Roi, edge: int) -> list[int | None]:
    """Return the volume's slice that each plane of a patch lies on.

    Returns:
        One number for a patch of one slice, `edge` numbers for a block; None outside of the volume.
    """
    if location.slice_index is None:
        steps = torch.arange(edge, dtype=torch.float32) - (edge - 1) / 2
        planes = steps * location.transform.scale + location.transform.centre[0]
    else:
        planes = torch.tensor([float(location.slice_index)])
    found = [math.floor(float(k) + 0.5) for k in _to_volume(planes, roi, 0)]
    return [k if 0 <= k < roi.volume_shape[0] else None for k in found]


def pixels_under(location: PatchLocation, roi: Roi, edge: int) -> Tensor:
    """Return the point (x, y) of the volume's slice under each pixel of a patch.

    Returns:
        (edge, edge, 2) in pixels of the slice; centres of pixels are at half numbers.
    """
    transform = location.transform
    flat = PatchTransform(transform.centre[-2:], transform.angle, transform.scale)
    rows, columns = (at[0] for at in located_pixels([flat], edge, mirrored=[location.mirrored]))
    return torch.stack([_to_volume(columns, roi, 2), _to_volume(rows, roi, 1)], -1) + 0.5


def _to_volume(index: Tensor, roi: Roi, axis: int) -> Tensor:
    """Map indices along an axis of an ROI to those of its volume (both at voxel centres)."""
    part = roi.box.slices[axis]
    scale = float(part.stop - part.start) / roi.image.shape[axis]
    return torch.add((index + 0.5) * scale, part.start - 0.5)


MIN_LESION_PX = 4
SYNTHETIC_SHARE = 0.6
"""Part of the schedule, from its start, in which lesions are drawn: what they teach to see wrongly
is unlearnt from real ones alone (ours)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Patches for one step.

    Attributes:
        inputs: (B, C, *spatial); the first `image_channels` are intensities.
        classes: (B, *spatial) class numbers, `IGNORED` where the label is in doubt; zeros for
            patches without labels.
        weight: (B,) weight of each patch's label.
        locations: Of each patch.
    """

    inputs: Tensor
    classes: Tensor
    weight: Tensor
    locations: tuple[PatchLocation, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            classes=self.classes.to(device),
            weight=self.weight.to(device),
        )


@dataclass(frozen=True, slots=True)
class TrainingCase:
    """An ROI that patches are cut from.

    Attributes:
        source: The ROI, with labels or without, or the folder that `save_roi` wrote it to: cases
            that lie on disk take next to no memory, and no file of them stays open.
        weight: Of its labels (1 for a human's).
        case_id: The case that it shows.
        pseudo: Whether its labels are pseudo-labels.
        patient: Whose case it is; that of the case alone if nobody is named.
        partial: Whether labels are known in parts of the ROI only: patches are of these.
    """

    source: Roi | Path
    weight: float = 1.0
    case_id: str = ""
    pseudo: bool = False
    patient: str = ""
    partial: bool = False

    @property
    def roi(self) -> Roi:
        """The ROI; one on disk is opened anew each time."""
        return self.source if isinstance(self.source, Roi) else load_roi(self.source)


OPEN_CASES = 64
"""Of a batch source: a process may have no more than some hundred files open."""


class BatchSource:
    """Samples batches: a patient, a case of the patient, and a component of it or any place.

    Turned, scaled and changed in intensity as `augmentation` says. Intensities are changed before
    they are cut off, so that a patch may be saturated that was not, or show what had been cut off.
    Where there are pseudo-labels, so many patches of each batch are of human labels that they are
    `human_share` of it, or their part of the cases if that is more; pseudo-labels share the rest.

    Args:
        cases: Patients are equally likely among those of a kind (human or pseudo), as are cases of
            a patient, ROIs of a case, and components of an ROI however large.
        settings: Patch size, batch size, share of patches centred on a component.
        seed: Of the run.
        stream: Tells apart the sources of one training (labelled, unlabelled).
        human_share: Least part of a batch that has human labels.
        device: Where batches are wanted: patches are cut on the processor, and changed there.
    """

    def __init__(
        self,
        cases: Sequence[TrainingCase],
        settings: SpecialistConfig,
        seed: int,
        stream: int,
        human_share: float = 0.5,
        device: torch.device = CPU,
    ) -> None:
        if not cases:
            msg = "A batch source needs at least one case."
            raise ValueError(msg)
        self._cases = list(cases)
        self._settings = settings
        self._device = device
        self._seed = (seed, stream)
        self._roi = lru_cache(OPEN_CASES)(lambda number: self._cases[number].roi)
        self._components = [_components_of(case) for case in cases]
        self._human = [n for n, case in enumerate(cases) if not case.pseudo]
        self._pseudo = [n for n, case in enumerate(cases) if case.pseudo]
        share = max(human_share, len(self._human) / len(cases)) if self._human else 0.0
        self._human_count = math.ceil(share * settings.batch_size)

    def batch(self, iteration: int, part: WorkPart = WHOLE) -> Batch:
        """Return a batch, or a part of it.

        Args:
            iteration: Its number; the same batch for the same number.
            part: Which of its patches are cut.
        """
        rng = np.random.default_rng([*self._seed, iteration])
        drawn = [self._sample(pool, rng) for pool in self._pools(rng)]
        locations = tuple(part.share(drawn))
        inputs, classes = self._cut(locations)
        inputs = self._with_shifted_targets(inputs, classes, locations, rng, part)
        if iteration < SYNTHETIC_SHARE * self._settings.iterations:
            inputs, classes = self._with_synthetic_lesions(inputs, classes, locations, rng, part)
        weight = torch.tensor([self._cases[location.case].weight for location in locations])
        return Batch(
            self._with_changed_intensities(inputs, locations, rng, part),
            classes,
            weight.to(self._device),
            locations,
        )

    def _with_shifted_targets(
        self,
        inputs: Tensor,
        classes: Tensor,
        locations: Sequence[PatchLocation],
        rng: np.random.Generator,
        part: WorkPart,
    ) -> Tensor:
        """Return patches of which some show brighter or darker targets.

        Pseudo-labels stay: where they are in doubt, which is at borders, so would be the shift's.
        """
        chance, images = self._settings.target_shift_chance, image_channels(self._settings)
        if not chance:
            return inputs
        drawn = sample_target_shifts(self._settings.batch_size, chance, rng)
        drawn = drawn[part.number :: part.of]
        human = torch.tensor([not self._cases[location.case].pseudo for location in locations])
        is_target = (classes > 0) & (classes != IGNORED)
        shifted = shift_targets(inputs[:, :images], is_target, drawn * human)
        return torch.cat([shifted, inputs[:, images:]], 1)

    def _with_synthetic_lesions(
        self,
        inputs: Tensor,
        classes: Tensor,
        locations: Sequence[PatchLocation],
        rng: np.random.Generator,
        part: WorkPart,
    ) -> tuple[Tensor, Tensor]:
        """Return patches with lesions drawn into healthy tissue, and their classes."""
        settings = self._settings
        chance = settings.synthetic_lesion_chance
        if not chance:
            return inputs, classes
        sampled = [sample_lesions(rng, chance) for _ in range(settings.batch_size)]
        inputs, classes = inputs.clone(), classes.clone()
        depths = _plane_depths_px(settings, inputs)
        for n, lesions in enumerate(sampled[part.number :: part.of]):
            roi = self._roi(locations[n].case)
            if lesions and roi.parent is not None and roi.labels is not None:
                _draw_in_patch(inputs[n], classes[n], depths, lesions)
        return inputs, classes

    def _with_changed_intensities(
        self,
        inputs: Tensor,
        locations: Sequence[PatchLocation],
        rng: np.random.Generator,
        part: WorkPart,
    ) -> Tensor:
        """Return patches with changed intensities, which are then cut off at their ROIs' limits."""
        images = image_channels(self._settings)
        changed, strength = inputs[:, :images], self._settings.intensity_strength
        if strength:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            whole = torch.Size((self._settings.batch_size, images, *inputs.shape[2:]))
            change = part_of_change(sample_intensity(whole, generator, strength), part)
            changed = apply_intensity(changed, change)
        limits = torch.tensor([self._roi(location.case).limits for location in locations])
        low, high = limits.view(len(inputs), 2, *[1] * (inputs.ndim - 1)).to(inputs).unbind(1)
        return torch.cat([changed.clamp(low, high), inputs[:, images:]], 1)

    def _pools(self, rng: np.random.Generator) -> list[list[int]]:
        """Return the cases that each patch of a batch may be of."""
        size = self._settings.batch_size
        if not (self._human and self._pseudo):
            return [self._human or self._pseudo] * size
        return [
            self._human if place < self._human_count else self._pseudo
            for place in rng.permutation(size)
        ]

    def _sample(self, pool: Sequence[int], rng: np.random.Generator) -> PatchLocation:
        """Draw where a patch is cut."""
        with_components = [n for n in pool if len(self._components[n])]
        if with_components and rng.random() < self._settings.lesion_share:
            number = self._draw(with_components, rng)
            centre = self._near_component(number, rng)
        else:
            number = self._draw(pool, rng)
            if self._cases[number].partial and len(self._components[number]):
                centre = self._near_component(number, rng)
            else:
                centre = _inside_organ(self._roi(number), self._settings.patch_size, rng)
        place = tuple(float(value) for value in centre)
        k = None
        if self._settings.network.dimensions == 2:
            k, place = int(centre[0]), place[1:]
        transform = sample_patch_transform(place, self._settings.patch_size, rng)
        axes = tuple(axis for axis in (-1, -2) if self._settings.mirror and rng.random() < 0.5)
        return PatchLocation(number, transform, k, axes)

    def _draw(self, numbers: Sequence[int], rng: np.random.Generator) -> int:
        """Draw a patient, then a case of the patient, then an ROI of the case."""
        for name_of in (_patient_of, _case_of):
            names = sorted({name_of(self._cases[n]) for n in numbers})
            drawn = names[int(rng.integers(len(names)))]
            numbers = [n for n in numbers if name_of(self._cases[n]) == drawn]
        return numbers[int(rng.integers(len(numbers)))]

    def _near_component(self, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
        components = self._components[number]
        voxels = components.voxels_of(int(rng.integers(len(components))))
        drawn = voxels[rng.integers(len(voxels))]
        centre = np.array(np.unravel_index(drawn, self._roi(number).image.shape))
        quarter = self._settings.patch_size // 4
        first = 1 if self._settings.network.dimensions == 2 else 0
        centre[first:] += rng.integers(-quarter, quarter + 1, size=3 - first)
        return centre

    def _cut(self, locations: Sequence[PatchLocation]) -> tuple[Tensor, Tensor]:
        """Cut patches and their classes."""
        rois = [self._roi(location.case) for location in locations]
        shown = [_channels(*each, self._settings) for each in zip(rois, locations, strict=True)]
        inputs = self._cut_from(shown, locations)
        classes = torch.zeros(len(inputs), *inputs.shape[2:], dtype=torch.long, device=self._device)
        known = [n for n, roi in enumerate(rois) if roi.labels is not None]
        if known:
            labels = [_labels(rois[n], locations[n]) for n in known]
            cut = self._cut_from(labels, [locations[n] for n in known], nearest=True)
            classes[known] = cut[:, 0].round().long()
        return inputs, classes

    def _cut_from(
        self,
        sources: Sequence[NDArray[np.generic]],
        locations: Sequence[PatchLocation],
        *,
        nearest: bool = False,
    ) -> Tensor:
        return cut_patches(
            sources,
            [location.transform for location in locations],
            self._settings.patch_size,
            mirrored=[location.mirrored for location in locations],
            nearest=nearest,
            device=self._device,
        )


def _plane_depths_px(settings: SpecialistConfig, inputs: Tensor) -> Tensor:
    """Return where the planes of a patch lie: its channels of slices, or the planes of a block."""
    if settings.network.dimensions == 3:
        return torch.arange(inputs.shape[2], dtype=torch.float32, device=inputs.device)
    reach = settings.roi.context_slices
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32, device=inputs.device)
    return steps * (settings.roi.context_mm / settings.roi.pixel_mm)


def _draw_in_patch(
    inputs: Tensor, classes: Tensor, depths_px: Tensor, lesions: Sequence[SyntheticLesion]
) -> None:
    """Draw lesions into a patch in place; of slices, the middle one's tissue stands for all.

    Args:
        inputs: (C, h, w) or (1 + 1, d, h, w), the last channel the parent.
        classes: (h, w) or (d, h, w).
        depths_px: Of the planes.
        lesions: To be drawn.
    """
    images, organ = inputs[:-1], inputs[-1]
    middle, is_block = len(images) // 2, classes.ndim == 3
    planes = images[0] if is_block else images
    tissue = healthy_tissue(images[middle], organ, classes).expand(planes.shape)
    changed, drawn = draw_lesions(planes, depths_px, tissue, lesions)
    planes.copy_(changed)
    classes[drawn if is_block else drawn[middle]] = 1


def _channels(roi: Roi, location: PatchLocation, settings: SpecialistConfig) -> Float32:
    """Return what the inputs of a patch are cut from: (C, h, w), or (C, d, h, w) for a block."""
    if location.slice_index is not None:
        return slice_channels(roi, location.slice_index, settings, within_limits=False)
    return roi.image[None] if roi.parent is None else np.stack([roi.image, roi.parent])


def _labels(roi: Roi, location: PatchLocation) -> NDArray[np.uint8]:
    """Return what the classes of a patch are cut from: (1, h, w), or (1, d, h, w) for a block."""
    labels = np.asarray(roi.labels)
    k = location.slice_index
    return labels[None] if k is None else labels[k][None]


def _case_of(case: TrainingCase) -> str:
    return case.case_id


def _patient_of(case: TrainingCase) -> str:
    return case.patient or case.case_id


@dataclass(frozen=True, slots=True, eq=False)
class _Components:
    """The voxels of the components of an ROI, one component after the other.

    Attributes:
        stops: (n + 1,) where each begins, and where the last one ends.
        voxels: Numbers in the flat array, or the file that holds them.
    """

    stops: NDArray[np.int64]
    voxels: NDArray[np.int32] | Path

    def __len__(self) -> int:
        return len(self.stops) - 1

    def voxels_of(self, number: int) -> NDArray[np.int32]:
        """Return the voxels of a component."""
        voxels = self.voxels
        if isinstance(voxels, Path):
            voxels = np.load(voxels, mmap_mode="r")
        return voxels[self.stops[number] : self.stops[number + 1]]


def _components_of(case: TrainingCase) -> _Components:
    """Find the components of a case; of one on disk, their voxels lie beside it."""
    parts = _component_voxels(case.roi.labels, partial=case.partial)
    stops = np.cumsum([0, *map(len, parts)])
    voxels = np.concatenate([np.zeros(0, np.int32), *parts])
    if isinstance(case.source, Roi):
        return _Components(stops, voxels)
    path = case.source / "components.npy"
    with storage_errors(path):
        np.save(path, voxels)
    return _Components(stops, path)


def _component_voxels(
    labels: NDArray[np.uint8] | None, *, partial: bool
) -> list[NDArray[np.int32]]:
    """Return the voxels of each component, as numbers in the flat array.

    Where labels are known in parts, each part is a component, whatever it shows.
    """
    if labels is None:
        return []
    shown = np.asarray(labels) != IGNORED
    if not partial:
        shown &= np.asarray(labels) > 0
    numbered, _ = label_components(shown, connectivity=3)
    voxels = np.flatnonzero(numbered)
    owners = numbered.ravel()[voxels]
    order = voxels[np.argsort(owners, kind="stable")].astype(np.int32)
    parts = np.split(order, np.cumsum(np.bincount(owners)[1:])[:-1])
    return [part for part in parts if len(part) >= MIN_LESION_PX]


def _inside_organ(roi: Roi, edge: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a place on a random slice: inside the parent if the slice has it, or anywhere."""
    centre = rng.integers(roi.image.shape)
    inside = None if roi.parent is None else np.argwhere(roi.parent[centre[0]] > 0.5)
    if inside is not None and len(inside):
        centre[1:] = inside[rng.integers(len(inside))]
    else:
        centre[1:] = [_mostly_inside(length, edge, rng) for length in roi.image.shape[1:]]
    return centre


def _mostly_inside(length: int, edge: int, rng: np.random.Generator) -> int:
    """Return the centre of a patch of which no more than a quarter reaches beyond an axis."""
    margin = min(edge // 4, (length - 1) // 2)
    return int(rng.integers(margin, length - margin))
