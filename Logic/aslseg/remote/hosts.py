"""Other computers that can work: their names, how aslseg is started there, and the ssh command."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from aslseg.config import Settings
from aslseg.errors import AslsegError, first_finding
from aslseg.reading import read_object
from aslseg.storage import write_json_atomic

PYTHON = ("python3",)
_NAME = re.compile(r"(?:[A-Za-z0-9_][\w.+-]*@)?[A-Za-z0-9_\[][\w.:%\]-]*")
_OPTIONS = (
    "-T",
    "-oBatchMode=yes",
    "-oConnectTimeout=15",
    "-oServerAliveInterval=10",
    "-oServerAliveCountMax=3",
    "-oClearAllForwardings=yes",
)


class HostError(AslsegError):
    """Another computer cannot be worked on; the message says why and what to do.

    Attributes:
        is_lasting: Whether trying again is of no use before somebody has changed something.
    """

    def __init__(self, message: str, *, is_lasting: bool = True) -> None:
        super().__init__(message)
        self.is_lasting = is_lasting


class Host(Settings):
    """A computer that ssh reaches without asking for a password.

    Attributes:
        name: As ssh takes it: `gpu1`, `user@gpu1.example.org`, or a `Host` of the ssh settings.
        python: Words of the command that starts the Python with aslseg there; a path is relative
            to the home folder there.
        folder: Where images, projects and runs are kept there, relative to the home folder; empty
            for `aslseg-remote`.
    """

    name: Annotated[str, Field(min_length=1, max_length=255)]
    python: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...],
        Field(min_length=1, max_length=20),
    ] = PYTHON
    folder: Annotated[str, Field(max_length=1000)] = ""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            msg = f"'{name[:60]}' is no name of a computer; write it as for ssh, such as user@gpu1"
            raise ValueError(msg)
        return name

    @field_validator("folder", "python")
    @classmethod
    def _is_one_line(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for word in (value,) if isinstance(value, str) else value:
            if any(not letter.isprintable() for letter in word):
                msg = "it has a letter that cannot be printed; correct it"
                raise ValueError(msg)
        if isinstance(value, tuple) and value[0].startswith("-"):
            msg = "a command begins with the name of a program; correct it"
            raise ValueError(msg)
        return value

    @property
    def command(self) -> list[str]:
        """The ssh command that starts `aslseg.remote` there, its words quoted for the shell."""
        words = [*self.python, "-m", "aslseg.remote", "serve"]
        words += ["--folder", self.folder] if self.folder else []
        return [*ssh_program(), *_OPTIONS, "--", self.name, shlex.join(["exec", *words])]


def ssh_program() -> list[str]:
    """Return the words of the ssh command: `ssh`, or what the variable ASLSEG_SSH says."""
    return shlex.split(os.environ.get("ASLSEG_SSH", "")) or ["ssh"]


def host_of(name: str, python: str = "", folder: str = "") -> Host:
    """Return a host from words that a person typed.

    Args:
        name: As ssh takes it.
        python: Command of the Python there; `python3` when empty.
        folder: As of `Host`.

    Raises:
        HostError: When one of them cannot be used.
    """
    try:
        words = tuple(shlex.split(python)) or PYTHON
        return Host(name=name.strip(), python=words, folder=folder.strip())
    except ValidationError as error:
        where, what = first_finding(error)
        what = what.removeprefix("Value error, ")
        msg = f"The host cannot be used ('{where.partition('.')[0]}': {what})."
        raise HostError(msg) from error
    except ValueError as error:  # of shlex: a quotation that does not end
        msg = f"The command '{python[:99]}' cannot be read ({error}); correct it."
        raise HostError(msg) from error


def hosts_file() -> Path:
    """Return the file that hosts are remembered in; the variable ASLSEG_HOSTS moves it."""
    chosen = os.environ.get("ASLSEG_HOSTS")
    if chosen:
        return Path(chosen)
    base = os.environ.get("APPDATA") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME")
    return Path(base or Path.home() / ".config") / "aslseg" / "hosts.json"


def known_hosts() -> dict[str, Host]:
    """Return the hosts that are remembered, by name.

    Raises:
        HostError: When the file is damaged.
    """
    path = hosts_file()
    if not path.exists():
        return {}
    remedy = "correct it, or delete it and add the hosts again"
    values = read_object(path, HostError, remedy)
    try:
        return {name: Host(**{**facts, "name": name}) for name, facts in values.items()}
    except (ValidationError, TypeError) as error:
        what = ": ".join(first_finding(error)) if isinstance(error, ValidationError) else error
        msg = f"{path} is damaged ({what}); {remedy}."
        raise HostError(msg) from error


def remember_host(host: Host) -> None:
    """Remember a host, in place of one of the same name."""
    _write({**known_hosts(), host.name: host})


def forget_host(name: str) -> None:
    """Remember a host no more.

    Raises:
        HostError: When it is not known.
    """
    hosts = known_hosts()
    if name not in hosts:
        known = ", ".join(hosts) or "none"
        msg = f"No host '{name[:60]}' is known (known: {known}); nothing was changed."
        raise HostError(msg)
    _write({other: host for other, host in hosts.items() if other != name})


def host_named(name: str) -> Host:
    """Return a host that is remembered, else one of that name whose Python is `python3`.

    Raises:
        HostError: When the name cannot be that of a computer.
    """
    return known_hosts().get(name) or host_of(name)


def _write(hosts: dict[str, Host]) -> None:
    facts = {name: host.model_dump(exclude={"name"}) for name, host in hosts.items()}
    write_json_atomic(hosts_file(), facts)
