"""What a run notes of itself in `status.json`: how it stands, and what it learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

RoundNumber: TypeAlias = Annotated[int, Field(ge=1, lt=100_000)]
LaterRound: TypeAlias = Annotated[int, Field(ge=2, lt=100_000)]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=100_000)]


@dataclass(frozen=True, slots=True)
class LearntData:
    """The labels and decisions that a run learns from.

    Attributes:
        label_digests: SHA-256 of the label maps, by case, and of organ masks, by their path from
            the project folder.
        label_scopes: What label maps decide that do not decide all, by case (`Case.label_scope`).
        lesion_lines: Number of decisions about lesions, by case.
    """

    label_digests: dict[str, str] = field(default_factory=dict)
    label_scopes: dict[str, str] = field(default_factory=dict)
    lesion_lines: dict[str, int] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, dict[str, str]]:
        """What is noted of label maps and masks, by the names of `status.json`."""
        return {"label_digests": self.label_digests, "label_scopes": self.label_scopes}


class RunStatus(BaseModel):
    """Contents of `status.json`; what the file does not say is as before anything was written.

    What a later version of this program notes beside these is kept.

    Attributes:
        schema_version: Of the run's files.
        state: running, cancelled, failed or done as it was written, see `RunFolder.state`; empty
            before.
        message: Why it ended early.
        task: What it works on.
        method: That it trains by.
        sam: Name of the SAM that takes part, or none.
        updated: When it was last worked on, ISO 8601.
        best_round: Number of the round that segments; 0 as long as none is finished.
        rounds: How many it is to have.
        round: That it works on; 0 before the first.
        patience_start: First round that counts for the settings' patience.
        step: Of the task, of `of` steps.
        of: See `step`.
        seconds_left: Of the task; None where it is not known.
        retrained_rounds: In which what is trained once is trained anew.
        short_rounds: That train the stages of lesions alone.
        taught_rounds: Before which a person changed labels, or decided about lesions.
        label_digests: See `LearntData`.
        label_scopes: See `LearntData`.
        lesion_lines: See `LearntData`.
        whole_round_labels: `LearntData.labels` that the last whole round learnt, where a short one
            came after it.
        training_cases: Cases that it trains on, with and without a label map.
        given_targets: Organs of which every case had a mask.
        targets: That its networks are for, as `noted_targets` gives them; earlier versions noted
            none.
        orientation: Axes of the volumes that its networks saw; earlier versions noted none.
        start_targets: Targets of the labels of another model that it began with, by case.
        images: SHA-256 of the images that it has seen, by case.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    schema_version: Count = 1
    state: str = ""
    message: str = ""
    task: str = ""
    method: str = ""
    sam: str = ""
    updated: str = ""
    best_round: Count = 0
    rounds: Count = 0
    round: Count = 0
    patience_start: Count = 1
    step: int = 0
    of: int = 0
    seconds_left: float | None = None
    retrained_rounds: list[RoundNumber] = [1]
    short_rounds: list[LaterRound] = []
    taught_rounds: list[LaterRound] = []
    label_digests: dict[str, str] = {}
    label_scopes: dict[str, str] = {}
    lesion_lines: dict[str, int] = {}
    whole_round_labels: dict[str, dict[str, str]] = {}
    training_cases: list[str] = []
    given_targets: list[str] = []
    targets: list[str] = []
    orientation: str | None = None
    start_targets: dict[str, list[str]] = {}
    images: dict[str, str] = {}
