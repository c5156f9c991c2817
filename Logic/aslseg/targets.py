"""Targets: what they are, what lies in what, and the masks of their regions in label maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from aslseg.config import Settings
from aslseg.data.volume import Labels, Mask
from aslseg.errors import ConfigError


class Target(Settings):
    """A class of the label map.

    Attributes:
        name: The name that a person reads.
        value: Its value in label maps.
        inside: Name of the target that contains it (a tumour lies inside the liver), or None.
        color: How it is shown, as `#rrggbb`; None leaves it to the viewer.
        terminology: What it is, as a terminology entry of Slicer (category, type and anatomic
            region in coded terms); None leaves it to the viewer.
    """

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w .-]+$")]
    value: Annotated[int, Field(ge=1, le=255)]
    inside: str | None = None
    color: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")] | None = None
    terminology: Annotated[str, Field(min_length=1, max_length=1000)] | None = None


LIVER_TARGETS = (Target(name="liver", value=1), Target(name="tumour", value=2, inside="liver"))


@dataclass(frozen=True, slots=True)
class CascadeStage:
    """Targets that one network tells apart: those with the same parent.

    Liver and tumour thus make two stages (tumour is sought inside the liver), liver and spleen one.

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

    @property
    def parent_name(self) -> str | None:
        """Name of the target that contains its targets; None for the whole image."""
        return None if self.inside is None else self.inside.name


def cascade_stages(targets: Sequence[Target]) -> tuple[CascadeStage, ...]:
    """Group the targets into stages, parents first.

    Raises:
        ConfigError: When names or values repeat, a parent is unknown, parents form a loop, or two
            stages would have one name.
    """
    _check(targets)
    stages: list[CascadeStage] = []
    waiting: list[Target | None] = [None]
    while waiting:
        parent = waiting.pop(0)
        name = parent.name if parent else None
        children = tuple(target for target in targets if target.inside == name)
        if children:
            stages.append(CascadeStage(parent, children))
            waiting.extend(children)
    placed = {target.name for stage in stages for target in stage.targets}
    lost = [target.name for target in targets if target.name not in placed]
    if lost:
        msg = f"Target '{lost[0]}' lies inside itself through its parents; correct 'inside'."
        raise ConfigError(msg)
    _refuse_same_names(stages)
    return tuple(stages)


def _refuse_same_names(stages: Sequence[CascadeStage]) -> None:
    """Refuse two stages whose networks would be one file, on any system."""
    known: dict[str, CascadeStage] = {}
    for stage in stages:
        other = known.setdefault(stage.name.casefold(), stage)
        if other is not stage:
            first, second = (
                " and ".join(f"'{target.name}'" for target in one.targets) for one in (other, stage)
            )
            msg = (
                f"The networks of {first} and of {second} would have one file, for their names "
                "differ in nothing that file names tell apart; rename one of these targets."
            )
            raise ConfigError(msg)


def is_given(stage: CascadeStage, given: Collection[str]) -> bool:
    """Return whether masks of all targets of a stage are given, so that no network is needed."""
    return all(target.name in given for target in stage.targets)


def _check(targets: Sequence[Target]) -> None:
    names = [target.name for target in targets]
    if not names:
        msg = "There is no target; name at least one class to segment."
        raise ConfigError(msg)
    require_distinct(targets)
    for target in targets:
        if target.inside is not None and target.inside not in names:
            msg = f"Target '{target.name}' lies inside '{target.inside}', which is no target."
            raise ConfigError(msg)


def require_distinct(targets: Sequence[Target]) -> None:
    """Make sure that no two targets have one name or one value.

    Raises:
        ConfigError: When two have.
    """
    for what, each in (
        ("name", [target.name for target in targets]),
        ("value", [target.value for target in targets]),
    ):
        repeated = [one for one, count in Counter[str | int](each).items() if count > 1]
        if repeated:
            msg = (
                f"Two targets have the {what} {repeated[0]}, but names and values must differ; "
                "give one of them another."
            )
            raise ConfigError(msg)


def parents_first(targets: Sequence[Target]) -> list[Target]:
    """Return the targets in the order of their stages: none before what contains it.

    Raises:
        ConfigError: As `cascade_stages`.
    """
    return [target for stage in cascade_stages(targets) for target in stage.targets]


def as_typed(name: str, value: int | str, inside: str | None) -> str:
    """Return a target as `--target` names it: NAME=VALUE or NAME=VALUE:INSIDE."""
    return f"{name}={value}" + (f":{inside}" if inside else "")


def region_mask(labels: Labels, target: Target, targets: Sequence[Target]) -> Mask:
    """Find the voxels of a target and of all targets that lie inside of it.

    Args:
        labels: Label map, any shape.
        target: The target to look at.
        targets: All targets of the label map.

    Returns:
        Mask of the shape of `labels`; a liver comes with its tumours.
    """
    belongs = np.zeros(256, np.bool_)
    belongs[region_values(target, targets)] = True
    return belongs[labels]


def shown_targets(labels: Labels, targets: Sequence[Target]) -> tuple[str, ...]:
    """Return the names of the targets that a label map of any shape has a voxel of."""
    return tuple(one.name for one in targets if region_mask(labels, one, targets).any())


def undecided_mask(labels: Labels, unknown: Collection[str], targets: Sequence[Target]) -> Mask:
    """Find the voxels of which a label map does not say whether a target is there.

    Where a target was not looked for, it may be anywhere in what contains it.

    Args:
        labels: Label map, any shape, without voxels of unknown targets.
        unknown: Names of the targets that were not looked for.
        targets: All targets of the label map.

    Returns:
        Mask of the shape of `labels`: the parents' own voxels, or the background.
    """
    values = {target.name: target.value for target in targets}
    parents = {target.inside for target in targets if target.name in unknown}
    found: Mask = np.isin(labels, [0 if name is None else values[name] for name in parents])
    return found


def region_values(target: Target, targets: Sequence[Target]) -> list[int]:
    """List the label values of a target and of all targets inside of it, its own first."""
    names, values = {target.name}, [target.value]
    for _ in targets:  # each turn reaches at least one level deeper
        for other in targets:
            if other.inside in names and other.name not in names:
                names.add(other.name)
                values.append(other.value)
    return values


def numbered_labels(labels: Labels, targets: Sequence[Target]) -> Labels:
    """Return a label map with the numbers of targets, from 1 in their order, for their values.

    Args:
        labels: Label map, any shape, with the values of the targets.
        targets: All targets.
    """
    numbers = np.zeros(256, np.uint8)
    for number, target in enumerate(targets, start=1):
        numbers[target.value] = number
    return numbers[labels]


def organ_targets(targets: Sequence[Target]) -> list[Target]:
    """Return the targets that lie in no other one."""
    return [target for target in targets if target.inside is None]


def lesion_targets(targets: Sequence[Target]) -> list[Target]:
    """Return the targets that have candidates: those in a parent that hold no other target."""
    parents = {target.inside for target in targets}
    return [t for t in targets if t.inside is not None and t.name not in parents]
