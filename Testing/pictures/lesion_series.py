"""Takes the row of pictures of Docs/tutorial.md: one missed lesion from a box to accepted.

    ASLSEG_WEIGHTS=WEIGHTS python Testing/pictures/lesion_series.py Docs/screenshots [--project P]

A person who knows the truth presses the panel's own buttons and keys, as in
`Testing/panel/measure_daily_job.py`, on made-up patients; SAM is the one of the run, whose weights
are in the folder that ASLSEG_WEIGHTS names. Without a project of phantoms with a finished run
(`--project P`, which is copied, not changed) one is made and trained on with the preset `demo`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tutorial import TRAINING_S, Tour, main

from aslseg.data.images import read_labelmap
from aslseg.data.volume import Labelmap, Mask

CASE = "phantom_04"
VIEWS_PX, LIST_PX = (400, 356), 350
FIELD_MM = 110.0
WINDOW_HU, LEVEL_HU = 160.0, 100.0


def k_of(mask: Mask) -> int:
    """Return the slice that has most of a mask."""
    return int(mask.sum((1, 2)).argmax())


class LesionSeries(Tour):
    """Goes from the list of a case to one more lesion in it, with a camera."""

    def take_all(self) -> None:
        """Take the pictures in order."""
        from measure_daily_job import Hands

        from standin.harness import click

        self.hands = Hands()
        self._open(self.project or self._trained())
        volume = self._load(CASE)
        self._until(lambda: self.logic.lesion_review is not None)
        self._see_through(volume)
        if self.ui.showPromptsBox.checked:
            click(self.ui.showPromptsBox)  # those of the run are about other lesions
        self._picture("lesion-1-list")
        truth = read_labelmap(self.logic.project.folder / "data" / "truth" / f"{CASE}.nii.gz")
        lesion = self._missed(truth)
        self._grow(truth, lesion)
        self._correct(truth, lesion)
        self.hands.key("A")
        self._rest()
        self._picture("lesion-6-accepted")

    def _trained(self) -> Path:
        """Make a project of phantoms, and train on it."""
        from standin.harness import click

        folder = self.place / "liver-study"
        self.logic.create_phantom_project(folder)
        self._choose_preset()
        click(self.ui.startButton)
        self._until(lambda: self.logic.trainer.is_busy)
        self._until(lambda: not self.logic.trainer.is_busy, TRAINING_S)
        return folder

    def _missed(self, truth: Labelmap) -> Mask:
        from measure_daily_job import missed_lesions

        found = next(missed_lesions(truth, self.logic.lesion_review.rows), None)
        if found is None:
            msg = f"The run has found every lesion of {CASE}: there is none to be added."
            raise SystemExit(msg)
        return found

    def _see_through(self, volume: Any) -> None:
        """Show lesions in 3-D within a transparent liver, as one sets it in the module Data."""
        self._show_surfaces(volume)
        node = self.logic.predictions(volume)["refined"]
        display = volume.GetDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevel(WINDOW_HU, LEVEL_HU)
        liver = node.GetSegmentation().GetSegmentIdBySegmentName("liver")
        node.GetDisplayNode().SetSegmentOpacity3D(liver, 0.2)
        node.GetDisplayNode().SetSegmentOpacity2DFill(liver, 0.0)
        self._show("review")
        self._rest()

    def _grow(self, truth: Labelmap, lesion: Mask) -> None:
        """Draw a box on the largest slice, and let the lesion grow from it."""
        from measure_daily_job import box_around

        from standin.harness import click

        corners_ras = box_around(lesion, truth.geometry)
        self.hands.key("E")
        for box in (self.ui.eachBoxGrowsBox, self.ui.followEditsBox):
            if box.checked:
                click(box)  # to see the box before it grows
        self._turn_to(corners_ras.mean(0))
        self.hands.draw_box(corners_ras)
        self._hide_in_3d()
        self._rest()
        self._picture("lesion-2-box")
        with self._at_section(2) as growing:
            self.hands.key("G")
            self._until(lambda: self.logic.growths and self.logic.growths[-1].facts is not None)
        self._rest()
        if not growing:
            msg = "The lesion has fewer sections than a picture of its growing needs."
            raise SystemExit(msg)
        facts = self.logic.growths[-1].facts
        self._turn_to(corners_ras.mean(0) + self._up(truth, facts.last_slice - k_of(lesion)))
        self._picture("lesion-4-grown")

    @contextmanager
    def _at_section(self, count: int) -> Iterator[list[int]]:
        """Take the picture of a lesion that grows when it has so many sections; say on which."""
        growing: list[int] = []

        def look(event: Any) -> None:
            growth = self.logic.growing
            if event.event != "slice_mask" or growth is None or growing:
                return
            if len(growth.segment.slices) >= count:
                growing.append(event.slice_index)
                timer = self.widget.panel._timer
                timer.stop()  # drawing runs the event loop, and further sections would come
                self._picture("lesion-3-growing")
                timer.start(0)

        self.logic.engine.event.connect(look)
        try:
            yield growing
        finally:
            self.logic.engine.event.disconnect(look)

    def _correct(self, truth: Labelmap, lesion: Mask) -> None:
        """Draw a box on the other slice on which most of the lesion is missing."""
        from harness import read_mask
        from measure_daily_job import box_around

        growth = self.logic.growths[-1]
        missing = lesion & ~read_mask(growth.node, growth.segment_id, growth.volume)
        missing[k_of(lesion)] = False
        section = np.zeros_like(lesion)
        section[k_of(missing)] = lesion[k_of(missing)]
        corners_ras, facts = box_around(section, truth.geometry), growth.facts
        self._turn_to(corners_ras.mean(0))
        self.hands.key("B")
        self.hands.draw_box(corners_ras)
        self._hide_in_3d()
        self._until(lambda: growth.facts is not facts)
        self._rest()
        self._picture("lesion-5-corrected")

    def _hide_in_3d(self) -> None:
        """Hide prompts in the 3D view, as one does in the module Markups."""
        from ASLsegLib.scene.prompts import prompt_nodes

        for node in prompt_nodes(self.widget.panel.volume):
            node.GetDisplayNode().SetVisibility3D(False)

    @staticmethod
    def _up(truth: Labelmap, slices: int) -> np.ndarray:
        """Return the way, in mm, from a slice to another one."""
        return np.asarray(slices * truth.geometry.ijk_to_ras[:3, 2])

    def _turn_to(self, place_ras: Any) -> None:
        """Turn the views to a place, and zoom in with the wheel."""
        import slicer

        self.hands.turn_to(place_ras)
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            width, height, depth = node.GetFieldOfView()
            node.SetFieldOfView(FIELD_MM, FIELD_MM * height / width, depth)

    def _make_room(self) -> None:
        from measure_daily_job import show_views

        show_views(VIEWS_PX)

    def _picture(self, name: str) -> None:
        """Write the views with the list of lesions beside them."""
        import slicer
        from PySide6 import QtCore, QtGui

        from standin.pictures import shown

        width, height = VIEWS_PX
        picture = QtGui.QImage(width + LIST_PX, height, QtGui.QImage.Format.Format_RGB32)
        panel, box = self.widget.parent, self.ui.lesionTable.parent()
        with QtGui.QPainter(picture) as painter:
            with shown(slicer.app.layoutManager(), width, height):
                painter.drawPixmap(0, 0, slicer.app.layoutManager().grab())
            with shown(panel, LIST_PX, 1800):
                at = box.mapTo(panel, QtCore.QPoint(0, 0))
                part = QtCore.QRect(0, at.y(), LIST_PX, height)
                painter.drawPixmap(QtCore.QPoint(width, 0), panel.grab(), part)
        if not picture.save(str(self.folder / f"{name}.png")):
            msg = f"{self.folder / name}.png could not be written"
            raise OSError(msg)


if __name__ == "__main__":
    main(LesionSeries, str(__doc__))
