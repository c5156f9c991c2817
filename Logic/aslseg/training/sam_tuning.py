"""The generalist that a run asks for: released weights, then tuned on the labelled cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aslseg.config import SamConfig
from aslseg.data.masks import label_components
from aslseg.data.volume import Float32, Mask, Volume
from aslseg.errors import ConfigError, ProjectError
from aslseg.events import Monitor
from aslseg.networks.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from aslseg.prompts import SlicePrompts, prompts_from_mask, proposed_masks
from aslseg.sam.decoder import decode_batch
from aslseg.sam.embeddings import VolumeEmbeddings
from aslseg.sam.predictor import Generalist, build_generalist
from aslseg.sam.tuning import load_trainable_state, trainable_state, tunes_encoder
from aslseg.targets import Target, region_mask
from aslseg.training.context import Job, LabelledVolume, labelled_volumes
from aslseg.training.cross_fitting import Witnesses
from aslseg.training.mask_corruption import case_number, synthetic_masks
from aslseg.training.trainer import Schedule, Trainer

DICE_WEIGHT, CROSS_WEIGHT = 0.8, 0.2
"""Of the loss that SAM is tuned with; CPC-SAM's weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A prompt and the mask that SAM should answer with.

    Attributes:
        prompt: What SAM is told.
        answer: (H, W) the truth; empty where the prompt points at nothing.
    """

    prompt: SlicePrompts
    answer: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Pupil:
    """A labelled volume with the questions that SAM is tuned on.

    Attributes:
        volume: The image.
        questions: By target name.
        embeddings: Of all slices that the questions are about; None before `Generalist.prepare`,
            and when the image encoder is trained too.
    """

    volume: Volume
    questions: Mapping[str, Sequence[Question]]
    embeddings: VolumeEmbeddings | None = None


def mask_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Return Dice and cross entropy per prompt, averaged.

    Args:
        logits: (P, H, W).
        answers: (P, H, W) of 0 and 1; an empty answer asks for silence.
    """
    probability = logits.sigmoid()
    overlap = (probability * answers).sum((1, 2))
    total = (probability.square() + answers).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    # Cross entropy over some hundred pixels around the mask, not over the empty rest of the slice.
    scale = logits[0].numel() / (answers.sum((1, 2)) * 4 + 400)
    cross = F.binary_cross_entropy_with_logits(logits, answers, reduction="none").mean((1, 2))
    return (DICE_WEIGHT * dice + CROSS_WEIGHT * cross * scale).mean()


def questions_from(
    pseudo: Mask, truth: Mask, target: str, settings: SamConfig, rng: np.random.Generator
) -> list[Question]:
    """Make questions from a pseudo-label, with the truth as answers.

    The answer to a component's prompt is the true components that it touches in its slice; none
    means that SAM should answer with nothing.

    Args:
        pseudo: (D, H, W) a damaged mask.
        truth: (D, H, W).
        target: Name of the class.
        settings: Of the prompts.
        rng: Draws the jitter of the boxes.
    """
    questions: list[Question] = []
    prompts = prompts_from_mask(pseudo, target=target, settings=settings.prompts, rng=rng)
    numbered = {k: label_components(truth[k])[0] for k in {p.slice_index for p in prompts}}
    for prompt in prompts:
        labels = numbered[prompt.slice_index]
        touched = np.unique(labels[_inner(prompt, labels.shape)])
        questions.append(Question(prompt, np.isin(labels, touched[touched > 0])))
    return questions


def _inner(prompt: SlicePrompts, shape: tuple[int, ...]) -> Mask:
    """Return where a prompt points: its mask, or else its box."""
    if prompt.mask_logits is not None:
        return prompt.mask_logits > 0
    inside = np.zeros(shape, bool)
    if prompt.box is not None:
        left, top, right, bottom = (round(edge) for edge in prompt.box.xyxy)
        inside[top:bottom, left:right] = True
    return inside


def pupil_of(
    labelled: LabelledVolume,
    targets: Sequence[Target],
    settings: SamConfig,
    seed: int,
    said: Mapping[str, Float32] | None = None,
) -> Pupil:
    """Make the questions that SAM is tuned on.

    Args:
        labelled: The case.
        targets: All targets.
        settings: Number of damaged versions, prompts.
        seed: Of damage and prompts.
        said: What a specialist that never saw the case says about it.

    Returns:
        Prompts of the true mask, of damaged ones, and of what was said, each with the truth.
    """
    rng = np.random.default_rng([seed, 11, case_number(labelled.case_id)])
    questions: dict[str, list[Question]] = {t.name: [] for t in targets}
    truth = {t.name: region_mask(labelled.labels.labels, t, targets) for t in targets}
    versions = [truth] + [synthetic_masks(labelled, targets, rng) for _ in range(settings.versions)]
    versions += [] if said is None else [proposed_masks(said, targets, settings)]
    for masks in versions:
        for name, mask in masks.items():
            questions[name] += questions_from(mask, truth[name], name, settings, rng)
    return Pupil(labelled.volume, questions)


def prepared(generalist: Generalist, pupil: Pupil, monitor: Monitor | None = None) -> Pupil:
    """Return the pupil with embeddings for all its questions, unless the encoder is trained too."""
    if tunes_encoder(generalist.sam):
        return pupil
    asked = [q for questions in pupil.questions.values() for q in questions]
    slices = sorted({q.prompt.slice_index for q in asked})
    return replace(pupil, embeddings=generalist.embeddings(pupil.volume, slices, monitor))


def tuning_loss(generalist: Generalist, pupil: Pupil, rng: np.random.Generator) -> Tensor:
    """Return the loss of SAM's answers to a batch of a volume's questions.

    Targets are drawn equally often, then questions of a target.
    """
    names = [name for name, questions in pupil.questions.items() if questions]
    drawn: list[Question] = []
    for n in range(generalist.settings.batch_size):
        questions = pupil.questions[names[n % len(names)]]
        drawn.append(questions[int(rng.integers(len(questions)))])
    slices = sorted({q.prompt.slice_index for q in drawn})
    index = torch.tensor([slices.index(q.prompt.slice_index) for q in drawn])
    if pupil.embeddings is not None:
        embeddings = pupil.embeddings.stack(slices).float()
    else:
        embeddings = generalist.encode(pupil.volume, slices)
    decoded = decode_batch(
        generalist.sam,
        embeddings,
        [q.prompt for q in drawn],
        index=index,
        frame=generalist.frame(pupil.volume),
    )
    answers = torch.from_numpy(np.stack([q.answer for q in drawn])).to(decoded.logits)
    return mask_loss(decoded.logits, answers)


def required_generalist(job: Job, **changes: Any) -> Generalist:
    """Build SAM with released weights for a method that cannot do without.

    Args:
        job: Settings, device, listener.
        changes: Settings of `sam` that the method does not leave to the user.

    Raises:
        ConfigError: When the settings have no SAM.
        WeightsError: When its weights cannot be had.
    """
    changed = job.config.sam.model_copy(update=changes)
    config = job.config.model_copy(update={"sam": changed})
    generalist = build_generalist(config, job.cache / "embeddings", job.device, job.monitor)
    if generalist is None:
        msg = f"The method {config.method} needs SAM; set sam.model to vit_t or a larger one."
        raise ConfigError(msg)
    return generalist


def tuned_generalist(
    job: Job, folder: Path, witnesses: Witnesses | None = None
) -> Generalist | None:
    """Return SAM tuned on the labelled cases, training it if that was not done yet.

    It is tuned once: on human labels, which are the same in every round.
    """
    generalist = build_generalist(job.config, job.cache / "embeddings", job.device, job.monitor)
    if generalist is None or job.config.sam.tuning == "none":
        return generalist
    path = sam_path(folder)
    if not path.exists():
        _tune(job, generalist, folder, witnesses or {})
        tensors = trainable_state(generalist.sam)
        facts = {"sam": job.config.sam.model_dump(mode="json")}
        save_checkpoint(path, Checkpoint("sam", tensors, facts))
    load_trainable_state(generalist.sam, load_checkpoint(path, "sam").tensors)
    generalist.encoder_changed()
    return generalist


def sam_path(folder: Path) -> Path:
    """Return where the tuned part of SAM is kept."""
    return folder / "sam.safetensors"


def _tune(job: Job, generalist: Generalist, folder: Path, witnesses: Witnesses) -> None:
    settings, seed = job.config.sam, job.config.seed
    pupils = _pupils(job, generalist, witnesses)

    def step_loss(step: int, _: torch.Generator) -> dict[str, Tensor]:
        rng = np.random.default_rng([seed, 17, step])
        return {"loss": tuning_loss(generalist, pupils[rng.integers(len(pupils))], rng)}

    schedule = Schedule(
        "sam", settings.iterations, settings.learning_rate, settings.weight_decay, seed=seed
    )
    # Stored embeddings are float16, which CPUs cannot mix with bfloat16.
    precise = not tunes_encoder(generalist.sam)
    Trainer(generalist.sam, schedule, job.device, folder, precise=precise).run(
        step_loss, job.monitor
    )


def _pupils(job: Job, generalist: Generalist, witnesses: Witnesses) -> list[Pupil]:
    pupils: list[Pupil] = []
    for labelled in labelled_volumes(job, job.labelled, "Making questions for SAM"):
        witness = witnesses.get(labelled.case_id)
        said = witness.predict(labelled.volume, job.monitor) if witness else None
        pupil = pupil_of(labelled, job.targets, job.config.sam, job.config.seed, said)
        if any(pupil.questions.values()):
            pupils.append(prepared(generalist, pupil, job.monitor))
    if not pupils:
        msg = "No labelled case shows enough of a target to tune SAM; label a larger one."
        raise ProjectError(msg)
    return pupils
