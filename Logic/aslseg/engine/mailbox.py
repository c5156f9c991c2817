"""The queue of requests, and the one that is worked on."""

from __future__ import annotations

import threading

from aslseg.engine.protocol import MAX_WAITING, Request


class Mailbox:
    """Hands requests from the thread that reads them to the one that works.

    Each request that was taken in leaves exactly once: by `take`, or as a result of `cancel` or
    `close`.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Request] = {}
        self._at_work: Request | None = None
        self._is_closed = False
        self._changed = threading.Condition()

    @property
    def at_work(self) -> Request | None:
        """The request that was taken and has not ended yet."""
        return self._at_work

    def knows(self, number: int) -> bool:
        """Tell whether a request of this number waits or is worked on."""
        with self._changed:
            return self._is_known(number)

    def put(self, request: Request) -> str:
        """Take in a request; return why it is refused, else an empty text."""
        with self._changed:
            if self._is_known(request.number):
                return f"Request {request.number} is under way already; give each its own 'id'."
            if len(self._waiting) >= MAX_WAITING:
                return f"{MAX_WAITING} requests are waiting; send more when some are answered."
            self._waiting[request.number] = request
            self._changed.notify()
            return ""

    def take(self) -> Request | None:
        """Wait for the next request; None when there will be no more."""
        with self._changed:
            self._at_work = None
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return None
            self._at_work = self._waiting.pop(next(iter(self._waiting)))
            return self._at_work

    def ended(self) -> None:
        """Forget the request that is worked on; call before its last event is written."""
        with self._changed:
            self._at_work = None

    def cancel(self, number: int | None = None) -> tuple[list[Request], list[int]]:
        """Cancel one request, or all.

        Returns:
            Those that had not begun, which are gone now; and the numbers of all that are cancelled.
        """
        with self._changed:
            wanted = [n for n in self._waiting if number in (None, n)]
            gone = [self._waiting.pop(n) for n in wanted]
            if self._at_work is not None and number in (None, self._at_work.number):
                self._at_work.token.cancel()
                wanted.append(self._at_work.number)
            return gone, wanted

    def close(self) -> list[Request]:
        """Cancel all and take in no more; return those that had not begun."""
        gone, _ = self.cancel()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        return gone

    def _is_known(self, number: int) -> bool:
        return number in self._waiting or (
            self._at_work is not None and self._at_work.number == number
        )
