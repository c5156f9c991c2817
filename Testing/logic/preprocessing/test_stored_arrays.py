"""Views and embeddings on disk: damaged ones are made again or refused, a full disk is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from aslseg.data.masks import BoundingBox
from aslseg.errors import StorageError
from aslseg.preprocessing.roi import Roi, load_roi, save_roi
from aslseg.sam.embeddings import VolumeEmbeddings
from aslseg.storage import temporary_beside


def a_roi() -> Roi:
    image = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    return Roi(image, None, None, BoundingBox((0, 0, 0), (2, 4, 4)), (2, 4, 4), 1)


def embeddings(folder: Path) -> Path:
    """Store the embeddings of slices 2 and 4, and return the part that holds them."""
    VolumeEmbeddings(folder).store([4, 2], torch.rand(2, 8, 2, 2))
    (part,) = folder.iterdir()
    return part


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, b"\xff" * 8 + b"{}", b"x" * 500], ids=["empty", "0", "huge", "x"]
)
def test_damaged_embeddings_are_made_again(tmp_path: Path, content: bytes) -> None:
    embeddings(tmp_path).write_bytes(content)
    assert VolumeEmbeddings(tmp_path).indices == []


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param({"indices": torch.tensor([1, 2])}, id="without embeddings"),
        pytest.param({"embeddings": torch.rand(1, 8, 2, 2)}, id="without indices"),
        pytest.param({"indices": torch.tensor(1), "embeddings": torch.rand(1)}, id="shapes"),
        pytest.param(
            {"indices": torch.tensor([1]), "embeddings": torch.rand(2, 8, 2, 2)}, id="numbers"
        ),
    ],
)
def test_parts_that_are_no_embeddings_do_not_count(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    assert VolumeEmbeddings(tmp_path).indices == []


def test_a_part_that_a_killed_process_left_does_not_count(tmp_path: Path) -> None:
    part = embeddings(tmp_path)
    part.rename(temporary_beside(part))
    assert VolumeEmbeddings(tmp_path).indices == []


def test_a_part_that_is_damaged_later_is_refused_with_the_remedy(tmp_path: Path) -> None:
    part = embeddings(tmp_path)
    stored = VolumeEmbeddings(tmp_path)
    assert stored.stack([2, 4]).shape == (2, 8, 2, 2)
    part.write_bytes(b"x" * 500)
    with pytest.raises(StorageError, match="delete this file, it is made again"):
        stored.stack([2])


@pytest.mark.parametrize("name", ["roi.json", "image.npy"])
@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\x93NUMPY", b"x" * 500, None])
def test_a_damaged_roi_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    save_roi(a_roi(), tmp_path / "roi")
    assert np.array_equal(load_roi(tmp_path / "roi").image, a_roi().image)
    path = tmp_path / "roi" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(StorageError, match="and resume the run"):
        load_roi(tmp_path / "roi")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError("512 requested and 0 written")]
)
def test_a_full_disk_is_told_when_a_roi_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("aslseg.preprocessing.roi.np.save", full)
    with pytest.raises(StorageError, match=r"Cannot write .*roi: "):
        save_roi(a_roi(), tmp_path / "roi")
