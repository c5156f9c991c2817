"""SemiSAM: a frozen SAM, prompted by the student, has a say in a teacher's consistency training.

After Zhang et al., "SemiSAM: Enhancing Semi-Supervised Medical Image Segmentation via SAM-Assisted
Consistency Regularization" (arXiv 2312.06316, BIBM 2024), and SemiSAM+ (arXiv 2502.20749).

A step on unlabelled patches, beside what mean teacher or UA-MT does: (1) the student's foreground
is what simulated clicks ask SAM for; (2) SAM answers with masks, click by click; (3) the student is
drawn to them by their squared difference, weighed by how steady the answers were; (4) the weight of
this term falls while the teacher's rises, because SAM helps most while the student knows little.
SAM is not trained, and not needed any more once the student is.

Here SAM is the one for pictures, asked slice by slice on embeddings that are made once. What lies
under a patch tells which slice that is and which of its points a click means; SAM's answer comes
back to the patch the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from aslseg.config import SpecialistConfig
from aslseg.config import SSLName as ParadigmName
from aslseg.context import RunContext
from aslseg.errors import ConfigError
from aslseg.inference.loading import required_sam_predictor
from aslseg.methods.baseline import load_ensemble as load_ensemble
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
    """Train the specialist with SAM's help, and segment with the specialist alone.

    Args:
        context: Cases, settings, device, listener.
        this: Number and folder of the round, and what the rounds before left.

    Raises:
        ConfigError: When the settings have no SAM, or a paradigm without a teacher.
    """
    sam_predictor = required_sam_predictor(context, tuning="none")

    def build(name: ParadigmName, stage: CascadeStage, settings: SpecialistConfig) -> SSLMethod:
        paradigm = default_ssl_method(name, stage, settings)
        if not isinstance(paradigm, MeanTeacher):
            msg = (
                "SemiSAM is an addition to a teacher; set paradigm to mean_teacher or "
                f"uncertainty_aware, not {name}."
            )
            raise ConfigError(msg)
        paradigm.guides = (SamConsistency(context, sam_predictor, settings),)
        return paradigm

    return run_with(context, this, build)


@dataclass(frozen=True, slots=True, eq=False)
class PseudoTarget:
    """What SAM thinks of unlabelled patches.

    Attributes:
        masks: (B, C, *spatial) of 0 and 1; SAM's mask of each class, and the rest as class 0.
        weight: (B, 1, *spatial) in [0, 1]; 0 where SAM was not asked.
    """

    masks: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _CachedSlice:
    """A case that SAM has seen: its view, and the embeddings of the slices in it."""

    case: TrainingCase
    embeddings: VolumeEmbeddings
    frame: SliceFrame


@dataclass(frozen=True, slots=True, eq=False)
class _ClickQuery:
    """A mask that SAM is asked for, and where in the batch its answer belongs."""

    patch: int
    plane: int
    number: int
    topic: ClickTask


@dataclass(slots=True, eq=False)
class SamConsistency:
    """The SAM term of a stage.

    Attributes:
        context: Cases to look up, settings.
        sam_predictor: The frozen SAM.
        settings: Of the stage.
    """

    context: RunContext
    sam_predictor: VolumeSamPredictor
    settings: SpecialistConfig
    name: str = "sam"
    _known: list[_CachedSlice] = field(default_factory=list)

    def meet(self, cases: Sequence[TrainingCase]) -> None:
        """Embed the slices of all unlabelled cases, once. Label maps are never opened."""
        images = {case.id: case for case in self.context.unlabelled}
        for case in cases:
            volume = self.context.image(images[case.case_id])
            part = case.roi.box.slices[0]
            slices = range(part.start, part.stop)
            known = self.sam_predictor.embeddings(volume, slices, self.context.monitor)
            self._known.append(_CachedSlice(case, known, self.sam_predictor.frame(volume)))

    def term(
        self, probability: Tensor, unlabelled: Batch, step: int, generator: torch.Generator
    ) -> Tensor:
        """Return the ramped-down squared difference of student and SAM.

        Args:
            probability: (B, C, *spatial) of the student, with gradient.
            unlabelled: The patches.
            step: Steps done before this one.
            generator: Draws the clicks.
        """
        pseudo_target = self.pseudo_target(probability.detach(), unlabelled.places, generator)
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
        self, probability: Tensor, places: Sequence[PatchLocation], generator: torch.Generator
    ) -> PseudoTarget:
        """Ask SAM for the student's foreground, slice by slice.

        Args:
            probability: (B, C, *spatial) of the student.
            places: Of the B patches.
            generator: Draws planes and clicks.
        """
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        own = self.context.config.semisam
        # A patch of one slice is a block of one plane.
        planes = probability if probability.ndim == 5 else probability[:, :, None]
        foreground = planes.argmax(1).cpu().numpy()
        # Stored embeddings are float16, which autocast cannot mix with bfloat16.
        with torch.autocast(probability.device.type, enabled=False):
            questions = self._questions(foreground, places, rng)
            topics = [question.topic for question in questions]
            talks = simulate_clicks(self.sam_predictor.sam.eval(), topics, own.clicks, rng)
        pseudo_target = _pseudo_target(planes, questions, talks, by_confidence=own.confidence)
        return PseudoTarget(
            pseudo_target.masks.reshape(probability.shape),
            pseudo_target.weight.reshape(probability[:, :1].shape),
        )

    def _questions(
        self,
        foreground: NDArray[np.int64],
        places: Sequence[PatchLocation],
        rng: np.random.Generator,
    ) -> list[_ClickQuery]:
        """Return what SAM is asked: one mask per class, plane and patch."""
        questions: list[_ClickQuery] = []
        for patch, place in enumerate(places):
            known, edge = self._known[place.case], foreground.shape[-1]
            points = pixels_under(place, known.case.roi, edge)
            slices = slices_under(place, known.case.roi, edge)
            for plane, k in self._planes(foreground[patch], slices, rng):
                embedding = known.embeddings.stack([k])[0]
                shown = foreground[patch, plane]
                questions += [
                    _ClickQuery(
                        patch, plane, n, ClickTask(embedding, known.frame, points, shown == n)
                    )
                    for n in np.unique(shown[shown > 0]).tolist()
                ]
        return questions

    def _planes(
        self, foreground: NDArray[np.int64], slices: Sequence[int | None], rng: np.random.Generator
    ) -> list[tuple[int, int]]:
        """Draw planes of a patch that show any foreground, each with the slice it lies on."""
        showing = [(n, k) for n, k in enumerate(slices) if k is not None and foreground[n].any()]
        most = self.context.config.semisam.planes
        if len(showing) <= most:
            return showing
        return [showing[n] for n in sorted(rng.choice(len(showing), most, replace=False))]


def _pseudo_target(
    planes: Tensor,
    questions: Sequence[_ClickQuery],
    talks: Sequence[ClickSequence],
    *,
    by_confidence: bool,
) -> PseudoTarget:
    """Put SAM's last answers together; where it was not asked it has no opinion.

    Args:
        planes: (B, C, planes, rows, columns) of the student, for the shape.
        questions: Where each answer belongs.
        talks: One per question.
        by_confidence: Weigh voxels by how steady SAM was; otherwise all count the same.
    """
    logits = torch.full_like(planes, -torch.inf)
    logits[:, 0] = MASK_THRESHOLD
    weight = torch.zeros_like(planes[:, :1])
    for question, talk in zip(questions, talks, strict=True):
        patch, plane = question.patch, question.plane
        logits[patch, question.number, plane] = talk.logits[-1].to(logits)
        steady = (
            click_consistency(talk.logits) if by_confidence else torch.ones_like(talk.logits[-1])
        )
        here = steady.to(weight) * _within(talk.task).to(weight)
        known = weight[patch, 0, plane]
        weight[patch, 0, plane] = torch.where(known > 0, torch.minimum(known, here), here)
    masks = F.one_hot(logits.argmax(1), planes.shape[1]).movedim(-1, 1)
    return PseudoTarget(masks.to(planes), weight)


def click_consistency(answers: Sequence[Tensor]) -> Tensor:
    """Return 1 - 4 var of SAM's probabilities over the clicks, voxel by voxel.

    Numbers between 0 and 1 have a variance of at most 1/4, so this is 1 where no click changed
    anything and 0 where the answers jumped from one extreme to the other.
    """
    return 1 - 4 * torch.stack(list(answers)).sigmoid().var(0, unbiased=False)


def _within(topic: ClickTask) -> Tensor:
    """Return which pixels of a patch have the slice under them, not what lies beside it."""
    x, y = topic.points.unbind(-1)
    return (x >= 0) & (x <= topic.frame.width) & (y >= 0) & (y <= topic.frame.height)
