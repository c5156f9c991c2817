"""Settings as they are given on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from aslseg.config import RunConfig, parse_config, read_config
from aslseg.reading import parse_json


def base_config(preset: str | None, file: Path | None, *, default: str) -> RunConfig:
    """Read the settings of a preset or of a file.

    Raises:
        typer.BadParameter: When both are given.
        ConfigError: When there is no such preset, or the file cannot be used.
    """
    from aslseg.presets import read_preset

    if file is not None and preset is not None:
        msg = "Give either --preset or --config, not both."
        raise typer.BadParameter(msg)
    return read_config(file) if file is not None else read_preset(preset or default)


def changed(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """Change single settings, each written as `name=value` or `group.name=value`.

    Raises:
        typer.BadParameter: When one is written differently.
        ConfigError: When one is unknown or out of range.
    """
    values = config.model_dump(mode="json")
    for setting in settings:
        _set(values, setting)
    return parse_config(values, "--set")


def _set(values: dict[str, Any], setting: str) -> None:
    name, equals, text = setting.partition("=")
    *groups, last = name.strip().split(".")
    for group in groups:
        values = values.get(group, {})
    if not equals or not isinstance(values, dict):
        msg = f"'{setting}' is no setting; write name=value, for example rounds=3."
        raise typer.BadParameter(msg)
    values[last] = _typed(text.strip())


def _typed(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text
