"""How far one has to read: the files that a moved prompt goes through, in the panel and the engine.

Counted as in `Testing/logic/test_walks.py`; Docs/design.md names the files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from harness import show_slice_of, wait_for_engine
from trained import UNLABELLED

from standin.harness import click, wait_until
from support.walk import entered_files

K = 6


def test_a_moved_prompt_goes_through_few_files_to_its_label(
    trained: Path, tmp_path: Path, open_module: Callable[..., Any]
) -> None:
    with entered_files() as entered:  # threads that begin here are watched as long as they live
        widget = open_module()
        logic, ui = widget.logic, widget.panel.ui
        walked = Path(__file__).with_name("walked_engine.py")
        logic.engine._python = [sys.executable, str(walked), str(tmp_path / "entered")]

        ui.projectFolderEdit.currentPath = str(trained)
        click(ui.openProjectButton)
        logic.load_case(UNLABELLED[0])
        volume = logic.case_node(UNLABELLED[0])
        wait_for_engine(logic)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        logic.segment(volume)
        from ASLsegLib.scene.prompts import POSITIVE, add_point, points_node
        from ASLsegLib.scene.slice_views import current_slice

        show_slice_of(volume, K)
        assert current_slice(volume) == K
        add_point(volume, "tumour", (12.5, 28.5), K, POSITIVE)
        slicer.app.processEvents()
        wait_until(lambda: logic.engine.is_busy, 10.0)
        wait_for_engine(logic)
        point = points_node(volume, "tumour", POSITIVE)
        where = [0.0, 0.0, 0.0]
        point.GetNthControlPointPositionWorld(0, where)
        entered.clear()
        with entered_files() as entered_here:
            point.SetNthControlPointPositionWorld(0, where[0] + 4.0, where[1], where[2])
            wait_until(lambda: logic.engine.is_busy, 10.0)
            wait_for_engine(logic)
    assert f"slice {K}" in ui.promptsStatusLabel.text
    panel = entered | entered_here
    requests = sorted(tmp_path.glob("entered.*"), key=lambda path: int(path.suffix[1:]))
    engine = set(json.loads(requests[-1].read_text()))
    assert len(requests) == 3, "a segmentation, a placed point, a moved point"
    assert "aslseg/inference/cascade.py" not in engine, "the specialist predicts once a volume"
    assert len(panel) <= 34, sorted(panel)
    assert len(engine) <= 34, sorted(engine)
