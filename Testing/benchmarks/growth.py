"""How good is a lesion that grows from one box? For Docs/studies/results-methods.md.

    python Testing/benchmarks/growth.py --data ../shared/data/lits --cache local/growth \
        --csv growth-lits.csv
    python Testing/benchmarks/growth.py --data ../shared/data/lits --cache local/growth \
        --csv growth-points-lits.csv --points 3
    python Testing/benchmarks/growth.py --data ../shared/data/lits --cache local/growth \
        --csv growth-from-points-lits.csv --points 3 --from-point
    python Testing/benchmarks/growth.py --data ../shared/data/lits --cache local/growth \
        --csv growth-from-points-on-a-slice.csv --points 3 --from-point --on-its-slice
    python Testing/benchmarks/growth.py --data ../shared/data/lits --cache local/growth \
        --csv growth-signed-points-lits.csv --points 5 --from-point --on-its-slice --signed

Each lesion from 0.5 ml is given the exact box of its largest section. Beside it stand: the rules as
they would be without the lesion's patient, chosen from `CHOICES` by the mean Dice over the other
patients ("held out"); the same from a loose box; a second box on the slice with most errors
("corrected"); SAM's masks of the exact boxes of all sections; and the section of the first box
alone. The liver and the other lesions are known, as `grow` is given them. Processor time with
embeddings at hand ("warm"), of which the slice's own is the only one that growing needs.

With `--points N` a person clicks N times into the middle of what is missing, on the slice on which
most is: Dice after each click, and what the clicks took away. With `--from-point` the lesion begins
with a click into the middle of its largest section in place of a box, and with `--on-its-slice` all
clicks are there. With `--signed` a click is negative where what is too much is deeper than what is
missing.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from aslseg.config import SamConfig
from aslseg.data.images import read_labelmap, read_volume
from aslseg.data.masks import label_components
from aslseg.data.orientation import axial_labelmap, axial_volume
from aslseg.data.volume import Float32, Labels, Mask, Volume
from aslseg.evaluation.metrics import dice
from aslseg.events import Monitor
from aslseg.inference.interactive.propagation import (
    GrownSlice,
    SliceSam,
    allowed_region,
    propagate,
)
from aslseg.inference.interactive.sections import GrowthRules
from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts, box_around
from aslseg.sam.model import build_sam
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.sam.weights import get_weights
from aslseg.targets import LIVER_TARGETS

LEAST_ML = 0.5
TUMOUR = 2
CHOICES = tuple(
    GrowthRules(sam_weight=sam, shape_weight=shape, length_mm=length_mm)
    for sam, shape, length_mm in itertools.product((0.0, 0.25), (1.0, 2.0, 3.0), (3.0, 5.0))
)
SUMMARISED = (
    "grown", "held_out", "loose", "corrected", "boxes", "first_section", "section_alone", "warm_s",
)  # fmt: skip
LOOSE = 0.1
"""Each edge of a loose box is moved outward by up to 1.5 times this share of its length, or inward
by up to a half of it."""


@dataclass(frozen=True)
class Row:
    """A lesion: Dice of seven ways, slices, processor seconds, and what it grew to."""

    patient: int
    case: int
    lesion: int
    volume_ml: float
    first_slice: int
    true_slices: int
    grown_slices: int
    grown: float
    held_out: float
    loose: float
    corrected: float
    boxes: float
    first_section: float
    section_alone: float
    warm_s: float
    ends: str


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion, and what is known around it."""

    case: int
    number: int
    volume: Volume
    labels: Labels
    truth: Mask

    @cached_property
    def first(self) -> int:
        return int(self.truth.sum(axis=(1, 2)).argmax())

    @cached_property
    def allowed(self) -> Mask:
        prompts = [self.box(self.first)]
        return allowed_region(self.labels, self.volume, prompts, LIVER_TARGETS)

    def box(self, k: int) -> SlicePrompts:
        return SlicePrompts(k, "tumour", box=box_around(self.truth[k]))


class RememberingSam:
    """SAM that decodes a box once, so that many rules can be tried."""

    def __init__(self, sam: VolumeSamPredictor) -> None:
        self._sam = sam
        self._known: dict[object, Float32] = {}

    def predict_logits(
        self, volume: Volume, prompt: SlicePrompts, monitor: Monitor | None = None
    ) -> Float32:
        key = id(volume), prompt.slice_index, prompt.box, prompt.points
        if key not in self._known:
            self._known[key] = self._sam.predict_logits(volume, prompt, monitor)
        return self._known[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--volumes", type=int, nargs="+", default=None, help="all without it")
    parser.add_argument("--no-boxes", action="store_true", help="none of all sections: much faster")
    parser.add_argument("--points", type=int, default=0, help="clicks, and nothing else")
    parser.add_argument("--from-point", action="store_true", help="begin with one, without a box")
    parser.add_argument("--on-its-slice", action="store_true", help="clicks on the first slice")
    parser.add_argument("--signed", action="store_true", help="negative clicks too")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder of embeddings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = build_sam("vit_t", input_size=512, checkpoint=get_weights("vit_t"))
    settings = SamConfig(model="vit_t", input_size=512)
    sam = VolumeSamPredictor(model, settings, arguments.cache)
    protocol = json.loads((arguments.data / "splits.json").read_text())["protocol_2"]
    patients = {case: int(p) for p, cases in protocol["patients"].items() for case in cases}
    cases = arguments.volumes or sorted(
        int(path.name.removeprefix("volume-").split(".")[0])
        for path in arguments.data.glob("volume-*")
    )
    if arguments.points:
        study_points(sam, cases, arguments)
        return
    rows, chosen = [], []
    for case in cases:
        remembering = RememberingSam(sam)
        for lesion in lesions_of(case, arguments.data):
            row, of_choices = row_of(sam, remembering, lesion, patients.get(case, case))
            if not arguments.no_boxes:
                row = replace(row, boxes=dice(boxes_of(remembering, lesion), lesion.truth))
            rows.append(row)
            chosen.append(of_choices)
            print(row, flush=True)
    rows = with_held_out(rows, np.array(chosen))
    write(rows, arguments.csv)
    summarise("all", rows)
    summarise("test patients", [row for row in rows if row.case in protocol["test"]])


def lesions_of(case: int, data: Path) -> Iterator[Lesion]:
    volume = axial_volume(read_volume(next(data.glob(f"volume-{case}.nii*"))))
    labels = axial_labelmap(read_labelmap(next(data.glob(f"segmentation-{case}.nii*")))).labels
    numbered, count = label_components(labels == TUMOUR)
    for number in range(1, count + 1):
        truth = numbered == number
        if float(truth.sum()) * volume.geometry.voxel_ml >= LEAST_ML:
            yield Lesion(case, number, volume, np.where(truth, 1, labels), truth)


def row_of(
    sam: VolumeSamPredictor, remembering: SliceSam, lesion: Lesion, patient: int
) -> tuple[Row, list[float]]:
    """Return a row without its held-out Dice and that of boxes, and the Dice of all choices."""
    truth, first = lesion.truth, lesion.first
    prompt = lesion.box(first)
    sam.predict_logits(lesion.volume, prompt)  # the embedding is at hand from here on
    began = time.process_time()
    grown, ends = grow(sam, lesion, [prompt])
    warm_s = time.process_time() - began
    alone = np.zeros_like(truth)
    alone[first] = grown[first]
    row = Row(
        patient,
        lesion.case,
        lesion.number,
        round(float(truth.sum()) * lesion.volume.geometry.voxel_ml, 2),
        first,
        int(truth.any(axis=(1, 2)).sum()),
        int(grown.any(axis=(1, 2)).sum()),
        dice(grown, truth),
        np.nan,
        dice(grow(remembering, lesion, [loosened(prompt, lesion)])[0], truth),
        dice(corrected(remembering, lesion, prompt, grown), truth),
        np.nan,
        dice(grown[first], truth[first]),
        dice(alone, truth),
        warm_s,
        ends,
    )
    choices = [dice(grow(remembering, lesion, [prompt], rules)[0], truth) for rules in CHOICES]
    return row, choices


def boxes_of(sam: SliceSam, lesion: Lesion) -> Mask:
    """Return SAM's masks (D, H, W) of the exact boxes of all sections."""
    boxes = np.zeros_like(lesion.truth)
    for k in np.flatnonzero(lesion.truth.any(axis=(1, 2))):
        boxes[k] = sam.predict_logits(lesion.volume, lesion.box(int(k))) > 0
    return boxes


def grow(
    sam: SliceSam,
    lesion: Lesion,
    prompts: Sequence[SlicePrompts],
    rules: GrowthRules | None = None,
) -> tuple[Mask, str]:
    """Return what has grown, (D, H, W), and where and why it ends."""
    mask, ends = np.zeros(lesion.truth.shape, bool), []
    for found in propagate(sam, lesion.volume, prompts, allowed=lesion.allowed, rules=rules):
        if isinstance(found, GrownSlice):
            mask[found.slice_index] = found.mask
        else:
            ends.append(f"{found.slice_index} {found.reason}")
    return mask, "; ".join(ends)


def corrected(sam: SliceSam, lesion: Lesion, prompt: SlicePrompts, grown: Mask) -> Mask:
    """Return what grows with a second box, on the slice with most errors that has a lesion."""
    errors = (grown ^ lesion.truth).sum(axis=(1, 2)) * lesion.truth.any(axis=(1, 2))
    errors[lesion.first] = 0
    if not errors.any():
        return grown
    return grow(sam, lesion, [prompt, lesion.box(int(errors.argmax()))])[0]


def study_points(
    sam: VolumeSamPredictor, cases: Sequence[int], arguments: argparse.Namespace
) -> None:
    """Write Dice after each click, and which part of what had grown the clicks took away."""
    table = []
    for case in cases:
        for lesion in lesions_of(case, arguments.data):
            dices, lost = clicked(sam, lesion, arguments)
            table.append([case, lesion.number, *dices, lost])
            print(*table[-1], flush=True)
    head = [f"after_{n}" for n in range(arguments.points + 1)]
    with arguments.csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "lesion", *head, "lost"])
        writer.writerows([*row[:2], *(round(value, 3) for value in row[2:])] for row in table)
    values = np.array(table)[:, 2:]
    print(len(table), "lesions; mean", values.mean(axis=0).round(3))
    print("median", np.median(values, axis=0).round(3), "most", values.max(axis=0).round(3))
    print("worse by more than 0.03:", int((values[:, -2] < values[:, 0] - 0.03).sum()))


def clicked(sam: SliceSam, lesion: Lesion, chosen: argparse.Namespace) -> tuple[list[float], float]:
    """Return the Dice before and after each click, and the largest part that one took away."""
    first = lesion.first
    middle = SlicePrompts(first, "tumour", points=(middle_of(lesion.truth[first]),))
    prompts = {first: middle if chosen.from_point else lesion.box(first)}
    mask, _ = grow(sam, lesion, list(prompts.values()))
    dices, lost = [dice(mask, lesion.truth)], 0.0
    for _ in range(chosen.points):
        missing, excess = lesion.truth & ~mask, mask & ~lesion.truth & chosen.signed
        wrong = missing | excess
        k = first if chosen.on_its_slice else int(wrong.sum(axis=(1, 2)).argmax())
        if wrong[k].any():
            new = SlicePrompts(k, "tumour", points=(next_click(missing[k], excess[k]),))
            before = prompts.get(k)
            prompts[k] = (
                new if before is None else replace(before, points=(*before.points, *new.points))
            )
            after, _ = grow(sam, lesion, list(prompts.values()))
            lost = max(lost, float((mask & ~after).sum() / max(mask.sum(), 1)))
            mask = after
        dices.append(dice(mask, lesion.truth))
    return dices, lost


def next_click(missing: Mask, excess: Mask) -> PointPrompt:
    """Return a positive point in what is missing (H, W), or a negative one where it is deeper."""
    if depth_of(excess).max() > depth_of(missing).max():
        return replace(middle_of(excess), positive=False)
    return middle_of(missing)


def middle_of(mask: Mask) -> PointPrompt:
    """Return a positive point where a mask (H, W) is deepest."""
    y, x = np.unravel_index(int(depth_of(mask).argmax()), mask.shape)
    return PointPrompt((float(x) + 0.5, float(y) + 0.5))


def depth_of(mask: Mask) -> Float32:
    """Return how deep (H, W) the pixels of a mask (H, W) lie in it."""
    return ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]


def loosened(prompt: SlicePrompts, lesion: Lesion) -> SlicePrompts:
    """Return a prompt whose box is as a person may draw it, the same at each call."""
    if prompt.box is None:
        return prompt
    left, top, right, bottom = prompt.box.xyxy
    _, height, width = lesion.truth.shape
    x, y = max(1.0, LOOSE * (right - left)), max(1.0, LOOSE * (bottom - top))
    seed = lesion.case, lesion.number
    shifts = np.random.default_rng(seed).uniform(-0.5, 1.5, 4) * (x, y, x, y)
    low_x, low_y, high_x, high_y = shifts.tolist()
    edges = round(left - low_x), round(top - low_y), round(right + high_x), round(bottom + high_y)
    box = BoxPrompt(
        (max(edges[0], 0), max(edges[1], 0), min(edges[2], width), min(edges[3], height))
    )
    return replace(prompt, box=box)


def with_held_out(rows: Sequence[Row], choices: np.ndarray) -> list[Row]:
    """Add the Dice of the rules that are best for the other patients."""
    patients = np.array([row.patient for row in rows])
    found = []
    for place, row in enumerate(rows):
        others = choices[patients != row.patient]
        best = int(others.mean(axis=0).argmax()) if len(others) else 0
        found.append(replace(row, held_out=float(choices[place, best])))
    for patient in np.unique(patients):
        others = choices[patients != patient]
        if len(others):
            print(f"without patient {patient}: {CHOICES[int(others.mean(axis=0).argmax())]}")
    for rules, mean in zip(CHOICES, choices.mean(axis=0), strict=True):
        print(rules.sam_weight, rules.shape_weight, rules.length_mm, f"{mean:.3f}")
    return found


def write(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([field.name for field in fields(Row)])
        for row in rows:
            values = asdict(row).values()
            table.writerow([round(v, 3) if isinstance(v, float) else v for v in values])


def summarise(title: str, rows: Sequence[Row]) -> None:
    print(f"{title}: {len(rows)} lesions")
    for name in SUMMARISED if rows else ():
        values = np.array([getattr(row, name) for row in rows])
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        middle, mean, most = np.median(values), np.mean(values), np.max(values)
        print(f"{name}: mean {mean:.3f}, median {middle:.3f}, most {most:.3f}", flush=True)


if __name__ == "__main__":
    main()
