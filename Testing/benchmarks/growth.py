"""How good is a lesion that grows from one box? For Docs/results-methods.md.

    python Testing/benchmarks/growth.py --data ../shared/data/lits \
        --volumes 0 5 15 29 33 41

Each lesion from 0.5 ml is given the exact box of its largest section. Beside it stand the masks of
the exact boxes of all sections, asked slice by slice (what SAM could do), and the section of the
box alone. The liver and the other lesions are known, as `grow` is given them. Processor time with
embeddings at hand, and without: those of a neighbouring lesion's slices are at hand there too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from aslseg.config import SamConfig
from aslseg.data.images import read_labelmap, read_volume
from aslseg.data.masks import label_components
from aslseg.data.orientation import axial_labelmap, axial_volume
from aslseg.data.volume import Labels, Mask, Volume
from aslseg.inference.interactive.propagation import GrownSlice, allowed_region, propagate
from aslseg.prompts import SlicePrompts, box_around
from aslseg.sam.model import build_sam
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.sam.weights import get_weights
from aslseg.targets import LIVER_TARGETS

LEAST_ML = 0.5
TUMOUR = 2


@dataclass(frozen=True)
class Row:
    """A lesion: its volume, Dice of three ways, seconds with and without embeddings, slices."""

    case: int
    volume_ml: float
    grown: float
    boxes: float
    section: float
    warm_s: float
    cold_s: float
    slices: tuple[int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--volumes", type=int, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = SamConfig(model="vit_t", input_size=512)
    sam = build_sam("vit_t", input_size=512, checkpoint=get_weights("vit_t"))
    rows = []
    for case in arguments.volumes:
        with TemporaryDirectory() as folder:  # new, so that the first growth encodes its slices
            predictor = VolumeSamPredictor(sam, settings, Path(folder))
            for row in rows_of(predictor, case, arguments.data):
                rows.append(row)
                print(row, flush=True)
    for name in ("grown", "boxes", "section", "warm_s", "cold_s"):
        values = [getattr(row, name) for row in rows]
        middle, mean, worst = np.median(values), np.mean(values), np.max(values)
        print(f"{name}: mean {mean:.3f}, median {middle:.3f}, largest {worst:.3f}", flush=True)


def rows_of(predictor: VolumeSamPredictor, case: int, data: Path) -> Iterator[Row]:
    volume = axial_volume(read_volume(next(data.glob(f"volume-{case}.nii*"))))
    labels = axial_labelmap(read_labelmap(next(data.glob(f"segmentation-{case}.nii*")))).labels
    numbered, count = label_components(labels == TUMOUR)
    for number in range(1, count + 1):
        lesion = numbered == number
        volume_ml = float(lesion.sum()) * volume.geometry.voxel_ml
        if volume_ml >= LEAST_ML:
            yield row_of(predictor, case, volume, labels, lesion)


def row_of(
    predictor: VolumeSamPredictor, case: int, volume: Volume, labels: Labels, lesion: Mask
) -> Row:
    others = np.where(lesion, 1, labels)
    areas = lesion.sum(axis=(1, 2))
    first = int(areas.argmax())
    box = SlicePrompts(first, "tumour", box=box_around(lesion[first]))
    _, cold_s = grow(predictor, volume, others, box)
    grown, warm_s = grow(predictor, volume, others, box)
    boxes = np.zeros_like(lesion)
    for k in np.flatnonzero(areas):
        prompt = SlicePrompts(int(k), "tumour", box=box_around(lesion[k]))
        boxes[k] = predictor.predict_logits(volume, prompt) > 0
    section = np.zeros_like(lesion)
    section[first] = boxes[first]
    return Row(
        case,
        round(float(lesion.sum()) * volume.geometry.voxel_ml, 2),
        dice(grown, lesion),
        dice(boxes, lesion),
        dice(section, lesion),
        round(warm_s, 2),
        round(cold_s, 2),
        (int(grown.any(axis=(1, 2)).sum()), int((areas > 0).sum())),
    )


def grow(
    sam: VolumeSamPredictor, volume: Volume, labels: Labels, box: SlicePrompts
) -> tuple[Mask, float]:
    """Return what has grown, (D, H, W), and the processor time."""
    began = time.process_time()
    allowed = allowed_region(labels, volume, [box], LIVER_TARGETS)
    mask = np.zeros(labels.shape, bool)
    for found in propagate(sam, volume, [box], allowed=allowed):
        if isinstance(found, GrownSlice):
            mask[found.slice_index] = found.mask
    return mask, time.process_time() - began


def dice(first: Mask, second: Mask) -> float:
    return round(2 * float((first & second).sum()) / float(first.sum() + second.sum()), 3)


if __name__ == "__main__":
    main()
