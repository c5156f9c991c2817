"""Settings of single methods; what methods share is in `config`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from aslseg.config_base import InputSize, Positive, Rate, Settings, Share


class SemiSamConfig(Settings):
    """What SemiSAM adds to its teacher; defaults are those of the release unless marked.

    Attributes:
        weight: Of the term at its largest, beside a `consistency_weight` of 1.
        rampdown_share: Part of the schedule, at its end, over which the term fades out.
        clicks: Simulated clicks per mask.
        planes: Of a block, SAM is asked about at most so many planes per step (ours).
        confidence: Weigh voxels by how little SAM's answer changed from click to click (the aim of
            SemiSAM+; the weight's form is ours).
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.5
    rampdown_share: Rate = 1.0
    clicks: Positive = 10
    planes: Positive = 8
    confidence: bool = True


class ScSamConfig(Settings):
    """What SC-SAM adds to its U-Net; defaults are those of the release unless marked.

    Attributes:
        input_size: Edge of SAM's square input, which a training patch fills.
        tuning: What of SAM is trained beside the prompt encoder: its decoder, and low-rank updates
            or adapters in the image encoder.
        rank: Of the update, or width of the adapters (the release: a quarter of the tokens' width).
        learning_rate: Of SAM, with Adam; falls linearly to zero.
        points: Positive points of each class, and as many negative ones.
        learned_boxes: Give two tokens per class that are learned from the image embedding.
        rampup_share: Part of the schedule after which SAM listens to the U-Net in full.
        entropy_weight: Of the U-Net's entropy, on all patches.
        strength: Of the strong changes of unlabelled patches, beside 1 for the weak ones (ours).
        planes: Of a block, SAM sees so many planes per step (ours).
    """

    input_size: InputSize = 256
    tuning: Literal["decoder", "lora", "adapter"] = "adapter"
    rank: Positive = 32
    learning_rate: Rate = 1e-4
    points: Positive = 5
    learned_boxes: bool = True
    rampup_share: Rate = 0.25
    entropy_weight: Annotated[float, Field(ge=0.0)] = 0.9
    strength: Annotated[float, Field(ge=1.0, le=5.0)] = 3.0
    planes: Positive = 4


class CpcSamConfig(Settings):
    """CPC-SAM; defaults are those of the release unless marked.

    Attributes:
        input_size: Edge of SAM's square input, which a training patch fills.
        rank: Of the low-rank updates in the image encoder.
        learning_rate: With AdamW; rises over the warm-up, then falls as (1 - t/T)^0.9.
        weight_decay: Of AdamW.
        warmup_share: Part of the schedule over which the rate rises (250 steps of 50 000).
        supervised_share: Part of the schedule, at its start, in which labels alone teach (5000
            steps of 50 000).
        cross_weight: Of what a decoder without prompts learns from the prompted other one.
        prompt_weight: Of what a decoder prompted at random learns from the mean of its answers.
    """

    input_size: InputSize = 512
    rank: Positive = 4
    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    warmup_share: Share = 0.005
    supervised_share: Share = 0.1
    cross_weight: Annotated[float, Field(ge=0.0)] = 0.4
    prompt_weight: Annotated[float, Field(ge=0.0)] = 0.05
