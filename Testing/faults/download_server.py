"""A server on this computer that sends a file as badly as it is told to."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aslseg.sam.download import RemoteFile


@dataclass(frozen=True)
class Answer:
    """How one request is answered.

    Attributes:
        content: What the file is; None for the right one.
        cut_after: Bytes after which the connection is closed; None for none.
        ranges: Whether a request to go on is understood.
        range_shift: Bytes by which an answered range begins too early.
        length: Whether the length is told; else the data come in chunks.
        wait_s: Seconds of silence before the first byte.
        pieces: Bytes sent at once, with `pause_s` between; None for all.
        pause_s: Seconds between pieces.
        redirect: Where to send the client instead.
        status: Of an answer that is an error.
    """

    content: bytes | None = None
    cut_after: int | None = None
    ranges: bool = True
    range_shift: int = 0
    length: bool = True
    wait_s: float = 0.0
    pieces: int | None = None
    pause_s: float = 0.0
    redirect: str | None = None
    status: int | None = None


@dataclass
class Server:
    """A running server.

    Attributes:
        address: Of the file.
        content: The right file.
        script: How the next requests are answered; those after it, well.
        asked: The byte from which each request asked to go on, 0 for all of it.
        sent: Bytes that left.
    """

    address: str
    content: bytes
    script: list[Answer] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    sent: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def remote(self) -> RemoteFile:
        """The right file, as the library knows it."""
        digest = hashlib.sha256(self.content).hexdigest()
        return RemoteFile(self.address, len(self.content), digest)


@contextmanager
def serving(content: bytes, host: str = "127.0.0.1") -> Iterator[Server]:
    """Run a server for the body."""
    server = Server("", content)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            given = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(given[1]) if given else 0
            server.asked.append(start)
            answer = server.script.pop(0) if server.script else Answer()
            with contextlib.suppress(OSError):  # the client may go away
                _answer(self, server, answer, start)

        def log_message(self, *_: Any) -> None:
            return

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    web.block_on_close = False
    server.address = f"http://{host}:{web.server_address[1]}/net.pt"
    thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        web.shutdown()
        thread.join()
        web.server_close()


def _answer(handler: Any, server: Server, answer: Answer, start: int) -> None:
    if server.ended.wait(answer.wait_s):
        return
    if answer.redirect is not None:
        _head(handler, 302, {"Location": answer.redirect, "Content-Length": "0"})
        return
    if answer.status is not None:
        _head(handler, answer.status, {"Content-Length": "0"})
        return
    content = server.content if answer.content is None else answer.content
    partial = answer.ranges and start > 0
    if partial and start >= len(content):
        _head(handler, 416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
        return
    first = max(start - answer.range_shift, 0) if partial else 0
    body = content[first:]
    headers = {}
    if partial:
        headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
    if answer.length:
        headers["Content-Length"] = str(len(body))
    else:
        headers["Transfer-Encoding"] = "chunked"
    _head(handler, 206 if partial else 200, headers)
    _send(handler, server, answer, body)


def _head(handler: Any, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def _send(handler: Any, server: Server, answer: Answer, body: bytes) -> None:
    whole = answer.cut_after is None or answer.cut_after >= len(body)
    data = body if whole else body[: answer.cut_after]
    step = answer.pieces or max(len(data), 1)
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        framed = piece if answer.length else b"%x\r\n%s\r\n" % (len(piece), piece)
        handler.wfile.write(framed)
        handler.wfile.flush()
        server.sent += len(piece)
        if answer.pause_s and server.ended.wait(answer.pause_s):
            return
    if whole and not answer.length:
        handler.wfile.write(b"0\r\n\r\n")


def wait_until_sent(server: Server, number: int, limit_s: float = 20.0) -> None:
    """Wait until so many bytes left the server."""
    end = time.monotonic() + limit_s
    while server.sent < number:
        assert time.monotonic() < end, f"only {server.sent} of {number} bytes left the server"
        time.sleep(0.001)
