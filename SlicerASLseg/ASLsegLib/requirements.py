"""Python packages that the engine needs: which are missing, and how to get them with consent.

torch comes through the PyTorch extension, which knows the computer's graphics card; everything else
through `slicer.packaging`, or `slicer.util.pip_install` in a Slicer that does not have it yet.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import slicer
from slicer.i18n import tr as _

from aslseg.errors import AslsegError
from ASLsegLib.paths import resource

logger = logging.getLogger(__name__)

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
    """Return the names of packages that are absent or too old, without importing any of them."""
    return [_name_of(one) for one in (*TORCH, *required()) if not _is_satisfied(one)]


def look_again() -> None:
    """Forget what `missing` found: packages may have come or gone meanwhile."""
    importlib.invalidate_caches()
    missing.cache_clear()


def can_open_projects() -> bool:
    """Tell whether the packages are there that the panel itself needs for projects."""
    return not [name for name in missing() if name not in TORCH]


def install() -> None:
    """Install what is missing, after asking.

    Raises:
        InstallError: When the person says no, the PyTorch extension is absent, an installer fails,
            or the application has to be restarted before what was installed can be used.
    """
    look_again()
    loaded = _loaded_versions(missing())
    try:
        if any(name in TORCH for name in missing()):
            _install_torch()
        rest = [one for one in required() if not _is_satisfied(one)]
        if rest:
            _install_rest(rest)
    finally:
        look_again()
    if missing():
        msg = _("Installing ended, but {names} cannot be found; restart Slicer and look again.")
        raise InstallError(msg.format(names=", ".join(missing())))
    _check_restart(loaded)


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        msg = _(
            "The extension PyTorch is not installed; install it in the Extensions Manager, restart "
            "Slicer, and come back here."
        )
        raise InstallError(msg) from error
    torch = _calling(
        _("PyTorch"), lambda: PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True)
    )
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
    _calling(names, lambda: _pip(requirements))


def _calling(what: str, installer: Callable[[], Any]) -> Any:
    """Call an installer that is not ours, and say in words what it raises."""
    try:
        return installer()
    except Exception as error:  # the edge to other people's code: any failure is a failed install
        logger.exception("Installing failed: %s", what)
        msg = _(
            "Installing {what} failed: {reason}. The Python console shows what was printed. Check "
            "the network connection and the free disk space, then press Install again; if that "
            "does not help, restart Slicer first."
        )
        raise InstallError(msg.format(what=what, reason=_reason(error))) from error


def _reason(error: Exception) -> str:
    if isinstance(error, CalledProcessError):
        return _("the installer ended with code {code}").format(code=error.returncode)
    return str(error).strip().rstrip(".") or type(error).__name__


def _pip(requirements: list[str]) -> None:
    """Install, keeping the torch that is there: pip sees it as installed."""
    try:
        from slicer import packaging
    except ImportError:  # Slicer 5.10
        slicer.util.pip_install(" ".join(f'"{requirement}"' for requirement in requirements))
    else:
        packaging.pip_install(requirements, requester="ASLseg")


def _check_restart(before: dict[str, str]) -> None:
    """Ask for a restart if a package was replaced of which the old version is in use."""
    replaced = [name for name, version in before.items() if _version_of(name) != version]
    if replaced:
        msg = _("Everything is installed. Restart Slicer now: it still uses the old {names}.")
        raise InstallError(msg.format(names=", ".join(replaced)))


def _loaded_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are imported already."""
    imported = [name for name in names if _import_name(name) in sys.modules]
    return {name: _version_of(name) for name in imported}


def _name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _import_name(name: str) -> str:
    return name.replace("-", "_")


def _version_of(name: str) -> str:
    """Return the version that is installed; empty when there is none, or only a rest of one."""
    try:
        return metadata.version(name) or ""
    except (metadata.PackageNotFoundError, KeyError):
        return ""


def _is_satisfied(requirement: str) -> bool:
    name = _name_of(requirement)
    version = _version_of(name)
    return bool(version) and _can_be_found(_import_name(name)) and _fits(version, requirement)


def _can_be_found(module: str) -> bool:
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(module) is not None
    return False


def _fits(version: str, requirement: str) -> bool:
    """Tell whether a version is one that a requirement allows."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # every Slicer since 5.10 has it; without it any version is taken
        return True
    return bool(Requirement(requirement).specifier.contains(version, prereleases=True))
