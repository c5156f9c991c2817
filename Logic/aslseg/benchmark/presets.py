"""Settings and budgets of the benchmark: `small` for two cores, `full` for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from aslseg.benchmark.entries import ENTRIES
from aslseg.config import (
    AdaptationConfig,
    NetworkConfig,
    PromptConfig,
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
        config: Settings; numbers of steps are proportions, the budget makes them absolute.
        budget: Training steps of every run, all its parts together.
        labelled: Numbers of labelled volumes.
        seeds: Of the runs.
        workers: Processes that run experiments side by side.
        spacing_mm: Least voxel edges along (k, j, i) that images are brought to before all else;
            None leaves them as they are.
        entries: Names of the rows, if no others are asked for; all for none.
    """

    config: RunConfig
    budget: int
    labelled: tuple[int, ...] = (1, 2, 4)
    seeds: tuple[int, ...] = (0, 1, 2)
    workers: int = 1
    spacing_mm: tuple[float, float, float] | None = None
    entries: tuple[str, ...] = ()


def _small(settings: SpecialistConfig, pixel_mm: float) -> SpecialistConfig:
    return settings.model_copy(
        update={
            "iterations": 1000,
            "batch_size": 4,
            "patch_size": 72,
            "learning_rate": 5e-3,
            "ema_decay": 0.9,
            "network": NetworkConfig(channels=(16, 32, 64, 128)),
            "roi": settings.roi.model_copy(update={"pixel_mm": pixel_mm}),
        }
    )


_QUICK, _STANDARD = PRESETS["quick"], PRESETS["standard"]

BENCHMARKS: dict[str, BenchmarkPreset] = {
    "small": BenchmarkPreset(
        _QUICK.model_copy(
            update={
                "preset": "custom",
                "crossfit_share": 0.0,
                "later_learning_rate": 0.2,  # of five times that of `quick`
                "label_unlabelled": False,
                "organ": _small(_QUICK.organ, 5.5),
                "lesion": _small(_QUICK.lesion, 3.0),
                "sam": SamConfig(
                    iterations=200, versions=1, input_size=224, batch_size=4, learning_rate=5e-4,
                    prompts=PromptConfig(min_area_px=12, most_components=8),
                ),
                "semisam": SemiSamConfig(clicks=3),
                "scsam": ScSamConfig(input_size=112, learning_rate=5e-4),
                "adaptation": AdaptationConfig(
                    iterations=150, versions=1, pixel_mm=2.5, patch_size=64, batch_size=4,
                    channels=(8, 16, 32), learning_rate=5e-3,
                ),
            }
        ),
        budget=128,
        workers=2,
        spacing_mm=(6.0, 2.5, 2.5),
        entries=tuple(name for name in ENTRIES if name != "cpcsam"),  # for the sake of time
    ),
    "full": BenchmarkPreset(
        _STANDARD.model_copy(
            update={
                "preset": "custom",
                "label_unlabelled": False,
                "adaptation": _STANDARD.adaptation.model_copy(update={"iterations": 2000}),
            }
        ),
        budget=16000,
    ),
}  # fmt: skip


def benchmark_preset(name: str) -> BenchmarkPreset:
    """Return what all rows share, by name.

    Raises:
        ConfigError: When there is none of that name.
    """
    return entry_of(BENCHMARKS, name, "The benchmark has no preset")
