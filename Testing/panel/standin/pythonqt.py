"""Classes of PySide6 seen as PythonQt shows them (the semantics are listed in README.md).

`present(native)` makes, once per class, the class that the stand-in `qt` module offers.
"""

from __future__ import annotations

import ctypes
import enum
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from .signals import BoundSignal, NativeSignal, Signal, connections_of, plain_signature

# Getters that C++ calls virtually: reading the Qt property would come back here without end.
_VIRTUAL = {"sizeHint", "minimumSizeHint", "spacing"}
# PythonQt has `exec_` alone; the other names belong to PySide.
_ABSENT = {"exec", "staticMetaObject", "metaObject", "tr", "sender", "receivers"}
# Methods that hand out Qt objects, which have to be seen as PythonQt shows them, too.
_GIVES_OBJECTS = [
    "parent",
    "parentWidget",
    "window",
    "children",
    "findChild",
    "layout",
    "verticalScrollBar",
    "horizontalScrollBar",
    "horizontalHeader",
    "verticalHeader",
    "lineEdit",
    "view",
    "viewport",
    "button",
    "menu",
    "menuBar",
    "statusBar",
    "addAction",
    "addMenu",
    "addButton",
    "clickedButton",
    "checkedButton",
    "buttons",
    "actions",
    "widget",
    "currentWidget",
    "itemAt",
    "tabBar",
    "defaultButton",
    "labelForField",
    "centralWidget",
    "document",
    "model",
    "selectionModel",
    "focusWidget",
    "completer",
    "validator",
    "nextInFocusChain",
    "cellWidget",
    "itemWidget",
    "takeCentralWidget",
]

_presented: dict[type, type] = {}


def adopt(value: Any) -> Any:
    """Show an object that Qt handed out as PythonQt would."""
    if isinstance(value, list | tuple):
        return tuple(adopt(item) for item in value)
    if isinstance(value, QtCore.QObject) and type(value) in _presented:
        value.__class__ = _presented[type(value)]
        # Shiboken gives the reference to the class back when the object goes, but never took it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(type(value)))
    return value


class Absent:
    """A name of PySide that PythonQt does not have."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __init__(self, name: str = "") -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError(f"PythonQt's {owner.__name__} has no attribute '{self._name}'")


class NativeProperty:
    """A Qt property, an attribute in PythonQt; seen on the class it is PySide's method."""

    def __init__(self, name: str, native: type) -> None:
        self._name, self._of_class = name, getattr(native, name, None)

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self._of_class
        if self._name in _VIRTUAL:
            return self._of_class(instance)
        value = instance.property(self._name)
        return tuple(value) if isinstance(value, list) else value

    def __set__(self, instance: Any, value: object) -> None:
        passed = int(value) if isinstance(value, enum.Enum) else value
        if not QtCore.QObject.setProperty(instance, self._name, passed):
            owner = type(instance).__name__
            raise ValueError(f"property {self._name} of {owner} does not accept {value!r}")


class PythonQtType(type(QtCore.QObject)):  # type: ignore[misc]
    """`isinstance` follows Qt's classes, whatever Python's bases are."""

    def __instancecheck__(cls, instance: object) -> bool:
        return cls.__subclasscheck__(type(instance))

    def __subclasscheck__(cls, other: type) -> bool:
        native = cls.__dict__.get("_native")
        return issubclass(other, native) if native else type.__subclasscheck__(cls, other)


def _declared(owner: type, name: str) -> Any:
    """Return what stands for `name` in the first class that has it, not yet bound."""
    return next((vars(base)[name] for base in owner.__mro__ if name in vars(base)), None)


def _has_data_descriptor(owner: type, name: str) -> bool:
    return hasattr(type(_declared(owner, name)), "__set__")


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
        if free or _has_data_descriptor(type(self), name):
            super().__setattr__(name, value)
        elif QtCore.QObject.property(self, name) is not None:
            QtCore.QObject.setProperty(self, name, value)
        else:
            raise AttributeError(f"{type(self).__name__} has no property '{name}' to be set")

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if isinstance(value, QtCore.SignalInstance):  # PySide passes over the class's descriptors
            return _declared(type(self), name).bind(self, value)
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
        found = _declared(type(self), name)
        if not isinstance(found, NativeSignal | Signal) or signature not in found.signatures:
            raise ValueError(f"{type(self).__name__} has no signal {signal}")
        return getattr(self, name), signature


def present(native: type) -> type:
    """Return the class that the module `qt` offers for a class of PySide6."""
    if native not in _presented:
        _presented[native] = _make(native)
    return _presented[native]


def offer(replacement: type) -> type:
    """Let a subclass of a presented class take its place, under its name."""
    native = next(base for base in replacement.__mro__ if base in _presented)
    replacement._native = native
    _presented[native] = replacement
    return mark_offered(replacement)


def mark_offered(cls: type) -> type:
    """Say that a class stands for one of C++, which takes no new attributes."""
    cls._offered = True
    return cls


def _make(native: type) -> type:
    namespace: dict[str, Any] = {"_native": native, "_offered": True, "__module__": "qt"}
    namespace |= flat_enums(native)
    meta = native.staticMetaObject
    for index in range(meta.propertyCount()):
        name = meta.property(index).name()
        namespace[name] = NativeProperty(name, native)
    for name, signatures in _signals(meta).items():
        if isinstance(_declared(native, name), QtCore.Signal):
            namespace[name] = NativeSignal(name, signatures)
    namespace |= {name: Absent(name) for name in _ABSENT if hasattr(native, name)}
    for name in _GIVES_OBJECTS:
        if callable(getattr(native, name, None)) and name not in namespace:
            namespace[name] = _adopting(native, name)
    return PythonQtType(native.__name__, (PythonQtObject, native), namespace)


def _native_of(kind: type) -> type:
    """Return the class of PySide that a presented class, or one derived from it, stands for."""
    return next((vars(base)["_native"] for base in kind.__mro__ if "_native" in vars(base)), kind)


def _adopting(native: type, name: str) -> Any:
    method = getattr(native, name)

    def adopting(self: Any, *arguments: Any) -> Any:
        kind = arguments[0] if arguments and isinstance(arguments[0], type) else None
        if kind is None:
            return adopt(method(self, *arguments))
        # PySide looks for the C++ class behind `kind`; those that the stand-in makes have none.
        found = native.findChildren(self, _native_of(kind), *arguments[1:])
        fitting = tuple(child for child in adopt(found) if isinstance(child, kind))
        return fitting if name == "findChildren" else next(iter(fitting), None)

    adopting.__name__ = name
    return adopting


def _signals(meta: Any) -> dict[str, list[str]]:
    """Return name -> signatures of all signals, the one with most parameters first."""
    found: dict[str, list[str]] = {}
    for index in range(meta.methodCount()):
        method = meta.method(index)
        if method.methodType() == QtCore.QMetaMethod.Signal:
            name = method.name().data().decode()
            found.setdefault(name, []).append(method.methodSignature().data().decode())
    return {name: sorted(all_, key=len, reverse=True) for name, all_ in found.items()}


def flat_enums(native: type) -> dict[str, Any]:
    """Return the values of a class's enums under their own names, and hide the enums."""
    flat: dict[str, Any] = {}
    for base in native.__mro__:
        for name, value in vars(base).items():
            if isinstance(value, type) and issubclass(value, enum.Enum):
                flat |= dict(value.__members__) | {name: Absent(name)}
    return flat


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
