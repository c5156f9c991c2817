"""Numbers of slices are read and written as people write them."""

from __future__ import annotations

import pytest

from aslseg.data.slice_numbers import read_slices, slices_between, write_slices
from aslseg.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "slices", "again"),
    [
        ("12", [12], "12"),
        ("12,20", [12, 20], "12, 20"),
        (" 28 - 30, 12 ", [28, 29, 30, 12], "12, 28-30"),
        ("4-5,5,7", [4, 5, 5, 7], "4, 5, 7"),
    ],
)
def test_what_is_written_is_read(text: str, slices: list[int], again: str) -> None:
    assert read_slices(text) == slices
    assert write_slices(slices) == again
    assert sorted({*slices}) == read_slices(again)


@pytest.mark.parametrize(
    "text", ["", "x", "4;8", "4,", "-3", "8-4", "4-", "4.5", "123456", "1-2-3"]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="are no slices; write numbers and ranges such as 4,8,12"):
        read_slices(text)


def test_no_slice_is_written_as_nothing() -> None:
    assert write_slices([]) == ""


def test_what_lies_between_slices() -> None:
    assert slices_between([9, 2, 4, 4, 5]) == [3, 6, 7, 8]
    assert slices_between([3]) == slices_between([]) == []
