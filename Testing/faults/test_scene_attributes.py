"""Scenes that somebody else wrote, and a panel that is used for a whole day."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from faults.campaigns import Campaign, count, seed
from faults.checks import LIMIT_S, assert_no_traceback
from faults.children import TESTING, run_child
from standin.availability import skip_or_fail, what_is_missing

CHILD = TESTING / "panel" / "campaign_child.py"
SECONDS_PER_SCENE, SECONDS_PER_ROUND = 20.0, 60.0
MOST_GROWTH_MIB_PER_ROUND, SETTLING_ROUNDS = 1.0, 3


@pytest.fixture(autouse=True)
def _stand_in() -> None:
    """Stop where the stand-in for Slicer cannot be had."""
    if reason := what_is_missing():
        skip_or_fail(reason)


def lines_of(arguments: list[Any], limit_s: float) -> list[dict[str, Any]]:
    """Run the panel's process, and return what it said of each case."""
    ended = run_child([CHILD, *map(str, arguments)], limit_s=limit_s)
    found = [json.loads(line) for line in ended.out.splitlines() if line.startswith("{")]
    assert ended.code == 0, f"exit code {ended.code} after {len(found)} cases\n{ended.err[-3000:]}"
    assert not ended.orphans, f"processes left behind: {ended.orphans}"
    return found


def test_scenes_with_foreign_attributes(campaign: Campaign, tmp_path: Path) -> None:
    wanted = count(short=25, full=300)
    found = lines_of(["attributes", tmp_path, wanted, seed()], 60 + SECONDS_PER_SCENE * wanted)
    assert len(found) >= wanted // 2
    for line in found:
        with campaign.case(line["case"]):
            assert not line["failure"], line["failure"]
            assert line["seconds"] < LIMIT_S
            assert_no_traceback(line["failure"])


def test_volumes_are_opened_segmented_and_closed_in_flat_memory(
    campaign: Campaign, tmp_path: Path
) -> None:
    made = run_child([TESTING / "panel" / "trained.py", tmp_path, "none"], limit_s=300)
    assert made.code == 0, made.err[-2000:]
    wanted = count(short=5, full=200)
    found = lines_of(["rounds", tmp_path, wanted], 120 + SECONDS_PER_ROUND * wanted)
    assert len(found) == wanted
    for line in found:
        with campaign.case(line["case"]):
            assert not line["failure"], line["failure"]
            assert not line["left"], f"volumes left in the scene: {line['left']}"
    settled = [line["mib"] for line in found[min(SETTLING_ROUNDS, wanted - 1) :]]
    growth = settled[-1] - settled[0]
    sys.stdout.write(f"memory: {settled[0]:.0f} MiB, {growth:+.1f} after {len(settled)} rounds\n")
    assert growth < 20 + MOST_GROWTH_MIB_PER_ROUND * len(settled), settled
