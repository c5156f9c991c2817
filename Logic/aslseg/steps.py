"""What the steps of a run are called for a person; in events and files they have their own names.

No torch.
"""

from __future__ import annotations

import re

_TITLES = (
    (r"cross-fitted-(\d+)-(.+)", r"checking network \1: \2"),
    (r"specialist-(.+)", r"specialist network: \1"),
    (r"supervised-(.+)", r"specialist network on your labels alone: \1"),
    (r"adaptation-(.+)", r"network that joins specialist and SAM: \1"),
    (r"sam-(.+)", r"tuning SAM: \1"),
    (r"sam", "tuning SAM"),
)


def step_title(task: str) -> str:
    """Return what the step of a run is called for a person.

    Args:
        task: As events name it, such as `cross-fitted-1-tumour`.
    """
    for pattern, title in _TITLES:
        found = re.fullmatch(pattern, task)
        if found:
            return found.expand(title)
    return task
