"""Mean teacher (Tarvainen and Valpola, NeurIPS 2017): consistency with the averaged network."""

from __future__ import annotations

import torch
from torch import Tensor

from aslseg.preprocessing.patches import Batch
from aslseg.training.losses import consistency_loss, entropy, supervised_loss, uncertainty_threshold
from aslseg.training.ssl.base import LossTerms, SSLMethod, both_inputs


class MeanTeacher(SSLMethod):
    """Adds the squared difference of the student's probabilities to the averaged network's."""

    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> LossTerms:
        """Return the supervised loss and the ramped squared difference to the teacher."""
        inputs = both_inputs(labelled, unlabelled)
        logits = self.student(self.perturb(inputs, generator)).float()
        count = len(labelled.classes)
        supervised = supervised_loss(logits[:count], labelled.classes, labelled.weight)
        teacher, mask = self.teacher(inputs, step, generator)
        probability = logits.softmax(1)
        consistency = self.consistency_weight(step) * consistency_loss(probability, teacher, mask)
        auxiliary = self.auxiliary_terms(probability[count:], unlabelled, step, generator)
        return LossTerms(supervised, consistency, auxiliary)

    @torch.no_grad()
    def teacher(
        self, inputs: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Return the teacher's probabilities on noisy inputs, and no mask."""
        self.average.train()
        return self.average(self.noisy(inputs, generator)).float().softmax(1), None


class UncertaintyAwareMeanTeacher(MeanTeacher):
    """Masks the consistency term by the entropy of several noisy passes with dropout."""

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
