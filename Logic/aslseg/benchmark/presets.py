"""Settings of the benchmark, by data and machine; Docs/benchmark.md has them in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aslseg.benchmark.data import AS_GIVEN, Grid
from aslseg.benchmark.entries import ENTRIES
from aslseg.config import (
    AdaptationConfig,
    NetworkConfig,
    PromptConfig,
    RoiConfig,
    RunConfig,
    SamConfig,
    ScSamConfig,
    SemiSamConfig,
    SpecialistConfig,
)
from aslseg.errors import entry_of
from aslseg.presets import PRESETS


@dataclass(frozen=True, slots=True)
class BenchmarkPreset:
    """What all rows share.

    Attributes:
        config: Settings.
        labelled: Numbers of labelled cases.
        seeds: Of the runs.
        workers: Processes that run experiments side by side.
        grid: How images are copied first.
        unlabelled: At most so many unlabelled cases of a draw are trained on; None for all.
        tables: Which there are: `schedule`, `time`.
        entries: Names of the rows, if no others are asked for; all for none.
        changes: By name of a row, settings of its own by dotted name, chosen on training cases.
    """

    config: RunConfig
    labelled: tuple[int, ...] = (1, 2, 4)
    seeds: tuple[int, ...] = (0,)
    workers: int = 1
    grid: Grid = AS_GIVEN
    unlabelled: int | None = None
    tables: tuple[str, ...] = ("schedule", "time")
    entries: tuple[str, ...] = ()
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _small(settings: SpecialistConfig, pixel_mm: float) -> SpecialistConfig:
    return settings.model_copy(
        update={
            "iterations": 64,
            "batch_size": 4,
            "patch_size": 72,
            "learning_rate": 5e-3,
            "ema_decay": 0.9,
            "network": NetworkConfig(channels=(16, 32, 64, 128)),
            "roi": settings.roi.model_copy(update={"pixel_mm": pixel_mm}),
        }
    )


_QUICK, _STANDARD = PRESETS["quick"], PRESETS["standard"]
_OWN = {"preset": "custom", "label_unlabelled": False}
_EVERYTHING = tuple(name for name in ENTRIES if name != "nnunet")
"""Rows that need nothing from outside."""

_HIPPOCAMPUS = SpecialistConfig(
    iterations=900,
    batch_size=8,
    patch_size=48,
    learning_rate=2e-3,
    ema_decay=0.97,
    consistency_weight=1.0,
    network=NetworkConfig(channels=(16, 32, 64), dropout=0.1),
    roi=RoiConfig(pixel_mm=1.0, context_mm=1.0, window_hu=(0.0, 100.0)),
)

BENCHMARKS: dict[str, BenchmarkPreset] = {
    "hippocampus": BenchmarkPreset(
        _QUICK.model_copy(
            update={
                **_OWN,
                "organ": _HIPPOCAMPUS,
                "lesion": _HIPPOCAMPUS,
                "sam": SamConfig(
                    input_size=112, iterations=100, versions=2, window_hu=(0.0, 100.0),
                ),
                "semisam": SemiSamConfig(clicks=3),
                "scsam": ScSamConfig(input_size=112, learning_rate=1e-3),
                "cpcsam": _QUICK.cpcsam.model_copy(update={"input_size": 112}),
                "adaptation": AdaptationConfig(
                    iterations=150, versions=2, pixel_mm=1.0, patch_size=48, channels=(8, 16, 32),
                ),
            }
        ),
        labelled=(1, 2, 4, 8),
        grid=Grid(percentiles=(0.5, 99.5)),
        unlabelled=24,
        entries=tuple(name for name in _EVERYTHING if name != "lesion_rule"),
        changes={"unimatch": {"organ.consistency_weight": 0.1}},
    ),
    "liver": BenchmarkPreset(_QUICK.model_copy(update=_OWN), entries=_EVERYTHING),
    "full": BenchmarkPreset(_STANDARD.model_copy(update=_OWN), entries=_EVERYTHING),
    "small": BenchmarkPreset(
        _QUICK.model_copy(
            update={
                **_OWN,
                "crossfit_share": 0.0,
                "later_learning_rate": 0.2,  # of five times that of `quick`
                "organ": _small(_QUICK.organ, 5.5),
                "lesion": _small(_QUICK.lesion, 3.0),
                "sam": SamConfig(
                    iterations=20, versions=1, input_size=224, batch_size=4, learning_rate=5e-4,
                    prompts=PromptConfig(min_area_px=12, most_components=8),
                ),
                "semisam": SemiSamConfig(clicks=3),
                "scsam": ScSamConfig(input_size=112, learning_rate=5e-4),
                "adaptation": AdaptationConfig(
                    iterations=15, versions=1, pixel_mm=2.5, patch_size=64, batch_size=4,
                    channels=(8, 16, 32), learning_rate=5e-3,
                ),
            }
        ),
        workers=2,
        grid=Grid(spacing_mm=(6.0, 2.5, 2.5)),
        tables=("schedule",),
        entries=tuple(
            name for name in _EVERYTHING if name not in ("cpcsam", "aslseg_mean_teacher")
        ),  # for the sake of time
    ),
}  # fmt: skip


def benchmark_preset(name: str) -> BenchmarkPreset:
    """Return what all rows share, by name.

    Raises:
        ConfigError: When there is none of that name.
    """
    return entry_of(BENCHMARKS, name, "The benchmark has no preset")
