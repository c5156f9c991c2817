"""What is freed between volumes is handed back."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import psutil
import pytest

from aslseg.memory import give_back_memory

of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")


@of_glibc
def test_what_was_freed_between_things_that_stay_is_given_back() -> None:
    blocks = [np.ones(10_000) for _ in range(2000)]  # below what is mapped by itself
    kept = blocks[::20]
    del blocks
    before = psutil.Process().memory_info().rss
    give_back_memory()
    given_back = before - psutil.Process().memory_info().rss
    assert given_back > 0.5 * 1900 * kept[0].nbytes


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    give_back_memory()
