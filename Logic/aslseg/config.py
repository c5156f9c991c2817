"""The settings of a run, in groups, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from aslseg.errors import ConfigError, first_finding
from aslseg.reading import read_object
from aslseg.schema_1 import renamed_config

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]

InputSize = Literal[112, 128, 224, 256, 448, 512, 1024]
"""Edges of SAM's square input in pixels. Windows of SAM's encoders cover multiples of 112 without
padding, so that these cost much less than the next power of two."""


def _low_to_high(window_hu: tuple[float, float]) -> tuple[float, float]:
    if not window_hu[0] < window_hu[1]:
        msg = f"a window must go from low to high, got {window_hu}"
        raise ValueError(msg)
    return window_hu


Window = Annotated[tuple[float, float], AfterValidator(_low_to_high)]

AnySettings = TypeVar("AnySettings", bound="Settings")


class Settings(BaseModel):
    """Base of all groups of settings: frozen, nothing unknown, no number that JSON cannot hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(
        self: AnySettings, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> AnySettings:
        """Return a copy with some settings changed.

        Raises:
            ValueError: When a name is no setting of this group; pydantic would ignore it.
        """
        unknown = sorted(set(update or {}) - type(self).model_fields.keys())
        if unknown:
            msg = f"{type(self).__name__} has no setting {', '.join(unknown)}"
            raise ValueError(msg)
        return super().model_copy(update=update, deep=deep)


class SemiSamConfig(Settings):
    """What SemiSAM adds to mean teacher; `PUBLISHED_METHODS` in `presets.py` has the release's.

    Attributes:
        weight: Of the term at its largest, beside a `consistency_weight` of 1.
        rampdown_share: Part of the schedule, at its end, over which the term fades out.
        prompts: `clicks` simulates those of a person, as published; `box_mask` gives box and mask
            of each component (ours).
        gate: Prompt SAM only for targets of which it has a better mask than cross-fitted
            specialists on labelled cases (ours); needs `box_mask`.
        clicks: Simulated clicks per mask.
        planes: Of a block, SAM is prompted on at most so many planes per step (ours).
        confidence: Weigh voxels by how little SAM's mask changed from click to click (the aim of
            SemiSAM+; the weight's form is ours), or by how sure it is of a mask from box and mask.
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.5
    rampdown_share: Rate = 1.0
    prompts: Literal["clicks", "box_mask"] = "box_mask"
    gate: bool = True
    clicks: Positive = 10
    planes: Positive = 8
    confidence: bool = True

    @model_validator(mode="after")
    def _gate_fits(self) -> SemiSamConfig:
        if self.gate and self.prompts == "clicks":
            msg = "gate judges box and mask prompts; set prompts to box_mask, or gate to false"
            raise ValueError(msg)
        return self


class ScSamConfig(Settings):
    """What SC-SAM adds to its U-Net; `PUBLISHED_METHODS` in `presets.py` has the release's values.

    Attributes:
        input_size: Edge of SAM's square input, which a training patch fills.
        tuning: What of SAM is trained beside the prompt encoder: its decoder, and low-rank updates
            or adapters in the image encoder.
        rank: Of the update, or width of the adapters (the release: a quarter of the tokens' width).
        learning_rate: Of SAM, with Adam; falls linearly to zero.
        points: Positive points of each class, and as many negative ones; 0 gives none.
        dropped_points: Part of the training patches that SAM is given without points (ours).
        learned_boxes: Give two tokens per class that are learned from the image embedding.
        warmup_share: First part of the schedule, in which both learn from labels alone (ours).
        rampup_share: Part of the schedule over which SAM's loss against the U-Net rises then.
        entropy_weight: Of the U-Net's entropy, on all patches.
        strength: Of the strong changes of unlabelled patches, beside 1 for the weak ones (ours).
        confident: Train each only on what the other is confident of, by the stage's thresholds
            (ours); false takes all pixels.
        unlabelled_draws: Unlabelled patches that are drawn for each that is used. Of the used, as
            large a part as of the labelled ones is centred on components are those in which the
            U-Net finds most; 1 uses all that are drawn (ours).
        planes: Of a block, SAM is given so many planes per step (ours).
        gate: Train both together only where SAM is then better for each target than a specialist
            trained alone, on labelled cases that neither was trained on; else that one (ours).
    """

    input_size: InputSize = 256
    tuning: Literal["decoder", "lora", "adapter"] = "adapter"
    rank: Positive = 32
    learning_rate: Rate = 1e-4
    points: NotNegative = 5
    dropped_points: Share = 0.5
    learned_boxes: bool = True
    warmup_share: Share = 0.25
    rampup_share: Share = 0.25
    entropy_weight: Annotated[float, Field(ge=0.0)] = 0.0
    strength: Annotated[float, Field(ge=1.0, le=5.0)] = 3.0
    confident: bool = True
    unlabelled_draws: Positive = 2
    planes: Positive = 4
    gate: bool = True


class CpcSamConfig(Settings):
    """CPC-SAM; defaults are those of the release unless marked.

    Attributes:
        input_size: Edge of SAM's square input, which a training patch fills.
        rank: Of the low-rank updates in the image encoder.
        learning_rate: With AdamW; rises over the warm-up, then falls as (1 - t/T)^0.9.
        weight_decay: Of AdamW.
        warmup_share: Part of the schedule over which the rate rises (250 steps of 50 000).
        supervised_share: Part of the schedule, at its start, with the supervised loss alone (5000
            steps of 50 000).
        cross_weight: Of a decoder's loss without prompts against the prompted other decoder.
        prompt_weight: Of a decoder's loss under random prompts against its mean prediction.
    """

    input_size: InputSize = 512
    rank: Positive = 4
    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    warmup_share: Share = 0.005
    supervised_share: Share = 0.1
    cross_weight: Annotated[float, Field(ge=0.0)] = 0.4
    prompt_weight: Annotated[float, Field(ge=0.0)] = 0.05


SSLName = Literal[
    "supervised",
    "mean_teacher",
    "uncertainty_aware",
    "cross_pseudo",
    "unimatch",
    "bidirectional_copy_paste",
]


TEACHERS: tuple[SSLName, ...] = ("mean_teacher", "uncertainty_aware")
"""Paradigms with a teacher that SemiSAM builds upon."""

SamName = Literal["vit_t", "vit_b", "vit_l", "vit_h"]

Tuning = Literal["none", "decoder", "lora", "adapter"]


def _check_patch(patch_size: int, levels: int) -> None:
    stride = 2 ** (levels - 1)
    if patch_size % stride or patch_size == stride:
        msg = (
            f"patch_size must be a multiple of {stride} for {levels} levels, and at least "
            f"{2 * stride}, got {patch_size}"
        )
        raise ValueError(msg)


class RoiConfig(Settings):
    """The ROI that a stage of the specialist is given (ours).

    Attributes:
        pixel_mm: In-plane pixel that slices are resampled to.
        context_slices: Neighbours on each side that are given as extra channels (2-D only).
        context_mm: Distance of two such neighbours, rounded to whole slices, at least one.
        slice_mm: Distance of slices that 3-D networks are given.
        margin_mm: Margin of the crop around the parent target.
        window_hu: Intensities outside are cut off, where the whole image is seen.
        least_scale_hu: Inside a parent target, intensities are deviations from its own in units of
            their spread, but of no less than this: noise is not blown up to lesions.
        likelihood_sd_hu: Standard deviation of the likelihood that a second pass is given.
    """

    pixel_mm: PositiveFloat = 2.0
    context_slices: NotNegative = 1
    context_mm: PositiveFloat = 3.0
    slice_mm: PositiveFloat = 3.0
    margin_mm: Annotated[float, Field(ge=0.0)] = 12.0
    window_hu: Window = (-100.0, 250.0)
    least_scale_hu: PositiveFloat = 25.0
    likelihood_sd_hu: PositiveFloat = 25.0


UNCERTAIN_DROPOUT = 0.1
"""Of networks that are trained with awareness of their uncertainty, unless the settings say."""


class NetworkConfig(Settings):
    """The network of a stage: MONAI's DynUNet, laid out as that of nnU-Net (Isensee et al., 2021).

    Attributes:
        architecture: `dynunet`; `unet` is the network of runs made before there was a choice,
            MONAI's U-Net with residual units, whose finest features are of half the resolution.
        dimensions: 2 for slices with neighbours as channels, 3 for volumes.
        channels: Feature maps per level, each level at half the resolution of the one before.
        residual_units: Of `unet` alone: convolutions per level beyond the first.
        dropout: Share of features dropped in training. None is 0.1 for uncertainty-aware training,
            which measures with it, and 0 elsewhere: it costs two fifths of a step on a CPU.
    """

    architecture: Literal["dynunet", "unet"] = "dynunet"
    dimensions: Literal[2, 3] = 2
    channels: Annotated[tuple[Positive, ...], Field(min_length=2)] = (16, 32, 64, 128, 256)
    residual_units: NotNegative = 2
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_runs(cls, values: Any) -> Any:
        """Take settings that count residual units for those of a run without a choice."""
        if isinstance(values, Mapping) and "residual_units" in values:
            return {"architecture": "unet", **values}
        return values

    @model_validator(mode="after")
    def _has_enough_levels(self) -> NetworkConfig:
        if self.architecture == "dynunet" and len(self.channels) < 3:
            msg = f"channels of dynunet are those of at least three levels, got {self.channels}"
            raise ValueError(msg)
        return self

    @property
    def stride(self) -> int:
        """Every input edge is padded to a multiple of this."""
        return int(2 ** (len(self.channels) - 1))


class UniMatchConfig(Settings):
    """What UniMatch alone has; defaults are those of the release unless marked.

    Attributes:
        feature_dropout: Part of the channels that is dropped between encoder and decoder.
        cutmix_share: Part of the strongly changed patches that get a box of another one.
        strength: Of the strong changes of contrast and brightness, beside 1 for others (ours).
    """

    feature_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    cutmix_share: Share = 0.5
    strength: Annotated[float, Field(ge=1.0, le=5.0)] = 2.0


class CopyPasteConfig(Settings):
    """What bidirectional copy-paste alone has; defaults are those of the release.

    Attributes:
        edge_share: Part of a patch's edges that the pasted box takes.
        unlabelled_weight: Of the pseudo-labelled part of a mixed patch (alpha).
        pretraining_share: Part of the schedule, at its start, in which labelled patches are mixed
            with each other (10 000 steps of 40 000).
    """

    edge_share: Rate = 2 / 3
    unlabelled_weight: Annotated[float, Field(ge=0.0)] = 0.5
    pretraining_share: Share = 0.25


class SpecialistConfig(Settings):
    """Training of one stage of the specialist.

    Where the published values are others, `PUBLISHED_PARADIGMS` in `presets.py` has them.

    Attributes:
        averaged_networks: So many networks are trained, each from other random numbers, and their
            probabilities averaged (ours). Cross-fitted ones, and those that SAM is trained with,
            are single.
        second_pass: One more network is trained that is given how likely each intensity is for the
            organ that the others find, and its probabilities are averaged with theirs (ours). For
            a stage of one organ; not for networks that are single.
        iterations: Optimiser steps of each network of the stage.
        batch_size: Labelled patches per step; as many unlabelled ones are added by a paradigm
            that uses them.
        patch_size: Edge of the square (cubic) training patch in working pixels.
        optimiser: `adamw` or `sgd` (momentum 0.9).
        learning_rate: At the start; falls to zero as (1 - t/T)^0.9.
        weight_decay: Of the optimiser.
        ema_decay: Of the averaged weights that are used for inference, and of the teacher.
        unlabelled_loss: `published` is the loss of the paradigm's paper; `confident` (ours) is
            cross entropy plus Dice to labels that are confident enough.
        background_confidence: Least probability of a confident background label (0.95 in UniMatch).
        target_confidence: Least probability of a confident label of any other class (ours; 0.95 in
            UniMatch).
        consistency_weight: Largest weight of the unlabelled term (0.1 in the releases of mean
            teacher, UA-MT and CPS, 1 in UniMatch's).
        rampup_share: Part of the schedule after which `consistency_weight` is reached; 0 is at
            once.
        teacher_noise: Standard deviation of the noise on the teacher's inputs, in their unit.
        uncertainty_passes: Noisy passes with dropout that UA-MT takes the entropy of.
        lesion_share: Part of the patches centred on a component drawn uniformly by component.
        intensity_strength: Scale of the random changes of contrast, brightness and noise of all
            patches (augmentation); 0 changes nothing.
        target_shift_chance: Part of the patches with a person's labels whose targets are made
            brighter or darker, and nothing else (ours); 0 changes nothing.
        synthetic_lesion_chance: Part of the labelled patches that lesions are drawn into (ours), in
            a stage of one target inside of another; 0 draws none.
        perturbation_strength: Scale of the further changes of unlabelled patches, between those
            that give the labels and those that are trained on (ours).
        mirror: Mirror patches in plane at random, and average over mirrored slices afterwards:
            right for lesions, wrong for an abdomen with its liver on one side.
        unimatch, copy_paste: Of these paradigms alone.
        network: The U-Net.
        roi: What the network is given of a volume.
    """

    averaged_networks: Positive = 1
    second_pass: bool = False
    iterations: Positive = 2000
    batch_size: Positive = 12
    patch_size: Positive = 128
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    ema_decay: Share = 0.99
    unlabelled_loss: Literal["published", "confident"] = "published"
    background_confidence: Share = 0.95
    target_confidence: Share = 0.8
    consistency_weight: Annotated[float, Field(ge=0.0)] = 1.0
    rampup_share: Share = 0.4
    teacher_noise: Annotated[float, Field(ge=0.0)] = 0.1
    uncertainty_passes: Annotated[int, Field(ge=2)] = 8
    lesion_share: Share = 0.5
    intensity_strength: Annotated[float, Field(ge=0.0, le=5.0)] = 1.0
    target_shift_chance: Share = 0.0
    synthetic_lesion_chance: Share = 0.0
    perturbation_strength: Annotated[float, Field(ge=0.0, le=5.0)] = 1.0
    mirror: bool = False
    unimatch: UniMatchConfig = UniMatchConfig()
    copy_paste: CopyPasteConfig = CopyPasteConfig()
    network: NetworkConfig = NetworkConfig()
    roi: RoiConfig = RoiConfig()

    @model_validator(mode="after")
    def _patch_fits(self) -> SpecialistConfig:
        _check_patch(self.patch_size, len(self.network.channels))
        return self


class PromptConfig(Settings):
    """How prompts are made from a mask (ours, where no paper is followed).

    Attributes:
        min_area_px: Components of fewer slice pixels give no prompt.
        most_components: Of a target, at most so many of a slice give a prompt, the largest: the
            noise of a specialist in early training would prompt SAM thousands of times.
        box_margin_px: Added on each side of a component's box.
        jitter_share: In training, each side moves by up to this part of the box's edge.
        positive_points: Interior points per component.
        negative_points: Points in the ring around it.
        use_mask: Give the low-resolution mask as a prompt too.
        connect: Whether the pixels of a prompt are connected in their slice, or anywhere in the
            volume: then the parts of a slice that are one body get one box around them all.
        proposal_threshold: Specialist probability from which a pixel is proposed to SAM.
    """

    min_area_px: Positive = 4
    most_components: Positive = 32
    box_margin_px: Annotated[float, Field(ge=0.0)] = 2.0
    jitter_share: Share = 0.1
    positive_points: NotNegative = 1
    negative_points: NotNegative = 0
    use_mask: bool = True
    connect: Literal["slice", "volume"] = "slice"
    proposal_threshold: Rate = 0.3


class SamCropConfig(Settings):
    """What SAM sees of a slice for targets that lie inside of another (ours).

    Attributes:
        region: The whole `slice`, or the box of the `parent` target in the volume.
        margin_mm: Of the parent's box, on each side in plane.
        spreads: The window reaches so many spreads of the parent's intensities to both sides of
            their most frequent one; None keeps `sam.window_hu`.
        least_spread_hu: The spread of the parent's intensities counts as no less than this.
    """

    region: Literal["slice", "parent"] = "slice"
    margin_mm: Annotated[float, Field(ge=0.0)] = 10.0
    spreads: PositiveFloat | None = 4.0
    least_spread_hu: PositiveFloat = 15.0


class SamConfig(Settings):
    """SAM and its tuning.

    Attributes:
        model: Checkpoint family; `none` runs the loop without SAM, and every table says so.
        checkpoint: A file of one's own, in place of the registered weights.
        input_size: Edge of SAM's square input in pixels: larger is more exact and slower.
        precision: Of the untrained image encoder: `float32`, `half` (float16 on a GPU, bfloat16 on
            a processor), or `auto`: half where that is tried to give the same masks, faster.
        tuning: What is trained: nothing, the mask decoder, low-rank updates or adapters.
        rank: Of the low-rank update, or the width of an adapter.
        iterations: Steps of tuning, each on `batch_size` prompts of one volume.
        batch_size: Prompts per step.
        learning_rate: At the start of tuning.
        weight_decay: Of the optimiser.
        window_hu: Intensities that become black and white in SAM's input.
        cache_gb: Most that a project's cache keeps of embeddings and predictions, in 10^9 bytes.
        versions: Synthetic pseudo-labels made of each labelled case, to prompt with in tuning.
        crop: What SAM sees of a slice for targets that lie inside of another.
        prompts: How prompts are made of a mask.
    """

    model: Literal["none", SamName] = "vit_t"
    checkpoint: str | None = None
    input_size: InputSize = 512
    precision: Literal["auto", "float32", "half"] = "auto"
    tuning: Tuning = "decoder"
    rank: Positive = 4
    iterations: Positive = 400
    batch_size: Positive = 8
    learning_rate: Rate = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    window_hu: Window = (-50.0, 200.0)
    cache_gb: PositiveFloat = 20.0
    versions: Positive = 3
    crop: SamCropConfig = SamCropConfig()
    prompts: PromptConfig = PromptConfig()


class AdaptationConfig(Settings):
    """The network that corrects SAM's predictions (architecture and corruption are ours).

    Attributes:
        iterations: Optimiser steps.
        batch_size: Patches per step.
        patch_size: Edge of the square training patch in working pixels.
        learning_rate: At the start; falls to zero as (1 - t/T)^0.9.
        weight_decay: Of the optimiser.
        intensity_strength: Scale of the random changes of contrast, brightness and noise.
        versions: Synthetic pseudo-labels made of each labelled case.
        context_slices: Neighbours on each side whose probabilities are given too.
        pixel_mm: In-plane pixel that it works at: finer than the specialist's, it sharpens.
        channels: Feature maps per level.
    """

    iterations: Positive = 800
    batch_size: Positive = 8
    patch_size: Positive = 128
    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    channels: Annotated[tuple[Positive, ...], Field(min_length=2)] = (16, 32, 64, 128)
    versions: Positive = 4
    pixel_mm: PositiveFloat = 1.5
    intensity_strength: Annotated[float, Field(ge=0.0, le=5.0)] = 1.5
    context_slices: NotNegative = 1

    @model_validator(mode="after")
    def _patch_fits(self) -> AdaptationConfig:
        _check_patch(self.patch_size, len(self.channels))
        return self


class CandidatesConfig(Settings):
    """Which lesions stay: connected components of a low threshold, each accepted or not (ours).

    Of targets that lie in a parent and hold no other target; all others are left as they are.

    Attributes:
        decide: `none` keeps all; `rule` keeps those above `rule_peak` and `rule_ml`; `classifier`
            learns from mistakes on labelled cases, with the rule as prior; `method` is the
            classifier for aslseg, and none for other methods.
        threshold: Probability from which voxels are proposed.
        margin_mm: How far the refined boundary of a lesion may lie outside of its candidate.
        rule_peak: Least highest probability of the rule.
        rule_ml: Least volume of the rule.
        prior_sd: Of the classifier's weights around the rule, in log-odds for one robust standard
            deviation of a feature: the smaller, the closer to the rule.
        false_per_case: False lesions a case that cross-validation over the labelled cases may show
            at the threshold that is chosen.
        doubt: Candidates whose log-odds are nearer than this to those of the threshold are no
            labels to train on, neither as a lesion nor as none.
        whole_cores: Draw accepted lesions with all of their candidate's core, also where the
            refined probability is below one half.
    """

    decide: Literal["method", "none", "rule", "classifier"] = "method"
    threshold: Rate = 0.3
    margin_mm: Annotated[float, Field(ge=0.0)] = 5.0
    rule_peak: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    rule_ml: PositiveFloat = 0.15
    prior_sd: PositiveFloat = 0.5
    false_per_case: Annotated[float, Field(ge=0.0)] = 1.0
    doubt: Annotated[float, Field(ge=0.0)] = 1.0
    whole_cores: bool = False


class ReliabilityConfig(Settings):
    """Which refined labels join the training set.

    Attributes:
        first_share: Part of the unlabelled cases that round 1 may accept (ST++: one half).
        growth: Added to `first_share` each round (ours).
        min_score: Labels of less reliability than this are never accepted (ours).
        pseudo_weight: Weight of a pseudo-labelled case beside a human one (ours).
        human_share: Least part of each batch of labelled patches that has human labels (ours).
    """

    first_share: Share = 0.5
    growth: Share = 0.25
    min_score: Share = 0.5
    pseudo_weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    human_share: Share = 0.5


class RunConfig(Settings):
    """All settings of a run.

    Attributes:
        method: Name in the registry of methods, as `aslseg` or `semisam`.
        preset: Name of the preset that the settings began with.
        seed: Of all random numbers.
        device: Where networks run; `auto` takes a GPU if there is one.
        rounds: Self-training rounds at most.
        patience: Rounds without a better validation before stopping early.
        paradigm: How the specialist is trained on unlabelled cases.
        start_labels: Origin of another model's labels (see `external_labels`) that round 1 learns
            from as pseudo-labels; empty for none.
        baseline: Also train a supervised specialist, as the row to compare with, where round 1 does
            not have one anyway; and prompt SAM as released.
        semisam, scsam, cpcsam: Of these methods alone.
        later_share: Part of the specialist's schedule in rounds after the first, which start from
            the weights of the round before.
        review_share: Part of the schedule that stages of lesions are trained for after a review of
            lesions, see `train_on`.
        later_learning_rate: Part of the specialist's learning rate that rounds after the first
            begin with.
        retrain: Train SAM, the adaptation network and the lesion stage again in each round, with
            the mistakes of its specialist; else once, in the first one.
        crossfit_share: Part of the specialist's schedule that is run to train specialists on half
            of the labelled cases, for the training samples of the other half; 0 trains none.
        min_component_ml: Smaller components are left out of label maps, unless of a parent target.
        label_unlabelled: Segment the unlabelled cases at the end too; without, the last round
            segments held-out cases only, and the run has no label maps of the others.
    """

    method: str = "aslseg"
    preset: str = "custom"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    rounds: Positive = 2
    patience: Positive = 1
    paradigm: SSLName = "mean_teacher"
    start_labels: str = ""
    baseline: bool = False
    later_share: Rate = 0.5
    review_share: Rate = 0.1
    later_learning_rate: Rate = 1.0
    retrain: bool = True
    crossfit_share: Share = 0.5
    organ: SpecialistConfig = SpecialistConfig()
    lesion: SpecialistConfig = SpecialistConfig()
    sam: SamConfig = SamConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    reliability: ReliabilityConfig = ReliabilityConfig()
    semisam: SemiSamConfig = SemiSamConfig()
    scsam: ScSamConfig = ScSamConfig()
    cpcsam: CpcSamConfig = CpcSamConfig()
    min_component_ml: Annotated[float, Field(ge=0.0)] = 0.03
    label_unlabelled: bool = True

    @model_validator(mode="after")
    def _semisam_has_a_teacher(self) -> RunConfig:
        if self.method == "semisam" and self.paradigm not in TEACHERS:
            msg = (
                "SemiSAM is an addition to a teacher; set paradigm to mean_teacher or "
                f"uncertainty_aware, not {self.paradigm}"
            )
            raise ValueError(msg)
        return self

    @property
    def lesion_decision(self) -> Literal["none", "rule", "classifier"]:
        """How candidates are accepted; `method` is resolved."""
        if self.candidates.decide != "method":
            return self.candidates.decide
        return "classifier" if self.method == "aslseg" else "none"

    @property
    def trains_baseline(self) -> bool:
        """Whether a supervised specialist is trained beside that of round 1, to compare with."""
        same = self.paradigm == "supervised" and not self.start_labels
        return self.baseline and not same

    def stage(self, inside: str | None) -> SpecialistConfig:
        """Return the settings of the stage that segments targets inside `inside`.

        Where they leave the network's dropout to the paradigm, it is filled in.
        """
        settings = self.organ if inside is None else self.lesion
        if settings.network.dropout is not None:
            return settings
        dropout = UNCERTAIN_DROPOUT if self.paradigm == "uncertainty_aware" else 0.0
        network = settings.network.model_copy(update={"dropout": dropout})
        return settings.model_copy(update={"network": network})


def parse_config(values: dict[str, Any], source: str = "settings") -> RunConfig:
    """Validate settings from JSON.

    Raises:
        ConfigError: Naming the first setting that cannot be used, and `source`.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        where, what = first_finding(error)
        what = _no_such_setting(error) or what.removeprefix("Value error, ")
        msg = f"{source}: setting '{where or 'the whole'}' cannot be used: {what}; correct it."
        raise ConfigError(msg) from error


def _no_such_setting(error: ValidationError) -> str:
    """Say which settings are named like one that there is not; nothing of other findings."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return ""
    *groups, name = map(str, first["loc"])
    known: Any = RunConfig().model_dump()
    for group in groups:
        known = known.get(group) if isinstance(known, dict) else None
    alike = get_close_matches(name, known if isinstance(known, dict) else (), n=2)
    names = " or ".join(".".join((*groups, one)) for one in alike)
    return "there is no such setting" + (f", but {names}" if names else "")


def read_config(path: Path) -> RunConfig:
    """Read settings from a JSON file.

    Raises:
        ConfigError: When the file is missing, no JSON, or has a setting that cannot be used.
    """
    values = read_object(path, ConfigError, "give the path of a settings file")
    return parse_config(renamed_config(values), str(path))


_BEFORE: dict[str, Any] = {"candidates": {"decide": "none"}, "retrain": False}
"""Of runs that were begun before there were these settings, by what was done then."""


def read_run_config(path: Path) -> RunConfig:
    """Read the settings of a run, which may be one of an earlier version.

    Raises:
        ConfigError: As `read_config`.
    """
    values = read_object(path, ConfigError, "restore it from a copy, or start a new run")
    return parse_config(renamed_config({**_BEFORE, **values}), str(path))
