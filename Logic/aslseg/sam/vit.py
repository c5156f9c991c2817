"""The blocks of SAM's ViT encoders, with the results of segment_anything's in less time (ours).

Two things are done otherwise. The tokens that fill windows beyond the image are not computed: with
an input of 256 pixels they are two thirds of all. They have one key and one value, so that one
token stands for them, with the logarithm of the summed exponentials of their logits. And the
relative positions (Li et al., "MViTv2", 2022), which are two values of each query, for the row and
for the column of a key, are further channels of it; the key has a one in the channels of its row
and column. So the product of both has them in it, and no map of a value per pair is added.

Names of weights are those of the released ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.sam.tiny_vit import by_windows, cells_of, filled_up, fills_windows


class ViTBlock(nn.Module):
    """Attention and MLP, each beside a skip connection.

    Args:
        stock: The block of segment_anything that it takes the layers of.
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.norm1: nn.Module = stock.norm1
        self.attn = ViTAttention(stock.attn)
        self.norm2: nn.Module = stock.norm2
        self.mlp: nn.Module = stock.mlp

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, H, W, C) tokens for such tokens."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ViTAttention(nn.Module):
    """Self-attention within windows, with relative positions.

    Args:
        stock: The attention of segment_anything. The length of its relative positions tells the
            edge of a window, which is that of the whole image in some blocks.
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.num_heads: int = stock.num_heads
        self.scale: float = stock.scale
        self.qkv: nn.Linear = stock.qkv
        self.proj: nn.Linear = stock.proj
        self.rel_pos_h: nn.Parameter = stock.rel_pos_h
        self.rel_pos_w: nn.Parameter = stock.rel_pos_w
        self.window = (len(stock.rel_pos_h) + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the tokens of each window of an image, (B, H, W, C) to (B, H, W, C)."""
        filling, qkv = self.qkv(x.new_zeros(x.shape[-1])), self.qkv(x)
        height, width = x.shape[1:3]
        if fills_windows(qkv):
            qkv = filled_up(qkv, filling, self.window)
        attended = by_windows(qkv, self.window, lambda windows: self._attend(windows, filling))
        out: Tensor = self.proj(attended[:, :height, :width])
        return out

    def _attend(self, qkv: Tensor, filling: Tensor) -> Tensor:
        """Attend within windows.

        Args:
            qkv: (n, h, w, 3 C) of the tokens within the image.
            filling: (3 C,) of a token of zeros.

        Returns:
            (n, h, w, C).
        """
        n, h, w, channels = qkv.shape
        q, k, v = qkv.reshape(n, h * w, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        grid = q.unflatten(2, (h, w))  # (n, heads, h, w, c)
        rows = torch.einsum("nayxc,ykc->nayxk", grid, self._relative(self.rel_pos_h, h))
        columns = torch.einsum("nayxc,xkc->nayxk", grid, self._relative(self.rel_pos_w, w))
        queries = [q * self.scale, rows[..., :h].flatten(2, 3), columns[..., :w].flatten(2, 3)]
        is_filled = h * w < self.window**2
        if is_filled:
            one = filling.view(3, 1, self.num_heads, 1, -1).expand(-1, n, -1, -1, -1)
            k, v = torch.cat([k, one[1]], 2), torch.cat([v, one[2]], 2)
            _, outside = cells_of(h, w, self.window, qkv.device)
            pairs = (rows[..., :, None] + columns[..., None, :]).flatten(-2)[..., outside]
            queries.append(pairs.flatten(2, 3).float().logsumexp(-1, keepdim=True).to(q))
        places = _places(h, w, is_filled, k.device, k.dtype).expand(n, self.num_heads, -1, -1)
        attend = attend_fused if q.is_cuda else attend_plain
        found = attend(torch.cat(queries, -1), torch.cat([k, places], -1), v)
        return found.transpose(1, 2).reshape(n, h, w, channels // 3)

    def _relative(self, positions: Tensor, count: int) -> Tensor:
        """Return the relative positions of the first tokens along an axis, (count, window, c)."""
        places = torch.arange(self.window, device=positions.device)
        return positions[places[:count, None] - places + self.window - 1]


def attend_plain(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the values averaged by the exponentials of the products of queries and keys.

    Args:
        queries: (n, heads, tokens, c).
        keys: (n, heads, tokens', c).
        values: (n, heads, tokens', c').

    Returns:
        (n, heads, tokens, c').
    """
    weights = (queries @ keys.transpose(-2, -1)).softmax(-1)
    return weights @ values


def attend_fused(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return what `attend_plain` does without a map of all pairs, which a card would wait for.

    Its kernel wants channels by eights: both get zeros, which leave their product as it is.

    Args:
        queries: (n, heads, tokens, c).
        keys: (n, heads, tokens', c).
        values: (n, heads, tokens', c').

    Returns:
        (n, heads, tokens, c').
    """
    missing = -queries.shape[-1] % 8
    queries, keys = F.pad(queries, (0, missing)), F.pad(keys, (0, missing))
    return F.scaled_dot_product_attention(queries, keys, values, scale=1.0)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _places(h: int, w: int, is_filled: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a one for the row and for the column of each token, (h * w, h + w).

    Where windows are filled, another row and column stand for what fills them.
    """
    rows, columns = torch.eye(h).repeat_interleave(w, 0), torch.eye(w).repeat(h, 1)
    places = torch.cat([rows, columns], 1)
    if is_filled:
        places = F.pad(places, (0, 1, 0, 1))
        places[-1, -1] = 1
    return places.to(device, dtype)
