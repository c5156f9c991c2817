"""Docs/settings.md is what the settings say of themselves, and has all of them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

from aslseg.config import RunConfig
from docs import settings_page

ROOT = settings_page.PAGE.parents[1]
TEXT = settings_page.PAGE.read_text(encoding="utf-8")


def cells(name: str) -> list[str]:
    """The row of a setting in the tables of all settings."""
    every = TEXT[TEXT.index("## All settings") :].splitlines()
    (row,) = [line for line in every if line.startswith(f"| `{name}` |")]
    return [cell.strip() for cell in row.strip("|").split(" | ")]


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_page_is_what_is_written_from_the_docstrings() -> None:
    assert settings_page.page() == TEXT, "run python Testing/docs/settings_page.py"


def test_each_setting_has_one_row() -> None:
    for name in leaves(RunConfig().model_dump()):
        if name != "preset":  # is what gives the others
            assert cells(name.removeprefix("organ.").removeprefix("lesion."))


def test_a_row_has_meaning_range_default_and_what_presets_change() -> None:
    assert cells("rounds") == [
        "`rounds`",
        "Self-training rounds at most.",
        "whole, from 1",
        "2",
        "`standard`: 3",
    ]
    *_, default, presets = cells("iterations")
    assert default == "2000"
    assert presets.startswith("`quick`: organ 900, lesion 2700; `standard`: 8000;")
    assert cells("sam.window_hu")[3] == "[-50, 200]"
    assert cells("candidates.rule_peak")[2] == "above 0, below 1"
    assert cells("network.dropout")[2:4] == ["from 0, below 1 or `null`", "null"]


def test_what_is_named_beside_a_setting_stands_in_the_panel() -> None:
    panel = ET.parse(ROOT / "Resources" / "UI" / "ASLseg.ui").iter("property")
    shown = {
        each.findtext("string", "").rstrip(":") for each in panel if each.get("name") == "text"
    }
    assert set(settings_page.FIRST.values()) - {""} - shown == set()
