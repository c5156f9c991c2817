"""Hard pseudo-labels where a network is confident enough; the rest is left out of the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aslseg.config import SpecialistConfig
from aslseg.preprocessing.roi import IGNORED
from aslseg.training.losses import soft_dice_loss, weighted_cross_entropy


@torch.no_grad()
def predicted(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return a network's probabilities without dropout and without a gradient: (B, C, *spatial)."""
    training = network.training
    network.eval()
    probability: Tensor = network(inputs).float().softmax(1)
    network.train(training)
    return probability


def confident_labels(probability: Tensor, settings: SpecialistConfig) -> Tensor:
    """Return the most probable class where its probability reaches the threshold of that class.

    FixMatch (Sohn et al., NeurIPS 2020) and UniMatch (Yang et al., CVPR 2023) have one threshold;
    one for the background and one for all other classes is ours: a network that saw few lesions is
    seldom as sure of one as of the background, and with a single threshold the background alone
    would teach.

    Args:
        probability: (B, C, *spatial).
        settings: With both thresholds.

    Returns:
        (B, *spatial) class numbers; `IGNORED` below the threshold.
    """
    confidence, labels = probability.detach().max(1)
    limit = torch.where(labels == 0, settings.background_confidence, settings.target_confidence)
    return labels.masked_fill(confidence < limit, IGNORED)


def pseudo_label_loss(
    logits: Tensor,
    probability: Tensor,
    settings: SpecialistConfig,
    certain: Tensor | None = None,
) -> Tensor:
    """Return cross entropy plus Dice to another network's confident labels (ours).

    Args:
        logits: (B, C, *spatial) with gradient; 0 is returned for B = 0.
        probability: (B, C, *spatial) of the other network.
        settings: With the thresholds.
        certain: (B, 1, *spatial): voxels that are 0 are left out as well.
    """
    if not len(logits):
        return logits.sum()
    labels = confident_labels(probability, settings)
    if certain is not None:
        labels = labels.masked_fill(certain[:, 0] == 0, IGNORED)
    return confident_loss(logits, labels)


def confident_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return cross entropy plus Dice to confident labels, of the classes that any of them is of.

    Early on no label of a target is confident. Dice of a class without a voxel would then train
    the student to find none of it anywhere (ours).

    Args:
        logits: (B, C, *spatial).
        labels: (B, *spatial) class numbers, or `IGNORED`.

    Returns:
        A scalar.
    """
    logits = logits.float()
    dice = soft_dice_loss(logits.softmax(1), labels, absent=False)
    return weighted_cross_entropy(logits, labels) + dice
