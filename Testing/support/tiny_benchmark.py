"""A benchmark of the tiny patients, small enough for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aslseg.benchmark.data import BenchmarkData
from aslseg.benchmark.draws import one_draw
from aslseg.benchmark.experiments import Experiment
from aslseg.benchmark.presets import BenchmarkPreset
from aslseg.config import CpcSamConfig, SamConfig, ScSamConfig, SemiSamConfig
from support.tiny_project import tiny_config, write_patients

HELD_OUT = ("c4", "c5")


def a_preset(**changes: object) -> BenchmarkPreset:
    """Return settings for one experiment of a row: two labelled cases, one seed, one table."""
    config = tiny_config(
        sam=SamConfig(input_size=128, iterations=6, versions=1, batch_size=2),
        semisam=SemiSamConfig(clicks=2),
        scsam=ScSamConfig(input_size=128, rank=2),
        cpcsam=CpcSamConfig(input_size=128, rank=2),
        label_unlabelled=False,
    )
    preset = BenchmarkPreset(config, labelled=(2,), tables=("schedule",))
    return replace(preset, **changes)


def an_experiment(entry: str, labelled: int = 2, seed: int = 0) -> Experiment:
    """Return an experiment of the only draw, in the table of one schedule."""
    return Experiment("schedule", seed, "given" if labelled else "all", labelled, entry)


def data_in(folder: Path) -> BenchmarkData:
    """Write patients, of whom four are for training and two are scored."""
    cases = [case for case in write_patients(folder / "data") if case.id != "c6"]
    return one_draw(cases, HELD_OUT, ("c1", "c0"))
