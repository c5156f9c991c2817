"""A file is whole or absent, and a full or read-only disk is told in words."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from aslseg.errors import StorageError
from aslseg.storage import (
    atomic_folder,
    atomic_path,
    copy_atomic,
    sha256_of,
    unwritable,
    write_json_atomic,
    write_text_atomic,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half_and_fail(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def fill_half_and_fail(path: Path, error: BaseException) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("a")
        raise error


def test_the_file_appears_only_when_the_body_is_done(tmp_path: Path) -> None:
    path = tmp_path / "new" / "case.nii.gz"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"whole")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffixes == [".nii", ".gz"]
    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["case.nii.gz"]


def test_a_failing_body_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="cut"):
        write_half_and_fail(path, RuntimeError("cut"))
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["status.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(errno.ENOSPC, "disk is full; free some space", id="disk full"),
        pytest.param(errno.EROFS, "disk is read-only", id="read-only disk"),
        pytest.param(errno.EACCES, "permission is denied", id="read-only folder"),
        pytest.param(errno.EDQUOT, "quota", id="quota"),
    ],
)
def test_storage_problems_are_told_with_a_remedy(tmp_path: Path, number: int, words: str) -> None:
    path = tmp_path / "labels.nii.gz"
    with pytest.raises(StorageError, match=words) as caught:
        write_half_and_fail(path, OSError(number, os.strerror(number)))
    assert str(path) in str(caught.value)
    assert names(tmp_path) == []


def test_other_problems_of_the_body_are_not_disguised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "absent").read_bytes()


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StorageError, match="choose another folder"):
        write_text_atomic(tmp_path / "runs" / "log.txt", "x")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_without_write_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="permission is denied"):
            write_text_atomic(tmp_path / "log.txt", "x")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_appears_only_when_it_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "export"
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("a")
        assert not path.exists()
    assert names(path) == ["a"]
    assert names(tmp_path) == ["export"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    with atomic_folder(tmp_path / "export") as temporary:
        (temporary / "a").write_text("a")
    assert names(tmp_path / "export") == ["a"]


def test_a_failing_body_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cut"):
        fill_half_and_fail(tmp_path / "x", RuntimeError("cut"))
    assert names(tmp_path) == []


def test_a_folder_with_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(StorageError, match="holds files already"), atomic_folder(tmp_path):
        pytest.fail("the body must not run")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "mine"


def test_json_holds_paths_numbers_and_null_for_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    values = {"p": Path("a") / "b", "n": np.float32(0.5), "nan": float("nan"), 1: (np.int64(2),)}
    write_json_atomic(path, values | {"array": np.arange(2), "word": "Läsion"})
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read == {
        "p": "a/b",
        "n": 0.5,
        "nan": None,
        "1": [2],
        "array": [0, 1],
        "word": "Läsion",
    }
    assert path.read_bytes().endswith(b"}\n")


def test_what_has_no_json_form_is_a_programmers_mistake(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json_atomic(tmp_path / "a.json", {"a": object()})
    assert names(tmp_path) == []


def test_a_copy_is_equal(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    copy_atomic(tmp_path / "a", tmp_path / "b" / "c")
    assert (tmp_path / "b" / "c").read_bytes() == b"123"


def test_the_digest_of_a_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 700_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 700_000).hexdigest()


def test_the_digest_of_a_folder_knows_names_and_contents(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.dcm").write_bytes(b"slice")
    shutil.move(tmp_path / "two" / "1.dcm", tmp_path / "two" / "2.dcm")
    (tmp_path / "three" / ".hidden").write_bytes(b"")
    one, two, three = (sha256_of(tmp_path / name) for name in ("one", "two", "three"))
    assert one != two
    assert one == three


def test_what_libraries_make_of_a_full_disk_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "absent" / "a.safetensors"
    told = SafetensorError("I/O error: No space left on device (os error 28)")
    assert "the disk is full" in str(unwritable(path, told))
    by_itk = RuntimeError("Exception thrown in SimpleITK:\nReason: No space left on device")
    assert "the disk is full" in str(unwritable(path, by_itk))
    unknown = str(unwritable(path, RuntimeError("Exception thrown:\nReason: a bad day")))
    assert "Exception thrown: Reason: a bad day; check the disk" in unknown
    cut_off = OSError("3072 requested and 3040 written")
    assert "3072 requested and 3040 written; check the disk" in str(unwritable(path, cut_off))
    usage = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "the disk is full" in str(unwritable(path, cut_off))
    assert "read-only" in str(unwritable(path, OSError(errno.EROFS, "Read-only file system")))
