"""Measure decisions about lesions of a volume of 512 x 512 x 200 in the panel.

    python Testing/panel/measure_lesions.py [FOLDER]

A made-up project with a finished run of twelve lesions is made in FOLDER. Printed: seconds until
the lesions of the case are listed, and the processor time of each decision, from the click until
the next lesion is shown and all sections are up to date.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "Logic")]

import numpy as np  # noqa: E402
from measuring import say, write_run  # noqa: E402

from aslseg.data.images import write_labelmap, write_volume  # noqa: E402
from aslseg.data.volume import Geometry, Labelmap, Volume  # noqa: E402
from aslseg.project.case import CaseFiles  # noqa: E402
from aslseg.project.create import create_project  # noqa: E402

SHAPE, LESIONS = (200, 512, 512), 12
GRID = Geometry.axis_aligned(SHAPE, (1.5, 0.8, 0.8))


def main() -> None:
    """Decide about all lesions, one accepted and one deleted in turn."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    if not (folder / "project").exists():
        make_project(folder)
    from standin.core import start

    start()
    from harness import close_module, open_module

    from standin.harness import wait_until

    widget = open_module()
    logic, ui = widget.logic, widget.panel.ui
    ui.reviewSection.collapsed = False
    logic.open_project(folder / "project")
    began = time.monotonic()
    widget.panel.case_chosen.emit("a")
    wait_until(lambda: logic.lesion_review is not None, 600.0, "lesions are listed")
    say(listed_s=time.monotonic() - began, lesions=len(logic.lesion_review.rows))
    seconds: dict[str, list[float]] = {"accept": [], "delete": []}
    for number in range(LESIONS):
        what = ("accept", "delete")[number % 2]
        button = ui.lesionAcceptButton if what == "accept" else ui.lesionDeleteButton
        seconds[what].append(time_of(button))
    say(**{f"{what}_s": values for what, values in seconds.items()})
    say(undo_s=[time_of(ui.undoButton) for _ in range(2)])
    close_module()


def time_of(button: Any) -> float:
    """Return the seconds of processor time from a click until everything is shown."""
    import slicer

    began = time.process_time()
    button.click()
    for _ in range(3):
        slicer.app.processEvents()
    slicer.util.forceRenderAllViews()
    return time.process_time() - began


def make_project(folder: Path) -> None:
    """Make a project of one case with a run that found lesions in a large liver."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(40.0, 15.0, (SHAPE[0], 128, 128)).astype(np.int16)
    write_volume(Volume(coarse.repeat(4, 1).repeat(4, 2), GRID), folder / "a.nii.gz")
    labels = np.zeros(SHAPE, np.uint8)
    labels[40:150, 100:330, 90:320] = 1
    for n in range(LESIONS):
        k, j, i = 45 + 8 * n, 110 + 15 * n, 100 + (37 * n) % 180
        labels[k : k + 6, j : j + 14, i : i + 14] = 2
    write_labelmap(Labelmap(labels, GRID), folder / "labels.nii.gz")
    project = create_project(folder / "project", [CaseFiles("a", folder / "a.nii.gz")])
    write_run(project, folder / "labels.nii.gz", {"a": 0.5})


if __name__ == "__main__":
    main()
