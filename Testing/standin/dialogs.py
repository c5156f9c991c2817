"""Modal dialogs without a person: each is recorded, and a test says beforehand what is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class UnexpectedDialogError(AssertionError):
    """A dialog was opened that asks for an answer which no test has prepared."""


_GIVE_TEXT = ("folder", "open file", "open files", "save file", "input", "colour")
_CANCEL = 0x00400000  # QMessageBox.Cancel


@dataclass(frozen=True)
class Message:
    """A message that a person would have had to read: its kind, title and text."""

    kind: str
    title: str
    text: str


@dataclass
class _Expectation:
    fragment: str
    answer: Any


@dataclass
class Dialogs:
    """Answers to the questions to come, and the messages that were shown."""

    messages: list[Message] = field(default_factory=list)
    asked: list[Message] = field(default_factory=list)
    opened_urls: list[str] = field(default_factory=list)
    cancels_others: bool = False  # a question without a prepared answer is cancelled
    _expected: list[_Expectation] = field(default_factory=list)

    def answer(self, fragment: str, answer: Any) -> None:
        """Prepare the answer to the next question whose kind, title or text holds `fragment`.

        `answer` is the value that the dialog returns (a button as `qt.QMessageBox.Yes`, a path, a
        text) or a function of the dialog that acts on it and returns that value.
        """
        self._expected.append(_Expectation(fragment, answer))

    def take(self, fragment: str) -> Message:
        """Remove and return the first message that holds `fragment`; it counts as expected then."""
        for message in self.messages:
            if fragment.lower() in f"{message.title}\n{message.text}".lower():
                self.messages.remove(message)
                return message
        raise AssertionError(f"no message holds '{fragment}'; there are {self.messages}")

    def show(self, kind: str, title: str, text: str) -> None:
        """Record a message that needs no answer but OK."""
        self.messages.append(Message(kind, title, text))

    def ask(self, kind: str, title: str, text: str, dialog: Any = None) -> Any:
        """Return the prepared answer to a question."""
        question = Message(kind, title, text)
        self.asked.append(question)
        for expectation in self._expected:
            if expectation.fragment.lower() in f"{kind}\n{title}\n{text}".lower():
                self._expected.remove(expectation)
                found = expectation.answer
                return found(dialog) if isinstance(found, Callable) else found  # type: ignore[arg-type]
        if self.cancels_others:
            return "" if kind in _GIVE_TEXT else _CANCEL
        raise UnexpectedDialogError(f"nobody has prepared an answer to {question}")

    def unanswered(self) -> list[str]:
        """Return what was prepared for questions that never came."""
        return [expectation.fragment for expectation in self._expected]

    def errors(self) -> list[Message]:
        """Return the error messages that no test has taken."""
        return [message for message in self.messages if message.kind == "critical"]

    def clear(self) -> None:
        """Forget everything, between two tests."""
        for kept in (self.messages, self.asked, self.opened_urls, self._expected):
            kept.clear()
        self.cancels_others = False


dialogs = Dialogs()
