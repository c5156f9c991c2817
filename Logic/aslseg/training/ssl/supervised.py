"""The baseline: labels alone."""

from __future__ import annotations

import torch

from aslseg.preprocessing.patches import Batch
from aslseg.training.ssl.base import Paradigm, Terms


class Supervised(Paradigm):
    """Learns from the labelled patches; unlabelled ones are not drawn."""

    uses_unlabelled = False

    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> Terms:
        """Return the supervised loss; the unlabelled term is zero."""
        supervised = self.on_labelled(self.student, labelled, generator)
        return Terms(supervised, torch.zeros_like(supervised))
