"""Cross pseudo supervision (Chen et al., CVPR 2021): each network pseudo-labels for the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.config import SpecialistConfig
from aslseg.preprocessing.patches import Batch
from aslseg.training.losses import supervised_loss
from aslseg.training.ssl.base import LossTerms, SSLMethod, both_inputs
from aslseg.training.ssl.pseudo_labels import pseudo_label_loss


class CrossPseudoSupervision(SSLMethod):
    """Two students of one architecture; each trained on the other's hard pseudo-labels.

    The first one, averaged over the steps, predicts.
    """

    def __init__(self, build: Callable[[], nn.Module], settings: SpecialistConfig) -> None:
        super().__init__(build, settings)
        self.partner = build()

    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> LossTerms:
        """Return both supervised losses and the ramped losses on the other's labels."""
        inputs = both_inputs(labelled, unlabelled)
        count = len(labelled.classes)
        first, second = (
            self.logits(network, inputs).float() for network in (self.student, self.partner)
        )
        supervised = torch.stack(
            [supervised_loss(o[:count], labelled.classes, labelled.weight) for o in (first, second)]
        ).sum()
        crossed = self.pseudo_label_loss(first[count:], second[count:]) + self.pseudo_label_loss(
            second[count:], first[count:]
        )
        return LossTerms(supervised, self.consistency_weight(step) * crossed)

    def pseudo_label_loss(self, logits: Tensor, other: Tensor) -> Tensor:
        """Return the loss on the labels of another network's logits; 0 for no patches.

        Published is the cross entropy to all of them; `unlabelled_loss=confident` takes cross
        entropy plus Dice to the confident ones (ours).

        Args:
            logits: (B, C, *spatial).
            other: (B, C, *spatial).

        Returns:
            A scalar.
        """
        if not len(logits):
            return logits.sum()
        if self.settings.unlabelled_loss == "published":
            return F.cross_entropy(logits, other.detach().argmax(1))
        return pseudo_label_loss(logits, other.softmax(1), self.settings)
