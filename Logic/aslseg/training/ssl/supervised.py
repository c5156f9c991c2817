"""The baseline: labels alone."""

from __future__ import annotations

import torch

from aslseg.preprocessing.patches import Batch
from aslseg.training.ssl.base import LossTerms, SSLMethod


class Supervised(SSLMethod):
    """The supervised loss alone; no unlabelled patches are sampled."""

    uses_unlabelled = False

    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> LossTerms:
        """Return the supervised loss; the unlabelled term is zero."""
        supervised = self.on_labelled(self.student, labelled, generator)
        return LossTerms(supervised, torch.zeros_like(supervised))
