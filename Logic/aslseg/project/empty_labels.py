"""Label maps that lack what is expected: all of it, or the organ around their lesions.

The cases may be healthy, or nobody has outlined them, or their organ, yet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from aslseg.errors import listed
from aslseg.targets import Target


def may_be_unfinished(
    targets: Sequence[Target], label_targets: Collection[str], masks: Collection[str]
) -> bool:
    """Tell whether an empty label map lacks something that a case is expected to have.

    An organ without lesions is nothing to ask about, also where the label map is of lesions alone,
    or the organ has a mask.

    Args:
        targets: Of the project.
        label_targets: Names of the targets that the label map decides; all when empty.
        masks: Names of the targets of which the case has a mask.
    """
    decided = set(label_targets) or {target.name for target in targets}
    outermost = {target.name for target in targets if target.inside is None}
    return bool((outermost & decided) - set(masks))


def empty_labels_in_words(case_ids: Sequence[str]) -> str:
    """Say that label maps are empty, what that means, and the remedy."""
    is_one = len(case_ids) == 1
    what = f"The label map of {case_ids[0]} is" if is_one else "These label maps are"
    they = "it says" if is_one else "they say"
    names = "" if is_one else f" ({', '.join(case_ids)})"
    return (
        f"{what} empty{names}: {they} that there is nothing of any target, which is learnt or "
        "checked on. Where nobody has outlined a volume yet, leave its label map out: name the "
        "cases to learn from (--labelled), or take the file away."
    )


def organs_left_out(
    targets: Sequence[Target],
    values: Collection[int],
    label_targets: Collection[str],
    masks: Collection[str],
) -> list[str]:
    """Return the organs of which a label map has no voxel, though it has what lies inside of them.

    Args:
        targets: Of the project.
        values: That occur in the label map.
        label_targets: Names of the targets that the label map decides; all when empty.
        masks: Names of the targets of which the case has a mask.
    """
    decided = set(label_targets) or {target.name for target in targets}
    around = {target.inside for target in targets if target.value in values} & decided
    return [t.name for t in targets if t.name in around - {*masks} and t.value not in values]


def organs_left_out_in_words(organs: Mapping[str, Sequence[str]]) -> str:
    """Say of which cases lesions alone are outlined, what that means, and the remedy.

    Args:
        organs: By case id, as `organs_left_out`.
    """
    names = sorted({name for every in organs.values() for name in every})
    what = ", ".join(names)
    return (
        f"Lesions are outlined, and no voxel of {what} around them ({listed(organs)}): {what} is "
        "learnt and checked as these lesions alone. Where nobody has outlined it, say which "
        f"targets were drawn (--labels-of), give its masks (--masks {names[0]}=FOLDER), or draw it."
    )
