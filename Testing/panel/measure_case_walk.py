"""Walk through the review of forty cases of 512 x 512 x 300, and measure memory.

    python Testing/panel/measure_case_walk.py FOLDER [--cases 40] [--slices 300]

A made-up project with a finished run of eight lesions a case is written to FOLDER, once: one volume
in so many files. A person deletes the first lesion of each case and goes on by *Next*.
Printed, one JSON object a case: seconds from the click until its lesions are listed, by the clock
and of processor time; the longest block of the event loop since the click, and the longest time
that its thread computed; the memory of this process (RSS) once the next case is read ahead.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "Logic")]

import numpy as np  # noqa: E402
from measuring import memory_mb, say, write_run  # noqa: E402

from aslseg.data.images import write_labelmap, write_volume  # noqa: E402
from aslseg.data.volume import Geometry, Labelmap, Volume  # noqa: E402
from aslseg.project.case import CaseFiles  # noqa: E402
from aslseg.project.create import create_project  # noqa: E402

IN_PLANE, LESIONS = 512, 8


def make_project(folder: Path, cases: int, slices: int) -> None:
    """Write one volume, files of the same voxels for all cases, and a run that found lesions."""
    rng = np.random.default_rng(0)
    grid = Geometry.axis_aligned((slices, IN_PLANE, IN_PLANE), (1.0, 0.8, 0.8))
    coarse = rng.normal(40.0, 15.0, (slices, 64, 64)).astype(np.int16)
    labels = np.zeros(grid.shape, np.uint8)
    labels[slices // 5 : 4 * slices // 5, 100:330, 90:320] = 1
    for n in range(LESIONS):
        k, j, i = slices // 4 + n * slices // 20, 110 + 20 * n, 100 + (37 * n) % 180
        labels[k : k + 6, j : j + 14, i : i + 14] = 2
    first = folder / "patient-00.nii.gz"
    write_volume(Volume(coarse.repeat(8, 1).repeat(8, 2), grid), first)
    write_labelmap(Labelmap(labels, grid), folder / "labels.nii.gz")
    images = [folder / f"patient-{number:02d}.nii.gz" for number in range(cases)]
    for number, image in enumerate(images[1:]):  # a project takes no image twice
        image.write_bytes(first.read_bytes() + gzip.compress(b"", mtime=number))
    files = [CaseFiles(image.name.split(".")[0], image) for image in images]
    project = create_project(folder / "project", files)
    write_run(project, folder / "labels.nii.gz", {file.id: 0.5 for file in files})


def walk(widget: Any, project: Path) -> None:
    """Go through all cases, and print what each took."""
    from standin.harness import measured_event_loop, run_event_loop, wait_until

    logic, ui = widget.logic, widget.panel.ui
    for name in ("cases", "review"):
        getattr(ui, f"{name}Section").collapsed = False
    logic.open_project(project)
    run_event_loop(0.1)

    def shown() -> str:
        return "" if logic.lesion_review is None else logic.lesion_review.case_id

    for _ in range(ui.reviewTable.rowCount):
        before, clock, own = shown(), time.monotonic(), time.process_time()
        with measured_event_loop() as blocks:
            ui.nextButton.click()
            wait_until(lambda: shown() not in ("", before), 600.0, "lesions are listed")  # noqa: B023
            listed_s, listed_cpu_s = time.monotonic() - clock, time.process_time() - own
            wait_until(lambda: not logic.background.is_busy, 600.0, "files are read")
            ui.lesionDeleteButton.click()
            run_event_loop(0.1)
            wait_until(lambda: not logic._ahead.is_busy, 600.0, "the next case is read")
            run_event_loop(0.1)
        say(
            case=shown(),
            listed_s=round(listed_s, 2),
            listed_cpu_s=round(listed_cpu_s, 2),
            longest_block_ms=round(blocks.longest_ms),
            longest_busy_ms=round(blocks.longest_busy_ms),
            memory_mb=round(memory_mb()),
        )


def main() -> None:
    """Make the project, and walk through it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--slices", type=int, default=300)
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    if not (folder / "project").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_project(folder, chosen.cases, chosen.slices)
    from standin.core import start

    start()
    from harness import close_module, open_module

    walk(open_module(), folder / "project")
    close_module()


if __name__ == "__main__":
    main()
