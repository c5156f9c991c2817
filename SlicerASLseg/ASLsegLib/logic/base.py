"""What all parts of the logic share: the open project, and work that takes time.

A method that takes time says how it begins, and is decorated with `waiting`: `logic.train()` waits
for its result, `logic.train.begin()` does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

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
Given = ParamSpec("Given")
Owner = TypeVar("Owner")
Result = TypeVar("Result")

Otherwise = Callable[[Exception], None]


@dataclass(frozen=True)
class Pending(Generic[Result]):
    """Work that has begun, and goes on while the logic is polled.

    Attributes:
        result: Waits until it is done, and returns what came of it or raises what went wrong. To be
            called before the logic begins something else.
    """

    result: Callable[[], Result]


class Act(Generic[Given, Result]):
    """Something that takes time: called, it waits for its result.

    Attributes:
        begin: Begins it and returns at once, with what can be waited for.
    """

    def __init__(self, begin: Callable[Given, Pending[Result]]) -> None:
        self.begin = begin
        update_wrapper(self, begin)

    def __call__(self, *args: Given.args, **named: Given.kwargs) -> Result:
        """Do it, and return its result."""
        return self.begin(*args, **named).result()


class waiting(Generic[Owner, Given, Result]):  # noqa: N801 - a decorator, as `property` is
    """Decorate a method that begins something, so that it waits; its `begin` does not."""

    def __init__(self, begin: Callable[Concatenate[Owner, Given], Pending[Result]]) -> None:
        self._begin = begin
        self.__doc__ = begin.__doc__

    @overload
    def __get__(self, owner: None, kind: type[Any]) -> waiting[Owner, Given, Result]: ...

    @overload
    def __get__(self, owner: Owner, kind: type[Any]) -> Act[Given, Result]: ...

    def __get__(self, owner: Owner | None, kind: type[Any]) -> Any:
        """Return the method of an object; of its class, this."""
        return self if owner is None else Act(MethodType(self._begin, owner))


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
        then: Callable[[Found], Result],
    ) -> Pending[Result]:
        """Do something in the thread, and what follows from it here."""
        return self._begun(
            lambda done, failed: self.background.start(
                name, work, lambda value: done(then(value)), failed
            )
        )

    def _begun(
        self,
        begin: Callable[[Callable[[Result], None], Otherwise], None],
        otherwise: Otherwise | None = None,
    ) -> Pending[Result]:
        """Begin work of the thread, of one task or several.

        Args:
            begin: Called with two functions, of which it calls one in the end: with the result, or
                with what went wrong.
            otherwise: Called with what went wrong; without it `failed` emits that, unless it is
                waited for.
        """
        ended: list[Result] = []
        failures: list[Exception] = []
        is_awaited = False

        def fail(error: Exception) -> None:
            failures.append(error)
            if otherwise is not None:
                otherwise(error)
            elif not is_awaited:
                self.failed.emit(error)

        def result() -> Result:
            nonlocal is_awaited
            is_awaited = True
            while self.background.is_busy:
                self.poll()
                slicer.app.processEvents()
            if failures:
                raise failures[0]
            return ended[0]

        begin(ended.append, fail)
        return Pending(result)

    def _move(self, change: Change, move: Callable[[], Moved]) -> Moved:
        """Take a change back, or do it again."""
        return self.changes.move(change, move)
