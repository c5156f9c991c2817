"""How fast is a volume segmented, beside stock MobileSAM? For Docs/studies/performance.md.

    python Testing/benchmarks/speed_volume.py PROJECT IMAGE TRUTH --every 6

PROJECT has a finished run (`--run` names one of several); it is copied without its cache. One part
after the other, each in a process of its own:

* stock: `SamPredictor` of segment_anything, MobileSAM at 1024 x 1024 in float32; for every n-th
  slice with the organ `set_image`, and `predict` with the box around the truth. Its time is scaled
  to all such slices and has neither start-up nor loading. The encoder is ours: it gives the numbers
  of the released one in a little less time, since it computes nothing for the filling of windows.
* command line, start-up and all: `aslseg segment` with nothing on disk; with SAM's embeddings on
  disk; with the prediction on disk.
* session: with nothing on disk; with embeddings on disk; again, with the prediction on disk; an
  edited prompt: the whole volume after one box was changed.

Seconds by the clock and of processor (user and system), Dice of the organ with what lies in it on
the slices that stock was asked for and on the whole volume, and how many times faster than stock.
On a busy machine ratios of processor time are the ones to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap
from aslseg.data.volume import Mask

BOX_MARGIN_PX = 5
WINDOW_HU = (-100.0, 250.0)
"""Of stock use: a common one for the liver."""
COMMAND = "from aslseg.cli.main import main; main()"


@dataclass(frozen=True)
class Timed:
    """A way to segment: seconds by the clock and of processor, and its organ, (D, H, W)."""

    name: str
    clock_s: float
    cpu_s: float
    organ: Mask


def main() -> None:
    arguments = parse()
    if arguments.part:
        {"stock": stock, "session": session}[arguments.part](arguments)
        return
    truth = truth_of(arguments)
    with TemporaryDirectory(prefix="aslseg-speed-") as folder:
        work = Path(folder)
        project = copied(arguments.project, work / "project")
        found = [in_process("stock", arguments, project, work)[0]]
        found.append(by_command("nothing on disk", arguments, project, work))
        delete_predictions(project)
        found.append(by_command("embeddings on disk", arguments, project, work))
        found.append(by_command("prediction on disk", arguments, project, work))
        shutil.rmtree(project / "cache")
        found += in_process("session", arguments, project, work)
    show(found, truth, asked_slices(truth, arguments.every))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("truth", type=Path, help="label map with the organ")
    parser.add_argument("--run", help="name of the run; default: the latest")
    parser.add_argument("--organ-values", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--every", type=int, default=6, help="stock is asked for every n-th slice")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", choices=["stock", "session"], help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def truth_of(arguments: argparse.Namespace) -> Mask:
    labels = axial_labelmap(read_labelmap(arguments.truth)).labels
    return np.isin(labels, arguments.organ_values)


def asked_slices(truth: Mask, every: int) -> NDArray[np.int64]:
    return np.flatnonzero(truth.any(axis=(1, 2)))[::every]


def copied(project: Path, to: Path) -> Path:
    """Copy a project and its runs, without caches and what only training reads."""
    shutil.copytree(
        project,
        to,
        ignore=shutil.ignore_patterns("cache", "crossfit", "baseline", "predictions", "pseudo"),
    )
    facts = json.loads((to / "project.json").read_text(encoding="utf-8"))
    for case in facts["cases"]:
        case["image"] = str((project / case["image"]).resolve())
    (to / "project.json").write_text(json.dumps(facts), encoding="utf-8")
    return to


def in_process(part: str, arguments: argparse.Namespace, project: Path, work: Path) -> list[Timed]:
    """Run a part in a process of its own, which writes what it found."""
    out = work / part
    out.mkdir()
    words = [str(project), str(arguments.image), str(arguments.truth), "--part", part]
    words += ["--every", str(arguments.every), "--threads", str(arguments.threads)]
    words += ["--output", str(out), "--organ-values", *map(str, arguments.organ_values)]
    run = ["--run", arguments.run] if arguments.run else []
    subprocess.run([sys.executable, __file__, *words, *run], check=True, env=environment(arguments))
    facts = json.loads((out / "facts.json").read_text(encoding="utf-8"))
    return [
        Timed(one["name"], one["clock_s"], one["cpu_s"], np.load(out / f"{n}.npy"))
        for n, one in enumerate(facts)
    ]


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}


def by_command(name: str, arguments: argparse.Namespace, project: Path, work: Path) -> Timed:
    run = project if arguments.run is None else project / "runs" / arguments.run
    output = work / f"command-{name.replace(' ', '-')}"
    words = ["segment", str(run), str(arguments.image), "-o", str(output)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", COMMAND, *words], check=True, env=environment(arguments))
    clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (label_map,) = output.glob("*.nii.gz")
    organ = np.isin(axial_labelmap(read_labelmap(label_map)).labels, arguments.organ_values)
    return Timed(f"command line, {name}", clock, cpu, organ)


def delete_predictions(project: Path) -> None:
    for path in (project / "cache" / "embeddings").glob("*/*.npz"):
        path.unlink()


class Stopwatch:
    """Times steps, and keeps their organ masks for the parent process."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._facts: list[dict[str, Any]] = []

    def measure(self, name: str, step: Callable[[], Mask], *, scale: float = 1.0) -> None:
        clock, cpu = time.perf_counter(), time.process_time()
        organ = step()
        clock_s, cpu_s = time.perf_counter() - clock, time.process_time() - cpu
        np.save(self._output / f"{len(self._facts)}.npy", organ)
        self._facts.append({"name": name, "clock_s": clock_s * scale, "cpu_s": cpu_s * scale})
        (self._output / "facts.json").write_text(json.dumps(self._facts), encoding="utf-8")


def stock(arguments: argparse.Namespace) -> None:
    """Ask MobileSAM slice by slice as its page says."""
    import torch

    from aslseg.data.images import read_volume
    from aslseg.data.orientation import axial_volume
    from aslseg.networks.device import choose_device
    from aslseg.preprocessing.intensity import window
    from aslseg.prompts import box_around
    from aslseg.sam.model import build_sam
    from aslseg.sam.weights import get_weights

    torch.set_num_threads(arguments.threads)
    volume, truth = axial_volume(read_volume(arguments.image)), truth_of(arguments)
    slices = asked_slices(truth, arguments.every)
    sam = build_sam("vit_t", input_size=1024, checkpoint=get_weights("vit_t"))
    for parameter in sam.parameters():
        parameter.data = parameter.data.contiguous()  # as they are released
    try:
        import torchvision  # noqa: F401 - which stock use imports
    except RuntimeError:  # of another build than torch, it lacks operators that are not used here
        declared = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from segment_anything import SamPredictor

    predictor = SamPredictor(sam.to(choose_device().torch_device))
    pictures = (window(volume.voxels[slices], WINDOW_HU) * 255).astype(np.uint8)
    pictures = np.repeat(pictures[..., None], 3, axis=-1)
    boxes = [np.array(box_around(truth[k], BOX_MARGIN_PX).xyxy) for k in slices]
    predictor.set_image(pictures[0])

    def ask() -> Mask:
        organ = np.zeros(truth.shape, np.bool_)
        for k, picture, box in zip(slices, pictures, boxes, strict=True):
            predictor.set_image(picture)
            organ[k] = predictor.predict(box=box, multimask_output=False)[0][0]
        return organ

    scale = np.count_nonzero(truth.any(axis=(1, 2))) / len(slices)
    Stopwatch(arguments.output).measure("stock MobileSAM", ask, scale=float(scale))


def session(arguments: argparse.Namespace) -> None:
    """Segment in a session, as the engine does."""
    import torch

    from aslseg.data.images import read_volume
    from aslseg.inference.interactive.session import Session, models_of_ensemble
    from aslseg.inference.loading import load_ensemble
    from aslseg.inference.prediction_cache import open_predictions
    from aslseg.networks.device import tune_allocator
    from aslseg.project.run_folder import open_run
    from aslseg.prompts import BoxPrompt

    torch.set_num_threads(arguments.threads)
    tune_allocator()
    project, values = arguments.project, arguments.organ_values
    run = open_run(project, arguments.run)
    ensemble = load_ensemble(run)
    models = models_of_ensemble(ensemble, project / "cache" / "embeddings", open_predictions(run))
    volume, watch = read_volume(arguments.image), Stopwatch(arguments.output)
    opened: list[Session] = []

    def first() -> Mask:
        opened.append(Session(volume, models))
        return np.isin(axial_labelmap(opened[-1].predict().refined).labels, values)

    def edited() -> Mask:
        *_, middle = (p for p in opened[-1].proposed if p.slice_index <= volume_middle)
        left, top, right, bottom = middle.box.xyxy  # moved: the same box would change nothing
        moved = replace(middle, box=BoxPrompt((left + 2, top, right, bottom)))
        found = opened[-1].refine([moved])
        return np.isin(axial_labelmap(found.refined).labels, values)

    watch.measure("session, nothing on disk", first)
    del opened[:]
    delete_predictions(project)
    watch.measure("session, embeddings on disk", first)
    watch.measure("session, prediction on disk", first)
    indices = [p.slice_index for p in opened[-1].proposed]
    volume_middle = int(np.median(indices))
    watch.measure("session, edited prompt", edited)


def dice_of(found: Mask, truth: Mask) -> float:
    together = np.count_nonzero(found) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(found & truth) / together


def show(found: list[Timed], truth: Mask, slices: NDArray[np.int64]) -> None:
    stock_row = found[0]
    print(f"{os.cpu_count()} cores; {len(slices)} slices asked of stock", flush=True)
    print("| way | clock s | processor s | Dice, asked slices | Dice, volume | clock x | cpu x |")
    print("|---|---|---|---|---|---|---|")
    for one in found:
        asked = dice_of(one.organ[slices], truth[slices])
        whole = "" if one is stock_row else f"{dice_of(one.organ, truth):.4f}"
        print(
            f"| {one.name} | {one.clock_s:.1f} | {one.cpu_s:.1f} | {asked:.4f} | {whole} "
            f"| {stock_row.clock_s / one.clock_s:.1f} | {stock_row.cpu_s / one.cpu_s:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
