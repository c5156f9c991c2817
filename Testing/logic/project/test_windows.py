"""A target that a window of intensities hides is named before hours are spent on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aslseg.config import RoiConfig, RunConfig, SamConfig, SpecialistConfig
from aslseg.data.images import read_volume, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import CancelledError
from aslseg.events import Event, Metric, Monitor, Notice
from aslseg.presets import read_preset
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.run_folder import RunFolder
from aslseg.project.windows import Intensities, intensities_of, window_notes
from aslseg.runs import start_run
from aslseg.targets import LIVER_TARGETS, Target
from support.command_line import aslseg
from support.tiny_project import SPECIALIST, a_patient, tiny_config, write_patients
from support.whole_runs import stop_at

GRID = Geometry.axis_aligned((2, 10, 10))
ATRIUM = (Target(name="atrium", value=1),)
CT = RunConfig()


def looks(low: float, middle: float, high: float, image: tuple[float, float]) -> Intensities:
    return Intensities("p1", "atrium", low, middle, high, image)


def test_intensities_are_percentiles_of_the_region_of_each_target() -> None:
    voxels, labels = np.zeros(GRID.shape, np.int16), np.zeros(GRID.shape, np.uint8)
    labels[0], labels[0, 5] = 1, 2
    voxels[0] = np.arange(100).reshape(10, 10) + 300
    liver, tumour = intensities_of(
        "p1", Volume(voxels, GRID), Labelmap(labels, GRID), LIVER_TARGETS
    )
    assert (liver.low, liver.middle, liver.high) == pytest.approx((304.95, 349.5, 394.05))
    assert (tumour.low, tumour.high) == pytest.approx((350.45, 358.55))
    assert liver.image == pytest.approx((0.0, 397.01))
    nothing = Labelmap(np.zeros(GRID.shape, np.uint8), GRID)
    assert intensities_of("p1", Volume(voxels, GRID), nothing, LIVER_TARGETS) == []


def test_a_liver_in_ct_is_shown_and_nothing_is_said() -> None:
    volume, labels = a_patient(0)
    measured = intensities_of("p1", volume, labels, LIVER_TARGETS)
    assert len(measured) == 2
    assert window_notes(measured, LIVER_TARGETS, CT) == []


def test_mri_in_the_window_of_ct_is_named_with_numbers_and_the_remedy() -> None:
    found = window_notes([looks(400.0, 520.0, 650.0, (0.0, 900.0))], ATRIUM, CT)
    assert found == [
        "organ.roi.window_hu shows intensities from -100 to 250; those of atrium in p1 are 400 to "
        "650, and would look like their surroundings. Train with "
        "--set organ.roi.window_hu=[150,900].",
        "sam.window_hu shows intensities from -50 to 200; those of atrium in p1 are 400 to 650, "
        "and would look like their surroundings. Train with --set sam.window_hu=[150,900].",
    ]


@pytest.mark.parametrize(
    ("measured", "lost"),
    [
        pytest.param(looks(0.2, 0.5, 0.8, (0.0, 1.0)), ["0.18", "0.18"], id="0 to 1"),
        pytest.param(looks(900.0, 1500.0, 2100.0, (0.0, 4000.0)), ["360"], id="0 to 4000"),
        pytest.param(looks(80.0, 110.0, 140.0, (-1000.0, 900.0)), [], id="HU"),
        pytest.param(looks(80.0, 110.0, 140.0, (-40.0, 160.0)), [], id="HU that were cut off"),
        pytest.param(looks(100.0, 150.0, 200.0, (0.0, 255.0)), [], id="8 bits"),
    ],
)
def test_units_of_ct_that_lose_other_images_are_named_with_the_remedy(
    measured: Intensities, lost: list[str]
) -> None:
    config = read_preset("quick")
    notes = window_notes([replace(measured, target="liver")], LIVER_TARGETS, config)
    units = [note for note in notes if "which is of no use" in note]
    settings = ["organ.roi.likelihood_sd_hu", "lesion.roi.least_scale_hu"]
    wanted = [f"--set {name}={value}." for name, value in zip(settings, lost, strict=False)]
    assert [note.partition("Train with ")[2] for note in units] == wanted


@pytest.mark.parametrize(
    ("measured", "number"),
    [
        pytest.param(looks(240.0, 249.0, 400.0, (-1000.0, 900.0)), 1, id="SAM's alone"),
        pytest.param(looks(0.2, 0.5, 0.8, (0.0, 1.0)), 2, id="no contrast is left"),
        pytest.param(looks(-900.0, -800.0, -700.0, (-1000.0, 900.0)), 2, id="below"),
        pytest.param(looks(-40.0, 100.0, 400.0, (-1000.0, 900.0)), 0, id="half of it is seen"),
    ],
)
def test_what_counts_as_hidden(measured: Intensities, number: int) -> None:
    assert len(window_notes([measured], ATRIUM, CT)) == number


def test_contents_and_a_loop_without_sam_are_not_shown_through_a_window() -> None:
    lesion = Intensities("p1", "tumour", 400.0, 500.0, 600.0, (0.0, 900.0))
    no_sam = RunConfig(sam=SamConfig(model="none"))
    assert window_notes([lesion], LIVER_TARGETS, no_sam) == []
    assert len(window_notes([lesion], LIVER_TARGETS, CT)) == 1


def test_many_cases_are_counted() -> None:
    many = [Intensities(f"p{n}", "atrium", 400.0, 500.0, 600.0, (0.0, 900.0)) for n in range(1, 6)]
    assert "in p1, p2, p3 and 2 more are" in window_notes(many, ATRIUM, CT)[0]


@given(st.lists(st.floats(-1e5, 1e5), min_size=5, max_size=5), st.floats(1e-3, 1e4))
def test_with_the_window_that_is_proposed_nothing_is_hidden(
    values: list[float], scale: float
) -> None:
    first, low, middle, high, last = np.sort(np.asarray(values)) / scale
    measured = looks(low, middle, high, (first, last))
    for note in window_notes([measured], ATRIUM, CT)[:1]:
        window = json.loads(note.rsplit("=", 1)[1].rstrip("."))
        roi = RoiConfig(window_hu=window)
        config = RunConfig(
            organ=SpecialistConfig(roi=roi), sam=SamConfig(model="vit_t", window_hu=window)
        )
        if last - first > 1e-3 * max(1.0, abs(first), abs(last)):
            assert window_notes([measured], ATRIUM, config) == []


# --- Who says it --------------------------------------------------------------------------------


def mri_patients(folder: Path) -> list[CaseFiles]:
    """The tiny patients with ten times their intensities, and a thousand on top."""
    cases = write_patients(folder)[:3]
    for case in cases:
        ct = read_volume(case.image)
        write_volume(Volume(10 * ct.voxels + 1000, ct.geometry), case.image)
    return cases


def test_init_says_it_on_the_command_line(tmp_path: Path) -> None:
    for case in mri_patients(tmp_path / "both"):
        for path, folder in ((case.image, "ct"), (case.label, "seg")):
            if path is not None:
                (tmp_path / folder).mkdir(exist_ok=True)
                path.rename(tmp_path / folder / f"{case.id}.nii.gz")
    words = ["init", tmp_path / "p", tmp_path / "ct", "--labels", tmp_path / "seg"]
    done = aslseg(*words)
    assert done.exit_code == 0, done.output
    assert "Note: organ.roi.window_hu shows intensities from -100 to 200; those of" in done.output
    assert "Note: sam.window_hu shows" in done.output


def test_nothing_is_said_about_ct(tmp_path: Path) -> None:
    told: list[Event] = []
    create_project(tmp_path / "p", write_patients(tmp_path), monitor=Monitor(told.append))
    assert not any(isinstance(event, Notice) and "window" in event.message for event in told)


def test_a_run_says_it_before_it_learns_and_keeps_it_in_its_events(tmp_path: Path) -> None:
    project = create_project(tmp_path / "p", mri_patients(tmp_path))
    stop = stop_at(lambda event: isinstance(event, Metric))
    with pytest.raises(CancelledError):
        start_run(project, tiny_config(method="specialist"), stop, run_id="a")
    events = (RunFolder(project.folder / "runs" / "a").path / "events.jsonl").read_text(
        encoding="utf-8"
    )
    kinds = [json.loads(line) for line in events.splitlines()]
    position = next(n for n, e in enumerate(kinds) if "window_hu shows" in str(e.get("message")))
    assert kinds[position]["event"] == "warning"
    assert position < next(n for n, e in enumerate(kinds) if e["event"] == "metric")

    seen = SPECIALIST.model_copy(
        update={"roi": SPECIALIST.roi.model_copy(update={"window_hu": (0.0, 2500.0)})}
    )
    stop = stop_at(lambda event: isinstance(event, Metric))
    with pytest.raises(CancelledError):
        start_run(project, tiny_config(method="specialist", organ=seen), stop, run_id="b")
    events = (RunFolder(project.folder / "runs" / "b").path / "events.jsonl").read_text(
        encoding="utf-8"
    )
    assert "window_hu shows" not in events
