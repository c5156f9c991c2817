"""A file that the CMake lists leave out is silently absent from the package."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from package.cmake_lists import LISTS, ROOT, FileList

MODULE = ROOT / "SlicerASLseg"
PANEL = ROOT / "Resources" / "UI" / "ASLseg.ui"


def name_of(files: FileList) -> str:
    return f"{files.folder}: {files.head}"


@pytest.mark.parametrize("files", LISTS, ids=name_of)
def test_a_list_names_the_files_of_the_tree_and_no_other(files: FileList) -> None:
    missing = sorted(set(files.expected()) - set(files.listed()))
    surplus = sorted(set(files.listed()) - set(files.expected()))
    assert (missing, surplus) == ([], []), "run: python Testing/package/cmake_lists.py"


@pytest.mark.parametrize("files", LISTS, ids=name_of)
def test_a_list_is_sorted_and_names_each_file_once(files: FileList) -> None:
    assert files.listed() == sorted(set(files.listed()))


def test_the_writer_of_lists_mends_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part").mkdir()
    for name in ("a.py", "b.py"):
        (tmp_path / "part" / name).touch()
    path = tmp_path / "part" / "CMakeLists.txt"
    path.write_text("set(FILES\n  gone.py\n  )\nafter(FILES)\n", encoding="utf-8")
    monkeypatch.setattr("package.cmake_lists.ROOT", tmp_path)
    FileList("part", "set(FILES", ("*.py",)).write()
    assert path.read_text(encoding="utf-8") == "set(FILES\n  a.py\n  b.py\n  )\nafter(FILES)\n"


def test_only_one_python_file_lies_where_slicer_looks_for_modules() -> None:
    assert [path.name for path in MODULE.glob("*.py")] == ["ASLseg.py"]


@pytest.mark.parametrize(
    "path", [ROOT / "CMakeLists.txt", *sorted(ROOT.glob("[A-Z]*/**/CMakeLists.txt"))], ids=str
)
def test_each_folder_that_cmake_enters_has_its_own_list(path: Path) -> None:
    entered = re.findall(r"add_subdirectory\((\S+)\)", path.read_text(encoding="utf-8"))
    assert all((path.parent / name / "CMakeLists.txt").is_file() for name in entered)


def parameter_names() -> set[str]:
    """Names that a control may be bound to: those of the parameter node, packs with a dot."""
    source = (MODULE / "ASLsegLib" / "parameters.py").read_text(encoding="utf-8")
    classes = {
        node.name: {
            item.target.id: ast.unparse(item.annotation)
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }
    (node_class,) = (name for name in classes if name.endswith("ParameterNode"))
    names = set()
    for name, kind in classes[node_class].items():
        pack = classes.get(kind)
        names |= {f"{name}.{part}" for part in pack} if pack else {name}
    return names


def bound_names() -> list[str]:
    found = ET.parse(PANEL).iter("property")
    return [
        str(each.findtext("string")) for each in found if each.get("name") == "SlicerParameterName"
    ]


def test_controls_are_bound_to_parameters_that_exist() -> None:
    assert bound_names(), "no control of the panel is bound to the parameter node"
    assert set(bound_names()) - parameter_names() == set()


def test_no_two_controls_are_bound_to_the_same_parameter() -> None:
    assert sorted(bound_names()) == sorted(set(bound_names()))
