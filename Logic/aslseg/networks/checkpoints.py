"""Network weights on disk: the files of a round, and foreign ones, read without running code."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from aslseg.errors import AslsegError, WeightsError
from aslseg.networks.device import are_finite
from aslseg.reading import parse_json
from aslseg.storage import atomic_path
from aslseg.targets import CascadeStage, Target

FORMAT = "aslseg-1"
SNAPSHOTS = (1 / 3, 2 / 3)
"""Parts of the schedule after which weights are kept to measure agreement (ST++)."""


def specialist_paths(folder: Path, stage: CascadeStage) -> list[Path]:
    """Return the files of a stage's weights: after each snapshot, and at the end."""
    parts = [f"-{n + 1}of{len(SNAPSHOTS) + 1}" for n in range(len(SNAPSHOTS))]
    return [folder / f"specialist-{stage.name}{part}.safetensors" for part in (*parts, "")]


def adaptation_path(folder: Path, target: Target) -> Path:
    """Return the file of the weights of a target's adaptation network."""
    return folder / f"adaptation-{target.name.replace(' ', '_')}.safetensors"


def sam_path(folder: Path) -> Path:
    """Return the file of the tuned weights of SAM."""
    return folder / "sam.safetensors"


def scsam_path(folder: Path, stage_name: str) -> Path:
    """Return the file of the trained weights of a stage's SAM."""
    return folder / f"sam-{stage_name}.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Weights, and what one must know to use them.

    Attributes:
        kind: What the weights belong to, `specialist` for example.
        tensors: By parameter name, on the CPU.
        config: Anything that JSON can hold.
    """

    kind: str
    tensors: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as one safetensors file, all of it or nothing.

    Raises:
        StorageError: When the disk is full or the folder cannot be written.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    config = json.dumps(checkpoint.config, sort_keys=True)
    metadata = {
        "format": FORMAT,
        "kind": checkpoint.kind,
        "config": config,
        "config_sha256": _digest_of_text(config),
        "sha256": tensors_digest(tensors),
    }
    write_tensors(path, tensors, metadata)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as one safetensors file, all of it or nothing.

    The library's own way to a file is not taken: since its release 0.8 a file is made under another
    name first, which stays behind when the process is killed, and which nobody but its owner reads.

    Raises:
        StorageError: When the disk is full or the folder cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(save(dict(tensors), metadata))


@contextmanager
def open_tensors(path: Path, error: type[AslsegError], remedy: str) -> Iterator[Any]:
    """Open a safetensors file, of which parts can be read; nothing in it is executed.

    Args:
        path: The file.
        error: Raised when it cannot be used, also within the body.
        remedy: What to do then; it ends the sentence.

    Yields:
        An open file as `safetensors.safe_open` gives it.

    Raises:
        AslsegError: Of the kind `error`: when the file is missing, damaged or cut off, or lacks
            what the body asks for.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as found:
        raise error(_missing(path)) from found
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as found:
        msg = f"{path} cannot be read as network weights: it is damaged or cut off; {remedy}."
        raise error(msg) from found


def load_checkpoint(path: Path, kind: str) -> Checkpoint:
    """Read a checkpoint that `save_checkpoint` wrote.

    Args:
        path: The file.
        kind: What it must be.

    Raises:
        WeightsError: When the file is missing, damaged, changed, of another kind, or holds weights
            that are no numbers.
    """
    with open_tensors(path, WeightsError, "delete it and train again") as file:
        metadata = file.metadata() or {}
        _check_metadata(path, kind, metadata)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    config = _config_of(path, metadata)
    if metadata.get("sha256") != tensors_digest(tensors):
        msg = f"The weights in {path} do not match their checksum; delete the file and train again."
        raise WeightsError(msg)
    if not are_finite(tensors.values()):
        msg = (
            f"The weights in {path} are no numbers (NaN or infinity), for the training diverged; "
            "delete the file and resume the run, which trains them again."
        )
        raise WeightsError(msg)
    return Checkpoint(kind, tensors, config)


def _check_metadata(path: Path, kind: str, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        msg = f"{path} is no checkpoint of this version of aslseg; give one of a run folder."
        raise WeightsError(msg)
    if metadata.get("kind") != kind:
        msg = f"{path} holds weights of kind {metadata.get('kind', '')[:60]!r}, not {kind!r}."
        raise WeightsError(msg)


def _config_of(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get("config", "")
    try:
        config = parse_json(text)
    except ValueError:
        config = None
    genuine = metadata.get("config_sha256") in (None, _digest_of_text(text))
    if not isinstance(config, dict) or not genuine:
        msg = f"{path} says no longer what its weights are for; delete the file and train again."
        raise WeightsError(msg)
    return config


def _digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def load_weights(module: nn.Module, path: Path, kind: str) -> None:
    """Read a checkpoint into a network.

    Raises:
        WeightsError: As `load_checkpoint`, and when the network has other layers or sizes.
    """
    load_tensors(module, load_checkpoint(path, kind).tensors, path)


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill a network with weights by name that were read from a file.

    Raises:
        WeightsError: When the network has other layers or sizes.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        msg = (
            f"{path} holds a network of other sizes than the run's settings say; restore the "
            "settings that it was trained with, or train again."
        )
        raise WeightsError(msg) from error


def load_state(path: Path) -> dict[str, Tensor]:
    """Read the weights that somebody else saved (`.safetensors`, `.pt` or `.pth`), running no code.

    Args:
        path: A safetensors file, or one of `torch.save` that holds nothing but tensors by name,
            possibly under the key `model` or `state_dict`.

    Raises:
        WeightsError: When the file is missing, damaged, or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    state = _read_pickled(path)
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    most_bytes = path.stat().st_size
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and _is_plain(tensor, most_bytes) for name, tensor in state.items()
    ):
        msg = f"{path} does not hold a dictionary of tensors; give the weights of a network."
        raise WeightsError(msg)
    return state


def _is_plain(tensor: Any, most_bytes: int) -> bool:
    """Whether this is a tensor of values that are in the file, and not of more than that."""
    return (
        isinstance(tensor, Tensor)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not tensor.is_quantized
        and tensor.numel() * tensor.element_size() <= most_bytes
    )


def _read_pickled(path: Path) -> Any:
    try:
        _refuse_bombs(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(_missing(path)) from error
    except pickle.UnpicklingError as error:
        msg = (
            f"{path} is no plain weights file: it is damaged or would run code when loaded, and "
            "was refused. Get it again from its source, or save it as safetensors."
        )
        raise WeightsError(msg) from error
    except Exception as error:  # of a damaged file the reader raises whatever it stumbles over
        raise WeightsError(_damaged(path)) from error


def _refuse_bombs(path: Path) -> None:
    """Refuse archives that unpack to more than they are: torch stores tensors as they are."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                msg = "an archive of weights is not compressed"
                raise ValueError(msg)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with open_tensors(path, WeightsError, "get it again") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict


def _missing(path: Path) -> str:
    return f"There is no weights file {path}; check the path, or download the weights first."


def _damaged(path: Path) -> str:
    return f"{path} cannot be read as network weights: it is damaged or cut off. Get it again."


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values, in any order, as 64 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


AnyModule = TypeVar("AnyModule", bound=nn.Module)


def copy_sharing_frozen(module: AnyModule) -> AnyModule:
    """Copy a network whose frozen parameters stay in memory once.

    Args:
        module: Parameters that ask for no gradient are shared with the copy, others are copied.
    """
    return copy.deepcopy(module, {id(p): p for p in module.parameters() if not p.requires_grad})


class TrainedPart(nn.Module):
    """A network whose state is what is trained of it; the rest is whatever it was built with.

    `leave_out_frozen` has to be called once it is built.
    """

    _left_out: frozenset[str] = frozenset()

    def leave_out_frozen(self) -> None:
        """Leave buffers, and parameters that are frozen now, out of the state from here on.

        Copies leave out the same ones, even if they are frozen as a whole.
        """
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        self._left_out = frozenset(self.state_dict().keys() - trained)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the trained values, as `nn.Module` does."""
        state = super().state_dict(*args, **kwargs)
        for name in self._left_out:
            del state[kwargs.get("prefix", "") + name]
        return state

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any
    ) -> None:  # called by load_state_dict, here and in whatever this network is a part of
        own = super().state_dict()
        state_dict.update({prefix + name: own[name] for name in self._left_out})
        super()._load_from_state_dict(state_dict, prefix, *rest)
