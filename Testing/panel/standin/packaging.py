"""slicer.packaging: what is missing is recorded after the person agreed; nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

installed_requests: list[str] = []


def load_requirements(path: Any) -> list[str]:
    """Return the requirements of a file, without comments."""
    lines = (line.partition("#")[0].strip() for line in Path(path).read_text().splitlines())
    return [line for line in lines if line]


def pip_check(req: Any, _seen: Any = None) -> bool:
    """Tell whether requirements (names without their versions) are installed."""
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
    if not wanted:
        return
    if prompt_install and not slicer.util.confirmOkCancelDisplay(
        f"{requester} needs packages: {', '.join(wanted)}", detailedText="\n".join(wanted)
    ):
        raise RuntimeError("the installation was declined")
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
    return requirements.split() if isinstance(requirements, str) else [str(r) for r in requirements]


def missing(requirements: list[str]) -> list[str]:
    """Return the requirements of which no distribution is installed."""
    return [each for each in requirements if not _is_installed(re.split(r"[<>=!~\[ ;]", each)[0])]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
