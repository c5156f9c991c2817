"""DICOM files of single slices, with the tags that a test is about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import SimpleITK as sitk  # noqa: N813


def write_slice(path: Path, image: sitk.Image, tags: Mapping[str, str]) -> None:
    """Write a slice whose UIDs are those of its tags, `group|element` in hexadecimal."""
    for tag, value in tags.items():
        image.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)
