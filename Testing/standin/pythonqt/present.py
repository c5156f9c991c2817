"""Classes of PySide6 seen as PythonQt shows them (the semantics are listed in README.md).

`present(native)` makes, once per class, the class that the stand-in `qt` module offers.
"""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from .descriptors import declared, describe, flat_enums, has_data_descriptor
from .foreign import adopt, adopting, class_shown, presented
from .signals import BoundSignal, NativeSignal, Signal, connections_of, plain_signature

# Names of PySide that PythonQt does not have (it has `exec_` alone).
_ABSENT = frozenset({"exec", "metaObject", "tr", "sender", "receivers"})
# Methods that give or take objects that Qt itself may have made.
_WITH_WIDGETS = (QtWidgets.QWidget, QtGui.QAction, QtWidgets.QButtonGroup)
_OF_OBJECTS = frozenset({"parent", "children", "findChild", "findChildren"})
_OF_WIDGETS = frozenset(
    {
        "actions",
        "addAction",
        "addButton",
        "addMenu",
        "button",
        "buttons",
        "cellWidget",
        "centralWidget",
        "checkedButton",
        "clickedButton",
        "currentWidget",
        "defaultButton",
        "document",
        "focusWidget",
        "horizontalHeader",
        "horizontalScrollBar",
        "insertAction",
        "itemWidget",
        "layout",
        "lineEdit",
        "menu",
        "menuBar",
        "parentWidget",
        "removeAction",
        "setBuddy",
        "setDefaultAction",
        "setFocusProxy",
        "setLayout",
        "setMenu",
        "statusBar",
        "tabBar",
        "verticalHeader",
        "verticalScrollBar",
        "view",
        "viewport",
        "widget",
        "window",
    }
)


class PythonQtType(type(QtCore.QObject)):  # type: ignore[misc]
    """`isinstance` follows Qt's classes, whatever Python's bases are."""

    def __instancecheck__(cls, instance: object) -> bool:
        return cls.__subclasscheck__(class_shown(instance))

    def __subclasscheck__(cls, other: type) -> bool:
        native = cls.__dict__.get("_native")
        return issubclass(other, native) if native else type.__subclasscheck__(cls, other)


class PythonQtObject:
    """What PythonQt gives to every object, and what it refuses."""

    _offered = True

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        # PySide calls its own `connect` unless the very class of the object has one.
        for name in ("connect", "disconnect"):
            if name not in vars(cls):
                setattr(cls, name, getattr(cls, name))

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        if keywords:
            raise TypeError(f"PythonQt passes no keywords to {type(self).__name__}: {keywords}")
        super().__init__(*arguments)

    @property
    def name(self) -> str:
        return self.objectName

    @name.setter
    def name(self, value: str) -> None:
        self.objectName = value

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, QtCore.QObject) and value.objectName == name:
            return  # PySide's loader of .ui files makes every child an attribute; PythonQt does not
        free = "_offered" not in vars(type(self)) or name.startswith("_")
        if free or has_data_descriptor(type(self), name):
            super().__setattr__(name, value)
        elif QtCore.QObject.property(self, name) is not None:
            QtCore.QObject.setProperty(self, name, value)
        else:
            raise AttributeError(f"{type(self).__name__} has no property '{name}' to be set")

    def __getattribute__(self, name: str) -> Any:
        if name in _ABSENT:
            raise AttributeError(f"PythonQt's {type(self).__name__} has no attribute '{name}'")
        value = super().__getattribute__(name)
        if type(value) is QtCore.SignalInstance:  # PySide passes over the class's descriptors
            return declared(type(self), name).bind(self, value)
        return value

    def __getattr__(self, name: str) -> Any:
        value = None if name.startswith("_") else QtCore.QObject.property(self, name)
        if value is None:
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
        return value

    def className(self) -> str:
        offered = (base for base in type(self).__mro__ if "_offered" in vars(base))
        return next(offered).__name__

    def connect(self, signal: str, receiver: Any, slot: str | None = None) -> bool:
        if slot is not None:
            receiver = getattr(receiver, slot.partition("(")[0])
        bound, signature = self._find_signal(signal)
        return bound.connect_as(signature, receiver)

    def disconnect(self, signal: str, slot: Any = None) -> bool:
        _, signature = self._find_signal(signal)
        return connections_of(self).remove([signature], slot)

    def _find_signal(self, signal: str) -> tuple[BoundSignal, str]:
        signature = plain_signature(signal)
        name = signature.partition("(")[0]
        found = declared(type(self), name)
        if not isinstance(found, NativeSignal | Signal) or signature not in found.signatures:
            raise ValueError(f"{type(self).__name__} has no signal {signal}")
        return getattr(self, name), signature


def present(native: type) -> type:
    """Return the class that the module `qt` offers for a class of PySide6."""
    if native not in presented:
        presented[native] = _make(native)
    return presented[native]


def offer(replacement: type) -> type:
    """Let a subclass of a presented class take its place, under its name."""
    native = next(base for base in replacement.__mro__ if base in presented)
    replacement._native = native
    presented[native] = replacement
    return mark_offered(replacement)


def mark_offered(cls: type) -> type:
    """Say that a class stands for one of C++, which takes no new attributes."""
    cls._offered = True
    return cls


def _make(native: type) -> type:
    namespace: dict[str, Any] = {"_native": native, "_offered": True, "__module__": "qt"}
    namespace |= describe(native)
    # Layouts and models have virtual methods of the same names, which stay as they are.
    model = issubclass(native, QtCore.QAbstractItemModel)
    names = _OF_WIDGETS if issubclass(native, _WITH_WIDGETS) else frozenset()
    for name in frozenset() if model else names | _OF_OBJECTS:
        if callable(getattr(native, name, None)) and name not in namespace:
            namespace[name] = _adopting(native, name)
    return PythonQtType(native.__name__, (PythonQtObject, native), namespace)


def _native_of(kind: type) -> type:
    """Return the class of PySide that a presented class, or one derived from it, stands for."""
    return next((vars(base)["_native"] for base in kind.__mro__ if "_native" in vars(base)), kind)


def _adopting(native: type, name: str) -> Any:
    method = getattr(native, name)

    def called(self: Any, *arguments: Any) -> Any:
        kind = arguments[0] if arguments and isinstance(arguments[0], type) else None
        if kind is None:
            return adopting(method)(self, *arguments)
        # PySide looks for the C++ class behind `kind`; those that the stand-in makes have none.
        found = adopt(native.findChildren(self, _native_of(kind), *arguments[1:]))
        fitting = tuple(child for child in found if isinstance(child, kind))
        return fitting if name == "findChildren" else next(iter(fitting), None)

    called.__name__ = name
    return called


def qt_namespace() -> type:
    """Return `qt.Qt`: values without the enums they belong to."""
    return type("Qt", (), {"__module__": "qt", **flat_enums(QtCore.Qt)})


def present_all() -> dict[str, Any]:
    """Return every public class of the three Qt modules under its own name."""
    found: dict[str, Any] = {}
    for module in (QtCore, QtGui, QtWidgets):
        for name in dir(module):
            value = getattr(module, name)
            if name.startswith("Q") and isinstance(value, type):
                found[name] = present(value) if issubclass(value, QtCore.QObject) else value
    return found
