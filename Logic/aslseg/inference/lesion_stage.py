"""The lesion stage of a method: it accepts or rejects each candidate, and applies that to a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslseg.config import RunConfig
from aslseg.data.masks import label_components, uncrop
from aslseg.data.volume import Float32, Labels, Mask, Volume, zeros
from aslseg.inference.candidates import (
    MOST_CANDIDATES,
    Candidates,
    Evidence,
    candidate_targets,
    find_candidates,
)
from aslseg.inference.cascade import (
    Probabilities,
    Specialist,
    StagePrediction,
    on_volume,
    predict_roi,
)
from aslseg.inference.lesion_classifier import LesionClassifier
from aslseg.targets import Target

OUTLINED = 0.6
"""Least probability of the core of an accepted candidate."""
MOST_OF_PARENT = 0.5
"""A candidate that is more of its parent is never accepted, but in doubt: organs that are darker
than all labelled ones look like one lesion (volume 43 of LiTS)."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassifiedCandidates:
    """The candidates of one target in one volume, each accepted or rejected.

    Attributes:
        found: The candidates.
        probability: (n,) of being a lesion.
        threshold: Above which they are accepted.
        whole_cores: Whether all of an accepted candidate's core is lesion; else only where the
            refined map has nothing of it.
    """

    found: Candidates
    probability: NDArray[np.float64]
    threshold: float
    whole_cores: bool = False

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """(n,) whether a candidate stays."""
        return self.probability > self.threshold

    def doubtful(self, reach: float) -> NDArray[np.bool_]:
        """Return (n,) which candidates are nearer to the threshold than `reach` log-odds."""
        limit = np.log(self.threshold / (1 - self.threshold))
        known = np.clip(self.probability, 1e-9, 1 - 1e-9)
        doubtful: NDArray[np.bool_] = np.abs(np.log(known / (1 - known)) - limit) < reach
        return doubtful

    def effect(self, probability: Float32) -> CandidateEffect:
        """Return what the decisions change in the refined probability (D, H, W) of the target."""
        found = self.found
        if found.box is None:
            return CandidateEffect(*(zeros(found.shape, np.bool_) for _ in range(2)))
        kept = _chosen(self.accepted)[found.zones]
        above = kept & (probability[found.box.slices] > 0.5)
        drawn = self.accepted.copy()
        if not self.whole_cores:
            drawn[np.unique(found.zones[above]) - 1] = False
        cores = _chosen(drawn)[found.cores]
        kept &= ~_splinters(above | cores, found.zones)
        parts = kept, cores
        return CandidateEffect(*(uncrop(part, found.box, found.shape) for part in parts))

    def zones_of(self, which: NDArray[np.bool_]) -> Mask:
        """Return the zones of some candidates, (D, H, W)."""
        return _chosen(which)[self.found.zone_map()]


def _splinters(mask: Mask, zones: Labels) -> Mask:
    """Return what a mask has in the zones of candidates beside the largest part in each.

    A candidate is one lesion: parts that lie apart from it, many of a few voxels, are none.

    Args:
        mask: (d, h, w).
        zones: (d, h, w) number of the candidate whose zone a voxel lies in; 0 for none.

    Returns:
        (d, h, w).
    """
    inside = mask & (zones > 0)
    parts, count = label_components(inside)
    zone, part = zones[inside].astype(np.int64), parts[inside]
    sizes = np.bincount(zone * (count + 1) + part, minlength=(MOST_CANDIDATES + 1) * (count + 1))
    largest = sizes.reshape(-1, count + 1).argmax(axis=1)
    splinters = np.zeros_like(mask)
    splinters[inside] = part != largest[zone]
    return splinters


@dataclass(frozen=True, slots=True, eq=False)
class CandidateEffect:
    """What the decisions about candidates change in a probability map, (D, H, W) masks.

    Attributes:
        kept: Where the map stays: the zones of accepted candidates, of several parts in one zone
            the largest alone. The map is zero elsewhere.
        cores: Of accepted candidates, all of which is lesion, also where the map is below one half.
    """

    kept: Mask
    cores: Mask

    def apply(
        self, probability: Float32, k: int | None = None, *, spared: Mask | None = None
    ) -> Float32:
        """Return a probability map with the accepted candidates alone.

        Args:
            probability: (D, H, W), or (H, W) of slice `k`.
            k: Number of the slice; None for the whole volume.
            spared: Where cores do not count, of the probability's shape.
        """
        where = slice(None) if k is None else k
        changed = zeros(probability.shape)
        np.copyto(changed, probability, where=self.kept[where])
        cores = self.cores[where] if spared is None else self.cores[where] & ~spared
        changed[cores] = np.maximum(changed[cores], np.float32(OUTLINED))
        return changed


def _chosen(which: NDArray[np.bool_]) -> Mask:
    """Return a mask by number of candidate, from 0 (none) on."""
    return np.concatenate([[False], which])


@dataclass(frozen=True, slots=True, eq=False)
class LesionStage:
    """Classifiers of all lesion targets, and the earlier weights whose agreement is a feature.

    Attributes:
        classifiers: By target name.
        earlier: The specialist at the snapshots of its schedule.
        targets: All targets.
        config: The run's settings.
        with_sam: Whether SAM proposes candidates too, and is a feature of them.
    """

    classifiers: Mapping[str, LesionClassifier]
    earlier: tuple[Specialist, ...]
    targets: tuple[Target, ...]
    config: RunConfig
    with_sam: bool = False

    def classify(
        self, volume: Volume, stages: Sequence[StagePrediction], sam: Probabilities
    ) -> dict[str, ClassifiedCandidates]:
        """Find candidates, and accept or reject each.

        One that fills most of its parent has the threshold for its probability, if not less: it is
        rejected and in doubt.

        Args:
            volume: The image, on its axial grid.
            stages: Predictions of the specialist.
            sam: SAM's probabilities; targets without a prompt are missing.

        Returns:
            By name of the lesion targets.
        """
        settings = self.config.candidates
        classified: dict[str, ClassifiedCandidates] = {}
        of_sam = sam if self.with_sam else None
        found = candidates_of(volume, stages, of_sam, self.earlier, self.targets, self.config)
        for name, candidates in found.items():
            classifier = self.classifiers[name]
            threshold = classifier.threshold(settings)
            probability = classifier.probability(candidates, settings)
            fills_parent = fill_parent(candidates, name, stages, volume)
            probability = at_most_doubtful(probability, fills_parent, threshold)
            classified[name] = ClassifiedCandidates(
                candidates, probability, threshold, settings.whole_cores
            )
        return classified


def fill_parent(
    candidates: Candidates, target: str, stages: Sequence[StagePrediction], volume: Volume
) -> NDArray[np.bool_]:
    """Return (n,) which candidates of a target are more of its parent than a lesion can be.

    Args:
        candidates: Of the target.
        target: Its name.
        stages: Predictions of the specialist, with the parent that the target was sought in.
        volume: The image, on its axial grid.
    """
    vast: NDArray[np.bool_]
    vast = candidates.volume_ml > MOST_OF_PARENT * _parent_ml(target, stages, volume)
    return vast


def at_most_doubtful(
    probability: NDArray[np.float64], fills_parent: NDArray[np.bool_], threshold: float
) -> NDArray[np.float64]:
    """Return probabilities (n,) by which no candidate is accepted that fills most of its parent.

    Args:
        probability: (n,) of being a lesion.
        fills_parent: (n,), of `fill_parent`; such a candidate has the threshold, if not less.
        threshold: Above which candidates are accepted.
    """
    return np.where(fills_parent, np.minimum(probability, threshold), probability)


def _parent_ml(target: str, stages: Sequence[StagePrediction], volume: Volume) -> float:
    """Return the volume of what a target was sought in; infinite where there is no such mask."""
    for prediction in stages:
        if prediction.parent is not None and target in prediction.probabilities:
            return float(np.count_nonzero(prediction.parent)) * volume.geometry.voxel_ml
    return float("inf")


def candidates_of(
    volume: Volume,
    stages: Sequence[StagePrediction],
    sam: Probabilities | None,
    earlier: Sequence[Specialist],
    targets: Sequence[Target],
    config: RunConfig,
) -> dict[str, Candidates]:
    """Find the candidates of the lesion targets of a volume; none where all are kept.

    Args:
        volume: The image, on its axial grid.
        stages: Predictions of the specialist.
        sam: As in `LesionStage.classify`; None without SAM.
        earlier: The specialist at the snapshots of its schedule.
        targets: All targets.
        config: The run's settings.
    """
    wanted = [target.name for target in candidate_targets(targets, config)]
    found: dict[str, Candidates] = {}
    for prediction in stages:
        names = [target.name for target in prediction.stage.targets if target.name in wanted]
        before = [_with_weights_of(one, prediction, volume) for one in earlier if names]
        for name in names:
            evidence = _evidence(prediction, name, sam, [values[name] for values in before])
            found[name] = find_candidates(
                evidence, volume, name, config.candidates, config.min_component_ml
            )
    return found


def _evidence(
    prediction: StagePrediction,
    name: str,
    sam: Probabilities | None,
    earlier: Sequence[Float32],
) -> Evidence:
    specialist = prediction.probabilities[name]
    parent = zeros(specialist.shape, np.bool_) if prediction.parent is None else prediction.parent
    of_sam = None if sam is None else sam.get(name)
    if sam is not None and of_sam is None:
        of_sam = zeros(specialist.shape)
    return Evidence(specialist, parent, tuple(earlier), of_sam)


def _with_weights_of(
    specialist: Specialist, prediction: StagePrediction, volume: Volume
) -> Probabilities:
    """Return the probabilities of a stage by other weights, in the same region of interest."""
    stage, parent = prediction.stage, prediction.parent
    if prediction.roi is None or parent is None:
        return {t.name: zeros(volume.geometry.shape) for t in stage.targets}
    settings = specialist.config.stage(stage.parent_name)
    network = specialist.networks[stage.name]
    classes = predict_roi(network, prediction.roi, settings, specialist.device)
    return on_volume(classes[1:], stage, prediction.roi, parent, volume)


def effects_on(
    probabilities: Probabilities, classified: Mapping[str, ClassifiedCandidates]
) -> dict[str, CandidateEffect]:
    """Return what decisions about candidates change in refined probabilities, by target."""
    return {name: one.effect(probabilities[name]) for name, one in classified.items()}


def accepted_only(
    probabilities: Probabilities, effects: Mapping[str, CandidateEffect]
) -> Probabilities:
    """Return probabilities with the accepted candidates alone; other targets stay as they are."""
    return probabilities | {name: one.apply(probabilities[name]) for name, one in effects.items()}


def candidate_map(
    classified: Mapping[str, ClassifiedCandidates], shape: tuple[int, int, int]
) -> Labels:
    """Return the cores of all targets' candidates, (D, H, W) uint8.

    Numbers go on over targets; a candidate with a number above 255 is not shown.
    """
    whole, first = np.zeros(shape, np.uint8), 0
    for one in classified.values():
        numbers = one.found.core_map().astype(np.int32)
        numbers[numbers > 0] += first
        shown = (numbers > 0) & (numbers <= MOST_CANDIDATES)
        whole[shown] = numbers[shown]
        first += len(one.found)
    return whole
