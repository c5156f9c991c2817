"""Predictions on disk: what is read is what was made, and anything else is made anew."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aslseg.batch import FolderOptions, segment_folder
from aslseg.config import SamConfig
from aslseg.data.images import read_labelmap, read_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.events import Monitor
from aslseg.inference import prediction_cache
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.interactive.predictions import SessionPrediction
from aslseg.inference.interactive.session import Session, models_of_ensemble
from aslseg.inference.prediction_cache import (
    Arrays,
    LabelMaps,
    PredictionCache,
    open_predictions,
    unchanged,
)
from aslseg.project.create import create_project
from aslseg.project.datasets import cases_from_folder
from aslseg.project.run_folder import RunFolder
from aslseg.prompts import BoxPrompt, SlicePrompts
from aslseg.storage import write_json_atomic
from support.tiny_project import SPECIALIST, tiny_config, write_patients
from support.whole_runs import ensemble_with_small_sam, run_with_small_sam

GEOMETRY = Geometry.axis_aligned((4, 6, 6), (2.0, 1.0, 1.0))
VOLUME = Volume(np.arange(144, dtype=np.int16).reshape(4, 6, 6), GEOMETRY)


# -- the key -------------------------------------------------------------------------------------


@pytest.fixture
def untrained(tmp_path: Path) -> RunFolder:
    """A run whose weights are any bytes."""
    write_patients(tmp_path / "data")
    project = create_project(tmp_path / "project", cases_from_folder(tmp_path / "data"))
    run = RunFolder(project.folder / "runs" / "first")
    (tmp_path / "sam.pt").write_bytes(b"released")
    change_config(run, sam={"checkpoint": str(tmp_path / "sam.pt")}, device="cpu")
    (run.round(1)).mkdir()
    (run.round(1) / "specialist-liver.safetensors").write_bytes(b"weights")
    run.write_status(state="done", best_round=1, orientation="LPS")
    return run


def change_config(run: RunFolder, **changes: Any) -> None:
    path = run.path / "config.json"
    before = json.loads(path.read_text()) if path.exists() else {"sam": {}}
    sam = {**before["sam"], **changes.pop("sam", {})}
    write_json_atomic(path, {**before, **changes, "sam": sam})


def key_of(run: RunFolder, volume: Volume = VOLUME) -> str:
    opened = open_predictions(RunFolder(run.path))
    assert opened is not None
    stored = opened.of(volume)
    assert stored is not None
    return stored.folder.name


def other_weights(run: RunFolder) -> None:
    (run.round(1) / "specialist-liver.safetensors").write_bytes(b"Weights")


def other_released_weights(run: RunFolder) -> None:
    Path(run.config.sam.checkpoint or "").write_bytes(b"Released")


def other_targets(run: RunFolder) -> None:
    path = run.path.parents[1] / "project.json"
    facts = json.loads(path.read_text())
    facts["targets"][1]["value"] = 7
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "change",
    [
        other_weights,
        other_released_weights,
        other_targets,
        pytest.param(lambda run: change_config(run, min_component_ml=0.3), id="setting"),
        pytest.param(lambda run: change_config(run, sam={"precision": "float32"}), id="precision"),
        pytest.param(
            lambda run: change_config(run, sam={"prompts": {"box_margin_px": 3.0}}), id="prompts"
        ),
        pytest.param(lambda run: run.write_status(given_targets=["liver"]), id="given"),
    ],
)
def test_another_run_has_other_predictions(
    untrained: RunFolder, change: Callable[[RunFolder], None]
) -> None:
    before = key_of(untrained)
    change(untrained)
    assert key_of(untrained) != before


@pytest.mark.parametrize(
    "volume",
    [
        pytest.param(Volume(VOLUME.voxels + np.int16(1), GEOMETRY), id="voxels"),
        pytest.param(Volume(VOLUME.voxels.astype(np.int32), GEOMETRY), id="type"),
        pytest.param(
            Volume(VOLUME.voxels, Geometry.axis_aligned((4, 6, 6), (2.0, 1.0, 1.1))), id="spacing"
        ),
        pytest.param(replace(VOLUME, given={"liver": VOLUME.voxels > 9}), id="mask"),
    ],
)
def test_another_volume_has_other_predictions(untrained: RunFolder, volume: Volume) -> None:
    assert key_of(untrained, volume) != key_of(untrained)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_CODE", {"aslseg": "1.0"}),
        ("_computer", lambda: ["another"]),
        ("_device", lambda _: "cuda"),
    ],
)
def test_another_program_or_computer_has_other_predictions(
    untrained: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    before = key_of(untrained)
    monkeypatch.setattr(prediction_cache, name, value)
    assert key_of(untrained) != before


def test_what_does_not_matter_changes_nothing(untrained: RunFolder) -> None:
    before = key_of(untrained)
    change_config(untrained, sam={"cache_gb": 1.0})
    untrained.write_status(seconds_left=1.0)
    assert key_of(untrained, Volume(VOLUME.voxels.copy(), GEOMETRY)) == before


def test_nothing_is_kept_of_a_run_whose_sam_has_to_be_downloaded(untrained: RunFolder) -> None:
    change_config(untrained, sam={"checkpoint": str(untrained.path / "absent.pt")})
    assert open_predictions(untrained) is None


def test_nothing_is_kept_where_weights_changed_while_they_were_loaded(
    untrained: RunFolder,
) -> None:
    before = open_predictions(untrained)
    assert unchanged(before, untrained, None) is before
    other_weights(untrained)
    assert unchanged(before, untrained, None) is None


def test_a_torch_built_for_the_processor_alone_is_not_imported_to_ask_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.setattr(
        prediction_cache, "find_spec", lambda _: FoundAt(str(tmp_path / "torch" / "__init__.py"))
    )
    monkeypatch.setattr(prediction_cache.sys, "platform", "linux")
    for said, alone in (("None", True), ("'12.8'", False)):
        (tmp_path / "torch" / "version.py").write_text(f"cuda = {said}\nhip = None\n")
        assert prediction_cache._is_without_gpu() is alone


class FoundAt:
    def __init__(self, origin: str) -> None:
        self.origin = origin


# -- the files -----------------------------------------------------------------------------------


def arrays_of(arrays: Arrays) -> Arrays:
    return arrays


def a_cache(folder: Path, limit_gb: float = 1.0, **facts: Any) -> PredictionCache:
    return PredictionCache(folder, limit_gb, facts)


def test_a_bound_makes_the_longest_unused_go(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, 10_000).astype(np.uint8)
    for n in range(3):
        stored = a_cache(tmp_path, limit_gb=25_000 / 1e9, run=n).of(VOLUME)
        assert stored is not None
        stored.write("labels", {"noise": noise})
        del stored
        gc.collect()
    left = [a_cache(tmp_path, run=n).of(VOLUME) for n in range(3)]
    assert [one is not None and one.read("labels", arrays_of) is not None for one in left] == [
        False, True, True,
    ]  # fmt: skip


def test_a_file_of_more_than_a_prediction_is_not_unpacked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = a_cache(tmp_path).of(VOLUME)
    assert stored is not None
    stored.write("labels", {"zeros": np.zeros(20 << 20, np.uint8)})
    assert stored.read("labels", arrays_of) is None
    assert "more than a prediction" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: whole[: len(whole) // 2], id="cut"),
        pytest.param(lambda whole: whole[:99] + bytes([whole[99] ^ 1]) + whole[100:], id="bit"),
        pytest.param(lambda _: b"", id="empty"),
    ],
)
def test_damaged_label_maps_are_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    stored = a_cache(tmp_path).of(VOLUME)
    assert stored is not None
    found = Labelmap((VOLUME.voxels > 70).astype(np.uint8), GEOMETRY)
    stored.keep_label_maps(LabelMaps(found, None, found))
    read = stored.label_maps(GEOMETRY)
    assert read is not None
    assert read.sam is None
    np.testing.assert_array_equal(read.refined.labels, found.labels)
    (path,) = tmp_path.glob("*/labels.npz")
    path.write_bytes(damage(path.read_bytes()))
    assert stored.label_maps(GEOMETRY) is None
    assert "labels.npz is damaged" in caplog.text


def test_label_maps_of_another_shape_are_none(tmp_path: Path) -> None:
    stored = a_cache(tmp_path).of(VOLUME)
    assert stored is not None
    stored.write(
        "labels", {name: np.zeros((1, 1, 1), np.uint8) for name in ("specialist", "refined")}
    )
    assert stored.label_maps(GEOMETRY) is None


CHILD = """
import sys
from pathlib import Path
import numpy as np
from aslseg.data.volume import Geometry, Volume
from aslseg.inference.prediction_cache import PredictionCache
volume = Volume(np.zeros((2, 2, 2), np.int16), Geometry.axis_aligned((2, 2, 2)))
noise = np.random.default_rng(0).integers(0, 255, 10_000).astype(np.uint8)
print("ready", flush=True)
sys.stdin.readline()
found = 0
for n in range(60):
    stored = PredictionCache(Path(sys.argv[1]), 25_000 / 1e9, {"run": n % 4}).of(volume)
    arrays = stored.read("labels", lambda arrays: arrays)
    if arrays is None:
        stored.write("labels", {"noise": noise + np.uint8(n % 4)})
    else:
        found += 1
        assert (arrays["noise"] == noise + np.uint8(n % 4)).all()
print("done", found, "torch" in sys.modules, flush=True)
"""


def test_two_processes_read_what_either_stored_in_a_cache_too_small_for_all(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=environment,
        )
        for _ in range(2)
    ]  # fmt: skip
    for one in children:
        assert one.stdout is not None
        one.stdout.readline()
    for one in children:
        said, complaints = one.communicate("go\n", timeout=120)
        assert one.returncode == 0, complaints
        assert said.startswith("done")
        assert said.endswith("False\n"), "torch takes seconds"
        assert "damaged" not in complaints
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.npz")) <= 45_000


# -- whole volumes -------------------------------------------------------------------------------

STAGE = SPECIALIST.model_copy(update={"iterations": 1})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("stored")
    (folder / "sam.pt").write_bytes(b"released")
    config = tiny_config(
        rounds=1,
        crossfit_share=0.0,
        organ=SPECIALIST,
        lesion=STAGE,
        sam=SamConfig(
            model="vit_t",
            checkpoint=str(folder / "sam.pt"),
            input_size=112,
            iterations=1,
            batch_size=2,
        ),
        adaptation=tiny_config().adaptation.model_copy(update={"iterations": 1, "versions": 1}),
    )
    return run_with_small_sam(folder / "run", config)


@pytest.fixture
def no_predictions(run: RunFolder) -> Iterator[Path]:
    """The folder of the cache, in which there is no prediction yet."""
    folder = run.path.parents[1] / "cache" / "embeddings"
    for path in folder.glob("*/*.npz"):
        path.unlink()
    return folder


def image_of(run: RunFolder) -> Path:
    return run.path.parents[2] / "data" / "ct6.nii.gz"


def small(run: RunFolder, _monitor: Monitor, _device: str | None) -> Ensemble:
    return ensemble_with_small_sam(run)


def refused(*_: Any) -> Ensemble:
    msg = "networks were loaded"
    raise AssertionError(msg)


def label_maps(folder: Path) -> dict[str, bytes]:
    return {path.name: read_labelmap(path).labels.tobytes() for path in folder.glob("*.nii.gz")}


def test_a_volume_segmented_again_needs_no_networks(
    run: RunFolder, no_predictions: Path, tmp_path: Path
) -> None:
    both = FolderOptions(predictions=True)
    segment_folder(run, image_of(run), tmp_path / "a", both, load=small)
    assert len(list(no_predictions.glob("*/labels.npz"))) == 1
    segment_folder(run, image_of(run), tmp_path / "b", both, load=refused)
    found = label_maps(tmp_path / "a")
    assert label_maps(tmp_path / "b") == found
    assert len(found) == 3
    assert any(found["ct6.nii.gz"]), "nothing was segmented"


@pytest.mark.skipif(
    torch.version.cuda is not None, reason="where torch has CUDA it is asked for a card"
)
def test_the_command_line_segments_again_without_torch(
    run: RunFolder, no_predictions: Path, tmp_path: Path
) -> None:
    assert no_predictions.is_dir()
    segment_folder(run, image_of(run), tmp_path / "a", load=small)
    words = ["segment", str(run.path), str(image_of(run)), "-o", str(tmp_path / "b")]
    script = f"""
import sys
from aslseg.cli.main import app
app({words!r}, standalone_mode=False)
print([name for name in ("torch", "monai", "segment_anything") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert label_maps(tmp_path / "b") == label_maps(tmp_path / "a")


def test_a_damaged_prediction_is_made_again(
    run: RunFolder, no_predictions: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segment_folder(run, image_of(run), tmp_path / "a", load=small)
    (path,) = no_predictions.glob("*/labels.npz")
    path.write_bytes(path.read_bytes()[:-20])
    segment_folder(run, image_of(run), tmp_path / "b", load=small)
    assert "labels.npz is damaged, and its prediction is made again" in caplog.text
    segment_folder(run, image_of(run), tmp_path / "c", load=refused)
    assert label_maps(tmp_path / "a") == label_maps(tmp_path / "b") == label_maps(tmp_path / "c")


class Unasked:
    """A specialist, or SAM's proposals, that must not be asked."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def open_session(run: RunFolder, cache: Path, *, stored: bool) -> Session:
    ensemble = ensemble_with_small_sam(run)
    if stored:
        ensemble = replace(ensemble, specialist=Unasked(), lesion_stage=Unasked())
    predictions = open_predictions(run)
    assert predictions is not None
    return Session(read_volume(image_of(run)), models_of_ensemble(ensemble, cache, predictions))


def same(a: SessionPrediction, b: SessionPrediction) -> None:
    for name in ("specialist", "sam", "refined"):
        first, second = getattr(a, name), getattr(b, name)
        assert (first is None) == (second is None), name
        if first is not None:
            np.testing.assert_array_equal(first.labels, second.labels, name)
    np.testing.assert_array_equal(a.disagreement, b.disagreement)
    assert [p.to_json() for p in a.prompts] == [p.to_json() for p in b.prompts]
    for one, other in zip(a.prompts, b.prompts, strict=True):
        assert one.crop == other.crop
        assert (one.mask_logits is None) == (other.mask_logits is None)
        if one.mask_logits is not None:
            np.testing.assert_array_equal(one.mask_logits, other.mask_logits)


def test_a_session_from_disk_goes_on_as_the_one_that_predicted(
    run: RunFolder, no_predictions: Path, tmp_path: Path
) -> None:
    made = open_session(run, no_predictions, stored=False)
    same_now = made.predict()
    assert same_now.prompts, "SAM had nothing to do"
    read = open_session(run, no_predictions, stored=True)
    same(read.predict(), same_now)
    box = SlicePrompts(5, "liver", box=BoxPrompt((8.0, 8.0, 28.0, 30.0)))
    same(read.refine([box], 5), made.refine([box], 5))
    same(read.refine([box]), made.refine([box]))
    inside = SlicePrompts(6, "tumour", box=BoxPrompt((10.0, 18.0, 16.0, 24.0)))
    same(read.refine([box, inside], 6), made.refine([box, inside], 6))
    both = FolderOptions(predictions=True)
    segment_folder(run, image_of(run), tmp_path / "read", both, load=refused)
    for path in no_predictions.glob("*/*.npz"):
        path.unlink()
    segment_folder(run, image_of(run), tmp_path / "made", both, load=small)
    assert same_now.refined is not None
    assert label_maps(tmp_path / "made")["ct6.nii.gz"] == same_now.refined.labels.tobytes()
    assert label_maps(tmp_path / "read") == label_maps(tmp_path / "made")


def test_a_damaged_session_is_predicted_again(
    run: RunFolder, no_predictions: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = open_session(run, no_predictions, stored=False).predict()
    (path,) = no_predictions.glob("*/session.npz")
    path.write_bytes(path.read_bytes()[:-40])
    same(open_session(run, no_predictions, stored=False).predict(), made)
    assert "session.npz is damaged" in caplog.text
    same(open_session(run, no_predictions, stored=True).predict(), made)


def test_the_log_says_how_often_a_prediction_was_on_disk(
    run: RunFolder, no_predictions: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert no_predictions.is_dir()
    with caplog.at_level(logging.INFO):
        segment_folder(run, image_of(run), tmp_path / "a", load=small)
        segment_folder(run, image_of(run), tmp_path / "b", load=refused)
    assert "The prediction of a volume was not on disk; 0 % of all so far." in caplog.text
    assert "The prediction of a volume was on disk; 100 % of all so far." in caplog.text
