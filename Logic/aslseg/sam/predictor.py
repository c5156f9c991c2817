"""SAM on a volume: released or tuned on the labelled cases, prompted slice by slice.

Embeddings of the frozen image encoder are made once per slice, and once more per crop of it that a
prompt asks for, and kept on disk. Each prompt gives a mask; the probability of a target in a slice
is the largest over its prompts, and zero without one.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aslseg.config import RunConfig, SamConfig
from aslseg.data.volume import Float32, Volume, zeros
from aslseg.events import Monitor
from aslseg.networks.device import require_finite
from aslseg.preprocessing.intensity import window
from aslseg.prompts import MASK_LOGIT, SliceCrop, SlicePrompts, propose_prompts
from aslseg.sam.crops import crops_in_parents, in_crop, with_crops
from aslseg.sam.decoder import decode
from aslseg.sam.embeddings import (
    EmbeddingStore,
    SliceFrame,
    VolumeEmbeddings,
    embed_slices,
    embedding_key,
    encoder_digest,
    prepare_slices,
)
from aslseg.sam.model import build_sam
from aslseg.sam.precision import choose_precision
from aslseg.sam.tuning import tune
from aslseg.sam.weights import get_weights
from aslseg.targets import Target


class VolumeSamPredictor:
    """SAM with its embeddings on disk.

    Args:
        sam: The model, on its device.
        settings: Window, prompts, tuning.
        cache: Folder of the embeddings; may be deleted at any time.
        dtype: That the image encoder computes with.
    """

    def __init__(
        self,
        sam: nn.Module,
        settings: SamConfig,
        cache: Path,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.sam = sam
        self.settings = settings
        self._dtype = dtype
        self._store = EmbeddingStore(cache, settings.cache_gb)
        self._digest = ""
        self._last_digest: tuple[weakref.ref[Any], str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process gets: not the digest of a volume that is here in memory."""
        return {**self.__dict__, "_last_digest": None}

    def embeddings(
        self,
        volume: Volume,
        slices: Sequence[int],
        monitor: Monitor | None = None,
        *,
        crop: SliceCrop | None = None,
    ) -> VolumeEmbeddings:
        """Return the embeddings of some slices, encoding those that are not on disk yet.

        Args:
            volume: The image.
            slices: Which.
            monitor: Told of the progress.
            crop: What is encoded of them; None for all, in the window of the settings.
        """
        if not self._digest:
            self._digest = encoder_digest(self.sam)
        facts = {
            "window_hu": list(self.settings.window_hu if crop is None else crop.window_hu),
            "input_size": self.settings.input_size,
            "computed_in": str(self._dtype).removeprefix("torch."),
        }
        if crop is not None:
            facts["crop"] = list(crop.xyxy)
        key = embedding_key(self._digest_of(volume), self._digest, facts)

        def compute(wanted: list[int]) -> Tensor:
            return embed_slices(self.sam, self._slices01(volume, wanted, crop), self._dtype)

        return self._store.get_or_compute(key, slices, compute, monitor=monitor)

    def propose_prompts(
        self, volume: Volume, probabilities: Mapping[str, Float32], targets: Sequence[Target]
    ) -> list[SlicePrompts]:
        """Turn the specialist's probabilities into prompts, one per component and slice.

        Prompts for targets inside of another see the crop that the settings want.
        """
        crops = crops_in_parents(volume, probabilities, targets, self.settings)
        return with_crops(propose_prompts(probabilities, targets, self.settings), crops)

    def predict(
        self, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor | None = None
    ) -> dict[str, Float32]:
        """Return the probabilities of the prompted targets.

        Returns:
            By target name, (D, H, W) probability; targets without a prompt are missing.

        Raises:
            RunError: When SAM predicts values that are no numbers.
        """
        by_crop: dict[SliceCrop | None, list[SlicePrompts]] = {}
        for prompt in prompts:
            by_crop.setdefault(prompt.crop, []).append(prompt)
        self.sam.eval()
        probabilities = {p: zeros(volume.geometry.shape) for p in {p.target for p in prompts}}
        for crop, group in by_crop.items():
            self._predict_crop(volume, crop, group, probabilities, monitor or Monitor())
        return probabilities

    def predict_logits(
        self, volume: Volume, prompt: SlicePrompts, monitor: Monitor | None = None
    ) -> Float32:
        """Predict one mask on one slice, encoding that slice alone.

        Returns:
            (H, W) logits; above 0 is inside. What a crop does not show is far outside.

        Raises:
            RunError: When SAM predicts values that are no numbers.
        """
        self.sam.eval()
        embeddings = self.embeddings(
            volume,
            [prompt.slice_index],
            (monitor or Monitor()).without_events(),
            crop=prompt.crop,
        )
        embedding = embeddings.stack([prompt.slice_index])[0].float()
        decoded = decode(self.sam, embedding, [in_crop(prompt)], self.frame(volume, prompt.crop))
        found = require_finite(decoded.logits[0].float().cpu().numpy(), "SAM")
        if prompt.crop is None:
            return found
        plane = np.full(volume.geometry.shape[1:], -MASK_LOGIT, np.float32)
        plane[prompt.crop.slices] = found
        return plane

    def _predict_crop(
        self,
        volume: Volume,
        crop: SliceCrop | None,
        prompts: Sequence[SlicePrompts],
        probabilities: dict[str, Float32],
        monitor: Monitor,
    ) -> None:
        """Raise probabilities to those of the prompts of one crop."""
        by_slice: dict[int, list[SlicePrompts]] = {}
        for prompt in prompts:
            by_slice.setdefault(prompt.slice_index, []).append(prompt)
        slices = sorted(by_slice)
        embeddings = self.embeddings(volume, slices, monitor, crop=crop)
        frame = self.frame(volume, crop)
        seen = (slice(None), slice(None)) if crop is None else crop.slices
        for k in monitor.details(slices, "Running SAM"):
            given = [in_crop(prompt) for prompt in by_slice[k]]
            decoded = decode(self.sam, embeddings.stack([k])[0].float(), given, frame)
            for prompt, logits in zip(given, decoded.logits, strict=True):
                plane = probabilities[prompt.target][k][seen]
                found = require_finite(logits.float().sigmoid().cpu().numpy(), "SAM")
                np.maximum(plane, found, out=plane)

    def frame(self, volume: Volume, crop: SliceCrop | None = None) -> SliceFrame:
        """Return how slices of a volume, or a crop of them, lie in SAM's input."""
        _, height, width = volume.geometry.shape
        if crop is not None:
            left, top, right, bottom = crop.xyxy
            height, width = bottom - top, right - left
        return SliceFrame(height, width, self.settings.input_size)

    def encode(
        self, volume: Volume, slices: Sequence[int], crop: SliceCrop | None = None
    ) -> Tensor:
        """Return the encoder's output for some slices, with gradients; nothing is stored.

        Returns:
            (n, C, h, w) embeddings.
        """
        model: Any = self.sam
        encoded: Tensor = model.image_encoder(
            prepare_slices(self.sam, self._slices01(volume, slices, crop))
        )
        return encoded

    def encoder_changed(self) -> None:
        """Compute the digest of the image encoder anew; call after its weights have changed."""
        self._digest = ""

    def _digest_of(self, volume: Volume) -> str:
        """Return the digest of a volume; that of the last one is cached while it lives."""
        if self._last_digest is None or self._last_digest[0]() is not volume.voxels:
            self._last_digest = weakref.ref(volume.voxels), volume_digest(volume)
        return self._last_digest[1]

    def _slices01(
        self, volume: Volume, slices: Sequence[int], crop: SliceCrop | None = None
    ) -> Tensor:
        chosen = volume.voxels[np.asarray(slices, dtype=np.int64)]
        if crop is None:
            return torch.from_numpy(window(chosen, self.settings.window_hu))
        return torch.from_numpy(window(chosen[(..., *crop.slices)], crop.window_hu))


def volume_digest(volume: Volume) -> str:
    """Return the SHA-256 of a volume's voxels and shape."""
    voxels = np.ascontiguousarray(volume.voxels)
    digest = hashlib.sha256(f"{voxels.dtype.str}{voxels.shape}".encode())
    digest.update(voxels.data)
    return digest.hexdigest()


def build_sam_predictor(
    config: RunConfig, cache: Path, device: torch.device, monitor: Monitor
) -> VolumeSamPredictor | None:
    """Build SAM with released weights, ready for tuning; None when the settings want none.

    Args:
        config: Model, input size, tuning.
        cache: Folder of the embeddings.
        device: Where SAM goes.
        monitor: Told of a download.

    Raises:
        WeightsError: When the weights cannot be had or are not what they should be.
    """
    settings = config.sam
    if settings.model == "none":
        return None
    if settings.checkpoint is None:
        checkpoint = get_weights(settings.model, monitor=monitor)
    else:
        checkpoint = Path(settings.checkpoint)
    sam = build_sam(settings.model, input_size=settings.input_size, checkpoint=checkpoint)
    dtype = choose_precision(sam.to(device), settings)
    torch.manual_seed(config.seed)
    tune(sam, settings.tuning, rank=settings.rank)
    return VolumeSamPredictor(sam, settings, cache, dtype)
