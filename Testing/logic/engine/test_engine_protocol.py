"""Requests and events: what one end says, the other reads, field by field."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from aslseg.engine import protocol
from aslseg.engine.facts import (
    CancelFacts,
    ComputerFacts,
    DeviceFacts,
    DownloadFacts,
    EstimateFacts,
    ExportFacts,
    FillFacts,
    FolderFacts,
    GrowthFacts,
    PredictionFacts,
    RemovalFacts,
    RunFacts,
    WeightsFacts,
)
from aslseg.engine.protocol import (
    Alive,
    Done,
    EngineEvent,
    EventError,
    Ready,
    event_line,
    parse_event,
)
from aslseg.events import Artifact, Cancelled, Metric, Notice, Progress, RunProgress, SliceMask
from aslseg.failures import Failure
from aslseg.targets import LIVER_TARGETS

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = WeightsFacts(model="vit_t", name="a", licence="b", bytes=3, path=None, problem="")
PREDICTION = PredictionFacts(
    run=None,
    method="sam",
    round=0,
    weights="",
    note="Alone.",
    device="cpu",
    slice_index=4,
    targets=list(LIVER_TARGETS),
    unmet_clicks=["A click."],
)
EVENTS: list[EngineEvent] = [
    Ready(version="1", pid=7),
    Alive(quiet_s=2.5),
    Progress("a task", 1, 2, 3.5, 4),
    RunProgress(1, 2, 4, 14, 0.3, 4100.0),
    Metric("loss", 0.5, 3, task="specialist-liver", round=2),
    Artifact("run", "runs/a"),
    Notice("Careful."),
    SliceMask(7, "tumour", (3, 4), (2, 5), "/4A="),
    Cancelled("Stopped."),
    Failure("It failed.", "Do this.", "image"),
    Done(facts=PREDICTION, files={"sam": "sam.nii.gz"}),
    Done(
        facts=GrowthFacts(
            run=None,
            method="sam",
            round=0,
            weights="",
            device="cpu",
            target="tumour",
            first_slice=3,
            last_slice=7,
            volume_ml=1.5,
            ends=["Ends at slice 8: nothing there looks like the lesion."],
        )
    ),
    Done(
        facts=FillFacts(
            run="a", method="aslseg", round=1, weights="0a", device="cpu", filled_slices=[3, 4]
        ),
        files={"filled": "filled.nii.gz"},
    ),
    Done(facts=RunFacts(run="a")),
    Done(facts=ExportFacts(label_maps={"ai": 2}, notes=["A note."]), files={"folder": "out"}),
    Done(facts=FolderFacts(done=["a"], skipped=[], failed={"b": "Why."})),
    Done(facts=EstimateFacts(rounds=2, steps=14, seconds=4100.0)),
    Done(
        facts=ComputerFacts(
            device=DeviceFacts(name="cpu", reason="r", problem=""), weights=[WEIGHTS]
        )
    ),
    Done(facts=DownloadFacts(weights=WEIGHTS)),
    Done(facts=RemovalFacts(removed=["a"])),
    Done(facts=CancelFacts(cancelled=[3])),
]


def kinds_of(union: Any) -> set[type]:
    return set(get_args(union))


def names_of(kind: type) -> set[str]:
    if is_dataclass(kind):
        return {field.name for field in fields(kind)}
    assert issubclass(kind, BaseModel)
    return set(kind.model_fields)


def test_there_is_an_example_of_every_event_and_of_every_answer() -> None:
    assert {type(event) for event in EVENTS} == kinds_of(EngineEvent)
    facts = {type(event.facts) for event in EVENTS if isinstance(event, Done)}
    assert facts == kinds_of(Done.model_fields["facts"].annotation)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_as_it_was_sent(event: EngineEvent) -> None:
    line = event_line(12, event)
    assert "\n" not in line
    assert json.loads(line)["event"] == event.event
    assert parse_event(line) == (12, event)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_field_that_the_other_end_does_not_know_is_neither_sent_nor_taken(
    event: EngineEvent,
) -> None:
    values = {name: getattr(event, name) for name in names_of(type(event))}
    with pytest.raises((ValidationError, TypeError), match="surprise"):
        type(event)(**values, surprise=1)
    sent = {**json.loads(event_line(12, event)), "surprise": 1}
    with pytest.raises(EventError, match="surprise") as refused:
        parse_event(json.dumps(sent))
    assert refused.value.number == 12
    assert refused.value.is_final is (event.event in protocol.FINAL)


@pytest.mark.parametrize(
    "done", [e for e in EVENTS if isinstance(e, Done)], ids=lambda done: type(done.facts).__name__
)
def test_the_facts_of_an_answer_have_no_other_fields_either(done: Done) -> None:
    sent = json.loads(event_line(12, done))
    sent["facts"]["surprise"] = 1
    with pytest.raises(EventError, match="does not understand"):
        parse_event(json.dumps(sent))
    with pytest.raises(TypeError, match="are no"):
        done.facts_as(DeviceFacts)


@pytest.mark.parametrize(
    "line", ["", "a print", "[1]", "5", '{"id": 1}', '{"event": 5}', "[" * 100_000, '{"event": "d']
)
def test_what_is_printed_is_no_event(line: str) -> None:
    assert parse_event(line) is None


def test_an_event_of_another_kind_or_protocol_is_refused() -> None:
    with pytest.raises(EventError, match="reinstall the extension"):
        parse_event('{"id": 1, "event": "dance"}')
    with pytest.raises(EventError, match="protocol"):
        parse_event('{"id": 0, "event": "ready", "version": "1", "pid": 7, "protocol": 1}')


def test_a_loss_that_is_no_number_is_told_all_the_same() -> None:
    read = parse_event(event_line(1, Metric("loss", math.nan, 0)))
    assert read is not None
    assert isinstance(read[1], Metric)
    assert math.isnan(read[1].value)


def test_the_panel_reads_every_field_of_every_event_that_it_asks_for() -> None:
    panel = ROOT / "SlicerASLseg" / "ASLsegLib"
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted(panel.rglob("*.py")))
    read = set(re.findall(r"\.(\w+)\b(?!\()", code))
    facts = kinds_of(Done.model_fields["facts"].annotation) - {CancelFacts}  # it sends no id there
    asked = (kinds_of(EngineEvent) | facts | {DeviceFacts, WeightsFacts}) - {Artifact}
    ignored = {
        (kind.__name__, name) for kind in asked for name in names_of(kind) if name not in read
    }
    # The protocol's number is compared by the model; `kind` is for scripts that use the engine.
    assert ignored <= {("Ready", "protocol"), ("Failure", "kind")}
