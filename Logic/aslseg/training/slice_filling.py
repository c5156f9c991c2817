"""Organs between slices that a person drew: the specialist learns them from these slices.

Dense segmentation from sparse annotation (Cicek et al., MICCAI 2016): the specialist of a run goes
on learning, for some steps, from the drawn slices of one volume alone, as image-specific
fine-tuning does (Wang et al., IEEE TMI 2018), and predicts the slices between them. Beside a drawn
slice the drawn outlines count more, further away the prediction: signed distances of both are
averaged (ours), those of drawn outlines after linear interpolation (Raya and Udupa, IEEE TMI 1990).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
from torch import Tensor

from aslseg.config import SpecialistConfig
from aslseg.data.masks import depth_in_slice, label_components
from aslseg.data.orientation import axial_labelmap, axial_volume, to_axial
from aslseg.data.volume import Float32, Labelmap, Labels, Mask, Spacing3, Volume
from aslseg.distributed import Part
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities, Specialist, is_given
from aslseg.preprocessing.patches import BatchSource, TrainingCase
from aslseg.preprocessing.roi import build_roi
from aslseg.targets import CascadeStage, Target, cascade_stages, region_mask, region_values
from aslseg.training.cascade import default_ssl_method
from aslseg.training.ssl import SSLMethod
from aslseg.training.trainer import Schedule, Trainer

STEPS: Final = 150
RATE: Final = 0.5
"""Factor on the learning rate that the specialist was trained with."""
FINER: Final = 0.625
"""Factor on the pixels that it was trained with."""
WIDER: Final = 4 / 3
PATCH_STEP_PX: Final = 32
"""Patches are so many times wider in pixels, to such a multiple."""
NEAR_MM: Final = 10.0
"""From here on, measured to the nearest drawn slice, the prediction alone counts."""
FAR_MM: Final = 15.0
"""Signed distances are cut off here; where a slice shows nothing they are that far outside."""
THRESHOLD: Final = 0.5
TASK: Final = "Learning the drawn slices"


def fill_between_slices(
    specialist: Specialist,
    volume: Volume,
    drawn: Labelmap,
    slices: Sequence[int],
    monitor: Monitor | None = None,
    *,
    steps: int = STEPS,
) -> Labelmap:
    """Return a label map whose organs are filled between slices that a person drew.

    Drawn slices stay as they are, and so do those before the first and after the last one. Organs
    are the targets that lie in no other one; what lies in them (lesions) stays.

    Args:
        specialist: Of a run; it is not changed.
        volume: The image.
        drawn: What is shown of it, on the volume's voxels.
        slices: Numbers of the drawn slices on the volume's axial grid (`data.orientation`).
        monitor: Told of the progress; asked whether to stop.
        steps: Of the optimiser.

    Raises:
        ConfigError: When nothing lies between the slices, when they show none of the organs, or
            when masks of these came with the volume, or the run has no network for them.
        CancelledError: When asked to stop.
    """
    turn = to_axial(volume.geometry)
    labels = axial_labelmap(drawn)
    stage = _stage_of(specialist, volume)
    known = _DrawnSlices(specialist, stage, labels, tuple(sorted({*slices})))
    known.require_gaps()
    image, monitor = axial_volume(volume), monitor or Monitor()
    predicted = _tuned(known, image, steps, monitor).predict(image, monitor)
    filled = Labelmap(_painted(known, _regions(known, predicted)), labels.geometry)
    return turn.inverse.labelmap(filled, volume.geometry)


@dataclass(frozen=True, slots=True, eq=False)
class _DrawnSlices:
    """What a person drew of the organs of a volume.

    Attributes:
        specialist: Of the run.
        stage: The stage of the organs.
        labels: On the axial grid; counts in the drawn slices.
        slices: Their numbers, ascending.
    """

    specialist: Specialist
    stage: CascadeStage
    labels: Labelmap
    slices: tuple[int, ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """All targets."""
        return self.specialist.targets

    @property
    def gaps(self) -> list[range]:
        """The slices between each two neighbours that were drawn."""
        pairs = itertools.pairwise(self.slices)
        return [range(first + 1, last) for first, last in pairs if last - first > 1]

    @property
    def span(self) -> slice:
        """All slices from the first drawn one to the last."""
        return slice(self.slices[0], self.slices[-1] + 1)

    def require_gaps(self) -> None:
        """Make sure that there is something to learn, and to fill.

        Raises:
            ConfigError: When there is not.
        """
        found, depth = list(self.slices), len(self.labels.labels)
        names = ", ".join(target.name for target in self.stage.targets)
        if not found or found[0] < 0 or found[-1] >= depth:
            msg = f"Slices are 0 to {depth - 1}, not {found}; name those that were drawn."
            raise ConfigError(msg)
        if not self.gaps:
            msg = f"Nothing lies between the drawn slices {found}; draw two that are further apart."
            raise ConfigError(msg)
        if not any(self.region(target)[found].any() for target in self.stage.targets):
            msg = f"The drawn slices show nothing of {names}; draw it in two or more of them."
            raise ConfigError(msg)

    def region(self, target: Target) -> Mask:
        """Return what is shown of a target (D, H, W), with what lies in it."""
        return region_mask(self.labels.labels, target, self.targets)


def _stage_of(specialist: Specialist, volume: Volume) -> CascadeStage:
    """Return the stage of the organs.

    Raises:
        ConfigError: When no network of the run predicts them.
    """
    stage = cascade_stages(specialist.targets)[0]
    names = ", ".join(target.name for target in stage.targets)
    if is_given(stage, volume.given):
        msg = f"A mask of {names} came with the volume; correct that mask."
        raise ConfigError(msg)
    if stage.name not in specialist.networks:
        msg = f"The run has no network for {names}; fill by shape alone, or train a run for them."
        raise ConfigError(msg)
    return stage


def _tuned(known: _DrawnSlices, image: Volume, steps: int, monitor: Monitor) -> Specialist:
    """Return a specialist of the organs alone that has learnt the drawn slices."""
    specialist, stage = known.specialist, known.stage
    trained = specialist.config.stage(stage.parent_name)
    settings = tuning_settings(trained, image.geometry.spacing_mm, steps)
    config = specialist.config.model_copy(update={"organ": settings})
    known = replace(known, specialist=replace(specialist, config=config))
    seed, device = specialist.config.seed, specialist.device
    method = _start(known)
    source = BatchSource([_training_case(known, image)], settings, seed, 0, device=device)
    schedule = Schedule(
        TASK, steps, settings.learning_rate, settings.weight_decay, settings.optimiser, seed
    )

    def step_loss(step: int, generator: torch.Generator, part: Part) -> dict[str, Tensor]:
        return {"loss": method.loss(source.batch(step, part), None, step, generator).total}

    with TemporaryDirectory(prefix="aslseg-") as folder:
        trainer = Trainer(method, schedule, device, Path(folder), after_step=method.after_step)
        trainer.run(step_loss, monitor)
    networks = {stage.name: method.average.eval()}
    return replace(known.specialist, networks=networks, targets=stage.targets)


def tuning_settings(
    trained: SpecialistConfig, spacing_mm: Spacing3, steps: int
) -> SpecialistConfig:
    """Return the settings by which the network of the organs learns drawn slices.

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
    patch_size = PATCH_STEP_PX * round(WIDER * trained.patch_size / PATCH_STEP_PX)
    return settings.model_copy(update={"roi": roi, "patch_size": patch_size})


def _start(known: _DrawnSlices) -> SSLMethod:
    """Return what trains a copy of the stage's network by labels alone."""
    method = default_ssl_method("supervised", known.stage, known.specialist.config.organ)
    weights = known.specialist.networks[known.stage.name].state_dict()
    method.student.load_state_dict(weights)
    method.average.load_state_dict(weights)
    return method.to(known.specialist.device)


def _training_case(known: _DrawnSlices, image: Volume) -> TrainingCase:
    """Return what patches are cut from: nothing is known of slices that were not drawn."""
    ignored = np.ones(known.labels.labels.shape, np.bool_)
    ignored[list(known.slices)] = False
    shown = np.where(ignored, np.uint8(0), known.labels.labels)
    roi = build_roi(
        image,
        known.stage,
        known.specialist.config.organ,
        labels=Labelmap(shown, known.labels.geometry),
        ignored=ignored,
        targets=known.targets,
    )
    return TrainingCase(roi, partial=True)


def _regions(known: _DrawnSlices, predicted: Probabilities) -> list[Mask]:
    """Return the region (D, H, W) of each target of the stage, filled between drawn slices."""
    depth_mm, *pixel_mm = known.labels.geometry.spacing_mm
    regions = [known.region(target).copy() for target in known.stage.targets]
    for gap in known.gaps:
        before, after = gap[0] - 1, gap[-1] + 1
        ends = [[_signed_mm(region[k], pixel_mm) for k in (before, after)] for region in regions]
        for k in gap:
            along = (k - before) / (after - before)
            share = min(1.0, min(k - before, after - k) * depth_mm / NEAR_MM)
            scores = []
            for target, (first, last) in zip(known.stage.targets, ends, strict=True):
                drawn = (1 - along) * first + along * last
                found = _signed_mm(predicted[target.name][k] > THRESHOLD, pixel_mm)
                scores.append((1 - share) * drawn + share * found)
            best = np.argmax(scores, axis=0)
            for n, score in enumerate(scores):
                regions[n][k] = (score > 0) & (best == n)
    return regions


def _signed_mm(mask: Mask, pixel_mm: Sequence[float]) -> Float32:
    """Return the distance (H, W) to the outline, positive inside, cut off at `FAR_MM`."""
    if not mask.any():
        return np.full(mask.shape, -FAR_MM, np.float32)
    return np.clip(depth_in_slice(mask, pixel_mm), -FAR_MM, FAR_MM)


def _painted(known: _DrawnSlices, regions: Sequence[Mask]) -> Labels:
    """Return the label map (D, H, W) with the regions between drawn slices.

    A part of a region that hangs together with nothing that was drawn is left out.
    """
    painted, first = known.labels.labels.copy(), known.slices[0]
    drawn = [k - first for k in known.slices]
    for target, region in zip(known.stage.targets, regions, strict=True):
        numbered, _ = label_components(region[known.span])
        kept = np.isin(numbered, np.unique(numbered[drawn])) & (numbered > 0)
        inside = [v for v in region_values(target, known.targets) if v != target.value]
        for k in itertools.chain(*known.gaps):
            section, now = painted[k], kept[k - first]
            section[(section == target.value) & ~now] = 0
            section[now & ~np.isin(section, inside)] = target.value
    return painted
