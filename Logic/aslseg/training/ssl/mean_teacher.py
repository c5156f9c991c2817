"""Mean teacher (Tarvainen and Valpola, NeurIPS 2017): consistency with the averaged network.

Published is the squared difference of the probabilities over all voxels. With
`unlabelled_loss=confident` the averaged network's confident labels are trained on instead (ours):
the mean over all voxels of a squared difference is a few parts in a thousand where nearly all of
them are background.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aslseg.preprocessing.patches import Batch
from aslseg.training.losses import consistency_loss, entropy, supervised_loss, uncertainty_threshold
from aslseg.training.ssl.base import LossTerms, SSLMethod
from aslseg.training.ssl.pseudo_labels import pseudo_label_loss


class MeanTeacher(SSLMethod):
    """Adds a loss of the student's predictions against the averaged network's."""

    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> LossTerms:
        """Return the supervised loss and the ramped loss against the teacher."""
        if unlabelled is None:
            supervised = self.on_labelled(self.student, labelled)
            return LossTerms(supervised, supervised * 0)
        inputs = torch.cat([labelled.inputs, self.perturb(unlabelled.inputs, generator)])
        logits = self.logits(self.student, inputs).float()
        count = len(labelled.classes)
        supervised = supervised_loss(logits[:count], labelled.classes, labelled.weight)
        teacher, mask = self.teacher(unlabelled.inputs, step, generator)
        probability = logits[count:].softmax(1)
        if self.settings.unlabelled_loss == "published":
            consistency = consistency_loss(probability, teacher, mask)
        else:
            consistency = pseudo_label_loss(logits[count:], teacher, self.settings, mask)
        auxiliary = self.auxiliary_terms(probability, unlabelled, step, generator)
        return LossTerms(supervised, self.consistency_weight(step) * consistency, auxiliary)

    @torch.no_grad()
    def teacher(
        self, inputs: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Return the teacher's probabilities on noisy inputs, and no mask.

        Args:
            inputs: (B, C, *spatial).
            step: Of the training.
            generator: Source of randomness.

        Returns:
            (B, classes, *spatial), and None.
        """
        self.average.train()
        return self.average(self.noisy(inputs, generator)).float().softmax(1), None


class UncertaintyAwareMeanTeacher(MeanTeacher):
    """Leaves voxels out by the entropy of several noisy passes with dropout."""

    @torch.no_grad()
    def teacher(
        self, inputs: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Return the teacher's probabilities and the mask of certain voxels, (B, 1, *spatial)."""
        target, _ = super().teacher(inputs, step, generator)
        passes = [
            self.average(self.noisy(inputs, generator)).float().softmax(1)
            for _ in range(self.settings.uncertainty_passes)
        ]
        uncertainty = entropy(torch.stack(passes).mean(0))
        limit = uncertainty_threshold(step / self.settings.iterations, target.shape[1])
        return target, (uncertainty < limit).to(target)
