"""What the engine answered about a volume: files read in a thread, then shown node by node."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from ASLsegLib.overlay import show_disagreement
from ASLsegLib.prompt_drawing import draw_prompts
from ASLsegLib.provenance import Provenance
from ASLsegLib.scene import SceneError
from ASLsegLib.voices import (
    Policy,
    flag_disagreement,
    read_shape,
    write_voice,
    write_voice_slice,
)

SPEAKING = ("specialist", "sam", "refined")
_PROPOSED = "ASLseg.ProposedPrompts"


@dataclass(frozen=True)
class Heard:
    """An answer of the engine.

    Attributes:
        labels: By voice, (D, H, W) uint8, or (H, W) when it is about one slice.
        disagreement: (D, H, W) or (H, W) uint8 in percent, or None.
        prompts: That SAM was asked with.
        targets: Of the label maps.
        facts: Method, run, round, model.
        slice_index: The slice; None for the whole volume.
        agreement: By target, the least Dice of two voices.
        unheard: Sentences about prompts that the labels do not follow.
    """

    labels: dict[str, np.ndarray]
    disagreement: np.ndarray | None
    prompts: list[Any]
    targets: list[Any]
    facts: dict[str, Any] = field(default_factory=dict)
    slice_index: int | None = None
    agreement: dict[str, float] = field(default_factory=dict)
    unheard: tuple[str, ...] = ()


def read_answer(event: Mapping[str, Any]) -> Heard:
    """Read the files that a `done` event of `segment` or `refine` names.

    Raises:
        ImageError: When a file is missing or damaged.
    """
    from aslseg.config import Target
    from aslseg.images import read_labelmap, read_volume
    from aslseg.prompts import SlicePrompts

    files = {name: Path(path) for name, path in event["files"].items()}
    facts = dict(event["facts"])
    index = facts.get("slice_index")
    labels = {v: read_labelmap(files[v]).labels for v in SPEAKING if v in files}
    prompts = json.loads(files["prompts"].read_text(encoding="utf-8"))
    shown = read_volume(files["disagreement"]).voxels if "disagreement" in files else None
    targets = [Target.model_validate(target) for target in facts["targets"]]
    return Heard(
        labels=labels if index is None else {v: array[0] for v, array in labels.items()},
        disagreement=shown if index is None or shown is None else shown[0],
        prompts=[SlicePrompts.from_json(values) for values in prompts],
        targets=targets,
        facts=facts,
        slice_index=index,
        agreement=least_agreement(labels, targets),
        unheard=tuple(facts.get("unheard", ())),
    )


def least_agreement(labels: Mapping[str, np.ndarray], targets: list[Any]) -> dict[str, float]:
    """Return, by target, the least Dice of two voices; 1 where only one spoke."""
    from aslseg.metrics import dice

    return {
        target.name: min(
            (
                dice(first == target.value, second == target.value)
                for first, second in itertools.combinations(labels.values(), 2)
            ),
            default=1.0,
        )
        for target in targets
    }


def show_answer(volume: Any, heard: Heard, may_replace: Policy) -> Iterator[str]:
    """Bring an answer about the whole volume into the scene, a node at each step.

    Yields:
        What comes next, for a person.

    Raises:
        SceneError: When the volume was removed meanwhile.
    """
    nodes = {}
    for voice, labels in heard.labels.items():
        yield f"showing the voice: {voice}"
        _check_present(volume)
        nodes[voice] = write_voice(
            volume, labels, heard.targets, provenance_of(voice, heard.facts), may_replace
        )
    yield "showing the prompts"
    _check_present(volume)
    show_proposed(volume, heard)
    flag_disagreement(nodes, heard.agreement)
    if heard.disagreement is not None:
        yield "showing the disagreement"
        _check_present(volume)
        show_disagreement(volume, heard.disagreement)


def show_slice(volume: Any, heard: Heard, may_replace: Policy) -> Iterator[str]:
    """Bring an answer about one slice into the scene.

    Yields:
        What comes next, for a person.

    Raises:
        SceneError: When the volume was removed meanwhile.
    """
    _check_present(volume)
    for voice, labels in heard.labels.items():
        provenance = provenance_of(voice, heard.facts)
        write_voice_slice(
            volume, int(heard.slice_index or 0), labels, heard.targets, provenance, may_replace
        )
        yield f"showing the voice: {voice}"


def provenance_of(voice: str, facts: Mapping[str, Any]) -> Provenance:
    """Return the provenance of a voice from the facts of a `done` event."""
    return Provenance(
        voice=voice,
        method=str(facts.get("method") or ""),
        run=str(facts.get("run") or ""),
        round=int(facts.get("round") or 0),
        model=str(facts.get("weights") or ""),
    )


def show_proposed(volume: Any, heard: Heard) -> None:
    """Draw the prompts into their segmentation node, and keep them there for editing."""
    drawn = draw_prompts(heard.prompts, heard.targets, read_shape(volume))
    provenance = provenance_of("prompts", heard.facts)
    node = write_voice(volume, drawn, heard.targets, provenance, lambda _: True)
    if heard.slice_index is None:
        values = [prompt.to_json() for prompt in heard.prompts]
        node.SetAttribute(_PROPOSED, json.dumps(values, separators=(",", ":")))


def proposed_prompts(node: Any | None) -> list[Any]:
    """Return the prompts that are kept in a prompts node; none without a node."""
    from aslseg.prompts import SlicePrompts

    kept = node.GetAttribute(_PROPOSED) if node is not None else None
    return [SlicePrompts.from_json(values) for values in json.loads(kept or "[]")]


def _check_present(volume: Any) -> None:
    if not slicer.mrmlScene.IsNodePresent(volume):
        msg = "The volume was removed from the scene; its results are not shown. Load it again."
        raise SceneError(msg)
