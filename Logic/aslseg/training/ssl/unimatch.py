"""UniMatch (Yang et al., CVPR 2023): weak-to-strong consistency of images and of features.

The student's confident labels of unlabelled patches as they were drawn are what it is trained on
for the same patches changed strongly, twice, with boxes of other patches in them (CutMix), and for
their features with channels dropped. Weights are those of the release for medical images, which
trains with Dice alone on unlabelled patches; `unlabelled_loss=confident` adds the cross entropy,
and takes labelled patches as CutMix partners too (ours).
"""

from __future__ import annotations

import torch
from torch import Tensor

from aslseg.networks.feature_dropout import dropped_features
from aslseg.preprocessing.mixing import cutmix_boxes
from aslseg.preprocessing.patches import Batch
from aslseg.training.losses import soft_dice_loss
from aslseg.training.ssl.base import LossTerms, SSLMethod
from aslseg.training.ssl.pseudo_labels import confident_labels, confident_loss, predicted

IMAGE_WEIGHT, FEATURE_WEIGHT = 0.25, 0.5
"""Of each of the two strong streams, and of the perturbed features, beside 1 for labelled patches:
(L_x + L_s1 / 4 + L_s2 / 4 + L_fp / 2) / 2 in the release."""
RELEASED_SMOOTH = 1e-5
"""Added above and below in the release's Dice, which averages over all classes."""


class UniMatch(SSLMethod):
    """Trains on the student's own confident labels of weakly changed patches."""

    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> LossTerms:
        """Return the supervised loss and the ramped losses of both kinds of perturbation."""
        supervised = self.on_labelled(self.student, labelled)
        if unlabelled is None:
            return LossTerms(supervised, supervised * 0)
        probability = predicted(self.student, unlabelled.inputs)
        labels = confident_labels(probability, self.settings)
        with dropped_features(self.student, self.settings.unimatch.feature_dropout):
            perturbed = self.student(unlabelled.inputs)
        consistency = FEATURE_WEIGHT * self.pseudo_label_loss(perturbed, labels)
        for _ in range(2):
            inputs, mixed = self.strong(labelled, unlabelled.inputs, labels, generator)
            loss = self.pseudo_label_loss(self.logits(self.student, inputs), mixed)
            consistency = consistency + IMAGE_WEIGHT * loss
        return LossTerms(supervised, self.consistency_weight(step) * consistency)

    def pseudo_label_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a stream, on the scale of the supervised one.

        The release's supervised term is half of CE + Dice and its unlabelled one is Dice, so next
        to our whole CE + Dice its Dice counts twice.

        Args:
            logits: (B, C, *spatial).
            labels: (B, *spatial) class numbers, or `IGNORED`.

        Returns:
            A scalar.
        """
        if self.settings.unlabelled_loss == "confident":
            return confident_loss(logits, labels)
        probability = logits.float().softmax(1)
        return 2 * soft_dice_loss(probability, labels, smooth=RELEASED_SMOOTH, background=True)

    def strong(
        self, labelled: Batch, inputs: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Change patches strongly and put boxes of others into them.

        Args:
            labelled: Patches that may be partners, with their labels (not in the release).
            inputs: (B, C, *spatial) unlabelled patches.
            labels: (B, *spatial) pseudo-labels of these.
            generator: Source of randomness.

        Returns:
            (B, C, *spatial) inputs and (B, *spatial) labels.
        """
        own = self.settings.unimatch
        pool, classes = inputs, labels
        if self.settings.unlabelled_loss == "confident":
            pool = torch.cat([inputs, labelled.inputs])
            classes = torch.cat([labels, labelled.classes])
        steps = torch.randint(1, max(len(pool), 2), (len(inputs),), generator=generator)
        partner = ((torch.arange(len(inputs)) + steps) % len(pool)).to(inputs.device)
        boxes = cutmix_boxes(inputs.shape, generator, own.cutmix_share).to(inputs.device)
        strong = self.perturb(inputs, generator, own.strength)
        others = self.perturb(pool[partner], generator, own.strength)
        mixed = torch.where(boxes[:, None], others, strong)
        return mixed, torch.where(boxes, classes[partner], labels)
