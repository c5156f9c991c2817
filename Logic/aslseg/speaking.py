"""Let the voices speak about a case, and keep what they said: label maps, prompts, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError

from aslseg.components import region_mask
from aslseg.config import RunConfig, Target
from aslseg.errors import RunError
from aslseg.events import Monitor
from aslseg.images import read_labelmap, write_labelmap
from aslseg.inference import Probabilities, Specialist, labels_from
from aslseg.orientation import axial_to_slices, axial_volume, to_axial
from aslseg.prompts import SlicePrompts, turned_prompts
from aslseg.reading import read_object
from aslseg.reliability import (
    Reliability,
    agreement,
    checkpoint_agreement,
    emptied_targets,
)
from aslseg.storage import write_json_atomic
from aslseg.volume import Geometry, Labelmap, Mask, Volume

_JUDGED = TypeAdapter(Reliability)


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """What each voice made of a volume.

    Attributes:
        specialist: The specialist's label map.
        sam: SAM's, or None when the loop runs without.
        refined: After the adaptation network.
        prompts: That SAM was asked with, on the volume's slice grid (see `orientation`).
        probabilities: Refined, by target name, (D, H, W).
    """

    specialist: Labelmap
    sam: Labelmap | None
    refined: Labelmap
    prompts: tuple[SlicePrompts, ...]
    probabilities: Probabilities

    @property
    def one_voice(self) -> bool:
        """Whether the specialist's label map is the refined one: nobody else was heard."""
        return self.refined is self.specialist


class Asked(Protocol):
    """SAM, as whoever has prompts asks it."""

    def ask(
        self, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor | None = None
    ) -> Probabilities:
        """Answer prompts, whoever made them; targets without an answer are missing."""


class SamVoice(Asked, Protocol):
    """SAM as a voice of a method, which makes prompts too."""

    def propose(
        self, volume: Volume, said: Probabilities, targets: Sequence[Target]
    ) -> list[SlicePrompts]:
        """Turn the specialist's probabilities into prompts."""


class Merger(Protocol):
    """Who makes one answer of what the voices said."""

    def refine(
        self,
        volume: Volume,
        specialist: Probabilities,
        sam: Probabilities,
        *,
        with_sam: bool = True,
    ) -> Probabilities:
        """Return the refined probability of each target's region, (D, H, W)."""


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """The trained parts of a round, ready to segment any volume.

    Attributes:
        specialist: Makes the first guess.
        generalist: SAM; None when it is not asked.
        refiner: Merges both: adaptation networks, or a rule of `refinement`.
        targets: All targets.
        config: The run's settings.
    """

    specialist: Specialist
    generalist: SamVoice | None
    refiner: Merger
    targets: tuple[Target, ...]
    config: RunConfig

    def segment(self, volume: Volume, monitor: Monitor | None = None) -> Segmentation:
        """Segment a volume: specialist, then prompts, then SAM, then the adaptation network.

        All of them see its axial grid; what they say comes back on the volume's own voxels.

        Raises:
            CancelledError: When asked to stop between two parts.
        """
        axial = axial_volume(volume)
        return _as_stored(self._segment_axial(axial, monitor or Monitor()), volume.geometry)

    def _segment_axial(self, volume: Volume, monitor: Monitor) -> Segmentation:
        said = self.specialist.predict(volume, monitor)
        prompts = self.propose(volume, said)
        answered: Probabilities = {}
        if self.generalist is not None:
            answered = self.generalist.ask(volume, prompts, monitor)
        monitor.check()
        refined = self.refiner.refine(volume, said, answered, with_sam=self.generalist is not None)
        specialist = self._labels(said, volume)
        return Segmentation(
            specialist=specialist,
            sam=None
            if self.generalist is None
            else self._labels(self._all(answered, volume), volume),
            refined=specialist if refined is said else self._labels(refined, volume),
            prompts=tuple(prompts),
            probabilities=refined,
        )

    def propose(self, volume: Volume, said: Probabilities) -> list[SlicePrompts]:
        """Turn the specialist's probabilities into the prompts that SAM is asked with."""
        if self.generalist is None:
            return []
        return self.generalist.propose(volume, said, self.targets)

    def _all(self, answered: Probabilities, volume: Volume) -> Probabilities:
        silent = np.zeros(volume.geometry.shape, np.float32)
        return {t.name: answered.get(t.name, silent) for t in self.targets}

    def _labels(self, probabilities: Probabilities, volume: Volume) -> Labelmap:
        return labels_from(probabilities, self.targets, volume, self.config.min_component_ml)


def _as_stored(found: Segmentation, geometry: Geometry) -> Segmentation:
    """Bring what was found on an axial grid back to the voxels of a volume as it is stored."""
    back = to_axial(geometry).inverse
    if back.is_identity:
        return found
    specialist = back.labelmap(found.specialist, geometry)
    return Segmentation(
        specialist=specialist,
        sam=None if found.sam is None else back.labelmap(found.sam, geometry),
        refined=specialist if found.one_voice else back.labelmap(found.refined, geometry),
        prompts=tuple(
            turned_prompts(
                found.prompts, axial_to_slices(geometry), found.specialist.geometry.shape
            )
        ),
        probabilities={name: back.array(values) for name, values in found.probabilities.items()},
    )


def regions(labels: Labelmap, targets: Sequence[Target]) -> dict[str, Mask]:
    """Return each target's region in a label map."""
    return {t.name: region_mask(labels.labels, t, targets) for t in targets}


def reliability_of(
    case_id: str,
    segmentation: Segmentation,
    earlier: Sequence[Labelmap],
    targets: Sequence[Target],
) -> Reliability:
    """Measure how far a case's refined label can be believed.

    Args:
        case_id: The case.
        segmentation: What the voices of this round said.
        earlier: The specialist's label maps with earlier weights.
        targets: All targets.
    """
    last = regions(segmentation.specialist, targets)
    refined = regions(segmentation.refined, targets)
    return Reliability(
        case_id,
        checkpoint_agreement([regions(labels, targets) for labels in earlier], last),
        None if segmentation.one_voice else agreement(last, refined),
        emptied_targets(last, refined),
        silent=not any(mask.any() for mask in refined.values()),
    )


def save_voices(folder: Path, segmentation: Segmentation, facts: Mapping[str, Any]) -> None:
    """Write the voices of a case; `voices.json` comes last and marks the case as complete.

    Args:
        folder: `round-NN/voices/<case>`.
        segmentation: What was said.
        facts: Written into `voices.json`.
    """
    for name in ("specialist", "sam", "refined"):
        labels = getattr(segmentation, name)
        if labels is not None:
            write_labelmap(labels, folder / f"{name}.nii.gz")
    prompts = [prompt.to_json() for prompt in segmentation.prompts]
    write_json_atomic(folder / "prompts.json", prompts)
    write_json_atomic(folder / "voices.json", dict(facts))


def saved_reliability(folder: Path) -> Reliability | None:
    """Return what was judged of a case that `save_voices` completed, or None.

    Raises:
        RunError: When the file is damaged.
    """
    path = folder / "voices.json"
    if not path.exists():
        return None
    remedy = f"delete the folder {folder} and resume the run, which then makes it again"
    try:
        return _JUDGED.validate_python(read_object(path, RunError, remedy))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        msg = f"{path} is damaged ('{where}': {first['msg']}); {remedy}."
        raise RunError(msg) from error


def read_voice(folder: Path, name: str) -> Labelmap | None:
    """Read one voice of a case, or None when it did not speak."""
    path = folder / f"{name}.nii.gz"
    return read_labelmap(path) if path.exists() else None
