"""Own weights come back as they were, or not at all; foreign ones run no code."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from aslseg.errors import StorageError, WeightsError
from aslseg.networks.checkpoints import (
    Checkpoint,
    load_checkpoint,
    load_state,
    save_checkpoint,
    tensors_digest,
)

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(3), "c": torch.zeros(0)}


@pytest.fixture
def a_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, Checkpoint("specialist", TENSORS, {"width": [1, 2], "name": "é"}))
    return path


def test_a_checkpoint_comes_back_as_it_was(a_file: Path) -> None:
    again = load_checkpoint(a_file, "specialist")
    assert again.config == {"width": [1, 2], "name": "é"}
    assert again.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(again.tensors[name], value) for name, value in TENSORS.items())


def test_a_transposed_tensor_is_saved_by_its_values(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_checkpoint(path, Checkpoint("x", {"t": TENSORS["a.weight"].T}))
    assert torch.equal(load_checkpoint(path, "x").tensors["t"], TENSORS["a.weight"].T)


def test_weights_of_another_kind_are_refused(a_file: Path) -> None:
    with pytest.raises(WeightsError, match="kind 'specialist', not 'sam'"):
        load_checkpoint(a_file, "sam")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused_by_the_name_of_their_file(
    a_file: Path, value: float
) -> None:
    spoilt = {**TENSORS, "a.weight": TENSORS["a.weight"].clone().fill_diagonal_(value)}
    save_checkpoint(a_file, Checkpoint("specialist", spoilt))  # as a version before let it be
    with pytest.raises(WeightsError, match=r"net\.safetensors are no numbers .* resume the run"):
        load_checkpoint(a_file, "specialist")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file .*absent\.safetensors"):
        load_checkpoint(tmp_path / "absent.safetensors", "x")


def test_a_truncated_file_is_refused(a_file: Path) -> None:
    a_file.write_bytes(a_file.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="damaged"):
        load_checkpoint(a_file, "specialist")


def test_a_changed_value_is_noticed(a_file: Path) -> None:
    content = bytearray(a_file.read_bytes())
    content[-1] ^= 1
    a_file.write_bytes(content)
    with pytest.raises(WeightsError, match="checksum"):
        load_checkpoint(a_file, "specialist")


def test_a_safetensors_file_of_somebody_else_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file(TENSORS, path)
    with pytest.raises(WeightsError, match="no checkpoint"):
        load_checkpoint(path, "x")
    assert torch.equal(load_state(path)["a.weight"], TENSORS["a.weight"])


def test_a_failed_save_leaves_the_old_checkpoint(
    a_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = a_file.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="disk is full"):
        save_checkpoint(a_file, Checkpoint("specialist", TENSORS))
    assert a_file.read_bytes() == before
    assert list(a_file.parent.iterdir()) == [a_file]


def test_the_digest_ignores_order_and_feels_everything_else() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    digest = tensors_digest({"a": one, "b": two})
    assert tensors_digest({"b": two, "a": one}) == digest
    others: list[dict[str, torch.Tensor]] = [
        {"a": one, "c": two},
        {"a": one.flip(0), "b": two},
        {"a": one.view(1, 2), "b": two},
        {"a": one.view(torch.int32), "b": two},
    ]
    assert digest not in {tensors_digest(other) for other in others}


@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_foreign_weights_may_lie_under_a_key(tmp_path: Path, key: str | None) -> None:
    path = tmp_path / "net.pth"
    torch.save(TENSORS if key is None else {key: TENSORS}, path)
    assert torch.equal(load_state(path)["b"], TENSORS["b"])


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}])
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "net.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="dictionary of tensors"):
        load_state(path)


@pytest.mark.parametrize("content", [b"", b"not a network", b"PK\x03\x04 broken"])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"net\.pth"):
        load_state(path)


def test_a_truncated_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match=r"net\.pth"):
        load_state(path)


class _CreatesAFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_does_not_run_it(tmp_path: Path) -> None:
    trap, path = tmp_path / "was_here", tmp_path / "net.pth"
    with path.open("wb") as file:
        pickle.dump({"model": _CreatesAFile(trap)}, file)
    with pytest.raises(WeightsError, match="would run code"):
        load_state(path)
    assert not trap.exists()


def with_metadata(path: Path, **changes: str | None) -> None:
    """Change what a file says about itself, as somebody else might."""
    with safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), **changes}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {key: value for key, value in metadata.items() if value is not None})


@pytest.mark.parametrize(
    ("config", "digest"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("", None, id="empty"),
        pytest.param("junk", None, id="junk"),
        pytest.param("[1]", None, id="a list"),
        pytest.param("[" * 100_000, None, id="deep"),
        pytest.param('{"width": [2, 2]}', "kept", id="changed"),
    ],
)
def test_junk_about_the_weights_is_refused(
    a_file: Path, config: str | None, digest: str | None
) -> None:
    changes = {"config": config} if digest == "kept" else {"config": config, "config_sha256": None}
    with_metadata(a_file, **changes)
    with pytest.raises(WeightsError, match="says no longer what its weights are for"):
        load_checkpoint(a_file, "specialist")


def test_checkpoints_of_earlier_versions_are_read(a_file: Path) -> None:
    with_metadata(a_file, config_sha256=None)
    assert load_checkpoint(a_file, "specialist").config["width"] == [1, 2]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_checkpoint_is_read_by_whoever_reads_other_files_of_the_folder(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", Checkpoint("x", TENSORS))
    (tmp_path / "other").write_bytes(b"")
    checkpoint, other = ((tmp_path / name).stat().st_mode for name in ("a.safetensors", "other"))
    assert checkpoint == other


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb{suffix}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", b"\0" * (50 << 20))
    with pytest.raises(WeightsError, match="damaged"):
        load_state(path)


def test_tensors_of_more_than_is_in_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.pth"
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(WeightsError, match="dictionary of tensors"):
        load_state(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00X" + b"\xff" * 40, b"ustar" * 200]
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError):
        load_state(tmp_path / "a.pth")
