"""The predictions of a session: of specialist and SAM, and where a person's prompts change them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from aslseg.data.volume import Float32, Labelmap, Mask, Shape3, Volume
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities
from aslseg.inference.ensemble import PromptPredictor
from aslseg.inference.interactive.prompt_edits import SlicePromptState, SliceTarget
from aslseg.inference.lesion_stage import CandidateEffect
from aslseg.inference.postprocessing import parts_touching
from aslseg.prompts import SlicePrompts
from aslseg.targets import Target


@dataclass(frozen=True, slots=True, eq=False)
class SessionPrediction:
    """The predictions with the prompts in force, of the whole volume or one slice.

    Attributes:
        slice_index: The slice, on the volume's slice grid; None for the whole volume.
        specialist: Its label map, which prompts do not change; None without a trained run, and of
            one slice.
        sam: SAM's; None when there is no prompt for it.
        refined: After the adaptation network; None without a trained run.
        disagreement: On the grid of the label maps, (D, H, W) or (1, H, W) uint8: the largest
            difference of the predictions' probabilities over all targets, in percent.
        prompts: In force, in the volume or slice.
        unmet_clicks: Sentences about clicks that the labels do not follow.
    """

    slice_index: int | None
    specialist: Labelmap | None
    sam: Labelmap | None
    refined: Labelmap | None
    disagreement: NDArray[np.uint8]
    prompts: tuple[SlicePrompts, ...]
    unmet_clicks: tuple[str, ...] = ()


STORED_TYPE = np.float16
"""Type of the stored probabilities, which stay as long as the session: half the memory."""


StoredProbabilities = dict[str, NDArray[np.float16]]
"""By target name, (D, H, W) stored probability."""


_LEAST = 2.0**-11
"""Smaller probabilities are stored as zero: halves near one are as far off."""


@dataclass(frozen=True, slots=True, eq=False)
class SlicePrediction:
    """SAM's probabilities of one target on one slice.

    Attributes:
        sam: (H, W) with all prompts.
        user: (H, W) with the person's alone.
    """

    sam: Float32
    user: Float32


def predict_slice(
    sam: PromptPredictor, volume: Volume, state: SlicePromptState, monitor: Monitor
) -> SlicePrediction:
    """Run SAM with the prompts of one slice and target."""
    user = _one_plane(sam, volume, state.user, monitor)
    return SlicePrediction(np.maximum(_one_plane(sam, volume, state.proposed, monitor), user), user)


def _one_plane(
    sam: PromptPredictor, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor
) -> Float32:
    plane = np.zeros(volume.geometry.shape[1:], np.float32)
    if prompts:
        found = sam.predict(volume, prompts, monitor)
        plane += found.get(prompts[0].target, plane)[..., prompts[0].slice_index, :, :]
    return plane


class PredictionStore:
    """The probabilities of all targets, of specialist and SAM.

    Args:
        shape: (D, H, W) of the volume.
        targets: All targets.
        specialist: The specialist's probabilities; those of missing targets are zero.
        sam: SAM's with the run's prompts; the same.
    """

    def __init__(
        self,
        shape: Shape3,
        targets: Sequence[Target],
        specialist: StoredProbabilities,
        sam: StoredProbabilities,
    ) -> None:
        self._targets = tuple(targets)
        self._specialist = _of_all(specialist, shape, targets)
        self._sam = _of_all(sam, shape, targets)
        self._instead: dict[SliceTarget, Float32] = {}
        self._inside: dict[SliceTarget, Float32] = {}

    def change(self, key: SliceTarget, state: SlicePromptState, found: SlicePrediction) -> None:
        """Store the prediction of SAM with the prompts in force.

        Where a person prompts, it stands for the specialist's too, and what they removed is zero
        there.
        """
        k, name = key
        self._sam[name][k] = found.sam
        self._instead.pop(key, None)
        self._inside.pop(key, None)
        if state.is_edited:
            probabilities = self._specialist[name][k].astype(np.float32)
            for prompt in state.removed:
                probabilities[prompt.region(probabilities.shape)] = 0.0
            self._instead[key] = np.maximum(probabilities, found.user)
        if state.user:
            self._inside[key] = found.user

    def specialist(self, name: str, slices: Sequence[int]) -> Float32:
        """Return the specialist's probability of a target on some slices, (n, H, W)."""
        stack = _slices_of(self._specialist[name], slices)
        for row, k in enumerate(slices):
            if (k, name) in self._instead:
                stack[row] = self._instead[k, name]
        return self._with_contents(name, slices, stack)

    def sam(self, name: str, slices: Sequence[int]) -> Float32:
        """Return SAM's probability of a target on some slices, (n, H, W)."""
        stack = _slices_of(self._sam[name], slices)
        return self._with_contents(name, slices, stack)

    def marked_by_user(self, name: str, k: int) -> Mask | None:
        """Return where SAM follows a person's prompts on a slice, (H, W); None without any."""
        found = self._inside.get((k, name))
        return None if found is None else found > 0.5

    def all_of(self, source: str) -> Probabilities:
        """Return the probabilities of `specialist` or `sam` of every target, (D, H, W)."""
        stack_of = self.specialist if source == "specialist" else self.sam
        depth = len(next(iter(self._sam.values())))
        return {target.name: stack_of(target.name, range(depth)) for target in self._targets}

    def _with_contents(self, name: str, slices: Sequence[int], stack: Float32) -> Float32:
        """Add to a parent what a person prompted inside of it."""
        contents = [target.name for target in self._targets if target.inside == name]
        for row, k in enumerate(slices):
            for content in contents:
                if (k, content) in self._inside:
                    np.maximum(stack[row], self._inside[k, content], out=stack[row])
        return stack


def disagreement(predictions: Sequence[Mapping[str, Float32]]) -> NDArray[np.uint8]:
    """Return the largest difference of predictions over all targets, in percent.

    Args:
        predictions: Probabilities by target, all of one shape.

    Returns:
        uint8 from 0 to 100, of that shape.
    """
    first = predictions[0]
    result = np.zeros(next(iter(first.values())).shape, np.uint8)
    for name in first:
        for n, part in enumerate(result):  # slice by slice, to need no second volume
            probabilities = np.stack([source[name][n] for source in predictions])
            np.maximum(
                part, np.round(np.ptp(probabilities, axis=0) * 100).astype(np.uint8), out=part
            )
    return result


def follow_clicks(
    refined: Float32, specialist: Float32, state: SlicePromptState, sam: Float32
) -> Float32:
    """Return `refined`, or `specialist` where a click contradicts `refined` and SAM follows it.

    Args:
        refined: (H, W) probability.
        specialist: (H, W) of `PredictionStore.specialist`, which holds SAM's prediction too.
        state: The prompts of the slice and target.
        sam: (H, W) probability of SAM.
    """
    for prompt in state.user:
        for point in prompt.points:
            row, column = _pixel(point.xy, refined.shape)
            is_in, sam_in = refined[row, column] > 0.5, sam[row, column] > 0.5
            if is_in != point.positive and sam_in == point.positive:
                return specialist
    return refined


def decided_slice(
    refined: Float32,
    k: int,
    effect: CandidateEffect,
    state: SlicePromptState,
    marked: Mask | None,
) -> Float32:
    """Return the probability of a slice with the decisions about candidates.

    A person overrules them: what they mark stays, and the core of a candidate that a prompt of
    theirs touches, or one that they moved or removed, is left to SAM.

    Args:
        refined: (H, W) probability.
        k: Number of the slice.
        effect: Of the decisions.
        state: The prompts of the slice and target.
        marked: (H, W) where SAM follows the person's prompts; None without any.
    """
    spared = None
    if state.is_edited:
        spared = parts_touching(effect.cores[k], touched_by(state, refined.shape), is_first=False)
    decided = effect.apply(refined, k, spared=spared)
    if marked is not None:
        decided[marked] = refined[marked]
    return decided


def touched_by(state: SlicePromptState, shape: tuple[int, ...]) -> Mask:
    """Return the pixels (H, W) that prompts mark or point at which a person changed."""
    touched = np.zeros(shape, np.bool_)
    for prompt in (*state.user, *state.removed):
        touched |= prompt.region(shape)
        for point in prompt.points:
            touched[_pixel(point.xy, shape)] = True
    return touched


def unmet_clicks(
    states: Mapping[SliceTarget, SlicePromptState],
    regions: Mapping[SliceTarget, Mask],
    number_of: Callable[[int], int] = lambda k: k,
) -> tuple[str, ...]:
    """Return a sentence about each positive point of a person outside of the predicted region.

    Args:
        states: All prompts.
        regions: (H, W) predicted masks, wherever a person gave prompts.
        number_of: From the number of a slice to the one that a person sees.
    """
    sentences = []
    for key, region in regions.items():
        points = [p for prompt in states[key].user for p in prompt.points if p.positive]
        if not all(region[_pixel(point.xy, region.shape)] for point in points):
            k, name = key
            sentences.append(
                f"A point for {name} on slice {number_of(k)} is not in the {name} that was found: "
                "give it a box, or correct what contains it first."
            )
    return tuple(sentences)


def _pixel(xy: tuple[float, float], shape: tuple[int, ...]) -> tuple[int, int]:
    return min(int(xy[1]), shape[0] - 1), min(int(xy[0]), shape[1] - 1)


def as_stored(probabilities: Probabilities) -> StoredProbabilities:
    """Return (D, H, W) probabilities as they are stored.

    The bits of float16 are in the order of the numbers, none of which is negative; compared as
    integers they take a half of the time.
    """
    least = np.array(_LEAST, STORED_TYPE).view(np.uint16)
    found: StoredProbabilities = {}
    for name, values in probabilities.items():
        stored = values.astype(STORED_TYPE)
        stored[stored.view(np.uint16) < least] = 0
        found[name] = stored
    return found


def _slices_of(stored: NDArray[np.float16], slices: Sequence[int]) -> Float32:
    """Return some slices of stored probabilities; torch makes float32 of them much faster."""
    found: Float32 = torch.from_numpy(stored[list(slices)]).float().numpy()
    return found


def _of_all(
    given: StoredProbabilities, shape: Shape3, targets: Sequence[Target]
) -> StoredProbabilities:
    names = [target.name for target in targets]
    return {n: given[n] if n in given else np.zeros(shape, STORED_TYPE) for n in names}
