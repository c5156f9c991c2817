"""What a person sets is used, or refused, or it is said that it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aslseg.errors import ConfigError
from aslseg.presets import PRESETS
from aslseg.runs import estimate_run, start_run
from aslseg.targets import LIVER_TARGETS, Target, cascade_stages
from aslseg.training.unused_settings import refuse_unused, unused_in_words
from support.tiny_project import SPECIALIST, a_tiny_project, tiny_config

SPLEEN = Target(name="spleen", value=3)
CYST = Target(name="cyst", value=3, inside="liver")


@pytest.mark.parametrize(
    ("stage", "change", "instead"),
    [
        ("lesion", {"second_pass": True}, r"organ\.second_pass"),
        ("organ", {"synthetic_lesion_chance": 0.5}, r"lesion\.synthetic_lesion_chance"),
    ],
)
def test_a_setting_that_changes_nothing_is_refused_before_there_is_a_run(
    tmp_path: Path, stage: str, change: dict[str, Any], instead: str
) -> None:
    config = tiny_config(**{stage: SPECIALIST.model_copy(update=change)})
    project = a_tiny_project(tmp_path)
    for do in (start_run, estimate_run):
        with pytest.raises(ConfigError, match=rf"'{stage}\.\w+' changes nothing .*{instead}"):
            do(project, config)
    assert not (project.folder / "runs").exists()
    (told,) = unused_in_words(config, cascade_stages(LIVER_TARGETS))  # of a run that began with it
    assert told.startswith(f"'{stage}.")


def test_no_preset_has_a_setting_that_changes_nothing() -> None:
    for config in PRESETS.values():
        refuse_unused(config)
        assert unused_in_words(config, cascade_stages(LIVER_TARGETS)) == []


def test_it_is_said_what_a_preset_sets_and_several_targets_have_no_use_for() -> None:
    quick, standard = PRESETS["quick"], PRESETS["standard"]
    organs = cascade_stages((*LIVER_TARGETS, SPLEEN))
    second_pass = "liver and spleen are told apart by one network, so there is no second pass"
    assert unused_in_words(quick, organs) == [f"{second_pass} for them (organ.second_pass)."]
    assert unused_in_words(standard, organs) == []
    (told,) = unused_in_words(standard, cascade_stages((*LIVER_TARGETS, CYST)))
    assert told.startswith("tumour and cyst are told apart by one network, so no lesions are drawn")
    assert told.endswith("(lesion.synthetic_lesion_chance).")
