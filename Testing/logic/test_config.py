"""Settings are checked one by one, and what is wrong is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aslseg.config import NetworkConfig, RunConfig, SpecialistConfig, parse_config, read_config
from aslseg.errors import ConfigError
from aslseg.overrides import with_overrides
from aslseg.presets import PRESETS, read_preset
from aslseg.targets import LIVER_TARGETS, Target


def nested(path: str, value: Any) -> dict[str, Any]:
    """Return {"a": {"b": value}} for the path a.b."""
    for key in reversed(path.split(".")):
        value = {key: value}
    result: dict[str, Any] = value
    return result


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("roundz", "'roundz' cannot be used: there is no such setting, but rounds; correct it."),
        ("organ.roi.pixel", "there is no such setting, but organ.roi.pixel_mm; correct it."),
        ("abc", "'abc' cannot be used: there is no such setting; correct it."),
    ],
)
def test_of_a_setting_that_there_is_not_those_named_alike_are_told(path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        with_overrides(RunConfig(), {path: 3}, "--set")


def test_no_settings_give_the_defaults() -> None:
    assert parse_config({}) == RunConfig()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("roundz", 3),
        ("organ.iteration", 5),
        ("organ.roi.pixel", 2.0),
        ("sam.prompts.margin", 1),
        ("rounds", 0),
        ("rounds", 1.5),
        ("patience", 0),
        ("seed", -1),
        ("seed", 2**31),
        ("device", "tpu"),
        ("paradigm", "magic"),
        ("later_share", 0.0),
        ("later_learning_rate", 0.0),
        ("min_component_ml", -0.1),
        ("min_component_ml", float("inf")),
        ("sam.cache_gb", float("inf")),  # the settings of a run are JSON, which has no word for it
        ("organ.iterations", 0),
        ("organ.learning_rate", 0.0),
        ("organ.learning_rate", 1.5),
        ("organ.ema_decay", 1.01),
        ("organ.uncertainty_passes", 1),
        ("organ.optimiser", "adam"),
        ("lesion.lesion_share", -0.5),
        ("lesion.network.dimensions", 4),
        ("lesion.network.dropout", 1.0),
        ("lesion.network.channels", [16]),
        ("lesion.roi.pixel_mm", 0.0),
        ("lesion.roi.window_hu", [100, 100]),
        ("lesion.patch_size", 0),
        ("adaptation.patch_size", -4),
        ("sam.window_hu", [200, -50]),
        ("sam.window_hu", [float("nan"), 200]),
        ("sam.model", "vit_x"),
        ("sam.input_size", 300),
        ("sam.tuning", "all"),
        ("sam.rank", 0),
        ("sam.prompts.proposal_threshold", 0.0),
        ("adaptation.channels", []),
        ("adaptation.versions", 0),
        ("reliability.first_share", 1.5),
        ("reliability.pseudo_weight", 0.0),
        ("method", 7),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(path: str, value: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(nested(path, value), "my.json")
    words = str(raised.value)
    assert words.startswith(f"my.json: setting '{path}")
    assert words.endswith("; correct it.")


def test_a_window_that_does_not_open_is_said_to() -> None:
    with pytest.raises(ConfigError, match="must go from low to high"):
        parse_config(nested("organ.roi.window_hu", [200, -100]))


def test_a_patch_must_halve_at_every_level() -> None:
    five_levels = {"channels": [2, 4, 8, 16, 32]}
    with pytest.raises(ConfigError, match="patch_size must be a multiple of 16 for 5 levels"):
        parse_config({"organ": {"patch_size": 24, "network": five_levels}})
    with pytest.raises(ConfigError, match=r"channels of dynunet .* at least three levels"):
        parse_config({"lesion": {"network": {"channels": [16, 32]}}})
    with pytest.raises(ConfigError, match="and at least 32, got 16"):  # one pixel would be left
        parse_config({"organ": {"patch_size": 16, "network": five_levels}})
    parse_config({"organ": {"patch_size": 32, "network": five_levels}})
    with pytest.raises(ConfigError, match=r"'adaptation' cannot be used.* multiple of 4"):
        parse_config({"adaptation": {"patch_size": 30, "channels": [2, 4, 8]}})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_survives_json(name: str, tmp_path: Path) -> None:
    preset = read_preset(name)
    assert preset.preset == name
    path = tmp_path / "config.json"
    path.write_text(json.dumps(preset.model_dump(mode="json")), encoding="utf-8")
    assert read_config(path) == preset


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no preset 'fast'; choose one of quick"):
        read_preset("fast")


def test_a_settings_file_that_is_absent_or_no_json_is_named(tmp_path: Path) -> None:
    absent, broken = tmp_path / "absent.json", tmp_path / "broken.json"
    broken.write_text('{\n "rounds": 2,,\n}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"absent\.json cannot be read"):
        read_config(absent)
    with pytest.raises(ConfigError, match=r"broken\.json is damaged, it is no JSON .*line 2"):
        read_config(broken)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        pytest.param("[1, 2]", "a list", id="a list"),
        pytest.param('"text"', "a text", id="a text"),
        pytest.param("null", "nothing", id="nothing"),
    ],
)
def test_json_that_is_no_set_of_settings_is_refused(
    tmp_path: Path, content: str, name: str
) -> None:
    path = tmp_path / f"{name}.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no JSON object"):
        read_config(path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe\x00rounds")
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(path)


def test_the_outermost_targets_take_the_settings_of_organs_and_others_those_of_lesions() -> None:
    network = NetworkConfig(dropout=0.2)
    organ, lesion = (SpecialistConfig(iterations=n, network=network) for n in (5, 6))
    config = RunConfig(organ=organ, lesion=lesion)
    assert config.stage(None) == organ
    assert config.stage("liver") == lesion


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        RunConfig().rounds = 3  # type: ignore[misc]


@pytest.mark.parametrize("value", [0, 256, -1])
def test_a_target_has_a_value_from_1_to_255(value: int) -> None:
    with pytest.raises(ValidationError):
        Target(name="liver", value=value)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "a\nb"])
def test_a_target_has_a_name_that_is_good_for_files(name: str) -> None:
    with pytest.raises(ValidationError):
        Target(name=name, value=1)


def test_the_default_targets_are_those_of_lits() -> None:
    facts = [(target.name, target.value, target.inside) for target in LIVER_TARGETS]
    assert facts == [("liver", 1, None), ("tumour", 2, "liver")]


def test_edges_are_padded_to_what_the_levels_halve() -> None:
    assert NetworkConfig(channels=(4, 8, 8)).stride == 4
    assert NetworkConfig(channels=(16, 32, 64, 128, 256)).stride == 16


def test_a_copy_with_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="RunConfig has no setting rounds_of"):
        RunConfig().model_copy(update={"rounds_of": 3})


def test_semisam_has_a_teacher() -> None:
    quick = read_preset("quick")
    assert quick.paradigm == "supervised"
    assert with_overrides(quick, {"method": "semisam"}).paradigm == "mean_teacher"
    asked = with_overrides(quick, {"method": "semisam", "paradigm": "uncertainty_aware"})
    assert asked.paradigm == "uncertainty_aware"
    for name in ("supervised", "unimatch"):  # before anything is trained
        with pytest.raises(ConfigError, match=f"an addition to a teacher; .*, not {name}"):
            with_overrides(quick, {"method": "semisam", "paradigm": name})
    assert with_overrides(quick, {"method": "aslseg"}).paradigm == "supervised"
