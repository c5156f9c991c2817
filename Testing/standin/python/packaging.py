"""slicer.packaging: what is missing is recorded after the person agreed; nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packaging.requirements import Requirement


installed_requests: list[str] = []


def load_requirements(path: Any) -> list[Requirement]:
    """Return the requirements of a file; whole lines of comment and options are left out."""
    from packaging.requirements import Requirement

    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def pip_check(req: Any, _seen: Any = None) -> bool:
    """Tell whether requirements are installed in versions that they allow."""
    return not missing(_listed(req))


def pip_ensure(
    requirements: Any,
    constraints: Any = None,
    skip_packages: Any = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> None:
    """Install what is missing, after asking."""
    import slicer

    wanted = missing(_listed(requirements))
    if not wanted or (skip_in_testing and slicer.app.testingEnabled()):
        return
    if prompt_install and not slicer.util.confirmOkCancelDisplay(
        f"{requester} needs packages: {', '.join(wanted)}", detailedText="\n".join(wanted)
    ):
        raise RuntimeError("User declined package installation")
    pip_install(wanted)


def pip_install(
    requirements: Any,
    constraints: Any = None,
    no_deps_requirements: Any = None,
    skip_packages: Any = None,
    blocking: bool = True,
    show_progress: bool = True,
    requester: str | None = None,
    logCallback: Any = None,
    completedCallback: Any = None,
) -> None:
    """Record what would be installed."""
    installed_requests.extend(_listed(requirements))


def pip_uninstall(
    requirements: Any,
    blocking: bool = True,
    logCallback: Any = None,
    completedCallback: Any = None,
) -> None:
    """Forget what was recorded."""
    for requirement in _listed(requirements):
        installed_requests.remove(requirement)


def isPipInstallInProgress() -> bool:
    """Tell whether pip runs."""
    return False


def _listed(requirements: Any) -> list[str]:
    if isinstance(requirements, str):
        return shlex.split(requirements)
    if isinstance(requirements, list):
        return [str(requirement) for requirement in requirements]
    raise ValueError("pip_install requirement input must be string or list")


def missing(requirements: list[str]) -> list[str]:
    """Return the requirements that no installed distribution meets."""
    from packaging.requirements import Requirement

    return [each for each in requirements if not _is_met(Requirement(each))]


def _is_met(requirement: Requirement) -> bool:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return version in requirement.specifier
