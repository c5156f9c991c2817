"""What every test may rely on: quiet threads, a private cache, small volumes, the real images."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# Before numpy or torch start their thread pools: one thread gives one order of summation.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# No test leaves this computer, nor does a program that one starts: nobody answers at this address.
if not os.environ.get("ASLSEG_NETWORK"):
    for _name in ("http_proxy", "https_proxy", "npm_config_registry"):
        os.environ[_name] = "http://127.0.0.1:9"
    os.environ["no_proxy"] = "127.0.0.1,localhost"
    # What npm once got would be an answer, and it asks again for minutes.
    os.environ.update(npm_config_cache=os.devnull, npm_config_fetch_retries="0")

import hypothesis
import numpy as np
import pytest

from aslseg.data.volume import Geometry, Labelmap, Volume

ROOT = Path(__file__).resolve().parents[1]

pytest.register_assert_rewrite("support.sam_methods")  # so that its checks say what differs

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")

# No test cuts the power: what it writes need not be on the disk before it goes on. Programs that
# it starts do wait for the disk.
os.fsync = os.fstat  # type: ignore[assignment]  # refuses a closed file, too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that uses the real images as `shared`, so that `-m "not shared"` leaves it."""
    for item in items:
        if "shared_folder" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Folder of real images and weights that is no part of the repository."""
    folder = Path(os.environ.get("ASLSEG_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real images: {folder / 'data'} is absent (set ASLSEG_SHARED)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of fixtures of modules too: a run made there is compared with one of a test."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path_factory.getbasetemp() / "aslseg-cache"))
        yield


@pytest.fixture(autouse=True)
def _repeatable_torch() -> None:
    torch: ModuleType | None = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)
        torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that draws the same numbers in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def a_geometry() -> Geometry:
    """A small anisotropic grid: 6 slices of 4 mm, 20 x 24 voxels of 2 x 1.5 mm."""
    return Geometry.axis_aligned((6, 20, 24), (4.0, 2.0, 1.5))


@pytest.fixture
def an_oblique_geometry() -> Geometry:
    """The same grid, turned by 30 degrees about the patient's long axis and moved."""
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.5, -2.0, 4.0])
    affine[:3, 3] = (12.5, -40.0, 103.25)
    return Geometry((6, 20, 24), affine)


@pytest.fixture
def a_small_ct(a_geometry: Geometry, rng: np.random.Generator) -> Volume:
    """A noisy volume (SD 10 HU) with a 100 HU block where `a_small_labelmap` says organ."""
    voxels = rng.normal(0.0, 10.0, a_geometry.shape).astype(np.float32)
    voxels[1:5, 5:15, 6:18] += 100.0
    return Volume(voxels, a_geometry)


@pytest.fixture
def a_small_labelmap(a_geometry: Geometry) -> Labelmap:
    """A block of 4 x 10 x 12 voxels of class 1 that holds a cube of 2 x 3 x 3 of class 2."""
    labels = np.zeros(a_geometry.shape, np.uint8)
    labels[1:5, 5:15, 6:18] = 1
    labels[2:4, 8:11, 9:12] = 2
    return Labelmap(labels, a_geometry)
