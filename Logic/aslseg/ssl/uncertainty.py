"""UA-MT (Yu et al., MICCAI 2019): a mean teacher that is believed where it is certain."""

from __future__ import annotations

import torch
from torch import Tensor

from aslseg.losses import entropy, uncertainty_threshold
from aslseg.ssl.mean_teacher import MeanTeacher


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
