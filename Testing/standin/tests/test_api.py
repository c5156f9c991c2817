"""A name that Slicer does not have is found, in a module and in the stand-in itself."""

from __future__ import annotations

import textwrap

import pytest

from standin.api.check import SourceCheck, Table, mrml_names


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.read()


@pytest.fixture(scope="module")
def known() -> set[str]:
    return mrml_names()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("qt.QLable()", "Slicer has no qt.QLable"),
        ("qt.Qt.AlignmentFlag.AlignLeft", "Slicer has no qt.Qt.AlignmentFlag"),
        ("qt.QLabel(text='x')", "takes no keywords"),
        ("slicer.loadVolume('x')", "Slicer has no slicer.loadVolume"),
        ("slicer.util.loadVolumes('x')", "Slicer has no slicer.util.loadVolumes"),
        ("slicer.app.restartNow()", "qSlicerApplication has no restartNow"),
        ("slicer.util.LazyImport('x')", "guard it"),
        ("from slicer.parameterNodeWrapper import WithinRnage", "WithinRnage"),
        (
            "found = slicer.app.dicomDatabase()\nfound.seriesOfStudy('1')",
            "ctkDICOMDatabase has no seriesOfStudy",
        ),
        ("timer = qt.QTimer()\ntimer.begin()", "QTimer has no begin"),
        ("timer = qt.QTimer()\ntimer.interval()", "is a property"),
        ("timer = qt.QTimer()\ntimer.connect('timedOut()', f)", "no signal timedOut()"),
        ("box = qt.QCheckBox()\nbox.stateChanged.emit(1)", "no emit"),
        ("box = qt.QCheckBox()\nbox.checkd = True", "no property checkd"),
        ("self.ui.probe.text()", "is a property"),
        ("self.ui.probe.setTexts('x')", "has no setTexts"),
        ("node.GetSegmentatoin()", "GetSegmentatoin"),
        ("slicer.vtkMRMLSegmentatoinNode", "vtkMRMLSegmentatoinNode"),
        ("slicer.modules.segmentation.logic()", "slicer.modules.segmentation"),
    ],
)
def test_a_wrong_name_is_found(table: Table, known: set[str], source: str, expected: str) -> None:
    found = SourceCheck(table, {"probe": "QLabel"}, known).findings(source, "probe.py")
    assert any(expected in each.what for each in found), found


def test_right_names_pass(table: Table, known: set[str]) -> None:
    source = """
        label = qt.QLabel("text")
        label.text = "liver"
        label.setAlignment(qt.Qt.AlignLeft)
        self.ui.probe.visible = True
        timer = qt.QTimer()
        timer.connect("timeout()", self.poll)
        slicer.app.layoutManager().sliceWidget("Red")
        slicer.app.connect("startupCompleted()", register)
        node.GetSegmentation().GetSegmentIDs()
        try:
            from slicer import packaging
        except ImportError:
            slicer.util.pip_install("x")
    """
    check = SourceCheck(table, {"probe": "QLabel"}, known)
    assert check.findings(textwrap.dedent(source), "probe.py") == []


def test_every_public_name_of_a_standin_widget_exists_in_slicer(
    table: Table, application: object
) -> None:
    from standin.pythonqt.base import StandinWidget
    from standin.pythonqt.uiloader import registry

    wrong = []
    for name, cls in registry.items():
        if issubclass(cls, StandinWidget) and table.has_class(name):
            own = {n for n in vars(cls) if not n.startswith(("_", "standin_"))}
            own -= {"take_over_properties"}
            in_slicer = set().union(
                *(table.names(name, kind) for kind in ("properties", "methods", "values")),
                table.signal_names(name),
            )
            events = {n for n in own if n.endswith("Event")} | {"hitButton", "sizeHint"}
            wrong += [f"{name}.{each}" for each in sorted(own - in_slicer - events)]
    assert wrong == []
