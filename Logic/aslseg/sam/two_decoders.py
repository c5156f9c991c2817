"""A SAM with two mask decoders, each of which predicts a mask for every class at once.

Both read the same image embedding. A decoder predicts without any prompt, or with one point for
each class, to which the learned embedding of the class is added. (CPC-SAM, Miao et al., arXiv
2407.05416; a mask token for each class: SAMed, Zhang and Liu, arXiv 2304.13785.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from aslseg.networks.checkpoints import TrainedPart
from aslseg.sam.classwise import ABSENT, ClassPoints
from aslseg.sam.decoder import attend
from aslseg.sam.embeddings import SliceFrame, input_size_of, prepare_slices
from aslseg.sam.model import CHANNELS
from aslseg.sam.stock import MaskDecoder

DECODERS = 2
WINDOWS_AT_ONCE = 4
OVERLAP = 0.25
"""Of the windows of a slice that is larger than a training patch (ours)."""


class TwoDecoderSam(TrainedPart):
    """SAM from the inputs of a specialist's network to its outputs, by two decoders.

    Args:
        sam: Tuned in whatever way; its own mask decoder gives way to two that start from it.
        classes: How many, the background included.
        edge: Of a training patch in pixels, which fills SAM's input.
        picture: Makes (B, h, w) pictures in [0, 1] of (B, channels, h, w) inputs.
    """

    def __init__(
        self, sam: nn.Module, classes: int, *, edge: int, picture: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        model: Any = sam
        self.sam = sam
        self.classes = classes
        self.frame = SliceFrame(edge, edge, input_size_of(sam))
        self.picture = picture
        self.decoders = nn.ModuleList(
            class_decoder(model.mask_decoder, classes) for _ in range(DECODERS)
        )
        model.mask_decoder = nn.Identity()
        self.class_points = nn.Parameter(_released_points(model.prompt_encoder, classes))
        self.leave_out_frozen()

    def embed(self, inputs: Tensor) -> Tensor:
        """Return (B, 256, S/16, S/16) embeddings of (B, channels, h, w) inputs, with gradient."""
        model: Any = self.sam
        embeddings: Tensor = model.image_encoder(prepare_slices(self.sam, self.picture(inputs)))
        return embeddings

    def decode(self, number: int, embeddings: Tensor, points: ClassPoints | None = None) -> Tensor:
        """Return the logits of all classes from one decoder.

        Args:
            number: Of the decoder.
            embeddings: (B, 256, S/16, S/16).
            points: One for each class of the B pictures, `ABSENT` ones left out; None for none.

        Returns:
            (B, C, edge, edge) logits, for a softmax over the classes.
        """
        encoder: Any = self.sam.prompt_encoder
        decoder: Any = self.decoders[number]
        images = embeddings.float()
        none = images.new_empty(len(images), 0, CHANNELS)
        sparse = none if points is None else self._tokens(points, images.device)
        dense = encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand_as(images)
        tokens, features = attend(decoder, images, encoder.get_dense_pe(), sparse, dense)
        layers = decoder.output_hypernetworks_mlps
        weights = torch.stack([layer(tokens[:, 1 + n]) for n, layer in enumerate(layers)], 1)
        masks = torch.einsum("bkc,bchw->bkhw", weights, features)
        return self.frame.mask_to_slice(masks.float())

    def _tokens(self, points: ClassPoints, device: torch.device) -> Tensor:
        """Return (B, C + 1, 256): each class's point, and the empty one that SAM always adds."""
        encoder: Any = self.sam.prompt_encoder
        xy = self.frame.to_input(points.xy[:, :, 0]).to(device)
        encoded = encoder.pe_layer.forward_with_coords(xy, encoder.input_image_size)
        nothing = encoder.not_a_point_embed.weight[None]
        absent = (points.labels == ABSENT).to(device)  # (B, C, 1)
        tokens = torch.where(absent, nothing, encoded + self.class_points)
        return torch.cat([tokens, nothing.expand(len(tokens), -1, -1)], 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Predict without prompts, in windows of the size of a training patch.

        Args:
            inputs: (B, channels, h, w).

        Returns:
            (B, C, h, w), the logarithm of the mean of both decoders' probabilities.
        """
        mean = sliding_window_inference(
            inputs,
            (self.frame.height, self.frame.width),
            WINDOWS_AT_ONCE,
            self._mean_probability,
            overlap=OVERLAP,
            padding_mode="replicate",
        )
        probability: Tensor = mean.clamp_min(torch.finfo(mean.dtype).tiny)
        return probability.log()

    def _mean_probability(self, window: Tensor) -> Tensor:
        embeddings = self.embed(window)
        probabilities = [self.decode(number, embeddings).softmax(1) for number in range(DECODERS)]
        return torch.stack(probabilities).mean(0)


def class_decoder(released: nn.Module, classes: int) -> nn.Module:
    """Build a mask decoder with a mask for each class.

    Transformer and upscaling start as released; mask tokens and the layers behind them are new and
    random, so that two decoders differ from the start.
    """
    model: Any = released
    decoder = MaskDecoder(
        transformer_dim=CHANNELS,
        transformer=copy.deepcopy(model.transformer),
        num_multimask_outputs=classes - 1,
    )
    decoder.iou_token.load_state_dict(model.iou_token.state_dict())
    decoder.output_upscaling.load_state_dict(model.output_upscaling.state_dict())
    del decoder.iou_prediction_head  # its predicted overlaps are not used
    built: nn.Module = decoder
    return built


def _released_points(encoder: Any, classes: int) -> Tensor:
    """Return (classes, 256): SAM's negative point for the background, its positive one for all."""
    negative, positive = (encoder.point_embeddings[n].weight.detach() for n in (0, 1))
    return torch.cat([negative, positive.expand(classes - 1, -1)])
