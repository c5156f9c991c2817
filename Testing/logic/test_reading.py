"""JSON, JSON lines and tables give plain values or one sentence, whatever the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aslseg import reading
from aslseg.errors import AslsegError, ProjectError, RunError
from aslseg.reading import parse_json, read_json, read_lines, read_object, read_table

REMEDY = "restore it"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        pytest.param('{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}, id="plain"),
        pytest.param('[NaN, -Infinity, "\\u00e4"]', [None, None, "ä"], id="not finite"),
        pytest.param("[" * 64 + "]" * 64, None, id="64 deep"),
    ],
)
def test_json_is_read(text: str, values: Any) -> None:
    assert values is None or parse_json(text) == values
    assert parse_json(text) is not None


def test_files_that_begin_with_the_mark_of_utf_8_are_read(tmp_path: Path) -> None:
    table, values = tmp_path / "a.csv", tmp_path / "a.json"
    table.write_text("case,patient\nc1,p1\n", encoding="utf-8-sig")  # as spreadsheets write it
    values.write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_table(table, ("case",), RunError, REMEDY) == [{"case": "c1", "patient": "p1"}]
    assert read_json(values, RunError, REMEDY) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("[" * 100_000, "nested", id="100,000 deep, open"),
        pytest.param("[" * 100_000 + "]" * 100_000, "nested", id="100,000 deep"),
        pytest.param("[" * 66 + "]" * 66, "nested more than 64 deep", id="66 deep"),
        pytest.param('{"a":' * 500 + "1" + "}" * 500, "nested more than 64", id="500 objects"),
        pytest.param('["\\u0000"]', "a character that no file can", id="NUL"),
        pytest.param('["\\ud800"]', "a character that no file can", id="half a character"),
        pytest.param('{"\\u0000": 1}', "a character that no file can", id="NUL in a key"),
        pytest.param("1e400", "too large", id="no float"),
        pytest.param("9" * 5000, "4300 digits", id="5000 digits"),
        pytest.param("{", "Expecting property name", id="cut off"),
    ],
)
def test_json_that_cannot_be_used_is_a_value_error(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"\xff\xfe", "is damaged, it is no text in UTF-8; restore it", id="no text"),
        pytest.param(b"[1,", "is damaged, it is no JSON .*; restore it", id="cut off"),
        pytest.param(b"[" * 200_000, "is damaged, it is no JSON .*nested", id="deep"),
        pytest.param(b"[1]", "holds no JSON object; restore it", id="a list"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=words) as caught:
        read_object(path, RunError, REMEDY)
    assert str(path) in str(caught.value)


def test_what_is_missing_too_large_or_a_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProjectError, match=r"absent\.json cannot be read"):
        read_json(tmp_path / "absent.json", ProjectError, REMEDY)
    with pytest.raises(ProjectError, match="is no file"):
        read_json(tmp_path, ProjectError, REMEDY)
    monkeypatch.setattr(reading, "MOST_JSON_BYTES", 10)
    (tmp_path / "a.json").write_text('"123456789"')
    with pytest.raises(ProjectError, match="too large"):
        read_json(tmp_path / "a.json", ProjectError, REMEDY)


def test_lines_that_hold_no_object_are_none_and_an_unfinished_one_is_left_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"a": 1}\n\n[1]\n\xff\n{"a": 2}\n{"a": 3')
    found = list(read_lines(path, RunError, REMEDY))
    assert found == [(1, {"a": 1}), (3, None), (4, None), (5, {"a": 2})]
    assert list(read_lines(tmp_path / "absent", RunError, REMEDY)) == []


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x" * (reading.MOST_LINE_BYTES + 2))
    with pytest.raises(RunError, match="line 1 is too long"):
        list(read_lines(path, RunError, REMEDY))


def test_a_table_has_rows_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'case,dice\r\n"a,b",0.5\r\n')
    assert read_table(path, ["dice"], RunError, REMEDY) == [{"case": "a,b", "dice": "0.5"}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "column 'dice' is missing", id="empty"),
        pytest.param(b"case\na\n", "column 'dice' is missing", id="a column less"),
        pytest.param(b"dice,dice\n1,2\n", "occurs twice", id="twice"),
        pytest.param(b"case,dice\na\n", "damaged", id="a short row"),
        pytest.param(b"case,dice\na,1,2\n", "damaged", id="a long row"),
        pytest.param(b'case,dice\n"a,1\n', "damaged", id="an open quote"),
        pytest.param(b"case,dice\n" + b"x" * 200_000 + b",1\n", "damaged", id="a huge cell"),
        pytest.param(b"case,dice\n\xff,1\n", "no text", id="no text"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(AslsegError, match=words):
        read_table(path, ["dice"], RunError, REMEDY)
