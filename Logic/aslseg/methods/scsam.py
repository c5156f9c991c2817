"""SC-SAM: a U-Net and a SAM with adapters pseudo-label unlabelled images for each other.

After Vu et al., "From Specialist to Generalist" (arXiv 2601.17934, ISBI 2026).

A step: (1) the U-Net labels all patches, labelled ones changed weakly and unlabelled ones strongly;
(2) of each class, points inside and outside of its label prompt SAM on the same patches, and a
softmax over SAM's masks makes them one map; (3) both have a supervised loss on labelled patches; on
unlabelled ones each is trained on the other's hard map, the U-Net with full weight, SAM with a
weight that rises; (4) the U-Net's entropy may be a further loss. Each has an optimiser of its own.

With correct point coordinates the two confirm each other: an error of the U-Net becomes points,
SAM's mask around them, and a label for the U-Net. What breaks that loop is ours: a warm-up on
labels alone, points that are often withheld, labels only where the other is confident, and
unlabelled patches that show as much of the target as labelled ones.

The prediction is SAM's, prompted from the U-Net's map; the U-Net's is reported beside it.

Where SAM learns less well than the U-Net it is a worse teacher than none. So cross-fitted ones are
compared before, and unless SAM's label maps are better for each target than those of one that was
trained alone, the round trains that one (ours).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aslseg.config import ScSamConfig, SpecialistConfig, SSLName
from aslseg.context import RunContext
from aslseg.inference.classwise_sam import picture01
from aslseg.inference.loading import (
    build_classwise,
    load_classwise,
    required_sam_predictor,
    scsam_ensemble,
)
from aslseg.methods.aslseg import training_plan_of
from aslseg.methods.baseline import lesion_stage_of, run_with
from aslseg.networks.checkpoints import Checkpoint, save_checkpoint, scsam_path
from aslseg.networks.unet import build_network
from aslseg.preprocessing.augmentation import apply_holes, apply_warp, sample_holes, sample_warp
from aslseg.preprocessing.patches import Batch
from aslseg.preprocessing.roi import image_channels
from aslseg.sam.classwise import ABSENT, ClasswiseSam, random_points
from aslseg.sam.tuning import trainable_state
from aslseg.targets import CascadeStage
from aslseg.training.cascade import Build, default_ssl_method, train_cascade
from aslseg.training.co_training_gate import LoadTogether, co_trained_before, passes_gate
from aslseg.training.losses import entropy, ramp_up, supervised_loss
from aslseg.training.rounds import Round, RoundOutcome, finish_round
from aslseg.training.ssl.base import LossTerms, SSLMethod
from aslseg.training.ssl.pseudo_labels import confident_labels, predicted
from aslseg.training.trainer import OptimizerSpec

WEAK_HOLES, STRONG_HOLES = ((5, 8), 0.5), ((10, 20), 0.7)
"""How many holes, and in which part of the patches; as released."""
WARPED = 0.5
"""Part of the unlabelled patches that is warped; as released."""


def run_round(context: RunContext, this: Round) -> RoundOutcome:
    """Train U-Net and SAM together, and segment with SAM; or the U-Net alone where that is better.

    Args:
        context: Cases, settings, device, listener.
        this: Number and folder of the round, and the outcome of the round before.

    Raises:
        ConfigError: When the settings have no SAM.
    """
    required_sam_predictor(context)  # also for a specialist that is trained alone in the end
    first = training_plan_of(context, this, co_training(context))
    if context.config.scsam.gate and not passes_gate(context, this, first, _with_sam(context)):
        return run_with(context, this, default_ssl_method)
    build = co_training(context, co_trained_before(context, this))
    plan = replace(training_plan_of(context, this, build), is_single=True)
    trained = train_cascade(context, plan)
    lesion_stage = lesion_stage_of(context, replace(plan, build=first.build), trained)
    ensemble = scsam_ensemble(context, trained.specialist, this.folder, lesion_stage)
    return finish_round(context, this, ensemble, trained.earlier)


def co_training(context: RunContext, known: Path | None = None) -> Build:
    """Return a function that builds the co-training of a stage.

    Args:
        context: Settings, cache, device, monitor.
        known: Folder of the round whose SAM goes on; None starts with released weights.
    """

    def build(_: SSLName, stage: CascadeStage, settings: SpecialistConfig) -> SSLMethod:
        sam = build_classwise(context, stage)
        if known is not None:
            load_classwise(sam, scsam_path(known, stage.name))
        torch.manual_seed(context.config.seed)  # the U-Net starts as that of every other method
        return CoTraining(
            lambda: build_network(stage, settings), settings, sam, context.config.scsam
        )

    return build


def _with_sam(context: RunContext) -> LoadTogether:
    """Return a function that puts a specialist and the SAM of a folder together."""
    return lambda specialist, folder: scsam_ensemble(context, specialist, folder, None)


class CoTraining(SSLMethod):
    """Student and SAM, each trained on the other's pseudo-labels of unlabelled patches."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        settings: SpecialistConfig,
        sam: ClasswiseSam,
        own: ScSamConfig,
    ) -> None:
        super().__init__(build, settings)
        self.sam_predictor = sam
        self.own = own

    def loss(
        self, labelled: Batch, unlabelled: Batch | None, step: int, generator: torch.Generator
    ) -> LossTerms:
        """Return both supervised losses, both mutual ones, and the U-Net's entropy."""
        count, mutual = len(labelled.classes), step >= self.warmup_steps
        unlabelled = self.richest(unlabelled, count) if unlabelled and mutual else None
        inputs = self.changed(labelled, unlabelled, generator)
        unet = self.logits(self.student, inputs).float()
        supervised = supervised_loss(unet[:count], labelled.classes, labelled.weight)

        # SAM's input are slices: of blocks some planes, and the rest is about these.
        seen, unet_seen, classes, weight = self.planes(
            (inputs, unet, labelled.classes, labelled.weight), generator
        )
        sam = self.predict(seen, unet_seen.detach().argmax(1), generator)
        known = len(classes)
        supervised_sam = supervised_loss(sam[:known], classes, weight)

        further = {}
        if self.own.entropy_weight:
            further["entropy"] = self.own.entropy_weight * mean_entropy(unet)
        unet_loss = unet.sum() * 0
        if unlabelled is not None:
            sam_labels, unet_labels = self.labels(sam[known:]), self.labels(unet_seen[known:])
            unet_loss = supervised_loss(unet_seen[known:], sam_labels)
            sam_loss = supervised_loss(sam[known:], unet_labels)
            further["sam_loss"] = self.sam_weight(step) * sam_loss
        return LossTerms(supervised + supervised_sam, unet_loss, further)

    @property
    def warmup_steps(self) -> float:
        """Steps at the start in which labels alone are trained on."""
        return self.own.warmup_share * self.settings.iterations

    @property
    def unlabelled_draws(self) -> int:
        """How many unlabelled patches are drawn for each that is used."""
        return self.own.unlabelled_draws

    def labels(self, logits: Tensor) -> Tensor:
        """Return hard labels of logits, without a gradient; as published, of all pixels.

        Args:
            logits: (B, C, *spatial).

        Returns:
            (B, *spatial) class numbers; with `confident`, `IGNORED` where they are in doubt.
        """
        if not self.own.confident:
            return logits.detach().argmax(1)
        return confident_labels(logits.detach().softmax(1), self.settings)

    def richest(self, drawn: Batch, count: int) -> Batch:
        """Choose unlabelled patches, of which as many show the target as of labelled ones.

        Labelled patches are centred on components in a part of the batch (`lesion_share`). So large
        a part are the patches in which the averaged U-Net finds most of any target, and the rest
        are the first ones of the others.

        Args:
            drawn: More patches than are wanted.
            count: How many are wanted.
        """
        if len(drawn.inputs) <= count:
            return drawn
        found = (predicted(self.average, drawn.inputs).argmax(1) > 0).flatten(1).sum(1)
        order = torch.argsort(found, descending=True, stable=True).tolist()
        centred = [n for n in order[: math.ceil(self.settings.lesion_share * count)] if found[n]]
        others = [n for n in range(len(found)) if n not in centred]
        chosen = [*centred, *others[: count - len(centred)]]
        return Batch(
            drawn.inputs[chosen],
            drawn.classes[chosen],
            drawn.weight[chosen],
            tuple(drawn.locations[n] for n in chosen) if drawn.locations else (),
        )

    def sam_weight(self, step: int) -> float:
        """Return the weight of SAM's loss on the U-Net's labels: exp(-5 (1 - t/length)^2)."""
        length = self.own.rampup_share * self.settings.iterations
        return ramp_up(step - self.warmup_steps, length)

    def predict(self, inputs: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Predict all classes with SAM, prompted by random points of a map.

        Args:
            inputs: (B, channels, h, w) of the U-Net; SAM's is the middle slice.
            classes: (B, h, w) the U-Net's map. True labels are never used for points.
            generator: Source of randomness of the points.

        Returns:
            (B, C, h, w) logits.
        """
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        images = image_channels(self.settings)
        middle = inputs[:, images // 2]
        picture = picture01(middle, has_parent=inputs.shape[1] > images)
        count = self.own.points
        points = random_points(classes.cpu().numpy(), self.sam_predictor.classes, count, rng)
        withheld = torch.from_numpy(rng.random(len(classes)) < self.own.dropped_points)
        labels = points.labels.masked_fill(withheld[:, None, None], ABSENT)
        points = replace(points, labels=labels)
        embeddings = self.sam_predictor.embed(picture)
        return self.sam_predictor.decode(embeddings, points, inputs.shape[-1])

    def changed(
        self, labelled: Batch, unlabelled: Batch | None, generator: torch.Generator
    ) -> Tensor:
        """Return all patches, labelled ones changed weakly and unlabelled ones strongly.

        Returns:
            (B, C, *spatial), the labelled ones first.
        """
        weak = self._with_holes(labelled.inputs, WEAK_HOLES, generator)
        if unlabelled is None:
            return weak
        inputs = unlabelled.inputs
        warped = apply_warp(inputs, sample_warp(inputs.shape, generator, WARPED))
        recoloured = self.perturb(warped, generator, self.own.strength)
        return torch.cat([weak, self._with_holes(recoloured, STRONG_HOLES, generator)])

    def _with_holes(
        self,
        inputs: Tensor,
        holes: tuple[tuple[int, int], float],
        generator: torch.Generator,
    ) -> Tensor:
        images = image_channels(self.settings)
        sampled = sample_holes(inputs.shape, generator, *holes)
        return torch.cat([apply_holes(inputs[:, :images], sampled), inputs[:, images:]], 1)

    def planes(self, values: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Cut planes for SAM out of blocks, one patch after the other.

        Args:
            values: (B, C, D, h, w), (B, D, h, w) or (B,); the first one tells whether these are
                blocks. Patches of one slice stay as they are.
            generator: Source of randomness of the planes.
        """
        if values[0].ndim == 4:
            return tuple(values)
        sampled = torch.randperm(values[0].shape[2], generator=generator)[: self.own.planes]
        return tuple(
            v.repeat_interleave(len(sampled))
            if v.ndim == 1
            else v.index_select(-3, sampled.to(v.device)).movedim(-3, 1).flatten(0, 1)
            for v in values
        )

    def configure_optimizers(self) -> Sequence[OptimizerSpec]:
        """Return the U-Net's optimiser and SAM's, both with a rate that falls linearly to zero."""
        unet = self.settings
        of_sam = [p for p in self.sam_predictor.parameters() if p.requires_grad]
        return (
            OptimizerSpec(
                list(self.student.parameters()),
                unet.optimiser,
                unet.learning_rate,
                unet.weight_decay,
                power=1.0,
            ),
            OptimizerSpec(of_sam, "adamw", self.own.learning_rate, 0.0, power=1.0),
        )

    def save_more(self, folder: Path, stage_name: str) -> None:
        """Write the trained weights of SAM."""
        facts = {"scsam": self.own.model_dump(mode="json"), "stage": stage_name}
        tensors = trainable_state(self.sam_predictor)
        save_checkpoint(scsam_path(folder, stage_name), Checkpoint("sam", tensors, facts))


def mean_entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy of (B, C, *spatial) logits, 1 where all classes are as likely."""
    return entropy(logits.softmax(1)).mean() / float(np.log(logits.shape[1]))
