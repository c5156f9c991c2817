"""slicer.i18n: texts stay as they are written."""

from __future__ import annotations

from pathlib import Path


def tr(text: str) -> str:
    """Return the translation of a text in the calling module."""
    return text


def translate(context: str, text: str) -> str:
    """Return the translation of a text in some context."""
    return text


def getContext(sourceFile: str) -> str:
    """Return the context of a source file."""
    return Path(sourceFile).stem
