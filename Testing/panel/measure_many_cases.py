"""Measure how the panel takes a project of 1,000 cases.

    python Testing/panel/measure_many_cases.py FOLDER [--cases 1000] [--profile ACT]

A made-up project is written to FOLDER, once: tiny volumes, a fortieth of them labelled, and a
finished run with predictions of all others; equal files are links to one. Printed, one JSON object
an act: seconds by the clock and of processor time from the click until everything is shown, the
longest block of the event loop, and how many files were opened, listed and looked up meanwhile.
With `--profile` the calls of one act are printed by the time that they took.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

GRID = Geometry.axis_aligned((8, 24, 24), (5.0, 2.0, 2.0))
LABELLED_EVERY = 40


class FileCalls:
    """How many files this process opens, lists and looks up, in all threads."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        sys.addaudithook(self._heard)
        look_up = os.stat

        def counted(*args: Any, **kwargs: Any) -> os.stat_result:
            self.count["looked up"] += 1
            return look_up(*args, **kwargs)

        os.stat = counted  # it raises no event

    def _heard(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if event == "open":
            self.count["opened"] += 1
        elif event in ("os.listdir", "os.scandir"):
            self.count["listed"] += 1


def make_project(folder: Path, count: int) -> float:
    """Write the project and its run; return the seconds that making the project took."""
    rng = np.random.default_rng(0)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[2:7, 4:20, 4:20] = 1
    labels[3:5, 8:12, 8:12] = labels[5:6, 14:17, 14:17] = 2
    write_labelmap(Labelmap(labels, GRID), folder / "labels.nii.gz")
    files = []
    for number in range(count):
        voxels = rng.normal(40.0, 15.0, GRID.shape).astype(np.int16)
        path = folder / "ct" / f"patient-{number:04d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(Volume(voxels + 60 * (labels > 0), GRID), path)
        label = folder / "labels.nii.gz" if number % LABELLED_EVERY == 0 else None
        files.append(CaseFiles(path.name.split(".")[0], path, label))
    began = time.monotonic()
    project = create_project(folder / "project", files)
    seconds = time.monotonic() - began
    unlabelled = [file.id for file in files if file.label is None]
    scores = {case_id: 0.3 + 0.6 * n / count for n, case_id in enumerate(unlabelled)}
    write_run(project, folder / "labels.nii.gz", scores)
    return seconds


class ManyCases:
    """A person in front of a panel with many cases.

    Args:
        widget: Of the module.
        folder: Of the project.
        profiled: The act whose calls are printed, or nothing.
    """

    def __init__(self, widget: Any, folder: Path, profiled: str) -> None:
        self.widget, self.logic, self.ui = widget, widget.logic, widget.panel.ui
        self.folder, self.profiled, self.calls = folder, profiled, FileCalls()

    def do(self) -> None:
        """Do each act of a daily job once or twice."""
        ui = self.ui
        for name in ("cases", "train", "review", "results"):
            getattr(ui, f"{name}Section").collapsed = False
        self.rest()
        with self.act("open the project"):
            self.logic.open_project(self.folder)
        for row in (3, 500 % ui.casesTable.rowCount):
            with self.act("choose a case"):
                ui.casesTable.selectRow(row)
        for _ in range(3):
            with self.act("next case"):
                before = self.shown
                ui.nextButton.click()
                self.until(lambda: self.shown not in ("", before))  # noqa: B023
        for name, button in (
            ("accept a lesion", ui.lesionAcceptButton),
            ("delete a lesion", ui.lesionDeleteButton),
            ("undo", ui.undoButton),
            ("accept a case", ui.acceptButton),
            ("undo", ui.undoButton),
            ("reject a case", ui.rejectButton),
        ):
            with self.act(name):
                button.click()
        with self.act("open the overview"):
            ui.overviewButton.click()
        with self.act("reject a case, overview open"):
            ui.nextButton.click()
            self.rest()
            ui.rejectButton.click()

    @property
    def shown(self) -> str:
        """The case whose lesions are listed."""
        review = self.logic.lesion_review
        return "" if review is None else review.case_id

    def rest(self) -> None:
        """Wait until files are read and shown."""
        import slicer

        from standin.harness import run_event_loop

        run_event_loop(0.05)
        self.until(lambda: not self.logic.background.is_busy)
        slicer.util.forceRenderAllViews()

    @staticmethod
    def until(condition: Callable[[], Any]) -> None:
        """Wait for something."""
        from standin.harness import wait_until

        wait_until(condition, 120.0)

    @contextmanager
    def act(self, name: str) -> Iterator[None]:
        """Measure an act, until all is shown."""
        from standin.harness import measured_event_loop

        profile = cProfile.Profile()
        before, clock, own = Counter(self.calls.count), time.monotonic(), time.process_time()
        with measured_event_loop() as blocks:
            if name == self.profiled:
                profile.enable()
            yield
            self.rest()
            profile.disable()
        seconds, cpu_s = time.monotonic() - clock, time.process_time() - own
        facts = {"act": name, "seconds": seconds, "cpu_s": cpu_s, "block_ms": blocks.longest_ms}
        say(**facts, **(self.calls.count - before))
        if name == self.profiled:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


def main() -> None:
    """Make the project, and do what a person does with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--profile", default="")
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    if not (folder / "project").exists():
        say(made_s=make_project(folder, chosen.cases))
    from standin.core import start

    start()
    from harness import close_module, open_module

    ManyCases(open_module(), folder / "project", chosen.profile).do()
    close_module()


if __name__ == "__main__":
    main()
