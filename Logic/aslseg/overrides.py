"""Settings that are changed by their names, as on the command line and in requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aslseg.config import TEACHERS, RunConfig, parse_config
from aslseg.errors import ConfigError


def with_overrides(
    config: RunConfig, changes: Mapping[str, Any], source: str = "settings"
) -> RunConfig:
    """Return settings of which some are changed.

    Mean teacher is the paradigm where `method=semisam` comes without one that has a teacher.

    Args:
        config: The settings.
        changes: New values by name; names may have dots (`sam.model`), and the value of a group may
            be an object of those of its settings that change.
        source: What errors name.

    Raises:
        ConfigError: When a setting is unknown or out of range, or a name has a dot after something
            that is no group.
    """
    values = config.model_dump(mode="json")
    _override(values, changes)
    if changes.get("method") == "semisam" and "paradigm" not in changes:
        values["paradigm"] = config.paradigm if config.paradigm in TEACHERS else TEACHERS[0]
    return parse_config(values, source)


def is_in_group(config: RunConfig, name: str) -> bool:
    """Whether all that stands before a dot in a name is a group of settings, or unknown."""
    values: Any = config.model_dump(mode="json")
    for group in name.split(".")[:-1]:
        values = values.get(group, {}) if isinstance(values, dict) else None
    return isinstance(values, dict)


def _override(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        *groups, last = name.split(".")
        group = values
        for part in groups:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                msg = f"Setting '{name}' cannot be used: '{part}' is no group; correct it."
                raise ConfigError(msg)
        if isinstance(value, Mapping) and isinstance(group.get(last), dict):
            _override(group[last], value)
        else:
            group[last] = value
