"""What stands on a presented class for each name: properties, signals, flat enums, absent names."""

from __future__ import annotations

import enum
from typing import Any

import shiboken6
from PySide6 import QtCore

from .signals import NativeSignal

# Getters that C++ calls virtually: reading the Qt property would come back here without end.
_VIRTUAL = {"sizeHint", "minimumSizeHint", "spacing"}


class Absent:
    """A name of PySide that PythonQt does not have."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError(f"PythonQt's {owner.__name__} has no attribute '{self._name}'")


class NativeProperty:
    """A Qt property, an attribute in PythonQt; seen on the class it is PySide's method."""

    def __init__(self, name: str, native: type) -> None:
        self._name, self._of_class = name, getattr(native, name, None)

    def __get__(self, instance: Any, owner: type) -> Any:
        return self._of_class if instance is None else self.read(instance)

    def read(self, instance: Any) -> Any:
        self._refuse_destroyed(instance)
        if self._name in _VIRTUAL:
            return self._of_class(instance)
        value = instance.property(self._name)
        return tuple(value) if isinstance(value, list) else value

    def _refuse_destroyed(self, instance: Any) -> None:
        if not shiboken6.isValid(instance):
            name = type(instance).__name__
            raise ValueError(f"Trying to access property '{self._name}' of a destroyed {name}")

    def __set__(self, instance: Any, value: object) -> None:
        self._refuse_destroyed(instance)
        passed = int(value) if isinstance(value, enum.Enum) else value
        if not QtCore.QObject.setProperty(instance, self._name, passed):
            owner = type(instance).__name__
            raise ValueError(f"property {self._name} of {owner} does not accept {value!r}")


def declared(owner: type, name: str) -> Any:
    """Return what stands for `name` in the first class that has it, not yet bound."""
    return next((vars(base)[name] for base in owner.__mro__ if name in vars(base)), None)


def has_data_descriptor(owner: type, name: str) -> bool:
    """Tell whether an object of the class has a property or signal of that name."""
    return hasattr(type(declared(owner, name)), "__set__")


def describe(native: type) -> dict[str, Any]:
    """Return the descriptors of a class of PySide: its enums, properties and signals."""
    meta = native.staticMetaObject  # type: ignore[attr-defined]
    found = flat_enums(native)
    for index in range(meta.propertyCount()):
        name = meta.property(index).name()
        found[name] = NativeProperty(name, native)
    for name, signatures in _signals(meta).items():
        if isinstance(declared(native, name), QtCore.Signal):
            found[name] = NativeSignal(name, signatures)
    return found


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
