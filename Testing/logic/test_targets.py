"""Parent ROIs are segmented before what lies inside them."""

from __future__ import annotations

import pytest

from aslseg.errors import ConfigError
from aslseg.targets import LIVER_TARGETS, CascadeStage, Target, cascade_stages

LIVER, TUMOUR = LIVER_TARGETS
SPLEEN = Target(name="spleen", value=3)
VESSEL = Target(name="hepatic vessel", value=4, inside="liver")
CYST = Target(name="cyst 1", value=6, inside="liver")
NECROSIS = Target(name="necrosis", value=5, inside="tumour")


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        pytest.param([LIVER], [(None, "liver")], id="one"),
        pytest.param([LIVER, TUMOUR], [(None, "liver"), ("liver", "tumour")], id="nested"),
        pytest.param(
            [TUMOUR, LIVER], [(None, "liver"), ("liver", "tumour")], id="named inside out"
        ),
        pytest.param([LIVER, SPLEEN], [(None, "liver-spleen")], id="side by side"),
        pytest.param(
            [LIVER, SPLEEN, TUMOUR, VESSEL],
            [(None, "liver-spleen"), ("liver", "tumour-hepatic_vessel")],
            id="two in one",
        ),
        pytest.param(
            [NECROSIS, TUMOUR, LIVER],
            [(None, "liver"), ("liver", "tumour"), ("tumour", "necrosis")],
            id="three levels",
        ),
    ],
)
def test_a_stage_holds_what_has_one_parent(
    targets: list[Target], expected: list[tuple[str | None, str]]
) -> None:
    stages = cascade_stages(targets)
    assert [(s.inside.name if s.inside else None, s.name) for s in stages] == expected


def test_the_classes_of_a_stage_keep_the_order_of_the_targets() -> None:
    assert cascade_stages([SPLEEN, LIVER, TUMOUR]) == (
        CascadeStage(None, (SPLEEN, LIVER)),
        CascadeStage(LIVER, (TUMOUR,)),
    )


A, B = Target(name="a", value=1, inside="b"), Target(name="b", value=2, inside="a")


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        pytest.param([], "no target; name at least one", id="none"),
        pytest.param([LIVER, Target(name="liver", value=2)], "must differ", id="one name twice"),
        pytest.param([LIVER, Target(name="spleen", value=1)], "must differ", id="one value twice"),
        pytest.param([TUMOUR], "'tumour' lies inside 'liver', which is no target", id="unknown"),
        pytest.param([A, B], "'a' lies inside itself", id="a loop"),
        pytest.param(
            [
                LIVER,
                SPLEEN,
                CYST,
                CYST.model_copy(update={"name": "Cyst_1", "value": 7, "inside": "spleen"}),
            ],
            "'cyst 1' and of 'Cyst_1' would have one file",
            id="one file of networks",
        ),
        pytest.param([LIVER, Target(name="x", value=9, inside="x")], "'x' lies inside", id="self"),
    ],
)
def test_targets_that_contradict_each_other_are_refused(targets: list[Target], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        cascade_stages(targets)
