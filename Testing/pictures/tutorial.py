"""Takes the pictures of Docs/tutorial.md: the panel beside the views, step by step, on phantoms.

    python Testing/pictures/tutorial.py Docs/screenshots [--project FOLDER]

A project of phantoms is made and trained on with the preset `demo`, as in the tutorial. FOLDER is a
project of phantoms with a finished run, which is copied, not changed: with one, the training is
stopped as soon as there is a picture of it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("Testing/panel", "Testing", "Logic")]

from standin import core  # noqa: E402  (has to come before Qt)

WORK_S, TRAINING_S = 600.0, 3600.0
ZOOM = 1.5
STEP_SLICES = 4
"""A person has repaired every fourth slice around the tumour."""
SHOWN_FOLDER = "/data/liver-study"
SECTIONS = ("cases", "train", "review", "results", "advanced")


class Tour:
    """A person who goes through the tutorial with a camera.

    Args:
        folder: Gets the pictures.
        place: Gets the projects that are made.
        project: Project of phantoms with a finished run, or None to train one.
    """

    def __init__(self, folder: Path, place: Path, project: Path | None) -> None:
        from harness import open_module

        self.folder, self.place = folder, place
        self.widget = open_module()
        self.ui, self.logic = self.widget.panel.ui, self.widget.logic
        self.project = project
        self._make_room()

    def take_all(self) -> None:
        """Take the pictures in the order of the tutorial."""
        self._begin()
        self._finish()
        volume = self._load(self._cases()[1])
        self._segment(volume)
        self._show_surfaces(volume)
        self._shoot("4-segment", "review", scroll_to=self.ui.segmentGroup)
        self._measure(volume)
        self._shoot("7-results", "results")
        self._shoot("catalogue", "review")
        self._correct()
        self._shoot("5-prompts", "review", scroll_to=self.ui.segmentGroup)
        self._tidy(volume)
        self._review()
        self._shoot("6-review", "review")

    def _begin(self) -> None:
        """Make a project, choose the settings, and start a training."""
        self.logic.create_phantom_project(self.place / "liver-study")
        self._show_surfaces(self._load(self._cases()[0]))
        self._shoot("1-project", "cases")
        self._fill_first_label()
        self._choose_preset()
        self._shoot("2-models", "train")
        self._start_training()
        self._shoot("3-training", "train", "four-up plot")

    def _finish(self) -> None:
        """Wait for the end of the training, or go on with the project that is given."""
        from standin.harness import click

        if self.project is not None:
            click(self.ui.stopButton)
        self._until(lambda: not self.logic.trainer.is_busy, TRAINING_S)
        if self.project is not None:
            self._open(self.project)

    def _make_room(self) -> None:
        """Give the views the size of the picture, so that slices are fitted to it."""
        import slicer

        from standin.pictures import WindowSize

        slicer.app.layoutManager().resize(
            WindowSize.width - WindowSize.panel, WindowSize.height - 80
        )

    def _open(self, folder: Path) -> None:
        from standin.harness import click

        self._show("cases")
        self.ui.projectFolderEdit.currentPath = str(folder)
        click(self.ui.openProjectButton)
        self._rest()

    def _cases(self) -> tuple[str, str]:
        """A labelled case, and an unlabelled one with a tumour that is easy to see."""
        cases = self.logic.project.cases
        labelled = next(case.id for case in cases if case.label is not None)
        return labelled, next(case.id for case in cases if case.label is None)

    def _load(self, case_id: str) -> Any:
        from standin.harness import click

        self._show("cases")
        table = self.ui.casesTable
        row = next(r for r in range(table.rowCount) if table.item(r, 0).text() == case_id)
        table.selectRow(row)
        click(self.ui.loadCaseButton)
        self._until(lambda: self.logic.case_node(case_id) is not None)
        self._rest()
        return self.logic.case_node(case_id)

    def _fill_first_label(self) -> None:
        """Draw the liver of a patient anew in every fourth slice, and let it be filled."""
        import numpy as np
        import slicer
        from harness import write_mask

        from standin.harness import choose_node, click

        case, volume = self._cases()[0], self.logic.case_node(self._cases()[0])
        liver = self.logic.project.load_labels(self.logic.project.case(case)).labels > 0
        slices = np.flatnonzero(liver.any(axis=(1, 2)))
        drawn = np.zeros_like(liver)
        for k in {*slices[::STEP_SLICES], slices[-1]}:
            drawn[k] = liver[k]
        click(self.ui.showRefinedBox)  # or what was there before lies on what is filled
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "my outlines")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        node.GetSegmentation().AddEmptySegment("liver", "liver")
        write_mask(node, "liver", drawn, volume)
        choose_node(self.ui.labelSegmentationSelector, node)
        self._rest()
        click(self.ui.fillLabelButton)
        self._rest()
        self._shoot("1-filling", "cases", scroll_to=self.ui.labelGroup)
        slicer.mrmlScene.RemoveNode(node)
        click(self.ui.showRefinedBox)

    def _choose_preset(self) -> None:
        from standin.harness import choose

        self._show("train")
        choose(self.ui.presetBox, "Demo")
        self._rest()

    def _segment(self, volume: Any) -> None:
        from standin.harness import choose_node, click

        self._show("review")
        choose_node(self.ui.inputVolumeSelector, volume)
        click(self.ui.segmentButton)
        self._rest()
        for box in (self.ui.showSpecialistBox, self.ui.showSamBox):
            if box.enabled and not box.checked:
                click(box)
        self._look_at_tumour(volume)

    def _correct(self) -> None:
        """Take the slice's prompts over, and let SAM answer them as they are."""
        from standin.harness import click

        self._show("review")
        click(self.ui.showSamBox)
        click(self.ui.editPromptsButton)
        self._rest()
        for _ in range(2):  # the first waits for SAM to be loaded
            self.ui.promptsStatusLabel.setText("")
            click(self.ui.refineButton)
            self._until(lambda: "Updated" in self.ui.promptsStatusLabel.text)
            self._rest()

    def _tidy(self, volume: Any) -> None:
        """Leave the refined label alone in the picture."""
        from harness import remove_prompts

        from standin.harness import click

        self._show("review")
        for box in (self.ui.showPromptsBox, self.ui.showSpecialistBox, self.ui.showSamBox):
            if box.enabled and box.checked:
                click(box)
        remove_prompts(volume)
        self._rest()

    def _review(self) -> None:
        from standin.harness import click

        self._show("review")
        click(self.ui.nextButton)
        self._rest()
        node = self.logic.case_node(
            self.ui.reviewTable.item(self.ui.reviewTable.currentRow(), 0).text()
        )
        self._look_at_tumour(node)
        k = self._tumour_ijk(node)[2]
        self.logic.name_slices(node, [k - STEP_SLICES, k, k + STEP_SLICES])
        self._show_surfaces(node)
        self._show("review")
        self._rest()
        self.ui.reviewTable.scrollToBottom()  # it was hidden when its row was chosen

    def _measure(self, volume: Any) -> None:
        """Measure, with the refined label and SAM's in the views."""
        from standin.harness import choose_node, click

        for box in (self.ui.showPromptsBox, self.ui.showSpecialistBox):
            click(box)
        self._show("results")
        choose_node(self.ui.resultSelector, self.logic.predictions(volume)["refined"])
        click(self.ui.measureButton)
        self._until(lambda: self.ui.lesionsTable.rowCount > 0)

    def _show_surfaces(self, volume: Any) -> None:
        """Show the refined label of a volume in the 3D view."""
        import slicer

        from standin.harness import choose_node, click

        self._show("results")
        choose_node(self.ui.resultSelector, self.logic.predictions(volume)["refined"])
        self._rest()
        if not self.ui.show3dButton.checked:
            click(self.ui.show3dButton)
        self._rest()
        view = slicer.app.layoutManager().threeDWidget(0).threeDView()
        view.mrmlViewNode().SetBoxVisible(False)
        view.mrmlViewNode().SetAxisLabelsVisible(False)
        view.resetFocalPoint()
        view.resetCamera()

    def _start_training(self) -> None:
        """Start a training, and look at it when a fiftieth of it is done."""
        from standin.harness import click

        self._show("train")
        click(self.ui.startButton)
        self._until(lambda: self.ui.curvesButton.enabled, TRAINING_S)
        click(self.ui.curvesButton)
        bar = self.ui.progressBar
        self._until(lambda: bar.maximum > 0 and bar.value > bar.maximum / 50, TRAINING_S)

    # -- looking -------------------------------------------------------------------------------

    def _tumour_ijk(self, volume: Any) -> tuple[int, int, int]:
        """The middle of the refined tumour in the slice that has most of it."""
        import numpy as np

        labels = self.logic.labelmap_of(self.logic.predictions(volume)["refined"], volume).labels
        value = 2 if (labels == 2).any() else 1
        k = int((labels == value).sum(axis=(1, 2)).argmax())
        inside = np.argwhere(labels[k] == value)
        j, i = inside[np.abs(inside - inside.mean(axis=0)).sum(axis=1).argmin()]
        return int(i), int(j), k

    def _look_at_tumour(self, volume: Any) -> None:
        import numpy as np
        import slicer

        from ASLsegLib.scene.volumes import geometry_of

        index = (*self._tumour_ijk(volume), 1)
        ras = (geometry_of(volume).ijk_to_ras @ np.array(index, float))[:3]
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            node.JumpSliceByCentering(*ras)
            width, height, depth = node.GetFieldOfView()
            node.SetFieldOfView(width / ZOOM, height / ZOOM, depth)

    def _show(self, section: str) -> None:
        """Open one section of the panel, and close the others."""
        for each in SECTIONS:
            getattr(self.ui, f"{each}Section").collapsed = each != section

    def _shoot(
        self, name: str, section: str, layout: str = "four-up", scroll_to: Any | None = None
    ) -> None:
        """Open one section of the panel, scroll to a widget, and take a picture of the window."""
        import slicer

        from standin.pictures import window_picture

        self._show(section)
        self._rest()
        path, title = self.folder / f"{name}.png", slicer.modules.aslseg.title
        with neutral_folder(self.widget.panel):
            window_picture(
                self.widget.parent, path, layout=layout, title=title, scroll_to=scroll_to
            )

    def _until(self, condition: Callable[[], bool], seconds: float = WORK_S) -> None:
        from standin.harness import wait_until

        wait_until(condition, seconds)

    def _rest(self) -> None:
        """Wait until nothing is under way, and everything is drawn."""
        from standin.harness import run_event_loop

        self._until(lambda: not (self.logic.engine.is_busy or self.logic.background.is_busy))
        run_event_loop(0.6)


@contextmanager
def neutral_folder(panel: Any) -> Iterator[None]:
    """Let the panel name a folder that is none of this computer, while its picture is taken."""
    folder = panel.parameters.projectFolder
    panel.parameters.projectFolder = SHOWN_FOLDER
    yield
    panel.parameters.projectFolder = folder


def require_whole(folder: Path) -> None:
    """Refuse a project that cannot be copied, or has no finished run: the tour would wait for it.

    Raises:
        SystemExit: With the reason.
    """
    from aslseg.project.project import open_project
    from aslseg.project.run_folder import latest_finished

    project = open_project(folder)
    images = {case.id: project.image_path(case).resolve() for case in project.cases}
    within = folder.resolve()
    for case_id, image in images.items():
        if not image.is_relative_to(within) or not image.exists():
            msg = f"The volume of {case_id} is not in {folder}, which is copied: {image}. "
            raise SystemExit(msg + "Take a project that 'Try with made-up patients' has made.")
    if latest_finished(folder) is None:
        msg = f"{folder} has no finished run; train, or leave --project out."
        raise SystemExit(msg)


def main(tour_class: type[Tour] = Tour, description: str = str(__doc__)) -> None:
    """Take the pictures of a tour."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", type=Path)
    options = parser.parse_args()
    if options.project is not None:
        require_whole(options.project)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        app = core.start(Path(place) / "settings")
        project = Path(place) / "given" / "liver-study" if options.project else None
        if project is not None:
            shutil.copytree(options.project, project)
        tour = tour_class(options.folder, Path(place), project)
        tour.take_all()
        tour.widget.cleanup()
        core.stop(app)


if __name__ == "__main__":
    main()
