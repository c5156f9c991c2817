"""Settings to and from JSON, with errors that name the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aslseg.config import RunConfig
from aslseg.errors import ConfigError
from aslseg.reading import read_object


def parse_config(values: dict[str, Any], source: str = "settings") -> RunConfig:
    """Validate settings from JSON.

    Raises:
        ConfigError: Naming the first setting that cannot be used, and `source`.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:100] or "the whole"
        msg = f"{source}: setting '{where}' cannot be used: {first['msg']}; correct it."
        raise ConfigError(msg) from error


def read_config(path: Path) -> RunConfig:
    """Read settings from a JSON file.

    Raises:
        ConfigError: When the file is missing, no JSON, or has a setting that cannot be used.
    """
    values = read_object(path, ConfigError, "give the path of a settings file")
    return parse_config(values, str(path))
