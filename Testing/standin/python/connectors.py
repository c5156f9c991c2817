"""How a widget shows and changes the value of one parameter, by the exact class of the widget."""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from standin.pythonqt.present import PythonQtObject
from standin.widgets import ctkmodule
from standin.widgets.qmrml import qMRMLNodeComboBox

from .annotations import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange, first
from .serializers import node_types


@dataclass(frozen=True)
class Connector:
    """Reads and writes one widget, and tells when a person changed it."""

    widget: Any
    read: Callable[[], Any] | None
    write: Callable[[Any], None]
    signal: str

    def listen(self, slot: Callable[[], None]) -> None:
        if self.read is not None:
            self.widget.connect(self.signal, slot)

    def forget(self, slot: Callable[[], None]) -> None:
        if self.read is not None:
            self.widget.disconnect(self.signal, slot)


def _attribute(widget: Any, name: str, signal: str, kind: Any = None) -> Connector:
    """Return a connector to a property of the widget, read as `kind`."""

    def read() -> Any:
        return kind(getattr(widget, name)) if kind is not None else getattr(widget, name)

    def write(value: Any) -> None:
        setattr(widget, name, str(value) if isinstance(value, pathlib.PurePath) else value)

    return Connector(widget, read, write, signal)


def connector_of(widget: Any, kind: Any, notes: Sequence[Any]) -> Connector:
    """Return the connector between a widget and a parameter.

    Raises:
        RuntimeError: There is none for this pair, as in Slicer.
    """
    class_name = type(widget).__name__
    for fits, make in _MAKERS:
        if fits(class_name, kind, notes):
            return make(widget, kind, notes)
    raise RuntimeError(f"Unable to create GUI connector from {kind} {list(notes)} to {class_name}")


def _number(widget: Any, kind: Any, notes: Sequence[Any]) -> Connector:
    low, high = first(notes, Minimum | WithinRange), first(notes, Maximum | WithinRange)
    if type(widget).__name__ in _NEED_RANGE and kind is float and None in (low, high):
        raise RuntimeError(f"{type(widget).__name__} needs WithinRange for a float")
    if low is not None:
        widget.minimum = low.minimum
    if high is not None:
        widget.maximum = high.maximum
    for note, name in ((Decimals, "decimals"), (SingleStep, "singleStep")):
        if first(notes, note) is not None:
            setattr(widget, name, first(notes, note).value)
    signature = "int" if isinstance(widget, PythonQtObject) and _whole(widget) else "double"
    return _attribute(widget, "value", f"valueChanged({signature})", kind)


def _whole(widget: Any) -> bool:
    return type(widget).__name__ in ("QSpinBox", "QSlider")


def _combo(widget: Any, kind: Any, notes: Sequence[Any]) -> Connector:
    values = list(kind) if isinstance(kind, enum.EnumMeta) else first(notes, Choice).choices
    labels = [_label(value) for value in values]
    widget.clear()
    for label in labels:
        widget.addItem(label)

    def write(value: Any) -> None:
        if value not in values:
            raise ValueError(f"Unable to find value {value} in choices {values}")
        widget.currentIndex = list(values).index(value)

    return Connector(widget, lambda: values[widget.currentIndex], write, "currentIndexChanged(int)")


def _label(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return str(value.label()) if hasattr(value, "label") else value.name
    return str(value)


def _node(widget: Any, kind: Any, notes: Sequence[Any]) -> Connector:
    widget.nodeTypes = [cls.__name__ for cls in node_types(kind)]
    signal = "currentNodeChanged(vtkMRMLNode*)"
    return Connector(widget, widget.currentNode, widget.setCurrentNode, signal)


def _push_button(widget: Any, kind: Any, notes: Sequence[Any]) -> Connector:
    widget.checkable = True
    return _attribute(widget, "checked", "toggled(bool)")


def _plain_text(widget: Any, kind: Any, notes: Sequence[Any]) -> Connector:
    return _attribute(widget, "plainText", "textChanged()")


def _show_only(widget: Any, kind: Any, notes: Sequence[Any]) -> Connector:
    return Connector(widget, None, widget.setText, "")


_NEED_RANGE = ("ctkSliderWidget", "QSlider")
_CHECKS = ("QCheckBox", "ctkCheckBox")
_SPIN = ("QSpinBox", "QSlider", "ctkSliderWidget", "QDoubleSpinBox")
_MAKERS: list[tuple[Callable[[str, Any, Any], bool], Callable[[Any, Any, Any], Connector]]] = [
    (
        lambda name, kind, notes: name in _CHECKS and kind is bool,
        lambda w, kind, notes: _attribute(w, "checked", "stateChanged(int)"),
    ),
    (
        lambda name, kind, notes: name == "QPushButton" and kind is bool,
        _push_button,
    ),
    (lambda name, kind, notes: name in _SPIN and kind is int, _number),
    (lambda name, kind, notes: name in _SPIN[1:] and kind is float, _number),
    (
        lambda name, kind, notes: (
            name == "QComboBox"
            and (isinstance(kind, enum.EnumMeta) or first(notes, Choice) is not None)
        ),
        _combo,
    ),
    (
        lambda name, kind, notes: name == "QLineEdit" and kind is str,
        lambda w, kind, notes: _attribute(w, "text", "textChanged(QString)"),
    ),
    (lambda name, kind, notes: name == "QTextEdit" and kind is str, _plain_text),
    (lambda name, kind, notes: name == "QLabel" and kind is str, _show_only),
    (
        lambda name, kind, notes: (
            name == ctkmodule.ctkPathLineEdit.__name__
            and isinstance(kind, type)
            and issubclass(kind, pathlib.PurePath)
        ),
        lambda w, kind, notes: _attribute(w, "currentPath", "currentPathChanged(QString)", kind),
    ),
    (
        lambda name, kind, notes: (
            name == ctkmodule.ctkDirectoryButton.__name__
            and isinstance(kind, type)
            and issubclass(kind, pathlib.PurePath)
        ),
        lambda w, kind, notes: _attribute(w, "directory", "directoryChanged(QString)", kind),
    ),
    (
        lambda name, kind, notes: name == qMRMLNodeComboBox.__name__ and bool(node_types(kind)),
        _node,
    ),
]
