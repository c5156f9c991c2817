"""The trained parts of a round on a volume: specialist, prompts, SAM, fusion, lesion stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from aslseg.config import RunConfig
from aslseg.data.orientation import axial_to_slices, axial_volume, to_axial
from aslseg.data.volume import Geometry, Labelmap, Volume, give_back_memory, zeros
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities, Specialist, StagePrediction, all_targets
from aslseg.inference.lesion_stage import (
    CandidateEffect,
    ClassifiedCandidates,
    LesionStage,
    accepted_only,
    effects_on,
)
from aslseg.inference.postprocessing import labels_from
from aslseg.prompts import SlicePrompts, turned_prompts
from aslseg.targets import Target


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The predictions of a volume.

    Attributes:
        specialist: The specialist's label map.
        sam: SAM's, or None when the loop runs without.
        refined: After the adaptation network.
        prompts: Given to SAM, on the volume's slice grid (see `data.orientation`).
        probabilities: Refined, by target name, (D, H, W).
        specialist_alone: Whether nothing but the specialist predicts; the refined label map is
            then its own, or lacks the candidates that were rejected.
        candidates: By name of the lesion targets, on the volume's axial grid.
    """

    specialist: Labelmap
    sam: Labelmap | None
    refined: Labelmap
    prompts: tuple[SlicePrompts, ...]
    probabilities: Probabilities
    specialist_alone: bool = False
    candidates: Mapping[str, ClassifiedCandidates] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class VolumeMaps:
    """What all parts predict of a volume on its axial grid, by target name (D, H, W).

    Attributes:
        specialist: The specialist's probabilities.
        sam: SAM's with the proposed prompts, of every target; empty without SAM.
        refined: After the adaptation network, with the accepted candidates alone.
        effects: What decisions about candidates changed in the refined ones.
    """

    specialist: Probabilities
    sam: Probabilities
    refined: Probabilities
    effects: Mapping[str, CandidateEffect]


Kept = TypeVar("Kept")


class PromptPredictor(Protocol):
    """SAM as a predictor with given prompts."""

    def predict(
        self, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor | None = None
    ) -> Probabilities:
        """Return the probabilities (D, H, W) of the prompted targets; others are missing."""


class AutoPromptPredictor(PromptPredictor, Protocol):
    """SAM as a part of a method, which makes prompts too."""

    def propose_prompts(
        self, volume: Volume, probabilities: Probabilities, targets: Sequence[Target]
    ) -> list[SlicePrompts]:
        """Return prompts made from the specialist's probabilities."""


def sam_probabilities_of(
    sam_predictor: AutoPromptPredictor,
    volume: Volume,
    probabilities: Probabilities,
    targets: Sequence[Target],
    monitor: Monitor,
) -> Probabilities:
    """Return SAM's (D, H, W) probabilities by target, prompted by others; zero without a prompt."""
    nothing = zeros(volume.geometry.shape)
    prompts = sam_predictor.propose_prompts(volume, probabilities, targets)
    found = sam_predictor.predict(volume, prompts, monitor)
    return {name: found.get(name, nothing) for name in probabilities}


class FusionRule(Protocol):
    """How the predictions of specialist and SAM become the refined one."""

    def refine(
        self, volume: Volume, specialist: Probabilities, sam: Probabilities | None
    ) -> Probabilities:
        """Return the refined probability of each target's region, (D, H, W).

        Args:
            volume: The image.
            specialist: Its probability of each target's region.
            sam: SAM's; targets without a prompt are missing. None when there is no SAM.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """The trained parts of a round, ready to segment any volume.

    Attributes:
        specialist: Predicts first.
        sam_predictor: SAM; None for methods that segment without.
        refiner: Fuses both: adaptation networks, or a rule of `refinement`.
        targets: All targets.
        config: The run's settings.
        lesion_stage: Accepts or rejects candidates; None for methods that keep all.
    """

    specialist: Specialist
    sam_predictor: AutoPromptPredictor | None
    refiner: FusionRule
    targets: tuple[Target, ...]
    config: RunConfig
    lesion_stage: LesionStage | None = None

    def segment(self, volume: Volume, monitor: Monitor | None = None) -> Segmentation:
        """Segment a volume: specialist, prompts, SAM, adaptation network, lesion stage.

        They work on its axial grid; the result lies on the volume's own voxels.

        Raises:
            CancelledError: When asked to stop between two parts.
        """
        axial = axial_volume(volume)
        found, _ = self.predict(axial, monitor or Monitor(), lambda _: None)
        return _as_stored(found, volume.geometry)

    def predict(
        self, volume: Volume, monitor: Monitor, keep: Callable[[VolumeMaps], Kept]
    ) -> tuple[Segmentation, Kept]:
        """Segment a volume on its axial grid, and keep some of what all parts predict.

        Each map of a large volume takes a GiB and more: none lives longer than it is needed.

        Args:
            volume: The image, on its axial grid.
            monitor: Told of the progress within a volume if it is detailed.
            keep: Given the maps of all parts before they go.

        Returns:
            The segmentation, on that grid, and what `keep` returned.

        Raises:
            CancelledError: When asked to stop between two parts.
        """
        stages = self.specialist.predict_stages(volume, monitor)
        probabilities = all_targets(stages)
        prompts = tuple(self.propose_prompts(volume, probabilities))
        of_sam = self._of_sam(volume, probabilities, prompts, monitor)
        classified = self.classify_candidates(volume, stages, of_sam or {})
        del stages
        monitor.check()
        specialist = self._labels(probabilities, volume)
        sam = None if of_sam is None else self._labels(of_sam, volume)
        give_back_memory()  # what was freed in pieces, before the last whole maps
        for _ in monitor.details(["all"], "Refining"):
            refined = self.refiner.refine(volume, probabilities, of_sam)
        alone = refined is probabilities
        effects = effects_on(refined, classified)
        refined = accepted_only(refined, effects) if effects else refined
        is_specialist = refined is probabilities
        kept = keep(VolumeMaps(probabilities, of_sam or {}, refined, effects))
        del probabilities, of_sam, effects
        found = Segmentation(
            specialist=specialist,
            sam=sam,
            refined=specialist if is_specialist else self._labels(refined, volume),
            prompts=prompts,
            probabilities=refined,
            specialist_alone=alone,
            candidates=classified,
        )
        return found, kept

    def classify_candidates(
        self, volume: Volume, stages: Sequence[StagePrediction], sam: Probabilities
    ) -> dict[str, ClassifiedCandidates]:
        """Accept or reject the candidates of the lesion targets; none without a lesion stage.

        Args:
            volume: The image, on its axial grid.
            stages: Predictions of the specialist.
            sam: SAM's probabilities; targets without a prompt are missing.
        """
        if self.lesion_stage is None:
            return {}
        return self.lesion_stage.classify(volume, stages, sam)

    def propose_prompts(self, volume: Volume, probabilities: Probabilities) -> list[SlicePrompts]:
        """Return the prompts for SAM from the specialist's probabilities; none for given masks."""
        if self.sam_predictor is None:
            return []
        proposed = self.sam_predictor.propose_prompts(volume, probabilities, self.targets)
        return [prompt for prompt in proposed if prompt.target not in volume.given]

    def _of_sam(
        self,
        volume: Volume,
        probabilities: Probabilities,
        prompts: Sequence[SlicePrompts],
        monitor: Monitor,
    ) -> Probabilities | None:
        """Return SAM's probability of every target; None without SAM."""
        if self.sam_predictor is None:
            return None
        found = self.sam_predictor.predict(volume, prompts, monitor)
        found |= {name: probabilities[name] for name in volume.given}
        nothing = zeros(volume.geometry.shape)
        return {target.name: found.get(target.name, nothing) for target in self.targets}

    def _labels(self, probabilities: Probabilities, volume: Volume) -> Labelmap:
        return labels_from(probabilities, self.targets, volume, self.config.min_component_ml)


def _as_stored(found: Segmentation, geometry: Geometry) -> Segmentation:
    """Bring a segmentation of an axial grid to the voxels of a volume as it is stored."""
    back = to_axial(geometry).inverse
    if back.is_identity:
        return found
    specialist = back.labelmap(found.specialist, geometry)
    return Segmentation(
        specialist=specialist,
        sam=None if found.sam is None else back.labelmap(found.sam, geometry),
        refined=specialist
        if found.refined is found.specialist
        else back.labelmap(found.refined, geometry),
        prompts=tuple(
            turned_prompts(
                found.prompts, axial_to_slices(geometry), found.specialist.geometry.shape
            )
        ),
        probabilities={name: back.array(values) for name, values in found.probabilities.items()},
        specialist_alone=found.specialist_alone,
        candidates=found.candidates,
    )
