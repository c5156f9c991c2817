"""Tuning of SAM on prompts of the labelled cases, made from true and corrupted masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aslseg import run_names
from aslseg.config import SamConfig
from aslseg.context import LabelledVolume, RunContext, labelled_volume
from aslseg.data.masks import label_components
from aslseg.data.volume import Float32, Geometry, Mask, Volume
from aslseg.distributed import WHOLE, WorkPart, is_shared, mapped, together
from aslseg.errors import ProjectError
from aslseg.events import Monitor
from aslseg.inference.cascade import all_targets
from aslseg.inference.loading import load_tuned_weights, released_sam_predictor
from aslseg.networks.checkpoints import Checkpoint, sam_path, save_checkpoint
from aslseg.project.case import Case
from aslseg.prompts import (
    SliceCrop,
    SlicePrompts,
    mask_to_logits,
    prompts_from_mask,
    proposed_masks,
)
from aslseg.sam.crops import crops_of, in_crop, with_crops
from aslseg.sam.decoder import decode_batch
from aslseg.sam.embeddings import VolumeEmbeddings
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.sam.tuning import trainable_state, tunes_encoder
from aslseg.storage import scratch, storage_errors
from aslseg.targets import Target, region_mask
from aslseg.training.cross_fitting import OutOfFoldModel, OutOfFoldModels
from aslseg.training.held_out import predict_held_out
from aslseg.training.mask_corruption import case_number, synthetic_masks
from aslseg.training.trainer import Schedule, StepLoss, Trainer

DICE_WEIGHT, CROSS_WEIGHT = 0.8, 0.2
"""Of the loss that SAM is tuned with; CPC-SAM's weights."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptSample:
    """A prompt and the mask that SAM should predict.

    Attributes:
        prompt: In one slice.
        truth: (H, W) the mask; empty where the prompt is on no target.
    """

    prompt: SlicePrompts
    truth: Mask


class StoredSamples(Sequence[PromptSample]):
    """Samples of a case whose masks lie on disk, a bit a pixel: a slice each would fill the memory.

    Args:
        samples: With mask prompts of `mask_to_logits`, or without.
        path: Where their masks are written.

    Raises:
        StorageError: When the disk is full or the folder cannot be written.
    """

    def __init__(self, samples: Sequence[PromptSample], path: Path) -> None:
        self._prompts = [replace(sample.prompt, mask_logits=None) for sample in samples]
        self._with_mask = [sample.prompt.mask_logits is not None for sample in samples]
        self._path = path
        self._shape = samples[0].truth.shape if samples else (0, 0)
        masks = [(one.truth, _mask_prompt(one)) for one in samples]
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.array([np.packbits(np.stack(pair)) for pair in masks], np.uint8))

    def __len__(self) -> int:
        return len(self._prompts)

    @overload
    def __getitem__(self, number: int) -> PromptSample: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[PromptSample]: ...

    def __getitem__(self, number: int | slice) -> PromptSample | Sequence[PromptSample]:
        """Read a sample, or some."""
        if isinstance(number, slice):
            return [self[n] for n in range(len(self))[number]]
        height, width = self._shape
        packed = np.load(self._path, mmap_mode="r")[number]
        truth, mask = np.unpackbits(packed, count=2 * height * width).reshape(2, height, width) > 0
        logits = mask_to_logits(mask) if self._with_mask[number] else None
        return PromptSample(replace(self._prompts[number], mask_logits=logits), truth)


def _mask_prompt(sample: PromptSample) -> Mask:
    """Return where the mask prompt of a sample is positive; nowhere without one."""
    logits = sample.prompt.mask_logits
    return np.zeros_like(sample.truth) if logits is None else logits > 0


@dataclass(frozen=True, slots=True, eq=False)
class StoredVolume:
    """Where an image lies on disk, its array as it is."""

    path: Path
    geometry: Geometry

    def opened(self) -> Volume:
        """Return the image, mapped into memory."""
        return Volume(np.load(self.path, mmap_mode="r"), self.geometry)


@dataclass(frozen=True, slots=True, eq=False)
class SamTrainingCase:
    """A labelled volume with the samples that SAM is tuned on.

    Attributes:
        source: The image, or where it lies on disk.
        samples: By target name.
        embeddings: By crop, of all slices that the prompts are on; empty before
            `with_embeddings`, and when the image encoder is trained too.
    """

    source: Volume | StoredVolume
    samples: Mapping[str, Sequence[PromptSample]]
    embeddings: Mapping[SliceCrop | None, VolumeEmbeddings] = field(default_factory=dict)

    @property
    def volume(self) -> Volume:
        """The image; one on disk is mapped into memory."""
        return self.source if isinstance(self.source, Volume) else self.source.opened()


def stored_case(training_case: SamTrainingCase, folder: Path) -> SamTrainingCase:
    """Return a case whose voxels and masks lie on disk, mapped into memory as they are read.

    Args:
        training_case: In memory.
        folder: Of its files.

    Raises:
        StorageError: When the disk is full or the folder cannot be written.
    """
    volume, path = training_case.volume, folder / "voxels.npy"
    samples = {
        name: StoredSamples(samples, folder / f"masks-{number}.npy")
        for number, (name, samples) in enumerate(training_case.samples.items())
    }
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, volume.voxels)
    return replace(training_case, source=StoredVolume(path, volume.geometry), samples=samples)


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return Dice and cross entropy per prompt, averaged.

    Args:
        logits: (P, H, W).
        truth: (P, H, W) of 0 and 1; possibly empty.
    """
    probability = logits.sigmoid()
    overlap = (probability * truth).sum((1, 2))
    total = (probability.square() + truth).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    # Cross entropy over some hundred pixels around the mask, not over the empty rest of the slice.
    scale = logits[0].numel() / (truth.sum((1, 2)) * 4 + 400)
    cross = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((1, 2))
    return (DICE_WEIGHT * dice + CROSS_WEIGHT * cross * scale).mean()


def prompt_samples_from(
    pseudo: Mask, truth: Mask, target: str, settings: SamConfig, rng: np.random.Generator
) -> list[PromptSample]:
    """Make samples from the components of a pseudo-label.

    The truth of a component's prompt is the true components that it touches in its slice; where
    it touches none it is empty.

    Args:
        pseudo: (D, H, W) a corrupted mask.
        truth: (D, H, W).
        target: Name of the class.
        settings: Of the prompts.
        rng: Of the jitter of the boxes.
    """
    samples: list[PromptSample] = []
    prompts = prompts_from_mask(pseudo, target=target, settings=settings.prompts, rng=rng)
    numbered = {k: label_components(truth[k])[0] for k in {p.slice_index for p in prompts}}
    for prompt in prompts:
        labels = numbered[prompt.slice_index]
        touched = np.unique(labels[prompt.region(labels.shape)])
        samples.append(PromptSample(prompt, np.isin(labels, touched[touched > 0])))
    return samples


def sam_training_case(
    labelled: LabelledVolume,
    targets: Sequence[Target],
    settings: SamConfig,
    seed: int,
    probabilities: Mapping[str, Float32] | None = None,
) -> SamTrainingCase:
    """Make the samples that SAM is tuned on.

    Args:
        labelled: The case.
        targets: All targets.
        settings: Number of corrupted versions, prompts.
        seed: Of corruption and prompts.
        probabilities: Prediction of an out-of-fold model.

    Returns:
        Samples of the true mask, of corrupted ones, and of the prediction.
    """
    rng = np.random.default_rng([seed, 11, case_number(labelled.case_id)])
    samples: dict[str, list[PromptSample]] = {t.name: [] for t in targets}
    truth = {t.name: region_mask(labelled.labels.labels, t, targets) for t in targets}
    parents = {t.inside: truth[t.inside] for t in targets if t.inside is not None}
    crops = crops_of(labelled.volume, parents, targets, settings)
    versions = [truth] + [synthetic_masks(labelled, targets, rng) for _ in range(settings.versions)]
    versions += [] if probabilities is None else [proposed_masks(probabilities, targets, settings)]
    for masks in versions:
        for name, mask in masks.items():
            made = prompt_samples_from(mask, truth[name], name, settings, rng)
            prompts = with_crops([sample.prompt for sample in made], crops)
            samples[name] += [replace(s, prompt=p) for s, p in zip(made, prompts, strict=True)]
    return SamTrainingCase(labelled.volume, samples)


def with_embeddings(
    sam_predictor: VolumeSamPredictor,
    training_case: SamTrainingCase,
    monitor: Monitor | None = None,
) -> SamTrainingCase:
    """Return the case with embeddings for all its samples, unless the encoder is trained too."""
    if tunes_encoder(sam_predictor.sam):
        return training_case
    slices: dict[SliceCrop | None, set[int]] = {}
    for sample in (s for samples in training_case.samples.values() for s in samples):
        slices.setdefault(sample.prompt.crop, set()).add(sample.prompt.slice_index)
    embeddings = {
        crop: sam_predictor.embeddings(training_case.volume, sorted(wanted), monitor, crop=crop)
        for crop, wanted in slices.items()
    }
    return replace(training_case, embeddings=embeddings)


def tuning_loss(
    sam_predictor: VolumeSamPredictor,
    training_case: SamTrainingCase,
    rng: np.random.Generator,
    part: WorkPart = WHOLE,
) -> Tensor:
    """Return the loss of SAM on a random batch of a volume's samples; targets take turns.

    Args:
        sam_predictor: SAM.
        training_case: The volume.
        rng: Draws the batch.
        part: Which samples of it the loss is of.
    """
    names = [name for name, samples in training_case.samples.items() if samples]
    drawn: list[tuple[str, int]] = []
    for n in range(sam_predictor.settings.batch_size):
        name = names[n % len(names)]
        drawn.append((name, int(rng.integers(len(training_case.samples[name])))))
    batch: dict[SliceCrop | None, list[PromptSample]] = {}
    for name, number in part.share(drawn):
        sample = training_case.samples[name][number]
        batch.setdefault(sample.prompt.crop, []).append(sample)
    losses = [
        _loss_in_crop(sam_predictor, training_case, crop, samples) * len(samples)
        for crop, samples in batch.items()
    ]
    return torch.stack(losses).sum() / len(part.share(drawn))


def _loss_in_crop(
    sam_predictor: VolumeSamPredictor,
    training_case: SamTrainingCase,
    crop: SliceCrop | None,
    batch: Sequence[PromptSample],
) -> Tensor:
    """Return the mean loss of samples that see one crop, or all whole slices."""
    slices = sorted({sample.prompt.slice_index for sample in batch})
    index = torch.tensor([slices.index(sample.prompt.slice_index) for sample in batch])
    if crop in training_case.embeddings:
        embeddings = training_case.embeddings[crop].stack(slices).float()
    else:
        embeddings = sam_predictor.encode(training_case.volume, slices, crop)
    decoded = decode_batch(
        sam_predictor.sam,
        embeddings,
        [in_crop(sample.prompt) for sample in batch],
        index=index,
        frame=sam_predictor.frame(training_case.volume, crop),
    )
    truths = [s.truth if crop is None else s.truth[crop.slices] for s in batch]
    truth = torch.from_numpy(np.stack(truths)).to(decoded.logits)
    return mask_loss(decoded.logits, truth)


def tune_sam_predictor(
    context: RunContext, folder: Path, out_of_fold_models: OutOfFoldModels | None = None
) -> VolumeSamPredictor | None:
    """Tune SAM on the labelled cases unless the folder has its weights, and load them.

    In a later round it starts from the weights of the round before, for `later_share` of the steps.
    """
    cases = SamTuningCases(context.labelled, out_of_fold_models or {})
    return _tuned(context, folder, cases, context.config.sam.iterations)


def cross_fitted_sam(
    context: RunContext, model: OutOfFoldModel, out_of_fold_models: OutOfFoldModels
) -> VolumeSamPredictor | None:
    """Return SAM as it is tuned without the cases of a fold, for `crossfit_share` of the steps.

    It is released SAM where the other cases show nothing to tune it on.
    """
    others = [case for case in context.labelled if case.id not in model.fold]
    steps = max(1, round(context.config.sam.iterations * context.config.crossfit_share))
    try:
        return _tuned(context, model.folder, SamTuningCases(others, out_of_fold_models), steps)
    except ProjectError as error:
        names = ", ".join(sorted(model.fold))
        context.monitor.warn(
            f"SAM as released checks {names}, for it cannot be tuned without: {error}"
        )
        return released_sam_predictor(context)


@dataclass(frozen=True, slots=True, eq=False)
class SamTuningCases:
    """Labelled cases that SAM is tuned on, and models that were trained without them."""

    cases: Sequence[Case]
    out_of_fold_models: OutOfFoldModels


def _tuned(
    context: RunContext, folder: Path, cases: SamTuningCases, steps: int
) -> VolumeSamPredictor | None:
    sam_predictor = released_sam_predictor(context)
    if sam_predictor is None or context.config.sam.tuning == "none":
        return sam_predictor
    path = sam_path(folder)
    if not path.exists():
        before = context.folder.before(path)
        if before is not None:
            load_tuned_weights(sam_predictor, before.parent)
            steps = max(1, round(steps * context.config.later_share))
        with scratch(folder / run_names.SAM_SAMPLES) as stored:
            training_cases = _training_cases(context, sam_predictor, cases, stored)
            together(_tune, context, sam_predictor, folder, training_cases, steps)
        tensors = trainable_state(sam_predictor.sam)
        facts = {"sam": context.config.sam.model_dump(mode="json")}
        save_checkpoint(path, Checkpoint("sam", tensors, facts))
    load_tuned_weights(sam_predictor, folder)
    return sam_predictor


def _tune(
    context: RunContext,
    sam_predictor: VolumeSamPredictor,
    folder: Path,
    training_cases: Sequence[SamTrainingCase],
    steps: int,
) -> None:
    """Train what is tuned of SAM."""
    settings, seed = context.config.sam, context.config.seed
    schedule = Schedule("sam", steps, settings.learning_rate, settings.weight_decay, seed=seed)
    # Stored embeddings are float16, which CPUs cannot mix with bfloat16.
    precise = not tunes_encoder(sam_predictor.sam)
    trainer = Trainer(
        sam_predictor.sam,
        schedule,
        context.device,
        folder,
        precise=precise,
        most_parts=settings.batch_size,
    )
    trainer.run(_step_loss(sam_predictor, training_cases, seed), context.monitor)


def _step_loss(
    sam_predictor: VolumeSamPredictor, training_cases: Sequence[SamTrainingCase], seed: int
) -> StepLoss:
    def step_loss(step: int, _: torch.Generator, part: WorkPart) -> dict[str, Tensor]:
        rng = np.random.default_rng([seed, 17, step])
        return {
            "loss": tuning_loss(
                sam_predictor, training_cases[int(rng.integers(len(training_cases)))], rng, part
            )
        }

    return step_loss


def _training_cases(
    context: RunContext, sam_predictor: VolumeSamPredictor, cases: SamTuningCases, folder: Path
) -> list[SamTrainingCase]:
    task = "Making prompts for SAM"
    models = cases.out_of_fold_models
    found = mapped(
        _training_case, cases.cases, context.monitor, task, context, sam_predictor, models, folder
    )
    training_cases = [case for case in found if case is not None]
    if not training_cases:
        msg = "No labelled case shows enough of a target to tune SAM; label a larger one."
        raise ProjectError(msg)
    if is_shared():  # this process uses what others encoded: nobody may delete it meanwhile
        training_cases = [with_embeddings(sam_predictor, case) for case in training_cases]
    return training_cases


def _training_case(
    case: Case,
    context: RunContext,
    sam_predictor: VolumeSamPredictor,
    out_of_fold_models: OutOfFoldModels,
    folder: Path,
) -> SamTrainingCase | None:
    """Make the samples of a case, on disk; None where it shows nothing to prompt."""
    labelled = labelled_volume(context, case)
    out_of_fold_model = out_of_fold_models.get(case.id)
    probabilities = None
    if out_of_fold_model is not None:
        probabilities = all_targets(predict_held_out(context, out_of_fold_model, labelled))
    training_case = sam_training_case(
        labelled, context.targets, context.config.sam, context.config.seed, probabilities
    )
    training_case = replace(
        training_case,
        samples={
            name: _in_complete_slices(samples, labelled.incomplete)
            for name, samples in training_case.samples.items()
            if name not in context.given_targets and name not in labelled.unknown
        },
    )
    if not any(training_case.samples.values()):
        return None
    training_case = with_embeddings(sam_predictor, training_case, context.monitor)
    return stored_case(training_case, folder / case.id)


def _in_complete_slices(
    samples: Sequence[PromptSample], incomplete: Mask | None
) -> Sequence[PromptSample]:
    if incomplete is None:
        return samples
    return [sample for sample in samples if not incomplete[sample.prompt.slice_index].any()]
