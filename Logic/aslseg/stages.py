"""The order in which targets are segmented: first what contains, then what is inside it.

Targets with the same container are told apart by one network, a *stage*. Liver and tumour thus make
two stages (tumour is sought inside the liver), liver and spleen make one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aslseg.config import RunConfig, SpecialistConfig, Target
from aslseg.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Stage:
    """Targets that one network tells apart.

    Attributes:
        inside: The target that contains them, or None for the whole image.
        targets: Class `n` of the network's output is `targets[n - 1]`; class 0 is the rest.
    """

    inside: Target | None
    targets: tuple[Target, ...]

    @property
    def name(self) -> str:
        """A short name for files and progress messages."""
        return "-".join(target.name for target in self.targets).replace(" ", "_")


def stages_of(targets: Sequence[Target]) -> tuple[Stage, ...]:
    """Group the targets into stages, containers before contents.

    Raises:
        ConfigError: When names or values repeat, a container is unknown, or containers form a loop.
    """
    _check(targets)
    stages: list[Stage] = []
    waiting: list[Target | None] = [None]
    while waiting:
        parent = waiting.pop(0)
        name = parent.name if parent else None
        children = tuple(target for target in targets if target.inside == name)
        if children:
            stages.append(Stage(parent, children))
            waiting.extend(children)
    placed = {target.name for stage in stages for target in stage.targets}
    lost = [target.name for target in targets if target.name not in placed]
    if lost:
        msg = f"Target '{lost[0]}' lies inside itself through its containers; correct 'inside'."
        raise ConfigError(msg)
    return tuple(stages)


def scheduled(
    config: RunConfig, stage: Stage, share: float = 1.0, rate: float = 1.0
) -> SpecialistConfig:
    """Return the settings of a stage with its schedule and its learning rate cut to a part."""
    settings = config.stage(stage.inside.name if stage.inside else None)
    steps = max(1, round(settings.iterations * share))
    return settings.model_copy(
        update={"iterations": steps, "learning_rate": settings.learning_rate * rate}
    )


def _check(targets: Sequence[Target]) -> None:
    names = [target.name for target in targets]
    values = [target.value for target in targets]
    if not names:
        msg = "There is no target; name at least one class to segment."
        raise ConfigError(msg)
    if len(set(names)) < len(names) or len(set(values)) < len(values):
        msg = f"Target names and values must differ, got {list(zip(names, values, strict=True))}."
        raise ConfigError(msg)
    for target in targets:
        if target.inside is not None and target.inside not in names:
            msg = f"Target '{target.name}' lies inside '{target.inside}', which is no target."
            raise ConfigError(msg)
