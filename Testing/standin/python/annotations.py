"""The annotations of slicer.parameterNodeWrapper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin


class Validator:
    """Refuses some values of a parameter."""

    def validate(self, value: Any) -> None:
        raise NotImplementedError


class NotNone(Validator):
    """A value must be there."""

    def validate(self, value: Any) -> None:
        if value is None:
            raise ValueError("Value must not be None")


class Choice(Validator):
    """One of some values."""

    def __init__(self, choices: Sequence[Any]) -> None:
        self.choices = choices

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value {value!r} must be one of {self.choices}")


class Exclude(Validator):
    """None of some values."""

    def __init__(self, excluded: Sequence[Any]) -> None:
        self.excludedValues = excluded

    def validate(self, value: Any) -> None:
        if value in self.excludedValues:
            raise ValueError(f"Value {value!r} must not be one of {self.excludedValues}")


class Minimum(Validator):
    """At least so much."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


class Maximum(Validator):
    """At most so much."""

    def __init__(self, maximum: float) -> None:
        self.maximum = maximum

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


class WithinRange(Validator):
    """Between two bounds, both included."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within [{self.minimum}, {self.maximum}], is {value}")


class Default:
    """The value at first."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._value, self._generator = value, generator

    def value(self) -> Any:
        return self._generator() if self._generator is not None else self._value


@dataclass(frozen=True)
class Decimals:
    """Digits that a widget shows."""

    value: int


@dataclass(frozen=True)
class SingleStep:
    """The step of a widget."""

    value: float


@dataclass(frozen=True)
class Label:
    """The name that a widget shows."""

    value: str


def split(annotated: Any) -> tuple[Any, list[Any]]:
    """Return a type and its annotations; an annotation given as a class is made an object."""
    if get_origin(annotated) is not Annotated:
        return annotated, []
    kind, *notes = get_args(annotated)
    return kind, [note() if isinstance(note, type) else note for note in notes]


def first(notes: Iterable[Any], kind: type) -> Any:
    """Return the first annotation of a kind, None if there is none."""
    return next((note for note in notes if isinstance(note, kind)), None)
