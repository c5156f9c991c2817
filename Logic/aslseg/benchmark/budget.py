"""What a row may spend: the specialist's schedule that all share, or the processor time of ASLseg.

In the table `schedule` every row has the schedule of the preset, and what its method does besides
comes on top. In the table `time` a row's schedule is lengthened, or cut, so that its training takes
the processor time of the reference row with the same draw and labels. Training time is proportional
to the schedule but for the preparation of images, so one measured run gives the factor.
"""

from __future__ import annotations

from aslseg.config import RunConfig

SHORTEST = 10
"""Steps of a stage that a cut schedule keeps."""


def at_equal_time(
    config: RunConfig, seconds: float, reference_seconds: float
) -> tuple[RunConfig, float]:
    """Return settings whose training takes as long as that of the reference row.

    Args:
        config: Settings of the row in the table `schedule`.
        seconds: Processor seconds that its training took there.
        reference_seconds: Those of the reference row.

    Returns:
        The settings with other numbers of steps of the specialist, and the factor between them.
    """
    factor = reference_seconds / seconds
    scaled = {
        name: stage.model_copy(
            update={"iterations": max(SHORTEST, round(stage.iterations * factor))}
        )
        for name, stage in (("organ", config.organ), ("lesion", config.lesion))
    }
    return config.model_copy(update=scaled), factor
