"""Training samples of the adaptation network: labelled cases with synthetic pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aslseg.config import AdaptationConfig, RunConfig, SpecialistConfig
from aslseg.context import LabelledVolume
from aslseg.data.masks import clean_parent
from aslseg.data.volume import Float32, Mask
from aslseg.distributed import WHOLE, WorkPart
from aslseg.networks.adaptation import (
    HIDDEN_IMAGE_SHARE,
    ProbabilityPair,
    adaptation_roi_settings,
    prediction_channels,
    probabilities_on_roi,
)
from aslseg.preprocessing.augmentation import (
    CPU,
    PatchTransform,
    cut_patches,
    sample_patch_transform,
)
from aslseg.preprocessing.roi import (
    IGNORED,
    Roi,
    build_roi,
    image_channels,
    load_roi,
    save_roi,
    slice_channels,
)
from aslseg.storage import storage_errors
from aslseg.targets import Target, cascade_stages, is_given, region_mask


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSample:
    """One training volume of the adaptation network, for one target.

    Attributes:
        roi: Image and labels.
        predictions: Of a synthetic pseudo-label, and of SAM when prompted by it.
        number: The target's class number in the labels of the ROI.
    """

    roi: Roi
    predictions: ProbabilityPair
    number: int

    @property
    def truth(self) -> Mask:
        """(d, h, w) the target in the human label map."""
        truth: Mask = np.asarray(self.roi.labels) == self.number
        return truth

    @property
    def complete(self) -> Mask:
        """(d,) in which slices the label is known."""
        complete: Mask = (np.asarray(self.roi.labels) != IGNORED).any(axis=(1, 2))
        return complete

    def opened(self) -> TrainingSample:
        """Return the sample itself, as `StoredSample.opened` returns one that is on disk."""
        return self

    def stored(self, folder: Path) -> StoredSample:
        """Write the sample to a folder of its own.

        Raises:
            StorageError: When the disk is full or the folder cannot be written.
        """
        save_roi(self.roi, folder)
        with storage_errors(folder):
            for name in _PREDICTIONS:
                np.save(folder / f"{name}.npy", np.asarray(getattr(self.predictions, name)))
        return StoredSample(folder, self.number)


_PREDICTIONS = ("specialist", "sam")


@dataclass(frozen=True, slots=True, eq=False)
class StoredSample:
    """A training sample on disk: it takes no memory, and none of its files stays open.

    Attributes:
        folder: Of its arrays.
        number: As of `TrainingSample`.
    """

    folder: Path
    number: int

    def opened(self) -> TrainingSample:
        """Open the sample; its arrays are mapped into memory."""
        arrays = [np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in _PREDICTIONS]
        return TrainingSample(load_roi(self.folder), ProbabilityPair(*arrays), self.number)


Sample = TrainingSample | StoredSample
"""A training sample in memory or on disk."""


OPEN_SAMPLES = 64
"""Of a sampler: a process may have no more than some hundred files open."""


class AdaptationSampler:
    """Samples training patches, half of them centred on an error or on the target.

    Args:
        samples: Volumes, equally likely.
        settings: Of the adaptation network.
        roi_settings: Of the stage that the samples belong to.
        seed: Of the run.
        device: Where patches are wanted.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        settings: AdaptationConfig,
        roi_settings: SpecialistConfig,
        seed: int,
        device: torch.device = CPU,
    ) -> None:
        if not samples:
            msg = "The adaptation network needs at least one training sample."
            raise ValueError(msg)
        self._opened = lru_cache(OPEN_SAMPLES)(lambda number: samples[number].opened())
        self._count = len(samples)
        self._settings = settings
        self._roi_settings = roi_settings
        self._seed = seed
        self._device = device
        self._error_voxels = [_error_spots(sample.opened()) for sample in samples]

    def batch(self, step: int, part: WorkPart = WHOLE) -> tuple[Tensor, Tensor, Tensor]:
        """Return image (B, C, h, w), predictions (B, 2, n, h, w) and truth (B, h, w) of a step.

        Args:
            step: Its number.
            part: Which of its patches are cut.
        """
        rng = np.random.default_rng([self._seed, 7, step])
        drawn = [self._sample(rng) for _ in range(self._settings.batch_size)]
        return self._cut(part.share(drawn))

    def _sample(self, rng: np.random.Generator) -> _Place:
        number = int(rng.integers(self._count))
        sample, voxels = self._opened(number), self._error_voxels[number]
        if len(voxels) and rng.random() < 0.5:
            k, y, x = voxels[rng.integers(len(voxels))]
        else:
            k, y, x = rng.integers(sample.roi.image.shape)
            complete = np.flatnonzero(sample.complete)
            k = k if k in complete else rng.choice(complete)
        transform = sample_patch_transform((float(y), float(x)), self._settings.patch_size, rng)
        is_hidden = bool(rng.random() < HIDDEN_IMAGE_SHARE)
        is_mirrored = bool(self._roi_settings.mirror and rng.random() < 0.5)
        return _Place(number, int(k), transform, is_hidden, is_mirrored)

    def _cut(self, places: Sequence[_Place]) -> tuple[Tensor, Tensor, Tensor]:
        edge, settings = self._settings.patch_size, self._roi_settings
        samples = [self._opened(place.sample) for place in places]
        images, predictions, truths = [], [], []
        for sample, place in zip(samples, places, strict=True):
            images.append(slice_channels(sample.roi, place.slice_index, settings))
            predictions.append(self._predictions(sample, place.slice_index))
            truths.append(np.asarray(sample.roi.labels)[place.slice_index][None] == sample.number)
        transforms = [place.transform for place in places]
        mirrored = [(-1,) if place.is_mirrored else () for place in places]
        image, prediction = (
            cut_patches(sources, transforms, edge, mirrored=mirrored, device=self._device)
            for sources in (images, predictions)
        )
        truth = cut_patches(
            truths, transforms, edge, mirrored=mirrored, nearest=True, device=self._device
        )
        hidden = [n for n, place in enumerate(places) if place.is_hidden]
        image[hidden, : image_channels(settings)] = 0.0
        shape = (len(places), 2, -1, edge, edge)
        return image, prediction.reshape(shape), truth[:, 0].round().long()

    def _predictions(self, sample: TrainingSample, k: int) -> Float32:
        """Return the predictions of a slice and its neighbours, (2 n, h, w)."""
        reach = self._settings.context_slices
        found = prediction_channels(sample.predictions, k, reach, sample.roi.neighbour)
        return found.reshape(-1, *found.shape[2:])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a training patch is cut, and what is done to it: hidden is its image."""

    sample: int
    slice_index: int
    transform: PatchTransform
    is_hidden: bool
    is_mirrored: bool


def _error_spots(sample: TrainingSample) -> NDArray[np.int16]:
    """Return (n, 3) voxels of the target or of an error: of many some, for they stay in memory."""
    truth = sample.truth
    specialist = np.asarray(sample.predictions.specialist) > 0.5
    sam = np.asarray(sample.predictions.sam) > 0.5
    known = sample.complete[:, None, None]
    voxels = np.argwhere(((truth != specialist) | (truth != sam) | truth) & known)
    if len(voxels) > 20_000:
        voxels = voxels[:: len(voxels) // 20_000 + 1]
    return voxels.astype(np.int16)


def training_samples_of(
    labelled: LabelledVolume,
    targets: tuple[Target, ...],
    config: RunConfig,
    probabilities: Mapping[str, Float32],
    sam: Mapping[str, Float32],
) -> dict[str, TrainingSample]:
    """Make the adaptation network's training samples of one case.

    Args:
        labelled: The case.
        targets: All targets.
        config: The run's settings.
        probabilities: Specialist's probability by target: a synthetic pseudo-label, or a real one.
        sam: SAM's probability by target, for prompts made from it.

    Returns:
        By target name; missing are targets that are unknown, given, or in an unknown or
        empty parent.
    """
    samples: dict[str, TrainingSample] = {}
    for stage in cascade_stages(targets):
        around = set() if stage.inside is None else {stage.inside.name}
        if is_given(stage, labelled.volume.given) or around & labelled.unknown:
            continue
        parent = None
        if stage.inside is not None:
            parent = _parent(labelled, stage.inside, targets, (probabilities, sam))
        if parent is not None and not parent.any():
            continue
        roi = build_roi(
            labelled.volume,
            stage,
            adaptation_roi_settings(stage, config),
            parent=parent,
            labels=labelled.labels,
            ignored=labelled.incomplete,
            targets=targets,
        )
        if (np.asarray(roi.labels) == IGNORED).all():
            continue
        for number, target in enumerate(stage.targets, start=1):
            if target.name in labelled.unknown:
                continue
            predictions = probabilities_on_roi(roi, probabilities[target.name], sam[target.name])
            samples[target.name] = TrainingSample(roi, predictions, number)
    return samples


def _parent(
    labelled: LabelledVolume,
    target: Target,
    targets: Sequence[Target],
    predictions: tuple[Mapping[str, Float32], Mapping[str, Float32]],
) -> Mask:
    """Return the given mask of the parent target; else its mean prediction; else its true mask."""
    if target.name in labelled.volume.given:
        return labelled.volume.given[target.name]
    found = clean_parent(predictions[0][target.name] + predictions[1][target.name] > 1.0)
    return found if found.any() else region_mask(labelled.labels.labels, target, targets)
