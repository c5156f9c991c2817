"""Finds the names of Slicer's and Qt's API that a module uses and the table lacks."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOTS = ("slicer", "qt", "ctk")
_OBJECTS = {"slicer.app": "qSlicerApplication"}
_RETURNS = {
    "slicer.app.layoutManager()": "qSlicerLayoutManager",
    "slicer.app.moduleManager()": "qSlicerModuleManager",
    "slicer.app.extensionsManagerModel()": "qSlicerExtensionsManagerModel",
    "slicer.util.mainWindow()": "qSlicerMainWindow",
    "qt.QApplication.clipboard()": "QClipboard",
    "slicer.app.dicomDatabase()": "ctkDICOMDatabase",
}


# Classes of VTK that a module meets: matrices, transforms, images, arrays, tables, points, events.
COMMON_VTK = (
    r"vtk(Object|Command|Collection|IdList|Points|Table|PolyData|ImageData|DataSetAttributes|PointData"
    r"|Matrix4x4|\w*Transform|(String|Double|Float|UnsignedChar|Data)Array|LookupTable|Cell(Array)?"
    r"|DataArraySelection|AlgorithmOutput|MatrixToLinearTransform|ImageReslice|ImageStencil"
    r"|RenderWindowInteractor)"
)


class Table:
    """The table of the API, with the inheritance of its classes."""

    def __init__(self, contents: dict[str, Any]) -> None:
        self.contents = contents

    @classmethod
    def read(cls) -> Table:
        """Read the committed table."""
        path = Path(__file__).with_name("table.json")
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def has_class(self, name: str) -> bool:
        return name in self.contents["classes"]

    def names(self, class_name: str, kind: str) -> set[str]:
        """Return properties, signals, methods or values of a class and its bases."""
        found: set[str] = set()
        while class_name:
            entry = self.contents["classes"][class_name]
            found |= set(entry[kind])
            class_name = entry["base"]
        return found

    def signal_names(self, class_name: str) -> set[str]:
        return {signal.partition("(")[0] for signal in self.names(class_name, "signals")}

    def attribute_error(self, class_name: str, name: str, *, called: bool, stored: bool) -> str:
        """Return what is wrong with an attribute of an object, an empty text if nothing is."""
        if name in self.names(class_name, "properties"):
            return f"{class_name}.{name} is a property, not a method" if called else ""
        if stored:
            return f"{class_name} has no property {name} to be set"
        known = self.names(class_name, "methods") | self.signal_names(class_name)
        if name in known | self.names(class_name, "values"):
            return ""
        return f"{class_name} has no {name}"

    def all_signals(self) -> set[str]:
        return {s.replace(" ", "") for e in self.contents["classes"].values() for s in e["signals"]}


def mrml_names() -> set[str]:
    """Return the capital names of MRML and of the classes of VTK that a module meets."""
    import slicer
    import vtk

    found = {name for name in dir(slicer) if name.startswith("vtk")} | set(dir(vtk))
    for name in dir(slicer):
        if name.startswith("vtk"):
            found |= {each for each in dir(getattr(slicer, name)) if each[0].isupper()}
    for name in dir(vtk):
        if re.fullmatch(COMMON_VTK, name):
            found |= set(dir(getattr(vtk, name)))
    return found


@dataclass(frozen=True)
class Finding:
    """Something that Slicer does not have, and where it is used."""

    path: str
    line: int
    what: str


def chain_of(node: ast.expr) -> str:
    """Return `a.b().c` as a text; an empty one if it starts with something else than a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = chain_of(node.value)
        return f"{head}.{node.attr}" if head else ""
    if isinstance(node, ast.Call):
        head = chain_of(node.func)
        return f"{head}()" if head else ""
    return ""


class SourceCheck:
    """Checks one Python file."""

    def __init__(self, table: Table, widgets: dict[str, str], mrml_names: set[str]) -> None:
        self._table, self._widgets, self._mrml = table, widgets, mrml_names
        self._foreign: set[str] = set()

    def findings(self, source: str, path: str) -> list[Finding]:
        """Return what is unknown in a source text."""
        tree = ast.parse(source)
        _mark(tree)
        self._foreign = _imported_elsewhere(tree)
        known_objects = self._classes_of_names(tree)
        return [
            Finding(path, getattr(node, "lineno", 0), what)
            for node in ast.walk(tree)
            for what in self._problems(node, known_objects)
        ]

    def _classes_of_names(self, tree: ast.AST) -> dict[str, str]:
        """Return the class of names that are only ever given a known object."""
        classes: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                target, made = chain_of(node.targets[0]), chain_of(node.value.func)
                name = made.rpartition(".")[2]
                if f"{made}()" in _RETURNS and target:
                    classes[target] = _RETURNS[f"{made}()"]
                elif made.split(".")[0] in ("qt", "ctk") and self._table.has_class(name) and target:
                    classes[target] = name
        return classes

    def _problems(self, node: ast.AST, objects: dict[str, str]) -> Iterator[str]:
        if isinstance(node, ast.Attribute):
            yield from self._attribute(node, objects)
        elif isinstance(node, ast.Call):
            yield from self._call(node, objects)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from self._import(node)

    def _attribute(self, node: ast.Attribute, objects: dict[str, str]) -> Iterator[str]:
        chain = chain_of(node)
        head = chain_of(node.value)
        class_name = self._class_of(head, objects)
        called = getattr(node, "called", False)
        stored = isinstance(node.ctx, ast.Store)
        if class_name:
            error = self._table.attribute_error(class_name, node.attr, called=called, stored=stored)
            yield from [error] if error else []
        elif chain.split(".")[0] in ROOTS and "(" not in head:
            yield from self._global_name(chain, guarded=getattr(node, "guarded", False))
        elif chain.split(".")[0] in self._table.contents["python"]:
            yield from self._python_name(chain)
        elif self._lacks_capital_name(node.attr, head):
            yield f"no class of MRML or VTK has {node.attr}"

    def _lacks_capital_name(self, name: str, head: str) -> bool:
        capital = name[0].isupper() and head.split(".")[0] not in self._foreign
        return capital and name not in self._mrml

    def _python_name(self, chain: str) -> Iterator[str]:
        """Check `SampleData.SampleDataLogic.registerCustomSampleDataSource` and the like."""
        module, _, name = chain.replace("()", "").partition(".")
        if name not in self._table.contents["python"][module]:
            yield f"Slicer has no {chain}"

    def _class_of(self, head: str, objects: dict[str, str]) -> str:
        widget = head.rpartition(".ui.")[2] if ".ui." in head else head.removeprefix("ui.")
        if (".ui." in head or head.startswith("ui.")) and "." not in widget:
            return self._widgets.get(widget, "")
        return objects.get(head) or _OBJECTS.get(head) or _RETURNS.get(head, "")

    def _global_name(self, chain: str, *, guarded: bool) -> Iterator[str]:
        newer = self._table.contents["newer"].get(chain)
        if newer and not guarded:
            yield f"{chain} exists from Slicer {newer} on only: guard it"
        elif not self._knows(chain.split(".")):
            yield f"Slicer has no {chain}"

    def _knows(self, parts: list[str]) -> bool:
        contents = self._table.contents
        if parts[0] in ("qt", "ctk"):
            return self._knows_class_value(parts[1:])
        if parts[1] in ("app", "mrmlScene", "util", "modules"):
            names = {"util": contents["util"], "modules": contents["modules"]}.get(parts[1])
            return names is None or len(parts) == 2 or parts[2] in names or parts[2][0].isupper()
        if ".".join(parts[:2]) in contents["python"]:
            return len(parts) == 2 or parts[2] in contents["python"][".".join(parts[:2])]
        return parts[1] in self._mrml or self._table.has_class(parts[1])

    def _knows_class_value(self, names: list[str]) -> bool:
        if names[0] == "Qt":
            return len(names) == 1 or (
                len(names) == 2 and names[1] in self._table.contents["qt_values"]
            )
        if not self._table.has_class(names[0]) or len(names) > 2:
            return False
        kinds = ("values", "methods", "properties")
        return len(names) == 1 or any(names[1] in self._table.names(names[0], k) for k in kinds)

    def _call(self, node: ast.Call, objects: dict[str, str]) -> Iterator[str]:
        chain = chain_of(node.func)
        if chain.split(".")[0] in ("qt", "ctk") and node.keywords:
            yield f"{chain} takes no keywords in PythonQt"
        if not isinstance(node.func, ast.Attribute):
            return
        owner, _, signal_name = chain_of(node.func.value).rpartition(".")
        class_name = self._class_of(owner, objects)
        if node.func.attr == "emit" and class_name:
            yield f"{class_name}.{signal_name}: signals of PythonQt have no emit"
        first = node.args[0] if node.args else None
        if (
            node.func.attr in ("connect", "disconnect")
            and isinstance(first, ast.Constant)
            and isinstance(first.value, str)
        ):
            signal = first.value.replace(" ", "")
            class_name = self._class_of(chain_of(node.func.value), objects)
            known = self._table.names(class_name, "signals") if class_name else None
            if signal not in (known if known is not None else self._table.all_signals()):
                yield f"{class_name or 'no class'} has no signal {signal}"

    def _import(self, node: ast.ImportFrom) -> Iterator[str]:
        contents, module = self._table.contents, str(node.module)
        for alias in node.names:
            chain = f"{module}.{alias.name}"
            if module in contents["python"]:
                if alias.name not in contents["python"][module]:
                    yield f"Slicer has no {chain}"
            elif module == "slicer.util":
                if alias.name not in contents["util"]:
                    yield f"Slicer has no {chain}"
            elif module == "slicer":
                yield from self._global_name(chain, guarded=getattr(node, "guarded", False))


def _mark(tree: ast.AST) -> None:
    """Mark what is called, and what stands in a `try` or below a test with hasattr."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            node.func.called = True  # type: ignore[attr-defined]
        if isinstance(node, ast.Try) or (
            isinstance(node, ast.If) and "hasattr" in ast.dump(node.test)
        ):
            for inner in ast.walk(node):
                inner.guarded = True  # type: ignore[attr-defined]


def _imported_elsewhere(tree: ast.AST) -> set[str]:
    """Return the names that are imported from anything but Slicer, Qt and VTK."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or node.names[0].name
            if module.split(".")[0] not in (*ROOTS, "vtk"):
                found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def ui_widgets(path: Path) -> dict[str, str]:
    """Return name -> class of the widgets of a .ui file."""
    root = ET.parse(path).getroot()
    return {str(w.get("name")): str(w.get("class")) for w in root.iter("widget")}


def ui_findings(path: Path, table: Table) -> list[str]:
    """Return the classes, properties, signals and slots of a .ui file that are unknown."""
    root, found = ET.parse(path).getroot(), []
    widgets = ui_widgets(path)
    for widget in root.iter("widget"):
        name, class_name = widget.get("name"), str(widget.get("class"))
        if not table.has_class(class_name):
            found.append(f"{name}: no class {class_name}")
            continue
        known = table.names(class_name, "properties")
        static = (p.get("name") for p in widget.findall("property") if p.get("stdset") != "0")
        found += [f"{name}: {class_name} has no property {p}" for p in static if p not in known]
    for connection in root.iter("connection"):
        sender, receiver = (widgets[str(connection.findtext(t))] for t in ("sender", "receiver"))
        signal, slot = (str(connection.findtext(tag)) for tag in ("signal", "slot"))
        if signal not in table.names(sender, "signals"):
            found.append(f"{sender} has no signal {signal}")
        if slot.partition("(")[0] not in table.names(receiver, "methods"):
            found.append(f"{receiver} has no slot {slot}")
    return found
