from typing import Any, TypeVar

T = TypeVar("T")

def parameterNodeWrapper(classtype: type[T]) -> type[T]: ...

class Choice:
    def __init__(self, choices: list[Any]) -> None: ...

class WithinRange:
    def __init__(self, minimum: float, maximum: float) -> None: ...
