"""A disk that fills, that is read-only or that fails: a sentence, nothing lost, and it goes on."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults import hooks, warm
from faults.campaigns import Campaign, count, draws
from faults.checks import (
    assert_all_readable,
    assert_calm,
    assert_lock_is_free,
    assert_no_leftovers,
    human_labels,
)
from faults.decisions import decide, told
from faults.small import Template, a_template, config_without_sam, results_of
from support.whole_runs import contents

pytestmark = pytest.mark.slow

SETUP = ((hooks.use_small_sam,), (hooks.save_often,), (hooks.without_report,))
RUN_LIMIT_S = 120.0
ROOM_KIB = 64 * 1024

Disk = Callable[[int], Path]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return a_template(tmp_path_factory.mktemp("disk") / "template", config_without_sam())


@pytest.fixture(scope="module")
def trained(template: Template) -> Template:
    """The project with a finished run."""
    place = template.folder.with_name("trained")
    template.copy(place)
    assert_calm(_train(place / "project", template), codes=(0,), limit_s=RUN_LIMIT_S)
    return Template(place)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mount a small disk in memory, of a size that can be changed; needs the rights to do so."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(kib: int) -> Path:
        options = f"size={kib}k" + (",remount" if place.is_mount() else "")
        _mount(f"-o{options}", place)
        return place

    yield sized
    if place.is_mount():
        subprocess.run(["umount", "-l", str(place)], check=True)


def _mount(options: str, place: Path) -> None:
    if shutil.which("mount") is None:
        pytest.skip("there is no program 'mount'")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", options, "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no right to mount a disk in memory: {done.stderr.strip()}")


def _train(project: Path, template: Template, *, anew: bool = True, setup: tuple = ()):  # type: ignore[no-untyped-def, type-arg]
    begun = (project / "runs" / "a" / "config.json").exists()
    how = ["--config", str(template.config)] if anew or not begun else ["--resume"]
    return warm.aslseg("train", project, "--run", "a", *how, setup=[*SETUP, *setup])


def _is_sound(project: Path, labels: dict[str, bytes]) -> None:
    assert human_labels(project) == labels
    assert_all_readable(project)
    assert_lock_is_free(project / "runs" / "a" / "lock")


def test_training_where_calls_fail(
    campaign: Campaign, template: Template, trained: Template, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    alone = template.copy(tmp_path / "alone")
    listed = (hooks.list_calls, alone, calls)
    assert_calm(_train(alone, template, setup=(listed,)), codes=(0,), limit_s=RUN_LIMIT_S)
    lines = calls.read_text(encoding="utf-8").splitlines()
    needing = sum(line.startswith(("create ", "mkdir ")) for line in lines)
    draw, labels = draws("calls that fail"), human_labels(alone)
    whole = results_of(trained.folder / "project")
    for index in range(count(short=2, full=25)):
        number, once = draw.randint(1, needing), draw.random() < 0.3
        place = tmp_path / str(index)
        with campaign.case(f"no space at call {number} of {needing}, once: {once}"):
            project = template.copy(place)
            hook = (hooks.fail_from_call, project, number, errno.ENOSPC, once)
            ended = _train(project, template, setup=(hook,))
            assert_calm(ended, codes=(1, 0) if once else (1,), limit_s=RUN_LIMIT_S)
            assert ended.code == 0 or "disk is full" in ended.err, ended.err
            _is_sound(project, labels)
            assert_no_leftovers(project)
            again = _train(project, template, anew=False)
            assert_calm(again, codes=(0,), limit_s=RUN_LIMIT_S)
            assert results_of(project) == whole
            assert_no_leftovers(place)
        shutil.rmtree(place, ignore_errors=True)


def test_training_on_a_small_disk(
    campaign: Campaign, template: Template, trained: Template, disk: Disk
) -> None:
    """Here C libraries write onto a full disk too, and what there was of a file is cut off."""
    draw, labels = draws("small disk"), human_labels(template.folder / "project")
    whole = results_of(trained.folder / "project")
    least, most = _kib(template.folder), _kib(trained.folder)
    for _ in range(count(short=3, full=25)):
        kib = least + 16 + draw.randrange(0, most - least, 4)
        with campaign.case(f"a disk of {kib} KiB"):
            place = disk(ROOM_KIB) / str(kib)
            project = template.copy(place)
            disk(kib)
            ended = _train(project, template)
            assert_calm(ended, codes=(0, 1), limit_s=RUN_LIMIT_S)
            assert ended.code == 0 or "disk is full" in ended.err, ended.err
            _is_sound(project, labels)
            disk(ROOM_KIB)
            again = _train(project, template, anew=False)
            assert_calm(again, codes=(0,), limit_s=RUN_LIMIT_S)
            assert results_of(project) == whole
            assert_no_leftovers(place)
        for path in disk(ROOM_KIB).iterdir():
            shutil.rmtree(path)


def _kib(folder: Path) -> int:
    """Room that a folder takes where each file takes whole pages of memory."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // 4096) * 4 for size in sizes)


def test_decisions_where_calls_fail(campaign: Campaign, trained: Template, tmp_path: Path) -> None:
    """Every call of a decision fails, alone or with every later one, for reasons of all kinds."""
    reasons = [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO]
    for what in ("accept", "correct", "save", "reject", "undo"):
        calls = tmp_path / f"{what}-calls"
        alone = _prepared(what, trained, tmp_path / what)
        listed = [(hooks.list_calls, alone, calls)]
        assert_calm(warm.start(decide, what, alone, setup=listed).ended(), codes=(0,))
        lines = calls.read_text(encoding="utf-8").splitlines()
        needing = sum(line.startswith(("create ", "mkdir ")) for line in lines)
        for number in range(1, min(needing, count(short=2, full=99)) + 1):
            for once in (True, False):
                with campaign.case(f"{what}, call {number}, once: {once}"):
                    project = _prepared(what, trained, tmp_path / f"{what}-{number}-{once}")
                    before, labels = told(project), human_labels(project)
                    reason = reasons[number % len(reasons)]
                    hook = (hooks.fail_from_call, project, number, reason, once)
                    ended = warm.start(decide, what, project, setup=[hook]).ended()
                    assert_calm(ended, codes=(0, 1))
                    if ended.code == 1 and what != "undo":  # which is written down last
                        assert told(project) == before
                        assert _in_use(human_labels(project)) == _in_use(labels)
                    now = set(human_labels(project).values())
                    assert set(labels.values()) <= now, "a label is gone"
                    assert_all_readable(project)
                    assert_no_leftovers(project)
                    if ended.code == 1:
                        again = warm.start(decide, what, project).ended()
                        assert_calm(again, codes=(0,))
                        assert told(project) == told(alone)


def _in_use(labels: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out the history, which may have one more copy."""
    return {name: data for name, data in labels.items() if "history" not in name}


def _prepared(what: str, trained: Template, place: Path) -> Path:
    project = trained.copy(place)
    if what in ("correct", "undo"):
        decide("accept", project)
    return project


def test_a_read_only_disk(
    campaign: Campaign, template: Template, trained: Template, disk: Disk, tmp_path: Path
) -> None:
    """What only reads works as ever; what would write says so, and nothing has changed."""
    place = disk(ROOM_KIB) / "trained"
    project = trained.copy(place)
    new = template.copy(disk(ROOM_KIB) / "new")
    before = contents(disk(ROOM_KIB))
    image = place / "data" / "ct2.nii.gz"
    subprocess.run(["mount", "-o", "remount,ro", str(disk(ROOM_KIB))], check=True)
    subprocess.run(["mount", "-o", "remount,ro", str(place.parent)], check=True)
    reading = {
        "status": ["status", project],
        "segment": ["segment", project, image, "-o", tmp_path / "out"],
        "export": ["export", project, tmp_path / "exported", "--labels", "all"],
    }
    writing = {
        "train": ["train", new, "--config", template.config],
        "resume": ["train", project, "--resume"],
        "more": ["train", project, "--more", "1"],
        "report": ["status", project, "--report"],
        "segment into it": ["segment", project, image, "-o", place / "out"],
        "export into it": ["export", project, place / "exported"],
        "init": ["init", place / "another", place / "data"],
    }
    for commands, codes in ((reading, (0,)), (writing, (1,))):
        for name, command in commands.items():
            with campaign.case(name):
                ended = warm.aslseg(*command, setup=[(hooks.use_small_sam,)])
                assert_calm(ended, codes=codes, limit_s=60.0)
                assert codes == (0,) or "read-only" in ended.err, ended.err
    for what in ("accept", "save", "reject"):
        with campaign.case(what):
            ended = warm.start(decide, what, project).ended()
            assert_calm(ended, codes=(1,))
            assert "read-only" in ended.err, ended.err
    with campaign.case("nothing has changed"):
        assert contents(place.parent) == before
