"""TinyViT, the image encoder of MobileSAM, for any input size that 16 divides.

Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers" (2022), as used by
Zhang et al., "Faster Segment Anything" (2023). Parameter names are those of the released weights.
There is no position embedding of the image, only attention biases within windows, so one set of
weights serves every input size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from aslseg.sam.stock import LayerNorm2d


@dataclass(frozen=True, slots=True)
class TinyViTSizes:
    """The numbers of one TinyViT.

    Attributes:
        dims: Channels of the four stages.
        depths: Blocks of each stage.
        heads: Attention heads of stages 1 to 3; the first stage is convolutional.
        windows: Edge of the attention windows of stages 1 to 3, in cells.
        strides: Stride of the reduction that ends stages 0 to 2.
        out_channels: Channels of the embedding.
    """

    dims: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int] = (4, 5, 10)
    windows: tuple[int, int, int] = (7, 14, 7)
    strides: tuple[int, int, int] = (2, 2, 1)
    out_channels: int = 256


class TinyViT(nn.Module):
    """Turn an image into SAM's embedding, 16 times smaller.

    Args:
        img_size: Edge of the square input in pixels; only told to SAM, nothing depends on it.
        sizes: Widths and depths.
    """

    def __init__(self, img_size: int = 1024, sizes: TinyViTSizes | None = None) -> None:
        super().__init__()
        sizes = sizes or TinyViTSizes()
        self.img_size = img_size
        self.patch_embed = _PatchEmbed(sizes.dims[0])
        self.layers = nn.ModuleList(_build_stage(stage, sizes) for stage in range(4))
        self.neck = nn.Sequential(
            nn.Conv2d(sizes.dims[3], sizes.out_channels, 1, bias=False),
            LayerNorm2d(sizes.out_channels),
            nn.Conv2d(sizes.out_channels, sizes.out_channels, 3, padding=1, bias=False),
            LayerNorm2d(sizes.out_channels),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: (B, 3, S, S), normalised.

        Returns:
            (B, 256, S/16, S/16).
        """
        x = self.patch_embed(images)
        for layer in self.layers:
            x = layer(x)
        embedding: Tensor = self.neck(x)
        return embedding

    def train(self, mode: bool = True) -> TinyViT:
        """Switch training on or off, but keep the pre-trained statistics of batch norm."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class WindowAttention(nn.Module):
    """Self-attention within a window, with a learned bias per relative distance.

    The output of `qkv` is grouped by head: q, k and v of the first head, then of the second, ...
    """

    distance_index: Tensor

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        self.register_buffer("distance_index", _distance_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the tokens of each window of an image, (B, H, W, C) to (B, H, W, C).

        Windows that go beyond the image are filled up with zeros, which are attended to. All of
        them have one key and one value, so that one token stands for them, with the logarithm of
        the summed exponentials of their biases; the result is that of the filled window (ours).
        """
        qkv, filling = self.qkv(self.norm(x)), self.qkv(self.norm(x.new_zeros(x.shape[-1])))
        # Looked up at every call: a cached copy would survive the loading of other weights.
        bias = self.attention_biases[:, self.distance_index]
        height, width = x.shape[1:3]
        if fills_windows(qkv):
            qkv = filled_up(qkv, filling, self.window)
        attended = by_windows(
            qkv, self.window, lambda windows: self._attend(windows, filling, bias)
        )
        out: Tensor = self.proj(attended[:, :height, :width])
        return out

    def _attend(self, qkv: Tensor, filling: Tensor, bias: Tensor) -> Tensor:
        """Attend within equal windows.

        Args:
            qkv: (n, h, w, 3 C) of the tokens within the image.
            filling: (3 C,) of a token of zeros.
            bias: (heads, N, N) for whole windows.

        Returns:
            (n, h, w, C).
        """
        n, h, w, channels = qkv.shape
        x = qkv.reshape(n, h * w, self.num_heads, 3, channels // (3 * self.num_heads))
        q, k, v = x.permute(3, 0, 2, 1, 4)  # each (n, heads, h * w, C / heads)
        if h * w < self.window**2:
            one = filling.view(1, 1, self.num_heads, 3, -1).expand(n, -1, -1, -1, -1)
            _, k_fill, v_fill = one.permute(3, 0, 2, 1, 4)
            k, v = torch.cat([k, k_fill], 2), torch.cat([v, v_fill], 2)
            bias = _with_filling(bias, h, w, self.window)
        with _attention_for(x):
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None])
        return x.transpose(1, 2).reshape(n, h, w, channels // 3)


def by_windows(x: Tensor, window: int, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function to the tokens of each window, or of its part within the image.

    Args:
        x: (B, H, W, C) tokens of an image.
        window: Edge of a window, in tokens.
        attend: From (n, h, w, C), windows or parts of windows of one size, to (n, h, w, C').

    Returns:
        (B, H, W, C').
    """
    rows = [
        torch.cat([_attended(part, window, attend) for part in _at_edges(row, 2, window)], 2)
        for row in _at_edges(x, 1, window)
    ]
    return torch.cat(rows, 1)


def fills_windows(x: Tensor) -> bool:
    """Whether windows are filled up where x is computed: on a graphics card.

    There is more to compute then, but in equal windows, all at once, and what counts on a card is
    the number of calls: parts of windows take four times as many.
    """
    return x.is_cuda


def filled_up(x: Tensor, filling: Tensor, window: int) -> Tensor:
    """Return tokens with those that fill up the windows at the edges.

    Args:
        x: (B, H, W, C) tokens of an image.
        filling: (C,) token beyond the image.
        window: Edge of a window, in tokens.

    Returns:
        (B, H', W', C), multiples of the window.
    """
    batch, height, width, channels = x.shape
    whole = [-(-edge // window) * window for edge in (height, width)]
    if whole == [height, width]:
        return x
    full = filling.to(x).expand(batch, *whole, channels).clone()
    full[:, :height, :width] = x
    return full


def _attended(x: Tensor, window: int, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """Attend within equal windows, or equal parts of windows, that fill (B, H, W, C) tokens."""
    batch, height, width, channels = x.shape
    h, w = min(height, window), min(width, window)
    windows = x.view(batch, height // h, h, width // w, w, channels).transpose(2, 3)
    found = attend(windows.reshape(-1, h, w, channels))
    found = found.view(batch, height // h, width // w, h, w, -1).transpose(2, 3)
    return found.reshape(batch, height, width, -1)


def _at_edges(x: Tensor, axis: int, window: int) -> list[Tensor]:
    """Split a tensor into the part that whole windows cover along an axis, and the rest of it."""
    whole = x.shape[axis] // window * window
    return [part for part in x.tensor_split([whole], axis) if part.shape[axis]]


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def cells_of(h: int, w: int, window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the cells of a window whose first h rows and w columns lie within the image.

    They are kept, for a graphics card would be waited for where a mask is turned into numbers.

    Returns:
        Numbers of the cells within the image, and of those that are filled, in the flat window.
    """
    numbers = torch.arange(window**2).view(window, window)
    filled = torch.ones(window, window, dtype=torch.bool)
    filled[:h, :w] = False
    return numbers[~filled].to(device), numbers[filled].to(device)


def _with_filling(bias: Tensor, h: int, w: int, window: int) -> Tensor:
    """Return the biases among the part of a window within the image, and to all else as one.

    Args:
        bias: (heads, window * window, window * window).
        h: Rows within the image.
        w: Columns within the image.
        window: Edge of the window.

    Returns:
        (heads, h * w, h * w + 1).
    """
    inside, filled = cells_of(h, w, window, bias.device)
    of_image = bias[:, inside]
    return torch.cat([of_image[..., inside], of_image[..., filled].logsumexp(-1, keepdim=True)], -1)


def _attention_for(x: Tensor) -> AbstractContextManager[None]:
    """Choose how attention is computed: the plain way is the faster one to train on a CPU."""
    trained = torch.is_grad_enabled() and x.device.type == "cpu"
    return sdpa_kernel(SDPBackend.MATH) if trained else nullcontext()


def _distance_index(window: int) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    cells = torch.stack([rows.flatten(), columns.flatten()])  # (2, N)
    apart = (cells[:, :, None] - cells[:, None, :]).abs()
    return apart[0] * window + apart[1]  # (N, N)


class _ConvNorm(nn.Module):
    """Convolution without bias, then batch norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.c(x))
        return out


class _PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.seq = nn.Sequential(
            _ConvNorm(3, half, 3, stride=2), nn.GELU(), _ConvNorm(half, dim, 3, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.seq(x)
        return out


class _Bottleneck(nn.Module):
    """Inverted bottleneck with skip: widen, convolve each channel, narrow."""

    def __init__(self, dim: int, widen: int = 4) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(dim, widen * dim, 1)
        self.conv2 = _ConvNorm(widen * dim, widen * dim, 3, groups=widen * dim)
        self.conv3 = _ConvNorm(widen * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return F.gelu(x + change)


class _Reduction(nn.Module):
    """Change of channels and, with stride 2, of resolution between two stages."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(inputs, outputs, 1)
        self.conv2 = _ConvNorm(outputs, outputs, 3, stride=stride, groups=outputs)
        self.conv3 = _ConvNorm(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return out


class _Mlp(nn.Module):
    def __init__(self, dim: int, widen: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, widen * dim)
        self.fc2 = nn.Linear(widen * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class _WindowBlock(nn.Module):
    """Window attention, a convolution of each channel, and an MLP."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = WindowAttention(dim, heads, window)
        self.local_conv = _ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = _Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        x = (tokens + self.attn(tokens)).permute(0, 3, 1, 2)
        tokens = self.local_conv(x).permute(0, 2, 3, 1)
        out: Tensor = tokens + self.mlp(tokens)
        return out.permute(0, 3, 1, 2)


class _Stage(nn.Module):
    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = x if self.downsample is None else self.downsample(x)
        return out


def _build_stage(stage: int, sizes: TinyViTSizes) -> _Stage:
    dim, depth = sizes.dims[stage], sizes.depths[stage]
    blocks: list[nn.Module]
    if stage == 0:
        blocks = [_Bottleneck(dim) for _ in range(depth)]
    else:
        heads, window = sizes.heads[stage - 1], sizes.windows[stage - 1]
        blocks = [_WindowBlock(dim, heads, window) for _ in range(depth)]
    if stage == 3:
        return _Stage(blocks, None)
    return _Stage(blocks, _Reduction(dim, sizes.dims[stage + 1], sizes.strides[stage]))
