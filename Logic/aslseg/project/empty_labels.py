"""Label maps without a labelled voxel: healthy cases, or cases that nobody has outlined yet."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
