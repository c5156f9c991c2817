"""Settings that nothing comes of, of which a person is told.

In a stage of several targets no lesion is drawn, and there is no second pass: nothing says which of
them it would be, or which of their intensities. Nor is there a second pass inside of a parent, or a
lesion without one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aslseg.config import RunConfig
from aslseg.errors import ConfigError
from aslseg.targets import CascadeStage

_NEVER = {
    "lesion.second_pass": "a second pass is for organs, see organ.second_pass",
    "organ.synthetic_lesion_chance": "lesions are drawn into the patches of the lesion stage, see "
    "lesion.synthetic_lesion_chance",
}


def unused_by(stage: CascadeStage) -> dict[str, Any]:
    """Return the settings of a stage that it has no use for, as they count for it."""
    unused: dict[str, Any] = {}
    if len(stage.targets) > 1 or stage.inside is None:
        unused["synthetic_lesion_chance"] = 0.0
    if len(stage.targets) > 1 or stage.inside is not None:
        unused["second_pass"] = False
    return unused


def refuse_unused(config: RunConfig) -> None:
    """Refuse settings that nothing comes of whatever the targets are.

    Raises:
        ConfigError: When there is one.
    """
    for name in _never_used(config):
        msg = f"'{name}' changes nothing ({_NEVER[name]}); leave it out."
        raise ConfigError(msg)


def unused_in_words(config: RunConfig, stages: Iterable[CascadeStage]) -> list[str]:
    """Say which settings of a run nothing comes of, with its targets."""
    found = [f"'{name}' changes nothing ({_NEVER[name]})." for name in _never_used(config)]
    for stage in stages:
        if len(stage.targets) > 1:
            names = " and ".join(target.name for target in stage.targets)
            settings = config.stage(stage.parent_name)
            what = {
                "second_pass": "there is no second pass for them",
                "synthetic_lesion_chance": "no lesions are drawn into their training patches",
            }
            group = "organ" if stage.inside is None else "lesion"
            found += [
                f"{names} are told apart by one network, so {words} ({group}.{name})."
                for name, words in what.items()
                if getattr(settings, name) and f"{group}.{name}" not in _NEVER
            ]
    return found


def _never_used(config: RunConfig) -> list[str]:
    set_ones = {
        "lesion.second_pass": config.lesion.second_pass,
        "organ.synthetic_lesion_chance": config.organ.synthetic_lesion_chance,
    }
    return [name for name, value in set_ones.items() if value]
