"""The engine; a new network learns drawn slices in a fifth of its steps."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest

from aslseg.engine import server
from support.few_steps import learn_in_few_steps

if __name__ == "__main__":
    learn_in_few_steps(pytest.MonkeyPatch())
    server.main()
