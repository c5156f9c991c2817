"""Folders of new volumes are segmented, gone on with, and told about."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from aslseg import batch
from aslseg.batch import FolderOptions, segment_folder
from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import CancelledError, ImageError, RunError, StorageError
from aslseg.events import CancelToken, Event, Monitor, Notice, Progress
from aslseg.export.origin import FilesThereError, read_origin, write_origin
from aslseg.inference.ensemble import Segmentation
from aslseg.project.create import create_project
from aslseg.project.datasets import cases_from_folder
from aslseg.project.label_origin import ai_label_problem
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder
from aslseg.project.unlike_labelled import write_intensities
from aslseg.project.windows import Intensities
from aslseg.storage import sha256_of, write_json_atomic

GEOMETRY = Geometry.axis_aligned((4, 6, 6), (2.0, 1.0, 1.0))


@dataclass
class Bright:
    """Segments what is above 50 HU as liver, above 150 HU as tumour; counts what it saw."""

    seen: list[float] = field(default_factory=list)

    def segment(self, volume: Volume, monitor: Monitor) -> Segmentation:
        for _ in monitor.track(["a part"], "A part"):
            self.seen.append(float(volume.voxels.max()))
        labels = (volume.voxels > 50).astype(np.uint8) + (volume.voxels > 150)
        found = Labelmap(labels.astype(np.uint8), volume.geometry)
        return Segmentation(found, None, found, (), {})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    write_ct(tmp_path / "data" / "a.nii.gz", 1)
    project = create_project(tmp_path / "project", cases_from_folder(tmp_path / "data"))
    run = RunFolder(project.folder / "runs" / "first")
    write_json_atomic(run.path / "config.json", {})
    (run.round(1)).mkdir()
    (run.round(1) / "specialist-liver.safetensors").write_bytes(b"weights")
    run.write_status(state="done", best_round=1)
    return run


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> Bright:
    found = Bright()
    monkeypatch.setattr("aslseg.inference.loading.load_ensemble", lambda *_: found)
    return found


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """A folder of three volumes and a label map; in the one of n tumours are n voxels."""
    for number in (1, 2, 3):
        write_ct(tmp_path / "ct" / f"p{number}.nii.gz", number)
    write_labelmap(
        Labelmap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY), tmp_path / "ct" / "p1-label.nii.gz"
    )
    return tmp_path / "ct"


def write_ct(path: Path, tumour: int) -> None:
    voxels = np.zeros(GEOMETRY.shape, np.int16)
    voxels[1:3, 1:5, 1:5] = 100
    voxels[1, 2, 1 : 1 + tumour] = 200 + tumour
    write_volume(Volume(voxels, GEOMETRY), path)


def test_a_volume_unlike_the_labelled_cases_is_told(
    run: RunFolder, ct: Path, bright: Bright, tmp_path: Path
) -> None:
    liver = Intensities("a", "liver", 180.0, 200.0, 220.0, (0.0, 250.0))
    write_intensities(run.path, [liver])
    received: list[Event] = []
    segment_folder(run, ct, tmp_path / "out", monitor=Monitor(received.append))
    told = [event.message for event in received if isinstance(event, Notice)]
    assert [one for one in told if one.startswith("Unlike")] == [
        f"Unlike the labelled cases: {name}: its liver is darker (median 100) than in the labelled "
        "cases (90 % of voxels from 180 to 220). A label is more likely wrong there, also where "
        "networks agree: look at it first, or label such a case and train on."
        for name in ("p1", "p2", "p3")
    ]


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def test_each_volume_gets_a_label_map_and_its_measurements(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    done = segment_folder(run, ct, tmp_path / "out")
    assert (done.done, done.skipped, dict(done.failed)) == (("p1", "p2", "p3"), (), {})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cases.csv", "lesions.csv", "origin.json", "p1.nii.gz", "p2.nii.gz", "p3.nii.gz",
    ]  # fmt: skip
    cases, lesions = table(tmp_path / "out" / "cases.csv"), table(tmp_path / "out" / "lesions.csv")
    assert cases["p2"]["liver_ml"] == "0.06"  # 32 voxels of 2 cubic mm
    assert cases["p2"]["tumour_percent_of_liver"] == "6.25"
    assert (cases["p2"]["state"], cases["p2"]["run"], cases["p2"]["round"]) == (
        "segmented", "first", "1",
    )  # fmt: skip
    assert {name: row["mean_hu"] for name, row in lesions.items()} == {
        "p1": "201.0", "p2": "202.0", "p3": "203.0",
    }  # fmt: skip
    origin = read_origin(tmp_path / "out")
    assert origin is not None
    assert origin.cases["p1"].image_sha256 == sha256_of(ct / "p1.nii.gz")
    assert list(origin.runs["first"].weights) == ["1"]


def test_what_is_done_is_not_done_again(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    segment_folder(run, ct, tmp_path / "out")
    bright.seen.clear()
    write_ct(ct / "p2.nii.gz", 4)  # another image of that name
    write_ct(ct / "p4.nii.gz", 5)  # a new one
    done = segment_folder(run, ct, tmp_path / "out")
    assert (done.done, done.skipped) == (("p2", "p4"), ("p1", "p3"))
    assert bright.seen == [204.0, 205.0]
    assert (read_labelmap(tmp_path / "out" / "p2.nii.gz").labels == 2).sum() == 4
    cases = table(tmp_path / "out" / "cases.csv")
    assert cases["p1"]["tumour_percent_of_liver"] == "3.12"
    assert cases["p2"]["tumour_percent_of_liver"] == "12.50"


def test_other_voxels_beside_a_header_are_another_image(
    run: RunFolder, bright: Bright, tmp_path: Path
) -> None:
    path = tmp_path / "ct" / "p1.mhd"
    path.parent.mkdir()
    for value in (100, 200):
        voxels = np.full(GEOMETRY.shape, value, np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
        assert segment_folder(run, path, tmp_path / "out").done == ("p1",)
    assert segment_folder(run, path, tmp_path / "out").skipped == ("p1",)


def test_other_weights_do_all_again(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    segment_folder(run, ct, tmp_path / "out")
    (run.round(1) / "specialist-liver.safetensors").write_bytes(b"others")
    assert len(segment_folder(run, ct, tmp_path / "out").done) == 3


def finish_round_2(run: RunFolder) -> None:
    run.round(2).mkdir()
    (run.round(2) / "specialist-liver.safetensors").write_bytes(b"later weights")
    run.write_status(best_round=2)


def test_a_round_that_ends_meanwhile_is_not_said_to_have_segmented(
    run: RunFolder, ct: Path, tmp_path: Path
) -> None:
    class Meanwhile(Bright):
        def segment(self, volume: Volume, monitor: Monitor) -> Segmentation:
            if not self.seen:
                finish_round_2(run)
            return super().segment(volume, monitor)

    out, networks = tmp_path / "out", Meanwhile()
    segment_folder(run, ct, out, load=lambda *_: networks)
    rounds = [row["round"] for row in table(out / "cases.csv").values()]
    origin = read_origin(out)
    assert origin is not None
    assert rounds == ["1", "1", "1"]
    assert {case.round for case in origin.cases.values()} == {1}
    again = segment_folder(run, ct, out, load=lambda *_: Bright())
    assert (len(again.done), again.skipped) == (3, ())


def test_networks_of_a_round_that_ended_before_they_were_loaded_segment_nothing(
    run: RunFolder, ct: Path, tmp_path: Path
) -> None:
    def load(*_: object) -> Bright:
        finish_round_2(run)
        return Bright()

    with pytest.raises(RunError, match="'first' has finished another round meanwhile"):
        segment_folder(run, ct, tmp_path / "out", load=load)


def test_what_another_program_writes_to_the_folder_meanwhile_is_not_lost(
    run: RunFolder, ct: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_ct(tmp_path / "others" / "q1.nii.gz", 1)

    class Meanwhile(Bright):
        def segment(self, volume: Volume, monitor: Monitor) -> Segmentation:
            segment_folder(run, tmp_path / "others", out, load=lambda *_: Bright())
            return super().segment(volume, monitor)

    with pytest.raises(StorageError, match=r"Another program has written to .*out meanwhile"):
        segment_folder(run, ct, out, load=lambda *_: Meanwhile())
    assert set(table(out / "cases.csv")) == {"q1"}
    assert not (out / "p1.nii.gz").exists()
    assert segment_folder(run, ct, out, load=lambda *_: Bright()).done == ("p1", "p2", "p3")
    assert set(table(out / "cases.csv")) == {"p1", "p2", "p3", "q1"}


def test_files_that_are_named_as_label_maps_are_told_to_be_left_out(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    received: list[Event] = []
    segment_folder(run, ct, tmp_path / "out", monitor=Monitor(received.append))
    told = [event.message for event in received if isinstance(event, Notice)]
    assert told == [
        "Left out, for it is named as a label map: p1-label.nii.gz. Give the file itself to "
        "segment it."
    ]


def test_folders_whose_images_lie_too_deep_are_told_to_be_passed_over(
    run: RunFolder, bright: Bright, ct: Path
) -> None:
    write_ct(ct / "p9" / "ct.nii.gz", 1)
    (ct / "p4" / "CT" / "IM").mkdir(parents=True)
    (ct / "p4" / "CT" / "IM" / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (ct / "p1-label.nii.gz").unlink()
    for expected in ((), ("p1", "p2", "p3")):
        received: list[Event] = []
        made = segment_folder(run, ct, ct / "out", monitor=Monitor(received.append))
        assert made.skipped == expected
        (told,) = [event.message for event in received if isinstance(event, Notice)]
        assert f"passed over: {ct / 'p4' / 'CT'}, {ct / 'p9'}. Give each" in told
    (ct.parent / "deep").mkdir()
    shutil.move(ct / "p9", ct.parent / "deep")
    with pytest.raises(ImageError, match=r"deep holds no image\. .* passed over: .*p9\. Give"):
        segment_folder(run, ct.parent / "deep", ct / "out")


def test_a_given_organ_mask_belongs_to_what_was_done(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    whole = Labelmap(np.ones(GEOMETRY.shape, np.uint8), GEOMETRY)
    write_labelmap(whole, masks / "p2.nii.gz")
    segment_folder(run, ct, tmp_path / "out")
    options = FolderOptions(organs={"liver": masks})
    assert segment_folder(run, ct, tmp_path / "out", options).done == ("p2",)
    assert segment_folder(run, ct, tmp_path / "out", options).done == ()
    write_labelmap(
        Labelmap(np.eye(6, dtype=np.uint8)[None].repeat(4, axis=0), GEOMETRY), masks / "p2.nii.gz"
    )
    assert segment_folder(run, ct, tmp_path / "out", options).done == ("p2",)


def test_a_bad_volume_does_not_stop_the_others_and_is_tried_again(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    (ct / "p2.nii.gz").write_bytes(b"no image")
    done = segment_folder(run, ct, tmp_path / "out")
    assert done.done == ("p1", "p3")
    assert "p2.nii.gz" in done.failed["p2"]
    row = table(tmp_path / "out" / "cases.csv")["p2"]
    assert row["state"].startswith("failed: ")
    assert row["liver_ml"] == ""
    write_ct(ct / "p2.nii.gz", 2)
    assert segment_folder(run, ct, tmp_path / "out").done == ("p2",)
    assert table(tmp_path / "out" / "cases.csv")["p2"]["state"] == "segmented"


def test_an_error_of_the_networks_is_the_volumes_alone(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bright.segment

    def fails_once(volume: Volume, monitor: Monitor) -> Segmentation:
        if volume.voxels.max() == 202:
            msg = "CUDA error: out of memory"
            raise RuntimeError(msg)
        return before(volume, monitor)

    monkeypatch.setattr(bright, "segment", fails_once)
    done = segment_folder(run, ct, tmp_path / "out")
    assert done.done == ("p1", "p3")
    assert "graphics card ran out of memory" in done.failed["p2"]


def test_a_stopped_folder_is_gone_on_with(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    token = CancelToken()

    def stop_after_one(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "Segmenting volumes" and event.step == 1:
            token.cancel()

    with pytest.raises(CancelledError):
        segment_folder(run, ct, tmp_path / "out", monitor=Monitor(stop_after_one, token))
    assert sorted(table(tmp_path / "out" / "cases.csv")) == ["p1"]
    done = segment_folder(run, ct, tmp_path / "out")
    assert (done.done, done.skipped) == (("p2", "p3"), ("p1",))


def test_a_label_map_that_a_person_changed_is_not_replaced_unasked(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    segment_folder(run, ct, tmp_path / "out")
    mine = Labelmap(np.ones(GEOMETRY.shape, np.uint8), GEOMETRY)
    write_labelmap(mine, tmp_path / "out" / "p1.nii.gz")
    with pytest.raises(FilesThereError, match="p1"):
        segment_folder(run, ct, tmp_path / "out")
    assert (read_labelmap(tmp_path / "out" / "p1.nii.gz").labels == 1).all()
    done = segment_folder(run, ct, tmp_path / "out", FolderOptions(replace=True))
    assert done.done == ("p1",)


def test_a_folder_of_other_label_maps_is_not_added_to_unasked(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    out = tmp_path / "drawn"
    mine = Labelmap(np.ones(GEOMETRY.shape, np.uint8), GEOMETRY)
    write_labelmap(mine, out / "c1.nii.gz")
    with pytest.raises(FilesThereError, match=r"holds c1\.nii\.gz, which this program did not"):
        segment_folder(run, ct, out)
    assert [path.name for path in out.iterdir()] == ["c1.nii.gz"]
    done = segment_folder(run, ct / "p1.nii.gz", out, FolderOptions(replace=True))
    assert done.done == ("p1",)
    assert segment_folder(run, ct / "p2.nii.gz", out).done == ("p2",)  # leave was given
    assert "is an AI label map (run first, round 1)" in ai_label_problem(out / "p2.nii.gz")
    assert ai_label_problem(out / "c1.nii.gz") == ""


@pytest.mark.parametrize("replace", [False, True])
def test_no_image_or_label_map_of_the_project_is_replaced(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path, *, replace: bool
) -> None:
    project, options = open_project(run.path.parents[1]), FolderOptions(replace=replace)
    image = project.image_path(project.cases[0])
    (tmp_path / "new").mkdir()
    shutil.copy(ct / "p1.nii.gz", tmp_path / "new" / image.name)
    before = image.read_bytes()
    with pytest.raises(StorageError, match="is the image of case"):
        segment_folder(run, tmp_path / "new", image.parent, options)
    assert image.read_bytes() == before
    with pytest.raises(StorageError, match="keeps its own files"):
        segment_folder(run, ct, project.folder / "labels", options)


def test_label_maps_of_other_targets_are_not_added_to(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    segment_folder(run, ct / "p1.nii.gz", tmp_path / "out")
    origin = read_origin(tmp_path / "out")
    assert origin is not None
    others = tuple(one.model_copy(update={"value": 3 - one.value}) for one in origin.targets)
    write_origin(tmp_path / "out", origin.model_copy(update={"targets": others}))
    with pytest.raises(StorageError, match=r"other targets \(liver=2, tumour=1:liver\)"):
        segment_folder(run, ct / "p2.nii.gz", tmp_path / "out")
    assert not (tmp_path / "out" / "p2.nii.gz").exists()


def test_volumes_that_lose_their_rows_are_told(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    segment_folder(run, ct, tmp_path / "out")
    (tmp_path / "out" / "cases.csv").write_text("mine", encoding="utf-8")
    received: list[Event] = []
    images, options = [ct / "p1.nii.gz"], FolderOptions(replace=True)
    segment_folder(run, images, tmp_path / "out", options, monitor=Monitor(received.append))
    assert sorted(table(tmp_path / "out" / "cases.csv")) == ["p1"]
    assert [event.message for event in received if isinstance(event, Notice)] == [
        "cases.csv and lesions.csv were changed or lost, and have no rows of earlier volumes now: "
        "p2, p3. Give these again to measure them; their label maps stay."
    ]
    segment_folder(run, ct, tmp_path / "out", monitor=Monitor(received.append))
    assert sorted(table(tmp_path / "out" / "cases.csv")) == ["p1", "p2", "p3"]


def test_tables_that_are_lost_are_made_again(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    segment_folder(run, ct, tmp_path / "out")
    (tmp_path / "out" / "cases.csv").unlink()
    assert segment_folder(run, ct, tmp_path / "out").skipped == ("p1", "p2", "p3")
    assert table(tmp_path / "out" / "cases.csv")["p3"]["liver_ml"] == "0.06"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param("twin", "have the same name", id="one name twice"),
        pytest.param("case", "have the same name", id="names that differ in case"),
        pytest.param("none", "holds no image", id="an empty folder"),
        pytest.param("same", "lies where label maps shall go", id="the folder of the images"),
        pytest.param("lost", "does not exist", id="no folder"),
    ],
)
def test_folders_that_cannot_be_used_are_told_before_any_work(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path, spoil: str, words: str
) -> None:
    images, output = ct, tmp_path / "out"
    if spoil == "twin":
        shutil.copy(ct / "p1.nii.gz", ct / "p1.nii")
    if spoil == "case":
        shutil.copy(ct / "p1.nii.gz", ct / "P1.nii")
    if spoil == "none":
        images = tmp_path / "empty"
        images.mkdir()
    if spoil == "same":
        output = ct
    if spoil == "lost":
        images = tmp_path / "lost"
    with pytest.raises(ImageError, match=words):
        segment_folder(run, images, output)
    assert bright.seen == []


def test_volumes_whose_label_maps_would_share_a_file_are_refused(
    run: RunFolder, bright: Bright, ct: Path, tmp_path: Path
) -> None:
    shutil.move(ct / "p2.nii.gz", ct / "p1.specialist.nii.gz")
    words = r"p1 and p1\.specialist would both be written to p1\.specialist\.nii\.gz; rename one"
    with pytest.raises(StorageError, match=words):
        segment_folder(run, ct, tmp_path / "out", FolderOptions(predictions=True))
    assert bright.seen == []
    segment_folder(run, ct, tmp_path / "out")
    shutil.move(ct / "p1.nii.gz", tmp_path / "p1.nii.gz")
    only_p1 = [tmp_path / "p1.nii.gz"]
    with pytest.raises(StorageError, match=r"p1\.specialist and p1 would both be written to"):
        segment_folder(run, only_p1, tmp_path / "out", FolderOptions(predictions=True))


def test_the_time_left_is_that_of_the_voxels_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0]
    monkeypatch.setattr(batch.time, "monotonic", lambda: seconds[0])
    told: list[Progress] = []
    progress = batch._FolderProgress(
        Monitor(lambda event: told.append(event)),  # type: ignore[arg-type]
        [100, 300, 600],
    )
    assert (told[-1].step, told[-1].of, told[-1].seconds_left) == (0, 3, None)
    seconds[0] = 10.0
    progress.next()
    assert (told[-1].step, told[-1].seconds_left) == (1, pytest.approx(90.0))
    seconds[0] = 20.0
    progress.monitor.listener(Progress("a part of it", 1, 2))
    assert (told[-1].task, told[-1].seconds_left) == ("Segmenting volumes", pytest.approx(80.0))
    seconds[0] = 70.0  # slower than thought: the rest is not less than what follows
    progress.monitor.listener(Progress("a part of it", 2, 2))
    assert told[-1].seconds_left == pytest.approx(60.0)
