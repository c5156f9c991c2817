"""CPC-SAM: two decoders of one SAM prompt each other, and pseudo-label unlabelled images.

After Miao et al., "Cross Prompting Consistency with Segment Anything Model for Semi-supervised
Medical Image Segmentation" (arXiv 2407.05416, MICCAI 2024).

A step: (1) both decoders, without any prompt, have a supervised loss; for the first part of the
schedule that is all. (2) Of the second decoder's map without a prompt, the largest component of
each class gives a point deep inside it and a random one; the first decoder is prompted with either.
Both predictions have a supervised loss. On unlabelled patches, the mean of both is a hard label for
the second decoder without a prompt (cross prompting), and for the first one with the random point
(prompt consistency). (3) The same with the decoders exchanged.

SAM is the specialist here: there is no U-Net. The prediction is the mean of both decoders without
prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aslseg.config import CpcSamConfig, SpecialistConfig, SSLName
from aslseg.context import RunContext
from aslseg.data.masks import keep_largest
from aslseg.data.volume import Mask
from aslseg.inference.loading import cpcsam_networks
from aslseg.methods.baseline import run_with
from aslseg.preprocessing.patches import Batch
from aslseg.prompts import XY, interior_points
from aslseg.sam.classwise import ABSENT, POSITIVE, ClassPoints, stacked_points
from aslseg.sam.two_decoders import DECODERS, TwoDecoderSam
from aslseg.targets import CascadeStage
from aslseg.training.losses import soft_dice_loss, weighted_cross_entropy
from aslseg.training.rounds import Round, RoundOutcome
from aslseg.training.ssl.base import LossTerms, SSLMethod, both_inputs
from aslseg.training.trainer import OptimizerSpec

DICE_WEIGHT = 0.8
"""Of Dice, beside the cross entropy, in the supervised loss; as released."""
PSEUDO_DICE_WEIGHT = 0.5
"""The same in the loss of pseudo-labels; as released."""


def run_round(context: RunContext, this: Round) -> RoundOutcome:
    """Train SAM's two decoders on each other's predictions, and segment with both.

    Args:
        context: Cases, settings, device, listener.
        this: Number and folder of the round, and the outcome of the round before.

    Raises:
        ConfigError: When the settings have no SAM, or a network of three dimensions.
    """
    network = cpcsam_networks(context)

    def build(_: SSLName, stage: CascadeStage, settings: SpecialistConfig) -> SSLMethod:
        return CrossPrompting(lambda: network(stage, settings), settings, context.config.cpcsam)

    return run_with(context, this, build, network, is_single=True)


@dataclass(frozen=True, slots=True, eq=False)
class CrossPromptingLosses:
    """The losses of one decoder prompted by the other.

    Attributes:
        prompted: Of the prompted decoder, with either point, on labelled patches.
        cross: Of the decoder without prompts, on unlabelled ones.
        consistency: Of the one with random points, on unlabelled ones.
    """

    prompted: Tensor
    cross: Tensor
    consistency: Tensor


class CrossPrompting(SSLMethod):
    """Each decoder is prompted by the other one, and pseudo-labels for it.

    Args:
        build: Builds a `TwoDecoderSam`.
        settings: Of the stage.
        own: Settings of the method.
    """

    student: TwoDecoderSam

    def __init__(
        self, build: Callable[[], nn.Module], settings: SpecialistConfig, own: CpcSamConfig
    ) -> None:
        super().__init__(build, settings)
        self.own = own

    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> LossTerms:
        """Return the supervised losses, those of cross prompting, and the consistency.

        The release takes an optimiser step after each of the three parts; here their sum is one.
        """
        inputs = both_inputs(labelled, unlabelled)
        embeddings = self.student.embed(inputs)
        unprompted = [self.student.decode(n, embeddings) for n in range(DECODERS)]
        supervised = torch.stack(
            [labelled_loss(probabilities, labelled) for probabilities in unprompted]
        ).sum()
        if step < self.own.supervised_share * self.settings.iterations:
            return LossTerms(supervised, torch.zeros_like(supervised))

        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        crossed = [
            self.crossed(1 - prompter, probabilities, embeddings, labelled, rng)
            for prompter, probabilities in enumerate(unprompted)
        ]
        cross = torch.stack([one.cross for one in crossed]).sum()
        consistency = torch.stack([one.consistency for one in crossed]).sum()
        further = {
            "prompted": torch.stack([one.prompted for one in crossed]).sum(),
            "prompt_consistency": self.own.prompt_weight * consistency,
        }
        return LossTerms(supervised, self.own.cross_weight * cross, further)

    def crossed(
        self,
        prompted: int,
        unprompted: Tensor,
        embeddings: Tensor,
        labelled: Batch,
        rng: np.random.Generator,
    ) -> CrossPromptingLosses:
        """Prompt a decoder by the other one's map, and pseudo-label for that one.

        Args:
            prompted: Number of the decoder.
            unprompted: (B, C, edge, edge) logits of the other one, labelled patches first.
            embeddings: Of the B patches.
            labelled: The labelled patches.
            rng: Of the random points.
        """
        found = unprompted.detach().argmax(1).cpu().numpy()
        deep, random = (
            self.student.decode(prompted, embeddings, points)
            for points in points_of(found, unprompted.shape[1], rng)
        )
        # argmax of the sum is that of the mean; hard, and without a gradient.
        pseudo_label = (deep.softmax(1) + random.softmax(1)).detach().argmax(1)
        count = len(labelled.classes)
        return CrossPromptingLosses(
            labelled_loss(deep, labelled) + labelled_loss(random, labelled),
            pseudo_loss(unprompted[count:], pseudo_label[count:]),
            pseudo_loss(random[count:], pseudo_label[count:]),
        )

    def configure_optimizers(self) -> Sequence[OptimizerSpec]:
        """Return one optimiser for all that is trained of SAM."""
        own, trained = self.own, [p for p in self.student.parameters() if p.requires_grad]
        warmup = round(own.warmup_share * self.settings.iterations)
        return (
            OptimizerSpec(trained, "adamw", own.learning_rate, own.weight_decay, warmup=warmup),
        )


def points_of(
    found: NDArray[np.int64], number: int, rng: np.random.Generator
) -> tuple[ClassPoints, ClassPoints]:
    """Point at the largest component of each class: deep inside it, and at random in it.

    Args:
        found: (B, h, w) class numbers.
        number: How many classes there are, the background included.
        rng: Of the random points.

    Returns:
        Both with one point for each class and picture, `ABSENT` where a picture has none of it.
    """
    parts = [[keep_largest(shown == c) for c in range(number)] for shown in found]
    deep = [[_labelled_points(interior_points(part, 1)) for part in of_one] for of_one in parts]
    random = [[_labelled_points(_random_point(part, rng)) for part in of_one] for of_one in parts]
    return stacked_points(deep), stacked_points(random)


def _random_point(part: Mask, rng: np.random.Generator) -> list[XY]:
    locations = np.argwhere(part)
    if not len(locations):
        return []
    row, column = locations[rng.integers(len(locations))].tolist()
    return [(column + 0.5, row + 0.5)]


def _labelled_points(points: Sequence[XY]) -> list[tuple[XY, int]]:
    return [(xy, POSITIVE) for xy in points] or [((0.0, 0.0), ABSENT)]


def labelled_loss(logits: Tensor, labelled: Batch) -> Tensor:
    """Return 0.2 CE + 0.8 Dice on the labelled patches, which come first.

    Args:
        logits: (B, C, edge, edge).
        labelled: Some patches, at most B.
    """
    known = logits[: len(labelled.classes)]
    return _mixed(known, labelled.classes, DICE_WEIGHT, labelled.weight)


def pseudo_loss(logits: Tensor, pseudo_label: Tensor) -> Tensor:
    """Return 0.5 (CE + Dice) of hard labels (B, edge, edge); zero without any patch."""
    return _mixed(logits, pseudo_label, PSEUDO_DICE_WEIGHT) if len(logits) else logits.sum()


def _mixed(
    logits: Tensor, classes: Tensor, dice_weight: float, weight: Tensor | None = None
) -> Tensor:
    entropy = weighted_cross_entropy(logits, classes, weight)
    dice = soft_dice_loss(logits.softmax(1), classes, weight)
    return (1 - dice_weight) * entropy + dice_weight * dice
