"""What users are told to click exists, all of it is explained, and quoted messages are ours."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from aslseg.presets import read_preset
from package.cmake_lists import ROOT
from package.png_files import png_size

PANEL = ROOT / "Resources" / "UI" / "ASLseg.ui"
DIALOGS = sorted((ROOT / "Resources" / "UI").glob("*.ui"))
DOCS = ROOT / "Docs"
TUTORIAL = DOCS / "tutorial.md"
CLICKABLE = ("QPushButton", "QCheckBox", "QToolButton", "QRadioButton")


def text_of(path: Path) -> str:
    """The text of a page, each paragraph on one line."""
    return re.sub(r"(?<=\S)\n[ ]*(?=\S)", " ", path.read_text(encoding="utf-8"))


def texts(kinds: tuple[str, ...] = ()) -> set[str]:
    """What is written on controls of the panel and its dialogs, without the marks of keys."""
    found = set()
    for widget in (each for path in DIALOGS for each in ET.parse(path).iter("widget")):
        if not kinds or widget.get("class") in kinds:
            for each in widget.findall("property"):
                if each.get("name") in ("text", "title"):
                    found.add(str(each.findtext("string")).rstrip(":").replace("&", ""))
    return found - {"", "None"}


def bold(text: str) -> set[str]:
    return set(re.findall(r"\*\*([^*]+)\*\*", text))


def tutorial_of_the_readme() -> str:
    text = text_of(ROOT / "README.md")
    return text[text.index("## Tutorial") : text.index("\n## ", text.index("## Tutorial") + 1)]


def test_the_panel_is_read() -> None:
    assert {"Segment this volume", "Start training"} <= texts(CLICKABLE)


@pytest.mark.parametrize("name", ["your-own-cts.md", "tutorial.md", "faq.md"])
def test_what_a_page_tells_to_click_is_written_on_a_control(name: str) -> None:
    assert bold(text_of(DOCS / name)) - texts() == set()


def test_what_the_readme_tells_to_click_is_written_on_a_control() -> None:
    assert bold(tutorial_of_the_readme()) - texts() == set()


def test_the_tutorial_tells_of_each_button_and_box() -> None:
    assert texts(CLICKABLE) - bold(text_of(TUTORIAL)) == set()


def test_the_page_on_ones_own_volumes_stays_short() -> None:
    lines = (DOCS / "your-own-cts.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert max(len(line) for line in lines) <= 180


def test_the_comparison_counts_the_panels_tooltips() -> None:
    written = re.search(
        r"^\| Tooltips in the panel's file \| (\d+) \|",
        (DOCS / "comparison.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    shown = [each for each in ET.parse(PANEL).iter("property") if each.get("name") == "toolTip"]
    assert written is not None
    assert int(written[1]) == len(shown)


def sources() -> str:
    """All our code, with strings that go on in the next line joined."""
    files = [*(ROOT / "Logic").rglob("*.py"), *(ROOT / "SlicerASLseg").rglob("*.py")]
    joined = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", joined)


# Said by torch, NumPy or the loader of the system, not by us.
OF_OTHERS = {"DLL load failed", "undefined symbol", "operator torchvision::nms does not exist"}


def test_messages_that_troubleshooting_quotes_are_said_by_our_code() -> None:
    headings = re.findall(r"^\*\*(.+?)\*\*", text_of(DOCS / "troubleshooting.md"), re.MULTILINE)
    quoted = {words for heading in headings for words in re.findall(r'"([^"]+)"', heading)}
    pieces = {piece.strip(" .") for words in quoted - OF_OTHERS for piece in words.split("...")}
    code = sources().replace("{wish}", "cuda")
    assert len(pieces) > 5
    assert {piece for piece in pieces if piece not in code} == set()


def test_troubleshooting_counts_the_steps_of_standard() -> None:
    quick, standard = read_preset("quick"), read_preset("standard")
    organs = round(standard.organ.iterations / quick.organ.iterations)
    lesions = round(standard.lesion.iterations / quick.lesion.iterations)
    words = {3: "three", 9: "nine"}
    assert (
        f"takes {words[organs]} times as many steps for organs and {words[lesions]} times as many"
        f" for lesions" in text_of(DOCS / "troubleshooting.md")
    )


SCREENSHOTS = sorted((DOCS / "screenshots").glob("*.png"))


@pytest.mark.parametrize("path", SCREENSHOTS, ids=lambda path: path.name)
def test_a_screenshot_is_large_enough_to_read_and_small_enough_to_keep(path: Path) -> None:
    width, height = png_size(path)
    assert width >= 600
    assert height >= 300
    assert path.stat().st_size < 1_000_000


def test_each_screenshot_is_shown_on_some_page() -> None:
    pages = [ROOT / "README.md", ROOT / "CMakeLists.txt", *DOCS.rglob("*.md")]
    shown = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    assert [path.name for path in SCREENSHOTS if path.name not in shown] == []
