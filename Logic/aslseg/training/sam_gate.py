"""Whether SAM beats the specialist, target by target, on cases that the specialist never saw.

A method that trains the specialist on SAM's masks gains nothing where these are worse than its own
(ours).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslseg.context import RunContext
from aslseg.data.volume import Mask, Volume
from aslseg.evaluation.metrics import dice
from aslseg.inference.cascade import Probabilities
from aslseg.prompts import prompts_from_mask
from aslseg.sam.crops import crops_in_parents, with_crops
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.targets import Target, region_mask
from aslseg.training.cross_fitting import OutOfFoldModels

MOST_SLICES = 16
"""Of a case and a target SAM is asked on at most so many slices."""


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
    for case in context.labelled:
        if case.id not in models:
            continue
        volume, labels = context.image(case), context.labels(case).labels
        probabilities = models[case.id].specialist.predict(volume, context.monitor)
        for target in context.targets:
            pair = _compare(
                context, sam_predictor, volume, probabilities, target,
                region_mask(labels, target, context.targets),
            )  # fmt: skip
            if pair is not None:
                found.setdefault(target.name, []).append(pair)
    return {
        name: GateScore(*(float(np.mean(values)) for values in zip(*pairs, strict=True)))
        for name, pairs in found.items()
    }


def _compare(
    context: RunContext,
    sam_predictor: VolumeSamPredictor,
    volume: Volume,
    probabilities: Probabilities,
    target: Target,
    truth: Mask,
) -> tuple[float, float] | None:
    """Return the Dice of the specialist and of SAM on some slices; None where there are none."""
    settings = context.config.sam
    shown = np.zeros_like(truth)
    slices = _spread(np.flatnonzero((probabilities[target.name] > 0.5).any(axis=(1, 2))))
    shown[slices] = probabilities[target.name][slices] > 0.5
    box_and_mask = settings.prompts.model_copy(
        update={"positive_points": 0, "negative_points": 0, "use_mask": True}
    )
    prompts = prompts_from_mask(shown, target=target.name, settings=box_and_mask)
    if not prompts:
        return None
    crops = crops_in_parents(volume, probabilities, context.targets, settings)
    answer = sam_predictor.predict(volume, with_crops(prompts, crops), context.monitor)
    by_sam = answer[target.name] > 0.5
    return dice(shown[slices], truth[slices]), dice(by_sam[slices], truth[slices])


def _spread(slices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose slices evenly spread over those given."""
    if len(slices) <= MOST_SLICES:
        return slices
    chosen: NDArray[np.int64] = slices[np.linspace(0, len(slices) - 1, MOST_SLICES).astype(int)]
    return chosen
