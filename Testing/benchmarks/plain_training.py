"""Steps of training as papers' formulas read, in float32, for `speed_training.py` to compare with.

SC-SAM (Vu et al., 2026) and mean teacher (Tarvainen and Valpola, 2017): networks as they come from
segment_anything and MONAI, a pass of SAM's decoder for each class, losses and averages class by
class and weight by weight, torch's optimisers without their fused forms. Weights and random numbers
are those of the step that is compared, so that losses and gradients have to be equal too.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.imports import without_its_init
from aslseg.inference.classwise_sam import picture01
from aslseg.methods.scsam import CoTraining
from aslseg.preprocessing.patches import Batch
from aslseg.preprocessing.roi import image_channels
from aslseg.sam.classwise import random_points
from aslseg.sam.decoder import decode_tokens
from aslseg.sam.embeddings import SliceFrame, input_size_of, prepare_slices
from aslseg.training.ssl.mean_teacher import MeanTeacher
from aslseg.training.trainer import GRADIENT_NORM, OptimizerSpec

with without_its_init("segment_anything"):
    from segment_anything.modeling.image_encoder import Attention, Block


class PlainStep:
    """A student, its averaged copy, and one optimiser for each group of parameters.

    Args:
        ours: The method whose step is compared; it is copied.
        specs: Its optimisers.
        steps: Length of the schedule.
    """

    def __init__(
        self, ours: MeanTeacher | CoTraining, specs: Sequence[OptimizerSpec], steps: int
    ) -> None:
        self.module: Any = deepcopy(ours)
        self.steps = steps
        copies = dict(zip(ours.parameters(), self.module.parameters(), strict=True))
        self.specs = [replace(s, parameters=[copies[p] for p in s.parameters]) for s in specs]
        self.optimisers = [_optimiser(spec) for spec in self.specs]

    def __call__(
        self, labelled: Batch, unlabelled: Batch, step: int, generator: torch.Generator
    ) -> float:
        """Take a step, and return its loss."""
        self.module.train()
        for spec, optimiser in zip(self.specs, self.optimisers, strict=True):
            optimiser.param_groups[0]["lr"] = spec.rate(step, self.steps)
            optimiser.zero_grad()
        loss = self.loss(labelled, unlabelled, step, generator)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        for spec, optimiser in zip(self.specs, self.optimisers, strict=True):
            nn.utils.clip_grad_norm_(spec.parameters, GRADIENT_NORM, foreach=False)
            optimiser.step()
        decay = min(1 - 1 / (step + 1), self.module.settings.ema_decay)
        with torch.no_grad():
            for average, current in zip(
                self.module.average.parameters(), self.module.student.parameters(), strict=True
            ):
                average.copy_(decay * average + (1 - decay) * current)
        return float(loss.detach())

    def loss(
        self, labelled: Batch, unlabelled: Batch, step: int, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of a step."""
        raise NotImplementedError


class PlainMeanTeacher(PlainStep):
    """Cross entropy and Dice on labels, squared difference of probabilities to the teacher's."""

    def loss(
        self, labelled: Batch, unlabelled: Batch, step: int, generator: torch.Generator
    ) -> Tensor:
        """Return the supervised loss, and the ramped one against the averaged network."""
        changed = self.module.perturb(unlabelled.inputs, generator)
        logits = self.module.student(torch.cat([labelled.inputs, changed]))
        count = len(labelled.classes)
        with torch.no_grad():
            self.module.average.train()
            teacher = self.module.average(self.module.noisy(unlabelled.inputs, generator)).softmax(
                1
            )
        consistency = ((logits[count:].softmax(1) - teacher) ** 2).mean()
        weight = self.module.consistency_weight(step)
        return cross_entropy_and_dice(logits[:count], labelled.classes) + weight * consistency


class PlainScSam(PlainStep):
    """U-Net and SAM, each on labels and on what the other finds in unlabelled patches."""

    def __init__(self, ours: CoTraining, specs: Sequence[OptimizerSpec], steps: int) -> None:
        super().__init__(ours, specs, steps)
        sam = self.module.sam_predictor.sam
        sam.image_encoder = as_stock(sam.image_encoder)

    def loss(
        self, labelled: Batch, unlabelled: Batch, step: int, generator: torch.Generator
    ) -> Tensor:
        """Return both supervised losses, both mutual ones, and the U-Net's entropy."""
        count = len(labelled.classes)
        inputs = self.module.changed(labelled, unlabelled, generator)
        unet = self.module.student(inputs)
        sam = self._sam(inputs, unet.argmax(1), generator)
        of_sam, of_unet = sam[count:].argmax(1), unet[count:].argmax(1)
        probability = unet.softmax(1)
        entropy = -(probability * (probability + 1e-6).log()).sum(1).mean() / np.log(unet.shape[1])
        return (
            cross_entropy_and_dice(unet[:count], labelled.classes)
            + cross_entropy_and_dice(unet[count:], of_sam)
            + self.module.own.entropy_weight * entropy
            + cross_entropy_and_dice(sam[:count], labelled.classes)
            + self.module.sam_weight(step) * cross_entropy_and_dice(sam[count:], of_unet)
        )

    def _sam(self, inputs: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Return SAM's masks, prompted by points of the U-Net's map: a pass for each class."""
        own, predictor = self.module.own, self.module.sam_predictor
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        points = random_points(classes.cpu().numpy(), predictor.classes, own.points, rng)
        images = image_channels(self.module.settings)
        picture = picture01(inputs[:, images // 2], has_parent=inputs.shape[1] > images)
        sam, edge = predictor.sam, inputs.shape[-1]
        embeddings = sam.image_encoder(prepare_slices(sam, picture))
        frame = SliceFrame(edge, edge, input_size_of(sam))
        masks = []
        for n in range(predictor.classes):
            xy, labels = (of[:, n].to(inputs.device) for of in (points.xy, points.labels))
            prompts = (frame.to_input(xy) - 0.5, labels)
            sparse, dense = sam.prompt_encoder(points=prompts, boxes=None, masks=None)
            if predictor.boxes:
                sparse = torch.cat([sparse[:, :-1], predictor.boxes[n](embeddings)], 1)
            masks.append(decode_tokens(sam, embeddings, sparse, dense))
        return frame.mask_to_slice(torch.stack(masks, 1))


def cross_entropy_and_dice(logits: Tensor, classes: Tensor) -> Tensor:
    """Return cross entropy plus one minus Dice of the whole batch, averaged over the targets."""
    probability, dice = logits.softmax(1), []
    for n in range(1, logits.shape[1]):
        truth = (classes == n).float()
        overlap = (probability[:, n] * truth).sum()
        total = (probability[:, n] ** 2 + truth).sum()
        dice.append(1 - (2 * overlap + 1) / (total + 1))
    return F.cross_entropy(logits, classes) + torch.stack(dice).mean()


def as_stock(encoder: nn.Module) -> nn.Module:
    """Return a copy of a ViT encoder with segment_anything's own blocks, tuned in the same way."""
    copy: Any = deepcopy(encoder)
    edge = copy.pos_embed.shape[1]
    copy.blocks = nn.ModuleList(_stock_block(block, edge) for block in copy.blocks)
    return copy  # type: ignore[no-any-return]


def _stock_block(block: Any, edge: int) -> nn.Module:
    attention, window = block.attn, block.attn.window
    stock: Any = Block(
        attention.qkv.in_features,
        attention.num_heads,
        window_size=0 if window == edge else window,
    )
    stock.norm1, stock.norm2, stock.mlp, stock.attn = block.norm1, block.norm2, block.mlp, attention
    attention.__class__, attention.use_rel_pos = Attention, True
    return stock  # type: ignore[no-any-return]


def _optimiser(spec: OptimizerSpec) -> torch.optim.Optimizer:
    rate, decay = spec.learning_rate, spec.weight_decay
    if spec.optimiser == "sgd":
        return torch.optim.SGD(
            spec.parameters, rate, momentum=0.9, weight_decay=decay, foreach=False
        )
    return torch.optim.AdamW(spec.parameters, rate, weight_decay=decay, foreach=False)
