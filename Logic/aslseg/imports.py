"""Imports of parts of a package without the rest of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec


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
