"""The engine keeps the session of a volume until a file of it is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from aslseg.data.images import write_labelmap
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.engine.tasks import Engine
from aslseg.events import Monitor
from aslseg.inference.interactive.propagation import GrowthEnd

SHAPE = (3, 4, 5)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Volume]:
    """The volumes that sessions were made of, without any network."""
    volumes: list[Volume] = []

    def session(volume: Volume, _: Any) -> Any:
        def grow(*_: Any, **__: Any) -> Iterator[GrowthEnd]:
            yield GrowthEnd(1, "appearance")

        volumes.append(volume)
        return SimpleNamespace(volume=volume, grow=grow)

    models = SimpleNamespace(targets=(), ensemble=None)
    monkeypatch.setattr("aslseg.engine.tasks.models_without_run", lambda *_: models)
    monkeypatch.setattr("aslseg.engine.tasks.Session", session)
    return volumes


def write_image(path: Path, value: int) -> Path:
    """Write voxels of one value; a header beside them is the same for all values."""
    sitk.WriteImage(sitk.GetImageFromArray(np.full(SHAPE, value, np.int16)), str(path))
    return path


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr", "a.nii.gz"])
def test_a_volume_is_read_again_once_its_voxels_are_replaced(
    seen: list[Volume], tmp_path: Path, name: str
) -> None:
    image, labels, engine = write_image(tmp_path / name, 1), tmp_path / "labels.nii.gz", Engine()
    grid = Geometry.axis_aligned(SHAPE, (1.0, 1.0, 1.0))
    write_labelmap(Labelmap(np.zeros(SHAPE, np.uint8), grid), labels)
    prompt = {"slice_index": 1, "target": "tumour", "box": [1, 1, 3, 3]}
    asked = {"image": str(image), "labels": str(labels), "prompts": [prompt], "device": "cpu"}
    engine.tasks["grow"](asked, Monitor())
    engine.tasks["grow"](asked, Monitor())
    assert [volume.voxels.max() for volume in seen] == [1]
    header = image.read_bytes(), image.stat().st_mtime_ns
    other = write_image(tmp_path / f"other-{name}", 2)
    for file in tmp_path.glob("other-*.*raw*"):
        file.replace(tmp_path / file.name.removeprefix("other-"))
    if name == "a.nii.gz":
        other.replace(image)
    else:
        assert (image.read_bytes(), image.stat().st_mtime_ns) == header
    engine.tasks["grow"](asked, Monitor())
    assert [volume.voxels.max() for volume in seen] == [1, 2]
