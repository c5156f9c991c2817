"""The generalist: SAM, tuned on the labelled cases, asked with prompts made from masks.

Embeddings of the frozen image encoder are made once per slice and kept on disk. SAM answers each
prompt with a mask; a target's probability in a slice is the largest over the prompts that asked for
it, and zero where nobody asked.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.components import label_components
from aslseg.config import SamConfig, Target
from aslseg.events import Monitor
from aslseg.finite import require_finite
from aslseg.intensity import window
from aslseg.prompts import SlicePrompts, prompts_from_mask
from aslseg.proposals import propose
from aslseg.sam.decoding import decode, decode_batch
from aslseg.sam.embeddings import (
    EmbeddingStore,
    SliceFrame,
    VolumeEmbeddings,
    embed_slices,
    embedding_key,
    encoder_digest,
    prepare_slices,
)
from aslseg.sam.tuning import tunes_encoder
from aslseg.views import Float32
from aslseg.volume import Mask, Volume

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


class Generalist:
    """SAM with its embeddings on disk.

    Args:
        sam: The model, on its device.
        settings: Window, prompts, tuning.
        cache: Folder of the embeddings; may be deleted at any time.
    """

    def __init__(self, sam: nn.Module, settings: SamConfig, cache: Path) -> None:
        self.sam = sam
        self.settings = settings
        self._store = EmbeddingStore(cache)
        self._digest = ""
        self._known: tuple[weakref.ref[Any], str] | None = None

    def embeddings(
        self, volume: Volume, slices: Sequence[int], monitor: Monitor | None = None
    ) -> VolumeEmbeddings:
        """Return the embeddings of some slices, encoding those that are not on disk yet."""
        if not self._digest:
            self._digest = encoder_digest(self.sam)
        facts = {
            "window_hu": list(self.settings.window_hu),
            "input_size": self.settings.input_size,
            "computed_in": "float16" if next(self.sam.parameters()).is_cuda else "float32",
        }
        key = embedding_key(self._digest_of(volume), self._digest, facts)

        def compute(wanted: list[int]) -> Tensor:
            return embed_slices(self.sam, self._slices01(volume, wanted))

        return self._store.get_or_compute(key, slices, compute, monitor=monitor)

    def propose(
        self, volume: Volume, said: Mapping[str, Float32], targets: Sequence[Target]
    ) -> list[SlicePrompts]:
        """Turn the specialist's probabilities into prompts, one per component and slice."""
        return propose(said, targets, self.settings)

    def ask(
        self, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor | None = None
    ) -> dict[str, Float32]:
        """Answer prompts.

        Returns:
            By target name, (D, H, W) probability; targets without a prompt are missing.

        Raises:
            RunError: When SAM answers with values that are no numbers.
        """
        by_slice: dict[int, list[SlicePrompts]] = {}
        for prompt in prompts:
            by_slice.setdefault(prompt.slice_index, []).append(prompt)
        slices = sorted(by_slice)
        known = self.embeddings(volume, slices, monitor)
        frame = self.frame(volume)
        self.sam.eval()
        answers = {p.target: np.zeros(volume.geometry.shape, np.float32) for p in prompts}
        for k in (monitor or Monitor()).details(slices, "Asking SAM"):
            decoded = decode(self.sam, known.stack([k])[0].float(), by_slice[k], frame)
            for prompt, logits in zip(by_slice[k], decoded.logits, strict=True):
                plane = answers[prompt.target][k]
                found = require_finite(logits.float().sigmoid().cpu().numpy(), "SAM")
                np.maximum(plane, found, out=plane)
        return answers

    def frame(self, volume: Volume) -> SliceFrame:
        """Return how slices of a volume lie in SAM's input."""
        _, height, width = volume.geometry.shape
        return SliceFrame(height, width, self.settings.input_size)

    def prepare(self, pupil: Pupil, monitor: Monitor | None = None) -> Pupil:
        """Return the pupil with embeddings for all its questions."""
        if tunes_encoder(self.sam):
            return pupil
        asked = [q for questions in pupil.questions.values() for q in questions]
        slices = sorted({q.prompt.slice_index for q in asked})
        return replace(pupil, embeddings=self.embeddings(pupil.volume, slices, monitor))

    def loss(self, pupil: Pupil, rng: np.random.Generator) -> Tensor:
        """Return the loss of SAM's answers to a batch of a volume's questions.

        Targets are drawn equally often, then questions of a target.
        """
        names = [name for name, questions in pupil.questions.items() if questions]
        drawn: list[Question] = []
        for n in range(self.settings.batch_size):
            questions = pupil.questions[names[n % len(names)]]
            drawn.append(questions[int(rng.integers(len(questions)))])
        slices = sorted({q.prompt.slice_index for q in drawn})
        index = torch.tensor([slices.index(q.prompt.slice_index) for q in drawn])
        decoded = decode_batch(
            self.sam,
            self._training_embeddings(pupil, slices),
            [q.prompt for q in drawn],
            index=index,
            frame=self.frame(pupil.volume),
        )
        answers = torch.from_numpy(np.stack([q.answer for q in drawn])).to(decoded.logits)
        return mask_loss(decoded.logits, answers)

    def _training_embeddings(self, pupil: Pupil, slices: Sequence[int]) -> Tensor:
        if pupil.embeddings is not None:
            return pupil.embeddings.stack(slices).float()
        known: Any = self.sam
        encoded: Tensor = known.image_encoder(
            prepare_slices(self.sam, self._slices01(pupil.volume, slices))
        )
        return encoded

    def encoder_changed(self) -> None:
        """Forget the name of the image encoder; call after its weights have changed."""
        self._digest = ""

    def _digest_of(self, volume: Volume) -> str:
        """Return the digest of a volume; of the last one it is remembered while it lives."""
        if self._known is None or self._known[0]() is not volume.voxels:
            self._known = weakref.ref(volume.voxels), volume_digest(volume)
        return self._known[1]

    def _slices01(self, volume: Volume, slices: Sequence[int]) -> Tensor:
        chosen = volume.voxels[np.asarray(slices, dtype=np.int64)]
        return torch.from_numpy(window(chosen, self.settings.window_hu))


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


def volume_digest(volume: Volume) -> str:
    """Return the SHA-256 of a volume's voxels and shape."""
    voxels = np.ascontiguousarray(volume.voxels)
    digest = hashlib.sha256(f"{voxels.dtype.str}{voxels.shape}".encode())
    digest.update(voxels.data)
    return digest.hexdigest()
