"""Child process of the image campaign: reads each file that stdin names, and says how it went.

One line of JSON per file, before the next is begun: whoever started this process sees which file
ended it.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aslseg.data.images import read_geometry, read_labelmap, read_volume
from aslseg.errors import AslsegError

_ADDRESS_SPACE = 4 << 30


def _said(read: Callable[[Path], Any], path: Path) -> dict[str, Any]:
    began = time.monotonic()
    try:
        found = read(path)
    except AslsegError as error:
        return {"refused": str(error), "seconds": time.monotonic() - began}
    except Exception as error:
        return {"fell": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - began}
    facts: dict[str, Any] = {"seconds": time.monotonic() - began}
    geometry = getattr(found, "geometry", found)
    facts |= {"shape": geometry.shape, "affine": geometry.ijk_to_ras.ravel().tolist()}
    voxels = getattr(found, "voxels", getattr(found, "labels", None))
    if voxels is not None:
        facts |= {"type": str(voxels.dtype), "has": list(voxels.shape)}
        facts["digest"] = hashlib.sha256(voxels.tobytes()).hexdigest()
    return facts


def peak_mib() -> float:
    """Return the most memory that this process has held.

    `ru_maxrss` would count what the process that started this one held when it did.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Read what stdin names, one path a line."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    for line in sys.stdin.buffer.read().decode(errors="surrogateescape").splitlines():
        path = Path(line)
        row = {
            read.__name__: _said(read, path) for read in (read_volume, read_labelmap, read_geometry)
        }
        row["peak_mib"] = peak_mib()
        print(json.dumps(row), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
