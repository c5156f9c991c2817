"""Targets as they are typed: what is read from them, what is wrong, what is proposed."""

from __future__ import annotations

import pytest

from aslseg.data.nrrd import Segment
from aslseg.errors import ProjectError
from aslseg.project.target_table import (
    TargetRow,
    renamed,
    rows_of,
    suggested_targets,
    target_problems,
    targets_of,
)
from aslseg.targets import LIVER_TARGETS, Target

LIVER, TUMOUR = TargetRow("liver", "1"), TargetRow("tumour", "2", "liver")


def test_a_table_says_what_its_targets_are() -> None:
    rows = (TargetRow(" liver ", "1", "", "#DD8265", "a~b~c"), TUMOUR)
    assert targets_of(rows) == (
        Target(name="liver", value=1, color="#dd8265", terminology="a~b~c"),
        Target(name="tumour", value=2, inside="liver"),
    )


def test_targets_and_their_rows_are_the_same() -> None:
    targets = (Target(name="liver", value=1, color="#010203", terminology="x"), LIVER_TARGETS[1])
    assert targets_of(rows_of(targets)) == targets


@pytest.mark.parametrize(
    ("rows", "where", "words"),
    [
        ((), ("targets", 0, ""), "There is no target"),
        ((TargetRow("", "3"),), ("target", 0, "name"), "The target of value 3 has no name"),
        ((TargetRow("a/b", "3"),), ("target", 0, "name"), "'a/b' cannot be the name"),
        ((LIVER, TargetRow("x", "0")), ("target", 1, "value"), "'0' cannot be the value of x"),
        ((LIVER, TargetRow("x", "two")), ("target", 1, "value"), "'two' cannot be the value of x"),
        ((LIVER, TargetRow("x", "256")), ("target", 1, "value"), "whole number from 1 to 255"),
        ((TargetRow("x", "1", "", "red"),), ("target", 0, "color"), "'red' is no colour of x"),
        ((LIVER, TargetRow("liver", "2")), ("target", 1, "name"), "Two targets have the name"),
        ((LIVER, TargetRow("x", "01")), ("target", 1, "value"), "Two targets have the value 1"),
        ((LIVER, TargetRow("x", "2", "x")), ("target", 1, "inside"), "cannot lie inside itself"),
        (
            (LIVER, TargetRow("x", "2", "y")),
            ("target", 1, "inside"),
            "inside y, which is no target",
        ),
        (
            (TargetRow("a", "1", "b"), TargetRow("b", "2", "a")),
            ("targets", 0, ""),
            "lies inside itself through its parents",
        ),
    ],
)
def test_what_cannot_be_is_said_beside_its_field(
    rows: tuple[TargetRow, ...], where: tuple[str, int, str], words: str
) -> None:
    found = [p for p in target_problems(rows) if (p.place, p.row, p.column) == where]
    assert len(found) == 1
    assert words in found[0].message
    with pytest.raises(ProjectError):
        targets_of(rows)


def test_a_table_that_is_right_has_no_problem() -> None:
    assert target_problems((LIVER, TUMOUR)) == []


def test_a_new_name_of_a_parent_is_that_of_its_children_too() -> None:
    assert renamed((LIVER, TUMOUR), 0, "organ") == (
        TargetRow("organ", "1"),
        TargetRow("tumour", "2", "organ"),
    )


def test_segments_propose_targets_with_colour_and_terminology() -> None:
    segments = (
        Segment("Liver", 3, "Liver", "x~y~SCT^1^Liver", "#dd8265"),
        Segment("tumor 1", 1),
        Segment("tumor 2", 4),
        Segment("Segment_5", 5, "Spleen"),
        Segment("empty", 6),
    )
    rows = suggested_targets([((1, 3, 4, 5), segments)])
    assert rows == (
        TargetRow("liver", "1", "", "#dd8265", "x~y~SCT^1^Liver"),
        TargetRow("tumour", "2"),
        TargetRow("spleen", "3"),
    )


def test_values_without_names_are_liver_and_tumour_or_wait_for_a_name() -> None:
    assert targets_of(suggested_targets([((1, 2), ()), ((1,), ())])) == LIVER_TARGETS
    assert targets_of(suggested_targets([])) == LIVER_TARGETS
    rows = suggested_targets([((1, 7), ())])
    assert rows == (TargetRow("", "1"), TargetRow("", "7"))
    assert {p.column for p in target_problems(rows)} == {"name"}
