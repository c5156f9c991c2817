"""Packages that are missing, and installers that fail."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable
from subprocess import CalledProcessError
from typing import Any

import pytest
import slicer

from standin.harness import click

FAILURES = [
    CalledProcessError(1, ["python", "-m", "light_the_torch"]),
    ImportError("DLL load failed while importing _C"),
    ValueError("Failed to get computation backend"),
    OSError(28, "No space left on device"),
    RuntimeError("Another installation is under way"),
]


def raising(error: Exception) -> Callable[..., Any]:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    return fails


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Hide packages from those that are installed; hides none when called without names."""
    real = importlib.metadata.version
    hidden: set[str] = set()

    def version(name: str) -> str:
        if name in hidden:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    def hide(*names: str) -> None:
        hidden.clear()
        hidden.update(names)

    monkeypatch.setattr(importlib.metadata, "version", version)
    return hide


@pytest.fixture
def pytorch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Say what the extension PyTorch does when it is asked to install."""

    def use(installer: Callable[..., Any]) -> None:
        extension = types.ModuleType("PyTorchUtils")
        logic = types.SimpleNamespace(installTorch=installer)
        extension.PyTorchUtilsLogic = lambda: logic  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)

    return use


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failing_installation_of_pytorch_says_what_failed_and_what_to_do(
    open_module: Any, without: Any, pytorch: Any, dialogs: Any, error: Exception
) -> None:
    without("torch", "torchvision")
    ui = open_module().panel.ui
    pytorch(raising(error))
    click(ui.installButton)
    text = dialogs.take("Installing PyTorch failed").text
    assert "press Install again" in text
    assert ("code 1" if isinstance(error, CalledProcessError) else str(error)) in text
    assert not ui.requirementsFrame.isHidden()
    assert ui.installButton.enabled


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failing_pip_says_what_failed_and_what_to_do(
    open_module: Any, without: Any, dialogs: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    without("monai")
    ui = open_module().panel.ui
    monkeypatch.setattr(slicer.packaging, "pip_install", raising(error))
    dialogs.answer("install 1 Python packages: monai", 0x400)
    click(ui.installButton)
    assert "press Install again" in dialogs.take("Installing monai failed").text
    assert "monai" in ui.requirementsLabel.text


def test_what_was_installed_before_the_person_stopped_is_not_asked_for_again(
    open_module: Any, without: Any, pytorch: Any, dialogs: Any
) -> None:
    without("torch", "torchvision", "monai")
    ui = open_module().panel.ui

    def install(**_: Any) -> types.ModuleType:
        without("monai")
        return types

    pytorch(install)
    dialogs.answer("install 1 Python packages", 0x00400000)  # Cancel
    click(ui.installButton)
    dialogs.take("Nothing was installed")
    assert ui.requirementsLabel.text.endswith("are needed: monai.")


def test_an_installer_that_installs_nothing_is_not_believed(
    open_module: Any, without: Any, dialogs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("monai")
    ui = open_module().panel.ui
    monkeypatch.setattr(slicer.packaging, "pip_install", lambda *_, **__: None)
    dialogs.answer("install 1 Python packages", 0x400)
    click(ui.installButton)
    dialogs.take("monai cannot be found; restart Slicer")


def test_a_slicer_without_its_packaging_module_installs_by_pip(
    open_module: Any, without: Any, dialogs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("monai", "segment-anything")
    for name in ("monai", "segment_anything"):  # other tests of this process may have used them
        monkeypatch.delitem(sys.modules, name, raising=False)
    ui = open_module().panel.ui
    asked: list[str] = []

    def pip_install(requirements: str) -> None:
        asked.append(requirements)
        without()

    monkeypatch.delitem(sys.modules, "slicer.packaging")
    monkeypatch.delattr(slicer, "packaging")
    monkeypatch.setattr(slicer.util, "pip_install", pip_install)
    dialogs.answer("install 2 Python packages", 0x400)
    click(ui.installButton)
    assert asked == ['"segment-anything==1.0" "monai>=1.4"']
    assert ui.requirementsFrame.isHidden()


@pytest.mark.parametrize("hidden", [None, ModuleNotFoundError("blocked")])
def test_a_package_that_is_listed_but_cannot_be_found_counts_as_missing(
    open_module: Any, monkeypatch: pytest.MonkeyPatch, hidden: Exception | None
) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        if name != "pydantic":
            return real(name, package)
        if hidden is not None:
            raise hidden
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    ui = open_module().panel.ui
    assert "pydantic" in ui.requirementsLabel.text
    assert not ui.demoButton.enabled


def test_a_package_that_is_too_old_counts_as_missing(
    open_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    old = {"pydantic": "1.10.2"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: old.get(name) or real(name))
    ui = open_module().panel.ui
    assert "pydantic" in ui.requirementsLabel.text
    assert not ui.demoButton.enabled


def test_a_package_in_use_that_was_replaced_asks_for_a_restart(
    open_module: Any, dialogs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("pydantic")
    real = importlib.metadata.version
    versions = {"pydantic": "1.10.2"}
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: versions.get(name) or real(name)
    )
    ui = open_module().panel.ui
    monkeypatch.setattr(
        slicer.packaging, "pip_install", lambda *_, **__: versions.update(pydantic="2.12.0")
    )
    dialogs.answer("install 1 Python packages: pydantic", 0x400)
    click(ui.installButton)
    dialogs.take("Restart Slicer now: it still uses the old pydantic")
    assert ui.requirementsFrame.isHidden()


def test_packages_that_came_by_another_way_are_seen_when_the_module_is_entered(
    open_module: Any, without: Any
) -> None:
    without("torch", "torchvision")
    ui = open_module().panel.ui
    assert not ui.requirementsFrame.isHidden()
    without()
    slicer.util.selectModule("Data")
    slicer.util.selectModule("ASLseg")
    assert ui.requirementsFrame.isHidden()
