"""The parts of `gpu.sh`: what card it is, encoders and steps against its peak, paradigms, nnU-Net.

    python Testing/benchmarks/gpu_parts.py steps <out> --data <lits>

With `--dry-run` all sizes are tiny and everything runs on the CPU, on what `phantoms` wrote.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from aslseg.benchmark.data import BenchmarkData, project_showing
from aslseg.benchmark.draws import DrawsFile, drawn_data, read_draws
from aslseg.benchmark.entries import ENTRIES
from aslseg.benchmark.figure import write_figure
from aslseg.benchmark.presets import BenchmarkPreset, benchmark_preset
from aslseg.benchmark.runner import run_benchmark
from aslseg.benchmark.scoring import held_out_rows, stored_prediction
from aslseg.config import RunConfig, SpecialistConfig
from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.masks import BoundingBox
from aslseg.data.phantom.dataset import make_phantom
from aslseg.distributed import WorkPart
from aslseg.events import Monitor
from aslseg.networks.unet import build_network
from aslseg.overrides import with_overrides
from aslseg.preprocessing.patches import BatchSource, TrainingCase
from aslseg.preprocessing.roi import Roi
from aslseg.presets import read_preset
from aslseg.project.datasets import cases_from_folder
from aslseg.runs import start_run
from aslseg.sam.model import build_sam
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training.ssl import SSL_METHODS
from aslseg.training.trainer import (
    Prefetch,
    Schedule,
    Trainer,
    network_recorder,
    spare_threads,
)

ROOT = Path(__file__).resolve().parents[2]
DRAW = "A"
METHODS = (
    "supervised", "mean_teacher", "uncertainty_aware", "cross_pseudo", "unimatch",
    "bidirectional_copy_paste", "semisam_mean_teacher", "scsam", "cpcsam",
)  # fmt: skip
PARADIGMS = ("supervised", "mean_teacher", "unimatch", "bidirectional_copy_paste")
COUNTED, LAST = 4, 12
"""The step whose operations are counted, after some that warm up (and after the quarter of the
schedule in which BCP mixes labelled patches alone); and the last step that is timed."""
TINY: dict[str, Any] = {
    "organ.iterations": 15, "lesion.iterations": 15, "organ.patch_size": 32,
    "lesion.patch_size": 32, "organ.batch_size": 2, "lesion.batch_size": 2,
    "organ.network.channels": [4, 8, 16], "lesion.network.channels": [4, 8, 16],
    "organ.roi.pixel_mm": 6.0, "lesion.roi.pixel_mm": 6.0, "device": "cpu",
    "scsam.input_size": 112, "cpcsam.input_size": 112, "sam.input_size": 112,
    "semisam.clicks": 1,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="whose steps are timed")
    parser.add_argument("--dry-run", action="store_true")
    chosen = parser.parse_args()
    PARTS[chosen.part](chosen)


def phantoms(chosen: argparse.Namespace) -> None:
    """Write five phantoms with the names of LiTS."""
    for number in range(5):
        volume, labels = make_phantom(number, (16, 48, 48), (12.0, 8.0, 8.0))
        write_volume(volume, chosen.out / f"volume-{number}.nii.gz")
        write_labelmap(labels, chosen.out / f"segmentation-{number}.nii.gz")


def machine(chosen: argparse.Namespace) -> None:
    """Write card, driver, versions, and what a large product of matrices reaches."""
    packages = ("torch", "monai", "numpy", "scipy", "nnunetv2")
    device = _device(chosen)
    facts = {
        "device": _name(device),
        "driver": _driver(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "versions": {name: _version(name) for name in packages},
        "cores": os.cpu_count(),
        "peak_tflops_bfloat16": round(peak_tflops(device, tiny=chosen.dry_run), 3),
        "commit": _commit(),
    }
    _write(chosen.out, facts)


def peak_tflops(device: torch.device, *, tiny: bool) -> float:
    """Measure the product of two square matrices in bfloat16, the best of ten."""
    edge = 256 if tiny else 8192
    a, b = (torch.randn(edge, edge, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = min(_seconds_of(lambda: a @ b, device) for _ in range(10))
    return 2 * edge**3 / best / 1e12


def encoder(chosen: argparse.Namespace) -> None:
    """Time SAM's image encoders, with one slice after the other and with several at once."""
    device = _device(chosen)
    peak = peak_tflops(device, tiny=chosen.dry_run)
    dtype = torch.bfloat16 if chosen.dry_run else torch.float16
    sizes: Sequence[int] = (256,) if chosen.dry_run else (512, 1024)
    rows: list[dict[str, object]] = []
    for model in ("vit_t",) if chosen.dry_run else ("vit_t", "vit_b"):
        for size in sizes:
            sam = build_sam(model, input_size=size).to(device).eval()
            for count in (1, 4) if chosen.dry_run else (1, 4, 16):
                rows.append(_encoded(sam, size, count, dtype) | {"model": model})
                rows[-1]["share_of_peak"] = round(rows[-1]["tflops"] / peak, 4)
                _write_rows(chosen.out / "encoder.csv", rows)


@torch.inference_mode()
def _encoded(sam: Any, size: int, count: int, dtype: torch.dtype) -> dict[str, Any]:
    """Encode some pictures at once, and count and time it."""
    images = torch.randn(count, 3, size, size, device=sam.device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(sam.device.type, dtype):
        with FlopCounterMode(display=False) as counter:
            sam.image_encoder(images)
        seconds = sorted(
            _seconds_of(lambda: sam.image_encoder(images), sam.device) for _ in range(7)
        )
    tflops = counter.get_total_flops() / seconds[3] / 1e12
    memory = torch.cuda.max_memory_allocated() if sam.device.type == "cuda" else 0
    return {
        "input_size": size,
        "slices_at_once": count,
        "milliseconds_a_slice": round(1000 * seconds[3] / count, 3),
        "gflop_a_slice": round(counter.get_total_flops() / count / 1e9, 2),
        "tflops": round(tflops, 3),
        "peak_gb_so_far": round(memory / 1e9, 3),
    }


def steps(chosen: argparse.Namespace) -> None:
    """Time some steps of each method, and count their operations."""
    device = _device(chosen)
    peak = peak_tflops(device, tiny=chosen.dry_run)
    data = _data(chosen)
    rows: list[dict[str, object]] = []
    for name in chosen.methods:
        config = _short(ENTRIES[name].settings(_preset(chosen).config, 0), LAST + 1)
        config = with_overrides(config, {"baseline": False, "label_unlabelled": False})
        folder = chosen.out / "steps" / name
        shutil.rmtree(folder, ignore_errors=True)
        project = project_showing(data, folder, DRAW, 2, most_unlabelled=2)
        with recorded_steps(device) as records:
            start_run(project, config, Monitor(), "steps", cache=chosen.out / "cache")
        rows += [
            {
                "method": name,
                "training": training,
                "seconds_a_step": round(record.seconds, 4),
                "gflop_a_step": round(record.flop / 1e9, 2),
                "tflops": round(record.flop / record.seconds / 1e12, 5),
                "share_of_peak": round(record.flop / record.seconds / 1e12 / peak, 4),
            }
            for training, record in records.items()
        ]
        _write_rows(chosen.out / "steps.csv", rows)


def batches(chosen: argparse.Namespace) -> None:
    """Time steps of the liver's network with batches that are there, and with ones to prepare.

    Each with the network recorded and plain (which is the same in a dry run).
    """
    device, rows = _device(chosen), []
    steps = 6 if chosen.dry_run else 80
    for name in ("quick", "standard"):
        config = with_overrides(read_preset(name), TINY) if chosen.dry_run else read_preset(name)
        row: dict[str, object] = {"preset": name}
        _step_seconds(config.organ, device, "there", steps // 2, recorded=False)  # warms up
        for how in ("there", "by threads", "when wanted"):
            for recorded in (False, True):
                seconds = _step_seconds(config.organ, device, how, steps, recorded=recorded)
                column = f"milliseconds, {how}, {'recorded' if recorded else 'plain'}"
                row[column] = round(1000 * seconds, 2)
        rows.append(row)
        _write_rows(chosen.out / "batches.csv", rows)


def _step_seconds(
    settings: SpecialistConfig, device: torch.device, how: str, steps: int, *, recorded: bool
) -> float:
    """Return the mean time of a step of a training by labels alone, on two made-up ROIs."""
    stage = cascade_stages(LIVER_TARGETS)[0]
    torch.manual_seed(0)
    method = SSL_METHODS["supervised"](lambda: build_network(stage, settings), settings).to(device)
    cases = [TrainingCase(_made_up_roi(number), case_id=str(number)) for number in range(2)]
    source = BatchSource(cases, settings, seed=0, stream=0, device=device)
    there = [source.batch(number) for number in range(4)] if how == "there" else []
    marks: list[float] = []

    def after(step: int) -> None:
        method.after_step(step)
        if step in (steps // 3, steps - 1):
            _wait_for(device)
            marks.append(time.perf_counter())

    threads = spare_threads(device) if how == "by threads" else 0
    with (
        TemporaryDirectory() as folder,
        Prefetch(source.batch, steps, threads) as prepared,
        network_recorder("batches", device, prepared) if recorded else nullcontext() as recorder,
    ):
        method.recorder = recorder
        trainer = Trainer(
            method,
            Schedule("batches", steps, settings.learning_rate, settings.weight_decay),
            device,
            Path(folder),
            after_step=after,
            configure_optimizers=method.configure_optimizers(),
            recorder=recorder,
        )

        def step_loss(step: int, generator: torch.Generator, part: WorkPart) -> dict[str, Tensor]:
            labelled = there[step % len(there)] if there else prepared(step, part)
            return {"loss": method.loss(labelled, None, step, generator).total}

        trainer.run(step_loss, Monitor())
    return (marks[1] - marks[0]) / (steps - 1 - steps // 3)


def _made_up_roi(seed: int) -> Roi:
    image = np.random.default_rng(seed).normal(size=(60, 150, 150)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[20:40, 30:100, 30:100] = 1
    box = BoundingBox((0, 0, 0), image.shape)
    return Roi(image, None, labels, box, image.shape, neighbour=1)


class StepRecord:
    """Operations of one step of a training, and the time of the later ones."""

    def __init__(self) -> None:
        self.flop = 0
        self.times: list[float] = []

    @property
    def seconds(self) -> float:
        """The mean of the timed steps."""
        return sum(self.times) / len(self.times)


@contextmanager
def recorded_steps(device: torch.device) -> Iterator[dict[str, StepRecord]]:
    """Record every training within: its counted step and its timed ones."""
    records: dict[str, StepRecord] = {}
    take = Trainer._step

    def recorded(self: Trainer, step: int, *rest: Any) -> None:
        record = records.setdefault(self.schedule.name, StepRecord())
        if step == COUNTED:
            with FlopCounterMode(display=False) as counter:
                take(self, step, *rest)
            record.flop = counter.get_total_flops()
        elif step > COUNTED:
            record.times.append(_seconds_of(lambda: take(self, step, *rest), device))
        else:
            take(self, step, *rest)

    Trainer._step = recorded  # type: ignore[method-assign]
    try:
        yield records
    finally:
        Trainer._step = take  # type: ignore[method-assign]


def paradigms(chosen: argparse.Namespace) -> None:
    """Run the specialist with labels alone and with each paradigm, at two labels of draw A."""
    preset = _preset(chosen)
    preset = replace(preset, labelled=(2,), tables=("schedule",), workers=1)
    folder = chosen.out / "paradigms"
    tables = run_benchmark(folder, _data(chosen), preset, PARADIGMS)
    write_figure(tables, folder / "benchmark.png")


def nnunet(chosen: argparse.Namespace) -> None:
    """Train stock nnU-Net, 2-D, on two labels and on all, and score it as the benchmark does.

    Raises:
        SystemExit: When nnunetv2 is not installed, or one of its commands fails.
    """
    if _version("nnunetv2") is None:
        sys.exit("nnU-Net is not measured: the package nnunetv2 is not installed.")
    data, rows = _data(chosen), []
    for number, labelled in enumerate((2, 0), start=501):
        began = sum(os.times()[2:4])  # of child processes, which are nnU-Net's
        folder = _nnunet_run(chosen, data, number, labelled)
        seconds = sum(os.times()[2:4]) - began
        found = held_out_rows(data, lambda case, of=folder: stored_prediction(of, case))
        rows += [
            {
                "labelled": labelled or "all",
                "cpu_s": round(seconds, 1),
                **{k: v for k, v in row.items() if k != "lesions"},
            }
            for row in found
        ]
        _write_rows(chosen.out / "nnunet.csv", rows)


def _nnunet_run(
    chosen: argparse.Namespace, data: BenchmarkData, number: int, labelled: int
) -> Path:
    """Train and predict with nnU-Net's own commands, and return the folder of label maps."""
    home, name = chosen.out / "nnunet", f"Dataset{number}_Liver"
    folders = {n: home / n for n in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    raw, found = folders["nnUNet_raw"] / name, home / f"found-{number}"
    shutil.rmtree(raw, ignore_errors=True)
    shown = data.shown(DRAW, labelled)
    for case in data.cases:
        part = "imagesTs" if case.id in data.held_out else "imagesTr" if case.id in shown else None
        if part is not None:
            _copy(case.image, raw / part / f"{case.id}_0000.nii.gz")
        if part == "imagesTr" and case.label is not None:
            _copy(case.label, raw / "labelsTr" / f"{case.id}.nii.gz")
    facts = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{t.name: t.value for t in data.targets}},
        "numTraining": len(shown),
        "file_ending": ".nii.gz",
    }
    _write(raw / "dataset.json", facts)
    epochs = "nnUNetTrainer_1epoch" if chosen.dry_run else "nnUNetTrainer_5epochs"
    device = _device(chosen).type
    ours = ["-tr", epochs, "-device", device]
    environment = {**os.environ, **{key: str(path) for key, path in folders.items()}}
    for words in (
        ["nnUNetv2_plan_and_preprocess", "-d", str(number), "-c", "2d", "-np", "4"],
        ["nnUNetv2_train", str(number), "2d", "all", *ours],
        ["nnUNetv2_predict", "-i", str(raw / "imagesTs"), "-o", str(found), "-d", str(number),
         "-c", "2d", "-f", "all", *ours],
    ):  # fmt: skip
        status = subprocess.run(words, env=environment, check=False).returncode
        if status:
            sys.exit(f"{words[0]} ended with status {status}.")
    return found


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _data(chosen: argparse.Namespace) -> BenchmarkData:
    cases = cases_from_folder(chosen.data)
    if chosen.dry_run:
        names = [case.id for case in cases]
        file = DrawsFile(test=tuple(names[:1]), training=tuple(names[1:]), draws={DRAW: names[1:]})
    else:
        file = read_draws(ROOT / "Docs" / "results" / "draws-lits.json")
    return drawn_data(cases, file, chosen=[DRAW])


def _preset(chosen: argparse.Namespace) -> BenchmarkPreset:
    preset = benchmark_preset("liver")
    if not chosen.dry_run:
        return preset
    return replace(preset, config=with_overrides(preset.config, TINY))


def _short(config: RunConfig, count: int) -> RunConfig:
    return with_overrides(config, {"organ.iterations": count, "lesion.iterations": count})


def _device(chosen: argparse.Namespace) -> torch.device:
    if chosen.dry_run:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA device; try --dry-run.")
    return torch.device("cuda")


def _seconds_of(work: Callable[[], object], device: torch.device) -> float:
    _wait_for(device)
    began = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - began


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU (dry run)"


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _commit() -> str | None:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _write(path: Path, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _write_rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


PARTS = {
    "phantoms": phantoms,
    "machine": machine,
    "encoder": encoder,
    "steps": steps,
    "batches": batches,
    "paradigms": paradigms,
    "nnunet": nnunet,
}

if __name__ == "__main__":
    main()
