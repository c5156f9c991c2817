"""The requests of the protocol: their fields with types and bounds.

The panel checks with them what it sends, the engine what it receives. A request with any other
field is refused with a sentence that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from aslseg.engine.protocol import RequestError
from aslseg.targets import Target

MAX_PROMPTS = 2000
MAX_PROMPTS_OF_SLICE = 256
MAX_POINTS = 100
_REMEDY = "Correct the request, or update the extension."


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


class RequestModel(BaseModel):
    """The arguments of a request."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class PointFields(RequestModel):
    """A click."""

    xy: Annotated[list[Pixel], Field(min_length=2, max_length=2)]
    positive: bool = True


class PromptFields(RequestModel):
    """The prompts of one object of a slice, as `SlicePrompts.from_json` reads them."""

    slice_index: Index
    target: Name
    component: Index = 0
    box: Annotated[list[Pixel], Field(min_length=4, max_length=4)] | None = None
    points: Annotated[list[PointFields], Field(max_length=MAX_POINTS)] = []


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


class ImageRequest(RequestModel):
    """A request about one image, with a run of a project or with SAM alone."""

    image: PathText
    project: PathText | None = None
    run: Name | None = None
    device: Device | None = None
    sam: Settings | None = None
    targets: list[Target] | None = None


class Segment(ImageRequest):
    """Segment a volume."""

    output: PathText


class Refine(Segment):
    """Segment with a person's prompts; about one slice where `slice_index` is given."""

    prompts: Prompts | None = None
    slice_index: Index | None = None
    edited_slices: Indices = []


class Train(RequestModel):
    """Start a run."""

    project: PathText
    settings: str | Settings | None = None
    run: Name | None = None
    device: Device | None = None


class Resume(RequestModel):
    """Go on with a run; with `rounds`, for that many more."""

    project: PathText
    run: Name | None = None
    rounds: Annotated[int, Field(ge=0, le=1000)] | None = None
    device: Device | None = None


class Describe(RequestModel):
    """Describe this computer; a device that is not there is a result, no error."""

    device: Annotated[str, Field(max_length=100)] | None = None


class Weights(RequestModel):
    """Download or remove weights."""

    model: Name


MODELS: dict[str, type[RequestModel]] = {
    "segment": Segment,
    "refine": Refine,
    "train": Train,
    "resume": Resume,
    "describe": Describe,
    "download": Weights,
    "remove": Weights,
}


def check_request(do: str, arguments: Mapping[str, Any]) -> RequestModel:
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
