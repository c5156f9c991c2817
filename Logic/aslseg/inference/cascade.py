"""From a volume to probabilities and labels with the specialist, stage after stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aslseg.config import RunConfig, SpecialistConfig
from aslseg.data.masks import parent_mask, within_reach
from aslseg.data.orientation import to_axial
from aslseg.data.volume import Float32, Labelmap, Mask, Volume, zeros
from aslseg.errors import ImageError
from aslseg.events import Monitor
from aslseg.inference.postprocessing import labels_from
from aslseg.networks.averaged import TwoPasses
from aslseg.networks.device import mixed_precision, predict_mirrored, require_finite
from aslseg.preprocessing.likelihood import likelihood_roi
from aslseg.preprocessing.roi import Roi, build_roi, slice_channels, to_volume
from aslseg.targets import CascadeStage, Target, cascade_stages, is_given

SLICES_AT_ONCE = 8
"""Slices in a batch of a 2-D network at inference."""


Probabilities = dict[str, Float32]
"""By target name, (D, H, W) in [0, 1]: the probability of the target's whole region."""


@dataclass(frozen=True, slots=True, eq=False)
class StagePrediction:
    """The prediction of a cascade stage.

    Attributes:
        stage: The stage.
        roi: None where the parent's mask is empty, and where nothing is predicted.
        classes: (classes, d, h, w) probabilities on the ROI's pixels, or None.
        parent: (D, H, W) predicted or given mask of the parent; None for a stage without one.
        probabilities: By target, on the volume's voxels.
    """

    stage: CascadeStage
    roi: Roi | None
    classes: Float32 | None
    parent: Mask | None
    probabilities: Probabilities


@dataclass(frozen=True, slots=True, eq=False)
class Specialist:
    """The trained networks of all stages.

    Attributes:
        networks: By stage name.
        targets: All targets.
        config: The run's settings.
        device: Where the networks are.
    """

    networks: Mapping[str, nn.Module]
    targets: tuple[Target, ...]
    config: RunConfig
    device: torch.device

    def predict(self, volume: Volume, monitor: Monitor | None = None) -> Probabilities:
        """Return the probability of every target's region on the volume's voxels.

        Contents are predicted inside the predicted parent, or inside the mask of it that came with
        the volume; where that is empty, their probability is zero.

        Raises:
            ImageError: When the networks do not know an organ that did not come with the volume.
        """
        return all_targets(self.predict_stages(volume, monitor))

    def predict_stages(
        self,
        volume: Volume,
        monitor: Monitor | None = None,
        known: Mapping[str, Float32] | None = None,
    ) -> list[StagePrediction]:
        """Return the prediction of each stage, parents first.

        Args:
            volume: The image.
            monitor: Told of the progress if it is detailed.
            known: `StagePrediction.classes` of this very volume by these very networks, by stage
                name: those networks are not run.
        """
        found: Probabilities = {}
        stages: list[StagePrediction] = []
        for stage in cascade_stages(self.targets):
            classes = (known or {}).get(stage.name)
            stages.append(self._stage(volume, stage, found, monitor or Monitor(), classes))
            found.update(stages[-1].probabilities)
        return stages

    def segment(self, volume: Volume, monitor: Monitor | None = None) -> Labelmap:
        """Return the label map of the specialist alone, on the volume's own voxels."""
        turn = to_axial(volume.geometry)
        axial = turn.volume(volume)
        probabilities = self.predict(axial, monitor)
        found = labels_from(probabilities, self.targets, axial, self.config.min_component_ml)
        return turn.inverse.labelmap(found, volume.geometry)

    def _stage(
        self,
        volume: Volume,
        stage: CascadeStage,
        found: Probabilities,
        monitor: Monitor,
        classes: Float32 | None,
    ) -> StagePrediction:
        monitor.check()
        settings = self.config.stage(stage.parent_name)
        if is_given(stage, volume.given):
            return StagePrediction(stage, None, None, None, with_given({}, stage, volume))
        if stage.name not in self.networks:
            names = ", ".join(t.name for t in stage.targets if t.name not in volume.given)
            msg = (
                f"This run was trained on given masks of {names} and cannot find it by itself; "
                f"give its mask (aslseg segment --organ {names}=FILE), or train a run without them."
            )
            raise ImageError(msg)
        parent = stage_parent(volume, stage, found)
        if parent is not None and not parent.any():
            nothing = {t.name: zeros(volume.geometry.shape) for t in stage.targets}
            return StagePrediction(stage, None, None, None, nothing)
        roi = build_roi(volume, stage, settings, parent=parent)
        if classes is None:
            network = self.networks[stage.name]
            classes = predict_passes(network, roi, volume, settings, self.device, monitor)
        probabilities = on_volume(classes[1:], stage, roi, parent, volume)
        found_here = with_given(probabilities, stage, volume)
        return StagePrediction(stage, roi, classes, parent, found_here)


def stage_parent(volume: Volume, stage: CascadeStage, probabilities: Probabilities) -> Mask | None:
    """Return the mask (D, H, W) that a stage's targets are sought in; None for the whole image.

    Args:
        volume: The image.
        stage: Whose parent is meant.
        probabilities: Predicted by the stages before.
    """
    if stage.inside is None:
        return None
    return parent_mask(volume, stage.inside.name, probabilities[stage.inside.name])


def with_given(probabilities: Probabilities, stage: CascadeStage, volume: Volume) -> Probabilities:
    """Return the probabilities of a stage with the masks that came with the volume.

    Args:
        probabilities: By target of the stage; those of given targets may be missing.
        stage: Whose targets they are of.
        volume: The image. Other targets of the stage are zero in its masks.
    """
    masks = {t.name: volume.given[t.name] for t in stage.targets if t.name in volume.given}
    if not masks:
        return probabilities
    free = ~np.any(list(masks.values()), axis=0)
    others = {name: values * free for name, values in probabilities.items() if name not in masks}
    return others | {name: _as_probability(mask) for name, mask in masks.items()}


def _as_probability(mask: Mask) -> Float32:
    """Return one in a mask, and zero elsewhere without writing it."""
    probability = zeros(mask.shape)
    probability[mask] = 1.0
    return probability


def on_volume(
    values: Float32 | Sequence[Float32],
    stage: CascadeStage,
    roi: Roi,
    parent: Mask | None,
    volume: Volume,
) -> Probabilities:
    """Resample probabilities on a stage's ROI to the volume; zero beyond reach of the parent.

    Args:
        values: (targets, d, h, w), or as many arrays (d, h, w).
        stage: Whose targets they are of.
        roi: That they lie on.
        parent: (D, H, W) mask; None for a stage without a parent.
        volume: The image.
    """
    native = to_volume(values, roi)
    if parent is not None:
        reach, inside = within_reach(parent, volume), roi.box.slices
        for channel in native:  # outside of the box they are zero
            roi.turn.array(channel)[inside] *= roi.turn.array(reach)[inside]
    return {target.name: native[n] for n, target in enumerate(stage.targets)}


def all_targets(stages: Sequence[StagePrediction]) -> Probabilities:
    """Return the probabilities of the targets of all stages."""
    return {name: p for stage in stages for name, p in stage.probabilities.items()}


def predict_passes(
    network: nn.Module,
    roi: Roi,
    volume: Volume,
    settings: SpecialistConfig,
    device: torch.device,
    monitor: Monitor | None = None,
) -> Float32:
    """Return class probabilities of a ROI, by all passes of a stage.

    The network of a second pass is given how likely intensities are for what the first ones find,
    and the probabilities of all networks are averaged.

    Args:
        network: Of the stage.
        roi: See `predict_roi`.
        volume: That it is of.
        settings: Of the stage.
        device: Where the network is.
        monitor: Told of the progress if it is detailed.

    Returns:
        (classes, d, h, w) float32.

    Raises:
        RunError: When a network predicts values that are no numbers.
    """
    if not isinstance(network, TwoPasses):
        return predict_roi(network, roi, settings, device, monitor)
    found = predict_roi(network.first_pass, roi, settings, device, monitor)
    organ = found[1:].sum(0) > 0.5
    likely = likelihood_roi(roi, volume, organ, settings.roi, is_label=False)
    again = predict_roi(network.second_pass, likely, settings, device, monitor)
    mean: Float32 = found + np.float32(network.second_share) * (again - found)
    return mean


def predict_roi(
    network: nn.Module,
    roi: Roi,
    settings: SpecialistConfig,
    device: torch.device,
    monitor: Monitor | None = None,
) -> Float32:
    """Return class probabilities of a ROI.

    Those of a 2-D network that was trained on mirrored patches are averaged over mirrored slices.
    It does not look at slices without the parent, where nothing can be: they are background.

    Returns:
        (classes, d, h, w) float32.

    Raises:
        RunError: When the network predicts values that are no numbers.
    """
    if settings.network.dimensions == 3:
        return _predict_blocks(network, roi, settings, device)
    flips: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,)) if settings.mirror else ((),)

    def probabilities(images: Tensor) -> Tensor:
        logits: Tensor = network(images)
        return logits.float().softmax(1)

    classes: Float32 | None = None
    wanted = _slices_with_parent(roi)
    starts = range(0, len(wanted), SLICES_AT_ONCE)
    for first in (monitor or Monitor()).details(starts, "Running the specialist"):
        ks = wanted[first : first + SLICES_AT_ONCE]
        inputs = torch.from_numpy(np.stack([slice_channels(roi, k, settings) for k in ks]))
        found = predict_mirrored(probabilities, [inputs.to(device)], settings.network.stride, flips)
        predicted = require_finite(found.cpu().numpy(), "The specialist").swapaxes(0, 1)
        if classes is None:
            classes = _background(len(predicted), roi)
        classes[:, ks] = predicted
    if classes is None:
        msg = "No slice of the region shows its parent."
        raise ValueError(msg)
    return classes


def _background(classes: int, roi: Roi) -> Float32:
    """Return (classes, d, h, w) probabilities of a ROI in which there is nothing."""
    found: Float32 = zeros((classes, *roi.image.shape))
    found[0] = 1.0
    return found


def _slices_with_parent(roi: Roi) -> list[int]:
    """Return the slices of a ROI that its parent reaches into; all of one without a parent."""
    if roi.parent is None:
        return list(range(len(roi.image)))
    found: list[int] = np.flatnonzero(roi.parent.any(axis=(1, 2))).tolist()
    return found


@torch.no_grad()
def _predict_blocks(
    network: nn.Module, roi: Roi, settings: SpecialistConfig, device: torch.device
) -> Float32:
    from monai.inferers import sliding_window_inference  # all of MONAI, for blocks alone

    inputs = torch.from_numpy(roi.inputs)[None].to(device)
    edge = (settings.patch_size,) * 3

    def probabilities(block: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision(device)):
            logits: Tensor = network(block)
        return logits.float().softmax(1)

    result = sliding_window_inference(inputs, edge, 2, probabilities, overlap=0.5, mode="gaussian")
    array: NDArray[np.float32] = result[0].cpu().numpy()
    return require_finite(array, "The specialist")
