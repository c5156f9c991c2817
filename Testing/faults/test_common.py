"""The common parts see what they are there to see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faults import checks
from faults.campaigns import Campaign, count, draws
from faults.checks import assert_calm
from faults.children import run_child

pytestmark = pytest.mark.skipif(os.name == "nt", reason="this system has no sessions of processes")


def test_a_child_is_watched_to_its_end() -> None:
    code = "import sys; data = bytearray(60 << 20); print(sys.stdin.read()); sys.exit(1)"
    ended = run_child(["-c", code + " if data else None"], stdin=b"hello")
    assert (ended.code, ended.out, ended.err, ended.orphans) == (1, "hello\n", "", ())
    assert_calm(ended)


def test_a_child_that_does_not_end_is_ended_and_told() -> None:
    ended = run_child(["-c", "import time; time.sleep(60)"], limit_s=0.5)
    with pytest.raises(AssertionError, match="no end within"):
        assert_calm(ended)


def test_what_outlives_a_child_is_an_orphan() -> None:
    code = (
        "import subprocess, sys; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)"
    )
    ended = run_child(["-c", code])
    assert len(ended.orphans) == 1
    with pytest.raises(AssertionError, match="processes left behind"):
        assert_calm(ended)


def test_a_traceback_is_found() -> None:
    with pytest.raises(AssertionError, match="no reason"):
        assert_calm(run_child(["-c", "raise ValueError('no reason')"]))


def test_half_written_and_damaged_files_are_found(tmp_path: Path) -> None:
    (tmp_path / ".aslseg-00000000-1-00000000-00000000-status.json").write_text("{")
    (tmp_path / "status.json").write_text("{}")
    assert checks.leftovers(tmp_path) == [".aslseg-00000000-1-00000000-00000000-status.json"]
    checks.assert_all_readable(tmp_path)
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(AssertionError, match=r"status\.json cannot be read"):
        checks.assert_all_readable(tmp_path)


def test_a_changed_label_is_found(tmp_path: Path) -> None:
    (tmp_path / "labels" / "history").mkdir(parents=True)
    label = tmp_path / "labels" / "history" / "a.nii.gz"
    label.write_bytes(b"one")
    before = checks.human_labels(tmp_path)
    checks.assert_labels_kept(tmp_path, before)
    label.write_bytes(b"two")
    with pytest.raises(AssertionError, match=r"history/a\.nii\.gz"):
        checks.assert_labels_kept(tmp_path, before)


def test_a_campaign_goes_on_after_a_failure() -> None:
    campaign = Campaign("any")
    for number in range(3):
        with campaign.case(number):
            assert number != 1, "it is one"
    assert (campaign.tried, campaign.passed) == (3, 2)
    assert campaign.failures[0].startswith("1: AssertionError: it is one")


def test_counts_and_draws_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASLSEG_FAULTS_COUNT", raising=False)
    assert count(short=2, full=300) == 2
    monkeypatch.setenv("ASLSEG_FAULTS_COUNT", "full")
    assert count(short=2, full=300) == 300
    monkeypatch.setenv("ASLSEG_FAULTS_COUNT", "7")
    assert count(short=2, full=300) == 7
    monkeypatch.setenv("ASLSEG_FAULTS_SEED", "1")
    first = draws("a").random()
    assert first == draws("a").random()
    monkeypatch.setenv("ASLSEG_FAULTS_SEED", "2")
    assert first != draws("a").random()
