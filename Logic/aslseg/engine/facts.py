"""What the engine says of a request that it has served, by the kind of the request."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from aslseg.targets import Target


class Message(BaseModel):
    """The arguments of a request, or an event of the engine."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class PredictionFacts(Message):
    """About the predictions of `segment` and `refine`.

    Attributes:
        run: The run whose models predicted; None when SAM worked alone.
        method: Of the run, or `sam`.
        round: Of the run, or 0.
        weights: Digest of the trained weights; empty without a run.
        note: What a person should know about it; may be empty.
        device: Where networks ran.
        slice_index: The axial slice, in the file's own numbers; None for the whole volume.
        targets: Classes of the label maps.
        unmet_clicks: Sentences about clicks that the label does not follow.
    """

    run: str | None
    method: str
    round: int
    weights: str
    note: str
    device: str
    slice_index: int | None
    targets: list[Target]
    unmet_clicks: list[str]


class GrowthFacts(Message):
    """About a lesion that has grown.

    Attributes:
        run: As of `PredictionFacts`.
        method: As of `PredictionFacts`.
        round: As of `PredictionFacts`.
        weights: As of `PredictionFacts`.
        device: Where SAM ran.
        target: Of the lesion.
        first_slice: The lowest number of its slices, in the file's own numbers; None for nothing.
        last_slice: The highest.
        volume_ml: Its volume.
        ends: Why it ends, a sentence for each way, and one for each slice with a positive point
            that is not in it.
    """

    run: str | None
    method: str
    round: int
    weights: str
    device: str
    target: str
    first_slice: int | None
    last_slice: int | None
    volume_ml: float
    ends: list[str]


class FillFacts(Message):
    """About organs that were filled between drawn slices.

    Attributes:
        run: The run whose specialist went on learning; None when a new network learnt the slices.
        method: Of the run, or `drawn slices`.
        round: As of `PredictionFacts`.
        weights: As of `PredictionFacts`.
        device: Where the specialist ran.
        filled_slices: Axial slices that were filled, in the file's own numbers, ascending.
    """

    run: str | None
    method: str
    round: int
    weights: str
    device: str
    filled_slices: list[int]


class RunFacts(Message):
    """About a training that is done: the name of its run."""

    run: str


class EstimateFacts(Message):
    """How long a run would take: its rounds, their steps in all, and seconds."""

    rounds: int
    steps: int
    seconds: float


class DeviceFacts(Message):
    """Where networks would run, and why; or the problem with the device that was asked about."""

    name: str
    reason: str
    problem: str


class WeightsFacts(Message):
    """About the default weights of a SAM model.

    Attributes:
        model: Such as `vit_t`.
        name: Of the weights.
        licence: Of the weights.
        bytes: Size of the download; None when it is not known.
        path: Where they are on this computer; None when they are not.
        problem: What is wrong with the file there; may be empty.
    """

    model: str
    name: str
    licence: str
    bytes: int | None
    path: str | None
    problem: str


class ComputerFacts(Message):
    """What `describe` is answered: the device, and the default weights of each SAM model."""

    device: DeviceFacts
    weights: list[WeightsFacts]


class DownloadFacts(Message):
    """The weights that are here after a download."""

    weights: WeightsFacts


class RemovalFacts(Message):
    """The paths of the files that were deleted."""

    removed: list[str]


class ExportFacts(Message):
    """What was exported.

    Attributes:
        label_maps: How many label maps of each origin.
        notes: Sentences about what was left out.
    """

    label_maps: dict[str, int]
    notes: list[str]


class FolderFacts(Message):
    """What became of the volumes of a folder.

    Attributes:
        done: Names of volumes that were segmented.
        skipped: Names of those that were done already.
        failed: Why others could not be segmented, by name.
    """

    done: list[str]
    skipped: list[str]
    failed: dict[str, str]


class CancelFacts(Message):
    """The numbers of the requests that `cancel` or `close` stopped."""

    cancelled: list[int]
