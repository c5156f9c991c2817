"""Damaged and hostile versions of the files that a project keeps, drawn from a generator."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

DEEP = 100_000
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    3.7,
    10**9,
    10**30,
    -(10**18),
    "",
    "x",
    "..",
    "../../outside/victim.txt",
    "/etc/passwd",
    "labels/../../outside/victim.nii.gz",
    "labels/history/../../project.json",
    "a\u0000b",
    "\ud800",
    "%s%n{0}",
    "C:\\x",
    "\u00e4" * 300,
    "x" * 100_000,
    [],
    {},
    [[]],
    {"a": None},
    [1, "2", None],
    ["x"] * 1000,
    {"a": {"b": {"c": []}}},
)
RAW = (
    b"NaN",
    b"-Infinity",
    b"1e400",
    b"9" * 5000,
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b"\xff\xfe",
    b"\x00",
    b'"\\ud800"',
    b'"\\u0000"',
    b"\xef\xbb\xbf",
    b"'",
    b'"',
    b"\r\n",
    b",,,,",
    b"\n\n",
    b"//",
    b"=cmd()",
)
SHAPES = ([], [2**40], [0, 2**60], [-1], [1] * 100, "x", [2**63, 2])


def mutated(content: bytes, kind: str, random_: random.Random) -> bytes:
    """Return another version of a file of a kind: `json`, `csv`, `lines`, `safetensors`, `pth`."""
    own: dict[str, Callable[[bytes, random.Random], bytes]] = {
        "json": mutated_json,
        "csv": mutated_csv,
        "lines": mutated_lines,
        "safetensors": mutated_safetensors,
        "pth": mutated_pth,
    }
    return random_.choice((own[kind], own[kind], mutated_bytes))(content, random_)


def mutated_bytes(content: bytes, random_: random.Random) -> bytes:
    """Flip, cut, double, insert, overwrite or replace bytes."""
    size = len(content)
    start = random_.randrange(size + 1)
    stop = min(size, start + random_.choice((1, 2, 8, 64, 4096)))
    data = bytearray(content)
    match random_.randrange(8):
        case 0:
            for _ in range(random_.choice((1, 1, 3, 20))):
                if size:
                    data[random_.randrange(size)] ^= 1 << random_.randrange(8)
        case 1:
            return content[:start]
        case 2:
            data[start:stop] = b""
        case 3:
            data[start:start] = content[start:stop] * random_.choice((1, 50))
        case 4:
            data[start:start] = random_.choice(RAW)
        case 5:
            data[start:stop] = random_.randbytes(stop - start)
        case 6:
            data[start:stop] = b"\0" * (stop - start)
        case _:
            return random_.choice((b"", random_.randbytes(500), random_.choice(RAW), content * 3))
    return bytes(data)


def mutated_json(content: bytes, random_: random.Random) -> bytes:
    """Change one value or key of the document."""
    values = json.loads(content)
    for _ in range(random_.choice((1, 1, 1, 4))):
        values = _changed(values, random_)
    try:
        return json.dumps(values, ensure_ascii=random_.random() < 0.5).encode()
    except UnicodeEncodeError:
        return json.dumps(values).encode()


def _changed(values: Any, random_: random.Random) -> Any:
    places = list(_places(values))
    if not places:
        return copy.deepcopy(random_.choice(HOSTILE))
    holder, key = random_.choice(places)
    match random_.randrange(5):
        case 0:
            del holder[key]
        case 1:
            other, name = random_.choice(places)
            holder[key] = copy.deepcopy(other[name]) if _is_there(other, name) else None
        case 2 if isinstance(holder, dict):
            holder[str(random_.choice(("x", "..", "id", "\u0000", "y" * 5000)))] = holder.pop(key)
        case _:
            holder[key] = copy.deepcopy(random_.choice(HOSTILE))
    return values


def _places(values: Any) -> Any:
    if isinstance(values, (dict, list)):
        keys = list(values) if isinstance(values, dict) else range(len(values))
        for key in keys:
            yield values, key
            yield from _places(values[key])


def _is_there(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def mutated_csv(content: bytes, random_: random.Random) -> bytes:
    """Change a cell, a row, or a column."""
    rows = [line.split(b",") for line in content.splitlines()]
    row = random_.choice(rows)
    place = random_.randrange(len(row))
    match random_.randrange(6):
        case 0:
            row[place] = random_.choice(RAW)
        case 1:
            row[place] = str(random_.choice(HOSTILE[:18])).encode("utf-8", "surrogatepass")
        case 2:
            del row[place]
        case 3:
            row.insert(place, random_.choice((b"", b'"', b"x" * 200_000, b'"a\nb"')))
        case 4:
            rows.insert(random_.randrange(len(rows)), [b"x"] * random_.choice((1, len(row), 500)))
        case _:
            for line in rows:
                del line[place : place + 1]
    return b"\r\n".join(b",".join(line) for line in rows) + b"\r\n"


def mutated_lines(content: bytes, random_: random.Random) -> bytes:
    """Change one of the objects, or the order and number of lines."""
    lines = content.splitlines()
    number = random_.randrange(len(lines))
    match random_.randrange(6):
        case 0:
            random_.shuffle(lines)
        case 1:
            lines.insert(number, lines[number])
        case 2:
            lines[number] = random_.choice(RAW)
        case _:
            lines[number] = mutated_json(lines[number], random_)
    return b"\n".join(lines) + random_.choice((b"\n", b"\n", b""))


def mutated_safetensors(content: bytes, random_: random.Random) -> bytes:
    """Change the length of the header, or what it says."""
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    meta = header.get("__metadata__", {})
    match random_.randrange(7):
        case 0:
            size = random_.choice(
                (0, 1, length - 1, length + 1, len(content), 2**31, 2**63, 2**64 - 1)
            )
            return struct.pack("<Q", size) + content[8:]
        case 1:
            header.pop("__metadata__", None)
        case 2:
            meta[random_.choice(("config", "sha256", "format", "kind"))] = random_.choice(
                ("", "x", "null", "[" * DEEP, '{"step": "x"}', "{}", "\u0000", "[1]")
            )
        case 3:
            meta.pop(random_.choice(list(meta) or ["x"]), None)
        case 4:
            tensor = header[random_.choice([name for name in header if name != "__metadata__"])]
            tensor["shape"] = random_.choice(
                ([], [2**40], [0, 2**60], [-1], [1] * 100, "x", [2**63, 2])
            )
        case 5:
            tensor = header[random_.choice([name for name in header if name != "__metadata__"])]
            tensor[random_.choice(("dtype", "data_offsets"))] = random_.choice(
                ("F64", "I8", "BOOL", "F8_E4M3", "X", [0, 1], [10, 2], [0, 2**62])
            )
        case _:
            header = json.loads(mutated_json(json.dumps(header).encode(), random_))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


class RunsCode:
    """An object whose pickle would write a file when it is loaded."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({self.marker!r}, 'w').write('it ran')",)


def mutated_pth(content: bytes, random_: random.Random) -> bytes:
    """Change the archive's members: other pickles, cut tensors, compressed zeros."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = random_.choice(list(members))
    how = zipfile.ZIP_STORED
    match random_.randrange(7):
        case 0:
            return payload(random_)
        case 1:
            pickled = next(part for part in members if part.endswith("data.pkl"))
            members[pickled] = payload(random_)
        case 2:
            members[name] = mutated_bytes(members[name], random_)
        case 3:
            del members[name]
        case 4:
            members["archive/bomb"], how = b"\0" * (200 << 20), zipfile.ZIP_DEFLATED
        case 5:
            members["../../outside/victim.txt"] = b"x"
        case _:
            pickled = next(part for part in members if part.endswith("data.pkl"))
            members[pickled] = mutated_bytes(members[pickled], random_)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", how) as archive:
        for part, data in members.items():
            archive.writestr(part, data)
    return made.getvalue()


def payload(random_: random.Random) -> bytes:
    """Return a pickle that would write the file `MARKER` of the working folder."""
    bad = RunsCode("MARKER")
    wrapped: Any = random_.choice(({"a": bad}, {"model": {"a": bad}}, [bad], bad))
    return pickle.dumps(wrapped, protocol=random_.randrange(6))
