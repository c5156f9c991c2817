"""Signals as PythonQt gives them: `connect` trims arguments, a call emits, there is no `emit`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any

Slot = Callable[..., Any]


def arguments_taken(slot: Slot) -> int | None:
    """Return how many arguments PythonQt passes to `slot` at most, None when it passes all.

    PythonQt reads `co_argcount` of Python functions and methods, so arguments with a default value
    count; it does not look at those of any other callable (functools.partial, built-in functions).
    """
    function, bound = (slot.__func__, 1) if isinstance(slot, MethodType) else (slot, 0)
    if not isinstance(function, FunctionType) or function.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return function.__code__.co_argcount - bound


def run_slot(slot: Slot, arguments: Sequence[Any]) -> None:
    """Call a slot as the event loop does: what it raises is reported, never passed on."""
    try:
        slot(*arguments[: arguments_taken(slot)])
    except Exception:  # the event loop is the boundary; conftest.py fails the test for what it saw
        sys.excepthook(*sys.exc_info())


def parameters_of(signature: str) -> list[str]:
    """Return the parameter types of `name(type,type)`."""
    inner = signature[signature.index("(") + 1 : signature.rindex(")")].strip()
    return [part.strip() for part in inner.split(",")] if inner else []


def plain_signature(signature: str) -> str:
    """Return a signature without its blanks."""
    return signature.replace(" ", "")


class Connections:
    """The connections of one sender: signature, slot, and what undoes the connection."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, Slot, Callable[[], None]]] = []

    def add(self, signature: str, slot: Slot, undo: Callable[[], None]) -> None:
        self._entries.append((signature, slot, undo))

    def remove(self, signatures: Sequence[str], slot: Slot | None) -> bool:
        found = [e for e in self._entries if e[0] in signatures and slot in (None, e[1])]
        for entry in found:
            self._entries.remove(entry)
            entry[2]()
        return bool(found)

    def slots(self, signature: str) -> list[Slot]:
        return [slot for name, slot, _ in self._entries if name == signature]


def connections_of(sender: Any) -> Connections:
    """Return the connections kept with `sender`."""
    kept: Connections | None = sender.__dict__.get("_connections")
    if kept is None:
        kept = Connections()
        sender.__dict__["_connections"] = kept
    return kept


class BoundSignal:
    """A signal of one object. As in PythonQt it can be connected, disconnected, and called."""

    def __init__(self, sender: Any, signatures: Sequence[str], native: Any = None) -> None:
        self._sender, self._signatures, self._native = sender, signatures, native

    def connect(self, slot: Slot) -> bool:
        return self.connect_as(self._signatures[0], slot)

    def connect_as(self, signature: str, slot: Slot) -> bool:
        """Connect the overload `signature`, whose number of parameters is all that is passed."""
        if not callable(slot):
            raise TypeError(f"{signature} cannot be connected to {slot!r}: it is not callable")
        connections_of(self._sender).add(signature, slot, self._native_undo(signature, slot))
        return True

    def _native_undo(self, signature: str, slot: Slot) -> Callable[[], None]:
        if self._native is None:
            return lambda: None
        count = len(parameters_of(signature))
        fullest = parameters_of(self._signatures[0])
        native = self._native[",".join(fullest)] if fullest else self._native

        def adapter(*arguments: Any) -> None:
            run_slot(slot, arguments[:count])

        native.connect(adapter)
        return lambda: native.disconnect(adapter)

    def disconnect(self, slot: Slot | None = None) -> bool:
        return connections_of(self._sender).remove(self._signatures, slot)

    def __call__(self, *arguments: Any) -> None:
        if self._native is not None:
            self._native.emit(*arguments)
        elif not self._sender.signalsBlocked():
            self._emit(arguments)

    def _emit(self, arguments: Sequence[Any]) -> None:
        for signature in self._signatures:
            count = len(parameters_of(signature))
            for slot in connections_of(self._sender).slots(signature):
                run_slot(slot, arguments[:count])


class Signal:
    """A signal of a stand-in class, with its overloads: `Signal("valueChanged(double)")`.

    All overloads are emitted with the same arguments, except for `changed(bool)` beside
    `changed(vtkMRMLNode*)`, which gets whether there is a node: qMRML's custom.
    """

    def __init__(self, *signatures: str) -> None:
        self.signatures = [plain_signature(signature) for signature in signatures]

    def __get__(self, sender: Any, owner: type) -> Any:
        return self if sender is None else BoundSignal(sender, self.signatures)

    def __set__(self, sender: Any, value: object) -> None:
        raise AttributeError(f"{self.signatures[0]} is a signal of {type(sender).__name__}")


class NodeSignal(Signal):
    """A signal with the overloads (vtkMRMLNode*) and (bool)."""

    def __get__(self, sender: Any, owner: type) -> Any:
        return self if sender is None else _BoundNodeSignal(sender, self.signatures)


class _BoundNodeSignal(BoundSignal):
    def _emit(self, arguments: Sequence[Any]) -> None:
        for signature in self._signatures:
            passed = [bool(arguments[0])] if parameters_of(signature) == ["bool"] else arguments
            for slot in connections_of(self._sender).slots(signature):
                run_slot(slot, passed)


class NativeSignal:
    """A signal of a Qt class: what PySide hands out is bound to PythonQt's ways."""

    def __init__(self, name: str, signatures: Sequence[str]) -> None:
        self.name, self.signatures = name, list(signatures)

    def bind(self, sender: Any, native: Any) -> BoundSignal:
        """Return the signal of one object; `native` is PySide's."""
        return BoundSignal(sender, self.signatures, native)

    def __get__(self, sender: Any, owner: type) -> Any:
        return self

    def __set__(self, sender: Any, value: object) -> None:
        raise AttributeError(f"{self.name} is a signal of {type(sender).__name__}")
