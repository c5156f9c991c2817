"""From two voices to one label: the adaptation networks of all targets, trained and applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aslseg.adaptation import (
    AdaptationNetwork,
    Lesson,
    LessonSource,
    adaptation_loss,
)
from aslseg.adaptation_views import refine_view
from aslseg.augment import apply_intensity, draw_intensity
from aslseg.batches import image_channels
from aslseg.config import RunConfig, Target
from aslseg.events import Monitor
from aslseg.inference import Probabilities, clean_container, within_reach
from aslseg.lessons import adaptation_view_settings, voices_on
from aslseg.stages import Stage, stages_of
from aslseg.training import Schedule, Trainer
from aslseg.views import build_view, to_volume
from aslseg.volume import Volume


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
        self,
        volume: Volume,
        specialist: Probabilities,
        sam: Probabilities,
        *,
        with_sam: bool = True,
    ) -> Probabilities:
        """Return the refined probability of each target's region, (D, H, W).

        Containers come first, so contents are sought inside the refined container.

        Args:
            volume: The image.
            specialist: Its probability of each target's region.
            sam: SAM's; targets that SAM was not asked about are missing.
            with_sam: False when there is no SAM at all: the specialist then speaks for both.
        """
        if with_sam:
            silent = np.zeros(volume.geometry.shape, np.float32)
            second = {t.name: sam.get(t.name, silent) for t in self.targets}
        else:
            second = specialist
        refined: Probabilities = {}
        for stage in stages_of(self.targets):
            refined.update(self._stage(volume, stage, (specialist, second), refined))
        return refined

    def _stage(
        self,
        volume: Volume,
        stage: Stage,
        said: tuple[Probabilities, Probabilities],
        refined: Probabilities,
    ) -> Probabilities:
        organ = None if stage.inside is None else clean_container(refined[stage.inside.name] > 0.5)
        if organ is not None and not organ.any():
            return {t.name: np.zeros(volume.geometry.shape, np.float32) for t in stage.targets}
        settings = adaptation_view_settings(stage, self.config)
        view = build_view(volume, stage, settings, organ=organ)
        result: Probabilities = {}
        for target in stage.targets:
            voices = voices_on(view, said[0][target.name], said[1][target.name])
            corrected = refine_view(
                self.networks[target.name], view, voices, self.config.adaptation, settings
            )
            native = to_volume(corrected[None], view)[0]
            result[target.name] = native if organ is None else native * within_reach(organ, volume)
        return result


class TrustSpecialist:
    """The rule of methods that need no SAM to segment: the specialist has the last word."""

    def refine(
        self,
        volume: Volume,
        specialist: Probabilities,
        sam: Probabilities,
        *,
        with_sam: bool = True,
    ) -> Probabilities:
        """Return what the specialist said, the same object."""
        return specialist


class TrustSam:
    """The rule of methods whose prediction is SAM's: what it was not asked about is absent."""

    def refine(
        self,
        volume: Volume,
        specialist: Probabilities,
        sam: Probabilities,
        *,
        with_sam: bool = True,
    ) -> Probabilities:
        """Return SAM's answer."""
        silent = np.zeros(volume.geometry.shape, np.float32)
        return {name: sam.get(name, silent) for name in specialist}


def build_adaptation(stage: Stage, config: RunConfig) -> AdaptationNetwork:
    """Build the untrained adaptation network of a stage's targets."""
    settings = adaptation_view_settings(stage, config)
    channels = image_channels(settings) + (stage.inside is not None)
    return AdaptationNetwork(channels, config.adaptation)


def train_adaptation(
    name: str,
    stage: Stage,
    lessons: list[Lesson],
    config: RunConfig,
    folder: Path,
    device: torch.device,
    monitor: Monitor,
) -> AdaptationNetwork:
    """Train the adaptation network of a target on the labelled cases' lessons.

    Args:
        name: Of the training, for its events and the file that it is resumed from.
        stage: Of the target.
        lessons: To learn from.
        config: The run's settings.
        folder: Where the state of a training that was stopped is kept.
        device: Where the network lives.
        monitor: Who listens, and may ask to stop.
    """
    torch.manual_seed(config.seed)
    network = build_adaptation(stage, config).to(device)
    settings = config.adaptation
    source = LessonSource(lessons, settings, adaptation_view_settings(stage, config), config.seed)

    images = image_channels(adaptation_view_settings(stage, config))

    def step_loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        image, voices, truth = (part.to(device) for part in source.batch(step))
        change = draw_intensity(image[:, :images].shape, generator, settings.intensity_strength)
        image = torch.cat([apply_intensity(image[:, :images], change), image[:, images:]], 1)
        return {"loss": adaptation_loss(network(image, voices), truth)}

    schedule = Schedule(
        name,
        settings.iterations,
        settings.learning_rate,
        settings.weight_decay,
        seed=config.seed,
    )
    Trainer(network, schedule, device, folder).run(step_loss, monitor)
    return network
