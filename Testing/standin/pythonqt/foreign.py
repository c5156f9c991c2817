"""Objects that Qt itself made, shown as PythonQt shows them.

A scroll bar or header is made by C++, so its Python class is PySide's. (Giving the object another
class is no way: Shiboken then loses count of both classes and of the object.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6 import QtCore

from .descriptors import Absent, NativeProperty, declared
from .signals import NativeSignal

presented: dict[type, type] = {}


class Foreign:
    """Stands before an object of PySide, with the attributes of its presented class."""

    __slots__ = ("_native", "_shown_as")

    def __init__(self, native: Any) -> None:
        object.__setattr__(self, "_native", native)
        object.__setattr__(self, "_shown_as", presented[type(native)])

    def __getattr__(self, name: str) -> Any:
        found = declared(self._shown_as, name)
        if isinstance(found, NativeProperty):
            return adopt(found.read(self._native))
        if isinstance(found, Absent):
            return found.__get__(self, self._shown_as)
        value = getattr(self._native, name)
        if isinstance(found, NativeSignal):
            return found.bind(self._native, value)
        return adopting(value) if callable(value) else value

    def __setattr__(self, name: str, value: object) -> None:
        found = declared(self._shown_as, name)
        if not isinstance(found, NativeProperty):
            raise AttributeError(f"{self.className()} has no property '{name}' to be set")
        found.__set__(self._native, value)

    @property
    def name(self) -> str:
        return str(self._native.objectName())

    def className(self) -> str:
        return self._shown_as.__name__

    def connect(self, signal: str, slot: Callable[..., Any]) -> bool:
        bound = getattr(self, signal.partition("(")[0])
        return bool(bound.connect_as(signal.replace(" ", ""), slot))

    def disconnect(self, signal: str, slot: Any = None) -> bool:
        return bool(getattr(self, signal.partition("(")[0]).disconnect(slot))

    def __eq__(self, other: object) -> bool:
        return bool(self._native == unwrap(other))

    def __hash__(self) -> int:
        return hash(self._native)


def adopt(value: Any) -> Any:
    """Show what Qt handed out as PythonQt would."""
    if isinstance(value, list | tuple):
        return tuple(adopt(item) for item in value)
    return Foreign(value) if type(value) in presented else value


def unwrap(value: Any) -> Any:
    """Return what PySide takes for an argument."""
    return value._native if isinstance(value, Foreign) else value


def adopting(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of PySide that takes and gives objects as PythonQt shows them."""

    def called(*arguments: Any) -> Any:
        return adopt(method(*(unwrap(argument) for argument in arguments)))

    return called


def class_shown(instance: object) -> type:
    """Return the class that an object is shown as."""
    return instance._shown_as if isinstance(instance, Foreign) else type(instance)


def is_object(value: object) -> bool:
    """Tell whether something is an object of Qt."""
    return isinstance(unwrap(value), QtCore.QObject)
