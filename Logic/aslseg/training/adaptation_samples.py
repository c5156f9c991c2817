"""What SAM and the adaptation network learn from: labelled cases with synthetic pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aslseg.config import AdaptationConfig, RunConfig, SpecialistConfig
from aslseg.data.masks import clean_container
from aslseg.data.volume import Float32, Mask, Volume
from aslseg.events import Monitor
from aslseg.networks.adaptation import (
    BLIND_SHARE,
    Voices,
    adaptation_view_settings,
    voice_channels,
    voices_on,
)
from aslseg.preprocessing.augmentation import cut_patch, draw_placement
from aslseg.preprocessing.patches import image_channels, slice_channels
from aslseg.preprocessing.roi import View, build_view
from aslseg.prompts import propose
from aslseg.sam.predictor import Generalist
from aslseg.targets import Target, region_mask, stages_of
from aslseg.training.context import LabelledVolume


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """One training volume of the adaptation network.

    Attributes:
        view: Image and labels.
        voices: Of a synthetic pseudo-label, and of SAM when prompted by it.
        number: The target's class number in the view's labels.
    """

    view: View
    voices: Voices
    number: int

    @property
    def truth(self) -> Mask:
        """(d, h, w) the target, as a person labelled it."""
        truth: Mask = np.asarray(self.view.labels) == self.number
        return truth


class LessonSource:
    """Draws training patches, half of them where the pseudo-label is wrong.

    Args:
        lessons: Volumes to draw from, equally likely.
        settings: Of the adaptation network.
        view_settings: Of the stage that the views belong to.
        seed: Of the run.
    """

    def __init__(
        self,
        lessons: list[Lesson],
        settings: AdaptationConfig,
        view_settings: SpecialistConfig,
        seed: int,
    ) -> None:
        if not lessons:
            msg = "The adaptation network needs at least one lesson."
            raise ValueError(msg)
        self._lessons = lessons
        self._settings = settings
        self._view_settings = view_settings
        self._seed = seed
        self._spots = [_error_spots(lesson) for lesson in lessons]

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return image (B, C, h, w), voices (B, 2, n, h, w) and truth (B, h, w) of a step."""
        rng = np.random.default_rng([self._seed, 7, step])
        drawn = [self._draw(rng) for _ in range(self._settings.batch_size)]
        image, voices, truth = zip(*drawn, strict=True)
        return torch.stack(image), torch.stack(voices), torch.stack(truth)

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        number = int(rng.integers(len(self._lessons)))
        lesson, spots = self._lessons[number], self._spots[number]
        if len(spots) and rng.random() < 0.5:
            k, y, x = spots[rng.integers(len(spots))]
        else:
            k, y, x = rng.integers(lesson.view.image.shape)
        edge = self._settings.patch_size
        place = draw_placement((float(y), float(x)), rng)
        reach = self._settings.voices
        image = cut_patch(slice_channels(lesson.view, int(k), self._view_settings), place, edge)
        if rng.random() < BLIND_SHARE:
            image[: image_channels(self._view_settings)] = 0.0
        voices = voice_channels(lesson.voices, int(k), reach, lesson.view.neighbour)
        cut = cut_patch(voices.reshape(-1, *voices.shape[2:]), place, edge)
        labels = np.asarray(lesson.view.labels)[int(k)][None] == lesson.number
        truth = cut_patch(labels, place, edge, nearest=True)[0]
        drawn = image, cut.reshape(2, -1, edge, edge), truth.round().long()
        if self._view_settings.mirror and rng.random() < 0.5:
            return drawn[0].flip(-1), drawn[1].flip(-1), drawn[2].flip(-1)
        return drawn


def _error_spots(lesson: Lesson) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    truth = lesson.truth
    said = np.asarray(lesson.voices.specialist) > 0.5
    sam = np.asarray(lesson.voices.sam) > 0.5
    spots = np.argwhere((truth != said) | (truth != sam) | truth)
    if len(spots) > 20_000:
        spots = spots[:: len(spots) // 20_000 + 1]
    return spots.astype(np.int64)


def lessons_of(
    labelled: LabelledVolume,
    targets: tuple[Target, ...],
    config: RunConfig,
    said: Mapping[str, Float32],
    sam: Mapping[str, Float32],
) -> dict[str, Lesson]:
    """Make the adaptation network's lessons of one case from what the voices said about it.

    Args:
        labelled: The case.
        targets: All targets.
        config: The run's settings.
        said: Specialist's probability by target: a synthetic pseudo-label, or a real one.
        sam: SAM's answers to its prompts.

    Returns:
        By target; contents of a container that the case does not show are missing.
    """
    lessons: dict[str, Lesson] = {}
    for stage in stages_of(targets):
        organ = None
        if stage.inside is not None:
            organ = _container(labelled, stage.inside, targets, (said, sam))
        if organ is not None and not organ.any():
            continue
        view = build_view(
            labelled.volume,
            stage,
            adaptation_view_settings(stage, config),
            organ=organ,
            labels=labelled.labels,
            targets=targets,
        )
        for number, target in enumerate(stage.targets, start=1):
            voices = voices_on(view, said[target.name], sam[target.name])
            lessons[target.name] = Lesson(view, voices, number)
    return lessons


def answers(
    generalist: Generalist,
    volume: Volume,
    said: Mapping[str, Float32],
    targets: Sequence[Target],
    monitor: Monitor,
) -> dict[str, Float32]:
    """Ask SAM with the prompts of each target's probability; silence where there are none."""
    silent = np.zeros(volume.geometry.shape, np.float32)
    prompts = propose(said, targets, generalist.settings)
    answered = generalist.ask(volume, prompts, monitor)
    return {name: answered.get(name, silent) for name in said}


def _container(
    labelled: LabelledVolume,
    target: Target,
    targets: Sequence[Target],
    voices: tuple[Mapping[str, Float32], Mapping[str, Float32]],
) -> Mask:
    """Return the container that the voices found, for contents are sought in such a one.

    Where they found none it is the true one.
    """
    found = clean_container(voices[0][target.name] + voices[1][target.name] > 1.0)
    return found if found.any() else region_mask(labelled.labels.labels, target, targets)
