"""The first prediction of an open volume, without a person's prompts: from networks or from disk.

What a session goes on from is the same either way, to the last bit: it is stored as it is held.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslseg.data.masks import BoundingBox, box_of, crop, parent_mask, uncrop
from aslseg.data.volume import Labelmap, Mask, Shape3, Volume, zeros
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities
from aslseg.inference.ensemble import Ensemble, VolumeMaps
from aslseg.inference.interactive.predictions import StoredProbabilities, as_stored, disagreement
from aslseg.inference.lesion_stage import CandidateEffect
from aslseg.inference.prediction_cache import Arrays, LabelMaps, StoredPrediction
from aslseg.prompts import MaskLogits, SliceCrop, SlicePrompts
from aslseg.sam.crops import crops_in_parents
from aslseg.storage import plain
from aslseg.targets import Target

SESSION = "session"
"""The part of a stored prediction."""


@dataclass(frozen=True, slots=True, eq=False)
class FirstPrediction:
    """What a run predicts of a volume, on its axial grid.

    Attributes:
        specialist: The specialist's probabilities, by target name.
        sam: SAM's with the proposed prompts, of every target; empty without SAM.
        proposed: The prompts.
        crops: What SAM sees of a slice, by target name.
        labels: Label maps of `specialist`, `sam` (not without SAM) and `refined`.
        effects: What decisions about candidates change, by name of the lesion targets.
        parents: Refined masks of the targets that others lie in, by name.
        disagreement: (D, H, W) in percent; see `predictions.disagreement`.
    """

    specialist: StoredProbabilities
    sam: StoredProbabilities
    proposed: tuple[SlicePrompts, ...]
    crops: Mapping[str, SliceCrop]
    labels: Mapping[str, Labelmap]
    effects: Mapping[str, CandidateEffect]
    parents: Mapping[str, Mask]
    disagreement: NDArray[np.uint8]


def first_prediction(
    ensemble: Ensemble, volume: Volume, stored: StoredPrediction | None, monitor: Monitor
) -> FirstPrediction:
    """Read the prediction of a volume, or make and store it.

    Args:
        ensemble: The networks.
        volume: The image, on its axial grid.
        stored: Of that volume and these networks; None where none are kept.
        monitor: Told of the progress where it is made.

    Raises:
        CancelledError: When asked to stop.
    """
    found = None if stored is None else stored.read(SESSION, partial(_from_arrays, volume=volume))
    if found is not None:
        return found
    made = _predict(ensemble, volume, monitor)
    if stored is not None:
        labels = made.labels
        stored.keep_label_maps(
            LabelMaps(labels["specialist"], labels.get("sam"), labels["refined"])
        )
        stored.write(SESSION, _to_arrays(made))
    return made


def parents_of(
    volume: Volume, refined: Probabilities, targets: Sequence[Target]
) -> dict[str, Mask]:
    """Return the masks (D, H, W) of the targets that others lie in, by name."""
    names = dict.fromkeys(target.inside for target in targets if target.inside is not None)
    return {name: parent_mask(volume, name, refined[name]) for name in names}


def _predict(ensemble: Ensemble, volume: Volume, monitor: Monitor) -> FirstPrediction:
    targets, config = ensemble.targets, ensemble.config

    def keep(maps: VolumeMaps) -> partial[FirstPrediction]:
        sources = [maps.specialist, maps.sam, maps.refined]
        return partial(
            FirstPrediction,
            specialist=as_stored(maps.specialist),
            sam=as_stored(maps.sam),
            crops=crops_in_parents(volume, maps.specialist, targets, config.sam),
            effects=maps.effects,
            disagreement=disagreement([source for source in sources if source]),
        )

    found, finish = ensemble.predict(volume, monitor, keep)
    labels = {"specialist": found.specialist, "sam": found.sam, "refined": found.refined}
    return finish(
        proposed=found.prompts,
        labels={name: labelmap for name, labelmap in labels.items() if labelmap is not None},
        parents=parents_of(volume, found.probabilities, targets),
    )


# -- on disk ---------------------------------------------------------------------------------------


def _to_arrays(made: FirstPrediction) -> Arrays:
    """Return a prediction as arrays and one text; `_from_arrays` gives it back."""
    arrays: Arrays = {"disagreement": made.disagreement}
    boxes: dict[str, Any] = {}
    for source, stored in (("specialist", made.specialist), ("sam", made.sam)):
        for name, values in stored.items():
            box = box_of(values > 0)
            boxes[f"{source} {name}"] = None if box is None else [box.start, box.stop]
            if box is not None:
                arrays[f"{source} {name}"] = crop(values, box)
    arrays |= {f"labels {name}": labelmap.labels for name, labelmap in made.labels.items()}
    for name, effect in made.effects.items():
        arrays[f"kept {name}"] = np.packbits(effect.kept)
        arrays[f"cores {name}"] = np.packbits(effect.cores)
    arrays |= {f"parent {name}": np.packbits(mask) for name, mask in made.parents.items()}
    masks = [np.packbits(p.mask_logits > 0) for p in made.proposed if p.mask_logits is not None]
    if masks:
        arrays["masks"] = np.stack(masks)
    facts = {
        "boxes": boxes,
        "prompts": [_facts_of(prompt) for prompt in made.proposed],
        "crops": {name: [one.xyxy, one.window_hu] for name, one in made.crops.items()},
    }
    arrays["facts"] = np.frombuffer(json.dumps(plain(facts)).encode(), np.uint8)
    return arrays


def _facts_of(prompt: SlicePrompts) -> dict[str, Any]:
    seen = None if prompt.crop is None else [prompt.crop.xyxy, prompt.crop.window_hu]
    return {**prompt.to_json(), "crop": seen, "has_mask": prompt.mask_logits is not None}


def _from_arrays(arrays: Arrays, volume: Volume) -> FirstPrediction:
    facts = json.loads(arrays["facts"].tobytes())
    shape, geometry = volume.geometry.shape, volume.geometry

    def named(kind: str) -> dict[str, NDArray[Any]]:
        found = (name for name in arrays if name.startswith(f"{kind} "))
        return {name.removeprefix(f"{kind} "): arrays[name] for name in found}

    def stored(source: str) -> StoredProbabilities:
        keys = (key for key in facts["boxes"] if key.startswith(f"{source} "))
        return {
            key.removeprefix(f"{source} "): _whole(arrays.get(key), facts["boxes"][key], shape)
            for key in keys
        }

    kept, cores = named("kept"), named("cores")
    return FirstPrediction(
        specialist=stored("specialist"),
        sam=stored("sam"),
        proposed=_prompts_of(facts["prompts"], arrays.get("masks"), shape[1:]),
        crops={name: _crop_of(one) for name, one in facts["crops"].items()},
        labels={name: Labelmap(one, geometry) for name, one in named("labels").items()},
        effects={
            name: CandidateEffect(_mask_of(kept[name], shape), _mask_of(cores[name], shape))
            for name in kept
        },
        parents={name: _mask_of(bits, shape) for name, bits in named("parent").items()},
        disagreement=arrays["disagreement"],
    )


def _whole(part: NDArray[Any] | None, corners: Any, shape: Shape3) -> NDArray[np.float16]:
    if part is None:
        return zeros(shape, np.float16)
    start, stop = (tuple(corner) for corner in corners)
    return uncrop(part, BoundingBox(start, stop), shape)


def _mask_of(bits: NDArray[np.uint8], shape: tuple[int, ...]) -> Mask:
    count = int(np.prod(shape))
    return np.unpackbits(bits, count=count).view(np.bool_).reshape(shape)


def _crop_of(values: Any) -> SliceCrop:
    (left, top, right, bottom), (low, high) = values
    return SliceCrop((left, top, right, bottom), (low, high))


def _prompts_of(
    values: Sequence[dict[str, Any]], masks: NDArray[np.uint8] | None, shape: tuple[int, ...]
) -> tuple[SlicePrompts, ...]:
    prompts, used = [], 0
    for one in values:
        logits: MaskLogits | None = None
        if one["has_mask"] and masks is not None:
            logits, used = MaskLogits(_mask_of(masks[used], shape)), used + 1
        seen = None if one["crop"] is None else _crop_of(one["crop"])
        prompts.append(replace(SlicePrompts.from_json(one), mask_logits=logits, crop=seen))
    return tuple(prompts)
