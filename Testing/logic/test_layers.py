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

# A name that ends in a dot is a folder, its `__init__` included.
LAYER_OF = {
    0: """volume errors config events storage reading""",
    1: """geometry orientation intensity components lesions prompts clicks metrics images project
        formats stages runfolder review sweeping presets windows""",
    2: """specialist finite losses augment distortion inference views places tiles batches training
        devices checkpoints frozen adaptation corruption blending sam.""",
    3: """ssl. methods. generalist proposals classwise lessons refinement adapting speaking teaching
        containers
        crossfit cross_validation job reliability rounds runs session evaluate benchmark""",
    4: """worker cli report phantom demo __main__ __init__""",
}

VOCABULARY = {"numpy", "pydantic"}
ARITHMETIC = VOCABULARY | {"scipy", "SimpleITK", "filelock", "psutil"}
NETWORKS = ARITHMETIC | {"torch", "torchvision", "monai", "segment_anything", "safetensors", "onnx"}
ALLOWED = {
    0: VOCABULARY,
    1: ARITHMETIC,
    2: NETWORKS,
    3: NETWORKS,
    4: ARITHMETIC | {"typer", "click", "rich", "matplotlib"},
}
APPLICATION = {"slicer", "qt", "ctk", "vtk"}


def layer_of(module: str) -> int:
    """Layer of a module named without the package, such as `sam.models`.

    `report_pictures` belongs where `report` belongs: a part of a module keeps its first word.
    """
    for layer, names in LAYER_OF.items():
        for name in names.split():
            if module == name or module.startswith(f"{name}_"):
                return layer
            if name.endswith(".") and f"{module}.".startswith(name):
                return layer
    msg = f"aslseg/{module.replace('.', '/')}.py has no layer yet: name it in LAYER_OF."
    raise KeyError(msg)


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
def test_a_module_imports_only_its_own_layer_or_those_above(module: str) -> None:
    below = {name for name in own_imports(module) if layer_of(name) > layer_of(module)}
    assert not below, f"aslseg.{module} (layer {layer_of(module)}) imports {sorted(below)}"


@pytest.mark.parametrize("module", modules())
def test_a_module_uses_only_the_packages_of_its_layer(module: str) -> None:
    strange = foreign_packages(module) - ALLOWED[layer_of(module)]
    assert not strange, f"aslseg.{module} (layer {layer_of(module)}) imports {sorted(strange)}"


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


def test_layers_0_and_1_are_importable_without_torch() -> None:
    upper = [f"aslseg.{name}" for name in modules() if layer_of(name) <= 1]
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
        pytest.param("from . import models", {"aslseg.sam.model"}, id="sibling"),
        pytest.param("from ..volume import Mask", {"aslseg.data.volume.Mask"}, id="parent"),
        pytest.param("if TYPE_CHECKING:\n    import torch", {"torch"}, id="types only"),
        pytest.param("try:\n    import vtk\nexcept ImportError:\n    pass", {"vtk"}, id="guarded"),
    ],
)
def test_imports_are_found_wherever_they_hide(source: str, expected: set[str]) -> None:
    assert set(imports_of(ast.parse(source), "aslseg.sam")) == expected


def test_a_file_without_a_layer_is_refused() -> None:
    with pytest.raises(KeyError, match="no layer yet"):
        layer_of("utils")


def test_parts_of_a_module_share_its_layer() -> None:
    assert layer_of("report_pictures") == layer_of("report") == 4
    assert layer_of("sam.tiny_vit") == layer_of("sam") == 2
