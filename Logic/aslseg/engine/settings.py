"""The settings that a request for a training names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aslseg.config import RunConfig, parse_config
from aslseg.errors import ConfigError
from aslseg.overrides import with_overrides
from aslseg.presets import DEFAULT_PRESET, read_preset


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
