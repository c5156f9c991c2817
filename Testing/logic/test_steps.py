"""Steps of a run have names that a person understands."""

from __future__ import annotations

import pytest

from aslseg.steps import step_title


@pytest.mark.parametrize(
    ("task", "title"),
    [
        ("cross-fitted-1-tumour", "checking network 1: tumour"),
        ("cross-fitted-alone-2-liver", "checking network 2 without SAM: liver"),
        ("specialist-liver", "specialist network: liver"),
        ("adaptation-tumour", "network that joins specialist and SAM: tumour"),
        ("sam", "tuning SAM"),
        ("Segmenting all cases", "Segmenting all cases"),
        ("sample", "sample"),
    ],
)
def test_a_step_is_named_in_words(task: str, title: str) -> None:
    assert step_title(task) == title
