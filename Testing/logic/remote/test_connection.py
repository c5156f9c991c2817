"""What is said when a host cannot be worked on, what is let pass, and what is never written."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from aslseg import __version__
from aslseg.config import RunConfig
from aslseg.errors import AslsegError
from aslseg.project.remote_run import RemoteRun
from aslseg.project.run_folder import create_run, open_run, runs_of
from aslseg.remote.connection import Connection, ConnectionLostError
from aslseg.remote.fetching import fetch_run
from aslseg.remote.hosts import HostError, host_of
from aslseg.remote.wire import WIRE, Files, FileState, Hello, Lacking, Missing
from aslseg.storage import write_text_atomic

HELLO = Hello(aslseg=__version__, wire=WIRE, root="/there").model_dump_json()


def connect(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Connection:
    """Connect by a program that does what a script says in place of ssh."""
    path = folder / "ssh.sh"
    path.write_text(script, encoding="utf-8")
    monkeypatch.setenv("ASLSEG_SSH", shlex.join(["sh", str(path)]))
    return Connection(host_of("gpu1", "venv/bin/python"), lambda: None)


@pytest.mark.parametrize(
    ("printed", "sentence", "is_lasting"),
    [
        ("Host key verification failed.", "key of gpu1 is not known .* 'ssh gpu1' once", True),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "another one than before", True),
        ("me@gpu1: Permission denied (publickey).", "refuses this computer's key; .*ssh-add", True),
        ("ssh: Could not resolve hostname gpu1: -2", "no computer of the name gpu1", False),
        ("ssh: connect to host gpu1 port 22: Connection refused", "does not answer", False),
        ("ssh: connect to host gpu1 port 22: Connection timed out", "does not answer", False),
        ("python: No module named aslseg", "'venv/bin/python' of gpu1 has no aslseg", True),
        ("python: No module named aslseg.remote", "another version of aslseg", True),
        ("ModuleNotFoundError: No module named 'pydantic'", "package is missing on gpu1", True),
        ("sh: 1: exec: venv/bin/python: not found", "no program 'venv/bin/python'", True),
        ("sh: venv/bin/python: No such file or directory", "no program 'venv/bin/python'", True),
        ("/scratch cannot be written: Permission denied", "connection to gpu1 ./scratch", False),
        ("something else", "No connection to gpu1 .something else.; try", False),
    ],
)
def test_each_reason_is_a_sentence_with_its_remedy(
    printed: str,
    sentence: str,
    is_lasting: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = f"echo {shlex.quote(printed)} >&2\nexit 255\n"
    with pytest.raises(HostError, match=sentence) as caught:
        connect(tmp_path, monkeypatch, script)
    assert caught.value.is_lasting is is_lasting
    assert ";" in str(caught.value)


def test_without_ssh_its_installation_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASLSEG_SSH", str(tmp_path / "absent"))
    with pytest.raises(HostError, match=r"cannot be started .*; install OpenSSH"):
        Connection(host_of("gpu1"), lambda: None)


def test_what_a_shell_prints_first_is_let_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"echo Welcome\necho '{{\"aslseg\": 3}}'\necho {shlex.quote(HELLO)}\ncat > /dev/null\n"
    connection = connect(tmp_path, monkeypatch, script)
    assert connection.root == "/there"
    connection.close()


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hello = Hello(aslseg="9.9", wire=WIRE, root="/there").model_dump_json()
    with pytest.raises(HostError, match=r"has aslseg 9\.9 and this computer .*the same version"):
        connect(tmp_path, monkeypatch, f"echo {shlex.quote(hello)}\ncat > /dev/null\n")


def test_an_end_amidst_an_answer_is_a_lost_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(
        tmp_path, monkeypatch, f"echo {shlex.quote(HELLO)}\nread line\nprintf '{{\"ans'\n"
    )
    with pytest.raises(ConnectionLostError):
        connection.ask(Missing(images=[]), Lacking)


def test_what_is_no_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connect(
        tmp_path, monkeypatch, f"echo {shlex.quote(HELLO)}\nread line\necho '{{\"answer\": 1}}'\n"
    )
    with pytest.raises(HostError, match="answers what is not understood"):
        connection.ask(Missing(images=[]), Lacking)


@pytest.mark.parametrize("name", ["../../labels/c0", "/labels/c0", "..", "link/c0"])
@pytest.mark.parametrize("is_gone", [False, True])
def test_no_file_outside_of_the_run_is_written_or_deleted(
    name: str, is_gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    label, run = project / "labels" / "c0", project / "runs" / "a"
    label.parent.mkdir(parents=True)
    run.mkdir(parents=True)
    label.write_text("of a person", encoding="utf-8")
    (run / "link").symlink_to(label.parent)
    listed = "status.json" if is_gone else name
    files = json.dumps({"answer": "files", "files": [{"path": listed, "stamp": "1"}]})
    connection = connect(
        tmp_path,
        monkeypatch,
        f"printf '%s\\n' {shlex.quote(HELLO)}\nread line\nprintf '%s\\n' {shlex.quote(files)}\n",
    )
    fetched = {"status.json": "1", **({name: "1"} if is_gone else {})}
    note = RemoteRun(host="gpu1", project="0" * 32, session="1" * 32, fetched=fetched)
    with pytest.raises(AslsegError, match=r"not understood here|lies outside of"):
        fetch_run(connection, project, "a", note, is_over=True)
    connection.close()
    assert label.read_text("utf-8") == "of a person"


class _FilesOfARun:
    """In place of a connection: a run of a host, which knows no other one."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def ask(self, *_: Any) -> Files:
        return Files(files=[FileState(path=name, stamp="1") for name in self._files])

    def fetch(self, wanted: Sequence[tuple[str, Path]]) -> Iterator[str]:
        for there, here in wanted:
            write_text_atomic(here, self._files[here.name])
            yield there


def test_a_run_that_a_host_has_begun_is_the_latest_one_here(tmp_path: Path) -> None:
    for name in ("one", "two"):
        create_run(tmp_path, RunConfig(), name)
    there = {"config.json": RunConfig().model_dump_json(), "order.json": '{"place": 1}'}
    note = RemoteRun(host="gpu1", project="0" * 32, session="1" * 32)
    connection = cast(Connection, _FilesOfARun(there))
    fetch_run(connection, tmp_path, "three", note, is_over=False)
    assert [run.run_id for run in runs_of(tmp_path)] == ["one", "two", "three"]
    os.utime(tmp_path / "runs" / "three" / "config.json", (1, 1))  # as in a copy
    assert open_run(tmp_path).run_id == "three"
