"""Whether SAM beats the specialist, target by target, on cases that the specialist never saw.

A method that trains the specialist on SAM's masks gains nothing where these are worse than its own
(ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslseg.context import LabelledVolume, RunContext, labelled_volumes
from aslseg.evaluation.metrics import dice
from aslseg.inference.cascade import Probabilities
from aslseg.prompts import SliceCrop, prompts_from_mask
from aslseg.sam.crops import crops_in_parents, with_crops
from aslseg.sam.patch_prompts import box_and_mask
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.targets import Target, region_mask
from aslseg.training.cross_fitting import OutOfFoldModels

MOST_SLICES = 16
"""So many slices of a case and a target SAM predicts at most."""


@dataclass(frozen=True, slots=True)
class GateScore:
    """Mean Dice of a target on the slices in which an out-of-fold specialist finds it.

    Attributes:
        specialist: Of the specialist's mask.
        sam: Of SAM's, prompted with box and mask of its components.
    """

    specialist: float
    sam: float

    @property
    def opens(self) -> bool:
        """Whether SAM is better."""
        return self.sam > self.specialist


def gate_scores(
    context: RunContext, sam_predictor: VolumeSamPredictor, models: OutOfFoldModels
) -> dict[str, GateScore]:
    """Compare SAM with the specialist on labelled cases.

    Args:
        context: Labelled cases and settings.
        sam_predictor: SAM.
        models: By case id, a specialist that was not trained on the case.

    Returns:
        By target name; targets that no specialist finds anywhere are missing.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    whole = [case for case in context.labelled if case.complete_slices is None]
    cases = [case for case in whole if case.id in models]
    for labelled in labelled_volumes(context, cases, "Comparing SAM with the specialist"):
        volume = labelled.volume
        probabilities = models[labelled.case_id].specialist.predict(volume, context.monitor)
        crops = crops_in_parents(volume, probabilities, context.targets, context.config.sam)
        for target in (
            t for t in context.targets if t.name not in {*volume.given, *labelled.unknown}
        ):
            pair = _compare(context, sam_predictor, labelled, probabilities, crops, target)
            if pair is not None:
                found.setdefault(target.name, []).append(pair)
    return {
        name: GateScore(*(float(np.mean(values)) for values in zip(*pairs, strict=True)))
        for name, pairs in found.items()
    }


def _compare(
    context: RunContext,
    sam_predictor: VolumeSamPredictor,
    labelled: LabelledVolume,
    probabilities: Probabilities,
    crops: Mapping[str, SliceCrop],
    target: Target,
) -> tuple[float, float] | None:
    """Return the Dice of the specialist and of SAM on some slices; None where there are none."""
    truth = region_mask(labelled.labels.labels, target, context.targets)
    shown = np.zeros_like(truth)
    slices = _spread(np.flatnonzero((probabilities[target.name] > 0.5).any(axis=(1, 2))))
    shown[slices] = probabilities[target.name][slices] > 0.5
    settings = box_and_mask(context.config.sam.prompts)
    prompts = prompts_from_mask(shown, target=target.name, settings=settings)
    if not prompts:
        return None
    predicted = sam_predictor.predict(labelled.volume, with_crops(prompts, crops), context.monitor)
    by_sam = predicted[target.name] > 0.5
    return dice(shown[slices], truth[slices]), dice(by_sam[slices], truth[slices])


def _spread(slices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose slices evenly spread over those given."""
    if len(slices) <= MOST_SLICES:
        return slices
    chosen: NDArray[np.int64] = slices[np.linspace(0, len(slices) - 1, MOST_SLICES).astype(int)]
    return chosen
