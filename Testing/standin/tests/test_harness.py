"""What tests do with the stand-in refuses what a person could not do, and hides no failure."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import slicer

from standin.harness import choose, choose_node, click, close_module, open_module, wait_until

pytestmark = pytest.mark.usefixtures("scene")

MODULE = """
    from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget
    from ProbeLib import neighbour


    class Probe(ScriptedLoadableModule):
        pass


    class ProbeWidget(ScriptedLoadableModuleWidget):
        value = neighbour.VALUE
"""
FAILING = """
    import slicer


    def press(slot):
        import qt

        button = qt.QPushButton()
        button.clicked.connect(slot)
        button.click()


    def test_raises_in_a_slot(scene):
        press(lambda: 1 / 0)


    def test_shows_an_error(dialogs):
        slicer.util.errorDisplay("no such file")


    def test_takes_the_error_that_it_shows(dialogs):
        slicer.util.errorDisplay("no such file")
        dialogs.take("No such file")


    def test_is_asked_what_nobody_answers(dialogs):
        press(lambda: slicer.util.confirmYesNoDisplay("Delete?"))


    def test_answers_what_is_never_asked(dialogs):
        dialogs.answer("Delete", True)
"""


def test_a_disabled_or_hidden_button_cannot_be_clicked() -> None:
    import qt

    button = qt.QPushButton("Go")
    button.objectName = "goButton"
    with pytest.raises(AssertionError, match="goButton is hidden"):
        button.hide() or click(button)
    button.show()
    button.enabled, button.toolTip = False, "Choose a volume first."
    with pytest.raises(AssertionError, match="Choose a volume first"):
        click(button)


def test_an_entry_is_chosen_by_a_part_of_its_text_or_the_entries_are_named() -> None:
    import qt

    box, got = qt.QComboBox(), []
    box.addItems(["quick", "standard"])
    box.activated.connect(got.append)
    choose(box, "Stand")
    assert (box.currentIndex, got) == (1, [1])
    with pytest.raises(AssertionError, match=r"'full' but \['quick', 'standard'\]"):
        choose(box, "full")


def test_a_node_that_a_combo_box_does_not_offer_cannot_be_chosen(scene: Any) -> None:
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", "numbers")
    with pytest.raises(AssertionError, match="has no scene"):
        choose_node(combo, table)
    combo.setMRMLScene(scene)
    with pytest.raises(AssertionError, match="does not offer numbers"):
        choose_node(combo, table)


def test_waiting_runs_the_event_loop_and_ends_in_time() -> None:
    import qt

    got: list[int] = []
    qt.QTimer.singleShot(5, lambda: got.append(1))
    assert wait_until(lambda: got, 5) == [1]
    with pytest.raises(AssertionError, match="the second"):
        wait_until(lambda: len(got) == 2, 0.05, "the second")


def test_a_closed_module_is_imported_afresh_with_the_packages_beside_it(tmp_path: Path) -> None:
    library = tmp_path / "ProbeLib"
    library.mkdir()
    (library / "__init__.py").write_text("")
    (tmp_path / "Probe.py").write_text(textwrap.dedent(MODULE))
    (library / "neighbour.py").write_text("VALUE = 1\n")
    assert open_module(tmp_path / "Probe.py").value == 1
    (library / "neighbour.py").write_text("VALUE = 'changed'\n")
    assert open_module(tmp_path / "Probe.py").value == "changed"
    close_module("Probe")
    assert not [name for name in sys.modules if name.startswith("Probe")]


def test_a_test_fails_for_what_slicer_would_only_print(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from standin.fixtures import *\n")
    (tmp_path / "test_failing.py").write_text(textwrap.dedent(FAILING))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = {
        line.split(" - ")[0].rpartition("::")[2]
        for line in done.stdout.splitlines()
        if line.startswith(("ERROR test", "FAILED test"))
    }
    assert errors == {
        "test_raises_in_a_slot",
        "test_shows_an_error",
        "test_is_asked_what_nobody_answers",
        "test_answers_what_is_never_asked",
    }, done.stdout
