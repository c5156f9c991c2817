"""What SAM and the adaptation network learn from: labelled cases with synthetic pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aslseg.config import AdaptationConfig, RunConfig, SpecialistConfig
from aslseg.context import LabelledVolume
from aslseg.data.masks import clean_parent
from aslseg.data.volume import Float32, Mask, Volume
from aslseg.events import Monitor
from aslseg.networks.adaptation import (
    NO_PREDICTION_SHARE,
    ProbabilityPair,
    adaptation_roi_settings,
    prediction_channels,
    probabilities_on_roi,
)
from aslseg.preprocessing.augmentation import cut_patch, sample_patch_transform
from aslseg.preprocessing.patches import image_channels, slice_channels
from aslseg.preprocessing.roi import Roi, build_roi
from aslseg.prompts import propose_prompts
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.targets import Target, cascade_stages, region_mask


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSample:
    """One training volume of the adaptation network.

    Attributes:
        roi: Image and labels.
        predictions: Of a synthetic pseudo-label, and of SAM when prompted by it.
        number: The target's class number in the view's labels.
    """

    roi: Roi
    predictions: ProbabilityPair
    number: int

    @property
    def truth(self) -> Mask:
        """(d, h, w) the target, as a person labelled it."""
        truth: Mask = np.asarray(self.roi.labels) == self.number
        return truth


class AdaptationSampler:
    """Draws training patches, half of them where the pseudo-label is wrong.

    Args:
        samples: Volumes to draw from, equally likely.
        settings: Of the adaptation network.
        view_settings: Of the stage that the views belong to.
        seed: Of the run.
    """

    def __init__(
        self,
        samples: list[TrainingSample],
        settings: AdaptationConfig,
        view_settings: SpecialistConfig,
        seed: int,
    ) -> None:
        if not samples:
            msg = "The adaptation network needs at least one lesson."
            raise ValueError(msg)
        self._lessons = samples
        self._settings = settings
        self._view_settings = view_settings
        self._seed = seed
        self._spots = [_error_spots(sample) for sample in samples]

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return image (B, C, h, w), voices (B, 2, n, h, w) and truth (B, h, w) of a step."""
        rng = np.random.default_rng([self._seed, 7, step])
        drawn = [self._draw(rng) for _ in range(self._settings.batch_size)]
        image, predictions, truth = zip(*drawn, strict=True)
        return torch.stack(image), torch.stack(predictions), torch.stack(truth)

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        number = int(rng.integers(len(self._lessons)))
        sample, spots = self._lessons[number], self._spots[number]
        if len(spots) and rng.random() < 0.5:
            k, y, x = spots[rng.integers(len(spots))]
        else:
            k, y, x = rng.integers(sample.roi.image.shape)
        edge = self._settings.patch_size
        place = sample_patch_transform((float(y), float(x)), rng)
        reach = self._settings.predictions
        image = cut_patch(slice_channels(sample.roi, int(k), self._view_settings), place, edge)
        if rng.random() < NO_PREDICTION_SHARE:
            image[: image_channels(self._view_settings)] = 0.0
        predictions = prediction_channels(sample.predictions, int(k), reach, sample.roi.neighbour)
        cut = cut_patch(predictions.reshape(-1, *predictions.shape[2:]), place, edge)
        labels = np.asarray(sample.roi.labels)[int(k)][None] == sample.number
        truth = cut_patch(labels, place, edge, nearest=True)[0]
        drawn = image, cut.reshape(2, -1, edge, edge), truth.round().long()
        if self._view_settings.mirror and rng.random() < 0.5:
            return drawn[0].flip(-1), drawn[1].flip(-1), drawn[2].flip(-1)
        return drawn


def _error_spots(sample: TrainingSample) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    truth = sample.truth
    probabilities = np.asarray(sample.predictions.specialist) > 0.5
    sam = np.asarray(sample.predictions.sam) > 0.5
    spots = np.argwhere((truth != probabilities) | (truth != sam) | truth)
    if len(spots) > 20_000:
        spots = spots[:: len(spots) // 20_000 + 1]
    return spots.astype(np.int64)


def training_samples_of(
    labelled: LabelledVolume,
    targets: tuple[Target, ...],
    config: RunConfig,
    probabilities: Mapping[str, Float32],
    sam: Mapping[str, Float32],
) -> dict[str, TrainingSample]:
    """Make the adaptation network's lessons of one case from what the voices said about it.

    Args:
        labelled: The case.
        targets: All targets.
        config: The run's settings.
        probabilities: Specialist's probability by target: a synthetic pseudo-label, or a real one.
        sam: SAM's answers to its prompts.

    Returns:
        By target; contents of a container that the case does not show are missing.
    """
    samples: dict[str, TrainingSample] = {}
    for stage in cascade_stages(targets):
        organ = None
        if stage.inside is not None:
            organ = _parent(labelled, stage.inside, targets, (probabilities, sam))
        if organ is not None and not organ.any():
            continue
        roi = build_roi(
            labelled.volume,
            stage,
            adaptation_roi_settings(stage, config),
            organ=organ,
            labels=labelled.labels,
            targets=targets,
        )
        for number, target in enumerate(stage.targets, start=1):
            predictions = probabilities_on_roi(roi, probabilities[target.name], sam[target.name])
            samples[target.name] = TrainingSample(roi, predictions, number)
    return samples


def sam_probabilities_of(
    sam_predictor: VolumeSamPredictor,
    volume: Volume,
    probabilities: Mapping[str, Float32],
    targets: Sequence[Target],
    monitor: Monitor,
) -> dict[str, Float32]:
    """Ask SAM with the prompts of each target's probability; silence where there are none."""
    is_empty = np.zeros(volume.geometry.shape, np.float32)
    prompts = propose_prompts(probabilities, targets, sam_predictor.settings)
    sam_probabilities = sam_predictor.predict(volume, prompts, monitor)
    return {name: sam_probabilities.get(name, is_empty) for name in probabilities}


def _parent(
    labelled: LabelledVolume,
    target: Target,
    targets: Sequence[Target],
    predictions: tuple[Mapping[str, Float32], Mapping[str, Float32]],
) -> Mask:
    """Return the container that the voices found, for contents are sought in such a one.

    Where they found none it is the true one.
    """
    found = clean_parent(predictions[0][target.name] + predictions[1][target.name] > 1.0)
    return found if found.any() else region_mask(labelled.labels.labels, target, targets)
