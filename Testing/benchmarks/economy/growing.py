"""Lesions that grow from a box, as in the panel; what has grown is kept, for SAM is slow."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aslseg.data.orientation import to_slices
from aslseg.data.volume import Labelmap, Mask, Volume
from aslseg.inference.interactive.growth import grow_lesion
from aslseg.inference.interactive.propagation import GrownSlice, SliceSam
from aslseg.prompts import BoxPrompt, SlicePrompts
from aslseg.sam.predictor import volume_digest
from aslseg.storage import atomic_path
from aslseg.targets import Target


class Grower:
    """Lets lesions grow by SAM.

    Args:
        sam: Predicts their sections.
        kept: Folder of what has grown.
    """

    def __init__(self, sam: SliceSam, kept: Path) -> None:
        self._sam, self._kept = sam, kept

    def grow(
        self,
        volume: Volume,
        labels: Labelmap,
        targets: Sequence[Target],
        target: str,
        at: tuple[int, BoxPrompt],
    ) -> Mask:
        """Return what grows from a box, (D, H, W) on the slice grid.

        Args:
            volume: The image as it is stored.
            labels: What is shown: parents hold the lesion, other lesions are spared.
            targets: All targets.
            target: Of the lesion.
            at: The slice of the box, and the box, on the slice grid.
        """
        k, box = at
        asked = f"{target}{k}{box}{volume_digest(volume)}".encode() + labels.labels.tobytes()
        path = self._kept / f"{hashlib.sha256(asked).hexdigest()}.npy"
        shape = to_slices(volume.geometry).shape(volume.geometry.shape)
        if path.exists():
            packed = np.load(path)
            return np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(bool)
        mask = np.zeros(shape, np.bool_)
        prompt = SlicePrompts(k, target, box=box)
        for found in grow_lesion(self._sam, volume, [prompt], labels=labels, targets=targets):
            if isinstance(found, GrownSlice):
                mask[found.slice_index] = found.mask
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.save(file, np.packbits(mask))
        return mask
