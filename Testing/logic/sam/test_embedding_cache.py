"""The cache of embeddings: bounded, shared by processes, and whole after a kill."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aslseg.sam.embeddings import SLICES_PER_PART, EmbeddingStore
from aslseg.storage import TEMPORARY

SLICE_BYTES = 256 * 8 * 8 * 2
VOLUME_GB = 2 * SLICE_BYTES / 1e9
"""Of two slices; a part has some hundred bytes more."""


def numbered(indices: list[int]) -> Tensor:
    """Embeddings that are the number of their slice."""
    return torch.stack([torch.full((256, 8, 8), float(k)) for k in indices])


def keep(folder: Path, *keys: str, limit_gb: float = 1.0) -> None:
    """Store two slices of volumes, one after the other, and stop using them."""
    for key in keys:
        EmbeddingStore(folder, limit_gb).get_or_compute(key, [0, 1], numbered)
        gc.collect()
        time.sleep(0.01)  # another time of last use


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_the_longest_unused_volumes_go_first(tmp_path: Path) -> None:
    keep(tmp_path, "a", "b", "c")
    keep(tmp_path, "a")  # used again
    store = EmbeddingStore(tmp_path, limit_gb=2.5 * VOLUME_GB)
    assert store.evict() == ["b"]
    assert kept(tmp_path) == {"a", "c"}


def test_nothing_goes_below_the_bound(tmp_path: Path) -> None:
    keep(tmp_path, "a", "b")
    assert EmbeddingStore(tmp_path, limit_gb=3 * VOLUME_GB).evict() == []


def test_the_bound_is_kept_as_volumes_come(tmp_path: Path) -> None:
    keep(tmp_path, "a", "b", "c", "d", limit_gb=2.5 * VOLUME_GB)
    assert kept(tmp_path) == {"c", "d"}


def test_a_volume_in_use_stays_and_goes_when_it_is_let_go(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, limit_gb=0.5 * VOLUME_GB)
    stored = store.get_or_compute("a", [0, 1], numbered)
    assert store.evict() == []
    assert stored.stack([1])[0, 0, 0, 0] == 1
    del stored
    gc.collect()
    assert store.evict() == ["a"]
    assert kept(tmp_path) == set()


def test_what_went_is_computed_again(tmp_path: Path) -> None:
    keep(tmp_path, "a", "b")
    assert EmbeddingStore(tmp_path, limit_gb=1.5 * VOLUME_GB).evict() == ["a"]
    computed: list[int] = []

    def counted(indices: list[int]) -> Tensor:
        computed.extend(indices)
        return numbered(indices)

    again = EmbeddingStore(tmp_path).get_or_compute("a", [0, 1], counted)
    assert again.stack([1])[0, 0, 0, 0] == 1
    assert computed == [0, 1]


def test_the_log_says_how_many_were_on_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = EmbeddingStore(tmp_path)
    with caplog.at_level(logging.INFO):
        store.get_or_compute("a", [0, 1], numbered)
        store.get_or_compute("a", [0, 1, 2], numbered)
    assert "0 of 2 embeddings of SAM were on disk; 0 % of all so far." in caplog.text
    assert "2 of 3 embeddings of SAM were on disk; 40 % of all so far." in caplog.text


CHILD = """
import sys, time
from pathlib import Path
import torch
from aslseg.sam.embeddings import EmbeddingStore
folder, rounds, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
def numbered(indices):
    time.sleep(pause)
    return torch.stack([torch.full((256, 8, 8), float(k)) for k in indices])
print("ready", flush=True)
for n in range(rounds):
    store = EmbeddingStore(folder, limit_gb=float(sys.argv[4]))
    for key in "abcd":
        stored = store.get_or_compute(key, range(40), numbered)
        assert stored.stack(range(40))[:, 0, 0, 0].tolist() == list(range(40)), (key, n)
print("done", flush=True)
"""


def child(folder: Path, rounds: int, pause_s: float, limit_gb: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CHILD, folder, rounds, pause_s, limit_gb]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.slow
def test_processes_that_use_a_cache_too_small_for_both_read_what_they_stored(
    tmp_path: Path,
) -> None:
    limit_gb = 1.5 * 40 * SLICE_BYTES / 1e9  # each volume makes the others go
    children = [child(tmp_path, 3, 0.0, limit_gb) for _ in range(2)]
    for one in children:
        assert "done" in one.communicate(timeout=120)[0]
        assert one.returncode == 0
    assert list(tmp_path.glob(f"{TEMPORARY}*")) == [], "nothing is in use any more"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the signal is POSIX's")
def test_after_a_kill_in_the_middle_all_parts_are_whole_and_the_rest_is_made(
    tmp_path: Path,
) -> None:
    killed = child(tmp_path, 1, 0.1, 1.0)
    while not list(tmp_path.glob("b/0*.safetensors")):  # no unfinished one
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    computed: list[int] = []

    def counted(indices: list[int]) -> Tensor:
        computed.extend(indices)
        return numbered(indices)

    store = EmbeddingStore(tmp_path, limit_gb=0.5 * 40 * SLICE_BYTES / 1e9)
    stored = store.get_or_compute("b", range(40), counted)
    assert stored.stack(range(40))[:, 0, 0, 0].tolist() == list(range(40))
    assert 0 < len(computed) <= 40 - SLICES_PER_PART
    assert kept(tmp_path) == {"b"}, "what the killed process used is no longer in use"
