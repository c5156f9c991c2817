"""All prompts about a volume as a value: to tell what a person did, and to bring it back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import vtk

from ASLsegLib.scene.prompts import (
    BOX,
    GROWTH,
    GROWTH_OF_POINT,
    KIND,
    NEGATIVE,
    POSITIVE,
    SHAPES,
    TAKEN_OVER,
    TARGET,
    growth_of_point,
    growth_of_shape,
    new_box,
    new_curve,
    points_node,
    prompt_nodes,
    remove_prompt,
    taken_over,
)
from ASLsegLib.scene.volumes import as_array, as_matrix, slice_geometry_of

Ras = tuple[float, float, float]

_DIGITS = 9
_WORDS = {POSITIVE: "positive point", NEGATIVE: "negative point"}


@dataclass(frozen=True, order=True)
class PlacedPrompt:
    """A point, or a box, scribble or lasso.

    Attributes:
        slice_index: The axial slice that it lies on, or the middle of it.
        kind: See `ASLsegLib.scene.prompts`.
        target: What it is about.
        growth: Id of the growing lesion that it belongs to; empty for none.
        points_ras: The point, the points of a curve, or the centre of a box, in mm.
        frame: Of a box, the 16 numbers of its matrix from object to RAS; empty for others.
        size_mm: Of a box; empty for others.
    """

    slice_index: int
    kind: str
    target: str
    growth: str
    points_ras: tuple[Ras, ...]
    frame: tuple[float, ...] = ()
    size_mm: tuple[float, ...] = ()


@dataclass(frozen=True)
class PromptState:
    """All prompts about a volume.

    Attributes:
        prompts: In their order.
        taken_over: Slices whose proposed prompts do not count.
    """

    prompts: tuple[PlacedPrompt, ...] = ()
    taken_over: frozenset[int] = frozenset()


def read_state(volume: Any) -> PromptState:
    """Return all prompts about a volume as they are now; those that are being placed are none."""
    nodes, taken = prompt_nodes(volume), frozenset(taken_over(volume))
    if not nodes:
        return PromptState((), taken)  # also when the volume has no voxels yet
    ras_to_ijk = np.linalg.inv(slice_geometry_of(volume).ijk_to_ras)
    found = [one for node in nodes for one in _read(node, ras_to_ijk).values()]
    return PromptState(tuple(sorted(found)), taken)


def restore_state(volume: Any, state: PromptState) -> None:
    """Bring all prompts about a volume back to how they were; nodes are kept where that can be."""
    volume.SetAttribute(TAKEN_OVER, json.dumps(sorted(state.taken_over)))
    nodes = prompt_nodes(volume)
    ras_to_ijk = np.linalg.inv(slice_geometry_of(volume).ijk_to_ras)
    shown = [(node, index, one) for node in nodes for index, one in _read(node, ras_to_ijk).items()]
    places = Counter((one.kind, one.target) for *_, one in shown)
    places.update((one.kind, one.target) for one in state.prompts)
    for kind, target in places:
        here = [one for one in shown if (one[2].kind, one[2].target) == (kind, target)]
        wanted = Counter(one for one in state.prompts if (one.kind, one.target) == (kind, target))
        extra = []
        for node, index, one in here:
            if wanted[one]:
                wanted[one] -= 1
            else:
                extra.append((node, index))
        _replace(volume, extra, wanted.elements())


def describe(before: PromptState, after: PromptState) -> tuple[str, int | None]:
    """Return what was done to prompts, in words, and on which slice; None for no slice."""
    come = list((Counter(after.prompts) - Counter(before.prompts)).elements())
    gone = list((Counter(before.prompts) - Counter(after.prompts)).elements())
    taken = after.taken_over - before.taken_over
    k = next((one.slice_index for one in [*come, *gone]), next(iter(taken), None))
    if taken:
        return (f"edit proposed prompts, slice {k}" if come else f"clear slice {k}"), k
    changed = come or gone
    what = _WORDS.get(changed[0].kind, changed[0].kind) if changed else ""
    if len(come) == len(gone) == 1 and come[0].kind == gone[0].kind:
        return f"move {what}, slice {k}", k
    if come and gone:
        return f"change {max(len(come), len(gone))} prompts", k
    many = f"{what}, slice {k}" if len(changed) == 1 else f"{len(changed)} prompts"
    return f"{'place' if come else 'delete'} {many}", k


def _read(node: Any, ras_to_ijk: np.ndarray) -> dict[int, PlacedPrompt]:
    """Return the prompts of a node by the index of their point; a shape has index 0."""
    kind, target = node.GetAttribute(KIND), node.GetAttribute(TARGET) or ""
    points = {}
    for index in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(index) == node.PositionDefined:
            ras = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(index, ras)
            points[index] = _rounded(ras)
    if kind not in SHAPES:
        return {
            index: PlacedPrompt(
                _slice_of([ras], ras_to_ijk), kind, target, growth_of_point(node, index), (ras,)
            )
            for index, ras in points.items()
        }
    growth, line = growth_of_shape(node), tuple(points.values())
    if kind != BOX:
        return (
            {0: PlacedPrompt(_slice_of(line, ras_to_ijk), kind, target, growth, line)}
            if line
            else {}
        )
    matrix = as_array(node.GetObjectToWorldMatrix())
    centre, size = _rounded(matrix[:3, 3].tolist()), _rounded(node.GetSize())
    if min(size) <= 0.0:
        return {}
    k = _slice_of([centre], ras_to_ijk)
    frame = _rounded(matrix.ravel().tolist())
    return {0: PlacedPrompt(k, kind, target, growth, (centre,), frame, size)}


def _rounded(values: Iterable[float]) -> Any:
    """Return values without the noise of matrices: what was brought back is what it was."""
    return tuple(round(value, _DIGITS) + 0.0 for value in values)  # no -0.0


def _slice_of(points_ras: Iterable[Ras], ras_to_ijk: np.ndarray) -> int:
    k = np.array(list(points_ras)) @ ras_to_ijk[2, :3] + ras_to_ijk[2, 3]
    return round(float(np.median(k)))


def _replace(volume: Any, extra: list[tuple[Any, int]], wanted: Iterable[PlacedPrompt]) -> None:
    """Let prompts of one kind be others; as many as can be are moved, the last ones first."""
    for prompt in wanted:
        if prompt.kind in SHAPES:
            node = extra.pop()[0] if extra else _new_shape(volume, prompt)
            _place_shape(node, prompt)
            continue
        if extra:
            node, index = extra.pop()
            node.SetNthControlPointPositionWorld(index, *prompt.points_ras[0])
        else:
            node = points_node(volume, prompt.target, prompt.kind)
            index = node.AddControlPointWorld(vtk.vtkVector3d(*prompt.points_ras[0]))
        description = GROWTH_OF_POINT + prompt.growth if prompt.growth else ""
        node.SetNthControlPointDescription(index, description)
    for node, index in reversed(extra):  # of one node, the last points first
        if node.GetAttribute(KIND) in SHAPES:
            remove_prompt(node)
        else:
            node.RemoveNthControlPoint(index)


def _new_shape(volume: Any, prompt: PlacedPrompt) -> Any:
    if prompt.kind == BOX:
        return new_box(volume, prompt.target)
    return new_curve(volume, prompt.target, prompt.kind)


def _place_shape(node: Any, prompt: PlacedPrompt) -> None:
    if prompt.kind == BOX:
        node.SetAndObserveObjectToNodeMatrix(as_matrix(np.reshape(prompt.frame, (4, 4))))
        node.SetSize(*prompt.size_mm)
    else:
        node.RemoveAllControlPoints()
        for ras in prompt.points_ras:
            node.AddControlPointWorld(vtk.vtkVector3d(*ras))
    if prompt.growth:
        node.SetAttribute(GROWTH, prompt.growth)
    else:
        node.RemoveAttribute(GROWTH)
