"""Names of hosts, the command that ssh is given, and what is remembered."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from aslseg.remote.hosts import (
    HostError,
    forget_host,
    host_named,
    host_of,
    known_hosts,
    remember_host,
)


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASLSEG_HOSTS", str(tmp_path / "hosts.json"))
    monkeypatch.delenv("ASLSEG_SSH", raising=False)


@pytest.mark.parametrize("name", ["gpu1", "me@gpu1.example.org", "10.0.0.7", "[fe80::1%eth0]"])
def test_names_that_ssh_takes_are_taken(name: str) -> None:
    assert host_of(name).command[-2] == name


@pytest.mark.parametrize(
    "name", ["-oProxyCommand=x", "", "a b", "gpu1;rm", "$(id)", "me@-x", "a\nb", "-", "a@b@c/d"]
)
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(HostError, match="The host cannot be used"):
        host_of(name)


def test_the_words_of_the_command_cannot_become_commands() -> None:
    host = host_of("gpu1", "'my venv/bin/python' -X utf8", "a; touch b $(id)")
    command = host.command
    assert command[:2] == ["ssh", "-T"]
    assert "-oBatchMode=yes" in command
    assert command[-3:-1] == ["--", "gpu1"]
    words = shlex.split(command[-1])
    assert words == [
        *("exec", "my venv/bin/python", "-X", "utf8", "-m", "aslseg.remote", "serve"),
        *("--folder", "a; touch b $(id)"),
    ]


@pytest.mark.parametrize(("python", "folder"), [("-c evil", ""), ("'open", ""), ("", "a\nb")])
def test_commands_and_folders_that_cannot_be_are_refused(python: str, folder: str) -> None:
    with pytest.raises(HostError):
        host_of("gpu1", python, folder)


def test_hosts_are_remembered_until_they_are_forgotten() -> None:
    assert known_hosts() == {}
    remember_host(host_of("gpu1", "venv/bin/python", "/scratch/me"))
    remember_host(host_of("gpu2"))
    assert host_named("gpu1").python == ("venv/bin/python",)
    assert host_named("gpu3") == host_of("gpu3")
    forget_host("gpu1")
    assert list(known_hosts()) == ["gpu2"]
    with pytest.raises(HostError, match="known: gpu2"):
        forget_host("gpu1")


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "hosts.json").write_text('{"-x": {}}', encoding="utf-8")
    with pytest.raises(HostError, match=r"hosts\.json is damaged"):
        known_hosts()
