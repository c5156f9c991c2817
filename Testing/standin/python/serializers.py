"""How the values of parameters are kept in a vtkMRMLScriptedModuleNode: as texts and references."""

from __future__ import annotations

import enum
import json
import pathlib
import types
from typing import Any, Union, get_args, get_origin

import slicer

_NUMBERS = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}


def node_types(kind: Any) -> tuple[type, ...]:
    """Return the node classes of a type or a union; an empty tuple if it is not about nodes."""
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    found = tuple(part for part in parts if part is not type(None))
    nodes = all(isinstance(part, type) and issubclass(part, slicer.vtkMRMLNode) for part in found)
    return found if nodes and found else ()


class Serializer:
    """Reads and writes one parameter as a text."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def default(self) -> Any:
        return self._kind()

    def check(self, value: Any) -> None:
        accepted = _NUMBERS.get(self._kind, (self._kind,))
        wrong_bool = isinstance(value, bool) and self._kind in (int, float)
        if not isinstance(value, accepted) or wrong_bool:
            raise TypeError(f"Value {value!r} is of type {type(value)}, not {self._kind}")

    def is_in(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, self.to_text(value))

    def read(self, node: Any, name: str) -> Any:
        return self.from_text(node.GetParameter(name))

    def to_text(self, value: Any) -> str:
        return str(value)

    def from_text(self, text: str) -> Any:
        return text == "True" if self._kind is bool else self._kind(text)


class EnumSerializer(Serializer):
    """An enum is kept by the name of its member."""

    def default(self) -> Any:
        return next(iter(self._kind))

    def to_text(self, value: Any) -> str:
        return str(value.name)

    def from_text(self, text: str) -> Any:
        return self._kind[text]


class PathSerializer(Serializer):
    """A path is kept as it is written."""

    def check(self, value: Any) -> None:
        if not isinstance(value, pathlib.PurePath):
            raise TypeError(f"Value {value!r} is of type {type(value)}, not {self._kind}")


class JsonSerializer(Serializer):
    """A list, tuple or dictionary of plain values."""

    def default(self) -> Any:
        return (get_origin(self._kind) or self._kind)()

    def check(self, value: Any) -> None:
        if not isinstance(value, get_origin(self._kind) or self._kind):
            raise TypeError(f"Value {value!r} is not a {self._kind}")

    def to_text(self, value: Any) -> str:
        return json.dumps(value)

    def from_text(self, text: str) -> Any:
        return (get_origin(self._kind) or self._kind)(json.loads(text))


class NodeSerializer(Serializer):
    """A node is kept as a reference, which MRML follows when nodes get new ids."""

    def __init__(self, kinds: tuple[type, ...]) -> None:
        super().__init__(kinds)

    def default(self) -> Any:
        return None

    def check(self, value: Any) -> None:
        if value is not None and not isinstance(value, self._kind):
            raise TypeError(f"Value {value!r} is not one of {self._kind}")

    def is_in(self, node: Any, name: str) -> bool:
        return True  # no reference is a value, too: None

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)


def serializer_of(kind: Any) -> Serializer:
    """Return what keeps values of a type.

    Raises:
        ValueError: The parameter node cannot keep such a type.
    """
    nodes = node_types(kind)
    if nodes:
        return NodeSerializer(nodes)
    if get_origin(kind) in (list, dict, tuple) or kind in (list, dict, tuple):
        return JsonSerializer(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return EnumSerializer(kind)
    if isinstance(kind, type) and issubclass(kind, pathlib.PurePath):
        return PathSerializer(kind)
    if kind in _NUMBERS:
        return Serializer(kind)
    raise ValueError(f"No serializer is known for the type {kind}")
