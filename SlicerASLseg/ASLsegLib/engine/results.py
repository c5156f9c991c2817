"""Results of the engine about a volume: files read in a thread, then shown node by node."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk

from aslseg.project.run_tables import PREDICTIONS
from ASLsegLib.scene.disagreement import (
    find_overlay,
    image_of,
    overlay_slice,
    restore_overlay,
    restore_overlay_slice,
    show_disagreement,
    update_disagreement,
)
from ASLsegLib.scene.drawn_prompts import draw_prompts
from ASLsegLib.scene.provenance import Provenance
from ASLsegLib.scene.segmentations import (
    Policy,
    SegmentEdit,
    apply_edit,
    find_prediction,
    flag_disagreement,
    write_prediction,
    write_prediction_slice,
)
from ASLsegLib.scene.segments import Parts, parts_of
from ASLsegLib.scene.volumes import (
    SceneError,
    geometry_of,
    plane_geometry_of,
    slice_axis_of,
)

if TYPE_CHECKING:  # pydantic may not be installed before a result is asked for
    from aslseg.data.volume import Geometry, Labels
    from aslseg.engine.facts import PredictionFacts
    from aslseg.engine.protocol import Done

logger = logging.getLogger(__name__)

PROMPTED = ("sam", "refined")
"""Predictions that a person's prompts change."""
_PROPOSED = "ASLseg.ProposedPrompts"

_UNKNOWN = Provenance("")

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class VolumeResult:
    """Predictions about a whole volume, with what is slow to compute.

    Attributes:
        predictions: The parts of each target, by source.
        prompts: Given to SAM.
        drawn: The prompts as a label map.
        targets: Of predictions and drawn prompts.
        origin: Provenance of the predictions, but for their source.
        agreement: By target, the least Dice of two predictions.
        disagreement: Image of the overlay, or None.
    """

    predictions: dict[str, Parts]
    prompts: list[Any]
    drawn: Parts
    targets: list[Any]
    origin: Provenance = _UNKNOWN
    agreement: dict[str, float] = field(default_factory=dict)
    disagreement: vtk.vtkImageData | None = None


@dataclass(frozen=True)
class SliceResult:
    """Predictions about one slice.

    Attributes:
        planes: By source, (H, W) uint8.
        slice_index: Which axial slice.
        targets: Of the label maps.
        origin: Provenance of the predictions, but for their source.
        disagreement: (H, W) uint8 in percent, or None.
    """

    planes: dict[str, np.ndarray]
    slice_index: int
    targets: list[Any]
    origin: Provenance = _UNKNOWN
    disagreement: np.ndarray | None = None


class ShownAnswer:
    """What an answer has changed in the scene: a call takes it back, another call does it again.

    Args:
        volume: Volume node.
    """

    def __init__(self, volume: Any) -> None:
        self._volume = volume
        self._edits: list[SegmentEdit] = []
        self._overlay: tuple[Callable[[Any], Any], Any] | None = None
        self._proposed: str | None = None
        self._proposes = False

    @property
    def edits(self) -> list[SegmentEdit]:
        """What takes segments back; `write_prediction` adds to it."""
        return self._edits

    def count_bytes(self) -> int:
        """Return how much memory it takes, about."""
        kept = None if self._overlay is None else self._overlay[1]
        if isinstance(kept, vtk.vtkImageData):
            overlay = 1024 * int(kept.GetActualMemorySize())
        else:
            overlay = len(kept or b"")
        return overlay + sum(edit.size_bytes for edit in self._edits)

    def note_overlay(self, slice_index: int | None) -> None:
        """Keep the overlay of disagreement before it changes: one slice of it, or all for None."""
        if slice_index is not None:
            kept = overlay_slice(self._volume, slice_index)
            self._overlay = partial(restore_overlay_slice, self._volume, slice_index), kept
            return
        node = find_overlay(self._volume)
        image = None if node is None else node.GetImageData()
        self._overlay = partial(restore_overlay, self._volume), image

    def note_proposed(self) -> None:
        """Keep the proposed prompts before they change."""
        node = find_prediction(self._volume, "prompts")
        self._proposed, self._proposes = node.GetAttribute(_PROPOSED) if node else None, True

    def __call__(self) -> None:
        """Take it back, or do it again."""
        _check_present(self._volume)
        proposed = self._proposed
        if self._proposes:
            self.note_proposed()
        self._edits = [apply_edit(self._volume, edit) for edit in self._edits[::-1]]
        node = find_prediction(self._volume, "prompts")
        if self._proposes and node is not None:
            node.SetAttribute(_PROPOSED, proposed)  # None removes it
        if self._overlay is not None:
            restore, kept = self._overlay
            self._overlay = restore, restore(kept)


def result_handlers(
    volume: Any, slice_index: int | None, may_replace: Policy, *, prompted: bool = False
) -> tuple[Callable[[Done], Any], Callable[[Any, ShownAnswer], Iterator[str]]]:
    """Return how a result is read in a thread, and how it then comes into the scene.

    Args:
        volume: Volume node.
        slice_index: The slice of the request; None for the whole volume.
        may_replace: Asked before segments that a person edited are replaced.
        prompted: Whether the request holds a person's prompts.
    """
    if slice_index is not None:
        on_slice = plane_geometry_of(volume, slice_index)
        return (
            lambda done: read_slice_result(done, slice_index, on_slice, prompted=prompted),
            lambda result, shown: show_slice_result(volume, result, may_replace, shown),
        )
    geometry, axis = geometry_of(volume), slice_axis_of(volume)
    return (
        lambda done: read_volume_result(done, geometry, axis, prompted=prompted),
        lambda result, shown: show_volume_result(volume, result, may_replace, shown),
    )


def read_volume_result(
    done: Done, geometry: Geometry, axis: int = 0, *, prompted: bool = False
) -> VolumeResult:
    """Read the files of an answer about a whole volume; work for a thread.

    Args:
        done: Answer to `segment` or `refine`.
        geometry: Of the volume.
        axis: Along which its axial slices are numbered.
        prompted: Whether the request held a person's prompts.

    Raises:
        ImageError: When a file is missing or damaged.
        SceneError: When a label map lies on other voxels than those of the volume.
    """
    from aslseg.errors import ImageError
    from aslseg.prompts import read_prompts

    facts, files = _facts_and_files(done)
    return volume_result(
        _read_predictions(files, geometry),
        read_prompts(files["prompts"], ImageError, "segment the volume again"),
        targets=facts.targets,
        shape=geometry.shape,
        axis=axis,
        origin=_origin_of(facts, prompted),
        disagreement=_read_disagreement(files, geometry),
    )


def read_answer(path: Path, geometry: Geometry) -> Labels:
    """Return the label map (D, H, W) of an answer; work for a thread.

    Args:
        path: The file.
        geometry: Of the volume, or of the slice as a volume of one.

    Raises:
        ImageError: When the file is missing or damaged.
        SceneError: When it lies on other voxels than those of the volume.
    """
    from aslseg.data.images import read_labelmap

    labelmap = read_labelmap(path)
    _require_place(labelmap.geometry, geometry)
    return labelmap.labels


def read_slice_result(
    done: Done, slice_index: int, geometry: Geometry, *, prompted: bool = False
) -> SliceResult:
    """Read the files of an answer about one slice; work for a thread.

    Args:
        done: Answer to `refine`.
        slice_index: The axial slice that was asked about.
        geometry: Of that slice, as a volume of one.
        prompted: Whether the request held a person's prompts.

    Raises:
        ImageError: When a file is missing or damaged.
        SceneError: When a label map lies on other voxels than those of the slice.
    """
    facts, files = _facts_and_files(done)
    planes = {source: labels[0] for source, labels in _read_predictions(files, geometry).items()}
    apart = _read_disagreement(files, geometry)
    return SliceResult(
        planes,
        slice_index,
        facts.targets,
        _origin_of(facts, prompted),
        None if apart is None else apart[0],
    )


def volume_result(
    labels: Mapping[str, np.ndarray],
    prompts: list[Any],
    *,
    targets: list[Any],
    shape: Shape,
    origin: Provenance,
    disagreement: np.ndarray | None = None,
    axis: int = 0,
) -> VolumeResult:
    """Compute what is slow about label maps of a whole volume; work for a thread.

    Args:
        labels: By source, (D, H, W) uint8.
        prompts: Given to SAM.
        targets: Of the label maps.
        shape: (D, H, W) of the volume.
        origin: Provenance of the label maps, but for their source.
        disagreement: (D, H, W) uint8 in percent, or None.
        axis: Along which the volume's axial slices are numbered.
    """
    from aslseg.evaluation.metrics import least_agreement

    rows, columns = (n for at, n in enumerate(shape) if at != axis)
    drawn = np.moveaxis(draw_prompts(prompts, targets, (shape[axis], rows, columns)), 0, axis)
    return VolumeResult(
        predictions={source: parts_of(values, targets) for source, values in labels.items()},
        prompts=prompts,
        drawn=parts_of(drawn, targets),
        targets=targets,
        origin=origin,
        agreement=least_agreement(list(labels.values()), targets),
        disagreement=None if disagreement is None else image_of(disagreement),
    )


def show_volume_result(
    volume: Any, result: VolumeResult, may_replace: Policy, shown: ShownAnswer
) -> Iterator[str]:
    """Bring a result about the whole volume into the scene, a node at each step.

    `shown` takes it back.

    Yields:
        What comes next, for a person.

    Raises:
        SceneError: When the volume was removed meanwhile.
    """
    nodes = {}
    for source, parts in result.predictions.items():
        yield f"showing the prediction: {source}"
        _check_present(volume)
        provenance = provenance_of(source, result.origin)
        nodes[source] = write_prediction(
            volume, parts, result.targets, provenance, may_replace, undo=shown.edits
        )
    yield "showing the prompts"
    _check_present(volume)
    shown.note_proposed()
    show_proposed(volume, result, shown.edits)
    flag_disagreement(nodes, result.agreement)
    if result.disagreement is not None:
        yield "showing the disagreement"
        _check_present(volume)
        shown.note_overlay(None)
        show_disagreement(volume, result.disagreement)


def show_slice_result(
    volume: Any, result: SliceResult, may_replace: Policy, shown: ShownAnswer
) -> Iterator[str]:
    """Bring a result about one slice into the scene, a node at each step.

    `shown` takes it back.

    Yields:
        What comes next, for a person.

    Raises:
        SceneError: When the volume was removed meanwhile.
    """
    for source, plane in result.planes.items():
        yield f"showing the prediction: {source}"
        _check_present(volume)
        provenance = provenance_of(source, result.origin)
        write_prediction_slice(
            volume,
            result.slice_index,
            plane,
            result.targets,
            provenance,
            may_replace,
            undo=shown.edits,
        )
    if result.disagreement is not None:
        yield "showing the disagreement"
        _check_present(volume)
        shown.note_overlay(result.slice_index)
        update_disagreement(volume, result.slice_index, result.disagreement)


def provenance_of(source: str, origin: Provenance) -> Provenance:
    """Return the provenance of one prediction of a result."""
    return replace(origin, source=source, prompted=origin.prompted and source in PROMPTED)


def show_proposed(volume: Any, result: VolumeResult, undo: list[SegmentEdit] | None = None) -> None:
    """Draw the prompts into their segmentation node, and keep them there for editing.

    Args:
        volume: Volume node.
        result: With the prompts.
        undo: Gets what takes the drawing back.
    """
    provenance = provenance_of("prompts", result.origin)
    node = write_prediction(
        volume, result.drawn, result.targets, provenance, lambda _: True, undo=undo
    )
    values = [prompt.to_json() for prompt in result.prompts]
    node.SetAttribute(_PROPOSED, json.dumps(values, separators=(",", ":")))


def proposed_prompts(node: Any | None) -> list[Any]:
    """Return the prompts that are kept in a prompts node; none without a node."""
    kept = node.GetAttribute(_PROPOSED) if node is not None else None
    return list(_parsed(kept)) if kept else []


@lru_cache(maxsize=4)
def _parsed(kept: str) -> tuple[Any, ...]:
    """Return prompts from JSON; the panel asks for the same ones at every change.

    A scene may come from anywhere: what cannot be read counts as no prompts.
    """
    from aslseg.prompts import SlicePrompts

    try:
        return tuple(SlicePrompts.from_json(values) for values in json.loads(kept))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        logger.warning("The proposed prompts of the scene cannot be read: %s", error)
        return ()


def _facts_and_files(done: Done) -> tuple[PredictionFacts, dict[str, Path]]:
    from aslseg.engine.facts import PredictionFacts

    files: dict[str, Path] = {name: Path(path) for name, path in done.files.items()}
    return done.facts_as(PredictionFacts), files


def _origin_of(facts: PredictionFacts, prompted: bool) -> Provenance:
    return Provenance(
        "", facts.method, facts.run or "", facts.round, facts.weights, prompted=prompted
    )


def _read_predictions(files: Mapping[str, Path], geometry: Geometry) -> dict[str, np.ndarray]:
    return {one: read_answer(files[one], geometry) for one in PREDICTIONS if one in files}


def _check_present(volume: Any) -> None:
    if not slicer.mrmlScene.IsNodePresent(volume):
        msg = "The volume was removed from the scene; its results are not shown. Load it again."
        raise SceneError(msg)


def _read_disagreement(files: Mapping[str, Path], geometry: Geometry) -> np.ndarray | None:
    from aslseg.data.images import read_volume

    if "disagreement" not in files:
        return None
    found = read_volume(files["disagreement"])
    _require_place(found.geometry, geometry)
    return found.voxels


def _require_place(found: Geometry, geometry: Geometry) -> None:
    """Refuse an answer that lies on other voxels than what was asked about.

    Raises:
        SceneError: When it does.
    """
    if not found.matches(geometry):
        msg = (
            "What the engine has answered lies on other voxels than the volume, so nothing is "
            "shown of it; try again, and report it if that comes again."
        )
        raise SceneError(msg)
