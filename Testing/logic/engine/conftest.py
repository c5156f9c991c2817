from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.engine_child import EngineChild


@pytest.fixture(scope="module")
def child() -> Iterator[EngineChild]:
    child = EngineChild()
    yield child
    child.process.kill()
    child.process.wait()
