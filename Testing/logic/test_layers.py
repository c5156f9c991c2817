"""A file imports only what stands above it, and only `SlicerASLseg/` knows that Slicer exists."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "Logic" / "aslseg"

# What a package or a module at the root may import of the others, besides itself.
BASE = {
    "errors", "failures", "events", "storage", "reading", "leftovers", "bounded_cache",
    "run_names", "schema_1", "config", "overrides", "presets", "steps", "imports",
}  # fmt: skip
DATA = BASE | {"data", "targets"}
PROJECT = DATA | {"project", "evaluation", "prompts"}
NETWORKS_OF = DATA | {"prompts", "preprocessing", "networks", "sam"}
MAY_IMPORT = {
    "errors": set(),
    "imports": set(),
    "events": {"errors"},
    "steps": {"errors", "events"},
    "storage": {"errors"},
    "reading": {"errors"},
    "leftovers": {"storage"},
    "bounded_cache": {"leftovers", "storage"},
    "failures": {"errors", "events", "storage"},
    "run_names": set(),
    "schema_1": {"errors", "storage", "reading", "run_names"},
    "config": {"errors", "reading", "schema_1"},
    "overrides": {"errors", "config"},
    "presets": {"errors", "config"},
    "data": {"errors", "events", "storage", "reading"},
    "targets": BASE | {"data"},
    "prompts": DATA,
    "evaluation": DATA | {"project"},
    "project": DATA,
    "preprocessing": DATA | {"distributed"},
    "networks": DATA | {"preprocessing"},
    "sam": DATA | {"prompts", "preprocessing", "networks"},
    "export": PROJECT,
    "context": PROJECT,
    "distributed": {"errors", "events", "imports"},
    "inference": NETWORKS_OF | {"project", "context"},
    "training": NETWORKS_OF | PROJECT | {"context", "inference", "distributed"},
    "methods": NETWORKS_OF | {"context", "inference", "training"},
    "runs": NETWORKS_OF
    | {"project", "evaluation", "context", "inference", "training", "methods", "distributed"},
    "batch": NETWORKS_OF | PROJECT | {"inference", "export"},
    "report": PROJECT,
    "benchmark": NETWORKS_OF | PROJECT | {"inference", "methods", "runs", "report"},
    "engine": NETWORKS_OF
    | PROJECT
    | {"inference", "training", "runs", "report", "export", "batch"},
    "__main__": {"cli"},
    "remote": PROJECT | {"engine"},
    "cli": NETWORKS_OF
    | PROJECT
    | {"inference", "runs", "report", "benchmark", "export", "batch", "engine", "remote"},
}
WITHOUT_TORCH = [*BASE, "data", "targets", "prompts", "evaluation", "project", "report", "export"]

VOCABULARY = {"numpy", "pydantic"}
ARITHMETIC = VOCABULARY | {"scipy", "SimpleITK", "filelock", "psutil"}
NETWORKS = ARITHMETIC | {"torch", "torchvision", "monai", "segment_anything", "safetensors", "onnx"}
LINES_AND_PAGES = {"typer", "click", "rich", "matplotlib", "jinja2"}
DICOM = {"pydicom", "highdicom"}
APPLICATION = {"slicer", "qt", "ctk", "vtk"}


def package_of(module: str) -> str:
    """Package or root module that a module named without `aslseg.` belongs to."""
    package = module.split(".")[0]
    if package not in {*MAY_IMPORT, "__init__"}:
        msg = f"aslseg/{package} has no place yet: say in MAY_IMPORT what it may import."
        raise KeyError(msg)
    return package


def allowed_packages(package: str) -> set[str]:
    """Third-party packages that a package of the library may use."""
    if package in {"storage", "leftovers", "bounded_cache"}:
        return VOCABULARY | {"psutil", "filelock"}
    if package in BASE:
        return VOCABULARY
    if package == "benchmark":
        return NETWORKS | LINES_AND_PAGES
    if package == "export":
        return ARITHMETIC | DICOM
    if package in {"report", "cli"}:
        return ARITHMETIC | LINES_AND_PAGES
    return ARITHMETIC if package in WITHOUT_TORCH or package in {"engine", "remote"} else NETWORKS


def module_name(path: Path) -> str:
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(LIBRARY.rglob("*.py"))}


def imports_of(tree: ast.AST, package: str) -> Iterator[str]:
    """Full dotted names that a file imports: at its top, inside of functions, for types only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, node.module or ""]).strip(".") if node.level else node.module
            yield from (f"{base}.{alias.name}" for alias in node.names)
        else:
            yield from imports_of(node, package)


def is_package(module: str) -> bool:
    return modules()[module].name == "__init__.py" and module != "__init__"


@cache
def imported(module: str) -> tuple[str, ...]:
    path = modules()[module]
    package = ".".join(["aslseg", *path.relative_to(LIBRARY).parent.parts])
    return tuple(imports_of(ast.parse(path.read_text(encoding="utf-8")), package))


def own_module(dotted: str) -> str | None:
    """Module of this library that a dotted name lies in, or None for foreign names."""
    if dotted.split(".")[0] != "aslseg":
        return None
    name = dotted.removeprefix("aslseg").removeprefix(".")
    while name:
        if name in modules():
            return name
        name = name.rpartition(".")[0]
    return "__init__"


def own_imports(module: str) -> set[str]:
    found = {own_module(name) for name in imported(module)}
    return {name for name in found if name is not None and name != module}


def foreign_packages(module: str) -> set[str]:
    tops = {name.split(".")[0] for name in imported(module)}
    return tops - set(sys.stdlib_module_names) - {"aslseg"}


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_its_package_may(module: str) -> None:
    package = package_of(module)
    if package == "__init__":
        return  # the front door: it loads each name from its home when it is first used
    others = {package_of(name) for name in own_imports(module)} - {package, "__init__"}
    strange = others - MAY_IMPORT[package]
    assert not strange, f"aslseg.{module} imports {sorted(strange)}"


@pytest.mark.parametrize("module", modules())
def test_a_module_uses_only_the_third_parties_of_its_package(module: str) -> None:
    strange = foreign_packages(module) - allowed_packages(package_of(module))
    assert not strange, f"aslseg.{module} imports {sorted(strange)}"


def test_packages_depend_on_each_other_one_way() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()  # raises CycleError


@pytest.mark.parametrize("package", [name for name in modules() if is_package(name)])
def test_a_package_says_what_lives_there_and_who_may_import_it(package: str) -> None:
    text = ast.get_docstring(ast.parse(modules()[package].read_text(encoding="utf-8")))
    assert text is not None
    assert len(text.split()) > 15, package


def test_no_module_of_the_library_knows_the_application() -> None:
    guilty = {name for name in modules() if foreign_packages(name) & APPLICATION}
    assert not guilty


def test_modules_import_each_other_without_a_cycle() -> None:
    # Packages re-export their parts; only files with work in them count.
    graph = {name: own_imports(name) for name in modules() if modules()[name].name != "__init__.py"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_what_the_panel_needs_is_importable_without_torch() -> None:
    upper = [f"aslseg.{name}" for name in modules() if package_of(name) in WITHOUT_TORCH]
    script = f"""
import importlib, sys
for name in ("torch", "torchvision", "monai", "segment_anything"):
    sys.modules[name] = None  # makes `import name` raise ImportError
for name in {["aslseg", *upper]!r}:
    importlib.import_module(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=LIBRARY.parent,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("import torch", {"torch"}, id="plain"),
        pytest.param(
            "def f():\n    from aslseg.cli.main import main", {"aslseg.cli.main.main"}, id="hidden"
        ),
        pytest.param("from . import model", {"aslseg.sam.model"}, id="sibling"),
        pytest.param("from ..data.volume import Mask", {"aslseg.data.volume.Mask"}, id="parent"),
        pytest.param("if TYPE_CHECKING:\n    import torch", {"torch"}, id="types only"),
        pytest.param("try:\n    import vtk\nexcept ImportError:\n    pass", {"vtk"}, id="guarded"),
    ],
)
def test_imports_are_found_wherever_they_hide(source: str, expected: set[str]) -> None:
    assert set(imports_of(ast.parse(source), "aslseg.sam")) == expected


def test_a_package_without_a_place_is_refused() -> None:
    with pytest.raises(KeyError, match="no place yet"):
        package_of("utils")
