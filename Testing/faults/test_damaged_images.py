"""Damaged and hostile image files: a right volume or one sentence, never a crash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase

from faults.campaigns import Campaign, count, seed
from faults.checks import LIMIT_MIB, LIMIT_S
from faults.children import Ended, run_child
from faults.image_files import VOXELS, Files, damaged, hostile, whole, write

KINDS = ["nifti", "nrrd", "metaimage", "dicom"]
_DOORS = ("read_volume", "read_labelmap", "read_geometry")


def read_all(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read files in children; a child that is ended by a file is followed by another one."""
    rows: list[dict[str, Any]] = []
    while len(rows) < len(paths):
        left = paths[len(rows) :]
        names = "\n".join(map(str, left)).encode(errors="surrogateescape")
        limit_s = 60.0 + 2.0 * len(left)
        ended = run_child(["-m", "faults.read_images"], stdin=names, limit_s=limit_s)
        rows += [json.loads(line) for line in ended.out.splitlines()]
        if len(rows) < len(paths):
            rows.append({"crash": _crash(ended)})
    return rows


def _crash(ended: Ended) -> str:
    return f"exit code {ended.code} after {ended.seconds:.0f} s: {ended.err[-500:]}"


def assert_answered(row: dict[str, Any], path: Path) -> None:
    """Make sure that each door gave a possible volume or one sentence, in time and memory."""
    assert "crash" not in row, row["crash"]
    assert row["peak_mib"] < LIMIT_MIB, f"held {row['peak_mib']:.0f} MiB"
    for door in _DOORS:
        report = row[door]
        assert "fell" not in report, f"{door}: {report['fell']}"
        assert report["seconds"] < LIMIT_S, f"{door} took {report['seconds']:.1f} s"
        if "refused" in report:
            assert str(path) in report["refused"] or path.name in report["refused"], report[
                "refused"
            ]
            assert "\n" not in report["refused"].strip(), report["refused"]
            assert len(report["refused"]) < 600, report["refused"]
            assert "does not fit" not in report["refused"], "asked for too much memory"
        else:
            assert_possible(report)


def assert_possible(report: dict[str, Any]) -> None:
    """Make sure that a volume is one that could exist."""
    affine = np.reshape(report["affine"], (4, 4))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    assert np.isfinite(affine).all()
    assert ((spacing >= 0.0099) & (spacing <= 50.01)).all(), f"spacing {spacing}"
    assert min(report["shape"]) >= 1
    assert report.get("has", report["shape"]) == report["shape"]


def digest_of(voxels: np.ndarray) -> str:
    return hashlib.sha256(voxels.tobytes()).hexdigest()


def is_packed(files: Files) -> bool:
    """Whether the voxels have a checksum."""
    return any(name.endswith((".gz", ".zraw")) for name in files) or any(
        sign in content[:600]
        for content in files.values()
        for sign in (b"CompressedData = True", b"encoding: gzip", b"encoding: bzip2")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_files_are_read_alike(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    paths = [
        write(files, tmp_path / str(number), is_folder=kind == "dicom")
        for number, files in enumerate(whole(kind))
    ]
    affine = np.diag([-1.25, -1.5, 4.0, 1.0])
    affine[:3, 3] = (30, 40, -50)
    for path, row in zip(paths, read_all(paths), strict=True):
        with campaign.case(path):
            assert_answered(row, path)
            assert row["read_volume"]["digest"] == digest_of(VOXELS)
            for door in ("read_volume", "read_geometry"):
                np.testing.assert_allclose(np.reshape(row[door]["affine"], (4, 4)), affine)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_are_refused(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    cases = list(hostile(kind))
    paths = [
        write(files, tmp_path / str(number), is_folder=kind == "dicom")
        for number, (_, files) in enumerate(cases)
    ]
    for (what, _), path, row in zip(cases, paths, read_all(paths), strict=True):
        with campaign.case(what):
            assert_answered(row, path)
            assert "refused" in row["read_volume"], "taken"


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_rightly_or_refused(
    campaign: Campaign, tmp_path: Path, kind: str
) -> None:
    drawn: list[tuple[Files, str]] = []

    @hypothesis.seed(seed())
    @hypothesis.settings(
        max_examples=count(short=25, full=300),
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(damaged(kind))
    def draw(one: tuple[Files, str]) -> None:
        drawn.append(one)

    draw()
    paths = [
        write(files, tmp_path / str(number), is_folder=kind == "dicom")
        for number, (files, _) in enumerate(drawn)
    ]
    for (files, what), path, row in zip(drawn, paths, read_all(paths), strict=True):
        with campaign.case(f"{path.relative_to(tmp_path)} ({what})"):
            assert_answered(row, path)
            report = row["read_volume"]
            if "cut off" in what and kind != "dicom":
                assert "refused" in report, "a file that is cut off was taken"
            if is_packed(files) and "header" not in what and "digest" in report:
                assert report["digest"] == digest_of(VOXELS), "damaged voxels were taken"
