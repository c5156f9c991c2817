"""A person who reviews a case lesion by lesion, in front of a run that found three of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from harness import wait_for_files

from standin.harness import click, wait_until

CASE = "c2"
LIVER, TUMOUR = 1, 2


def a_lesion_label() -> np.ndarray:
    """A liver with three lesions of 48, 27 and 8 voxels."""
    labels = np.zeros((12, 40, 40), np.uint8)
    labels[2:10, 8:34, 8:34] = LIVER
    labels[3:6, 10:14, 10:14] = TUMOUR
    labels[5:8, 20:23, 20:23] = TUMOUR
    labels[7:9, 28:30, 12:14] = TUMOUR
    return labels


def give_lesions(trained: Path) -> Path:
    """Let the run of a project have found these lesions in case c2; return the project."""
    from aslseg.data.images import read_labelmap, write_labelmap
    from aslseg.data.volume import Labelmap
    from aslseg.project.run_folder import open_run

    run = open_run(trained)
    predictions = run.predictions(run.best_round, CASE)
    geometry = read_labelmap(predictions / "refined.nii.gz").geometry
    for path in (predictions / f"{source}.nii.gz" for source in ("refined", "specialist", "sam")):
        write_labelmap(Labelmap(a_lesion_label(), geometry), path)
    for name in ("candidates.csv", "candidates.nii.gz"):
        (predictions / name).unlink(missing_ok=True)
    return trained


def keep_next_round(trained: Path, labels: np.ndarray) -> None:
    """Let a second round of the run have predicted this in case c2, as training in between does."""
    from aslseg.data.images import read_labelmap, write_labelmap
    from aslseg.data.volume import Labelmap
    from aslseg.project.run_folder import open_run

    run = open_run(trained)
    shutil.copytree(run.round(1), run.round(2))
    predictions = run.predictions(2, CASE)
    geometry = read_labelmap(predictions / "refined.nii.gz").geometry
    for source in ("refined", "specialist", "sam"):
        write_labelmap(Labelmap(labels, geometry), predictions / f"{source}.nii.gz")
    run.write_status(best_round=2)


class Reviewer:
    """A person in front of the panel, with the case loaded."""

    def __init__(self, widget: Any, folder: Path) -> None:
        self.panel, self.logic, self.ui = widget.panel, widget.logic, widget.panel.ui
        for name in ("cases", "review"):
            getattr(self.ui, f"{name}Section").collapsed = False
        self.logic.open_project(folder)
        self.load(CASE)

    def load(self, case_id: str) -> None:
        self.panel.case_chosen.emit(case_id)
        wait_until(
            lambda: (
                self.logic.lesion_review is not None and self.logic.lesion_review.case_id == case_id
            ),
            60.0,
            "lesions are listed",
        )
        self.rest()

    def rest(self) -> None:
        wait_for_files(self.logic)

    def press(self, button: Any) -> None:
        click(button)
        self.rest()

    @property
    def rows(self) -> list[str]:
        table = self.ui.lesionTable
        return [table.item(n, 5).text() for n in range(table.rowCount)]

    @property
    def chosen(self) -> int:
        return self.ui.lesionTable.currentRow() + 1

    @property
    def shown(self) -> np.ndarray:
        from harness import read_labels

        from ASLsegLib.scene.segmentations import find_prediction

        volume = self.logic.case_node(CASE)
        node = find_prediction(volume, "refined")
        return read_labels(node, volume, self.logic.targets())

    def on_disk(self) -> dict[int, str]:
        from aslseg.project.lesion_decisions import read_lesions

        found = read_lesions(self.logic.project, CASE).decisions
        return {number: one.what for number, one in found.items()}
