"""A stage that cross-validation finds worse than in the round before is not taken over."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from aslseg.context import RunContext
from aslseg.inference.loading import best_round, load_ensemble
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project, select_cases
from aslseg.project.project import Project, open_project
from aslseg.project.run_tables import (
    CROSS_VALIDATION_COLUMNS,
    HeldOutDice,
    read_held_out_dice,
    write_table,
)
from aslseg.runs import continue_run, resume_run, start_run
from aslseg.training import rounds
from aslseg.training.stage_choice import keep_better_stages
from support.run_contexts import a_run_context
from support.tiny_project import LABELLED, a_tiny_project, tiny_config, write_patients
from support.whole_runs import rows_of, weights_in

STAGE_FILES = (
    "specialist-{}.safetensors",
    "specialist-{}-1of3.safetensors",
    "crossfit/without-group-1/specialist-{}.safetensors",
    "candidates-{}.safetensors",
)
OWN_FILES = ("sam.safetensors", "adaptation-liver.safetensors", "adaptation-tumour.safetensors")


def without_validation(folder: Path) -> Project:
    files = [
        CaseFiles(one.id, one.image, one.label if one.id in LABELLED else None)
        for one in write_patients(folder / "data")[:5]
    ]
    return create_project(folder / "project", select_cases(files, labelled=LABELLED))


def a_context(project: Project) -> RunContext:
    return a_run_context(project, tiny_config())


def write_round(context: RunContext, number: int, liver: float, tumour: float) -> Path:
    """Write files that say which round they are of, and a table of cross-validation."""
    folder = context.folder.round(number)
    names = [name.format(stage) for stage in ("liver", "tumour") for name in STAGE_FILES]
    for name in (*names, *OWN_FILES):
        if name != "candidates-liver.safetensors":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"round {number}")
    values = {"liver": liver, "tumour": tumour}
    write_table(
        folder / "cross_validation.csv",
        CROSS_VALIDATION_COLUMNS,
        [
            {"case": case, "target": target, "dice": dice, "round": number}
            for target, dice in values.items()
            for case in LABELLED
        ],
    )
    return folder


def origin(folder: Path, stage: str) -> set[str]:
    paths = (folder / name.format(stage) for name in STAGE_FILES)
    return {path.read_text() for path in paths if path.exists()}


@pytest.mark.parametrize(
    ("liver", "tumour", "kept"),
    [
        (0.9, 0.3, ["tumour"]),
        (0.7, 0.5, ["liver"]),
        (0.7, 0.3, ["liver", "tumour"]),
        (0.9, 0.5, []),
        (0.8, 0.4, []),
    ],
    ids=["lesions worse", "organs worse", "both worse", "both better", "as good"],
)
def test_each_stage_is_that_of_the_round_in_which_it_was_better(
    tmp_path: Path, liver: float, tumour: float, kept: list[str]
) -> None:
    context = a_context(without_validation(tmp_path))
    write_round(context, 1, 0.8, 0.4)
    folder = write_round(context, 2, liver, tumour)
    assert keep_better_stages(context, folder) == kept
    for stage in ("liver", "tumour"):
        assert origin(folder, stage) == {"round 1" if stage in kept else "round 2"}
    assert {(folder / name).read_text() for name in OWN_FILES} == {"round 2"}
    best = {"liver": max(liver, 0.8), "tumour": max(tumour, 0.4)}
    rows = {(row.case, row.target): row for row in read_held_out_dice(folder)}
    assert rows == {
        (case, target): HeldOutDice(case, target, dice, 1 if target in kept else 2)
        for case in LABELLED
        for target, dice in best.items()
    }
    assert context.folder.round(1).joinpath(OWN_FILES[0]).read_text() == "round 1"


def test_a_stage_is_carried_through_rounds_that_do_not_better_it(tmp_path: Path) -> None:
    context = a_context(without_validation(tmp_path))
    write_round(context, 1, 0.8, 0.4)
    keep_better_stages(context, write_round(context, 2, 0.9, 0.3))
    folder = write_round(context, 3, 0.85, 0.35)
    assert keep_better_stages(context, folder) == ["liver", "tumour"]
    assert origin(folder, "liver") == {"round 2"}
    assert origin(folder, "tumour") == {"round 1"}
    assert {row.target: row.round for row in read_held_out_dice(folder)} == {
        "liver": 2,
        "tumour": 1,
    }


@pytest.mark.parametrize("changed", [{"retrained_rounds": [1, 2]}, {"taught_rounds": [2]}])
def test_stages_are_not_compared_after_labels_or_decisions_have_changed(
    tmp_path: Path, changed: dict[str, list[int]]
) -> None:
    context = a_context(without_validation(tmp_path))
    write_round(context, 1, 0.8, 0.4)
    folder = write_round(context, 2, 0.7, 0.3)
    context.folder.write_status(**changed)
    assert keep_better_stages(context, folder) == []
    assert origin(folder, "tumour") == {"round 2"}


def test_stages_are_not_compared_where_labelled_cases_validate(tmp_path: Path) -> None:
    context = a_context(a_tiny_project(tmp_path))
    write_round(context, 1, 0.8, 0.4)
    folder = write_round(context, 2, 0.7, 0.3)
    assert keep_better_stages(context, folder) == []
    assert origin(folder, "tumour") == {"round 2"}


def test_stages_are_not_compared_by_other_cases(tmp_path: Path) -> None:
    context = a_context(without_validation(tmp_path))
    table = write_round(context, 1, 0.8, 0.4) / "cross_validation.csv"
    write_table(table, CROSS_VALIDATION_COLUMNS, rows_of(table)[1:])
    folder = write_round(context, 2, 0.7, 0.3)
    assert keep_better_stages(context, folder) == []


@pytest.mark.slow
def test_a_run_segments_with_the_better_stages_of_both_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    project = without_validation(tmp_path)
    run = start_run(project, tiny_config(rounds=1, crossfit_share=1.0), run_id="a")
    table = run.round(1) / "cross_validation.csv"
    said = {"liver": "0.0", "tumour": "1.0"}
    write_table(
        table,
        CROSS_VALIDATION_COLUMNS,
        [{**row, "dice": said[row["target"]]} for row in rows_of(table)],
    )
    copy = shutil.copytree(project.folder, tmp_path / "stopped")
    continue_run(project, "a")
    name = "specialist-{}.safetensors"
    first, second = (
        {stage: weights_in(run.round(n) / name.format(stage))[0] for stage in said} for n in (1, 2)
    )
    assert second["tumour"] == first["tumour"]
    assert second["liver"] != first["liver"]
    assert best_round(run) == 2
    ensemble = load_ensemble(run)
    assert ensemble.lesion_stage is not None
    earlier = ensemble.lesion_stage.earlier[-1].networks["tumour"].state_dict()
    known = weights_in(run.round(1) / "specialist-tumour-2of3.safetensors")[0]
    assert {name: known[name] for name in earlier} == {
        name: tensor.numpy().tobytes() for name, tensor in earlier.items()
    }

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "mapped", stopped)
    with pytest.raises(KeyboardInterrupt):
        continue_run(open_project(copy), "a")
    monkeypatch.undo()
    resumed = resume_run(open_project(copy), "a")
    for case in project.unlabelled:
        shown = (one.predictions(2, case.id) / "refined.nii.gz" for one in (run, resumed))
        assert len({path.read_bytes() for path in shown}) == 1
