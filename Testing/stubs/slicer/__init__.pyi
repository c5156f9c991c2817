"""Types of Slicer for mypy: Any, but for what the other files of this folder declare."""

from typing import Any

def __getattr__(name: str) -> Any: ...
