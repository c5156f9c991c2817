"""What must hold after every case, whatever was done to the program."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import SimpleITK as sitk  # noqa: N813
from filelock import FileLock, Timeout
from safetensors import safe_open

from faults.children import Ended

LIMIT_S, LIMIT_MIB = 10.0, 2048.0
_FALLEN = ("Traceback (most recent call last)", "not foreseen", "Segmentation fault")


def human_labels(project: Path) -> dict[str, bytes]:
    """Return every label map of a project folder, those of the history too, bit by bit."""
    files = sorted((project / "labels").rglob("*"))
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in files
        if path.is_file() and not path.name.startswith(".")
    }


def assert_labels_kept(project: Path, before: dict[str, bytes]) -> None:
    """Make sure that no label map of before is gone or has another bit."""
    now = human_labels(project)
    lost = [name for name, data in before.items() if now.get(name) != data]
    assert not lost, f"lost or changed labels of a person: {lost}"


def assert_calm(
    ended: Ended, *, codes: tuple[int, ...] = (0, 1, 2), limit_s: float = LIMIT_S
) -> None:
    """Make sure that a child ended by itself, in time, in little memory, and in words.

    Args:
        ended: How it ended.
        codes: Exit codes that are right.
        limit_s: Seconds that it may take, on a machine that does nothing else.
    """
    limit_s *= slowness()
    said = ended.out + ended.err
    assert ended.code is not None, f"no end within {ended.seconds:.0f} s\n{said[-2000:]}"
    assert ended.code in codes, f"exit code {ended.code}\n{said[-2000:]}"
    assert_no_traceback(said)
    assert ended.seconds <= limit_s, f"took {ended.seconds:.1f} s"
    assert ended.peak_mib <= LIMIT_MIB, f"held {ended.peak_mib:.0f} MiB"
    assert not ended.orphans, f"processes left behind: {ended.orphans}"
    if ended.code == 1:
        assert said.strip(), "refused without a word"


def slowness() -> float:
    """Return how many processes wait for each core of this machine, at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def assert_no_traceback(said: str) -> None:
    """Make sure that nothing unforeseen came to a user's eyes."""
    for sign in _FALLEN:
        assert sign not in said, said[-3000:]


def leftovers(folder: Path) -> list[str]:
    """List hidden files and folders, locks excepted: what is not finished yet is hidden."""
    hidden = (path for path in folder.rglob(".*") if path.suffix != ".lock")
    return sorted(path.relative_to(folder).as_posix() for path in hidden)


def assert_no_leftovers(folder: Path) -> None:
    """Make sure that no half-written file lies anywhere in a folder."""
    assert not leftovers(folder), f"left behind: {leftovers(folder)}"


def assert_lock_is_free(path: Path) -> None:
    """Make sure that nobody holds a lock; the file itself may stay."""
    if not path.exists():
        return
    try:
        with FileLock(path, timeout=0):
            return
    except Timeout:
        msg = f"{path} is held though nobody works"
        raise AssertionError(msg) from None


def assert_all_readable(folder: Path) -> None:
    """Read every visible file of a project or run as what its name says; nothing is cut off."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in inner):
            _read(path)


def _read(path: Path) -> None:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":  # only appended to: a last line without an end is no line
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                json.loads(line)
        elif path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                assert all(None not in row for row in csv.DictReader(file))
        elif path.name.endswith(".nii.gz"):
            sitk.ReadImage(str(path))
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="np") as weights:
                for name in weights.keys():  # noqa: SIM118  (no mapping)
                    weights.get_tensor(name)
    except (ValueError, RuntimeError, AssertionError, OSError) as error:
        msg = f"{path} cannot be read: {error}"
        raise AssertionError(msg) from error
