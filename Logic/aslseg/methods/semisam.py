"""SemiSAM: mean teacher with a further consistency loss to a frozen SAM prompted by the student.

After Zhang et al., "SemiSAM: Enhancing Semi-Supervised Medical Image Segmentation via SAM-Assisted
Consistency Regularization" (arXiv 2312.06316, BIBM 2024), and SemiSAM+ (arXiv 2502.20749).

A step on unlabelled patches, beside what mean teacher or UA-MT does: (1) the student's foreground
prompts SAM, as published by simulated clicks that lead SAM to it; (2) the squared difference of
student and SAM is a loss, weighted by the consistency of the masks over the clicks; (3) its weight
falls while the teacher's rises, because SAM helps most early on. SAM is not trained, and not needed
to segment.

Here SAM is the 2-D one, prompted slice by slice on embeddings that are computed once. The location
of a patch gives the slice and the points of the prompts, and maps SAM's masks back to the patch.
By default SAM is prompted with box and mask, sees the parent's crop as elsewhere, and is prompted
for those targets alone of which it had the better mask on cross-fitted labelled cases (ours).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from aslseg.config import SpecialistConfig, SSLName
from aslseg.context import RunContext
from aslseg.data.volume import Volume
from aslseg.errors import ConfigError
from aslseg.inference.loading import required_sam_predictor
from aslseg.methods.aslseg import training_plan_of
from aslseg.methods.baseline import run_with
from aslseg.preprocessing.patches import (
    Batch,
    PatchLocation,
    TrainingCase,
    pixels_under,
    slices_under,
)
from aslseg.preprocessing.roi import Roi, to_volume
from aslseg.prompts import SliceCrop
from aslseg.sam.clicks import MASK_THRESHOLD, ClickTask, simulate_clicks
from aslseg.sam.crops import crops_of
from aslseg.sam.embeddings import SliceFrame, VolumeEmbeddings
from aslseg.sam.patch_prompts import prompted_logits
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.targets import CascadeStage
from aslseg.training.cascade import default_ssl_method
from aslseg.training.cross_fitting import cross_fitted_models
from aslseg.training.losses import consistency_loss, ramp_down
from aslseg.training.rounds import Round, RoundOutcome
from aslseg.training.sam_gate import gate_scores
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
    prompted = prompted_targets(context, this, sam_predictor)

    def build(name: SSLName, stage: CascadeStage, settings: SpecialistConfig) -> SSLMethod:
        ssl_method = default_ssl_method(name, stage, settings)
        if not isinstance(ssl_method, MeanTeacher):
            msg = (
                "SemiSAM is an addition to a teacher; set paradigm to mean_teacher or "
                f"uncertainty_aware, not {name}."
            )
            raise ConfigError(msg)
        numbers = frozenset(n for n, t in enumerate(stage.targets, start=1) if t.name in prompted)
        if numbers:
            loss = SamConsistency(context, sam_predictor, settings, stage, numbers)
            ssl_method.auxiliary_losses = (loss,)
        return ssl_method

    return run_with(context, this, build)


def prompted_targets(
    context: RunContext, this: Round, sam_predictor: VolumeSamPredictor
) -> frozenset[str]:
    """Return the names of the targets that SAM is prompted for.

    All of them without a gate. With it, those of which SAM's masks are better than the masks of
    specialists that were not trained on the case. It is not prompted for a target that none of
    these specialists finds, and a notice says so.
    """
    if not context.config.semisam.gate:
        return frozenset(target.name for target in context.targets)
    plan = replace(training_plan_of(context, this, default_ssl_method), folder=this.first_folder)
    models = cross_fitted_models(context, replace(plan, pseudo={}, start={}))
    scores = gate_scores(context, sam_predictor, models)
    for name, score in scores.items():
        gate = f"gate_{name}"
        context.monitor.metric(gate, score.specialist, this.number, source="specialist")
        context.monitor.metric(gate, score.sam, this.number, source="sam")
    wanted = [t.name for t in context.targets if t.name not in context.given_targets]
    not_found = [name for name in wanted if name not in scores]
    if not_found:
        context.monitor.warn(
            f"SAM is not prompted for {', '.join(not_found)}: no specialist that was not trained "
            "on a labelled case found it there. Label more cases, or set semisam.gate=false."
        )
    return frozenset(name for name, score in scores.items() if score.opens)


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
    """A case, and the embeddings of the slices of its ROI, or of a crop of these."""

    case: TrainingCase
    embeddings: VolumeEmbeddings
    frame: SliceFrame
    crop: SliceCrop | None

    def points(self, location: PatchLocation, edge: int) -> Tensor:
        """Return the point (x, y) of what SAM sees under each pixel of a patch."""
        points = pixels_under(location, self.case.roi, edge)
        return points if self.crop is None else points - torch.tensor(self.crop.xyxy[:2])


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    """A wanted mask, and where in the batch SAM's mask of it belongs."""

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
        stage: Whose unlabelled patches SAM predicts.
        prompted: Numbers of the classes that it is prompted for.
        name: Of the loss, in events.
    """

    context: RunContext
    sam_predictor: VolumeSamPredictor
    settings: SpecialistConfig
    stage: CascadeStage
    prompted: frozenset[int]
    name: str = "sam"
    _cases: list[_CachedCase] = field(default_factory=list)

    def setup(self, cases: Sequence[TrainingCase]) -> None:
        """Embed the slices of all unlabelled cases, once. Label maps are never opened."""
        images = {case.id: case for case in self.context.unlabelled}
        for case in cases:
            volume = self.context.image(images[case.case_id])
            part = case.roi.box.slices[0]
            crop = self._crop(case.roi, volume)
            embeddings = self.sam_predictor.embeddings(
                volume, range(part.start, part.stop), self.context.monitor, crop=crop
            )
            frame = self.sam_predictor.frame(volume, crop)
            self._cases.append(_CachedCase(case, embeddings, frame, crop))

    def _crop(self, roi: Roi, volume: Volume) -> SliceCrop | None:
        """Return what SAM sees of the slices; as published all of them."""
        if self.context.config.semisam.prompts == "clicks" or self.stage.inside is None:
            return None
        if roi.parent is None:
            msg = f"Stage {self.stage.name} needs an ROI with the mask of its parent."
            raise ValueError(msg)
        parent = to_volume(np.asarray(roi.parent)[None], roi)[0] > 0.5
        settings = self.context.config.sam
        crops = crops_of(volume, {self.stage.inside.name: parent}, self.stage.targets, settings)
        return crops.get(self.stage.targets[0].name)

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
            logits = self._sam_logits([query.task for query in queries], rng)
        confidence = _equally
        if own.confidence:
            confidence = click_consistency if own.prompts == "clicks" else certainty
        pseudo_target = _pseudo_target(planes, queries, logits, confidence)
        return PseudoTarget(
            pseudo_target.masks.reshape(probability.shape),
            pseudo_target.weight.reshape(probability[:, :1].shape),
        )

    def _sam_logits(
        self, tasks: Sequence[ClickTask], rng: np.random.Generator
    ) -> list[Sequence[Tensor]]:
        """Return SAM's logits of each task, click by click or at once; none without a prompt."""
        own, sam = self.context.config.semisam, self.sam_predictor.sam.eval()
        if own.prompts == "clicks":
            sequences = simulate_clicks(sam, tasks, own.clicks, rng)
            return [sequence.logits for sequence in sequences]
        settings = self.context.config.sam.prompts
        found = [prompted_logits(sam, task, settings) for task in tasks]
        return [[] if logits is None else [logits] for logits in found]

    def _queries(
        self,
        foreground: NDArray[np.int64],
        locations: Sequence[PatchLocation],
        rng: np.random.Generator,
    ) -> list[_Query]:
        """Return a task for each class of each plane of each patch that SAM is prompted for."""
        queries: list[_Query] = []
        for patch, location in enumerate(locations):
            cached, edge = self._cases[location.case], foreground.shape[-1]
            points = cached.points(location, edge)
            slices = slices_under(location, cached.case.roi, edge)
            for plane, k in self._planes(foreground[patch], slices, rng):
                embedding = cached.embeddings.stack([k])[0]
                shown = foreground[patch, plane]
                queries += [
                    _Query(patch, plane, n, ClickTask(embedding, cached.frame, points, shown == n))
                    for n in np.unique(shown[shown > 0]).tolist()
                    if n in self.prompted
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
    queries: Sequence[_Query],
    predicted: Sequence[Sequence[Tensor]],
    confidence: Callable[[Sequence[Tensor]], Tensor],
) -> PseudoTarget:
    """Assemble SAM's last masks; the weight is zero where it was not prompted.

    Args:
        planes: (B, C, planes, rows, columns) of the student, for the shape.
        queries: Where each mask belongs.
        predicted: SAM's logits of each query, one after each prompt; none if it was not prompted.
        confidence: Weighs the voxels of a query.
    """
    logits = torch.full_like(planes, -torch.inf)
    logits[:, 0] = MASK_THRESHOLD
    weight = torch.zeros_like(planes[:, :1])
    for query, of_query in zip(queries, predicted, strict=True):
        if not of_query:
            continue
        patch, plane = query.patch, query.plane
        logits[patch, query.number, plane] = of_query[-1].to(logits)
        here = confidence(of_query).to(weight) * _within(query.task).to(weight)
        before = weight[patch, 0, plane]
        weight[patch, 0, plane] = torch.where(before > 0, torch.minimum(before, here), here)
    masks = F.one_hot(logits.argmax(1), planes.shape[1]).movedim(-1, 1)
    return PseudoTarget(masks.to(planes), weight)


def _equally(logits: Sequence[Tensor]) -> Tensor:
    return torch.ones_like(logits[-1])


def certainty(logits: Sequence[Tensor]) -> Tensor:
    """Return |2 p - 1| of SAM's last probabilities: 0 where it is undecided, up to 1 (ours).

    Args:
        logits: (rows, columns) of SAM's mask, one after each click.

    Returns:
        (rows, columns).
    """
    return (2 * logits[-1].sigmoid() - 1).abs()


def click_consistency(logits: Sequence[Tensor]) -> Tensor:
    """Return 1 - 4 var of SAM's probabilities over the clicks, voxel by voxel.

    Numbers between 0 and 1 have a variance of at most 1/4, so this is 1 where no click changed
    anything and 0 where the masks changed from one extreme to the other.

    Args:
        logits: (rows, columns) of SAM's mask, one after each click.

    Returns:
        (rows, columns).
    """
    return 1 - 4 * torch.stack(list(logits)).sigmoid().var(0, unbiased=False)


def _within(task: ClickTask) -> Tensor:
    """Return which pixels of a patch lie inside the slice."""
    x, y = task.points.unbind(-1)
    return (x >= 0) & (x <= task.frame.width) & (y >= 0) & (y <= task.frame.height)
