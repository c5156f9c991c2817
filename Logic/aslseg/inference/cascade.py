"""From a volume to probabilities and labels with the specialist: stage after stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.config import RunConfig, SpecialistConfig
from aslseg.data.masks import clean_parent, within_reach
from aslseg.data.orientation import to_axial
from aslseg.data.volume import Float32, Labelmap, Mask, Volume
from aslseg.events import Monitor
from aslseg.inference.postprocessing import labels_from
from aslseg.networks.device import mixed_precision
from aslseg.networks.finite import require_finite
from aslseg.networks.unet import padding_of
from aslseg.preprocessing.patches import slice_channels
from aslseg.preprocessing.roi import Roi, build_roi, to_volume
from aslseg.targets import CascadeStage, Target, cascade_stages

SLICES_AT_ONCE = 8


Probabilities = dict[str, Float32]
"""By target name, (D, H, W) in [0, 1]: the probability of the target's whole region."""


@dataclass(frozen=True, slots=True, eq=False)
class StagePrediction:
    """What a stage saw of a volume, and made of it.

    Attributes:
        stage: The stage.
        roi: None where no container was found to look into.
        classes: (classes, d, h, w) probabilities on the view's pixels, or None.
        organ: (D, H, W) the container that was found, or None.
        probabilities: By target, on the volume's voxels.
    """

    stage: CascadeStage
    roi: Roi | None
    classes: Float32 | None
    organ: Mask | None
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

        Contents are sought inside the container that was found; where none was found, their
        probability is zero.
        """
        found: Probabilities = {}
        for seen in self.look(volume, monitor):
            found.update(seen.probabilities)
        return found

    def look(self, volume: Volume, monitor: Monitor | None = None) -> list[StagePrediction]:
        """Return what each stage saw and made of it, containers first."""
        found: Probabilities = {}
        stages: list[StagePrediction] = []
        for stage in cascade_stages(self.targets):
            stages.append(self._stage(volume, stage, found, monitor or Monitor()))
            found.update(stages[-1].probabilities)
        return stages

    def segment(self, volume: Volume, monitor: Monitor | None = None) -> Labelmap:
        """Return the label map of the specialist alone, on the volume's own voxels."""
        turn = to_axial(volume.geometry)
        axial = turn.volume(volume)
        said = self.predict(axial, monitor)
        found = labels_from(said, self.targets, axial, self.config.min_component_ml)
        return turn.inverse.labelmap(found, volume.geometry)

    def _stage(
        self, volume: Volume, stage: CascadeStage, found: Probabilities, monitor: Monitor
    ) -> StagePrediction:
        monitor.check()
        settings = self.config.stage(stage.inside.name if stage.inside else None)
        organ = None if stage.inside is None else clean_parent(found[stage.inside.name] > 0.5)
        if organ is not None and not organ.any():
            nothing = {t.name: np.zeros(volume.geometry.shape, np.float32) for t in stage.targets}
            return StagePrediction(stage, None, None, None, nothing)
        roi = build_roi(volume, stage, settings, organ=organ)
        network = self.networks[stage.name]
        classes = predict_roi(network, roi, settings, self.device, monitor)
        native = to_volume(classes[1:], roi)
        if organ is not None:
            native *= within_reach(organ, volume)
        said = {target.name: native[n] for n, target in enumerate(stage.targets)}
        return StagePrediction(stage, roi, classes, organ, said)


def predict_roi(
    network: nn.Module,
    roi: Roi,
    settings: SpecialistConfig,
    device: torch.device,
    monitor: Monitor | None = None,
) -> Float32:
    """Return class probabilities of a view.

    A 2-D network that was trained on mirrored patches is asked about mirrored slices too, and the
    answers are averaged.

    Returns:
        (classes, d, h, w) float32.

    Raises:
        RunError: When the network predicts values that are no numbers.
    """
    if settings.network.dimensions == 3:
        return _predict_blocks(network, roi, settings, device)
    parts = []
    starts = range(0, len(roi.image), SLICES_AT_ONCE)
    for first in (monitor or Monitor()).details(starts, "Running the specialist"):
        last = min(first + SLICES_AT_ONCE, len(roi.image))
        slices = np.stack([slice_channels(roi, k, settings) for k in range(first, last)])
        inputs = torch.from_numpy(slices).to(device)
        parts.append(_probabilities(network, inputs, settings).cpu().numpy())
    found = np.ascontiguousarray(np.concatenate(parts).swapaxes(0, 1))
    return require_finite(found, "The specialist")


@torch.no_grad()
def _probabilities(network: nn.Module, inputs: Tensor, settings: SpecialistConfig) -> Tensor:
    height, width = inputs.shape[-2:]
    padded = F.pad(inputs, padding_of(inputs, settings.network.stride), mode="replicate")
    flips: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,)) if settings.mirror else ((),)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=mixed_precision(inputs.device)):
        seen = [network(padded.flip(axes)).float().softmax(1).flip(axes) for axes in flips]
    return torch.stack(seen).mean(0)[..., :height, :width]


@torch.no_grad()
def _predict_blocks(
    network: nn.Module, roi: Roi, settings: SpecialistConfig, device: torch.device
) -> Float32:
    inputs = torch.from_numpy(roi.inputs)[None].to(device)
    edge = (settings.patch_size,) * 3

    def probabilities(block: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision(device)):
            logits: Tensor = network(block)
        return logits.float().softmax(1)

    result = sliding_window_inference(inputs, edge, 2, probabilities, overlap=0.5, mode="gaussian")
    array: NDArray[np.float32] = result[0].cpu().numpy()
    return require_finite(array, "The specialist")
