"""The lists of files in the CMake files, compared with the tree, and written from it.

`python Testing/package/cmake_lists.py` brings the lists up to date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class FileList:
    """A list of files in a CMakeLists.txt, and the files that belong into it."""

    folder: str
    head: str  # the text in front of the files, which are one a line
    patterns: tuple[str, ...]
    without_suffix: bool = False

    @property
    def path(self) -> Path:
        return ROOT / self.folder / "CMakeLists.txt"

    def expected(self) -> list[str]:
        home = ROOT / self.folder
        found = {path for pattern in self.patterns for path in home.glob(pattern)}
        files = {path for path in found if path.is_file() and "__pycache__" not in path.parts}
        names = sorted(path.relative_to(home).as_posix() for path in files - {self.path})
        return [name.removesuffix(".py") for name in names] if self.without_suffix else names

    def listed(self) -> list[str]:
        return self._match(self.path.read_text(encoding="utf-8"))[2].split()

    def write(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        lines = "".join(f"{self._indent}{name}\n" for name in self.expected())
        start, end = self._match(text).span(2)
        self.path.write_text(text[:start] + lines + text[end:], encoding="utf-8")

    @property
    def _indent(self) -> str:
        return "    " if self.head.startswith("foreach") else "  "

    def _match(self, text: str) -> re.Match[str]:
        match = re.search(rf"^({re.escape(self.head)}\n)([^)]*?)([ ]*\))", text, re.MULTILINE)
        assert match is not None, f"{self.path} has no '{self.head}'"
        return match


LISTS = [
    FileList("SlicerASLseg", "set(MODULE_PYTHON_SCRIPTS", ("ASLseg.py", "ASLsegLib/**/*.py")),
    FileList("Logic", "set(LIBRARY_PYTHON_SCRIPTS", ("aslseg/**/*.py",)),
    FileList(
        "Logic",
        "set(LIBRARY_PYTHON_RESOURCES",
        ("aslseg/**/*.typed", "aslseg/**/*.j2", "aslseg/**/*.css"),
    ),
    FileList("Resources", "set(RESOURCES", ("**/*",)),
    FileList("Testing/slicer/Python", "foreach(name IN ITEMS", ("*Test.py",), without_suffix=True),
]


if __name__ == "__main__":
    for each in LISTS:
        each.write()
