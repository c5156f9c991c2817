"""Which files of the product are entered while something runs: how far a reader has to go."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = {"aslseg": ROOT / "Logic" / "aslseg", "ASLsegLib": ROOT / "SlicerASLseg" / "ASLsegLib"}


@contextmanager
def entered_files() -> Iterator[set[str]]:
    """Collect the files of which a function is called in the block, or in threads begun in it.

    Yields:
        `aslseg/runs.py` or `ASLsegLib/paths.py`, for example. That a module is imported does not
        count.
    """
    entered: set[str] = set()
    names: dict[str, str | None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or code.co_name == "<module>":
            return
        if code.co_filename not in names:
            names[code.co_filename] = _name_of(Path(code.co_filename))
        if (name := names[code.co_filename]) is not None:
            entered.add(name)

    before = sys.getprofile()
    sys.setprofile(note)
    threading.setprofile(note)
    try:
        yield entered
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def _name_of(path: Path) -> str | None:
    for package, folder in PRODUCT.items():
        if path.is_relative_to(folder):
            return f"{package}/{path.relative_to(folder).as_posix()}"
    return None
