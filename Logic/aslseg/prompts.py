"""Prompts for SAM, and how a mask becomes prompts.

A pixel of row r and column c covers x from c to c + 1 and y from r to r + 1; its centre is
(c + 0.5, r + 0.5). A box around the columns c0 to c1 hence spans x from c0 to c1 + 1.

What is drawn at random and what is then made from it are apart: `sample_jitter` draws, everything
else is deterministic, so that the same mask gives the same prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.config import PromptConfig, SamConfig
from aslseg.data.masks import box_of, clean_parent, label_components, mask_where, parts_of
from aslseg.data.orientation import Turn
from aslseg.data.volume import Float32, FloatArray, Mask, Shape3
from aslseg.errors import AslsegError, short
from aslseg.reading import read_json
from aslseg.targets import Target

XY = tuple[float, float]


XYXY = tuple[float, float, float, float]


MIN_JITTER_PX = 3.0  # a small box moves by up to this much, or the jitter would not be felt


RING_PX = 8  # negative points lie within this distance of a component


MASK_LOGIT = 6.0  # a mask prompt is +-6: sure to 0.998, without saturating


@dataclass(frozen=True, slots=True)
class BoxPrompt:
    """A box around what is meant.

    Attributes:
        xyxy: Left, top, right and bottom edge, in pixels of the slice.
    """

    xyxy: XYXY

    def __post_init__(self) -> None:
        """Refuse a box without an area."""
        left, top, right, bottom = self.xyxy
        if not (left < right and top < bottom):
            msg = f"A box needs left < right and top < bottom, got {self.xyxy}."
            raise ValueError(msg)

    def region(self, shape: tuple[int, ...]) -> Mask:
        """Return the pixels of a slice of `shape` (H, W) within the rounded box."""
        found = np.zeros(shape, bool)
        left, top, right, bottom = (max(round(edge), 0) for edge in self.xyxy)
        found[top:bottom, left:right] = True
        return found


@dataclass(frozen=True, slots=True)
class PointPrompt:
    """A click.

    Attributes:
        xy: In pixels of the slice.
        positive: Whether it lies in what is meant, or beside it.
    """

    xy: XY
    positive: bool = True


@dataclass(frozen=True, slots=True)
class SliceCrop:
    """The part of a slice that SAM sees for a prompt, and the intensities in which it sees it.

    Attributes:
        xyxy: Left, top, right and bottom edge, in whole pixels of the slice.
        window_hu: Intensities that become black and white.
    """

    xyxy: tuple[int, int, int, int]
    window_hu: tuple[float, float]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to cut an (..., H, W) array."""
        left, top, right, bottom = self.xyxy
        return slice(top, bottom), slice(left, right)

    def holds(self, xy: XY) -> bool:
        """Whether a point of the slice lies in the crop."""
        left, top, right, bottom = self.xyxy
        return left <= xy[0] <= right and top <= xy[1] <= bottom


class MaskLogits:
    """A mask as a prompt: `MASK_LOGIT` inside and its negative outside, as an array of a slice.

    It is made anew when it is read. Held is the part of the mask in the box around it: a volume has
    many prompts, and an array of a slice for each would fill the memory.

    Args:
        mask: (H, W).
    """

    def __init__(self, mask: Mask) -> None:
        self.shape = mask.shape
        box = box_of(mask[None])
        self._where = (slice(0, 0), slice(0, 0)) if box is None else box.slices[1:]
        self._part = mask[self._where].copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        """Return (H, W) float32."""
        logits = np.full(self.shape, -MASK_LOGIT, np.float32)
        logits[self._where][self._part] = MASK_LOGIT
        return logits if dtype is None else np.asarray(logits, dtype)

    def __gt__(self, limit: float) -> Mask:
        """Return (H, W) where they are above a limit."""
        found: Mask = np.asarray(self) > limit
        return found

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        """Return a part of the array."""
        part: NDArray[np.float32] = np.asarray(self)[index]
        return part


@dataclass(frozen=True, slots=True, eq=False)
class SlicePrompts:
    """All prompts of one object in one slice, for which SAM predicts one mask.

    Attributes:
        slice_index: Which slice (k).
        target: Name of the class that is looked for.
        component: Number of the object within slice and target, from 0.
        box: Around the object, or None.
        points: In and beside the object.
        mask_logits: (h, w) float32, a first guess covering the whole slice, or None.
        crop: What SAM sees of the slice; None for all of it in the window of the settings. Boxes,
            points and masks are of the whole slice nevertheless.
    """

    slice_index: int
    target: str
    component: int = 0
    box: BoxPrompt | None = None
    points: tuple[PointPrompt, ...] = ()
    mask_logits: NDArray[np.float32] | MaskLogits | None = None
    crop: SliceCrop | None = None

    def __post_init__(self) -> None:
        """Refuse a prompt without box, points and mask."""
        if self.box is None and not self.points and self.mask_logits is None:
            msg = "A prompt needs a box, a point or a mask."
            raise ValueError(msg)

    def region(self, shape: tuple[int, ...]) -> Mask:
        """Return the pixels (H, W) that a prompt marks: its mask, else its box, else none."""
        if self.mask_logits is not None:
            found: Mask = self.mask_logits > 0
            return found
        return np.zeros(shape, bool) if self.box is None else self.box.region(shape)

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold; mask and crop are left out, for they are made again."""
        return {
            "slice_index": self.slice_index,
            "target": self.target,
            "component": self.component,
            "box": None if self.box is None else list(self.box.xyxy),
            "points": [{"xy": list(p.xy), "positive": p.positive} for p in self.points],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SlicePrompts:
        """Build prompts from what `to_json` gave.

        Raises:
            ValueError: When they cannot be read or are empty.
        """
        try:
            return cls._read(values)
        except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            msg = f"a prompt cannot be read ({type(error).__name__}: {error})"
            raise ValueError(msg) from error

    @classmethod
    def _read(cls, values: dict[str, Any]) -> SlicePrompts:
        box, points = values.get("box"), values.get("points", ())
        return cls(
            slice_index=int(values["slice_index"]),
            target=str(values["target"]),
            component=int(values.get("component", 0)),
            box=None if box is None else BoxPrompt(_four_floats(box)),
            points=tuple(
                PointPrompt((float(p["xy"][0]), float(p["xy"][1])), bool(p["positive"]))
                for p in points
            ),
        )


def read_prompts(path: Path, error: type[AslsegError], remedy: str) -> list[SlicePrompts]:
    """Read a file of prompts.

    Args:
        path: As a round or the engine writes it.
        error: Raised when it cannot be used.
        remedy: What to do then; it ends the sentence.

    Raises:
        AslsegError: Of the kind `error`: when it is missing or damaged.
    """
    values = read_json(path, error, remedy)
    try:
        if not isinstance(values, list):
            msg = "it holds no list"
            raise ValueError(msg)
        return [SlicePrompts.from_json(value) for value in values]
    except ValueError as found:
        msg = f"{path} is damaged ({short(found)}); {remedy}."
        raise error(msg) from found


def _four_floats(values: Sequence[float]) -> XYXY:
    left, top, right, bottom = values
    return float(left), float(top), float(right), float(bottom)


def prompts_from_mask(
    mask: Mask,
    *,
    target: str,
    settings: PromptConfig | None = None,
    rng: np.random.Generator | None = None,
) -> list[SlicePrompts]:
    """Describe every connected part of every slice, or every slice of every connected part.

    Args:
        mask: (D, H, W), or (H, W) for a single slice of index 0.
        target: Name of the class.
        settings: Smallest part, box margin, numbers of points, mask prompt.
        rng: When given, boxes are moved as in training; else they are exact.

    Returns:
        In order of slice, then of area, largest first. Nothing for an empty mask.
    """
    settings = settings or PromptConfig()
    slices = mask[None] if mask.ndim == 2 else mask
    numbered = label_components(slices)[0] if settings.connect == "volume" else None
    prompts: list[SlicePrompts] = []
    for k in np.flatnonzero(slices.any(axis=(1, 2))):
        given = None if numbered is None else numbered[k]
        parts = islice(parts_of(slices[k], settings.min_area_px, given), settings.most_components)
        for number, part in enumerate(parts):
            prompt = describe(part, settings, slice_index=int(k), target=target)
            prompts.append(replace(prompt, component=number))
    return prompts if rng is None else [jittered(p, settings, rng, slices.shape) for p in prompts]


def describe(
    part: Mask, settings: PromptConfig, *, slice_index: int = 0, target: str = ""
) -> SlicePrompts:
    """Make the prompts of one connected part.

    Args:
        part: (H, W), not empty.
        settings: What to make.
        slice_index: Which slice it is of.
        target: Name of the class.
    """
    positive = interior_points(part, settings.positive_points)
    negative = outside_points(part, settings.negative_points)
    return SlicePrompts(
        slice_index=slice_index,
        target=target,
        box=box_around(part, settings.box_margin_px),
        points=tuple(PointPrompt(xy, xy in positive) for xy in [*positive, *negative]),
        mask_logits=mask_to_logits(part) if settings.use_mask else None,
    )


def box_around(part: Mask, margin_px: float = 0.0) -> BoxPrompt:
    """Find the box of a mask, widened on each side but not beyond the slice.

    Args:
        part: (H, W), not empty.
        margin_px: Added on each side.
    """
    edges = _edges(part)
    outward = (-margin_px, -margin_px, margin_px, margin_px)
    left, top, right, bottom = (float(e + m) for e, m in zip(edges, outward, strict=True))
    return BoxPrompt(_within((left, top, right, bottom), part.shape))


def _edges(part: Mask) -> tuple[int, int, int, int]:
    box = box_of(part[None])
    if box is None:
        msg = "An empty mask has no box."
        raise ValueError(msg)
    return box.start[2], box.start[1], box.stop[2], box.stop[1]


def _within(xyxy: XYXY, shape: tuple[int, ...]) -> XYXY:
    left, top, right, bottom = xyxy
    height, width = shape[-2:]
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def interior_points(part: Mask, count: int) -> list[XY]:
    """Choose points deep within a mask and far from each other.

    The first is the pixel farthest from the edge. Each next one maximises the product of its
    distances to the edge and to the nearest point before.

    Args:
        part: (H, W).
        count: How many; fewer come back when the mask has fewer pixels.
    """
    if count < 1 or not part.any():
        return []
    left, top, right, bottom = _edges(part)
    framed = np.pad(part[top:bottom, left:right], 1)  # beyond the slice is outside
    depth: FloatArray = ndimage.distance_transform_edt(framed)[1:-1, 1:-1]
    return [(x + left, y + top) for x, y in _spread(depth, count)]


def outside_points(part: Mask, count: int) -> list[XY]:
    """Choose points in the middle of a ring of `RING_PX` around a mask, far from each other.

    Args:
        part: (H, W), not empty.
        count: How many; fewer come back when the ring has fewer pixels.
    """
    if count < 1:
        return []
    distance: FloatArray = ndimage.distance_transform_edt(~part)
    depth = np.minimum(distance, RING_PX + 1 - distance)  # largest in the middle of the ring
    return _spread(np.clip(depth, 0.0, None), count)


def _spread(depth: FloatArray, count: int) -> list[XY]:
    rows, columns = np.indices(depth.shape)
    score, nearest = depth, np.full(depth.shape, np.inf)
    points: list[XY] = []
    while len(points) < count and score.max() > 0:
        row, column = np.unravel_index(int(np.argmax(score)), score.shape)
        points.append((float(column) + 0.5, float(row) + 0.5))
        nearest = np.minimum(nearest, np.hypot(rows - row, columns - column))
        score = depth * nearest
    return points


def mask_to_logits(mask: Mask) -> MaskLogits:
    """Turn a mask (H, W) into a mask prompt of +-`MASK_LOGIT`."""
    return MaskLogits(mask)


def sample_jitter(rng: np.random.Generator) -> XYXY:
    """Draw how far the four sides of a box go outward, as parts of the allowed way.

    Each is from [-0.5, 1), because SAM bears a wide box better than one that cuts.
    """
    return _four_floats(rng.uniform(-0.5, 1.0, 4).tolist())


def apply_jitter(box: BoxPrompt, jitter: XYXY, share: float, shape: tuple[int, ...]) -> BoxPrompt:
    """Move the sides of a box.

    Args:
        box: The exact box.
        jitter: The draw.
        share: Allowed way of a side as a part of the box's edge, at least `MIN_JITTER_PX`; 0 keeps
            the box.
        shape: (..., H, W) of the slice, which the box does not leave.

    Returns:
        The moved box; its edges never fall below half of what they were.
    """
    if share == 0:
        return box
    left, top, right, bottom = box.xyxy
    width, height = right - left, bottom - top
    way = [max(share * edge, MIN_JITTER_PX) for edge in (width, height)] * 2
    inward = [width / 4, height / 4] * 2
    out = [max(j * w, -i) for j, w, i in zip(jitter, way, inward, strict=True)]
    moved = (left - out[0], top - out[1], right + out[2], bottom + out[3])
    return BoxPrompt(_within(moved, shape))


def jittered(
    prompt: SlicePrompts, settings: PromptConfig, rng: np.random.Generator, shape: tuple[int, ...]
) -> SlicePrompts:
    """Return the prompt with its box moved by a fresh draw."""
    if prompt.box is None:
        return prompt
    jitter = sample_jitter(rng)
    return replace(prompt, box=apply_jitter(prompt.box, jitter, settings.jitter_share, shape))


def turned_prompts(
    prompts: Iterable[SlicePrompts], turn: Turn, shape: Shape3
) -> list[SlicePrompts]:
    """Bring prompts from one grid to another that has the same slices.

    Args:
        prompts: On the source.
        turn: From source to result.
        shape: (D, H, W) of the source.

    Raises:
        ValueError: When the slices of both grids are not the same.
    """
    if turn.axes[0] != 0:
        msg = f"Prompts of a slice cannot be turned out of its plane (axes {turn.axes})."
        raise ValueError(msg)
    return list(prompts) if turn.is_identity else [_turned(p, turn, shape) for p in prompts]


def _turned(prompt: SlicePrompts, turn: Turn, shape: Shape3) -> SlicePrompts:
    _, height, width = turn.shape(shape)
    in_plane = replace(turn, mirrored=(False, *turn.mirrored[1:]))

    def moved(xy: XY) -> XY:
        x, y = xy if turn.axes[1] == 1 else xy[::-1]
        return (width - x if turn.mirrored[2] else x), (height - y if turn.mirrored[1] else y)

    box, mask = prompt.box, prompt.mask_logits
    if box is not None:
        left, top, right, bottom = box.xyxy
        (x0, y0), (x1, y1) = moved((left, top)), moved((right, bottom))
        box = BoxPrompt((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
    return replace(
        prompt,
        slice_index=turn.index(prompt.slice_index, shape[0]),
        box=box,
        points=tuple(replace(point, xy=moved(point.xy)) for point in prompt.points),
        mask_logits=None if mask is None else _turned_logits(mask, in_plane),
        crop=None,  # of the axial grid, on which SAM is prompted
    )


def _turned_logits(
    logits: NDArray[np.float32] | MaskLogits, turn: Turn
) -> NDArray[np.float32] | MaskLogits:
    turned = np.ascontiguousarray(turn.array(logits[None])[0])
    return MaskLogits(turned > 0) if isinstance(logits, MaskLogits) else turned


def propose_prompts(
    probabilities: Mapping[str, Float32], targets: Sequence[Target], settings: SamConfig
) -> list[SlicePrompts]:
    """Turn probabilities into prompts.

    A parent target is proposed as its one cleaned body; targets inside of it from a lower threshold
    that favours recall, for SAM predicts nothing that is not proposed.

    Args:
        probabilities: (D, H, W) by target, on the axial grid.
        targets: All targets.
        settings: Of SAM and its prompts.
    """
    prompts: list[SlicePrompts] = []
    for name, mask in proposed_masks(probabilities, targets, settings).items():
        prompts += prompts_from_mask(mask, target=name, settings=settings.prompts)
    return prompts


def proposed_masks(
    probabilities: Mapping[str, Float32], targets: Sequence[Target], settings: SamConfig
) -> dict[str, Mask]:
    """Return the masks that SAM is prompted with, by target.

    Args:
        probabilities: (D, H, W) by target.
        targets: All targets.
        settings: From what probability on lesions are proposed.

    Returns:
        (D, H, W) by target.
    """
    parents = {target.inside for target in targets}
    threshold = settings.prompts.proposal_threshold
    return {
        name: clean_parent(mask_where(lambda p: p > 0.5, values))
        if name in parents
        else mask_where(lambda p: p >= threshold, values)
        for name, values in probabilities.items()
    }
