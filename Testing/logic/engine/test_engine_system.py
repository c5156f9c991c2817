"""What the panel asks the engine about this computer: device and weights, without a process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aslseg.data.images import write_volume
from aslseg.data.volume import Geometry, Volume
from aslseg.engine.facts import (
    ComputerFacts,
    DeviceFacts,
    DownloadFacts,
    RemovalFacts,
    WeightsFacts,
)
from aslseg.engine.protocol import Describe, Weights
from aslseg.engine.system import describe, download, remove
from aslseg.engine.tasks import Engine
from aslseg.errors import CancelledError, WeightsError
from aslseg.events import CancelToken, Monitor, Progress
from aslseg.sam import weights as sam_weights
from aslseg.sam.weights import DEFAULTS, get_weights, weights_folder


@pytest.fixture(autouse=True)
def _no_weights_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ASLSEG_WEIGHTS", str(tmp_path / "brought"))


def put(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"not what it claims to be")
    return folder / name


def described(device: str | None = None) -> ComputerFacts:
    facts = describe(Describe(device=device), Monitor()).facts
    assert isinstance(facts, ComputerFacts)
    return facts


def removed(model: str) -> list[str]:
    facts = remove(Weights(model=model), Monitor()).facts
    assert isinstance(facts, RemovalFacts)
    return facts.removed


def test_the_cpu_is_described_with_the_reason_for_it() -> None:
    device = described("cpu").device
    assert device.name == "cpu"
    assert device.reason
    assert device.problem == ""


def test_without_a_wish_the_device_is_chosen() -> None:
    assert described().device == described("auto").device


def test_a_device_that_is_not_there_is_a_problem_in_words_and_no_failure() -> None:
    device = described("abacus").device
    assert device == DeviceFacts(name="abacus", reason="", problem=device.problem)
    assert "abacus" in device.problem


def test_every_sam_has_its_default_weights_described_with_size_and_licence() -> None:
    weights = described().weights
    assert [one.model for one in weights] == list(DEFAULTS)
    mobile = next(one for one in weights if one.model == "vit_t")
    assert mobile == WeightsFacts(
        model="vit_t",
        name="mobile_sam",
        licence="Apache-2.0",
        bytes=40_728_226,
        path=None,
        problem="",
    )


def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    path = put(tmp_path / "brought", "mobile_sam.pt")
    mobile = described().weights[list(DEFAULTS).index("vit_t")]
    assert mobile.path == str(path)
    assert mobile.problem


def test_looking_for_weights_tells_how_far_it_is_and_can_be_stopped() -> None:
    told: list[Progress] = []
    describe(Describe(), Monitor(lambda event: told.append(event)))  # type: ignore[arg-type]
    assert {event.task for event in told} == {"Looking for weights"}
    assert (told[-1].step, told[-1].of) == (len(DEFAULTS), len(DEFAULTS))
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError, match="Stopped"):
        describe(Describe(), Monitor(token=token))


def test_a_download_gives_the_file_and_what_is_known_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def get(name: str, _: Monitor) -> Path:
        asked.append(name)
        return put(weights_folder(), "mobile_sam.pt")

    monkeypatch.setattr("aslseg.engine.system.get_weights", get)
    answer = download(Weights(model="vit_t"), Monitor())
    assert asked == ["vit_t"]
    assert answer.files == {"weights": str(weights_folder() / "mobile_sam.pt")}
    assert isinstance(answer.facts, DownloadFacts)
    assert answer.facts.weights.name == "mobile_sam"


def test_a_sam_that_nobody_knows_cannot_be_downloaded() -> None:
    with pytest.raises(WeightsError, match="no weights named 'vit_x'; choose one of"):
        download(Weights(model="vit_x"), Monitor())


def test_only_what_was_downloaded_is_removed_not_what_a_person_brought(tmp_path: Path) -> None:
    brought = put(tmp_path / "brought", "mobile_sam.pt")
    downloaded = put(weights_folder(), "mobile_sam.pt")
    half = put(weights_folder(), "mobile_sam.pt.part")
    assert removed("vit_t") == [str(downloaded), str(half)]
    assert brought.exists()
    assert not downloaded.exists()
    assert not half.exists()


def test_weights_can_be_removed_by_their_own_name_and_twice() -> None:
    downloaded = put(weights_folder(), "mobile_sam.pt")
    assert removed("mobile_sam") == [str(downloaded)]
    assert removed("mobile_sam") == []


def test_nothing_but_download_fetches_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(attempt: sam_weights._Attempt) -> Path:
        return put(weights_folder(), attempt.source.file_name)

    monkeypatch.setattr(sam_weights._Attempt, "first_that_works", fetched)
    image = tmp_path / "image.nii.gz"
    grid = Geometry.axis_aligned((4, 32, 32), (1.0, 1.0, 1.0))
    write_volume(Volume(np.zeros(grid.shape, np.int16), grid), image)
    about = {"image": str(image), "sam": {"model": "vit_t"}, "device": "cpu"}
    request = {**about, "prompts": [{"slice_index": 1, "target": "tumour", "box": [2, 2, 9, 9]}]}
    for task, more in (("refine", {"output": str(tmp_path)}), ("grow", {})):
        with pytest.raises(WeightsError, match=r"not here.*press Download"):
            Engine().tasks[task]({**request, **more}, Monitor())
    assert not list(tmp_path.rglob("*.pt"))
    assert Engine().tasks["download"]({"model": "vit_t"}, Monitor()).files["weights"]
    assert get_weights("vit_b").exists(), "a script or the command line fetches what it needs"
