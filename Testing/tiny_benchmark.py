"""A benchmark of the tiny patients, small enough for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aslseg.benchmark.data import BenchmarkData, choose_data
from aslseg.benchmark.presets import BenchmarkPreset
from aslseg.config import CpcSamConfig, SamConfig, ScSamConfig, SemiSamConfig
from tiny_project import tiny_config, write_patients

BUDGET = 34
HELD_OUT = ("c4", "c5")


def a_preset(**changes: object) -> BenchmarkPreset:
    """Return settings for one experiment of a row: two labelled volumes, one seed."""
    config = tiny_config(
        sam=SamConfig(input_size=256, iterations=6, versions=1, batch_size=2),
        semisam=SemiSamConfig(clicks=2),
        scsam=ScSamConfig(input_size=128, rank=2),
        cpcsam=CpcSamConfig(input_size=128, rank=2),
        label_unlabelled=False,
    )
    preset = BenchmarkPreset(config, BUDGET, labelled=(2,), seeds=(0,))
    return replace(preset, **changes)


def data_in(folder: Path) -> BenchmarkData:
    """Write patients, of whom four are for training and two are scored."""
    cases = [case for case in write_patients(folder / "data") if case.id != "c6"]
    return choose_data(cases, HELD_OUT, ("c1", "c0"))
