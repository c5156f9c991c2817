"""Every name of Slicer, Qt, ctk and MRML that the module uses exists; see make_api_table.py."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest
from api_check import ROOT, SourceCheck, Table, ui_findings, ui_widgets

# Classes of VTK that a module meets: matrices, transforms, images, arrays, tables, points, events.
COMMON_VTK = (
    r"vtk(Object|Command|Collection|IdList|Points|Table|PolyData|ImageData|DataSetAttributes|PointData"
    r"|Matrix4x4|\w*Transform|(String|Double|Float|UnsignedChar|Data)Array|LookupTable|Cell(Array)?"
    r"|DataArraySelection|AlgorithmOutput|MatrixToLinearTransform|ImageReslice|ImageStencil)"
)
SOURCES = sorted((ROOT / "SlicerASLseg").rglob("*.py"))
UI_FILES = sorted((ROOT / "Resources" / "UI").glob("*.ui"))


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.read()


@pytest.fixture(scope="module")
def capital_names() -> set[str]:
    """Return the capital names of MRML and VTK, and those that Python and the project define."""
    import slicer
    import vtk

    found = {name for name in dir(slicer) if name.startswith("vtk")} | set(dir(vtk))
    for name in dir(slicer):
        if name.startswith("vtk"):
            found |= {each for each in dir(getattr(slicer, name)) if each[0].isupper()}
    for name in dir(vtk):
        if re.fullmatch(COMMON_VTK, name):
            found |= set(dir(getattr(vtk, name)))
    return found | _own_names()


def _own_names() -> set[str]:
    """Return what the module and the library define or import with a capital first letter."""
    found: set[str] = set()
    for path in [*SOURCES, *(ROOT / "Logic").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


@pytest.fixture(scope="module")
def widgets() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in UI_FILES:
        found |= ui_widgets(path)
    return found


@pytest.fixture
def check(table: Table, widgets: dict[str, str], capital_names: set[str]) -> SourceCheck:
    return SourceCheck(table, widgets, capital_names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_module_uses_only_names_that_exist(path: Path, check: SourceCheck) -> None:
    found = check.findings(path.read_text(encoding="utf-8"), path.name)
    assert [f"{each.path}:{each.line}: {each.what}" for each in found] == []


@pytest.mark.parametrize("path", UI_FILES, ids=lambda path: path.name)
def test_ui_files_use_only_names_that_exist(path: Path, table: Table) -> None:
    assert ui_findings(path, table) == []


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
def test_a_wrong_name_is_found(
    table: Table, capital_names: set[str], source: str, expected: str
) -> None:
    found = SourceCheck(table, {"probe": "QLabel"}, capital_names).findings(source, "probe.py")
    assert any(expected in each.what for each in found), found


def test_right_names_pass(table: Table, capital_names: set[str]) -> None:
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
    check = SourceCheck(table, {"probe": "QLabel"}, capital_names)
    assert check.findings(textwrap.dedent(source), "probe.py") == []


def test_every_public_name_of_a_standin_widget_exists_in_slicer(
    table: Table, application: object
) -> None:
    from standin.uiloader import registry
    from standin.widgets import StandinWidget

    wrong = []
    for name, cls in registry.items():
        if issubclass(cls, StandinWidget) and table.has_class(name):
            own = {n for n in vars(cls) if not n.startswith(("_", "standin_"))}
            own -= {"take_over_properties"}
            known = set().union(
                *(table.names(name, kind) for kind in ("properties", "methods", "values")),
                table.signal_names(name),
            )
            events = {n for n in own if n.endswith("Event")} | {"hitButton", "sizeHint"}
            wrong += [f"{name}.{each}" for each in sorted(own - known - events)]
    assert wrong == []
