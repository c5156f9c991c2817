"""Read the trained parts of a round from the run's folder; nothing is trained here.

The names of the files of weights are known here alone; `training` writes to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from aslseg.config import SpecialistConfig
from aslseg.context import RunContext
from aslseg.errors import ConfigError
from aslseg.inference.cascade import Specialist
from aslseg.inference.refinement import Refiner
from aslseg.networks.adaptation import AdaptationNetwork, build_adaptation
from aslseg.networks.checkpoints import load_checkpoint, load_weights
from aslseg.networks.unet import build_network
from aslseg.sam.predictor import VolumeSamPredictor, build_sam_predictor
from aslseg.sam.tuning import load_trainable_state
from aslseg.targets import CascadeStage, Target, cascade_stages

SNAPSHOTS = (1 / 3, 2 / 3)
"""Parts of the schedule after which weights are kept to measure agreement (ST++)."""

BuildNetwork = Callable[[CascadeStage, SpecialistConfig], nn.Module]
"""Builds the untrained network of a stage."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedCascade:
    """A trained specialist, and the same at each snapshot of its schedule."""

    specialist: Specialist
    earlier: tuple[Specialist, ...]


def specialist_paths(folder: Path, stage: CascadeStage) -> list[Path]:
    """Return the files of a stage's weights: after each snapshot, and at the end."""
    parts = [f"-{n + 1}of{len(SNAPSHOTS) + 1}" for n in range(len(SNAPSHOTS))]
    return [folder / f"specialist-{stage.name}{part}.safetensors" for part in (*parts, "")]


def adaptation_path(folder: Path, target: Target) -> Path:
    """Return the file of the weights of a target's adaptation network."""
    return folder / f"adaptation-{target.name.replace(' ', '_')}.safetensors"


def sam_path(folder: Path) -> Path:
    """Return the file of the tuned weights of SAM."""
    return folder / "sam.safetensors"


def load_stage(
    context: RunContext, folder: Path, stage: CascadeStage, network: BuildNetwork = build_network
) -> list[nn.Module]:
    """Load a stage's networks, one for each of `specialist_paths`, in evaluation mode.

    Raises:
        WeightsError: When a file is missing, damaged, or of a network of other sizes.
    """
    settings = context.config.stage(stage.inside.name if stage.inside else None)
    paths = specialist_paths(folder, stage)
    networks = [network(stage, settings) for _ in paths]
    for built, path in zip(networks, paths, strict=True):
        load_weights(built, path, "specialist")
    return [built.to(context.device).eval() for built in networks]


def assemble_cascade(
    context: RunContext, stages: Mapping[str, Sequence[nn.Module]]
) -> TrainedCascade:
    """Put the networks of `load_stage` together.

    Args:
        context: Targets, settings, device.
        stages: By stage name.
    """
    *earlier, last = (
        Specialist(
            {name: networks[n] for name, networks in stages.items()},
            context.targets,
            context.config,
            context.device,
        )
        for n in range(len(SNAPSHOTS) + 1)
    )
    return TrainedCascade(last, tuple(earlier))


def load_cascade(
    context: RunContext, folder: Path, network: BuildNetwork = build_network
) -> TrainedCascade:
    """Load the networks of all stages.

    Args:
        context: Targets, settings, device.
        folder: With the files of `specialist_paths`.
        network: Builds the untrained network of each stage.

    Raises:
        WeightsError: As `load_stage`.
    """
    stages = cascade_stages(context.targets)
    return assemble_cascade(
        context, {s.name: load_stage(context, folder, s, network) for s in stages}
    )


def load_adaptation(context: RunContext, stage: CascadeStage, path: Path) -> AdaptationNetwork:
    """Load the adaptation network of a target of a stage, in evaluation mode.

    Raises:
        WeightsError: When the file is missing, damaged, or of a network of other sizes.
    """
    network = build_adaptation(stage, context.config)
    load_weights(network, path, "adaptation")
    return network.to(context.device).eval()


def load_refiner(context: RunContext, folder: Path) -> Refiner:
    """Load the adaptation networks of all targets.

    Raises:
        WeightsError: As `load_adaptation`.
    """
    networks = {
        target.name: load_adaptation(context, stage, adaptation_path(folder, target))
        for stage in cascade_stages(context.targets)
        for target in stage.targets
    }
    return Refiner(networks, context.targets, context.config)


def released_sam_predictor(context: RunContext, **changes: Any) -> VolumeSamPredictor | None:
    """Build SAM with released weights, ready for tuning; None when the settings have no SAM.

    Args:
        context: Settings, cache, device, monitor.
        changes: Settings of `sam` that take the place of the run's.

    Raises:
        WeightsError: When its weights cannot be had.
    """
    settings = context.config.sam.model_copy(update=changes)
    config = context.config.model_copy(update={"sam": settings})
    return build_sam_predictor(
        config, context.cache / "embeddings", context.device, context.monitor
    )


def required_sam_predictor(context: RunContext, **changes: Any) -> VolumeSamPredictor:
    """Build SAM as `released_sam_predictor` does, for a method that cannot do without.

    Raises:
        ConfigError: When the settings have no SAM.
        WeightsError: When its weights cannot be had.
    """
    sam_predictor = released_sam_predictor(context, **changes)
    if sam_predictor is None:
        msg = (
            f"The method {context.config.method} needs SAM; set sam.model to vit_t or a larger one."
        )
        raise ConfigError(msg)
    return sam_predictor


def load_sam_predictor(context: RunContext, folder: Path) -> VolumeSamPredictor | None:
    """Load SAM as it was tuned, or as released if it is not tuned; None if there is no SAM.

    Raises:
        WeightsError: When a file is missing or damaged.
    """
    sam_predictor = released_sam_predictor(context)
    if sam_predictor is not None and context.config.sam.tuning != "none":
        load_tuned_weights(sam_predictor, folder)
    return sam_predictor


def load_tuned_weights(sam_predictor: VolumeSamPredictor, folder: Path) -> None:
    """Load what was tuned of SAM into a predictor that is ready for tuning.

    Raises:
        WeightsError: When the file is missing or damaged.
    """
    load_trainable_state(sam_predictor.sam, load_checkpoint(sam_path(folder), "sam").tensors)
    sam_predictor.encoder_changed()
