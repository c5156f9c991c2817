"""slicer.parameterNodeWrapper: typed parameters kept in the scene, and tied to widgets.

It behaves as Slicer's own of 5.10, 5.12 and 5.13 (see README.md for what was compared); packs nest
by dots. It is stricter in one thing: a name that is no parameter cannot be set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import vtk
from PySide6 import QtWidgets

from .annotations import Default, Validator, first, split
from .connectors import Connector, connector_of
from .serializers import Serializer, serializer_of

RESERVED = {
    "allParameters", "default", "isCached", "dataType", "getValue", "setValue", "connectGui",
    "disconnectGui", "StartModify", "EndModify", "AddObserver", "RemoveObserver", "Modified",
    "connectParametersToGui", "parameterNode",
}  # fmt: skip


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter: its dotted name, type, annotations, keeper and first value."""

    basename: str
    unalteredType: Any
    annotations: list[Any]
    serializer: Serializer
    default: Callable[[], Any]

    def check(self, value: Any) -> None:
        self.serializer.check(value)
        for note in self.annotations:
            if isinstance(note, Validator):
                note.validate(value)


def _declared(cls: type) -> dict[str, ParameterInfo]:
    """Return every parameter of a class, those of packs under dotted names."""
    found: dict[str, ParameterInfo] = {}
    for name, annotated in get_type_hints(cls, include_extras=True).items():
        if name in RESERVED or name.startswith("_"):
            raise ValueError(f"'{name}' is not allowed as the name of a parameter")
        kind, notes = split(annotated)
        given = vars(cls).get(name, getattr(cls, "_defaults", {}).get(name, _NOTHING))
        if isParameterPack(kind):
            for inner, info in kind.allParameters.items():
                found[f"{name}.{inner}"] = _with_default(info, inner, given)
        else:
            found[name] = _info(name, kind, notes, given)
    return found


_NOTHING = object()


def _with_default(info: ParameterInfo, inner: str, given: Any) -> ParameterInfo:
    if given is _NOTHING:
        return info
    return ParameterInfo(
        info.basename,
        info.unalteredType,
        info.annotations,
        info.serializer,
        lambda: given.getValue(inner),
    )


def _info(name: str, kind: Any, notes: list[Any], given: Any) -> ParameterInfo:
    serializer = serializer_of(kind)
    noted = first(notes, Default)
    if noted is not None:
        default = noted.value
    elif given is not _NOTHING:
        default = lambda: given  # noqa: E731
    else:
        default = serializer.default
    info = ParameterInfo(name, kind, notes, serializer, default)
    if noted is not None or given is not _NOTHING:
        info.check(default())
    return info


class _Pack:
    """A part of the parameters, seen through its owner."""

    def __init__(self, owner: Any, prefix: str) -> None:
        object.__setattr__(self, "_owner", owner)
        object.__setattr__(self, "_prefix", prefix)

    def __getattr__(self, name: str) -> Any:
        return self._owner.getValue(f"{self._prefix}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        self._owner.setValue(f"{self._prefix}.{name}", value)


class _Wrapper:
    """What the decorator adds to a class of parameters."""

    allParameters: dict[str, ParameterInfo]

    def __init__(self, parameterNode: Any) -> None:
        self.__dict__.update(parameterNode=parameterNode, _guis={}, _next_tag=0, _updating=False)
        for name, info in self.allParameters.items():
            if not info.serializer.is_in(parameterNode, name):
                info.serializer.write(parameterNode, name, info.default())

    def __getattr__(self, name: str) -> Any:
        if name in self.allParameters:
            return self.getValue(name)
        if any(full.startswith(f"{name}.") for full in self.allParameters):
            return _Pack(self, name)
        raise AttributeError(f"{type(self).__name__} has no parameter '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.allParameters:
            self.setValue(name, value)
        elif any(full.startswith(f"{name}.") for full in self.allParameters):
            for inner in type(value).allParameters:
                self.setValue(f"{name}.{inner}", value.getValue(inner))
        else:
            raise AttributeError(f"{type(self).__name__} has no parameter '{name}'")

    def _check_name(self, name: str) -> None:
        packs = {full.partition(".")[0] for full in self.allParameters if "." in full}
        if name not in self.allParameters and name not in packs:
            known = ", ".join(self.allParameters)
            raise ValueError(f"Cannot find a param with the given name: {name}; found {known}")

    def getValue(self, name: str) -> Any:
        self._check_name(name)
        if name not in self.allParameters:
            return getattr(self, name)
        return self.allParameters[name].serializer.read(self.parameterNode, name)

    def setValue(self, name: str, value: Any) -> None:
        self._check_name(name)
        info = self.allParameters[name]
        info.check(value)
        info.serializer.write(self.parameterNode, name, value)

    def default(self, name: str) -> Any:
        return self.allParameters[name].default()

    def dataType(self, name: str) -> Any:
        return self.allParameters[name].unalteredType

    def isCached(self, name: str) -> bool:
        return False

    def StartModify(self) -> int:
        return int(self.parameterNode.StartModify())

    def EndModify(self, before: int) -> int:
        return int(self.parameterNode.EndModify(before))

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return int(self.parameterNode.AddObserver(event, callback, priority))

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def connectGui(self, gui: Any) -> int:
        """Tie every child that has the property SlicerParameterName.

        Raises:
            ValueError: One of them names no parameter.
        """
        children = gui.findChildren(QtWidgets.QWidget)
        named = [(child.property("SlicerParameterName"), child) for child in children]
        return self.connectParametersToGui({name: child for name, child in named if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Tie widgets to parameters; the widgets first show what the parameters hold."""
        for name in mapping:
            self._check_name(name)
        connections = [self._tie(name, widget) for name, widget in mapping.items()]
        for connector, name, slot in connections:
            connector.write(self.getValue(name))
            connector.listen(slot)
        observed = self.AddObserver(
            vtk.vtkCommand.ModifiedEvent, lambda *_: self._update(connections)
        )
        tag = int(self._next_tag)
        self.__dict__["_next_tag"] += 1
        self._guis[tag] = (connections, observed)
        return tag

    def _tie(self, name: str, widget: Any) -> tuple[Connector, str, Callable[[], None]]:
        info = self.allParameters[name]
        connector = connector_of(widget, info.unalteredType, info.annotations)

        def changed() -> None:
            if self._updating:  # the widget only shows what the parameters hold
                return
            was = self.StartModify()
            self.setValue(name, connector.read())  # type: ignore[misc]
            self.EndModify(was)

        return connector, name, changed

    def _update(self, connections: list[tuple[Connector, str, Callable[[], None]]]) -> None:
        if self._updating:
            return
        self.__dict__["_updating"] = True
        was = self.StartModify()
        try:
            for connector, name, _ in connections:
                connector.write(self.getValue(name))
        finally:
            self.EndModify(was)
            self.__dict__["_updating"] = False

    def disconnectGui(self, tag: int) -> None:
        if tag not in self._guis:
            return
        connections, observed = self._guis.pop(tag)
        self.RemoveObserver(observed)
        for connector, _, slot in connections:
            connector.forget(slot)


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """Make a class of annotated names into typed parameters of a MRML node."""
    if classtype is None:
        return parameterNodeWrapper
    declared = _declared(classtype)
    kept = {k: v for k, v in vars(classtype).items() if callable(v) or k.startswith("__doc")}
    kept |= {"allParameters": declared}
    kept |= {"__annotations__": get_type_hints(classtype, include_extras=True)}
    return type(classtype.__name__, (_Wrapper,), kept)


def parameterPack(classtype: type | None = None) -> Any:
    """Make a class of annotated names into a part of parameters that can be nested."""
    if classtype is None:
        return parameterPack
    declared = _declared(classtype)

    def initialise(self: Any, *arguments: Any, **keywords: Any) -> None:
        given = dict(zip(declared, arguments, strict=False)) | keywords
        for name, info in declared.items():
            setattr(self, name, given.get(name, info.default()))

    def set_checked(self: Any, name: str, value: Any) -> None:
        declared[name].check(value)
        self.__dict__[name] = value

    classtype.__init__, classtype.__setattr__ = initialise, set_checked  # type: ignore[misc]
    classtype.allParameters = declared  # type: ignore[attr-defined]
    classtype.getValue = lambda self, name: getattr(self, name)  # type: ignore[attr-defined]
    return classtype


def isParameterPack(kind: Any) -> bool:
    """Tell whether a type is a parameter pack."""
    return isinstance(kind, type) and hasattr(kind, "allParameters") and not isWrapper(kind)


def isWrapper(kind: type) -> bool:
    """Tell whether a class was made by parameterNodeWrapper."""
    return issubclass(kind, _Wrapper)
