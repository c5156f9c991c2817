"""The settings of a new run on the command line: a preset, a file, and single ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aslseg.config import RunConfig, read_config
from aslseg.overrides import is_in_group, with_overrides
from aslseg.reading import parse_json

if TYPE_CHECKING:
    from aslseg.project.project import Project

PresetName = Annotated[str | None, typer.Option(help="Named settings: quick, standard, demo.")]
SettingsFile = Annotated[Path | None, typer.Option(help="Settings as a JSON file.")]
SingleSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, such as rounds=3 or sam.model=none; repeatable."),
]


def settings_of(
    project: Project, preset: str | None, file: Path | None, settings: list[str] | None
) -> RunConfig:
    """Return the settings of a new run of a project."""
    from aslseg.presets import DEFAULT_PRESET

    base = base_config(preset, file, default=project.preset or DEFAULT_PRESET)
    return changed(base, settings or [])


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
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not is_in_group(config, name.strip()):
            msg = f"'{setting}' is no setting; write name=value, for example rounds=3."
            raise typer.BadParameter(msg)
        changes[name.strip()] = _typed(text.strip())
    return with_overrides(config, changes, "--set")


def _typed(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text
