"""Organs filled between repaired slices, as in the panel; what was filled is kept: it is slow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.orientation import axial_to_slices
from aslseg.data.volume import Labelmap, Volume
from aslseg.inference.cascade import Specialist
from aslseg.sam.predictor import volume_digest
from aslseg.training.slice_filling import fill_between_slices


class Filler:
    """Fills organs by the specialist of a run.

    Args:
        load: Returns the specialist; called when something is filled that was not kept.
        about: What the specialist is, for the names of what is kept.
        kept: Folder of what was filled.
    """

    def __init__(self, load: Callable[[], Specialist], about: str, kept: Path) -> None:
        self._load, self._about, self._kept = load, about, kept
        self._specialist: Specialist | None = None

    def fill(self, volume: Volume, labels: Labelmap, slices: Sequence[int]) -> Labelmap:
        """Return a label map that is filled between slices.

        Args:
            volume: The image as it is stored.
            labels: What is shown, on its voxels.
            slices: Numbers of the repaired slices, on the slice grid.
        """
        asked = f"{self._about}{list(slices)}{volume_digest(volume)}".encode()
        digest = hashlib.sha256(asked + labels.labels.tobytes()).hexdigest()
        path = self._kept / f"{digest}.nii.gz"
        if not path.exists():
            if self._specialist is None:
                self._specialist = self._load()
            turn = axial_to_slices(volume.geometry).inverse
            depth = turn.shape(volume.geometry.shape)[0]
            axial = [turn.index(k, depth) for k in slices]
            path.parent.mkdir(parents=True, exist_ok=True)
            filled = fill_between_slices(self._specialist, volume, labels, axial)
            write_labelmap(filled, path)
        return read_labelmap(path)
