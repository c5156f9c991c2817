"""The settings, run and targets that a request names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aslseg.config import RunConfig, SamConfig, parse_config, with_overrides
from aslseg.engine.requests import ImageRequest
from aslseg.errors import ConfigError, RunError
from aslseg.presets import DEFAULT_PRESET, read_preset
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder, latest_finished, open_run
from aslseg.targets import LIVER_TARGETS, Target


def config_of(settings: Any, default: str | None = None) -> RunConfig:
    """Return the settings of a training.

    Args:
        settings: Name of a preset, or settings by group, or
            `{"preset": name, "overrides": {...}}` whose keys may have dots (`sam.model`).
        default: Name of the preset where `settings` names none.

    Raises:
        ConfigError: When a preset or a setting is unknown or out of range.
    """
    if settings is None or isinstance(settings, str):
        return read_preset(settings or default or DEFAULT_PRESET)
    if not isinstance(settings, Mapping):
        msg = (
            f"Settings are the name of a preset or an object, got {settings!r:.200}; correct them."
        )
        raise ConfigError(msg)
    if "overrides" not in settings:
        return parse_config(dict(settings), "settings")
    changes = settings["overrides"]
    if not isinstance(changes, Mapping):
        msg = f"The overrides of settings are an object, not {changes!r:.99}; correct them."
        raise ConfigError(msg)
    base = read_preset(str(settings.get("preset") or default or DEFAULT_PRESET))
    return with_overrides(base, changes)


def sam_settings(settings: Mapping[str, Any] | None) -> SamConfig:
    """Return the settings of SAM without a run; nothing of it is tuned.

    Raises:
        ConfigError: When a setting is unknown or out of range.
    """
    return parse_config({"sam": {**(settings or {}), "tuning": "none"}}, "SAM").sam


def run_of(request: ImageRequest) -> RunFolder | None:
    """Return the run that a request is about: the one named, else the latest finished one.

    None when no project is named, or when it has no finished run and the request names none.

    Raises:
        RunError: When the run that is named does not exist.
    """
    if request.project is None:
        return None
    folder = Path(request.project)
    if request.run is not None:
        return open_run(folder, request.run)
    return latest_finished(folder)


def require_run(request: ImageRequest) -> RunFolder:
    """Return the run that a request is about.

    Raises:
        RunError: When there is none.
    """
    run = run_of(request)
    if run is None:
        msg = f"{request.project or 'The request'} has no finished run yet; train first."
        raise RunError(msg)
    return run


def targets_of(request: ImageRequest) -> tuple[Target, ...]:
    """Return the classes: of the project, else those that the request lists, else liver's."""
    if request.project is not None:
        return open_project(Path(request.project)).targets
    return tuple(request.targets) if request.targets else LIVER_TARGETS
