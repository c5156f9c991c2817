"""Write table.json: the names that Slicer gives to a module, of those that matter here.

    PYTHONPATH=Testing python -m standin.api.make_table slicer_api.json

slicer_api.json lists the classes of ctk and Slicer, each with its base, properties, signals, slots
and invokables, and the names of Slicer's Python modules. The classes of Qt come from PySide6, less
what Qt 5.15 does not have. The rest is typed in below, from Slicer's sources.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

from standin.pythonqt.descriptors import Absent, NativeProperty, describe, flat_enums
from standin.pythonqt.signals import NativeSignal

TABLE = Path(__file__).with_name("table.json")

QT_CLASSES = """
QAbstractButton QAbstractItemView QAction QApplication QButtonGroup QCheckBox QClipboard
QColorDialog QComboBox QCursor QDesktopServices QDialog QElapsedTimer QEvent QFile QFileDialog QFont
QFormLayout QFrame QGridLayout QGroupBox QHBoxLayout QHeaderView QIcon QInputDialog QLabel
QLayout QLineEdit QListWidget QListWidgetItem QMainWindow QMenu QMessageBox QObject QPixmap
QPlainTextEdit QProgressBar QProgressDialog QPushButton QRadioButton QScrollArea QScrollBar
QSettings QShortcut QKeySequence QSize QSizePolicy QSlider QSpinBox QDoubleSpinBox QTabWidget
QTableWidget QTableWidgetItem QTextBrowser QTextEdit QTimer QToolButton QUrl QVBoxLayout QWidget
QColor QBrush QByteArray
"""
SLICER_CLASSES = """
ctkCheckBox ctkCollapsibleButton ctkCollapsibleGroupBox ctkComboBox ctkDICOMDatabase
ctkDirectoryButton
ctkFittedTextBrowser ctkMenuButton ctkMessageBox ctkPathLineEdit ctkPushButton ctkSearchBox
ctkSettingsPanel ctkSliderWidget qMRMLCheckableNodeComboBox qMRMLLayoutManager qMRMLNodeComboBox
qMRMLPlotView qMRMLPlotWidget qMRMLSegmentEditorWidget qMRMLSegmentationShow3DButton
qMRMLSegmentsTableView qMRMLSliceView qMRMLSliceWidget qMRMLThreeDView qMRMLThreeDWidget
qMRMLWidget qMRMLAbstractViewWidget ctkVTKAbstractView ctkVTKSliceView ctkVTKRenderView
qSlicerAbstractModuleWidget qSlicerApplication qSlicerCoreApplication
qSlicerExtensionsManagerModel qSlicerLayoutManager qSlicerMainWindow qSlicerMarkupsPlaceWidget
qSlicerModuleManager qSlicerScriptedLoadableModule qSlicerScriptedLoadableModuleWidget
qSlicerSimpleMarkupsWidget qSlicerWidget qSlicerSingletonViewFactory
"""
# Classes that the list of Slicer's API does not have, from their headers.
FROM_HEADERS = {
    "ctkDICOMDatabase": {
        "base": "QObject",
        "properties": ["databaseFilename", "isOpen", "lastError"],
        "signals": ["databaseChanged()", "opened()", "closed()", "seriesAdded(QString)"],
        "slots": [],
        "invokables": [
            "patients",
            "studiesForPatient",
            "seriesForStudy",
            "instancesForSeries",
            "studyForSeries",
            "patientForStudy",
            "filesForSeries",
            "descriptionForSeries",
            "descriptionForStudy",
            "nameForPatient",
            "displayedNameForPatient",
            "fieldForPatient",
            "fieldForStudy",
            "fieldForSeries",
            "fileForInstance",
            "seriesForFile",
            "instanceForFile",
            "instanceValue",
            "fileValue",
            "allFiles",
        ],
    },
    "qSlicerSingletonViewFactory": {
        "base": "ctkLayoutViewFactory",
        "properties": [],
        "signals": [],
        "slots": ["onWidgetDestroyed"],
        "invokables": ["setTagName", "setWidget", "tagName", "widget"],
    },
}
PYTHON_MODULES = """
slicer.ScriptedLoadableModule slicer.i18n slicer.packaging slicer.parameterNodeWrapper
SampleData PyTorchUtils
"""
WITH_VALUES = """
QAbstractItemView QDialog QFileDialog QFrame QHeaderView QIODevice QIODeviceBase QLineEdit
QMessageBox
QPlainTextEdit QSizePolicy QSettings QTextEdit QToolButton
"""
# Not in Qt 5.15, with which Slicer is still built.
ONLY_QT6 = {
    "QCheckBox": {"checkStateChanged(Qt::CheckState)"},
    "QComboBox": {"labelDrawingMode", "setLabelDrawingMode"},
    "QTimer": {"isSingleShotChanged"},
}
# Callable from Python by a decorator, or by an override that the list does not have.
DECORATED = {
    "qSlicerApplication": "testingEnabled coreIOManager processEvents screens topLevelWidgets",
    "qSlicerScriptedLoadableModule": "widgetRepresentation logic path name",
    "qSlicerMainWindow": "moduleSelector statusBar",
    "qSlicerModuleManager": "factoryManager",
    "qMRMLSegmentEditorWidget": "setActiveEffectByName",
    "QWidget": "name className",
    "QObject": "name className connect disconnect delete",
    "QDialog": "exec_",
    "QMenu": "exec_",
    "QApplication": "exec_",
}
# Values of enums, which the list of Slicer's API does not have.
VALUES = {
    "ctkPathLineEdit": "Dirs Files Drives NoSymLinks Readable Writable Executable Hidden System "
    "AllDirs NoDot NoDotDot NoDotAndDotDot",
    "qSlicerMarkupsPlaceWidget": "ForcePlaceSingleMarkup ForcePlaceMultipleMarkups "
    "ShowPlaceMultipleMarkupsOption HidePlaceMultipleMarkupsOption",
}
CTK_ALIASES = {"ctkLayoutFactory": "QObject"}
MODULES = """
data dicom markups models plots sampledata segmenteditor segmentations subjecthierarchy
tables terminologies texts transforms units volumerendering volumes
"""
# First version of Slicer that has it; a use must be guarded by try or hasattr.
NEWER_THAN_5_10 = {
    "slicer.packaging": "5.12",
    "slicer.util.LazyImport": "5.13",
    "slicer.util.executePythonModule": "5.12",
}
SCOPES = """
AlignmentFlag CheckState CursorShape ItemDataRole ItemFlag Orientation TextFormat SortOrder Key
ScrollBarPolicy TextElideMode TextInteractionFlag WindowModality KeyboardModifier MouseButton
ShortcutContext
"""


def qt_class(name: str) -> dict[str, Any]:
    """Return what a class of Qt has beyond its base."""
    from PySide6 import QtCore, QtGui, QtWidgets

    modules = (QtCore, QtGui, QtWidgets)
    native = next((getattr(m, name) for m in modules if hasattr(m, name)), QtCore.QObject)
    base = native.__mro__[1]
    is_object = issubclass(native, QtCore.QObject)
    described = describe(native) if is_object else flat_enums(native)
    inherited = describe(base) if issubclass(base, QtCore.QObject) else {}
    own = {key: value for key, value in described.items() if key not in inherited}
    absent = ONLY_QT6.get(name, set())
    properties = {key for key, value in own.items() if isinstance(value, NativeProperty)}
    signals = {
        signature
        for value in own.values()
        if isinstance(value, NativeSignal)
        for signature in value.signatures
    }
    values = {key for key in flat_enums(native) if key not in flat_enums(base)}
    public = {key for key in dir(native) if not key.startswith("_")} - set(dir(base))
    methods = public - properties - {s.partition("(")[0] for s in signals} - values
    methods -= {key for key in methods if isinstance(getattr(native, key), type)} | {"exec"}
    methods = {key for key in methods if not key.endswith("Event")}
    return {
        "base": base.__name__ if base.__name__.startswith("Q") else "",
        "properties": sorted(properties - absent),
        "signals": sorted(signals - absent),
        "methods": sorted((methods - absent) | set(DECORATED.get(name, "").split())),
        "values": sorted(values - _hidden(native)) if name in WITH_VALUES.split() else [],
    }


def _hidden(native: type) -> set[str]:
    """Return the names of a class's enums themselves."""
    return {key for key, value in flat_enums(native).items() if isinstance(value, Absent)}


def slicer_class(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what a class of ctk or Slicer has beyond its base."""
    base = facts["base"]
    return {
        "base": CTK_ALIASES.get(base, base),
        "properties": sorted(facts["properties"]),
        "signals": sorted(facts["signals"]),
        "methods": sorted(
            {*facts["invokables"], *facts["slots"], *DECORATED.get(name, "").split()} - {"qWarning"}
        ),
        "values": VALUES.get(name, "").split(),
    }


def qt_values() -> list[str]:
    """Return the flat values of qt.Qt that a panel may use."""
    from PySide6 import QtCore

    return sorted(
        name for scope in SCOPES.split() for name in getattr(QtCore.Qt, scope).__members__
    )


def util_names() -> list[str]:
    """Return the public names of slicer.util."""
    import slicer.util

    tree = ast.parse(Path(slicer.util.__file__).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    return sorted(n.name for n in tree.body if isinstance(n, kinds) and n.name[0] != "_")


def make_table(api: dict[str, Any]) -> dict[str, Any]:
    """Return the table; `api` is the list of Slicer's API."""
    classes: dict[str, Any] = {}
    waiting = [*QT_CLASSES.split(), *SLICER_CLASSES.split()]
    while waiting:
        name = waiting.pop()
        if name and name not in classes:
            known = api["qt"].get(name) or FROM_HEADERS.get(name)
            classes[name] = slicer_class(name, known) if known else qt_class(name)
            waiting.append(classes[name]["base"])
    return {
        "classes": dict(sorted(classes.items())),
        "modules": sorted(MODULES.split()),
        "newer": NEWER_THAN_5_10,
        "python": {name: python_names(api["python"][name]) for name in PYTHON_MODULES.split()},
        "qt_values": qt_values(),
        "util": util_names(),
    }


def python_names(facts: dict[str, Any]) -> list[str]:
    """Return the names of a module of Python, and `Class.method` of its classes."""
    methods = (
        f"{name}.{method}"
        for name, value in facts.items()
        if isinstance(value, dict) and name.endswith("Logic")
        for method in value
    )
    return sorted([*facts, *methods])


def write(table: dict[str, Any], path: Path) -> None:
    """Write the table with one class per line."""
    lines = []
    for key, value in table.items():
        if isinstance(value, dict):
            rows = (f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(rows) + "\n  }")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write(make_table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), TABLE)
