"""What all groups of settings are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]

InputSize = Literal[112, 128, 224, 256, 448, 512, 1024]
"""Edges of SAM's square input in pixels. Windows of SAM's encoders cover multiples of 112 without
padding, so that these cost much less than the next power of two."""


def _low_to_high(window_hu: tuple[float, float]) -> tuple[float, float]:
    if not window_hu[0] < window_hu[1]:
        msg = f"a window must go from low to high, got {window_hu}"
        raise ValueError(msg)
    return window_hu


Window = Annotated[tuple[float, float], AfterValidator(_low_to_high)]


class Settings(BaseModel):
    """Base of all groups of settings: frozen, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")
