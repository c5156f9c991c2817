"""Do the whole daily job by the panel's own buttons and keys, and count clicks and seconds.

    python Testing/panel/measure_daily_job.py FOLDER [--lits DATA]

From an empty scene to exported labels of eight volumes in FOLDER: a new project by the dialog, with
liver masks for all volumes and label maps of two; a training; all cases reviewed lesion by lesion
by keys, with missed lesions grown from a box drawn with the mouse; a training on the decisions; the
export. Without `--lits` the patients are made up and tiny. The person in front of the panel knows
the truth: a lesion is accepted if a third of it is tumour, else deleted, and the largest missed
lesions of a case are added.

Printed, one JSON object a line: what each step and each kind of act took by the clock, in the
panel's process and in its engines; clicks, keys, typed fields and slices turned; the longest block
of the event loop; memory of the panel's process. With a project that is in FOLDER already, it goes
on from the review.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "Logic")]

import numpy as np  # noqa: E402
from measuring import memory_mb, say  # noqa: E402
from scipy import ndimage  # noqa: E402

from aslseg.data.images import read_labelmap, write_labelmap, write_volume  # noqa: E402
from aslseg.data.volume import Geometry, Labelmap, Mask  # noqa: E402

LIVER, TUMOUR = 1, 2
LITS = (4, 9, 3, 14, 22, 29, 33, 37)
LABELLED = 2
"""So many of the volumes have a label map, the first ones."""
RIGHT_SHARE = 1 / 3
"""Part of a lesion that has to be tumour for the person to accept it."""
ADDED_ML, ADDED_LESIONS = 0.5, 2
"""Smallest missed lesion that the person adds, and how many of a case."""
LONG_S = 3600.0


@dataclass
class Data:
    """Where the volumes of a daily job lie.

    Attributes:
        volumes: Folder of all volumes.
        labels: Folder of the label maps that there are.
        livers: Folder with the liver mask of each volume.
        truth: Label map of each case, which the person knows by heart.
    """

    volumes: Path
    labels: Path
    livers: Path
    truth: dict[str, Path] = field(default_factory=dict)


def made_up(folder: Path, count: int = len(LITS)) -> Data:
    """Write tiny patients."""
    from support.tiny_project import a_patient

    data = _folders(folder)
    for number in range(count):
        volume, labels = a_patient(number)
        _add(data, f"volume-{number}", labels, is_labelled=number < LABELLED)
        write_volume(volume, data.volumes / f"volume-{number}.nii.gz")
    return data


def of_lits(folder: Path, source: Path) -> Data:
    """Lay out eight volumes of LiTS."""
    data = _folders(folder)
    for place, number in enumerate(LITS):
        labels = read_labelmap(source / f"segmentation-{number}.nii.gz")
        _add(data, f"volume-{number}", labels, is_labelled=place < LABELLED)
        name = f"volume-{number}.nii.gz"
        (data.volumes / name).write_bytes((source / name).read_bytes())
    return data


def found_in(folder: Path) -> Data:
    """Return what was laid out before."""
    data = _data_of(folder)
    data.truth = {path.name.split(".")[0]: path for path in (folder / "truth").iterdir()}
    return data


def _data_of(folder: Path) -> Data:
    return Data(*(folder / name for name in ("volumes", "labels", "livers")))


def _folders(folder: Path) -> Data:
    data = _data_of(folder)
    for path in (data.volumes, data.labels, data.livers, folder / "truth"):
        path.mkdir(parents=True)
    return data


def _add(data: Data, name: str, labels: Labelmap, *, is_labelled: bool) -> None:
    liver = Labelmap((labels.labels > 0).astype(np.uint8), labels.geometry)
    write_labelmap(liver, data.livers / f"{name}.nii.gz")
    data.truth[name] = data.volumes.parent / "truth" / f"{name}.nii.gz"
    write_labelmap(labels, data.truth[name])
    if is_labelled:
        write_labelmap(labels, data.labels / f"{name}.nii.gz")


class Hands:
    """What a person does with mouse and keyboard, counted."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def click(self, button: Any) -> None:
        """Click a button, which has to be enabled and visible."""
        from standin.harness import click

        self.count["clicks"] += 1
        click(button)

    def type(self, edit: Any, text: Path) -> None:
        """Type a path, or choose it with the button beside the field."""
        self.count["fields"] += 1
        edit.currentPath = str(text)

    def unfold(self, section: Any) -> None:
        """Click the head of a section that is folded."""
        if section.collapsed:
            self.count["clicks"] += 1
            section.collapsed = False

    def key(self, sequence: str) -> None:
        """Press a key in the main window, as Qt delivers it to shortcuts."""
        import slicer
        from PySide6 import QtGui, QtTest, QtWidgets

        from standin.harness import run_event_loop

        self.count["keys"] += 1
        window = slicer.util.mainWindow()  # the panel is a window of its own in the stand-in
        if QtWidgets.QApplication.activeWindow() is not window:
            window.activateWindow()
            QtTest.QTest.qWaitForWindowActive(window, 1000)
            run_event_loop(0.1)  # the first key after a dialog would be lost
        combination = QtGui.QKeySequence(sequence)[0]
        QtTest.QTest.keyClick(window, combination.key(), combination.keyboardModifiers())

    def turn_to(self, position_ras: np.ndarray) -> None:
        """Turn the slice views to a place."""
        import slicer

        self.count["slices turned"] += 1
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            node.JumpSliceByCentering(*position_ras.tolist())

    def draw_box(self, corners_ras: np.ndarray) -> None:
        """Click two corners in the axial view."""
        import slicer

        from ASLsegLib.scene.volumes import as_array

        view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
        to_xy = np.linalg.inv(as_array(view.mrmlSliceNode().GetXYToRAS()))
        for corner in corners_ras:
            self.count["clicks"] += 1
            x, y = (to_xy @ [*corner, 1.0])[:2]
            view.standin_click(round(float(x)), round(float(y)))
        slicer.app.processEvents()


def missed_lesions(truth: Labelmap, rows: Sequence[Any]) -> Iterator[Mask]:
    """Yield the lesions of the truth that no lesion of a review touches, the largest first."""
    parts, _count = ndimage.label(truth.labels == TUMOUR)
    sizes_ml = np.bincount(parts.ravel())[1:] * float(np.prod(truth.geometry.spacing_mm)) / 1000
    shown = [one.voxels for one in rows if one.shown]
    for number in np.argsort(-sizes_ml):
        lesion = parts == number + 1
        is_shown = any(share_of(voxels, lesion) > 0 for voxels in shown)
        if sizes_ml[number] >= ADDED_ML and not is_shown:
            yield lesion


def share_of(voxels: Any, mask: Mask) -> float:
    """Return which part of a lesion's voxels a mask holds."""
    return float(mask[voxels.box.slices][voxels.mask].mean())


def box_around(lesion: Mask, geometry: Geometry) -> np.ndarray:
    """Return two corners (2, 3) in RAS, in mm, of a box around a lesion on its largest slice."""
    k = int(lesion.sum((1, 2)).argmax())
    rows, columns = (np.flatnonzero(lesion[k].any(axis)) for axis in (1, 0))
    corners = np.array(
        [[columns[0] - 1, rows[0] - 1, k, 1], [columns[-1] + 1, rows[-1] + 1, k, 1]], float
    )
    return np.asarray((corners @ geometry.ijk_to_ras.T)[:, :3])


@dataclass(frozen=True)
class Act:
    """What an act took.

    Attributes:
        seconds: By the clock.
        panel_cpu_s: Of processors, in the panel's process.
        engines_cpu_s: The same in its engines.
        block_ms: Longest block of the event loop; without the time that other programs had.
        busy_ms: Longest time between two ticks that the panel's thread computed itself.
    """

    seconds: float
    panel_cpu_s: float
    engines_cpu_s: float
    block_ms: float
    busy_ms: float


class DailyJob:
    """The job, step by step.

    Attributes:
        facts: What was measured, in order.
        acts: What single acts took, such as `accept` and `grow`, by their names.
    """

    def __init__(self, widget: Any, data: Data, project: Path) -> None:
        self.widget, self.logic, self.ui = widget, widget.logic, widget.panel.ui
        self.panel, self.data, self.project = widget.panel, data, project
        self.hands = Hands()
        self.facts: list[dict[str, Any]] = []
        self.acts: dict[str, list[Act]] = {}

    def do(self) -> None:
        """Do all of it."""
        with self.step("new project"):
            self.make_project()
        with self.step("train"):
            self.train()
        self._finish()

    def go_on(self) -> None:
        """Go on with the review of a project that was made and trained before."""
        self.logic.open_project(self.project)
        self.rest()
        self._finish()

    def _finish(self) -> None:
        with self.step("review"):
            self.review()
        self.say_acts()
        with self.step("train on"):
            self.train_on()
        with self.step("export"):
            self.export()

    # -- steps ---------------------------------------------------------------------------------

    def make_project(self) -> None:
        """Plan the project in the dialog, and make it."""
        self.hands.unfold(self.ui.casesSection)
        self.hands.click(self.ui.newProjectButton)
        dialog = next(
            one for one in self.panel.sections if type(one).__name__ == "NewProjectDialog"
        )
        ui = dialog.ui
        self.hands.type(ui.folderEdit, self.project)
        self.hands.type(ui.volumesEdit, self.data.volumes)
        self.hands.type(ui.labelsEdit, self.data.labels)
        self.hands.click(ui.findButton)
        self.rest()
        self.hands.type(ui.masksEdit, self.data.livers)
        self.hands.click(ui.masksButton)
        self.rest()
        self.say(planned=ui.summaryLabel.text)
        self.hands.click(ui.createButton)
        self.rest()

    def train(self) -> None:
        """Train one round."""
        self.hands.unfold(self.ui.trainSection)
        self.ui.roundsBox.setValue(1)
        self.hands.count["fields"] += 1
        self.hands.click(self.ui.startButton)
        self.wait_for(self.logic.trainer)
        self.say(run=self.logic.usable_run(), said=self.ui.trainingLabel.text)

    def review(self) -> None:
        """Decide about all lesions of all cases that the run asks about."""
        self.hands.unfold(self.ui.reviewSection)
        count, done = sum(one.decided_at == "" for one in self.logic.review_queue()), [""]
        self.hands.click(self.ui.nextButton)
        while len(done) <= count:
            with self.act("next case"):
                case_id = self.wait_for_lesions(done)
            self.say(case=case_id, **self.review_case(case_id))
            done.append(case_id)
            if len(done) <= count:
                self.hands.key("N")

    def review_case(self, case_id: str) -> dict[str, Any]:
        """Decide about all lesions of a case, add what was missed, and say that it is done."""
        truth = read_labelmap(self.data.truth[case_id])
        tumour = truth.labels == TUMOUR
        review = self.logic.lesion_review
        found = len(review.undecided)
        while review.undecided:
            row = self.panel_row()
            voxels = review.rows[row].voxels
            is_right = share_of(voxels, tumour) >= RIGHT_SHARE
            self.decide("accept" if is_right else "delete")
        missed = islice(missed_lesions(truth, review.rows), ADDED_LESIONS)
        added = sum(self.add(truth, lesion) for lesion in missed)
        with self.act("no more here"):
            self.hands.key("F")
            self.rest()
        state = {one.case_id: one.state for one in self.logic.case_reports()}[case_id]
        return {"lesions": found, "added": added, "state": state, "memory_mb": memory_mb()}

    def train_on(self) -> None:
        """Let the run learn from the decisions."""
        self.hands.click(self.ui.trainOnButton)
        self.wait_for(self.logic.trainer)
        self.say(said=self.ui.trainingLabel.text, changes=self.ui.changesTable.rowCount)

    def export(self) -> None:
        """Take the final labels home as NIfTI."""
        self.hands.unfold(self.ui.resultsSection)
        self.hands.type(self.ui.exportFolderEdit, self.project.parent / "exported")
        self.hands.click(self.ui.exportCasesButton)
        self.wait_for(self.logic.batch)
        self.say(said=self.ui.batchLabel.text)

    # -- acts ----------------------------------------------------------------------------------

    def decide(self, what: str) -> None:
        """Press the key of a decision, and wait until the next lesion is shown."""
        import slicer

        left = len(self.logic.lesion_review.undecided)
        with self.act(what):
            self.hands.key({"accept": "A", "delete": "Del"}[what])
            for _ in range(3):
                slicer.app.processEvents()
            slicer.util.forceRenderAllViews()
        if len(self.logic.lesion_review.undecided) != left - 1:
            msg = f"{what} decided nothing: {dialogs_seen()}"
            raise AssertionError(msg)

    def add(self, truth: Labelmap, lesion: Mask) -> bool:
        """Add a missed lesion from a box on its largest slice; tell whether it has grown."""
        from standin.harness import wait_until

        corners_ras = box_around(lesion, truth.geometry)
        self.hands.key("E")
        self.hands.turn_to(corners_ras.mean(0))
        grown = len(self.logic.growths)
        with self.act("grow"):
            self.hands.draw_box(corners_ras)
            wait_until(lambda: len(self.logic.growths) > grown, 120.0, "a lesion grows")
            wait_until(lambda: not self.logic.engine.is_busy, 600.0, "it has grown")
        is_there = self.logic.growths[-1].facts.first_slice is not None
        with self.act("accept a grown one"):
            self.hands.key("A" if is_there else "Esc")
            self.rest()
        return is_there

    def panel_row(self) -> int:
        """Return the lesion that the panel shows."""
        table = self.ui.lesionTable
        return int(table.item(table.currentRow(), 0).text()) - 1

    # -- waiting and measuring -----------------------------------------------------------------

    def rest(self) -> None:
        """Wait until files are read and shown."""
        from standin.harness import run_event_loop, wait_until

        wait_until(lambda: not self.logic.background.is_busy, LONG_S, "files are read")
        run_event_loop(0.1)

    def wait_for(self, client: Any) -> None:
        """Wait until an engine is done."""
        from standin.harness import run_event_loop, wait_until

        wait_until(lambda: client.is_busy, 60.0, "it begins")
        wait_until(lambda: not client.is_busy, LONG_S, "it is done")
        run_event_loop(0.2)

    def wait_for_lesions(self, done: list[str]) -> str:
        """Wait until the lesions of another case than those that are done are listed."""
        from ASLsegLib.scene.case_nodes import case_of
        from standin.harness import wait_until

        def listed() -> str:
            review, case_id = (
                self.logic.lesion_review,
                case_of(self.panel.volume, self.logic.project),
            )
            is_listed = review is not None and review.case_id == case_id and case_id not in done
            return case_id if is_listed else ""

        case_id = wait_until(listed, 600.0, "lesions are listed")
        self.rest()
        return str(case_id)

    @contextmanager
    def act(self, name: str) -> Iterator[None]:
        """Measure a single act, until its end is shown."""
        from standin.harness import measured_event_loop

        began = _clocks()
        with measured_event_loop() as blocks:
            yield
        clock, own, children = (now - then for now, then in zip(_clocks(), began, strict=True))
        took = Act(clock, own, children, blocks.longest_ms, blocks.longest_busy_ms)
        self.acts.setdefault(name, []).append(took)

    def say_acts(self) -> None:
        """Print the median and the worst of each kind of act."""
        for name, acts in self.acts.items():
            values = {
                field.name: [getattr(act, field.name) for act in acts] for field in fields(Act)
            }
            median = {name: float(np.median(each)) for name, each in values.items()}
            worst = {name: max(each) for name, each in values.items()}
            self.say(act=name, times=len(acts), median=median, worst=worst)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step."""
        from standin.dialogs import dialogs
        from standin.harness import measured_event_loop

        before, clock, own, engines = Counter(self.hands.count), *_clocks()
        with measured_event_loop() as blocks:
            yield
        now = _clocks()
        errors = [message.text for message in dialogs.errors()]
        self.say(
            step=name,
            seconds=now[0] - clock,
            panel_cpu_s=now[1] - own,
            engines_cpu_s=now[2] - engines,
            longest_block_ms=blocks.longest_ms,
            longest_busy_ms=blocks.longest_busy_ms,
            memory_mb=memory_mb(),
            **(self.hands.count - before),
            **({"errors": errors} if errors else {}),
        )

    def say(self, **facts: Any) -> None:
        """Note facts, and print them as a line of JSON."""
        self.facts.append(facts)
        say(**facts)


def _clocks() -> tuple[float, float, float]:
    """Return the seconds of clock, of this process's processors, and of its children's."""
    import psutil

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = [one.cpu_times() for one in psutil.Process().children(recursive=True)]
    children = ended.ru_utime + ended.ru_stime + sum(one.user + one.system for one in running)
    return time.monotonic(), time.process_time(), children


def cut_schedule(changes: dict[str, Any]) -> None:
    """Let the panel train with other settings, besides those that its fields say."""
    parameters = sys.modules["ASLsegLib.parameters"]
    chosen_in_panel = parameters.settings_changes

    def cut(chosen: Any) -> dict[str, Any]:
        base = chosen_in_panel(chosen)
        return {
            **base,
            **{
                name: {**base.get(name, {}), **value} if isinstance(value, dict) else value
                for name, value in changes.items()
            },
        }

    parameters.settings_changes = cut


def tiny_schedule(sam: str) -> dict[str, Any]:
    """Return settings that learn made-up patients within seconds."""
    from trained import overrides_of, small_settings

    return overrides_of(small_settings(sam, iterations=60))


LITS_SCHEDULE: dict[str, Any] = {
    "crossfit_share": 0.0,
    "lesion": {"iterations": 300},
    "sam": {"iterations": 8, "versions": 1, "input_size": 512},
    "adaptation": {"iterations": 20, "versions": 1},
}
"""So short a training says nothing about quality: it is what fits into minutes of one core."""


def dialogs_seen() -> list[str]:
    """Return the messages that were shown instead of being answered by a person."""
    from standin.dialogs import dialogs

    return [message.text for message in dialogs.errors()]


def show_views(shape: tuple[int, int] = (700, 700)) -> None:
    """Show the main window, which gets the keys, and the slice views, in which boxes are drawn."""
    import slicer

    slicer.util.mainWindow().show()
    views = slicer.app.layoutManager()
    views.resize(*shape)
    views.show()
    slicer.app.processEvents()


def main() -> None:
    """Do the job, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lits", type=Path)
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    is_begun = (folder / "project").exists()
    if is_begun:
        data = found_in(folder)
    else:
        data = of_lits(folder, chosen.lits) if chosen.lits else made_up(folder)
    from standin.core import start

    start()
    from harness import close_module, open_module

    widget = open_module()
    show_views()
    cut_schedule(LITS_SCHEDULE if chosen.lits else tiny_schedule("vit_t"))
    job = DailyJob(widget, data, folder / "project")
    job.go_on() if is_begun else job.do()
    close_module()


if __name__ == "__main__":
    main()
