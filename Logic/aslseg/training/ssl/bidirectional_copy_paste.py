"""Bidirectional copy-paste (BCP; Bai et al., CVPR 2023): labelled and unlabelled patches mixed.

A box of an unlabelled patch is put into a labelled one, and a box of a labelled patch into an
unlabelled one. The student is trained on both, on labels in the labelled part and on the averaged
network's labels, which weigh alpha, in the other. In a first part of the schedule labelled patches
are mixed with each other.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aslseg.data.masks import keep_largest
from aslseg.preprocessing.mixing import paste_region
from aslseg.preprocessing.patches import Batch
from aslseg.preprocessing.roi import IGNORED, image_channels
from aslseg.training.losses import (
    average_decay,
    soft_dice_loss,
    update_average,
    weighted_cross_entropy,
)
from aslseg.training.ssl.base import LossTerms, SSLMethod
from aslseg.training.ssl.pseudo_labels import confident_labels, predicted


class BidirectionalCopyPaste(SSLMethod):
    """Mean teacher on patches of which one part is labelled and the other is not."""

    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> LossTerms:
        """Return the loss of the labelled parts and that of the pseudo-labelled ones."""
        own, spatial = self.settings.copy_paste, labelled.inputs.shape[2:]
        region = paste_region(spatial, generator, own.edge_share).to(labelled.inputs.device)
        if unlabelled is None or step < own.pretraining_share * self.settings.iterations:
            return self.pretraining_loss(labelled, region)
        labels = self.pseudo_labels(unlabelled.inputs)
        count = min(len(labels), len(labelled.classes))
        first = count - count // 2
        # The labelled patch lies inside of the box in one half of the patches, around it in the
        # other; a single patch goes one way.
        ways = [(region, slice(first)), (~region, slice(first, count))][: min(count, 2)]
        losses = [
            self.mixed_loss(labelled, unlabelled.inputs, labels, here, part) for here, part in ways
        ]
        supervised, consistency = torch.stack(losses).mean(0)
        return LossTerms(supervised, own.unlabelled_weight * consistency)

    def mixed_loss(
        self,
        labelled: Batch,
        inputs: Tensor,
        labels: Tensor,
        here: Tensor,
        part: slice,
    ) -> Tensor:
        """Return the losses of the labelled and of the pseudo-labelled part of mixed patches: (2,).

        Args:
            labelled: Patches with labels.
            inputs: (B, C, *spatial) unlabelled patches.
            labels: (B, *spatial) pseudo-labels of these.
            here: Bool of the spatial shape, where the labelled patches are.
            part: Which patches of both.
        """
        mixed = torch.where(here, labelled.inputs[part], inputs[part])
        logits = self.logits(self.student, mixed)
        known, weight = labelled.classes[part], labelled.weight[part]
        return torch.stack(
            [region_loss(logits, known, here, weight), region_loss(logits, labels[part], ~here)]
        )

    def after_step(self, step: int) -> None:
        """Update the averaged copy; in the first part of the schedule it is the student itself.

        As released, the network that gives the pseudo-labels starts as the pre-trained student, not
        as an average that includes its first steps.
        """
        begun = step - self.settings.copy_paste.pretraining_share * self.settings.iterations
        decay = average_decay(int(begun), self.settings.ema_decay) if begun >= 0 else 0.0
        update_average(self.average, self.student, decay)

    def pretraining_loss(self, labelled: Batch, region: Tensor) -> LossTerms:
        """Return the loss of labelled patches with a box of the next one in each.

        Args:
            labelled: The patches.
            region: Bool of the spatial shape, where the box is.
        """
        inputs, classes, weight = (
            values.roll(1, 0) for values in (labelled.inputs, labelled.classes, labelled.weight)
        )
        mixed = torch.where(region, inputs, labelled.inputs)
        logits = self.logits(self.student, mixed)
        pasted = region_loss(logits, classes, region, weight)
        around = region_loss(logits, labelled.classes, ~region, labelled.weight)
        supervised = (pasted + around) / 2
        return LossTerms(supervised, supervised * 0)

    def pseudo_labels(self, inputs: Tensor) -> Tensor:
        """Return the averaged network's labels of patches.

        As released, of each class the largest component of a patch is kept; but not in a stage
        within a parent target, where several lesions are the rule (ours).

        Args:
            inputs: (B, C, *spatial).

        Returns:
            (B, *spatial) class numbers; `IGNORED` where the network is not confident, unless the
            settings ask for the published loss.
        """
        probability = predicted(self.average, inputs)
        labels = probability.argmax(1)
        if inputs.shape[1] == image_channels(self.settings):
            labels = largest_components(labels, probability.shape[1])
        if self.settings.unlabelled_loss == "confident":
            unsure = confident_labels(probability, self.settings) == IGNORED
            labels = labels.masked_fill(unsure, IGNORED)
        return labels


def largest_components(labels: Tensor, classes: int) -> Tensor:
    """Keep of each class of each patch its largest component; the rest becomes background.

    Args:
        labels: (B, *spatial) class numbers.
        classes: How many, the background included.
    """
    found = labels.cpu().numpy()
    kept = np.zeros_like(found)
    for patch, result in zip(found, kept, strict=True):
        for number in range(1, classes):
            result[keep_largest(patch == number)] = number
    return torch.from_numpy(kept).to(labels.device)


def region_loss(
    logits: Tensor, classes: Tensor, region: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Return cross entropy plus Dice of a part of each patch.

    Args:
        logits: (B, C, *spatial).
        classes: (B, *spatial) class numbers.
        region: Bool of the spatial shape, over which the cross entropy is averaged.
        weight: (B,) weight of each patch.
    """
    logits = logits.float()
    target = classes.masked_fill(~region, IGNORED)
    cross_entropy = weighted_cross_entropy(logits, target, weight) / region.float().mean()
    return cross_entropy + soft_dice_loss(logits.softmax(1), target, weight)
