"""Docs/settings.md, written from the docstrings, ranges and presets of the settings themselves.

    python Testing/docs/settings_page.py

writes the page anew; a test fails where it is not up to date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any

from aslseg.config import RunConfig, Settings
from aslseg.presets import PRESETS

PAGE = Path(__file__).resolve().parents[2] / "Docs" / "settings.md"

HEAD = """# Settings

<!-- Written by `python Testing/docs/settings_page.py` from the docstrings of
     Logic/aslseg/config.py: change those. -->

A preset sets all of them. `aslseg train PROJECT --set NAME=VALUE` changes one, and `--config FILE`
reads them from JSON. In Python they are the fields of `RunConfig`. A value that cannot be used is
refused, with the setting's name. "(ours)" marks what is in no paper;
[results-settings.md](studies/results-settings.md) has what was measured.
"""

FIRST: Mapping[str, str] = {
    "rounds": "Rounds",
    "device": "Device",
    "sam.model": "SAM",
    "sam.input_size": "SAM input size",
    "baseline": "Also train a supervised baseline",
    "reliability.first_share": "AI labels to learn from, at most (%)",
    "reliability.min_score": "Never below reliability",
    "organ.iterations": "",
    "lesion.iterations": "",
    "organ.roi.window_hu": "",
    "sam.window_hu": "",
    "candidates.false_per_case": "",
    "min_component_ml": "",
}
"""Settings to look at first, each with what is written beside it in the panel, if it is there."""

STAGES = ("organ", "lesion")
"""Two groups of the same settings, which the page has in one table."""


@dataclass(frozen=True)
class Row:
    """One setting of a group: its name in it, its meaning, and the values that it may have."""

    name: str
    meaning: str
    allowed: str


def meanings(group: type[Settings]) -> dict[str, str]:
    """Return what the `Attributes:` of a group's docstring say of each setting."""
    text = re.split(r"^    Attributes:\n", group.__doc__ or "", flags=re.MULTILINE)[-1]
    entries = re.findall(r"^ {8}([\w, ]+): (.*(?:\n {12}.*)*)", text, re.MULTILINE)
    return {
        name: re.sub(r"\s+", " ", meaning)
        for names, meaning in entries
        for name in names.split(", ")
    }


def first_sentence(group: type[Settings]) -> str:
    """Return the first line of a group's docstring."""
    return (group.__doc__ or "").splitlines()[0]


@cache
def rows(group: type[Settings], prefix: str = "") -> tuple[Row, ...]:
    """Return the settings of a group, those of the groups in it with their names in front.

    Raises:
        KeyError: When the docstring does not say what a setting is.
    """
    said, schemas = meanings(group), group.model_json_schema()["properties"]
    found: list[Row] = []
    for name, field in group.model_fields.items():
        if isinstance(field.default, Settings):
            found += rows(type(field.default), f"{prefix}{name}.")
        else:
            found.append(Row(prefix + name, said[name], allowed(schemas[name])))
    return tuple(found)


def allowed(schema: Mapping[str, Any]) -> str:
    """Return the values that a field may have, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"{schema['minItems']} numbers" + ("" if "maxItems" in schema else " or more")
    if schema["type"] in ("integer", "number"):
        return _interval(schema)
    return {"boolean": "`true`, `false`", "null": "`null`", "string": "text"}[schema["type"]]


def _interval(schema: Mapping[str, Any]) -> str:
    whole = "whole, " if schema["type"] == "integer" else ""
    low = f"above {written(schema['exclusiveMinimum'])}" if "exclusiveMinimum" in schema else ""
    low = low or f"from {written(schema['minimum'])}"
    high = f" to {written(schema['maximum'])}" if "maximum" in schema else ""
    if "exclusiveMaximum" in schema:
        high = f", below {written(schema['exclusiveMaximum'])}"
    return whole + low + high


def written(value: Any) -> str:
    """Return a value as it is given to `--set`, floats with three digits."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(written(one) for one in value)}]"
    return value if isinstance(value, str) and value else json.dumps(value)


def value_of(config: RunConfig, name: str) -> Any:
    """Return the value of a setting by its dotted name."""
    return reduce(getattr, name.split("."), config)


def of_presets(names: tuple[str, ...]) -> str:
    """Return what presets have in place of the default, for a setting of one or several groups."""
    usual = value_of(RunConfig(), names[0])
    said = []
    for preset, config in PRESETS.items():
        values = [value_of(config, name) for name in names]
        others = [
            f"{name.split('.')[0]} {written(value)}"
            for name, value in zip(names, values, strict=True)
            if value != usual
        ]
        if others and values == [values[0]] * len(values):
            others = [written(values[0])]
        if others:
            said.append(f"`{preset}`: {', '.join(others)}")
    return "; ".join(said)


def table(group: type[Settings], homes: tuple[str, ...]) -> Iterator[str]:
    """Give the lines of a table: the settings of a group, or of several groups of one kind."""
    yield "| setting | what it is | values | default | in presets |"
    yield "|---|---|---|---|---|"
    for row in rows(group):
        names = tuple(home + row.name for home in homes)
        if names[0] == "preset":  # is what gives the others
            continue
        shown = row.name if len(homes) > 1 else names[0]
        usual = written(value_of(RunConfig(), names[0]))
        yield f"| `{shown}` | {row.meaning} | {row.allowed} | {usual} | {of_presets(names)} |"


def page() -> str:
    """Return the whole page."""
    every = {row.name: row for row in rows(RunConfig)}
    lines = [HEAD, "## To begin with", "| setting | what it is | in the panel |", "|---|---|---|"]
    for name, label in FIRST.items():
        lines.append(f"| `{name}` | {every[name].meaning} | {f'*{label}*' if label else ''} |")
    lines += ["", "Where a setting has no place in the panel, its preset's value counts there.", ""]
    groups = {n: f.default for n, f in RunConfig.model_fields.items() if n not in STAGES}
    own = {name for name, value in groups.items() if not isinstance(value, Settings)}
    lines += ["## All settings", "### The run", *_of_the_run(own), ""]
    lines += ["### `organ` and `lesion`: the specialist's stages"]
    lines += [
        "In front of each name stands the stage: `organ.iterations`, `lesion.iterations`.",
        "",
    ]
    lines += [*table(type(RunConfig().organ), tuple(f"{stage}." for stage in STAGES)), ""]
    for name, value in groups.items():
        if isinstance(value, Settings):
            lines += [f"### `{name}`", first_sentence(type(value)), ""]
            lines += [*table(type(value), (f"{name}.",)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _of_the_run(own: set[str]) -> Iterator[str]:
    head = re.compile(r"\| `([\w.]+)` \|")
    for line in table(RunConfig, ("",)):
        found = head.match(line)
        if found is None or found[1] in own:
            yield line


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
