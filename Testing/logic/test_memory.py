"""What is freed is kept where that is faster, and handed back between volumes."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
import sys
import textwrap

import numpy as np
import psutil
import pytest

from aslseg.memory import give_back_memory, tune_allocator

of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")


def page_faults(prelude: str) -> int:
    code = f"""
        import resource, torch
        from aslseg.memory import tune_allocator
        torch.set_num_threads(1)
        {prelude}
        faults = []
        for _ in range(15):  # the heap finds its shape within some turns
            torch.zeros(10_000_000) + 1
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        print(faults[-1] - faults[-6])
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


@of_glibc
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    pages = 5 * 2 * 10_000_000 * 4 // resource.getpagesize()  # turns * tensors * bytes
    assert page_faults("") > 0.9 * pages
    assert page_faults("assert tune_allocator()") < 0.3 * pages


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
    assert tune_allocator() is False
    give_back_memory()
