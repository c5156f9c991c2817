"""Python packages that the engine needs: which are missing, and how to get them with consent.

torch comes through the PyTorch extension, which knows the computer's graphics card; everything else
through `slicer.packaging`, or `slicer.util.pip_install` in a Slicer that does not have it yet.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from importlib import metadata
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from aslseg.errors import AslsegError
from ASLsegLib.home import resource

TORCH = ("torch", "torchvision")


class InstallError(AslsegError):
    """Packages could not be installed, or the person said no; the message says what to do."""


def requirements_file() -> Path:
    """Return the list of packages besides torch."""
    return resource("requirements.txt")


def required() -> list[str]:
    """Return the requirements besides torch, one specifier each."""
    lines = requirements_file().read_text(encoding="utf-8").splitlines()
    stripped = (line.partition("#")[0].strip() for line in lines)
    return [line for line in stripped if line]


@cache
def missing() -> list[str]:
    """Return the names of packages that are not there, without importing any of them."""
    names = [*TORCH, *(_name_of(requirement) for requirement in required())]
    return [name for name in names if not _is_installed(name)]


def can_open_projects() -> bool:
    """Tell whether the packages are there that the panel itself needs for projects."""
    return not [name for name in missing() if name not in TORCH]


def install() -> None:
    """Install what is missing, after asking.

    Raises:
        InstallError: When the person says no, the PyTorch extension is absent, or pip fails.
    """
    absent = missing()
    if not absent:
        return
    if any(name in TORCH for name in absent):
        _install_torch()
    rest = [r for r in required() if not _is_installed(_name_of(r))]
    if rest:
        _install_rest(rest)
    importlib.invalidate_caches()
    missing.cache_clear()


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        msg = _(
            "The extension PyTorch is not installed; install it in the Extensions Manager, restart "
            "Slicer, and come back here."
        )
        raise InstallError(msg) from error
    torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True)
    if torch is None:
        msg = _("PyTorch was not installed; press Install again when you want to go on.")
        raise InstallError(msg)


def _install_rest(requirements: list[str]) -> None:
    question = _("ASLseg needs to install {count} Python packages: {names}. Install them now?")
    names = ", ".join(_name_of(requirement) for requirement in requirements)
    if not slicer.util.confirmOkCancelDisplay(
        question.format(count=len(requirements), names=names), _("ASLseg: install packages")
    ):
        msg = _("Nothing was installed; press Install again when you want to go on.")
        raise InstallError(msg)
    try:
        _pip(requirements)
    except (RuntimeError, OSError) as error:
        msg = _("Installing failed ({reason}); check the network connection and try again.")
        raise InstallError(msg.format(reason=error)) from error


def _pip(requirements: list[str]) -> None:
    """Install, keeping the torch that is there: pip sees it as installed."""
    from subprocess import CalledProcessError

    try:
        if importlib.util.find_spec("slicer.packaging") is None:
            slicer.util.pip_install(" ".join(f'"{requirement}"' for requirement in requirements))
            return
        from slicer import packaging

        packaging.pip_install(requirements, requester="ASLseg")
    except CalledProcessError as error:
        msg = _("pip ended with code {code}").format(code=error.returncode)
        raise RuntimeError(msg) from error


def _name_of(requirement: str) -> str:
    for index, letter in enumerate(requirement):
        if not (letter.isalnum() or letter in "-_."):
            return requirement[:index]
    return requirement


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
