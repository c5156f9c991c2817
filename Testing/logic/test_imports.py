"""Parts of packages are imported alone, and what they can do without is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aslseg.imports import without_imports


def test_modules_that_are_left_out_can_be_imported_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "left_out_extra.py").write_text("value = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with without_imports("left_out_extra", "json"):
        with pytest.raises(ImportError, match="left_out_extra"):
            import left_out_extra
        assert sys.modules["json"] is json, "what was imported before stays"
    import left_out_extra

    assert left_out_extra.value == 1


@pytest.mark.parametrize(
    "door",
    [
        "from aslseg.imports import without_imports\n"
        "with without_imports(*MONAI_EXTRAS):\n    import aslseg.inference.loading",
        "from aslseg.engine.server import load_tasks\nload_tasks()",
    ],
    ids=["segment", "engine"],
)
def test_what_is_left_out_is_not_needed(door: str) -> None:
    script = f"""
import sys
from aslseg.imports import MONAI_EXTRAS
{door}
from monai.networks.nets import DynUNet
print([name for name in MONAI_EXTRAS if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "[]"
