"""Build the Segment Anything Model in its four sizes, for several input sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.config import InputSize, SamName
from aslseg.errors import WeightsError
from aslseg.networks.checkpoints import load_state
from aslseg.sam.stock import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from aslseg.sam.tiny_vit import TinyViT, TinyViTSizes
from aslseg.sam.vit import ViTBlock

CHANNELS = 256


PATCH = 16


_CLASSIFIER = ("image_encoder.norm_head.", "image_encoder.head.")  # TinyViT's, of no use to SAM


@dataclass(frozen=True, slots=True)
class ViTSizes:
    """The numbers of one ViT encoder.

    Attributes:
        dim: Channels of a token.
        depth: Blocks.
        heads: Attention heads of a block.
        global_blocks: Which blocks attend to the whole image, not only within windows.
        window: Edge of a window, in patches.
    """

    dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int = 14


SIZES: Mapping[SamName, ViTSizes | TinyViTSizes] = {
    "vit_t": TinyViTSizes(),
    "vit_b": ViTSizes(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": ViTSizes(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": ViTSizes(1280, 32, 16, (7, 15, 23, 31)),
}


def build_sam(
    name: SamName, *, input_size: InputSize = 1024, checkpoint: Path | None = None
) -> nn.Module:
    """Build SAM, in evaluation mode, on the CPU.

    Args:
        name: Size of the image encoder: `vit_t` is MobileSAM, the others are the original ones.
            MedSAM is a `vit_b`.
        input_size: Edge of the square input in pixels: smaller is faster and less precise.
        checkpoint: Released weights of that size; random ones when None.

    Returns:
        The model, with `image_encoder`, `prompt_encoder` and `mask_decoder`.

    Raises:
        WeightsError: When the checkpoint is missing, damaged, or of another model.
    """
    if name not in SIZES:
        msg = f"SAM comes as {', '.join(SIZES)}, not as {name!r}."
        raise ValueError(msg)
    sam = assemble_sam(SIZES[name], input_size)
    if checkpoint is not None:
        load_weights(sam, checkpoint)
    for parameter in sam.parameters():
        if parameter.ndim == 4:  # convolutions are faster with the channels of a pixel side by side
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return sam


def assemble_sam(sizes: ViTSizes | TinyViTSizes, input_size: int) -> nn.Module:
    """Put SAM together with random weights around an encoder of any size.

    Args:
        sizes: The encoder's numbers.
        input_size: Edge of the square input in pixels, a multiple of 16.

    Raises:
        ValueError: When the input size is no such multiple.
    """
    if input_size < PATCH or input_size % PATCH:
        msg = f"The input size of SAM must be a positive multiple of {PATCH}, got {input_size}."
        raise ValueError(msg)
    sam: nn.Module = Sam(
        image_encoder=_build_encoder(sizes, input_size),
        prompt_encoder=PromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(input_size // PATCH, input_size // PATCH),
            input_image_size=(input_size, input_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=CHANNELS,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=CHANNELS, mlp_dim=2048, num_heads=8
            ),
        ),
    )
    return sam.eval()


def _build_encoder(sizes: ViTSizes | TinyViTSizes, input_size: int) -> nn.Module:
    if isinstance(sizes, TinyViTSizes):
        return TinyViT(input_size, sizes)
    encoder: Any = ImageEncoderViT(
        img_size=input_size,
        patch_size=PATCH,
        embed_dim=sizes.dim,
        depth=sizes.depth,
        num_heads=sizes.heads,
        out_chans=CHANNELS,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=sizes.window,
        global_attn_indexes=sizes.global_blocks,
    )
    encoder.blocks = nn.ModuleList(ViTBlock(block) for block in encoder.blocks)
    return cast("nn.Module", encoder)


def load_weights(sam: nn.Module, checkpoint: Path) -> None:
    """Load released weights, each of them, fitted to the model's input size.

    Raises:
        WeightsError: When the file is missing, damaged, or holds another model.
    """
    load_state_of_any_size(sam, load_state(checkpoint), named=str(checkpoint))


def load_state_of_any_size(sam: nn.Module, state: Mapping[str, Tensor], *, named: str) -> None:
    """Load weights that may have been made for another input size.

    Args:
        sam: The model to fill.
        state: Weights in the official naming.
        named: What to call them in an error.

    Raises:
        WeightsError: When names or shapes are those of another model.
    """
    wanted = sam.state_dict()
    state = {key: t for key, t in state.items() if not key.startswith(_CLASSIFIER)}
    _check_names(set(wanted), set(state), named)
    fitted = {key: _fit_positions(key, t, wanted[key]) for key, t in state.items()}
    try:
        sam.load_state_dict(fitted)
    except RuntimeError as error:
        msg = f"The weights in {named} are of another size of SAM; choose the model they belong to."
        raise WeightsError(msg) from error


def _check_names(wanted: set[str], given: set[str], named: str) -> None:
    missing, unknown = sorted(wanted - given), sorted(given - wanted)
    if missing or unknown:
        msg = (
            f"{named} holds the weights of another model: {len(missing)} are missing and "
            f"{len(unknown)} unknown, {(missing + unknown)[0]} first. Choose the right model."
        )
        raise WeightsError(msg)


def _fit_positions(key: str, given: Tensor, wanted: Tensor) -> Tensor:
    if given.shape == wanted.shape:
        return given
    if key.endswith("pos_embed") and given.ndim == 4 and given.shape[-1] == wanted.shape[-1]:
        return _resize_absolute(given, (wanted.shape[1], wanted.shape[2]))
    if key.endswith(("rel_pos_h", "rel_pos_w")) and given.shape[-1] == wanted.shape[-1]:
        return _resize_relative(given, wanted.shape[0])
    return given


def _resize_absolute(positions: Tensor, cells: tuple[int, int]) -> Tensor:
    channels_first = positions.permute(0, 3, 1, 2)  # (1, H, W, C) -> (1, C, H, W)
    resized = F.interpolate(channels_first, cells, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def _resize_relative(offsets: Tensor, length: int) -> Tensor:
    # As segment_anything itself does at run time when sizes differ; distance 0 stays in the middle.
    resized = F.interpolate(offsets.T[None], length, mode="linear", align_corners=False)
    return resized[0].T
