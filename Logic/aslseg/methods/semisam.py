"""SemiSAM: mean teacher with a further consistency loss to a frozen SAM prompted by the student.

After Zhang et al., "SemiSAM: Enhancing Semi-Supervised Medical Image Segmentation via SAM-Assisted
Consistency Regularization" (arXiv 2312.06316, BIBM 2024), and SemiSAM+ (arXiv 2502.20749).

A step on unlabelled patches, beside what mean teacher or UA-MT does: (1) the student's foreground
is the reference of simulated clicks; (2) SAM predicts a mask after each click; (3) the squared
difference of student and SAM is a loss, weighted by the consistency of the masks over the clicks;
(4) its weight falls while the teacher's rises, because SAM helps most early on. SAM is not trained,
and not needed to segment.

Here SAM is the 2-D one, prompted slice by slice on embeddings that are computed once. The location
of a patch gives the slice and the points of the clicks, and maps SAM's masks back to the patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from aslseg.config import SpecialistConfig, SSLName
from aslseg.context import RunContext
from aslseg.errors import ConfigError
from aslseg.inference.loading import required_sam_predictor
from aslseg.methods.baseline import run_with
from aslseg.preprocessing.patches import (
    Batch,
    PatchLocation,
    TrainingCase,
    pixels_under,
    slices_under,
)
from aslseg.sam.clicks import MASK_THRESHOLD, ClickSequence, ClickTask, simulate_clicks
from aslseg.sam.embeddings import SliceFrame, VolumeEmbeddings
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.targets import CascadeStage
from aslseg.training.cascade import default_ssl_method
from aslseg.training.losses import consistency_loss, ramp_down
from aslseg.training.rounds import Round, RoundOutcome
from aslseg.training.ssl.base import SSLMethod
from aslseg.training.ssl.mean_teacher import MeanTeacher


def run_round(context: RunContext, this: Round) -> RoundOutcome:
    """Train the specialist with the SAM loss, and segment with the specialist alone.

    Args:
        context: Cases, settings, device, listener.
        this: Number and folder of the round, and the outcome of the round before.

    Raises:
        ConfigError: When the settings have no SAM, or an SSL method without a teacher.
    """
    sam_predictor = required_sam_predictor(context, tuning="none")

    def build(name: SSLName, stage: CascadeStage, settings: SpecialistConfig) -> SSLMethod:
        ssl_method = default_ssl_method(name, stage, settings)
        if not isinstance(ssl_method, MeanTeacher):
            msg = (
                "SemiSAM is an addition to a teacher; set paradigm to mean_teacher or "
                f"uncertainty_aware, not {name}."
            )
            raise ConfigError(msg)
        ssl_method.auxiliary_losses = (SamConsistency(context, sam_predictor, settings),)
        return ssl_method

    return run_with(context, this, build)


@dataclass(frozen=True, slots=True, eq=False)
class PseudoTarget:
    """SAM's masks on unlabelled patches.

    Attributes:
        masks: (B, C, *spatial) of 0 and 1; SAM's mask of each class, and the rest as class 0.
        weight: (B, 1, *spatial) in [0, 1]; 0 where SAM was not prompted.
    """

    masks: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _CachedCase:
    """A case, and the embeddings of the slices of its ROI."""

    case: TrainingCase
    embeddings: VolumeEmbeddings
    frame: SliceFrame


@dataclass(frozen=True, slots=True, eq=False)
class _ClickQuery:
    """A click task, and where in the batch its mask belongs."""

    patch: int
    plane: int
    number: int
    task: ClickTask


@dataclass(slots=True, eq=False)
class SamConsistency:
    """The consistency loss of a stage to SAM.

    Attributes:
        context: Cases to look up, settings.
        sam_predictor: The frozen SAM.
        settings: Of the stage.
    """

    context: RunContext
    sam_predictor: VolumeSamPredictor
    settings: SpecialistConfig
    name: str = "sam"
    _cases: list[_CachedCase] = field(default_factory=list)

    def setup(self, cases: Sequence[TrainingCase]) -> None:
        """Embed the slices of all unlabelled cases, once. Label maps are never opened."""
        images = {case.id: case for case in self.context.unlabelled}
        for case in cases:
            volume = self.context.image(images[case.case_id])
            part = case.roi.box.slices[0]
            slices = range(part.start, part.stop)
            embeddings = self.sam_predictor.embeddings(volume, slices, self.context.monitor)
            self._cases.append(_CachedCase(case, embeddings, self.sam_predictor.frame(volume)))

    def loss(
        self, probability: Tensor, unlabelled: Batch, step: int, generator: torch.Generator
    ) -> Tensor:
        """Return the ramped-down squared difference of student and SAM.

        Args:
            probability: (B, C, *spatial) of the student, with gradient.
            unlabelled: The patches.
            step: Steps done before this one.
            generator: Source of randomness of the clicks.
        """
        pseudo_target = self.pseudo_target(probability.detach(), unlabelled.locations, generator)
        return self.weight(step) * consistency_loss(
            probability, pseudo_target.masks, pseudo_target.weight
        )

    def weight(self, step: int) -> float:
        """Return the weight of the term: 0.5 w_max exp(-5 (1 - (T - t) / length)^2)."""
        settings, own = self.settings, self.context.config.semisam
        length = own.rampdown_share * settings.iterations
        largest = own.weight * settings.consistency_weight
        return largest * ramp_down(step, settings.iterations, length)

    def pseudo_target(
        self, probability: Tensor, locations: Sequence[PatchLocation], generator: torch.Generator
    ) -> PseudoTarget:
        """Return SAM's masks of the student's foreground.

        Args:
            probability: (B, C, *spatial) of the student.
            locations: Of the B patches.
            generator: Source of randomness of planes and clicks.
        """
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        own = self.context.config.semisam
        # A patch of one slice is a block of one plane.
        planes = probability if probability.ndim == 5 else probability[:, :, None]
        foreground = planes.argmax(1).cpu().numpy()
        # Stored embeddings are float16, which autocast cannot mix with bfloat16.
        with torch.autocast(probability.device.type, enabled=False):
            queries = self._queries(foreground, locations, rng)
            tasks = [query.task for query in queries]
            sequences = simulate_clicks(self.sam_predictor.sam.eval(), tasks, own.clicks, rng)
        pseudo_target = _pseudo_target(planes, queries, sequences, by_confidence=own.confidence)
        return PseudoTarget(
            pseudo_target.masks.reshape(probability.shape),
            pseudo_target.weight.reshape(probability[:, :1].shape),
        )

    def _queries(
        self,
        foreground: NDArray[np.int64],
        locations: Sequence[PatchLocation],
        rng: np.random.Generator,
    ) -> list[_ClickQuery]:
        """Return a click task for each class of each plane of each patch."""
        queries: list[_ClickQuery] = []
        for patch, location in enumerate(locations):
            cached, edge = self._cases[location.case], foreground.shape[-1]
            points = pixels_under(location, cached.case.roi, edge)
            slices = slices_under(location, cached.case.roi, edge)
            for plane, k in self._planes(foreground[patch], slices, rng):
                embedding = cached.embeddings.stack([k])[0]
                shown = foreground[patch, plane]
                queries += [
                    _ClickQuery(
                        patch, plane, n, ClickTask(embedding, cached.frame, points, shown == n)
                    )
                    for n in np.unique(shown[shown > 0]).tolist()
                ]
        return queries

    def _planes(
        self, foreground: NDArray[np.int64], slices: Sequence[int | None], rng: np.random.Generator
    ) -> list[tuple[int, int]]:
        """Sample planes of a patch that show any foreground, each with its slice of the volume."""
        showing = [(n, k) for n, k in enumerate(slices) if k is not None and foreground[n].any()]
        most = self.context.config.semisam.planes
        if len(showing) <= most:
            return showing
        return [showing[n] for n in sorted(rng.choice(len(showing), most, replace=False))]


def _pseudo_target(
    planes: Tensor,
    queries: Sequence[_ClickQuery],
    sequences: Sequence[ClickSequence],
    *,
    by_confidence: bool,
) -> PseudoTarget:
    """Assemble SAM's last masks; the weight is zero where it was not prompted.

    Args:
        planes: (B, C, planes, rows, columns) of the student, for the shape.
        queries: Where each mask belongs.
        sequences: One per query.
        by_confidence: Weight voxels by `click_consistency`; otherwise all count the same.
    """
    logits = torch.full_like(planes, -torch.inf)
    logits[:, 0] = MASK_THRESHOLD
    weight = torch.zeros_like(planes[:, :1])
    for query, sequence in zip(queries, sequences, strict=True):
        patch, plane = query.patch, query.plane
        logits[patch, query.number, plane] = sequence.logits[-1].to(logits)
        consistency = (
            click_consistency(sequence.logits)
            if by_confidence
            else torch.ones_like(sequence.logits[-1])
        )
        here = consistency.to(weight) * _within(sequence.task).to(weight)
        before = weight[patch, 0, plane]
        weight[patch, 0, plane] = torch.where(before > 0, torch.minimum(before, here), here)
    masks = F.one_hot(logits.argmax(1), planes.shape[1]).movedim(-1, 1)
    return PseudoTarget(masks.to(planes), weight)


def click_consistency(answers: Sequence[Tensor]) -> Tensor:
    """Return 1 - 4 var of SAM's probabilities over the clicks, voxel by voxel.

    Numbers between 0 and 1 have a variance of at most 1/4, so this is 1 where no click changed
    anything and 0 where the masks changed from one extreme to the other.
    """
    return 1 - 4 * torch.stack(list(answers)).sigmoid().var(0, unbiased=False)


def _within(task: ClickTask) -> Tensor:
    """Return which pixels of a patch lie inside the slice."""
    x, y = task.points.unbind(-1)
    return (x >= 0) & (x <= task.frame.width) & (y >= 0) & (y <= task.frame.height)
