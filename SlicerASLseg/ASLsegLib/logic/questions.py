"""What a person is asked before a label map is saved; a script is refused instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ASLsegLib.scene.shown_labels import LeaveOut, leave_out_nothing
from ASLsegLib.scene.volumes import SceneError


def overwrite_what_was_shown(case_id: str, changed_meanwhile: bool) -> bool:
    """Replace a label map, for it is kept and can be brought back, unless nobody has seen it.

    Raises:
        SceneError: When it was saved since the case was loaded.
    """
    if changed_meanwhile:
        msg = f"The label of case {case_id} was changed since it was loaded; load the case again."
        raise SceneError(msg)
    return True


@dataclass(frozen=True)
class Questions:
    """Answers to what is asked before a label map is saved.

    Attributes:
        may_leave_out: See `shown_labels.LeaveOut`.
        may_overwrite: Asked with a case whose label map would be replaced, and with whether that
            was changed since it was shown.
    """

    may_leave_out: LeaveOut = leave_out_nothing
    may_overwrite: Callable[[str, bool], bool] = overwrite_what_was_shown


REFUSE = Questions()
"""For scripts: what would have to be asked is refused."""
