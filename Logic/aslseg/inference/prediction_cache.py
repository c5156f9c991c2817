"""Predictions of whole volumes on disk: what was predicted once is read the next time.

Their key holds all that they depend on: the volume's voxels, place and given masks; the run's
weights, settings and targets, and the released weights of SAM; the device; the computer, which
decides about the precision of SAM's encoder (see `sam.precision`); this library's code, and the
versions of those that compute. They lie among SAM's embeddings, within one bound.

Nothing here imports torch, unless only torch can tell whether there is a GPU.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import platform
import runpy
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import aslseg
from aslseg.bounded_cache import BoundedCache
from aslseg.config import SamConfig
from aslseg.data.orientation import ORIENTATION, axial_labelmap, axial_volume, to_axial
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import StorageError
from aslseg.project.case import CACHE, EMBEDDINGS
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder, best_round, weights_digest
from aslseg.sam.weights import verify_weights
from aslseg.storage import atomic_path, plain, sha256_of

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
Made = TypeVar("Made")

COMPUTING = ("torch", "monai", "segment-anything", "numpy", "scipy", "SimpleITK")
"""Libraries of which another version may give other numbers."""

_FAST = 1
"""Level of compression: higher ones take much longer for little less."""
_MOST_BYTES_PER_VOXEL, _MOST_BYTES = 64, 16 << 20
_CHOOSE_INSTRUCTIONS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables by which torch goes without instructions that the processor has."""
_DAMAGE = (
    OSError, ValueError, TypeError, LookupError, AttributeError, EOFError,
    zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What reading a damaged file may raise: of the system, of the archive, and of its content."""
_LABELS = "labels"
_SOURCES = ("specialist", "sam", "refined")


@dataclass(frozen=True, slots=True, eq=False)
class LabelMaps:
    """The label maps of a volume, on its own voxels.

    Attributes:
        specialist: The specialist's.
        sam: SAM's; None without SAM.
        refined: The result.
    """

    specialist: Labelmap
    sam: Labelmap | None
    refined: Labelmap


class StoredPrediction:
    """What is on disk of the prediction of one volume.

    Args:
        folder: Of the entry, which may be absent.
        cache: That it belongs to.
        voxels: Number of the volume's voxels.
    """

    def __init__(self, folder: Path, cache: PredictionCache, voxels: int) -> None:
        self.folder = folder
        self._cache = cache
        self._most_bytes = _MOST_BYTES + _MOST_BYTES_PER_VOXEL * voxels

    def read(self, part: str, made_of: Callable[[Arrays], Made]) -> Made | None:
        """Return what a part holds; None where it is absent, or damaged, which the log says.

        Args:
            part: Its name.
            made_of: Makes it of its arrays.
        """
        path = self.folder / f"{part}.npz"
        found = None
        try:
            found = made_of(_read_arrays(path, self._most_bytes))
        except FileNotFoundError:
            pass
        except _DAMAGE as error:
            logger.warning("%s is damaged, and its prediction is made again: %r", path, error)
        self._cache.count(is_found=found is not None)
        return found

    def write(self, part: str, arrays: Arrays) -> None:
        """Store a part, whole or not at all; where that cannot be done, the log says so."""
        try:
            with atomic_path(self.folder / f"{part}.npz") as temporary:
                _write_arrays(temporary, arrays)
        except StorageError as error:
            logger.warning("A prediction is not kept for the next time: %s", error)
            return
        self._cache.evict()

    def label_maps(self, geometry: Geometry) -> LabelMaps | None:
        """Return the label maps of a volume of a geometry; None where they have to be made."""
        turn = to_axial(geometry)
        axial, back = turn.geometry(geometry), turn.inverse

        def made_of(arrays: Arrays) -> LabelMaps:
            maps = {
                name: back.labelmap(Labelmap(labels, axial), geometry)
                for name, labels in arrays.items()
            }
            return LabelMaps(maps["specialist"], maps.get("sam"), maps["refined"])

        return self.read(_LABELS, made_of)

    def keep_label_maps(self, maps: LabelMaps) -> None:
        """Store label maps, on the axial grid."""
        found = {name: getattr(maps, name) for name in _SOURCES}
        self.write(
            _LABELS,
            {name: axial_labelmap(one).labels for name, one in found.items() if one is not None},
        )


class PredictionCache(BoundedCache):
    """The predictions of a run on disk, which may be deleted at any time.

    Args:
        folder: Where; the folder of SAM's embeddings.
        limit_gb: The bound of both, in 10^9 bytes.
        facts: All that predictions depend on beside the volume: anything that JSON can hold.
    """

    def __init__(self, folder: Path, limit_gb: float, facts: Mapping[str, Any]) -> None:
        super().__init__(folder, limit_gb)
        self.facts = facts
        self._asked = self._found = 0

    def of(self, volume: Volume) -> StoredPrediction | None:
        """Return what is stored of a volume; no process deletes it as long as that is in use.

        None, with a word in the log, where the folder cannot be written.
        """
        parts = {"volume": _digest_of(axial_volume(volume)), **self.facts}
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]
        try:
            return self.hold(key, lambda folder: StoredPrediction(folder, self, volume.voxels.size))
        except StorageError as error:
            logger.warning("Predictions are not kept for the next time: %s", error)
            return None

    def count(self, *, is_found: bool) -> None:
        """Say in the log how often a prediction was on disk."""
        self._asked, self._found = self._asked + 1, self._found + is_found
        logger.info(
            "The prediction of a volume was %son disk; %.0f %% of all so far.",
            "" if is_found else "not ",
            100 * self._found / self._asked,
        )


def open_predictions(run: RunFolder, device: str | None = None) -> PredictionCache | None:
    """Return the cache of the predictions of a run's best round.

    None where what they depend on is not known: of a run without networks or of volumes that it saw
    in another orientation, and as long as the weights of its SAM have to be downloaded.

    Args:
        run: With a finished round.
        device: Where to compute; None is what the run's settings say.

    Raises:
        RunError: When the run has no finished round.
        DeviceError: When the device is not there.
    """
    if run.is_external or run.status.orientation != ORIENTATION:
        return None
    config = run.config
    sam_sha256 = _sam_digest(config.sam)
    if sam_sha256 is None:
        return None
    project = run.path.parents[1]
    number = best_round(run)
    facts = {
        "settings": config.model_dump(mode="json", exclude={"device": True, "sam": {"cache_gb"}}),
        "targets": [target.model_dump(mode="json") for target in open_project(project).targets],
        "given_targets": sorted(run.status.given_targets),
        "weights": weights_digest(run, number),
        "sam": sam_sha256,
        "device": _device(device or config.device),
        "computer": _computer(),
        "code": _CODE,
    }
    return PredictionCache(project / CACHE / EMBEDDINGS, config.sam.cache_gb, plain(facts))


def unchanged(
    before: PredictionCache | None, run: RunFolder, device: str | None
) -> PredictionCache | None:
    """Return a cache, once the networks are loaded, if they are those that it was opened for.

    Args:
        before: Opened before they were loaded.
        run: As in `open_predictions`.
        device: The same.
    """
    after = None if before is None else open_predictions(run, device)
    if before is None or after is None or after.facts != before.facts:
        logger.info("The predictions of run '%s' are not kept on disk this time.", run.run_id)
        return None
    return before


def _sam_digest(settings: SamConfig) -> str | None:
    """Return the SHA-256 of SAM's released weights; empty without SAM, None if there are none."""
    if settings.model == "none":
        return ""
    if settings.checkpoint is not None:
        path: Path | None = Path(settings.checkpoint)
    else:
        found = verify_weights(settings.model)
        path = None if found.problem else found.path
    return None if path is None or not path.is_file() else sha256_of(path)


def _device(wish: str) -> str:
    """Say what device is chosen; torch is asked unless it can be only the processor."""
    if wish == "cpu" or (wish == "auto" and _is_without_gpu()):
        return "cpu"
    from aslseg.networks.device import choose_device

    chosen = choose_device(wish)
    kind: str = chosen.torch_device.type
    return kind if kind == "cpu" else f"{kind}: {chosen.reason}"


def _is_without_gpu() -> bool:
    """Whether the installed torch was built for the processor alone."""
    found = find_spec("torch")
    if sys.platform == "darwin" or found is None or found.origin is None:
        return False
    said = runpy.run_path(str(Path(found.origin).with_name("version.py")))
    return said.get("cuda") is None and said.get("hip") is None


@cache
def _computer() -> list[Any]:
    """Return what decides how this computer computes."""
    facts: Any = np.show_config(mode="dicts")
    chosen = [os.environ.get(name, "") for name in _CHOOSE_INSTRUCTIONS]
    return [platform.node(), platform.machine(), facts["SIMD Extensions"], chosen]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _code() -> dict[str, str]:
    """Return the digest of this library's code, and the versions of those that it computes with."""
    folder = Path(aslseg.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return {"aslseg": f"{aslseg.__version__} {digest.hexdigest()}"} | {
        name: _version(name) for name in COMPUTING
    }


_CODE = _code()
"""As it is loaded by this process, which may go on for longer than an installation."""


def _digest_of(volume: Volume) -> str:
    """Return the SHA-256 of a volume: voxels, place, and given masks."""
    digest = hashlib.sha256(volume.geometry.ijk_to_ras.tobytes())
    arrays = {"": volume.voxels, **volume.given}
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _write_arrays(path: Path, arrays: Arrays) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_FAST) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _read_arrays(path: Path, most_bytes: int) -> Arrays:
    """Read arrays, of which the checksums are compared before anything else.

    Raises:
        FileNotFoundError: When there is no such file.
        OSError: When it cannot be read.
        ValueError: When it holds something else, or more than it may.
        BadZipFile: When it is damaged; `zlib.error` and EOFError too.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > most_bytes:
            msg = "it holds more than a prediction"
            raise ValueError(msg)
        return {
            member.filename.removesuffix(".npy"): np.lib.format.read_array(
                io.BytesIO(archive.read(member)), allow_pickle=False
            )
            for member in members
        }
