"""Damaged and hostile files of a project: a result, or one sentence; nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faults.campaigns import Campaign, count, seed
from faults.checks import assert_calm
from faults.children import run_child

DOORS = Path(__file__).with_name("stored_doors.py")
KINDS = ("json", "csv", "lines", "safetensors", "pth")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    tries = count(short=25, full=300)
    place = tmp_path / "sandbox"
    place.mkdir()
    ended = run_child([DOORS, kind, place, str(tries), str(seed())], limit_s=1500, folder=tmp_path)
    told = [json.loads(line) for line in ended.out.splitlines() if line.startswith('{"name"')]
    for case in told:
        with campaign.case(case["name"]):
            assert case["outcome"] in ("read", "refused"), case["why"]
    assert_calm(ended, codes=(0,), limit_s=1500)
    assert len(told) == tries
    assert {case["outcome"] for case in told} >= {"refused"}
