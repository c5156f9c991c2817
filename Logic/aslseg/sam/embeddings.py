"""Image embeddings of slices: made once, in float16, and kept on disk up to a bound."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.bounded_cache import BoundedCache
from aslseg.config import SamConfig
from aslseg.errors import StorageError
from aslseg.events import Monitor
from aslseg.networks.checkpoints import open_tensors, tensors_digest, write_tensors
from aslseg.storage import TEMPORARY

logger = logging.getLogger(__name__)


VERSION = 1  # raise it when the same slice no longer gives the same embedding


SLICES_PER_PART = 16


_REMEDY = "delete this file, it is made again"


Compute = Callable[[list[int]], Tensor]


@dataclass(frozen=True, slots=True)
class SliceFrame:
    """How a slice lies in SAM's square input: scaled to fill it, padded right and below.

    Attributes:
        height: Rows of the slice.
        width: Columns of the slice.
        input_size: Edge of the square.
    """

    height: int
    width: int
    input_size: int

    @property
    def scaled(self) -> tuple[int, int]:
        """Rows and columns that the slice takes up in the square."""
        scale = self.input_size / max(self.height, self.width)
        return max(int(self.height * scale + 0.5), 1), max(int(self.width * scale + 0.5), 1)

    def to_input(self, xy: Tensor) -> Tensor:
        """Map points (..., 2) from pixels of the slice to pixels of the square."""
        height, width = self.scaled
        return xy * xy.new_tensor([width / self.width, height / self.height])

    def image_to_input(self, images: Tensor, *, fill: float = 0.0) -> Tensor:
        """Scale and pad images.

        Args:
            images: (N, C, H, W).
            fill: Value of the padding.

        Returns:
            (N, C, S, S).
        """
        height, width = self.scaled
        scaled = images
        if images.shape[-2:] != (height, width):
            scaled = F.interpolate(images, self.scaled, mode="bilinear", antialias=True)
        return F.pad(scaled, (0, self.input_size - width, 0, self.input_size - height), value=fill)

    def mask_to_slice(self, logits: Tensor) -> Tensor:
        """Scale low-resolution masks of the whole square to the slice.

        Args:
            logits: (N, C, h, w).

        Returns:
            (N, C, H, W).
        """
        height, width = self.scaled
        square = (self.input_size, self.input_size)
        full = F.interpolate(logits, square, mode="bilinear", align_corners=False)
        shape = (self.height, self.width)
        cropped = full[..., :height, :width]
        if cropped.shape[-2:] == shape:
            return cropped
        return F.interpolate(cropped, shape, mode="bilinear", align_corners=False)


def prepare_slices(sam: nn.Module, slices01: Tensor) -> Tensor:
    """Turn slices into SAM's normalised input.

    Args:
        sam: Gives input size and pixel statistics.
        slices01: (N, H, W) or (N, 3, H, W) in [0, 1].

    Returns:
        (N, 3, S, S) float32 on SAM's device.
    """
    model: Any = sam
    images = slices01 if slices01.ndim == 4 else slices01[:, None].expand(-1, 3, -1, -1)
    frame = SliceFrame(images.shape[-2], images.shape[-1], input_size_of(sam))
    pixels = images.to(model.device, torch.float32) * 255.0
    return frame.image_to_input((pixels - model.pixel_mean) / model.pixel_std)


@torch.no_grad()
def embed_slices(sam: nn.Module, slices01: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Run the image encoder.

    Args:
        sam: In evaluation mode.
        slices01: (N, H, W) or (N, 3, H, W) in [0, 1].
        dtype: That it computes with; see `precision`.

    Returns:
        (N, 256, S/16, S/16) float16 on the CPU.
    """
    model: Any = sam
    kind = model.device.type
    cells = input_size_of(sam) // 16
    parts = [torch.empty(0, 256, cells, cells, dtype=torch.float16)]
    for some in torch.split(slices01, slices_at_once(kind, 16 * cells)) if len(slices01) else ():
        images = prepare_slices(sam, some).contiguous(memory_format=torch.channels_last)
        with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
            parts.append(model.image_encoder(images).to("cpu", torch.float16))
    return torch.cat(parts)


def slices_at_once(kind: str, input_size: int) -> int:
    """Return how many slices are encoded together.

    A graphics card takes as long for one as for several; a processor is as fast one by one, in less
    memory.

    Args:
        kind: Of device: `cpu`, `cuda` or `mps`.
        input_size: Edge of SAM's input in pixels.
    """
    return max(1, min(16, 4 * (1024 // input_size) ** 2)) if kind == "cuda" else 1


def encoder_digest(sam: nn.Module) -> str:
    """Return the SHA-256 of the image encoder's weights: another decoder leaves it as it is."""
    encoder: Any = sam.image_encoder
    return tensors_digest(encoder.state_dict())


def embedding_key(image_digest: str, model_digest: str, settings: Mapping[str, Any]) -> str:
    """Name a volume's embeddings after all that they depend on.

    Args:
        image_digest: Of the image's content.
        model_digest: From `encoder_digest`.
        settings: Window, crop, input size: anything that JSON can hold.

    Returns:
        40 hexadecimal digits.
    """
    parts = {"version": VERSION, "image": image_digest, "model": model_digest, **settings}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


class VolumeEmbeddings:
    """The stored embeddings of one volume, read from disk slice by slice.

    Attributes:
        folder: Holds parts, each with some slices.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts: dict[int, tuple[Path, int]] = {}
        self._seen: set[Path] = set()
        self.look_again()

    def look_again(self) -> None:
        """Take in parts that were written since."""
        for part in sorted(set(self.folder.glob("*.safetensors")) - self._seen):
            if not part.name.startswith(TEMPORARY):
                self._add(part)

    @property
    def indices(self) -> list[int]:
        """Which slices are there."""
        return sorted(self._parts)

    def stack(self, slice_indices: Sequence[int]) -> Tensor:
        """Read slices.

        Returns:
            (N, 256, h, w) float16, in the order asked for.

        Raises:
            KeyError: When one of them is not there.
            StorageError: When a part cannot be read any more.
        """
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for position, index in enumerate(slice_indices):
            part, row = self._parts[index]
            wanted.setdefault(part, []).append((position, row))
        found: dict[int, Tensor] = {}
        for part, rows in wanted.items():
            # memory-mapped: reads the rows only
            with open_tensors(part, StorageError, _REMEDY) as file:
                stored = file.get_slice("embeddings")
                found.update({position: stored[row] for position, row in rows})
        return torch.stack([found[position] for position in range(len(slice_indices))])

    def store(self, slice_indices: Sequence[int], embeddings: Tensor) -> None:
        """Add slices as a new part, whole or not at all.

        Args:
            slice_indices: N numbers.
            embeddings: (N, 256, h, w).

        Raises:
            StorageError: When the disk is full or the folder cannot be written.
        """
        part = self.folder / f"{min(slice_indices):05d}-{secrets.token_hex(4)}.safetensors"
        tensors = {
            "indices": torch.tensor(list(slice_indices), dtype=torch.int32),
            "embeddings": embeddings.detach().to("cpu", torch.float16).contiguous(),
        }
        write_tensors(part, tensors)
        self._add(part)

    def _add(self, part: Path) -> None:
        self._seen.add(part)
        try:
            with open_tensors(part, StorageError, _REMEDY) as file:
                indices = file.get_tensor("indices").tolist()
                shape = file.get_slice("embeddings").get_shape()
        except StorageError as error:
            logger.warning("Embeddings are made again: %s", error)
            return
        if isinstance(indices, list) and len(shape) == 4 and shape[0] == len(indices):
            self._parts.update({k: (part, row) for row, k in enumerate(indices)})


class EmbeddingStore(BoundedCache):
    """A cache of embeddings on disk that may be deleted at any time.

    Args:
        folder: Where; it holds a folder for each key.
        limit_gb: The bound, in 10^9 bytes.
    """

    def __init__(self, folder: Path, limit_gb: float = SamConfig().cache_gb) -> None:
        super().__init__(folder, limit_gb)
        self._asked = self._found = 0

    def get_or_compute(
        self,
        key: str,
        slice_indices: Sequence[int],
        compute: Compute,
        *,
        monitor: Monitor | None = None,
    ) -> VolumeEmbeddings:
        """Give the embeddings of some slices, encoding only those that are not there yet.

        Args:
            key: From `embedding_key`.
            slice_indices: Slices that will be needed.
            compute: Given slice indices, returns (N, 256, h, w) in their order.
            monitor: Told of each batch; what is done by then is kept when it is cancelled.

        Raises:
            CancelledError: When asked to stop.
            StorageError: When the disk is full or the folder cannot be written.
        """
        volume = self.hold(key, VolumeEmbeddings)
        missing = sorted(set(slice_indices) - set(volume.indices))
        self._count(len(set(slice_indices)), len(missing))
        batches = list(_batches(missing, SLICES_PER_PART))
        if batches:
            for batch in (monitor or Monitor()).track(batches, "Encoding slices"):
                volume.look_again()  # another process may encode the same volume
                wanted = sorted(set(batch) - set(volume.indices))
                if wanted:
                    volume.store(wanted, compute(wanted))
            self.evict()
        return volume

    def _count(self, asked: int, missing: int) -> None:
        self._asked, self._found = self._asked + asked, self._found + asked - missing
        if asked > 1:
            logger.info(
                "%d of %d embeddings of SAM were on disk; %.0f %% of all so far.",
                asked - missing,
                asked,
                100 * self._found / self._asked,
            )


def _batches(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def input_size_of(sam: nn.Module) -> int:
    """Return the edge of the square input in pixels."""
    encoder: Any = sam.image_encoder
    return int(encoder.img_size)
