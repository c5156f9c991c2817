"""A lesion that is being drawn: what was shown before, and what was drawn since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ASLsegLib.logic.history import Change
from ASLsegLib.scene.lesion_masks import (
    exchange_voxels,
    target_mask,
    without,
)
from ASLsegLib.scene.volumes import SceneError

if TYPE_CHECKING:
    import numpy as np

    from aslseg.data.volume import Geometry
    from aslseg.evaluation.lesion_review import ReviewedLesion
    from aslseg.project.lesion_decisions import BoxedMask
    from aslseg.project.run_folder import RunFolder
    from aslseg.targets import Target


def predicted_labels(
    run: RunFolder, number: int | None, case_id: str, geometry: Geometry
) -> np.ndarray:
    """Return the final label of a case as a round of a run has it, (D, H, W).

    Raises:
        RunError: When the run has none of the case any more.
    """
    from aslseg.project.predictions import read_prediction
    from aslseg.project.review import refined_path

    return read_prediction(refined_path(run, case_id, number), geometry).labels


@dataclass
class Drawing:
    """A lesion that is being drawn or prompted.

    Attributes:
        lesion: The lesion as it is without what is drawn; None for one that was missed.
        target: Its target.
        before: What the prediction showed of the target.
        parent_before: What it showed of the target that this one lies in.
        known: What had been done before.
    """

    lesion: ReviewedLesion | None
    target: Target
    before: BoxedMask | None = field(repr=False)
    parent_before: BoxedMask | None = field(repr=False)
    known: tuple[Change, ...] = field(repr=False)

    def voxels(
        self, node: Any, volume: Any, targets: Sequence[Target]
    ) -> tuple[BoxedMask | None, BoxedMask | None]:
        """Return the voxels that the target has got since then, and those that it has lost."""
        now = target_mask(node, volume, self.target, targets)
        return without(now, self.before), without(self.before, now)

    def changes(self, done: Sequence[Change], volume_id: str) -> list[Change]:
        """Return what of all that was done is about a volume, and was done since then."""
        about = (one for one in done if one.volume_id == volume_id)
        return [one for one in about if one not in self.known]


class DrawnVoxels:
    """The voxels that were drawn by hand while a lesion was drawn: taken out, and put in again.

    Args:
        nodes: Refined prediction and volume node.
        targets: Of the project.
        drawing: The lesion, and what the prediction showed before.
    """

    def __init__(self, nodes: tuple[Any, Any], targets: Sequence[Target], drawing: Drawing) -> None:
        self._nodes, self._targets, self._drawing = nodes, targets, drawing
        self._come: BoxedMask | None = None
        self._gone: BoxedMask | None = None
        self._of_parent: BoxedMask | None = None

    def hide(self) -> None:
        """Bring back what was there before the lesion was drawn."""
        drawing, targets = self._drawing, self._targets
        parent = next(one for one in targets if one.name == drawing.target.inside)
        self._come, self._gone = drawing.voxels(*self._nodes, targets)
        of_parent = target_mask(*self._nodes, parent, targets)
        self._of_parent = without(self._gone, without(self._gone, of_parent))
        self._exchange(come=self._gone, gone=self._come, parent_mask=drawing.parent_before)

    def show(self) -> None:
        """Bring back what was drawn."""
        self._exchange(come=self._come, gone=self._gone, parent_mask=self._of_parent)

    def _exchange(self, **masks: BoxedMask | None) -> None:
        exchange_voxels(*self._nodes, self._targets, target=self._drawing.target, **masks)


def being_drawn(row: int | None) -> SceneError:
    """Return the error that says which lesion has to be decided about first."""
    which = "A missed lesion" if row is None else f"Lesion {row + 1}"
    return SceneError(f"{which} is being drawn; accept or delete that first.")
