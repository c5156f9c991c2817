"""Digests of images are taken again when any file of theirs has changed."""

from __future__ import annotations

from pathlib import Path

from aslseg.remote.mirror import Digests

HEADER = """ObjectType = Image
NDims = 3
DimSize = 2 2 2
ElementSpacing = 1 1 1
ElementType = MET_UCHAR
ElementDataFile = a.raw
"""


def test_voxels_that_change_beside_their_header_are_another_image(tmp_path: Path) -> None:
    header, voxels = tmp_path / "a.mhd", tmp_path / "a.raw"
    header.write_text(HEADER, encoding="utf-8")
    voxels.write_bytes(bytes(8))
    digests = Digests()
    before = digests.image(header)
    assert digests.image(header) == before
    voxels.write_bytes(bytes([1] * 8))
    assert digests.image(header) != before
