"""No telemetry: only the files that SECURITY.md names use the network."""

from __future__ import annotations

import ast
import re

import pytest

from package.cmake_lists import ROOT

SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
SOURCES = [*(ROOT / "Logic").rglob("*.py"), *(ROOT / "SlicerASLseg").rglob("*.py")]
NETWORK = {
    "aiohttp", "asyncio", "ftplib", "http", "httpx", "huggingface_hub", "imaplib", "poplib",
    "requests", "smtplib", "socket", "socketserver", "ssl", "telnetlib", "urllib", "urllib3",
    "webbrowser", "websockets", "xmlrpc",
}  # fmt: skip
WITHOUT_NETWORK = {"urllib.parse"}
PROGRAMS = re.compile(
    r'"(npm|pip|curl|wget|ssh)"|\bpip_install\b|PyTorchUtils\b|torch\.hub|registerCustom'
)


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of all modules that a file imports, inside of functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return names


def uses_network(text: str) -> bool:
    """Tell whether a source imports a library of the network, or runs a program that uses it."""
    names = imported(ast.parse(text)) - WITHOUT_NETWORK
    return bool(PROGRAMS.search(text)) or any(name.partition(".")[0] in NETWORK for name in names)


def test_only_the_files_that_are_named_use_the_network() -> None:
    using = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if uses_network(path.read_text(encoding="utf-8"))
    }
    named = set(re.findall(r"`((?:Logic|SlicerASLseg)/[\w/]+\.py)` \|$", SECURITY, re.MULTILINE))
    assert using == named


@pytest.mark.parametrize(
    "line",
    [
        "import requests",
        "def f():\n    from urllib import request",
        "import socket as s",
        'x = "npm"',
        'command = ["ssh", host]',
    ],
)
def test_a_new_use_of_the_network_would_be_seen(line: str) -> None:
    assert uses_network(line)


def test_cutting_an_address_apart_is_no_use_of_the_network() -> None:
    assert not uses_network("from urllib.parse import urlsplit\nimport json")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(Testing/[\w/]+\.py)`", SECURITY))))
def test_each_test_that_guards_a_promise_exists(name: str) -> None:
    assert "def test_" in (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", ["SECURITY.md", "README.md", "Docs/faq.md", "Docs/extension-review.md"]
)
def test_the_documents_say_that_there_is_no_telemetry(page: str) -> None:
    assert "no telemetry" in (ROOT / page).read_text(encoding="utf-8").lower()


def test_everything_that_is_fetched_from_an_address_is_fetched_securely() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert re.findall(r"[\"'](?:http|ftp)://[^\"']*", sources) == []


def test_each_campaign_has_a_row_on_its_page() -> None:
    page = (ROOT / "Docs" / "studies" / "reliability.md").read_text(encoding="utf-8")
    campaigns = {path.name for path in (ROOT / "Testing" / "faults").glob("test_*.py")}
    missing = {name for name in campaigns if f"| `{name}` |" not in page}
    assert missing == {"test_common.py"}
