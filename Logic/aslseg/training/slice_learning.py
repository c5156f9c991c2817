"""A network learns organs from the slices of one volume that a person drew.

Dense segmentation from sparse annotation (Cicek et al., MICCAI 2016). The network is that of a run,
which goes on learning, as in image-specific fine-tuning (Wang et al., IEEE TMI 2018); or a new one,
where nothing was trained yet: what its pixels and its window are is taken from the drawn slices.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
from torch import Tensor

from aslseg.config import NetworkConfig, RoiConfig, RunConfig, SpecialistConfig
from aslseg.data.volume import Labelmap, Spacing3, Volume
from aslseg.distributed import WorkPart
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.cascade import Specialist
from aslseg.networks.averaged import network_of
from aslseg.preprocessing.patches import BatchSource, TrainingCase
from aslseg.preprocessing.roi import build_roi
from aslseg.training.cascade import default_ssl_method
from aslseg.training.drawn_slices import DrawnSlices
from aslseg.training.ssl import SSLMethod
from aslseg.training.trainer import Schedule, Trainer

STEPS: Final = 150
"""Of a network that a run has trained."""
RATE: Final = 0.5
"""Factor on the learning rate that it was trained with."""
FINER: Final = 5 / 6
"""Factor on the pixels that it was trained with."""
WIDER: Final = 4 / 3
PATCH_STEP_PX: Final = 32
"""Patches of a new network are so many times wider than organs are; such a multiple of pixels."""
NEW_STEPS: Final = 300
"""Of a new network."""
ACROSS_PX: Final = 96
"""A new network sees organs so many pixels wide, or as the volume has them."""
LEAST_PATCH_PX: Final = 32
AROUND_MM: Final = 20.0
PERCENTILES: Final = (2.0, 98.0)
"""The window of a new network holds these of the drawn slices, organs with so much around them."""
NEW_NETWORK: Final = SpecialistConfig(
    batch_size=8,
    learning_rate=2e-3,
    intensity_strength=1.5,
    network=NetworkConfig(channels=(16, 32, 64, 96, 128)),
)
TASK: Final = "Learning the drawn slices"


def tuned(
    specialist: Specialist, drawn: DrawnSlices, image: Volume, steps: int, monitor: Monitor
) -> Specialist:
    """Return a specialist of the organs alone: the network of a run after it learnt drawn slices.

    Args:
        specialist: Of the run; it is not changed.
        drawn: What it learns.
        image: On the axial grid.
        steps: Of the optimiser.
        monitor: Told of the progress; asked whether to stop.

    Raises:
        ConfigError: When the run has no network for the organs.
        CancelledError: When asked to stop.
    """
    stage = drawn.stage
    if stage.name not in specialist.networks:
        msg = f"The run has no network for {drawn.names}; fill by shape alone, or train a run."
        raise ConfigError(msg)
    trained = specialist.config.stage(stage.parent_name)
    settings = tuning_settings(trained, image.geometry.spacing_mm, steps)
    config = specialist.config.model_copy(update={"organ": settings})
    return _trained(replace(specialist, config=config), drawn, image, monitor)


def newly_trained(
    drawn: DrawnSlices, image: Volume, device: torch.device, steps: int, monitor: Monitor
) -> Specialist:
    """Return a specialist of the organs alone that has learnt nothing but drawn slices.

    Args:
        drawn: What it learns.
        image: On the axial grid.
        device: Where it learns and predicts.
        steps: Of the optimiser.
        monitor: Told of the progress; asked whether to stop.

    Raises:
        CancelledError: When asked to stop.
    """
    config = RunConfig(organ=new_settings(drawn, image, steps))
    return _trained(Specialist({}, drawn.targets, config, device), drawn, image, monitor)


def tuning_settings(
    trained: SpecialistConfig, spacing_mm: Spacing3, steps: int
) -> SpecialistConfig:
    """Return the settings by which a trained network of organs learns drawn slices.

    How bright the organs are is known of this volume, so none is shown brighter or darker. A 2-D
    network sees finer pixels than it was trained with, but none finer than those of the volume:
    outlines become more exact, and its training has shown it other scales.

    Args:
        trained: What it was trained with.
        spacing_mm: Of the volume on its axial grid.
        steps: Of the optimiser.
    """
    changes = {
        "iterations": steps,
        "learning_rate": RATE * trained.learning_rate,
        "target_shift_chance": 0.0,
    }
    settings = trained.model_copy(update=changes)
    pixel_mm = max(FINER * trained.roi.pixel_mm, min(spacing_mm[1:]))
    if trained.network.dimensions == 3 or pixel_mm >= trained.roi.pixel_mm:
        return settings
    roi = trained.roi.model_copy(update={"pixel_mm": pixel_mm})
    return settings.model_copy(update={"roi": roi})


def new_settings(drawn: DrawnSlices, image: Volume, steps: int) -> SpecialistConfig:
    """Return the settings by which a new network learns drawn slices.

    Args:
        drawn: What it learns: how wide the organs are, and how bright they and what is around them.
        image: On the axial grid.
        steps: Of the optimiser.
    """
    pixels_mm = image.geometry.spacing_mm[1:]
    first, last = drawn.place_px
    pixel_mm = max(drawn.across_mm / ACROSS_PX, *pixels_mm)
    margin = np.ceil(AROUND_MM / np.array(pixels_mm)).astype(int)
    top, left = np.maximum(first - margin, 0)
    bottom, right = last + margin + 1
    seen = image.voxels[list(drawn.slices), top:bottom, left:right]
    low, high = (float(value) for value in np.percentile(seen, PERCENTILES))
    roi = RoiConfig(
        pixel_mm=pixel_mm,
        context_mm=pixel_mm,
        window_hu=(low, high) if low < high else (low, low + 1.0),
    )
    patch_size = max(LEAST_PATCH_PX, _whole_patch(WIDER * drawn.across_mm / pixel_mm))
    changes = {"iterations": steps, "patch_size": patch_size, "roi": roi}
    return NEW_NETWORK.model_copy(update=changes)


def _whole_patch(pixels: float) -> int:
    return PATCH_STEP_PX * round(pixels / PATCH_STEP_PX)


def _trained(
    specialist: Specialist, drawn: DrawnSlices, image: Volume, monitor: Monitor
) -> Specialist:
    """Return a specialist of the organs alone that has learnt drawn slices by its settings."""
    settings, seed = specialist.config.organ, specialist.config.seed
    stage, device = drawn.stage, specialist.device
    method = _start(specialist, drawn)
    source = BatchSource([_training_case(drawn, image, settings)], settings, seed, 0, device=device)
    schedule = Schedule(
        TASK,
        settings.iterations,
        settings.learning_rate,
        settings.weight_decay,
        settings.optimiser,
        seed,
    )

    def step_loss(step: int, generator: torch.Generator, part: WorkPart) -> dict[str, Tensor]:
        return {"loss": method.loss(source.batch(step, part), None, step, generator).total}

    with TemporaryDirectory(prefix="aslseg-") as folder:
        trainer = Trainer(method, schedule, device, Path(folder), after_step=method.after_step)
        trainer.run(step_loss, monitor)
    networks = {stage.name: method.average.eval()}
    return replace(specialist, networks=networks, targets=stage.targets)


def _start(specialist: Specialist, drawn: DrawnSlices) -> SSLMethod:
    """Return what trains a network by labels alone: a copy of the run's, else a new one."""
    torch.manual_seed(specialist.config.seed)
    method = default_ssl_method("supervised", drawn.stage, specialist.config.organ)
    trained = specialist.networks.get(drawn.stage.name)
    if trained is not None:
        known = network_of(trained, 0).state_dict()
        method.student.load_state_dict(known)
        method.average.load_state_dict(known)
    return method.to(specialist.device)


def _training_case(drawn: DrawnSlices, image: Volume, settings: SpecialistConfig) -> TrainingCase:
    """Return what patches are cut from: nothing is known of slices that were not drawn."""
    ignored = np.ones(drawn.labels.labels.shape, np.bool_)
    ignored[list(drawn.slices)] = False
    shown = np.where(ignored, np.uint8(0), drawn.labels.labels)
    roi = build_roi(
        image,
        drawn.stage,
        settings,
        labels=Labelmap(shown, drawn.labels.geometry),
        ignored=ignored,
        targets=drawn.targets,
    )
    return TrainingCase(roi, partial=True)
