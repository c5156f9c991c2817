"""A run on disk: one worker at a time, a status that is true, tables that are whole."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aslseg.config import RunConfig
from aslseg.errors import CancelledError, ConfigError, RunError, StorageError
from aslseg.events import Event, Monitor, Progress, RunProgress
from aslseg.project.run_folder import RunFolder, create_run, open_run, runs_of, write_settings
from aslseg.project.run_status import RunStatus
from aslseg.project.run_tables import read_table, write_table
from aslseg.project.running import Recorder, running
from aslseg.storage import write_text_atomic

CONFIG = RunConfig(seed=7)

HOLD_LOCK = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_by_another_process(lock: Path) -> Iterator[None]:
    command = [sys.executable, "-c", HOLD_LOCK, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield
        finally:
            process.kill()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return create_run(tmp_path, CONFIG, "first")


def test_a_new_run_knows_its_settings_and_nothing_else(tmp_path: Path, run: RunFolder) -> None:
    assert run.path == tmp_path / "runs" / "first"
    assert run.run_id == "first"
    assert run.config == CONFIG
    assert run.status == RunStatus()
    assert run.rounds == []


def test_runs_without_a_name_are_named_apart(tmp_path: Path) -> None:
    names = {create_run(tmp_path, CONFIG).run_id for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("aslseg-") for name in names)


def test_a_name_that_is_taken_is_refused(tmp_path: Path, run: RunFolder) -> None:
    with pytest.raises(RunError, match="There is a run 'first' already"):
        create_run(tmp_path, RunConfig(), "first")
    assert run.config == CONFIG


def test_the_run_made_last_is_the_latest_after_the_clock_was_put_back(
    tmp_path: Path, run: RunFolder
) -> None:
    tomorrow = time.time() + 24 * 3600
    os.utime(run.path / "config.json", (tomorrow, tomorrow))
    second = create_run(tmp_path, CONFIG, "a second")
    assert open_run(tmp_path) == second
    write_settings(run, CONFIG)
    assert open_run(tmp_path) == run


def test_a_run_is_found_by_name_or_as_the_latest(tmp_path: Path, run: RunFolder) -> None:
    second = create_run(tmp_path, CONFIG, "a second")
    assert open_run(tmp_path, "first") == run
    assert open_run(tmp_path) == second
    old = time.time() - 60
    for one, written in ((run, old), (second, old - 60)):  # of an earlier version
        (one.path / "order.json").unlink()
        os.utime(one.path / "config.json", (written, written))
    assert open_run(tmp_path) == run
    third = create_run(tmp_path, CONFIG, "a third")
    assert open_run(tmp_path) == third


def test_the_latest_run_is_so_in_a_copy_of_the_project_too(tmp_path: Path, run: RunFolder) -> None:
    (tmp_path / "p" / "runs").mkdir(parents=True)
    made = [create_run(tmp_path / "p", CONFIG, name).run_id for name in ("a", "c", "b")]
    for age_s, name in enumerate(("c", "b", "a")):  # times of files are those of copying
        path = tmp_path / "p" / "runs" / name / "config.json"
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    assert [one.run_id for one in runs_of(tmp_path / "p")] == made
    (tmp_path / "p" / "runs" / "b" / "order.json").write_text("{")
    assert [one.run_id for one in runs_of(tmp_path / "p")] == ["b", "a", "c"]


def test_a_run_that_is_not_there_is_refused_with_the_known_ones(
    tmp_path: Path, run: RunFolder
) -> None:
    with pytest.raises(RunError, match=r"no run 'third' \(known: first\)"):
        open_run(tmp_path, "third")
    with pytest.raises(RunError, match="train first"):
        open_run(tmp_path / "elsewhere")


def test_rounds_count_when_their_metrics_are_complete(run: RunFolder) -> None:
    assert run.round(3) == run.path / "round-03"
    for number in (1, 2, 10):
        run.round(number).mkdir()
    for number in (10, 1):
        write_table(run.round(number) / "metrics.csv", ["a"], [])
    assert run.rounds == [1, 10]


def test_a_finished_run_says_done(run: RunFolder) -> None:
    with running(run, Monitor(), rounds=2):
        assert run.status.state == "running"
    assert {"state": "done", "rounds": 2, "message": ""}.items() <= run.noted.items()


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        pytest.param(CancelledError("Stopped."), "cancelled", "Stopped.", id="cancelled"),
        pytest.param(RunError("It diverged."), "failed", "It diverged.", id="failed"),
        pytest.param(KeyError(), "failed", "KeyError", id="without words"),
        pytest.param(KeyboardInterrupt(), "failed", "KeyboardInterrupt", id="interrupted"),
    ],
)
def test_a_run_that_ends_early_says_why_and_lets_go(
    run: RunFolder, error: BaseException, state: str, message: str
) -> None:
    with pytest.raises(type(error)), running(run, Monitor()):
        raise error
    assert (run.status.state, run.status.message) == (state, message)
    with running(run, Monitor()):
        assert run.status.message == ""
    assert run.status.state == "done"


def test_the_traceback_of_a_failed_run_is_in_its_log(run: RunFolder) -> None:
    with pytest.raises(RunError), running(run, Monitor()):
        raise RunError("It diverged.")  # noqa: EM101
    log = (run.path / "log.txt").read_text(encoding="utf-8")
    assert "RunError: It diverged." in log
    assert "Traceback" in log


def test_two_processes_do_not_work_on_one_run(run: RunFolder) -> None:
    run.write_status(state="running")
    before = run.status
    with (
        held_by_another_process(run.path / "lock"),
        pytest.raises(RunError, match="'first' is being worked on by another process; wait or"),
        running(run, Monitor()),
    ):
        pytest.fail("The body must not run.")
    assert run.status == before


def test_a_process_that_died_leaves_no_lock(run: RunFolder) -> None:
    with held_by_another_process(run.path / "lock"):
        pass
    with running(run, Monitor()):
        assert run.status.state == "running"


def test_events_are_recorded_passed_on_and_make_the_status(run: RunFolder) -> None:
    received: list[Event] = []
    listener = Monitor(received.append)
    with running(run, listener) as monitor:
        assert monitor.token is listener.token
        monitor.listener(Progress("specialist-liver", 3, 10, 12.5, 2))
        monitor.metric("loss", 0.5, 3, task="specialist-liver")
        expected = {
            "task": "specialist-liver", "step": 3, "of": 10, "seconds_left": 12.5, "round": 2,
        }  # fmt: skip
        assert expected.items() <= run.noted.items()
    assert [type(event).__name__ for event in received] == ["Progress", "Metric"]
    lines = (run.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [event.to_json() for event in received]


def test_progress_is_written_at_begin_and_end_and_no_more_than_once_a_second(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_status(state="running")
    written, write = [], RunFolder.write_status

    def count(folder: RunFolder, **facts: Any) -> None:
        written.append(facts.get("step"))
        write(folder, **facts)

    monkeypatch.setattr(RunFolder, "write_status", count)
    now = [0.0]
    recorder = Recorder(run, Monitor(), lambda: now[0])
    monitor = recorder.attached()
    for step in range(11):
        monitor.listener(Progress("specialist-liver", step, 10, None, 1))
        monitor.listener(RunProgress(1, 2, 1, 4, step / 40))
        now[0] += 0.3
    assert written == [0, 4, 8, 10]
    assert run.noted["run_share"] == 9 / 40  # what came before it is written with the end
    assert recorder.unwritten()["run_share"] == 10 / 40


@pytest.mark.parametrize("state", ["done", "cancelled", "failed"])
def test_the_last_progress_is_noted_with_the_end(run: RunFolder, state: str) -> None:
    ends = {"done": None, "cancelled": CancelledError("Stopped."), "failed": RunError("Broken.")}
    with suppress(CancelledError, RunError), running(run, Monitor()) as monitor:
        for step in (0, 1, 2):
            monitor.listener(Progress("specialist-liver", step, 10, 5.0, 1))
        if (end := ends[state]) is not None:
            raise end
    assert (run.status.state, run.noted["step"]) == (state, 2)


def test_events_of_a_resumed_run_follow_those_of_before(run: RunFolder) -> None:
    for step in (1, 2):
        with running(run, Monitor()) as monitor:
            monitor.metric("loss", 0.5, step)
    lines = (run.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_facts_of_the_status_stay_until_they_change(run: RunFolder) -> None:
    run.write_status(state="running", best_round=1)
    run.write_status(state="done")
    assert {"state": "done", "best_round": 1}.items() <= run.noted.items()
    assert run.status.updated.endswith("+00:00")


def test_what_a_later_version_noted_stays_in_the_status(run: RunFolder) -> None:
    (run.path / "status.json").write_text('{"later": [{"a": 1}], "state": "done", "legs": [1, 2]}')
    run.write_status(best_round=2)
    written = json.loads((run.path / "status.json").read_text(encoding="utf-8"))
    del written["updated"]
    assert written == {
        "later": [{"a": 1}], "state": "done", "retrained_rounds": [1, 2], "best_round": 2,
    }  # fmt: skip
    with pytest.raises(ValidationError, match="frozen"):
        run.status.state = "failed"


def test_damaged_settings_are_named(run: RunFolder) -> None:
    (run.path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json is damaged, it is no JSON"):
        _ = run.config


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [{"case": 'a "quoted", name', "dice": 0.5}, {"case": "b\nc", "dice": float("nan")}]
    write_table(tmp_path / "t.csv", ("case", "dice"), rows)
    assert read_table(tmp_path / "t.csv") == [
        {"case": 'a "quoted", name', "dice": "0.5"},
        {"case": "b\nc", "dice": "nan"},
    ]


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ("case", "dice"), [])
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").strip() == "case,dice"
    assert read_table(tmp_path / "t.csv") == []


def test_a_row_with_another_column_leaves_the_table_of_before(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_table(path, ("case",), [{"case": "a"}])
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        write_table(path, ("case",), [{"case": "b"}, {"caze": "c"}])
    assert read_table(path) == [{"case": "a"}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    "name",
    [
        "../x", "../../x", "/abs", "a/b", "a\\b", "..", ".", ".hidden", "", " ", "a ", "a.", "-x",
        "C:x", "a\0b", "a\nb", "x" * 200, "*", "~",
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for act in (
        lambda: create_run(project, CONFIG, name or "/"),
        lambda: open_run(project, name),
    ):
        with pytest.raises(RunError, match="cannot be the name of a run"):
            act()
    assert list(tmp_path.iterdir()) == [project]
    assert list(project.iterdir()) == []


@pytest.mark.parametrize("name", ["first", "a second", "aslseg-20260101-1.2_x", "Läufe"])
def test_a_plain_name_is_fine(tmp_path: Path, name: str) -> None:
    assert create_run(tmp_path, CONFIG, name) == open_run(tmp_path, name)


def test_a_run_that_is_a_link_out_of_the_project_is_not_opened(tmp_path: Path) -> None:
    elsewhere = create_run(tmp_path / "other", CONFIG, "a")
    (tmp_path / "project" / "runs").mkdir(parents=True)
    (tmp_path / "project" / "runs" / "a").symlink_to(elsewhere.path)
    with pytest.raises(StorageError, match="lies outside of"):
        open_run(tmp_path / "project", "a")
    assert runs_of(tmp_path / "project") == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="a list"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"best_round": "two"}', id="best round in words"),
        pytest.param('{"best_round": -1}', id="best round below 0"),
        pytest.param('{"best_round": 1e400}', id="best round without end"),
        pytest.param('{"retrained_rounds": 3}', id="rounds"),
        pytest.param('{"retrained_rounds": ["a"]}', id="rounds in words"),
        pytest.param('{"label_digests": [1]}', id="digests"),
        pytest.param('{"state": 7}', id="state"),
        pytest.param('{"orientation": 7}', id="orientation"),
        pytest.param('{"training_cases": {"a": 1}}', id="cases"),
    ],
)
def test_a_damaged_status_is_named(run: RunFolder, content: str) -> None:
    (run.path / "status.json").write_text(content)
    with pytest.raises(RunError, match=r"status\.json is damaged.*restore it from a copy"):
        _ = run.status
    with pytest.raises(RunError, match=r"status\.json is damaged"), running(run, Monitor()):
        pytest.fail("The body must not run.")


@pytest.mark.parametrize(
    "content", ["", "[1]", "{}", '{"validation": "x"}', '{"validation": [1]}', "[" * 100_000]
)
def test_a_damaged_round_is_named(run: RunFolder, content: str) -> None:
    run.round(1).mkdir()
    (run.round(1) / "round.json").write_text(content)
    with pytest.raises(RunError, match=r"round\.json is damaged.*delete it and resume the run"):
        run.validation_of(1)


def test_folders_that_are_no_rounds_do_not_count(run: RunFolder) -> None:
    for name in ("round-01", "round-x", "round-", "round-1e9"):
        (run.path / name).mkdir()
        write_table(run.path / name / "metrics.csv", ["a"], [])
    assert run.rounds == [1]


def test_a_run_that_nobody_works_on_is_not_running(run: RunFolder) -> None:
    assert run.state == "new"
    run.write_status(state="running")
    assert run.state == "interrupted"
    with held_by_another_process(run.path / "lock"):
        assert run.state == "running"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_ends_a_run_in_a_sentence_and_as_failed(run: RunFolder) -> None:
    (run.path / "events.jsonl").symlink_to("/dev/full")
    with (
        pytest.raises(StorageError, match=r"events\.jsonl: the disk is full"),
        running(run, Monitor()) as monitor,
    ):
        monitor.metric("loss", 0.5, 1)
    assert run.status.state == "failed"
    assert "disk is full" in run.status.message


def test_a_full_disk_is_told_wherever_it_was_met(run: RunFolder) -> None:
    with pytest.raises(StorageError, match="the disk is full"), running(run, Monitor()):
        raise OSError(28, "No space left on device")
    with pytest.raises(PermissionError), running(run, Monitor()):
        raise PermissionError(13, "Permission denied")  # of a file that is read, perhaps


def test_a_disk_without_room_for_another_file_keeps_no_run_running(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: object) -> None:
        msg = f"Cannot write {path}: the disk is full."
        raise StorageError(msg)

    def work() -> int:
        with running(run, Monitor(), best_round=1):
            run.write_status(task="specialist-liver", step=1, of=10)
            monkeypatch.setattr("aslseg.project.run_folder.write_json_atomic", full)
            run.write_status(step=2)
        return 0

    with pytest.raises(StorageError, match="the disk is full"):
        work()
    assert {"state": "failed", "best_round": 1, "step": 1}.items() <= run.noted.items()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_log_that_cannot_be_written_ends_nothing(
    run: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    (run.path / "log.txt").symlink_to("/dev/full")
    with running(run, Monitor()):
        logging.getLogger("aslseg.x").warning("A line that has no room")
    assert run.status.state == "done"
    assert "Traceback" not in capfd.readouterr().err


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").write_text("a file")
    with (
        pytest.raises(StorageError, match="choose another folder"),
        running(RunFolder(tmp_path / "runs" / "a"), Monitor()),
    ):
        pytest.fail("The body must not run.")


def test_values_that_are_no_numbers_are_null_in_the_events(run: RunFolder) -> None:
    with running(run, Monitor()) as monitor:
        monitor.metric("loss", float("nan"), 1)
    assert json.loads((run.path / "events.jsonl").read_text(encoding="utf-8"))["value"] is None


def test_a_run_in_a_folder_that_is_read_only_is_told(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    run.write_status(state="cancelled")
    monkeypatch.setattr("aslseg.project.running.FileLock.acquire", refused)
    with (
        pytest.raises(StorageError, match="permission is denied; choose a folder"),
        running(run, Monitor()),
    ):
        pytest.fail("The body must not run.")
    assert run.state == "cancelled"


def test_training_goes_on_from_the_round_before_unless_labels_have_changed(tmp_path: Path) -> None:
    run = create_run(tmp_path, RunConfig(), "a")
    run.write_status(retrained_rounds=[1, 3])
    for number in (1, 2, 3):
        write_text_atomic(run.round(number) / "crossfit" / "sam.safetensors", "")
    wanted = Path("crossfit", "sam.safetensors")
    assert run.before(run.round(2) / wanted) == run.round(1) / wanted
    assert run.before(run.round(2) / "crossfit") == run.round(1) / "crossfit"
    assert run.before(run.round(4) / wanted) == run.round(3) / wanted
    assert run.before(run.round(1) / wanted) is None
    assert run.before(run.round(3) / wanted) is None  # its labels are others
    assert run.before(run.round(2) / "absent.safetensors") is None
    assert run.before(tmp_path / wanted) is None


def test_parts_beside_the_specialist_are_in_each_round_or_in_the_first(tmp_path: Path) -> None:
    again = create_run(tmp_path, RunConfig(), "again")
    once = create_run(tmp_path, RunConfig(retrain=False), "once")
    once.write_status(retrained_rounds=[1, 3])
    assert [again.first_folder(n) for n in (1, 2)] == [again.round(n) for n in (1, 2)]
    assert [once.first_folder(n) for n in (1, 2, 3)] == [once.round(n) for n in (1, 1, 3)]


def test_a_run_of_an_earlier_version_trained_once_and_kept_all_candidates(tmp_path: Path) -> None:
    run = create_run(tmp_path, RunConfig(), "a")
    settings = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    del settings["retrain"], settings["candidates"]
    write_text_atomic(run.path / "config.json", json.dumps(settings))
    assert (run.config.retrain, run.config.lesion_decision) == (False, "none")
    assert RunConfig().lesion_decision == "classifier"
