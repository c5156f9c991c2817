"""What all SSL methods share: a student, and the moving average of its weights; labels alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from aslseg.config import SpecialistConfig
from aslseg.networks.checkpoints import copy_sharing_frozen
from aslseg.preprocessing.augmentation import apply_intensity, sample_intensity
from aslseg.preprocessing.patches import Batch, TrainingCase
from aslseg.preprocessing.roi import image_channels
from aslseg.training.losses import average_decay, ramp_up, supervised_loss, update_average
from aslseg.training.recorded_network import NetworkRecorder
from aslseg.training.trainer import OptimizerSpec


@dataclass(frozen=True, slots=True)
class LossTerms:
    """The parts of a step's loss, scalars; the whole is their sum, weights included.

    Attributes:
        supervised: On labelled patches.
        unlabelled: On unlabelled patches, of the SSL method.
        further: Terms that a method adds, by name.
    """

    supervised: Tensor
    unlabelled: Tensor
    further: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The loss that is differentiated."""
        return sum(self.further.values(), self.supervised + self.unlabelled)

    def named(self) -> dict[str, Tensor]:
        """Return the parts by name, for curves."""
        return {"supervised": self.supervised, "unlabelled": self.unlabelled, **self.further}

    def shares(self) -> dict[str, Tensor]:
        """Return each part but the supervised one as a share of the whole, for curves."""
        whole = self.total.detach().clamp(min=1e-12)
        parts = {"unlabelled": self.unlabelled, **self.further}
        return {f"share_{name}": part.detach() / whole for name, part in parts.items()}


class AuxiliaryLoss(Protocol):
    """A further loss on unlabelled patches; it has no state that is trained or saved."""

    name: str

    def setup(self, cases: Sequence[TrainingCase]) -> None:
        """Prepare for the cases that unlabelled patches are cut from; called once."""

    def loss(
        self, probability: Tensor, unlabelled: Batch, step: int, generator: torch.Generator
    ) -> Tensor:
        """Return the term that is added to the loss, weight included.

        Args:
            probability: (B, C, *spatial) of the student, with gradient.
            unlabelled: The patches.
            step: Steps done before this one.
            generator: Source of all randomness of the step.
        """


class SSLMethod(nn.Module):
    """A student network, its averaged copy, and the loss of a step.

    The averaged copy (exponential moving average of the weights, `ema_decay`) is what all methods
    use for inference, so that no row of a comparison owes its place to averaging.

    Args:
        build: Makes one untrained network.
        settings: Of the stage.
    """

    uses_unlabelled = True
    auxiliary_losses: tuple[AuxiliaryLoss, ...] = ()
    recorder: NetworkRecorder | None = None

    def __init__(self, build: Callable[[], nn.Module], settings: SpecialistConfig) -> None:
        super().__init__()
        self.settings = settings
        self.student = build()
        self.average = copy_sharing_frozen(self.student).requires_grad_(False)

    @property
    def unlabelled_draws(self) -> int:
        """How many unlabelled patches the loss is given for each labelled one."""
        return 1

    @abstractmethod
    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> LossTerms:
        """Return the loss of one step.

        Args:
            labelled: Patches with labels.
            unlabelled: Patches without; None if the method uses none.
            step: Steps done before this one.
            generator: Source of all randomness of the step.
        """

    def setup(self, cases: Sequence[TrainingCase]) -> None:
        """Prepare the auxiliary losses for the cases of the unlabelled patches."""
        for auxiliary in self.auxiliary_losses:
            auxiliary.setup(cases)

    def auxiliary_terms(
        self, probability: Tensor, batch: Batch | None, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the auxiliary losses of the student's probabilities, by name.

        Args:
            probability: (B, C, *spatial) of the student.
            batch: The patches; None without any.
            step: Of the training.
            generator: Source of randomness.

        Returns:
            Scalars by name.
        """
        if batch is None:
            return {}
        return {
            auxiliary.name: auxiliary.loss(probability, batch, step, generator)
            for auxiliary in self.auxiliary_losses
        }

    def configure_optimizers(self) -> Sequence[OptimizerSpec]:
        """Return groups of parameters with their optimisers; none means one optimiser for all."""
        return ()

    def save_more(self, folder: Path, stage_name: str) -> None:
        """Write what was trained beside the specialist, once the schedule is done."""

    def after_step(self, step: int) -> None:
        """Update the averaged copy."""
        update_average(self.average, self.student, average_decay(step, self.settings.ema_decay))

    def perturb(self, inputs: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
        """Return the inputs with changed intensities; the parent mask is not changed.

        Args:
            inputs: (B, C, *spatial).
            generator: Source of randomness.
            strength: Of contrast and brightness, beside what the settings say.
        """
        images = image_channels(self.settings)
        drawn = sample_intensity(
            inputs[:, :images].shape, generator, self.settings.perturbation_strength
        )
        contrast, brightness = drawn.contrast**strength, drawn.brightness * strength
        change = replace(drawn, contrast=contrast, brightness=brightness)
        return torch.cat([apply_intensity(inputs[:, :images], change), inputs[:, images:]], 1)

    def noisy(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Return inputs (B, C, *spatial) with noise: normal, clipped at two deviations."""
        images = image_channels(self.settings)
        sd = self.settings.teacher_noise
        noise = torch.randn(inputs[:, :images].shape, generator=generator) * sd
        noise = noise.clamp(-2 * sd, 2 * sd).to(inputs)
        return torch.cat([inputs[:, :images] + noise, inputs[:, images:]], 1)

    def consistency_weight(self, step: int) -> float:
        """Return the weight of the unlabelled term, ramped up over the schedule."""
        length = self.settings.rampup_share * self.settings.iterations
        return self.settings.consistency_weight * ramp_up(step, length)

    def logits(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Return what a trained network gives, from its recorded passes where that is the same.

        Args:
            network: The student, or another one that has a gradient.
            inputs: (B, C, *spatial).

        Returns:
            (B, classes, *spatial), to be used in this step alone.
        """
        if self.recorder is not None:
            return self.recorder(network, inputs)
        found: Tensor = network(inputs)
        return found

    def on_labelled(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the supervised loss of a network on labelled patches, a scalar."""
        logits = self.logits(network, batch.inputs)
        return supervised_loss(logits, batch.classes, batch.weight)


def both_inputs(labelled: Batch, unlabelled: Batch | None) -> Tensor:
    """Stack labelled and unlabelled patches, in this order: (B, C, *spatial)."""
    if unlabelled is None:
        return labelled.inputs
    return torch.cat([labelled.inputs, unlabelled.inputs])


class Supervised(SSLMethod):
    """The supervised loss alone; no unlabelled patches are sampled."""

    uses_unlabelled = False

    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> LossTerms:
        """Return the supervised loss; the unlabelled term is zero."""
        supervised = self.on_labelled(self.student, labelled)
        return LossTerms(supervised, torch.zeros_like(supervised))
