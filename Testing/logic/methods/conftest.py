"""A small SAM for every method, and one finished run for the tests of a module.

A module says by a fixture `make_config` which settings its run has.
"""

from __future__ import annotations

import pytest

from aslseg.inference.ensemble import Ensemble
from aslseg.project.run_folder import RunFolder
from support.sam_methods import MakeConfig
from support.whole_runs import ensemble_with_small_sam, run_with_small_sam, use_small_sam


@pytest.fixture(autouse=True)
def _small_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_sam(monkeypatch)


@pytest.fixture(scope="module")
def finished(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_with_small_sam(tmp_path_factory.mktemp("finished"), make_config())


@pytest.fixture(scope="module")
def ensemble(finished: RunFolder) -> Ensemble:
    return ensemble_with_small_sam(finished)
