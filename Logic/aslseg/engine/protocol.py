"""What panel and engine say to each other: requests and events, one object of JSON a line.

Both ends write and read with the models of this file, so that no end can say what the other does
not know. Needs pydantic, so the panel imports it when it asks for something.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    TypeAdapter,
    ValidationError,
)

from aslseg.engine.facts import (
    CancelFacts,
    ComputerFacts,
    DownloadFacts,
    EstimateFacts,
    ExportFacts,
    FillFacts,
    FolderFacts,
    GrowthFacts,
    Message,
    PredictionFacts,
    RemovalFacts,
    RunFacts,
)
from aslseg.errors import AslsegError
from aslseg.events import (
    Artifact,
    Cancelled,
    CancelToken,
    Metric,
    Notice,
    Progress,
    RunProgress,
    SliceMask,
)
from aslseg.failures import Failure
from aslseg.targets import Target

PROTOCOL: Final = 2
FINAL = ("done", "failed", "cancelled")
"""Events that end a request; each request gets exactly one of them."""
MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_WAITING = 1000
"""So many requests may wait for their turn."""
ALIVE_S = 2.0
"""Seconds between the `alive` events of a request that is worked on."""

MAX_PROMPTS = 2000
MAX_PROMPTS_OF_SLICE = 256
MAX_POINTS = 100

_MAX_ID = 2**53
_ID = re.compile(r'\s*\{\s*"id"\s*:\s*(\d{1,15})\s*[,}]')
_SHOWN = 200
_LONGEST_WORD = 40
_REMEDY = "Correct the request, or update the extension."


class RequestError(AslsegError):
    """A request cannot be understood; the message names what is wrong with it.

    Attributes:
        number: The request's `id` as far as it can be read, else 0.
    """

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.number = number


class EventError(AslsegError):
    """A line is an event that cannot be understood; the message names what is wrong with it.

    Attributes:
        number: The event's `id`, 0 when it has none.
        is_final: Whether it was to end a request.
    """

    def __init__(self, message: str, number: int, *, is_final: bool) -> None:
        super().__init__(message)
        self.number = number
        self.is_final = is_final


# -- lines of requests ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was read from a line.

    Attributes:
        number: Its `id`, which all its events repeat.
        do: Its name.
        arguments: All other fields, not checked.
        token: Cancelled when the request is.
    """

    number: int
    do: str
    arguments: Mapping[str, Any]
    token: CancelToken = field(default_factory=CancelToken, compare=False)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no text or too long.

    Attributes:
        text: What could be read of it.
        reason: What is wrong, to follow "This line".
    """

    text: str
    reason: str


def read_lines(stream: IO[bytes], limit: int = MAX_LINE_BYTES) -> Iterator[str | BadLine]:
    """Yield the lines of a stream of bytes, whatever they hold, in bounded memory."""
    while raw := stream.readline(limit + 1):
        if len(raw) > limit:
            yield BadLine(_start_of(raw), f"is longer than {limit} bytes")
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(limit)
            continue
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError:
            yield BadLine(_start_of(raw), "is no text in UTF-8")


def parse_request(line: str | BadLine) -> Request | None:
    """Read a line; None when it is empty.

    Raises:
        RequestError: When it is no request; nothing of it was obeyed.
    """
    if isinstance(line, BadLine):
        msg = f"This line {line.reason}: {line.text}; send one object of JSON a line."
        raise RequestError(msg, _number_in(line.text))
    text = line.strip()
    if not text:
        return None
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        msg = f'This line is no request: {text[:_SHOWN]}; send an object with "id" and "do".'
        raise RequestError(msg, _number_in(text)) from error
    return _request_of(values, text)


def _request_of(values: Any, text: str) -> Request:
    if not isinstance(values, dict):
        msg = f'This line is no request: {text[:_SHOWN]}; send an object with "id" and "do".'
        raise RequestError(msg)
    number, do = values.pop("id", 0), values.pop("do", None)
    if type(number) is not int or not 0 <= number < _MAX_ID:
        msg = f"This line is no request: {text[:_SHOWN]}; its 'id' has to be a whole number."
        raise RequestError(msg)
    if not isinstance(do, str) or not 0 < len(do) <= _LONGEST_WORD:
        msg = f"This line is no request: {text[:_SHOWN]}; its 'do' has to be a word."
        raise RequestError(msg, number)
    if number == 0 and do not in ("cancel", "close"):
        msg = f"This line is no request: {text[:_SHOWN]}; it needs an 'id' above 0."
        raise RequestError(msg)
    return Request(number, do, values)


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line.

    Raises:
        TypeError: When it holds something that JSON cannot.
        ValueError: When it holds a number that is not finite.
        RequestError: When the line is longer than the other end reads.
    """
    line = json.dumps(message, allow_nan=False).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        msg = (
            f"The request is too long for the engine ({len(line)} of at most {MAX_LINE_BYTES} "
            "bytes); ask about fewer prompts at once."
        )
        raise RequestError(msg)
    return line


def _start_of(raw: bytes) -> str:
    return raw[:_SHOWN].decode("utf-8", "replace")


def _number_in(text: str) -> int:
    """Return the id that a broken line begins with, else 0."""
    found = _ID.match(text)
    return int(found.group(1)) if found else 0


def _refuse_constant(name: str) -> Any:
    msg = f"{name} is no number of JSON"
    raise ValueError(msg)


# -- what requests say ----------------------------------------------------------------------------


def _usable_path(text: str) -> str:
    if "\0" in text:
        msg = "a path holds no NUL character; correct it"
        raise ValueError(msg)
    return text


PathText = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_usable_path)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_usable_path)]
Device = Literal["auto", "cpu", "cuda", "mps"]
Index = Annotated[int, Field(ge=0, le=1_000_000)]
Pixel = Annotated[float, Field(ge=-1e6, le=1e6)]
Indices = Annotated[list[Index], Field(max_length=100_000)]
Settings = dict[str, Any]


class PointFields(Message):
    """A click."""

    xy: Annotated[list[Pixel], Field(min_length=2, max_length=2)]
    positive: bool = True


class PromptFields(Message):
    """The prompts of one object of a slice, as `SlicePrompts.from_json` reads them."""

    slice_index: Index
    target: Name
    component: Index = 0
    box: Annotated[list[Pixel], Field(min_length=4, max_length=4)] | None = None
    points: Annotated[list[PointFields], Field(max_length=MAX_POINTS)] = Field(default_factory=list)


def _few(prompts: list[PromptFields]) -> list[PromptFields]:
    if len(prompts) > MAX_PROMPTS:
        msg = f"at most {MAX_PROMPTS} are answered, not {len(prompts)}; ask about fewer slices"
        raise ValueError(msg)
    counts: dict[int, int] = {}
    for prompt in prompts:
        counts[prompt.slice_index] = counts.get(prompt.slice_index, 0) + 1
    for k, count in counts.items():
        if count > MAX_PROMPTS_OF_SLICE:
            msg = f"slice {k} has {count}, at most {MAX_PROMPTS_OF_SLICE} are answered; remove some"
            raise ValueError(msg)
    return prompts


Prompts = Annotated[list[PromptFields], AfterValidator(_few)]


class ImageRequest(Message):
    """A request about one image, with a run of a project or with SAM alone."""

    image: PathText
    project: PathText | None = None
    run: Name | None = None
    device: Device | None = None
    sam: Settings | None = None
    targets: list[Target] | None = None
    organs: dict[Name, PathText] = Field(default_factory=dict)


class Segment(ImageRequest):
    """Segment a volume."""

    output: PathText


class Refine(Segment):
    """Segment with a person's prompts; about one slice where `slice_index` is given."""

    prompts: Prompts | None = None
    slice_index: Index | None = None
    edited_slices: Indices = Field(default_factory=list)


class Grow(ImageRequest):
    """Grow one lesion from prompts, at most one a slice.

    Attributes:
        prompts: Of the lesion.
        labels: A label map of what there is, on the image's voxels: the lesion stays in its parent
            and out of other lesions.
    """

    prompts: Annotated[Prompts, Field(min_length=1)]
    labels: PathText | None = None


class FillBetween(Segment):
    """Fill organs between slices that a person drew; a run's specialist, or a new network, learns.

    Attributes:
        labels: A label map of what is shown, on the image's voxels.
        slices: Axial slices that were drawn, in the file's own numbers; there is a slice to be
            filled between two of them.
        target: Of a lesion that is filled in place of the organs, by a new network always.
        lesion: A mask of this lesion, on the image's voxels; all that `labels` shows of the target
            when None.
    """

    labels: PathText
    slices: Annotated[Indices, Field(min_length=2)]
    target: Name | None = None
    lesion: PathText | None = None


class Train(Message):
    """Start a run."""

    project: PathText
    settings: str | Settings | None = None
    run: Name | None = None
    device: Device | None = None


class Estimate(Message):
    """Estimate how long a run would take, without starting it."""

    project: PathText
    settings: str | Settings | None = None
    device: Device | None = None


class Resume(Message):
    """Go on with a run; with `rounds`, for that many more."""

    project: PathText
    run: Name | None = None
    rounds: Annotated[int, Field(ge=0, le=1000)] | None = None
    device: Device | None = None


class FollowRun(Message):
    """Follow a run that another computer works on, to its end; the latest such one if None."""

    project: PathText
    run: Name | None = None


class Export(Message):
    """Write the label maps of a project; the fields are those of `ExportOptions`."""

    project: PathText
    output: PathText
    format: Literal["nifti", "nnunet", "dicom_seg", "tables"]
    labels: Literal["human", "accepted", "all"]
    cases: Annotated[list[Name], Field(max_length=100_000)] | None = None
    run: Name | None = None
    replace: bool = False


class SegmentFolder(Message):
    """Segment the volumes of a folder with a run; the latest finished one where none is named."""

    project: PathText
    run: Name | None = None
    images: PathText
    output: PathText
    organs: dict[Name, PathText] = Field(default_factory=dict)
    predictions: bool = False
    replace: bool = False
    device: Device | None = None


class TrainOn(Message):
    """Let a run learn from decisions about lesions in a short round."""

    project: PathText
    run: Name | None = None
    share: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    device: Device | None = None


class Describe(Message):
    """Describe this computer; a device that is not there is a result, no error."""

    device: Annotated[str, Field(max_length=100)] | None = None


class Weights(Message):
    """Download or remove weights."""

    model: Name


MODELS: dict[str, type[Message]] = {
    "segment": Segment,
    "refine": Refine,
    "grow": Grow,
    "fill_between": FillBetween,
    "train": Train,
    "estimate": Estimate,
    "resume": Resume,
    "follow_run": FollowRun,
    "export": Export,
    "segment_folder": SegmentFolder,
    "train_on": TrainOn,
    "describe": Describe,
    "download": Weights,
    "remove": Weights,
}


def check_request(do: str, arguments: Mapping[str, Any]) -> Message:
    """Return the checked arguments of a request, as the model that `MODELS` has for it.

    Raises:
        RequestError: When there is no such request; or naming the first field that cannot be used.
    """
    if do not in MODELS:
        msg = f"'{do}' is nothing that the engine can do; ask for {', '.join(MODELS)}."
        raise RequestError(msg)
    try:
        return MODELS[do].model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise RequestError(_sentence(first)) from error


def _sentence(problem: Mapping[str, Any]) -> str:
    place = [part for part in problem["loc"] if part not in _UNION_BRANCHES]
    field = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
    if problem["type"] == "missing":
        return f"The request lacks '{field}'; {_REMEDY}"
    if problem["type"] == "extra_forbidden":
        return f"The request has the unknown field '{field}'; {_REMEDY}"
    what = str(problem["msg"])
    if problem["type"] == "value_error":  # one of the sentences above, which say what to do
        what = what.removeprefix("Value error, ")
        return f"The request's '{field}' cannot be used: {what}."
    return f"The request's '{field}' cannot be used: {what}; {_REMEDY}"


_UNION_BRANCHES = ("str", "dict[str,any]")


# -- events ---------------------------------------------------------------------------------------


class Ready(Message):
    """The engine is started; the first line.

    Attributes:
        version: Of the library.
        pid: Of its process.
        protocol: `PROTOCOL`; an engine of another one is not understood.
    """

    version: str
    pid: int
    protocol: Literal[2] = PROTOCOL
    event: Literal["ready"] = "ready"


class Alive(Message):
    """The engine lives and works; `quiet_s` seconds have gone since its work last had an event."""

    quiet_s: float
    event: Literal["alive"] = "alive"


Facts = TypeVar("Facts", bound=Message)
FileName = Literal[
    "specialist", "sam", "refined", "disagreement", "prompts", "filled", "report", "weights",
    "folder",
]  # fmt: skip


class Done(Message):
    """A request was served.

    Attributes:
        files: Paths of what was written, by name.
        facts: About it, as the request has it.
    """

    facts: (
        PredictionFacts
        | GrowthFacts
        | FillFacts
        | RunFacts
        | EstimateFacts
        | ExportFacts
        | FolderFacts
        | ComputerFacts
        | DownloadFacts
        | RemovalFacts
        | CancelFacts
    )
    files: dict[FileName, str] = Field(default_factory=dict)
    event: Literal["done"] = "done"

    def facts_as(self, kind: type[Facts]) -> Facts:
        """Return the facts.

        Raises:
            TypeError: When they are of another kind, so it is the answer to another request.
        """
        if not isinstance(self.facts, kind):
            msg = f"{self.facts!r} are no {kind.__name__}"
            raise TypeError(msg)
        return self.facts


EngineEvent: TypeAlias = (
    Ready
    | Alive
    | Progress
    | RunProgress
    | Metric
    | Artifact
    | Notice
    | SliceMask
    | Done
    | Failure
    | Cancelled
)
_EVENTS: TypeAdapter[EngineEvent] = TypeAdapter(
    Annotated[EngineEvent, Field(discriminator="event")]
)


def event_line(number: int, event: EngineEvent) -> str:
    """Return an event of a request as a line without its end."""
    values = _EVENTS.dump_python(event, mode="json")
    return json.dumps({"id": number, "event": values.pop("event"), **values})


def parse_event(line: str) -> tuple[int, EngineEvent] | None:
    """Read a line of the engine: the number of the request, and its event.

    Returns:
        None when the line is no event but something that was printed.

    Raises:
        EventError: When it is an event that cannot be understood.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("event"), str):
        return None
    number = values.pop("id", 0)
    if type(number) is not int:
        number = 0
    try:
        return number, _EVENTS.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        msg = (
            f"The engine sent what this panel does not understand ({place}: {first['msg']}); "
            "reinstall the extension, so that both are of one version."
        )
        raise EventError(msg, number, is_final=values["event"] in FINAL) from error
