"""Texts of files, names of nodes and messages, shown as they are: Qt would take some for HTML."""

from __future__ import annotations

import html


def as_plain(text: str) -> str:
    """Return a text so that tool tips and dialogs show every letter of it."""
    if "<" not in text and "&" not in text:
        return text
    return f"<span>{html.escape(text, quote=False)}</span>".replace("\n", "<br>")
