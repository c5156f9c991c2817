"""The base of the stand-in widgets: properties, and observers that end with the widget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtCore, QtWidgets

from .present import mark_offered, present

_Widget = present(QtWidgets.QWidget)


class Property:
    """A property of a stand-in widget; `changed(widget)` is called after each change."""

    def __init__(self, default: Any, changed: Callable[[Any], None] | None = None) -> None:
        self._default, self._changed = default, changed

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        return instance.__dict__.get(f"_value_{self._name}", self._default)

    def __set__(self, instance: Any, value: Any) -> None:
        kept = self._fitting(value)
        if kept != self.__get__(instance, type(instance)):
            instance.__dict__[f"_value_{self._name}"] = kept
            if self._changed is not None:
                self._changed(instance)

    def _fitting(self, value: Any) -> Any:
        kind = type(self._default)
        if kind is tuple:
            return (value,) if isinstance(value, str) else tuple(value)
        if kind in (bool, int, float) and not isinstance(value, bool | int | float):
            raise ValueError(f"property {self._name} does not accept {value!r}")
        if kind is str and not isinstance(value, str):
            raise ValueError(f"property {self._name} does not accept {value!r}")
        return value if self._default is None else kind(value)


def setter(name: str) -> Callable[[Any, Any], None]:
    """Return the slot that sets a property."""

    def set_property(self: Any, value: Any) -> None:
        setattr(self, name, value)

    return set_property


def observe(
    widget: Any, subject: Any, event: Any, callback: Callable[..., None], priority: float = 0.0
) -> int:
    """Observe a VTK object for as long as the widget lives, as the real widgets do.

    A `callback` with the attribute CallDataType gets the call data as its third argument. The
    observer does not hold `subject`: VTK lets Python collect such a cycle with the node alive.
    """
    kept: list[int] = []

    def observer(caller: Any, name: str, *data: Any) -> None:
        if shiboken6.isValid(widget):
            callback(caller, name, *data)
        else:
            caller.RemoveObserver(kept[0])

    if hasattr(callback, "CallDataType"):
        observer = _with_data(observer, callback.CallDataType)
    kept.append(subject.AddObserver(event, observer, priority))
    return kept[0]


def _with_data(observer: Callable[..., None], kind: Any) -> Callable[..., None]:
    def with_data(caller: Any, name: str, data: Any) -> None:
        observer(caller, name, data)

    with_data.CallDataType = kind  # type: ignore[attr-defined]
    return with_data


class InnerComboBox(QtWidgets.QComboBox):
    """A part of a stand-in widget: being a class of its own, it keeps PySide's ways."""


class InnerSlider(QtWidgets.QSlider):
    """A part of a stand-in widget."""


class InnerSpinBox(QtWidgets.QDoubleSpinBox):
    """A part of a stand-in widget."""


class InnerButton(QtWidgets.QToolButton):
    """A part of a stand-in widget."""


class InnerLabel(QtWidgets.QLabel):
    """A part of a stand-in widget."""


class StandinWidget:
    """Mixed into every widget class that Qt does not know."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.__module__.startswith("standin"):
            mark_offered(cls)

    def _own_property(self, name: str) -> bool:
        found = next((vars(b)[name] for b in type(self).__mro__ if name in vars(b)), None)
        return isinstance(found, Property | property)

    def setProperty(self, name: str, value: Any) -> bool:
        if self._own_property(name):
            setattr(self, name, value)
            return True
        return bool(QtCore.QObject.setProperty(self, name, value))  # type: ignore[arg-type]

    def property(self, name: str) -> Any:
        if self._own_property(name):
            return getattr(self, name)
        return QtCore.QObject.property(self, name)  # type: ignore[arg-type]

    def take_over_properties(self) -> None:
        """Give the values that a .ui file set, dynamic to Qt, to the properties of the class."""
        for kept in QtCore.QObject.dynamicPropertyNames(self):  # type: ignore[arg-type]
            name = kept.data().decode()
            if self._own_property(name):
                value = QtCore.QObject.property(self, name)  # type: ignore[arg-type]
                setattr(self, name, value)


class Widget(StandinWidget, _Widget):  # type: ignore[misc,valid-type]
    """A stand-in widget that derives from QWidget."""
