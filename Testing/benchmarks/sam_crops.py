r"""How well SAM outlines lesions on whole slices and on crops of the liver, and what each costs.

    python Testing/benchmarks/sam_crops.py --data ../shared/data/lits --tune 200 --csv found.csv

On training volumes of draw A alone (protocol_2 of splits.json; volume 7 is a twin of a labelled
one and left out). Prompts are made from the true lesions with jittered boxes, and from corrupted
masks, as in tuning; their truth is the true lesions that they touch. The crop is around a corrupted
liver. `--tune` trains the mask decoder on volumes 4 and 9 for so many steps first, and the others
alone are scored. Encoding and decoding are timed as processor seconds a slice.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from aslseg.config import InputSize, PromptConfig, SamConfig, SamCropConfig
from aslseg.context import LabelledVolume
from aslseg.data.images import read_labelmap, read_volume
from aslseg.data.orientation import axial_labelmap, axial_volume
from aslseg.evaluation.metrics import dice
from aslseg.sam.crops import crops_of, with_crops
from aslseg.sam.model import build_sam
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.sam.tuning import tune
from aslseg.sam.weights import get_weights
from aslseg.targets import LIVER_TARGETS, region_mask
from aslseg.training.mask_corruption import synthetic_masks
from aslseg.training.sam_tuning import (
    PromptSample,
    prompt_samples_from,
    sam_training_case,
    tuning_loss,
    with_embeddings,
)

LABELLED, TWINS = (4, 9), (7,)
LIVER, TUMOUR = LIVER_TARGETS
WHOLE = SamCropConfig(region="slice")


def crop(spreads: float | None, margin_mm: float = 10.0) -> SamCropConfig:
    return SamCropConfig(region="parent", spreads=spreads, margin_mm=margin_mm)


POINT_AND_MASK = PromptConfig()
NO_MASK = PromptConfig(use_mask=False)
IN_3D = PromptConfig(connect="volume")


@dataclass(frozen=True)
class Variant:
    """A way to ask SAM."""

    name: str
    size: InputSize
    crop: SamCropConfig
    window_hu: tuple[float, float] = (-50.0, 200.0)
    prompts: PromptConfig = POINT_AND_MASK

    @property
    def settings(self) -> SamConfig:
        return SamConfig(
            input_size=self.size, crop=self.crop, window_hu=self.window_hu, prompts=self.prompts
        )


VARIANTS = (
    Variant("whole slice", 512, WHOLE),
    Variant("whole slice, 1024", 1024, WHOLE),
    Variant("whole slice, 0 to 160 HU", 512, WHOLE, (0.0, 160.0)),
    Variant("crop, wide window", 512, crop(None)),
    Variant("crop, 3 spreads", 512, crop(3.0)),
    Variant("crop, 4 spreads", 512, crop(4.0)),
    Variant("crop, 6 spreads", 512, crop(6.0)),
    Variant("crop, 4 spreads, 256", 256, crop(4.0)),
    Variant("crop, 4 spreads, 1024", 1024, crop(4.0)),
    Variant("crop, 4 spreads, margin 30 mm", 512, crop(4.0, 30.0)),
    Variant("crop, 4 spreads, connected in 3-D", 512, crop(4.0), prompts=IN_3D),
    Variant("crop, 4 spreads, no mask", 512, crop(4.0), prompts=NO_MASK),
    Variant("whole slice, no mask", 512, WHOLE, prompts=NO_MASK),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tune", type=int, default=0, help="steps of tuning on volumes 4 and 9")
    parser.add_argument("--slices", type=int, default=3, help="lesion slices of a volume")
    parser.add_argument("--variant", nargs="*", help="only those of these numbers")
    parser.add_argument("--csv", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [VARIANTS[int(n)] for n in chosen.variant or range(len(VARIANTS))]
    scored = _numbers(chosen.data, without=LABELLED if chosen.tune else ())
    for variant in wanted:
        rows = list(_rows(chosen.data, variant, scored, chosen.slices, chosen.tune))
        _say(variant, rows)
        if chosen.csv:
            _append(chosen.csv, rows)


def _append(path: Path, rows: Sequence[dict[str, object]]) -> None:
    begins = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if begins:
            writer.writeheader()
        writer.writerows(rows)


def _numbers(data: Path, without: Sequence[int]) -> list[int]:
    protocol = json.loads((data / "splits.json").read_text(encoding="utf-8"))["protocol_2"]
    left_out = {*TWINS, *without, *protocol["tumour_free"]}
    return [n for n in protocol["training"] if n not in left_out]


def _labelled(data: Path, number: int) -> LabelledVolume:
    return LabelledVolume(
        str(number),
        axial_volume(read_volume(data / f"volume-{number}.nii.gz")),
        axial_labelmap(read_labelmap(data / f"segmentation-{number}.nii.gz")),
    )


def _rows(
    data: Path, variant: Variant, scored: Sequence[int], slices: int, steps: int
) -> Iterator[dict[str, object]]:
    with TemporaryDirectory() as cache:
        began = time.process_time()
        predictor = _predictor(variant, Path(cache), data, steps)
        tuning_s = time.process_time() - began
        for number in scored:
            labelled = _labelled(data, number)
            for kind, samples in _samples(labelled, variant.settings, slices):
                prompts = [sample.prompt for sample in samples]
                began = time.process_time()
                with TemporaryDirectory() as fresh:
                    timed = VolumeSamPredictor(predictor.sam, predictor.settings, Path(fresh))
                    found = timed.predict(labelled.volume, prompts)[TUMOUR.name]
                count = len({p.slice_index for p in prompts})
                seconds = (time.process_time() - began) / count
                for k, truth, given in _by_slice(samples):
                    yield {
                        "variant": variant.name,
                        "steps": steps,
                        "prompts": kind,
                        "volume": number,
                        "slice": k,
                        "dice": round(dice(found[k] > 0.5, truth), 4),
                        "dice_prompt": round(dice(given, truth), 4),
                        "cpu_s_per_slice": round(seconds, 3),
                        "tuning_cpu_s": round(tuning_s, 1),
                    }


def _predictor(variant: Variant, cache: Path, data: Path, steps: int) -> VolumeSamPredictor:
    sam = build_sam("vit_t", input_size=variant.size, checkpoint=get_weights("vit_t"))
    predictor = VolumeSamPredictor(tune(sam, "decoder"), variant.settings, cache)
    if not steps:
        return predictor
    settings = variant.settings.model_copy(update={"versions": 2})
    cases = [
        with_embeddings(
            predictor, sam_training_case(_labelled(data, number), LIVER_TARGETS, settings, 0)
        )
        for number in LABELLED
    ]
    trained = [p for p in sam.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, steps, 0.9)
    sam.train()
    for step in range(steps):
        rng = np.random.default_rng([0, 17, step])
        loss = tuning_loss(predictor, cases[rng.integers(len(cases))], rng)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    sam.eval()
    return predictor


def _samples(
    labelled: LabelledVolume, settings: SamConfig, slices: int
) -> Iterator[tuple[str, list[PromptSample]]]:
    """Yield the prompts of the same lesion slices: of the truth, and of corrupted masks."""
    truth = {t.name: region_mask(labelled.labels.labels, t, LIVER_TARGETS) for t in LIVER_TARGETS}
    areas = truth[TUMOUR.name].sum(axis=(1, 2))
    shown = np.flatnonzero(areas >= settings.prompts.min_area_px)
    chosen = set(shown[np.linspace(0, len(shown) - 1, min(slices, len(shown))).astype(int)])
    rng = np.random.default_rng([3, int(labelled.case_id)])
    corrupted = synthetic_masks(labelled, LIVER_TARGETS, rng)
    crops = crops_of(labelled.volume, {LIVER.name: corrupted[LIVER.name]}, LIVER_TARGETS, settings)
    for kind, mask in (("jittered", truth[TUMOUR.name]), ("degraded", corrupted[TUMOUR.name])):
        rng = np.random.default_rng([4, int(labelled.case_id)])
        samples = prompt_samples_from(mask, truth[TUMOUR.name], TUMOUR.name, settings, rng)
        samples = [s for s in samples if s.prompt.slice_index in chosen and s.truth.any()]
        prompts = with_crops([s.prompt for s in samples], crops)
        if samples:
            yield kind, [replace(s, prompt=p) for s, p in zip(samples, prompts, strict=True)]


def _by_slice(samples: Sequence[PromptSample]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for k in sorted({s.prompt.slice_index for s in samples}):
        here = [s for s in samples if s.prompt.slice_index == k]
        truth = np.logical_or.reduce([s.truth for s in here])
        yield k, truth, np.logical_or.reduce([s.prompt.region(truth.shape) for s in here])


def _say(variant: Variant, rows: Sequence[dict[str, object]]) -> None:
    for kind in ("jittered", "degraded"):
        these = [row for row in rows if row["prompts"] == kind]
        dices, given = ([float(str(r[key])) for r in these] for key in ("dice", "dice_prompt"))
        seconds = np.mean([float(str(r["cpu_s_per_slice"])) for r in these])
        print(
            f"{variant.name:40} {kind}: {np.mean(dices):.3f} (prompt {np.mean(given):.3f}), "
            f"{len(these)} slices, {seconds:.2f} s a slice",
            flush=True,
        )


if __name__ == "__main__":
    main()
