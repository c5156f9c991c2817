"""Who speaks in a session, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslseg.config import Target
from aslseg.inference import Probabilities, labels_from
from aslseg.prompts import SlicePrompts
from aslseg.session_slices import Planes, label_slice
from aslseg.speaking import Asked, Ensemble
from aslseg.stages import stages_of
from aslseg.views import Float32
from aslseg.volume import Labelmap, Labels, Volume


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the voices say now, about the whole volume or one slice.

    Attributes:
        slice_index: The slice, on the volume's slice grid; None for the whole volume.
        specialist: Its label map, which prompts do not change; None without a trained run, and in
            answers about one slice.
        sam: SAM's; None when it was not asked anything.
        refined: After the adaptation network; None without a trained run.
        disagreement: As the label maps, (D, H, W) or (1, H, W) uint8: how far apart the voices'
            probabilities are, in percent, for the target where it is most.
        prompts: In force, in the volume or slice.
        unheard: Sentences about clicks that the labels do not follow.
    """

    slice_index: int | None
    specialist: Labelmap | None
    sam: Labelmap | None
    refined: Labelmap | None
    disagreement: NDArray[np.uint8]
    prompts: tuple[SlicePrompts, ...]
    unheard: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Voices:
    """Who speaks in a session.

    Attributes:
        targets: The classes.
        ensemble: The trained parts of a run; None when SAM is alone.
        sam: Who answers a person's prompts; None when nobody can.
    """

    targets: tuple[Target, ...]
    ensemble: Ensemble | None
    sam: Asked | None

    @property
    def proposes(self) -> bool:
        """Whether SAM is asked without a person's prompts too."""
        return self.ensemble is not None and self.ensemble.generalist is not None

    def label_volume(self, probabilities: Probabilities, volume: Volume) -> Labelmap:
        """Turn probabilities into a label map; SAM alone is taken at its word."""
        if self.ensemble is None:
            return Labelmap(plain_labels(probabilities, self.targets), volume.geometry)
        least = self.ensemble.config.min_component_ml
        return labels_from(probabilities, self.targets, volume, least)

    def label_slice(self, planes: Planes, k: int, before: Labels, volume: Volume) -> Labels:
        """Turn the probabilities of slice `k` into labels, (H, W)."""
        if self.ensemble is None:
            return plain_labels(planes, self.targets)
        least = self.ensemble.config.min_component_ml
        return label_slice(planes, k, before, self.targets, volume, min_component_ml=least)


def plain_labels(probabilities: Mapping[str, Float32], targets: Sequence[Target]) -> Labels:
    """Return the most probable target above one half; contents go before their containers.

    Args:
        probabilities: By target, all of one shape.
        targets: All targets.
    """
    labels = np.zeros(next(iter(probabilities.values())).shape, np.uint8)
    for stage in stages_of(targets):
        best = np.full(labels.shape, 0.5, np.float32)
        for target in stage.targets:
            above = probabilities[target.name] > best
            labels[above] = target.value
            best[above] = probabilities[target.name][above]
    return labels
