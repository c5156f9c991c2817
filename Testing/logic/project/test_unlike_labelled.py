"""Organs that look like those of no labelled case are told, with numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import RunError
from aslseg.project.unlike_labelled import (
    FILE_NAME,
    organ_intensities,
    read_intensities,
    unlike_labelled,
    unlike_note,
    write_intensities,
)
from aslseg.project.windows import Intensities
from aslseg.targets import LIVER_TARGETS

GEOMETRY = Geometry.axis_aligned((4, 8, 8))


def a_case(hu: float, tumour_hu: float = 20.0) -> tuple[Volume, Labelmap]:
    """Return a liver of so many HU in the middle, with noise of 10 HU, and a small tumour."""
    voxels = np.full(GEOMETRY.shape, -50.0)
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[1:3, 2:7, 2:7] = 1
    labels[1, 3, 3:5] = 2
    noise = np.random.default_rng(0).normal(0, 10, GEOMETRY.shape)
    voxels[labels == 1] = hu
    voxels[labels == 2] = tumour_hu
    return Volume(voxels + noise, GEOMETRY), Labelmap(labels, GEOMETRY)


def known(*livers_hu: float) -> list[Intensities]:
    return [
        one
        for n, hu in enumerate(livers_hu)
        for one in organ_intensities(f"c{n}", *a_case(hu), LIVER_TARGETS)
    ]


@pytest.mark.parametrize(
    ("hu", "said"), [(30, "darker"), (95, ""), (110, ""), (122, ""), (160, "brighter")]
)
def test_an_organ_outside_of_what_labelled_cases_show_is_told(hu: float, said: str) -> None:
    notes = unlike_labelled(*a_case(hu), LIVER_TARGETS, known(100, 115))
    assert len(notes) == bool(said)
    if said:
        darkest, brightest = known(100, 115)
        (found,) = known(hu)
        assert notes[0] == (
            f"its liver is {said} (median {found.middle:.0f}) than in the labelled cases "
            f"(90 % of voxels from {darkest.low:.0f} to {brightest.high:.0f})"
        )


def test_what_lies_in_an_organ_is_not_compared() -> None:
    volume, labels = a_case(100, tumour_hu=300)
    assert unlike_labelled(volume, labels, LIVER_TARGETS, known(100)) == ()
    labels.labels[labels.labels == 1] = 2  # all but a few voxels of the liver are tumour
    labels.labels[1, 2, 2:7] = 1
    assert unlike_labelled(volume, labels, LIVER_TARGETS, known(100)) == ()
    assert [one.target for one in known(100)] == ["liver"]


def test_nothing_is_told_of_an_organ_that_is_not_found_or_that_no_labelled_case_shows() -> None:
    volume, labels = a_case(30)
    empty = replace(labels, labels=np.zeros_like(labels.labels))
    assert unlike_labelled(volume, empty, LIVER_TARGETS, known(100)) == ()
    assert unlike_labelled(volume, labels, LIVER_TARGETS, []) == ()


def test_a_note_names_cases_and_the_remedy() -> None:
    notes = {"a": ("its liver is darker",), "b": (), "c": ("its liver is brighter",)}
    note = unlike_note(notes)
    assert note.startswith(
        "Unlike the labelled cases: a: its liver is darker; c: its liver is brighter."
    )
    assert "label such a case and train on" in note
    assert unlike_note({"b": ()}) == ""
    many = unlike_note({f"c{n}": ("its liver is darker",) for n in range(8)})
    assert "c4: its liver" in many
    assert "; and 3 more cases." in many
    assert "c5" not in many


def test_what_is_measured_is_read_again_and_damage_is_told(tmp_path: Path) -> None:
    assert read_intensities(tmp_path) == []
    write_intensities(tmp_path, known(100, 115))
    assert read_intensities(tmp_path) == known(100, 115)
    (tmp_path / FILE_NAME).write_text('{"labelled": [{"case_id": 1}]}')
    with pytest.raises(RunError, match="not compared with the labelled ones"):
        read_intensities(tmp_path)
