"""What specialist and SAM say about a volume, with what a person made them say in places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslseg.data.volume import Float32, Labelmap, Mask, Shape3, Volume
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities
from aslseg.inference.ensemble import PromptPredictor as Answering
from aslseg.inference.interactive.prompt_edits import SlicePromptState, SliceTarget
from aslseg.prompts import SlicePrompts
from aslseg.targets import Target


@dataclass(frozen=True, slots=True, eq=False)
class SessionPrediction:
    """What the voices say now, about the whole volume or one slice.

    Attributes:
        slice_index: The slice, on the volume's slice grid; None for the whole volume.
        specialist: Its label map, which prompts do not change; None without a trained run, and in
            answers about one slice.
        sam: SAM's; None when it was not asked anything.
        refined: After the adaptation network; None without a trained run.
        disagreement: As the label maps, (D, H, W) or (1, H, W) uint8: how far apart the voices'
            probabilities are, in percent, for the target where it is most.
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


HALF = np.float16
"""Opinions are kept for as long as a volume is looked at, in half the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class SlicePrediction:
    """What SAM answered in one place.

    Attributes:
        sam: (H, W) its answer to all prompts.
        own: (H, W) its answer to the person's.
    """

    sam: Float32
    own: Float32


def predict_slice(
    sam: Answering, volume: Volume, asked: SlicePromptState, monitor: Monitor
) -> SlicePrediction:
    """Ask SAM with the prompts of one place."""
    own = _one_plane(sam, volume, asked.own, monitor)
    return SlicePrediction(np.maximum(_one_plane(sam, volume, asked.kept, monitor), own), own)


def _one_plane(
    sam: Answering, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor
) -> Float32:
    plane = np.zeros(volume.geometry.shape[1:], np.float32)
    if prompts:
        answers = sam.predict(volume, prompts, monitor)
        plane += answers.get(prompts[0].target, plane)[..., prompts[0].slice_index, :, :]
    return plane


class PredictionStore:
    """Probabilities of all targets, by voice.

    Args:
        shape: (D, H, W) of the volume.
        targets: All targets.
        specialist: What the specialist says; None when there is none.
        sam: What SAM answers to the run's prompts; targets that it was not asked about are missing.
    """

    def __init__(
        self,
        shape: Shape3,
        targets: Sequence[Target],
        specialist: Probabilities | None,
        sam: Probabilities,
    ) -> None:
        self._targets = tuple(targets)
        self._specialist = _halved(specialist or {}, shape, targets)
        self._sam = _halved(sam, shape, targets)
        self._instead: dict[SliceTarget, Float32] = {}
        self._inside: dict[SliceTarget, Float32] = {}

    def change(self, place: SliceTarget, asked: SlicePromptState, heard: SlicePrediction) -> None:
        """Take in what SAM answers now.

        Where a person prompts, SAM's answer is the specialist's opinion too, and what they removed
        is gone from it.
        """
        k, name = place
        self._sam[name][k] = heard.sam
        self._instead.pop(place, None)
        self._inside.pop(place, None)
        if asked.is_edited:
            probabilities = self._specialist[name][k].astype(np.float32)
            for prompt in asked.dropped:
                probabilities[prompt.region(probabilities.shape)] = 0.0
            self._instead[place] = np.maximum(probabilities, heard.own)
        if asked.own:
            self._inside[place] = heard.own

    def specialist(self, name: str, slices: Sequence[int]) -> Float32:
        """Return what the specialist says of a target on some slices, (n, H, W)."""
        stack = self._specialist[name][list(slices)].astype(np.float32)
        for row, k in enumerate(slices):
            if (k, name) in self._instead:
                stack[row] = self._instead[k, name]
        return self._with_contents(name, slices, stack)

    def sam(self, name: str, slices: Sequence[int]) -> Float32:
        """Return what SAM says of a target on some slices, (n, H, W)."""
        stack = self._sam[name][list(slices)].astype(np.float32)
        return self._with_contents(name, slices, stack)

    def all_of(self, source: str) -> Probabilities:
        """Return what `specialist` or `sam` says of every target in the whole volume."""
        speak = self.specialist if source == "specialist" else self.sam
        depth = len(next(iter(self._sam.values())))
        return {target.name: speak(target.name, range(depth)) for target in self._targets}

    def _with_contents(self, name: str, slices: Sequence[int], stack: Float32) -> Float32:
        """Make a container larger by what a person prompted inside of it."""
        contents = [target.name for target in self._targets if target.inside == name]
        for row, k in enumerate(slices):
            for content in contents:
                if (k, content) in self._inside:
                    np.maximum(stack[row], self._inside[k, content], out=stack[row])
        return stack


def disagreement(predictions: Sequence[Mapping[str, Float32]]) -> NDArray[np.uint8]:
    """Return how far apart voices are, in percent: the largest difference over targets.

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
    refined: Float32, specialist: Float32, asked: SlicePromptState, heard_sam: Float32
) -> Float32:
    """Return the refined plane, or the person's where the network would contradict a click.

    Args:
        refined: (H, W).
        specialist: (H, W) that a person's prompts speak through.
        asked: The prompts of this place.
        heard_sam: (H, W) SAM's answer.
    """
    for prompt in asked.own:
        for point in prompt.points:
            row, column = _pixel(point.xy, refined.shape)
            is_in, sam_in = refined[row, column] > 0.5, heard_sam[row, column] > 0.5
            if is_in != point.positive and sam_in == point.positive:
                return specialist
    return refined


def unmet_clicks(
    asked: Mapping[SliceTarget, SlicePromptState],
    regions: Mapping[SliceTarget, Mask],
    number_of: Callable[[int], int] = lambda k: k,
) -> tuple[str, ...]:
    """Say which positive points of a person lie outside of what was found.

    Args:
        asked: All prompts.
        regions: (H, W) what was found, for every place with prompts of a person.
        number_of: The number by which a person knows a slice.
    """
    sentences = []
    for place, region in regions.items():
        points = [p for prompt in asked[place].own for p in prompt.points if p.positive]
        if not all(region[_pixel(point.xy, region.shape)] for point in points):
            k, name = place
            sentences.append(
                f"A point for {name} on slice {number_of(k)} is not in the {name} that was found: "
                "give it a box, or correct what contains it first."
            )
    return tuple(sentences)


def _pixel(xy: tuple[float, float], shape: tuple[int, ...]) -> tuple[int, int]:
    return min(int(xy[1]), shape[0] - 1), min(int(xy[0]), shape[1] - 1)


def _halved(
    given: Probabilities, shape: Shape3, targets: Sequence[Target]
) -> dict[str, NDArray[np.float16]]:
    return {
        t.name: given[t.name].astype(HALF) if t.name in given else np.zeros(shape, HALF)
        for t in targets
    }
