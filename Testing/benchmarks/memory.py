"""How much memory does a training, or a volume, take? For Docs/studies/performance.md.

    python Testing/benchmarks/memory.py training FOLDER --cases 10
    python Testing/benchmarks/memory.py scan IMAGE LONG.nii.gz
    python Testing/benchmarks/memory.py volume RUN IMAGE FOLDER [--organ liver=MASK]

`training` makes patients of 24 x 96 x 96 voxels, half of them labelled, and trains the tiny
settings of the tests on them, without SAM. `scan` writes a scan of 1000 slices: those of an image,
each three times, between slices of air. `volume` is `aslseg segment`. All print the peak of the
resident memory of the process in GiB, and its processor seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

SHAPE = (24, 96, 96)
DEPTH, REPEATED = 1000, 3


def train(folder: Path, count: int) -> None:
    from aslseg.data.images import write_labelmap, write_volume
    from aslseg.data.volume import Geometry, Labelmap, Volume
    from aslseg.networks.device import tune_allocator
    from aslseg.project.case import CaseFiles
    from aslseg.project.create import create_project, select_cases
    from aslseg.runs import start_run
    from support.tiny_project import tiny_config

    tune_allocator()
    geometry, files = Geometry.axis_aligned(SHAPE, (4.0, 2.0, 2.0)), []
    k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    for n in range(count):
        rng = np.random.default_rng(n)
        liver = ((k - 12) / 8) ** 2 + ((j - 48) / 30) ** 2 + ((i - 48) / 28) ** 2 < 1
        tumour = ((k - 12) / 2) ** 2 + ((j - 40 - n % 9) / 5) ** 2 + ((i - 50) / 5) ** 2 < 1
        voxels = rng.normal(-60.0, 10.0, SHAPE) + 160.0 * liver - 90.0 * tumour
        image, truth = (folder / "data" / f"{name}{n}.nii.gz" for name in ("ct", "truth"))
        image.parent.mkdir(parents=True, exist_ok=True)
        write_volume(Volume(voxels.astype(np.int16), geometry), image)
        labels = liver.astype(np.uint8) + tumour.astype(np.uint8)
        write_labelmap(Labelmap(labels, geometry), truth)
        files.append(CaseFiles(f"c{n}", image, truth))
    labelled = tuple(f"c{n}" for n in range(0, count, 2))
    chosen = select_cases(files, labelled=labelled, validation=(), test=())
    start_run(create_project(folder / "project", chosen), tiny_config(rounds=1))


def lengthen(image: Path, output: Path) -> None:
    from aslseg.data.images import read_volume, write_volume
    from aslseg.data.volume import Geometry, Volume

    volume = read_volume(image)
    body = np.repeat(volume.voxels, REPEATED, axis=0)
    voxels = np.full((DEPTH, *body.shape[1:]), -1000, body.dtype)
    first = (DEPTH - len(body)) // 2
    voxels[first : first + len(body)] = body
    affine = volume.geometry.ijk_to_ras.copy()
    affine[:3, 2] /= REPEATED
    write_volume(Volume(voxels, Geometry((DEPTH, *body.shape[1:]), affine)), output)


def segment(run: Path, image: Path, folder: Path, organs: list[str]) -> None:
    from aslseg.cli.main import app

    given = [word for organ in organs for word in ("--organ", organ)]
    app(["segment", str(run), str(image), "-o", str(folder), *given], standalone_mode=False)


def peak_gib() -> float:
    """Return the largest resident memory that this process has had."""
    memory = psutil.Process().memory_info()
    if sys.platform == "win32":
        return float(memory.peak_wset) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    training = what.add_parser("training")
    training.add_argument("folder", type=Path)
    training.add_argument("--cases", type=int, default=10)
    scan = what.add_parser("scan")
    for name in ("image", "output"):
        scan.add_argument(name, type=Path)
    volume = what.add_parser("volume")
    for name in ("run", "image", "folder"):
        volume.add_argument(name, type=Path)
    volume.add_argument("--organ", action="append", default=[], help="as of `aslseg segment`")
    options = parser.parse_args()
    if options.what == "training":
        train(options.folder, options.cases)
    elif options.what == "scan":
        lengthen(options.image, options.output)
    else:
        segment(options.run, options.image, options.folder, options.organ)
    print(f"peak {peak_gib():.2f} GiB, {time.process_time():.0f} s of processor")


if __name__ == "__main__":
    main()
