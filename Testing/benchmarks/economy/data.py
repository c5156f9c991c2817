"""The data sets of the study: images, the truth of each, and who is labelled first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aslseg.config import RunConfig
from aslseg.data.images import read_volume, write_labelmap, write_volume
from aslseg.data.volume import Float32, Volume
from aslseg.events import Monitor
from aslseg.prompts import SlicePrompts
from aslseg.targets import LIVER_TARGETS, Target
from support.tiny_project import SPECIALIST, a_patient, tiny_config

HIPPOCAMPUS = (Target(name="anterior", value=1), Target(name="posterior", value=2))


@dataclass(frozen=True)
class DataSet:
    """What is to be labelled.

    Attributes:
        images: Files by name of the case.
        truths: Label maps by name of the case, for the person's eye and for scores.
        targets: Their classes.
        first: Names of the cases that are labelled first.
        patients: Whose volume each case is.
    """

    images: Mapping[str, Path]
    truths: Mapping[str, Path]
    targets: Sequence[Target]
    first: Sequence[str]
    patients: Mapping[str, str]

    @property
    def organs(self) -> tuple[str, ...]:
        """Names of the targets that contain others."""
        return tuple({one.inside: None for one in self.targets if one.inside is not None})


def lits(data: Path, draw: str, labelled: int) -> DataSet:
    """Return the training volumes of a draw of `protocol_2`, as `lits_study` takes them."""
    splits = json.loads((data / "splits.json").read_text(encoding="utf-8"))["protocol_2"]
    whose = {number: patient for patient, all_ in splits["patients"].items() for number in all_}
    first = splits["draws"][draw][:labelled]
    known = {whose.get(number, str(number)) for number in first}
    training = splits["training"]
    numbers = [n for n in training if n in first or whose.get(n, str(n)) not in known]
    files = {f"lits-{n}": n for n in numbers}
    return DataSet(
        {name: (data / f"volume-{n}.nii.gz").resolve() for name, n in files.items()},
        {name: (data / f"segmentation-{n}.nii.gz").resolve() for name, n in files.items()},
        LIVER_TARGETS,
        [f"lits-{n}" for n in first],
        {name: f"lits-{whose.get(n, n)}" for name, n in files.items()},
    )


def hippocampus(data: Path, folder: Path, cases: int, labelled: int, seed: int) -> DataSet:
    """Return cases of the hippocampus in the order of their names; the first ones are drawn.

    Copies of the images are written, with intensities from 0 to 100 as the benchmark has them.
    """
    found = {one.name.split(".")[0]: one for one in sorted(data.glob("images/*.gz"))[:cases]}
    images = {name: folder / one.name for name, one in found.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, copy in images.items():
        if not copy.exists():
            write_volume(_percent(read_volume(found[name])), copy)
    truths = {name: (data / "labels" / one.name).resolve() for name, one in found.items()}
    chosen = np.random.default_rng(seed).choice(sorted(images), labelled, replace=False)
    first = [str(name) for name in chosen]
    return DataSet(images, truths, HIPPOCAMPUS, first, {name: name for name in images})


def _percent(volume: Volume) -> Volume:
    low, high = np.percentile(volume.voxels, (0.5, 99.5))
    scaled = np.clip((volume.voxels - low) * (100.0 / max(high - low, 1e-6)), 0.0, 100.0)
    return Volume(scaled.astype(np.float32), volume.geometry)


def made_up(folder: Path, cases: int, labelled: int) -> DataSet:
    """Write tiny patients of 12 x 40 x 40 voxels; those that are there stay."""
    images = {f"c{n}": folder / f"ct{n}.nii.gz" for n in range(cases)}
    truths = {f"c{n}": folder / f"truth{n}.nii.gz" for n in range(cases)}
    for n, (image, truth) in enumerate(zip(images.values(), truths.values(), strict=True)):
        if not truth.exists():
            volume, labels = a_patient(n)
            write_volume(volume, image)
            write_labelmap(labels, truth)
    first = list(images)[:labelled]
    return DataSet(images, truths, LIVER_TARGETS, first, {name: name for name in images})


def made_up_settings() -> RunConfig:
    """Return settings that learn the tiny patients within seconds."""
    organ = SPECIALIST.model_copy(update={"iterations": 60})
    return tiny_config(rounds=1, organ=organ, lesion=SPECIALIST, crossfit_share=0.0)


class ThresholdSam:
    """Stands for SAM on the tiny patients, of which SAM knows nothing.

    In the box it takes what is nearer to the intensity in its middle than to that at its edge.
    """

    def predict_logits(
        self, volume: Volume, prompt: SlicePrompts, monitor: Monitor | None = None
    ) -> Float32:
        """Return logits (H, W) of a box, of a difference in HU."""
        section = volume.voxels[prompt.slice_index].astype(np.float32)
        if prompt.box is None:
            msg = "Only boxes are understood."
            raise ValueError(msg)
        inside = prompt.box.region(section.shape)
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        part = section[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        middle = np.median(part[_middle(part.shape[0]), _middle(part.shape[1])])
        edge = np.median(np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]]))
        logits = np.abs(section - edge) - np.abs(section - middle)
        logits[~inside] = -np.inf
        return np.asarray(logits, np.float32)


def _middle(length: int) -> slice:
    return slice(length // 3, max(length - length // 3, length // 3 + 1))
