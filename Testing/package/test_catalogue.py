"""The rules that the Extensions Index publishes, applied to our entry and to the repository.

The addresses are checked by their spelling: what they lead to lies in this repository.
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest

from package.cmake_lists import ROOT
from package.png_files import png_size

ENTRY = ROOT / "Docs" / "ASLseg.json"
DATA = json.loads(ENTRY.read_text(encoding="utf-8"))
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Properties of the schema v1.0.1, which allows no others.
ALLOWED = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "enabled": bool,
    "tier": int,
}
REPOSITORY = "https://github.com/SlicerASLseg/SlicerASLseg"
RAW = "https://raw.githubusercontent.com/SlicerASLseg/SlicerASLseg/main/"
LICENCES = ["LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING"]


def variable(name: str) -> str:
    """A variable as the index finds it: quoted and on one line."""
    found = re.findall(rf'^set\s*\({name}\s*"([^"\n]+)"\s*\)$', CMAKE, re.MULTILINE)
    assert len(found) == 1, f"{name} must be set once, quoted, on one line"
    return str(found[0])


def test_the_entry_has_what_the_schema_requires_and_nothing_else() -> None:
    assert {"$schema", "category", "scm_url"} <= set(DATA)
    assert {name: type(value) for name, value in DATA.items()} == {
        name: ALLOWED.get(name) for name in DATA
    }
    assert DATA["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert DATA["tier"] in (1, 3, 5)


def test_the_category_is_one_of_the_accepted_ones() -> None:
    assert DATA["category"] in ("Segmentation", "Active Learning")


def test_the_extension_is_not_called_slicer_but_its_repository_is() -> None:
    assert not ENTRY.stem.startswith("Slicer")
    scheme, _, path = DATA["scm_url"].partition("://")
    assert scheme in ("https", "git")
    assert re.match(r"Slicer([-_]|Extension[-_])?ASLseg(\.git)?$", path.split("/")[-1])


def test_the_project_of_cmake_has_the_name_of_the_entry() -> None:
    assert re.findall(r"^project\(([^\s)]+)", CMAKE, re.MULTILINE) == [ENTRY.stem]


def test_entry_and_cmake_name_the_same_repository_and_dependencies() -> None:
    assert DATA["scm_url"].removesuffix(".git") == variable("EXTENSION_HOMEPAGE") == REPOSITORY
    assert variable("EXTENSION_DEPENDS").split() == DATA["build_dependencies"]


@pytest.mark.parametrize(
    "name", ["HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"]
)
def test_metadata_is_found_by_the_one_line_pattern(name: str) -> None:
    assert variable(f"EXTENSION_{name}")


@pytest.mark.parametrize("name", ["EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"])
def test_pictures_of_the_catalogue_are_files_of_this_repository(name: str) -> None:
    for url in variable(name).split():
        assert url.startswith(RAW)
        assert url.endswith(".png")
        assert min(png_size(ROOT / url.removeprefix(RAW))) >= 128


def test_the_icon_is_128_pixels_wide_and_high() -> None:
    assert png_size(ROOT / "Resources" / "Icons" / "ASLseg.png") == (128, 128)


def test_the_icon_is_what_its_script_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pytest.importorskip("matplotlib.image")
    monkeypatch.setattr("sys.argv", ["icon.py", str(tmp_path / "icon.png")])
    runpy.run_path(str(ROOT / "Testing" / "pictures" / "icon.py"), run_name="__main__")
    drawn = images.imread(tmp_path / "icon.png")
    kept = images.imread(ROOT / "Resources" / "Icons" / "ASLseg.png")
    assert np.abs(drawn - kept).max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("name", ["ASLsegPhantom.png", "ASLsegCTLiver.png"])
def test_sample_data_has_a_picture_of_the_usual_size(name: str) -> None:
    assert png_size(ROOT / "Resources" / "Icons" / name) == (260, 280)


def test_there_is_a_licence_in_the_root_and_the_readme_names_it() -> None:
    assert any((ROOT / name).is_file() for name in LICENCES)
    assert "Apache-2.0" in README


def test_the_description_says_what_it_is_for_and_what_it_is_not() -> None:
    words = variable("EXTENSION_DESCRIPTION")
    assert all(each in words for each in ("CT", "Segment Anything", "Not related to arterial"))
    assert 100 < len(words) < 600


@pytest.mark.parametrize("name", re.findall(r"^set\((EXTENSION_\w+)", CMAKE, re.MULTILINE))
def test_no_metadata_holds_a_semicolon_at_which_cmake_would_cut_it(name: str) -> None:
    assert ";" not in variable(name)


def test_the_readme_has_what_reviewers_look_for() -> None:
    assert re.search(r"!\[[^\]]+\]\(Docs/screenshots/[\w-]+\.png\)", README)
    for heading in ("Modules", "Tutorial", "cite", "Licence", "Remov"):
        assert re.search(rf"^#+ .*{heading}", README, re.MULTILINE), heading
    assert "10.1109/ISBI56570.2024.10635501" in README


def test_the_repository_with_its_history_stays_below_100_megabytes() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(ROOT), "count-objects", "-v"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    sizes = dict(line.split(": ") for line in text.splitlines())
    history_kib = int(sizes["size"]) + int(sizes["size-pack"])
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True
    ).stdout
    files = [ROOT / name for name in listing.split("\0") if name]
    tree_kib = sum(path.stat().st_size for path in files if path.exists()) / 1024
    assert history_kib + tree_kib < 100_000
