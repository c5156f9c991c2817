"""The last net of the panel: what nobody foresaw becomes a sentence; its traceback is logged."""

from __future__ import annotations

import logging
from typing import Any

import slicer
from slicer.i18n import tr as _

from aslseg.errors import AslsegError
from ASLsegLib.engine.client import EngineBusyError

logger = logging.getLogger(__name__)

_LONGEST_REASON = 200


def in_a_sentence(error: BaseException) -> str:
    """Return what went wrong; the traceback of what nobody foresaw goes to the log."""
    if isinstance(error, (AslsegError, EngineBusyError)):
        return str(error)
    logger.error("The panel met something that was not foreseen", exc_info=error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]
    text = _("Something went wrong that was not foreseen ({reason}). The log says more: {path}")
    return text.format(reason=reason, path=log_path())


def log_path() -> str:
    """Return where the log of the application is."""
    model: Any = getattr(slicer.app, "errorLogModel", None)
    path = "" if model is None else str(getattr(model(), "filePath", "") or "")
    return path or _("Help > Report a bug")
