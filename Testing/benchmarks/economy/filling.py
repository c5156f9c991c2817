"""Organs and large lesions filled between drawn slices, as in the panel; what was is kept."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import torch

from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.orientation import axial_to_slices
from aslseg.data.volume import Labelmap, Volume
from aslseg.engine.filling import DrawnLesion, filled_lesion
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.cascade import Specialist
from aslseg.networks.device import choose_device
from aslseg.sam.predictor import volume_digest
from aslseg.targets import Target
from aslseg.training.slice_filling import fill_between_slices, fill_without_run


class Filler(ABC):
    """Fills organs by their image.

    Args:
        about: What it fills by, for the names of what is kept.
        kept: Folder of what was filled.

    Attributes:
        act: What a person waits for, one of `PRICES`.
        apart_mm: About how far apart slices are drawn first (what took least on draw A).
        fills_lesions: Large lesions are filled too.
    """

    act: ClassVar[str]
    apart_mm: ClassVar[float]
    fills_lesions: bool = False

    def __init__(self, about: str, kept: Path) -> None:
        self._about, self._kept = about, kept

    def fill(self, volume: Volume, labels: Labelmap, slices: Sequence[int]) -> Labelmap:
        """Return a label map that is filled between slices.

        Args:
            volume: The image as it is stored.
            labels: What is shown, on its voxels.
            slices: Numbers of the drawn slices, on the slice grid.
        """
        path = self._path(self._about, volume, slices, labels)
        if not path.exists():
            turn = axial_to_slices(volume.geometry).inverse
            depth = turn.shape(volume.geometry.shape)[0]
            axial = [turn.index(k, depth) for k in slices]
            write_labelmap(self._filled(volume, labels, axial), path)
        return read_labelmap(path)

    def fill_lesion(
        self, volume: Volume, targets: Sequence[Target], drawn: DrawnLesion, slices: Sequence[int]
    ) -> Labelmap | None:
        """Return a label map with a lesion filled between slices; None where that is not done.

        Args:
            volume: The image as it is stored.
            targets: Of the label map.
            drawn: What is shown, on the volume's voxels.
            slices: Numbers of the drawn slices, on the slice grid.
        """
        if not self.fills_lesions:
            return None
        shown = [drawn.labels] if drawn.lesion is None else [drawn.labels, drawn.lesion]
        path = self._path(f"lesion {drawn.target}", volume, slices, *shown)
        if not path.exists():
            cpu = choose_device("cpu")
            try:
                filled, _ = filled_lesion(volume, targets, drawn, list(slices), cpu, Monitor())
            except ConfigError:  # too small, or in too few slices
                return None
            write_labelmap(filled, path)
        return read_labelmap(path)

    def _path(self, about: str, volume: Volume, slices: Sequence[int], *shown: Labelmap) -> Path:
        """Return the file of what was filled, in a folder that is there."""
        asked = f"{about}{list(slices)}{volume_digest(volume)}".encode()
        digest = hashlib.sha256(b"".join([asked, *(one.labels.tobytes() for one in shown)]))
        self._kept.mkdir(parents=True, exist_ok=True)
        return self._kept / f"{digest.hexdigest()}.nii.gz"

    @abstractmethod
    def _filled(self, volume: Volume, labels: Labelmap, axial: Sequence[int]) -> Labelmap: ...


class RunFiller(Filler):
    """Fills organs by the specialist of a run.

    Args:
        load: Returns the specialist; called when something is filled that was not kept.
        about: As of `Filler`.
        kept: As of `Filler`.
    """

    act, apart_mm = "fill", 32.0

    def __init__(self, load: Callable[[], Specialist], about: str, kept: Path) -> None:
        super().__init__(about, kept)
        self._load = load
        self._specialist: Specialist | None = None

    def _filled(self, volume: Volume, labels: Labelmap, axial: Sequence[int]) -> Labelmap:
        if self._specialist is None:
            self._specialist = self._load()
        return fill_between_slices(self._specialist, volume, labels, axial)


class NewFiller(Filler):
    """Fills organs by a network that has learnt nothing else, as before any training.

    Args:
        targets: Of the label maps.
        kept: As of `Filler`.
    """

    act, apart_mm = "fill anew", 16.0

    def __init__(self, targets: Sequence[Target], kept: Path) -> None:
        super().__init__("a new network", kept)
        self._targets = tuple(targets)

    def _filled(self, volume: Volume, labels: Labelmap, axial: Sequence[int]) -> Labelmap:
        device = torch.device("cpu")
        return fill_without_run(self._targets, volume, labels, axial, device=device)
