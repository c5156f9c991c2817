"""Imports of parts of a package without the rest of it, and without what it can do without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from typing import Any

MONAI_EXTRAS = ("matplotlib", "matplotlib.pyplot", "scipy.signal", "scipy.stats")
"""What `import monai` loads, in half of its time, for functions that nothing here calls."""


@contextmanager
def without_its_init(package: str) -> Iterator[None]:
    """Let modules of a package be imported in the body without running its `__init__`.

    Afterwards the package is as if it had not been imported, but its modules stay. Pickling looks a
    class up by importing its module, so it belongs into the body too.
    """
    spec = None if package in sys.modules else find_spec(package)
    if spec is None:  # imported already; or absent, which the import in the body says
        yield
        return
    sys.modules[package] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[package]


@contextmanager
def without_imports(*modules: str) -> Iterator[None]:
    """Let imports in the body go without modules that they can do without.

    Afterwards they can be imported as ever; those that were imported before are left alone. For
    processes of the library's own, the command line's and the engine's: a package that was imported
    in the body does not look for them again.
    """
    absent = [name for name in modules if name not in sys.modules]
    blocked: dict[str, Any] = sys.modules
    blocked.update(dict.fromkeys(absent))  # makes `import name` raise ImportError
    try:
        yield
    finally:
        for name in absent:
            del blocked[name]
