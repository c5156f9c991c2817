"""Train a small part of SAM, starting exactly from the SAM that was released.

Everything is frozen but the mask decoder and, if wanted, the prompt encoder. Low-rank updates
(Hu et al., "LoRA", 2021) and adapters (Houlsby et al., 2019) are added to the image encoder beside
what is there: a forward hook adds the output of a new small module to that of the old one, and the
last layer of the new one starts at zero. Names of the released weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.config import Tuning
from aslseg.errors import WeightsError
from aslseg.sam.tiny_vit import WindowAttention
from aslseg.sam.vit import ViTAttention

PARALLEL_SCALE = 0.5  # of the adapter beside an MLP, as in SC-SAM


class LowRankQV(nn.Module):
    """A low-rank update of the queries and values that one linear layer makes with the keys.

    Args:
        dim: Channels of the tokens.
        heads: Attention heads.
        rank: Of either update.
        grouped_by_head: Whether the layer's output is (heads, 3, dim / heads), as in TinyViT, or
            (3, heads, dim / heads), as in ViT.
    """

    def __init__(self, dim: int, heads: int, rank: int, *, grouped_by_head: bool) -> None:
        super().__init__()
        self.heads = heads
        self.grouped_by_head = grouped_by_head
        self.q_down = nn.Linear(dim, rank, bias=False)
        self.v_down = nn.Linear(dim, rank, bias=False)
        self.q_up = _starting_at_zero(nn.Linear(rank, dim, bias=False))
        self.v_up = _starting_at_zero(nn.Linear(rank, dim, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., 3 * dim) of the layer's output for tokens x, (..., dim)."""
        q, v = self.q_up(self.q_down(x)), self.v_up(self.v_down(x))
        parts = [part.unflatten(-1, (self.heads, -1)) for part in (q, torch.zeros_like(q), v)]
        return torch.stack(parts, dim=-2 if self.grouped_by_head else -3).flatten(-3)


class Adapter(nn.Module):
    """A bottleneck of two linear layers.

    Args:
        dim: Channels of the tokens.
        width: Channels between the layers.
        scale: The output is multiplied by this.
    """

    def __init__(self, dim: int, width: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Linear(dim, width)
        self.up = _starting_at_zero(nn.Linear(width, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return what to add to tokens (..., dim)."""
        out: Tensor = self.scale * self.up(F.gelu(self.down(x)))
        return out


def _starting_at_zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def tune(sam: nn.Module, how: Tuning, *, rank: int = 4) -> nn.Module:
    """Choose what of SAM is trained. The outputs do not change by this.

    Args:
        sam: Changed in place.
        how: `none`: nothing; `decoder`: the mask decoder and the prompt encoder, but not its
            position encoding; `lora`, `adapter`: these, and small new modules in each attention
            block of the image encoder.
        rank: Of the low-rank updates, or width of the adapters.

    Returns:
        The same model.

    Raises:
        ValueError: When the model was given such modules before, or `how` is unknown.
    """
    if any(isinstance(module, (LowRankQV, Adapter)) for module in sam.modules()):
        msg = "This SAM has low-rank updates or adapters already; build a new one."
        raise ValueError(msg)
    if how not in ("none", "decoder", "lora", "adapter"):
        msg = f"SAM can be tuned by 'decoder', 'lora' or 'adapter' (or 'none'), not by {how!r}."
        raise ValueError(msg)
    model: Any = sam
    sam.requires_grad_(requires_grad=False)
    model.mask_decoder.requires_grad_(how != "none")
    model.prompt_encoder.requires_grad_(how != "none")
    if how in ("lora", "adapter"):
        _extend(model.image_encoder, how, rank)
    return sam


def tunes_encoder(sam: nn.Module) -> bool:
    """Whether the image encoder is trained, so that embeddings cannot be made beforehand."""
    encoder: Any = sam.image_encoder
    return any(parameter.requires_grad for parameter in encoder.parameters())


def _extend(encoder: nn.Module, how: str, rank: int) -> None:
    for block in list(_attention_blocks(encoder)):
        if how == "lora":
            _add_low_rank(block, rank)
        else:
            _add_adapters(block, rank)


def _attention_blocks(encoder: nn.Module) -> Iterator[Any]:
    """Yield the modules that have an attention `attn` over tokens and an `mlp`."""
    for module in encoder.modules():
        if isinstance(getattr(module, "attn", None), (ViTAttention, WindowAttention)):
            yield module


def _add_low_rank(block: Any, rank: int) -> None:
    attention = block.attn
    update = LowRankQV(
        attention.qkv.in_features,
        attention.num_heads,
        rank,
        grouped_by_head=isinstance(attention, WindowAttention),
    )
    _attach(attention.qkv, "low_rank", update, _add_from_input)


def _add_adapters(block: Any, width: int) -> None:
    dim = block.attn.qkv.in_features
    _attach(block.attn, "adapter", Adapter(dim, width), _add_from_output)
    beside = Adapter(dim, width, scale=PARALLEL_SCALE)
    _attach(block.mlp, "adapter", beside, _add_from_input)


Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]


def _attach(module: nn.Module, name: str, child: nn.Module, hook: Hook) -> None:
    weight = next(module.parameters())
    module.add_module(name, child.to(weight.device, weight.dtype))
    module.register_forward_hook(hook)


def _add_from_input(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output + _child(module)(inputs[0])


def _add_from_output(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output + _child(module)(output)


def _child(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return next(c for c in module.children() if isinstance(c, (LowRankQV, Adapter)))


def trainable_state(sam: nn.Module) -> dict[str, Tensor]:
    """Copy the trained values only: a few megabytes instead of the whole model.

    Returns:
        By parameter name, on the CPU.
    """
    trained = ((name, p) for name, p in sam.named_parameters() if p.requires_grad)
    return {name: p.detach().cpu().clone() for name, p in trained}


def load_trainable_state(sam: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill a model that was tuned in the same way with trained values.

    Raises:
        WeightsError: When the values are those of another model or another kind of tuning.
    """
    trained = {name: p for name, p in sam.named_parameters() if p.requires_grad}
    reshaped = {n for n in trained.keys() & state.keys() if trained[n].shape != state[n].shape}
    differing = sorted((trained.keys() ^ state.keys()) | reshaped)
    if differing:
        msg = (
            f"These trained values do not fit this SAM ({len(differing)} differ, {differing[0]} "
            "first); use the model, tuning and rank that they were trained with."
        )
        raise WeightsError(msg)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(state[name])
