"""A pseudo-label of a case in files: which targets of it are accepted, and what is doubtful."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aslseg import run_names
from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap
from aslseg.data.volume import Mask
from aslseg.targets import CascadeStage, Target


@dataclass(frozen=True, slots=True, eq=False)
class PseudoLabel:
    """An accepted pseudo-label, in files: memory holds those of one case at a time.

    Attributes:
        labels: File of the label map.
        targets: Names of the targets that are accepted. A stage is trained on the case if all of
            its targets are.
        doubtful: File that has, by value, the outermost target that a voxel's membership is in
            doubt of (see `selection.doubtful_labels`); None where none is.
    """

    labels: Path
    targets: frozenset[str]
    doubtful: Path | None = None

    @classmethod
    def in_folder(cls, folder: Path, case_id: str, targets: Iterable[str]) -> PseudoLabel:
        """Return a written pseudo-label; rounds of earlier versions have none that is doubtful."""
        labels, doubtful = pseudo_label_paths(folder, case_id)
        return cls(labels, frozenset(targets), doubtful if doubtful.exists() else None)

    def covers(self, stage: CascadeStage) -> bool:
        """Whether a stage is trained on it."""
        return all(target.name in self.targets for target in stage.targets)

    def ignored(self, stage: CascadeStage, targets: Sequence[Target]) -> Mask | None:
        """Return what a stage ignores, (D, H, W) on the axial grid: doubts of it or its parents."""
        if self.doubtful is None:
            return None
        by_name = {target.name: target for target in targets}
        values, parent = [target.value for target in stage.targets], stage.inside
        while parent is not None:
            values.append(parent.value)
            parent = None if parent.inside is None else by_name[parent.inside]
        return np.isin(axial_labelmap(read_labelmap(self.doubtful)).labels, values)


def pseudo_label_paths(folder: Path, case_id: str) -> tuple[Path, Path]:
    """Return the files of a pseudo-label: its labels, and what is doubtful.

    Args:
        folder: Of a round, or of an out-of-fold model.
        case_id: Of the case.
    """
    pseudo = folder / run_names.PSEUDO
    return pseudo / f"{case_id}.nii.gz", pseudo / f"{case_id}-doubtful.nii.gz"
