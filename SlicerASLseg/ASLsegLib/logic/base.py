"""What all parts of the logic share: the open project, and work in the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import slicer

from ASLsegLib.engine.background import Background, Signal
from ASLsegLib.logic.history import Change, History
from ASLsegLib.logic.scene_changes import Moved, SceneChanges
from ASLsegLib.scene.volumes import SceneError

if TYPE_CHECKING:
    from aslseg.events import Monitor
    from aslseg.project.project import Project
    from aslseg.targets import Target

Found = TypeVar("Found")
Shown = TypeVar("Shown")


class LogicBase:
    """The open project, and work in the background.

    Attributes:
        project: The open project, or None.
        background: Reads and writes files beside the application.
        project_changed: Emits whenever the project, or what is known about its cases, has changed.
        history: What can be undone and redone.
        changes: Notes there what is done in the scene.
        failed: Emits the error of work in the background that nobody waits for.
    """

    def __init__(self) -> None:
        self.project: Project | None = None
        self.background = Background()
        self.history = History()
        self.changes = SceneChanges(self.history)
        self.project_changed, self.failed = Signal(), Signal()

    def opened(self) -> Project:
        """Return the open project.

        Raises:
            SceneError: When none is open.
        """
        if self.project is None:
            msg = "No project is open; open one, or make one with the first volume."
            raise SceneError(msg)
        return self.project

    def is_open(self, project: Project) -> bool:
        """Tell whether a project is the one that is open."""
        return self.project is not None and self.project.folder == project.folder

    def targets(self) -> tuple[Target, ...]:
        """Return the targets of the open project, or liver and tumour without one."""
        from aslseg.targets import LIVER_TARGETS

        return LIVER_TARGETS if self.project is None else self.project.targets

    def poll(self) -> None:
        """Go on with what is under way, for a moment."""
        self.background.poll()

    def _in_background(
        self,
        name: str,
        work: Callable[[Monitor], Found],
        then: Callable[[Found], Shown],
        wait: bool,
    ) -> Shown | None:
        """Do something in the thread; return its result, or None at once without `wait`."""
        ended: list[Shown] = []
        failures: list[Exception] = []
        failed = failures.append if wait else self.failed.emit
        self.background.start(name, work, lambda value: ended.append(then(value)), failed)
        if not wait:
            return None
        self._wait_for_thread(failures)
        return ended[0]

    def _wait_for_thread(self, failures: Sequence[Exception]) -> None:
        """Wait for the thread while the application goes on, and raise the first failure."""
        while self.background.is_busy:
            self.poll()
            slicer.app.processEvents()
        if failures:
            raise failures[0]

    def _move(self, change: Change, move: Callable[[], Moved]) -> Moved:
        """Take a change back, or do it again."""
        return self.changes.move(change, move)
