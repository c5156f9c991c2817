"""What a person is asked before a label map is saved; scripts are refused by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aslseg.errors import CancelledError
from ASLsegLib.scene.hidden_segments import hidden_segments
from ASLsegLib.scene.shown_labels import LeaveOut, leave_out_nothing
from ASLsegLib.scene.volumes import SceneError


def overwrite_what_was_shown(case_id: str, changed_meanwhile: bool) -> bool:
    """Replace a label map, for it is kept and can be brought back, unless nobody has seen it.

    Raises:
        SceneError: When it was saved since the case was loaded.
    """
    if changed_meanwhile:
        msg = (
            f"The label of case {case_id} was changed since it was loaded; undo what was drawn and "
            "load the case again."
        )
        raise SceneError(msg)
    return True


def count_no_label_as_a_whole(case_id: str) -> bool:
    """Leave it to a person whether a label of which no slice counts is complete now.

    Raises:
        SceneError: Always.
    """
    msg = (
        f"No slice of the label of case {case_id} counts; mark slices as complete, or let the "
        "whole label count."
    )
    raise SceneError(msg)


def lack_no_segment(name: str, targets: Sequence[str]) -> bool:
    """Leave it to a person whether a case has nothing of a target whose segment was removed.

    Raises:
        SceneError: Always.
    """
    msg = (
        f"{name} has no segment of {', '.join(targets)} any more; add an empty segment of that "
        f"name if the case has none, or remove {name} from the scene and load the case again."
    )
    raise SceneError(msg)


def leave_out_no_target(name: str, targets: Sequence[str], labelled: Sequence[str]) -> bool:
    """Leave it to a person whether a case has nothing of a target that was not drawn.

    Raises:
        SceneError: Always.
    """
    gone = f", and {', '.join(labelled)} of the label before would be gone" if labelled else ""
    msg = (
        f"{name} has no segment of {', '.join(targets)}, so its label would say that the case has "
        f"none{gone}; draw what is missing, or add an empty segment of that name if there is none."
    )
    raise SceneError(msg)


def save_nothing_hidden(name: str, hidden: Sequence[str]) -> bool:
    """Leave it to a person whether what is not shown is saved.

    Raises:
        SceneError: Always.
    """
    msg = (
        f"{name} is hidden ({', '.join(hidden)}), and what is saved has to be seen; show it and "
        "look at it, or say that it was looked at (may_hide of questions)."
    )
    raise SceneError(msg)


def contradict_no_decision(case_id: str, lesions: str) -> bool:
    """Leave it to a person whether lesions are otherwise than they were decided about.

    Raises:
        SceneError: Always.
    """
    msg = (
        f"The final label of case {case_id} does not show {lesions} as decided about; let it show "
        "lesions as they were decided (show_lesions_as_decided), or decide about them again."
    )
    raise SceneError(msg)


def miss_nothing_drawn(case_ids: Sequence[str]) -> bool:
    """Leave it to a person whether what was drawn in cases and is not saved may be missing.

    Raises:
        SceneError: Always.
    """
    msg = (
        f"What was drawn or prompted in {', '.join(case_ids)} is not saved, so it would be "
        "missing; accept or save it, or say that it may be missing (may_miss)."
    )
    raise SceneError(msg)


def require_yes(answer: bool) -> None:
    """Save nothing where the answer to a question is no.

    Raises:
        CancelledError: When it is no.
    """
    if not answer:
        msg = "Nothing was saved."
        raise CancelledError(msg)


MayMiss = Callable[[Sequence[str]], bool]
"""Asked with cases that show what was drawn and is not saved: may that be missing?"""
MayHide = Callable[[str, Sequence[str]], bool]
"""Asked with a segmentation's name and its segments that are not seen: may those be saved?"""


def require_shown(node: Any, segment_ids: Sequence[str], may_hide: MayHide) -> None:
    """Ask whether segments may be saved that are not seen.

    Raises:
        SceneError: When the question is refused.
        CancelledError: When the answer is no.
    """
    segmentation = node.GetSegmentation()
    hidden = hidden_segments(node, segment_ids)
    if hidden:
        names = [str(segmentation.GetSegment(one).GetName()) for one in hidden]
        require_yes(may_hide(str(node.GetName()), names))


@dataclass(frozen=True)
class Questions:
    """Answers to what is asked before a label map is saved.

    Attributes:
        may_leave_out: See `shown_labels.LeaveOut`.
        may_overwrite: Asked with a case whose label map would be replaced, and with whether that
            was changed since it was shown.
        may_count_whole: Asked with a case that is accepted, though no slice of its label counts.
        may_lack: Asked with the name of a final label, and with the targets that it has no segment
            of, for those were removed by hand.
        may_contradict: Asked with a case, and with which lesions its final label shows otherwise
            than they were decided about, such as "lesions 1, 3".
        may_omit: Asked with the name of a segmentation of one's own, with the targets that it has
            no segment of, and with those of them that the label map before shows.
        may_hide: Asked with the name of a segmentation, and with which of its segments are not
            seen; about a final label only where others of it are seen.
    """

    may_leave_out: LeaveOut = leave_out_nothing
    may_overwrite: Callable[[str, bool], bool] = overwrite_what_was_shown
    may_count_whole: Callable[[str], bool] = count_no_label_as_a_whole
    may_lack: Callable[[str, Sequence[str]], bool] = lack_no_segment
    may_contradict: Callable[[str, str], bool] = contradict_no_decision
    may_omit: Callable[[str, Sequence[str], Sequence[str]], bool] = leave_out_no_target
    may_hide: MayHide = save_nothing_hidden


REFUSE = Questions()
"""For scripts: what would have to be asked is refused."""
