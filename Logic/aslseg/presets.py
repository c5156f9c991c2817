"""Named settings: which one for which data and machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aslseg.config import (
    AdaptationConfig,
    CandidatesConfig,
    CpcSamConfig,
    NetworkConfig,
    RoiConfig,
    RunConfig,
    SamConfig,
    ScSamConfig,
    SemiSamConfig,
    SpecialistConfig,
    SSLName,
)
from aslseg.errors import entry_of

_ORGAN = SpecialistConfig(
    iterations=900,
    batch_size=8,
    patch_size=96,
    intensity_strength=1.5,
    target_shift_chance=0.5,
    lesion_share=0.33,
    network=NetworkConfig(channels=(16, 32, 64, 96, 128)),
    roi=RoiConfig(pixel_mm=4.0, window_hu=(-100.0, 200.0)),
)
_LESION = _ORGAN.model_copy(
    update={
        "intensity_strength": 1.0,
        "target_shift_chance": 0.0,
        "synthetic_lesion_chance": 0.5,
        "lesion_share": 0.5,
        "mirror": True,
        "roi": RoiConfig(pixel_mm=2.0),
    }
)
_BASE = RunConfig(  # what the presets have in common
    preset="quick",
    # So few steps teach a better liver in half of the time where labels alone teach it.
    paradigm="supervised",
    organ=_ORGAN,
    # With intensities changed and lesions drawn, lesions want three times the organ's steps (ours).
    lesion=_LESION.model_copy(update={"iterations": 2700}),
    sam=SamConfig(iterations=200, versions=2),
    adaptation=AdaptationConfig(iterations=400, versions=2, pixel_mm=2.0, patch_size=96),
    semisam=SemiSamConfig(clicks=3),
    scsam=ScSamConfig(input_size=128),
    cpcsam=CpcSamConfig(input_size=128, warmup_share=0.05, supervised_share=0.3),
)


def _longer(settings: SpecialistConfig, pixel_mm: float) -> SpecialistConfig:
    roi = settings.roi.model_copy(update={"pixel_mm": pixel_mm})
    return settings.model_copy(
        update={
            "iterations": 8000,
            "batch_size": 24,
            "patch_size": 160,
            "network": NetworkConfig(channels=(32, 64, 128, 256, 320)),
            "roi": roi,
        }
    )


def _demo(settings: SpecialistConfig, steps: int) -> SpecialistConfig:
    return settings.model_copy(
        update={
            "iterations": steps,
            "patch_size": 64,
            "batch_size": 6,
            "target_shift_chance": 0.0,  # the livers of phantoms are as bright as each other
            "network": NetworkConfig(channels=(16, 32, 64, 128)),
        }
    )


PRESETS: dict[str, RunConfig] = {
    "quick": _BASE.model_copy(
        update={
            # Finer pixels are worth a point of the liver's Dice, a second pass one or two (ours).
            "organ": _ORGAN.model_copy(
                update={
                    "second_pass": True,
                    "batch_size": 6,
                    "patch_size": 128,
                    "roi": _ORGAN.roi.model_copy(update={"pixel_mm": 3.0}),
                }
            ),
            # Real lesions were drawn too small, those of phantoms were not (ours).
            "candidates": CandidatesConfig(whole_cores=True),
        }
    ),
    "standard": _BASE.model_copy(
        update={
            "preset": "standard",
            "paradigm": "mean_teacher",
            "rounds": 3,
            "organ": _longer(_ORGAN, 2.0),
            "lesion": _longer(_LESION, 1.25),
            "sam": SamConfig(model="vit_b", input_size=1024, tuning="lora", iterations=2000),
            "semisam": SemiSamConfig(),
            "scsam": ScSamConfig(rank=192),
            "cpcsam": CpcSamConfig(),
            "adaptation": AdaptationConfig(iterations=4000, batch_size=16, pixel_mm=1.25),
        }
    ),
    "demo": _BASE.model_copy(
        update={
            "preset": "demo",
            "crossfit_share": 0.0,  # so short, its prompts are wrong, and SAM would predict nothing
            "retrain": False,
            "baseline": True,
            "organ": _demo(_ORGAN, 160),
            "lesion": _demo(_LESION, 640),
            "sam": SamConfig(iterations=60, versions=1, input_size=256),
            "adaptation": AdaptationConfig(
                iterations=100, versions=2, pixel_mm=2.0, patch_size=64, channels=(8, 16, 32)
            ),
        }
    ),
}
"""`quick` is what was measured, on CPU and GPU; `standard` is larger, for a GPU, and no result with
it exists yet; `demo` is for the phantom data set."""


DEFAULT_PRESET = "quick"
"""Where neither a person nor the project chose."""


def read_preset(name: str) -> RunConfig:
    """Return named settings.

    Raises:
        ConfigError: When there are none of that name.
    """
    return entry_of(PRESETS, name, "There is no preset")


_OF_SSL4MIS = {"unlabelled_loss": "published", "consistency_weight": 0.1, "rampup_share": 1.0}
PUBLISHED_PARADIGMS: Mapping[SSLName, Mapping[str, Any]] = {
    "supervised": {},
    "mean_teacher": _OF_SSL4MIS,
    "uncertainty_aware": _OF_SSL4MIS,
    "cross_pseudo": _OF_SSL4MIS,
    "unimatch": {
        "unlabelled_loss": "published",
        "background_confidence": 0.95,
        "target_confidence": 0.95,
        "consistency_weight": 1.0,
        "rampup_share": 0.0,
    },
    "bidirectional_copy_paste": {"unlabelled_loss": "published"},
}
"""Settings of a stage that are those of each paradigm's release, where our defaults differ."""


PUBLISHED_METHODS: Mapping[str, Mapping[str, Any]] = {
    "semisam": {"prompts": "clicks", "gate": False},
    "scsam": {
        "dropped_points": 0.0,
        "warmup_share": 0.0,
        "entropy_weight": 0.9,
        "confident": False,
        "unlabelled_draws": 1,
        "gate": False,
    },
}
"""The same of the group of settings that a method has for itself."""


def published_changes(paradigm: SSLName, method: str = "") -> dict[str, Any]:
    """Return the settings, by dotted name, that make the unlabelled terms those of the release.

    Args:
        paradigm: Of the specialist.
        method: With a group of settings of its own, which trains no paradigm but itself; or empty.
    """
    of_stage = PUBLISHED_PARADIGMS[paradigm]
    changes = {f"{stage}.{n}": v for stage in ("organ", "lesion") for n, v in of_stage.items()}
    return changes | {f"{method}.{n}": v for n, v in PUBLISHED_METHODS.get(method, {}).items()}
