"""The command line shows examples and progress, stops cleanly, and says errors in one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from aslseg import __version__
from aslseg.batch import FolderSummary
from aslseg.cli.console import find_run, parse_targets
from aslseg.cli.main import app
from aslseg.cli.progress import ProgressView, duration, title, watched
from aslseg.cli.runs import state_of
from aslseg.cli.settings import base_config, changed
from aslseg.config import RunConfig
from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import CancelledError, ConfigError, RunError, as_typed_command
from aslseg.events import CancelToken, Metric, Monitor, Notice, Progress
from aslseg.project.image_digests import check_images
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder, create_run
from aslseg.project.running import running
from aslseg.targets import LIVER_TARGETS, Target
from support.command_line import aslseg
from support.synthetic_run import write_run
from support.tiny_project import a_patient, a_tiny_project, tiny_config

GEOMETRY = Geometry.axis_aligned((5, 24, 24), (4.0, 3.0, 3.0))
COMMANDS = ("init", "train", "segment", "evaluate", "status", "weights", "export", "demo")


def a_labelmap() -> Labelmap:
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[1:4, 6:18, 6:18] = 1
    labels[2, 8:12, 8:12] = 2
    return Labelmap(labels, GEOMETRY)


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Folder with `ct/` of four images and `seg/` of three label maps."""
    for number in range(1, 5):
        voxels = rng.normal(0, 20, GEOMETRY.shape).astype(np.int16) + 90 * a_labelmap().labels
        write_volume(Volume(voxels, GEOMETRY), tmp_path / "ct" / f"c{number}.nii.gz")
        if number < 4:
            write_labelmap(a_labelmap(), tmp_path / "seg" / f"c{number}.nii.gz")
    return tmp_path


@pytest.fixture
def project(data: Path) -> Path:
    words = ("init", data / "project", data / "ct", "--labels", data / "seg")
    assert aslseg(*words, "--validation", "c3", "--labelled", "c1").exit_code == 0
    return data / "project"


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command_shows_examples(self, command: str) -> None:
        result = aslseg(command, "--help")
        assert result.exit_code == 0
        assert f"aslseg {command} " in result.output.partition("Examples:")[2] + " "

    def test_the_first_page_lists_all_commands_in_a_few_lines(self) -> None:
        result = aslseg("--help")
        assert all(command in result.output for command in COMMANDS)
        assert "not a medical device" in result.output

    def test_the_version_is_that_of_the_library(self) -> None:
        assert aslseg("--version").output == f"aslseg {__version__}\n"

    def test_help_needs_no_torch(self) -> None:
        script = "import sys; import aslseg.cli.main; sys.exit('torch' in sys.modules)"
        folder = Path(__file__).resolve().parents[3] / "Logic"
        assert (
            subprocess.run([sys.executable, "-c", script], cwd=folder, check=False).returncode == 0
        )

    @pytest.mark.parametrize(
        "words", [("nonsense",), ("init",), ("train", "x", "--nonsense")], ids=lambda w: w[-1]
    )
    def test_misuse_has_exit_code_2(self, words: tuple[str, ...]) -> None:
        assert aslseg(*words).exit_code == 2


class TestErrors:
    def test_an_error_is_one_sentence_on_stderr(self, tmp_path: Path) -> None:
        result = aslseg("status", tmp_path / "nowhere")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr

    def test_debug_lets_the_traceback_through(self, tmp_path: Path) -> None:
        result = aslseg("--debug", "status", tmp_path / "nowhere")
        assert result.exception is not None
        assert type(result.exception).__name__ == "ProjectError"

    @pytest.mark.parametrize("error", [CancelledError("Stopped."), KeyboardInterrupt()])
    def test_a_stop_has_exit_code_130(
        self, monkeypatch: pytest.MonkeyPatch, project: Path, error: BaseException
    ) -> None:
        def stop(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("aslseg.runs.start_run", stop)
        result = aslseg("train", project)
        assert result.exit_code == 130
        assert "Stopped." in result.stderr


class TestInit:
    def test_a_project_is_made_from_folders(self, project: Path) -> None:
        made = open_project(project)
        assert [case.id for case in made.labelled] == ["c1"]
        assert [case.id for case in made.unlabelled] == ["c2", "c4"]
        assert [case.id for case in made.validation] == ["c3"]
        assert made.targets == LIVER_TARGETS

    def test_a_hidden_label_is_named_nowhere(self, project: Path) -> None:
        assert not list((project / "labels").glob("c2*"))
        assert "seg" not in (project / "project.json").read_text(encoding="utf-8")

    def test_targets_are_those_that_are_typed(self, data: Path) -> None:
        words = ("init", data / "p", data / "ct", "--labels", data / "seg")
        result = aslseg(*words, "--target", "organ=1", "--target", "cyst=2:organ")
        assert result.exit_code == 0
        assert "Targets: organ=1, cyst=2:organ." in result.stdout
        assert "None lies inside" not in result.stdout
        expected = (Target(name="organ", value=1), Target(name="cyst", value=2, inside="organ"))
        assert open_project(data / "p").targets == expected

    @pytest.mark.parametrize("validation", [(), ("--validation", "c2")])
    def test_it_says_what_happens_without_validation(
        self, data: Path, validation: tuple[str, ...]
    ) -> None:
        words = ("init", data / "p", data / "ct", "--labels", data / "seg", *validation)
        shown = aslseg(*words).stdout
        told = "cross-validation decides how far SAM is followed and which round is best."
        assert (told in " ".join(shown.split())) == (not validation)

    def test_a_decathlon_task_brings_its_targets(self, data: Path) -> None:
        entries = [{"image": "./ct/c1.nii.gz", "label": "./seg/c1.nii.gz"}]
        labels = {"0": "background", "1": "liver", "2": "cancer"}
        task = {"modality": {"0": "CT"}, "labels": labels, "training": entries, "test": []}
        (data / "dataset.json").write_text(json.dumps(task))
        result = aslseg("init", data / "p", data / "dataset.json")
        assert result.exit_code == 0
        assert [target.name for target in open_project(data / "p").targets] == ["liver", "cancer"]
        assert "--target liver=1 --target cancer=2:liver" in " ".join(result.stdout.split())

    def test_a_label_map_of_the_images_size_on_another_grid_is_asked_about(
        self, data: Path
    ) -> None:
        moved = GEOMETRY.ijk_to_ras.copy()
        moved[:3, 3] += (4 * moved[:3, 0]).astype(float)
        odd = Labelmap(a_labelmap().labels, Geometry(GEOMETRY.shape, moved))
        write_labelmap(odd, data / "seg" / "c1.nii.gz")
        words = ("init", data / "p", data / "ct", "--labels", data / "seg")
        refused = aslseg(*words)
        assert refused.exit_code == 1
        assert "another grid (first voxels" in refused.stderr
        assert not (data / "p").exists()
        assert aslseg(*words, "--same-size", "voxels").exit_code == 0
        kept = read_labelmap(data / "p" / "labels" / "c1.nii.gz").labels
        assert (kept == a_labelmap().labels).all()
        words = ("init", data / "q", *words[2:])
        assert aslseg(*words, "--same-size", "header").exit_code == 0
        kept = read_labelmap(data / "q" / "labels" / "c1.nii.gz").labels
        assert (kept[:, :, 4:] == a_labelmap().labels[:, :, :-4]).all()
        scored = ("evaluate", data / "q" / "labels", data / "seg")
        assert aslseg(*scored).exit_code == 1
        assert aslseg(*scored, "--same-size", "header").exit_code == 0

    def test_an_unknown_case_is_refused_and_nothing_is_left(self, data: Path) -> None:
        words = ("init", data / "p", data / "ct", "--labels", data / "seg")
        result = aslseg(*words, "--validation", "c9")
        assert result.exit_code == 1
        assert "c9" in result.stderr
        assert not (data / "p").exists()


class TestTargets:
    @pytest.mark.parametrize("text", ["liver", "liver=x", "=1", "liver=0"])
    def test_what_is_no_target_is_refused(self, text: str) -> None:
        with pytest.raises(typer.BadParameter, match="is no target"):
            parse_targets([text])

    def test_liver_and_tumour_are_the_default(self) -> None:
        assert parse_targets(None) == LIVER_TARGETS


class TestSettings:
    def test_single_settings_go_on_top(self) -> None:
        config = changed(RunConfig(), ["rounds=3", "sam.model=none", "organ.learning_rate=0.01"])
        assert (config.rounds, config.sam.model, config.organ.learning_rate) == (3, "none", 0.01)
        assert config.lesion == RunConfig().lesion

    @pytest.mark.parametrize("setting", ["rounds=0", "nonsense=1", "sam.nonsense=1"])
    def test_what_cannot_be_set_is_named(self, setting: str) -> None:
        with pytest.raises(ConfigError, match=setting.partition("=")[0]):
            changed(RunConfig(), [setting])

    @pytest.mark.parametrize("setting", ["rounds", "rounds.x=1"])
    def test_what_is_no_setting_is_refused(self, setting: str) -> None:
        with pytest.raises(typer.BadParameter, match="is no setting"):
            changed(RunConfig(), [setting])

    def test_preset_and_file_exclude_each_other(self, tmp_path: Path) -> None:
        with pytest.raises(typer.BadParameter, match="not both"):
            base_config("quick", tmp_path / "x.json", default="quick")

    def test_a_file_is_preferred_to_the_default(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text('{"rounds": 5}')
        assert base_config(None, tmp_path / "x.json", default="quick").rounds == 5
        assert base_config(None, None, default="demo").preset == "demo"


class TestStatus:
    def test_a_project_without_runs_says_what_is_next(self, project: Path) -> None:
        result = aslseg("status", project)
        assert "1 labelled, 2 unlabelled, 1 validation, 0 test volumes" in result.output
        assert f"aslseg train {project}" in result.output

    def test_a_label_of_which_no_slice_counts_is_none_of_the_labelled(self, project: Path) -> None:
        aslseg("cases", project, "--complete", "c1=none")
        output = " ".join(aslseg("status", project).output.split())
        assert "0 labelled, 2 unlabelled, 1 validation, 0 test volumes" in output
        assert "No slice of the label map counts: c1." in output

    def test_the_scores_of_the_latest_run_are_shown(self, project: Path) -> None:
        write_run(project / "runs" / "one", {"c3": a_labelmap()})
        result = aslseg("status", project, "--report")
        assert "Final label" in result.output
        assert "0.950" in result.output
        assert (project / "runs" / "one" / "report.html").is_file()

    def test_lesions_are_counted_and_the_round_that_is_kept_is_named(self, project: Path) -> None:
        run = RunFolder(write_run(project / "runs" / "one", {"c3": a_labelmap()}))
        assert "label maps are those of" not in aslseg("status", project).output
        run.write_status(best_round=1)
        lines = aslseg("status", project).output.splitlines()
        head = next(line.split() for line in lines if line.startswith("Round  Source"))
        assert head == ["Round", "Source", "liver", "tumour", "found", "false", "Volumes"]
        final = next(line for line in lines if line.startswith("2      Final label"))
        assert final.split()[-5:] == ["2", "of", "3", "1.0", "1"]
        assert "The label maps are those of round 1, whose final labels scored best." in lines

    def test_lesions_that_were_not_scored_are_not_explained(self, project: Path) -> None:
        run = write_run(project / "runs" / "one", {"c3": a_labelmap()})
        for table in run.glob("round-*/metrics.csv"):
            lines = table.read_text().splitlines(keepends=True)
            table.write_text("".join(line for line in lines if ",tumour," not in line))
        output = aslseg("status", project).output
        assert "Final label" in output
        assert "found:" not in output

    def test_a_run_without_sam_is_marked(self, project: Path) -> None:
        write_run(project / "runs" / "one", {"c3": a_labelmap()}, sam="none")
        result = aslseg("status", project)
        assert "RUN WITHOUT SAM" in result.output
        assert "Final label (without SAM)" in result.output

    def test_a_run_that_nobody_works_on_was_interrupted(self, tmp_path: Path) -> None:
        run = create_run(tmp_path, RunConfig(), "one")
        with running(run, Monitor()):
            assert state_of(run) == "running"
            run.write_status(state="running")
        run.write_status(state="running")
        assert state_of(run).startswith("interrupted")

    def test_a_run_is_found_by_folder_project_or_name(self, tmp_path: Path) -> None:
        first = create_run(tmp_path, RunConfig(), "first").path
        second = create_run(tmp_path, RunConfig(), "second").path
        os.utime(first / "config.json", (1, 1))
        assert find_run(first).path == first
        assert find_run(tmp_path).path == second
        assert find_run(tmp_path, "first").path == first
        with pytest.raises(RunError, match="third"):
            find_run(tmp_path, "third")


class TestEvaluate:
    def test_the_truth_scores_one_against_itself(self, data: Path) -> None:
        scores = data / "scores.csv"
        result = aslseg("evaluate", data / "seg", data / "seg", "--csv", scores)
        assert result.exit_code == 0
        assert result.stdout.count("1.000") >= 3 * 2 * 2 + 2  # Dice, Jaccard; two means
        assert len(scores.read_text(encoding="utf-8").splitlines()) == 1 + 3 * 2

    def test_scores_take_the_place_of_no_label_map(self, data: Path) -> None:
        label_map = next((data / "seg").glob("*.nii.gz"))
        before = label_map.read_bytes()
        result = aslseg("evaluate", data / "seg", data / "seg", "--csv", label_map)
        assert result.exit_code == 2
        assert label_map.read_bytes() == before

    def test_folders_without_a_common_name_are_refused(self, data: Path) -> None:
        write_labelmap(a_labelmap(), data / "other" / "x.nii.gz")
        result = aslseg("evaluate", data / "other", data / "seg")
        assert result.exit_code == 1
        assert "must be named alike" in result.stderr


class TestSegment:
    @pytest.fixture
    def a_run(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
        class Found:
            specialist, sam, refined = a_labelmap(), None, a_labelmap()

        class Ensemble:
            def segment(self, _volume: Volume, _monitor: Monitor) -> type[Found]:
                return Found

        monkeypatch.setattr("aslseg.inference.loading.load_ensemble", lambda *_: Ensemble())
        run = create_run(project, RunConfig(), "one")
        run.write_status(best_round=1)
        return run

    def test_each_image_gets_a_label_map(self, a_run: RunFolder, data: Path) -> None:
        images = (data / "ct" / "c1.nii.gz", data / "ct" / "c4.nii.gz")
        result = aslseg("segment", a_run.path, *images, "-o", data / "out", "--predictions")
        assert result.exit_code == 0, result.output
        names = sorted(path.name for path in (data / "out").iterdir())
        assert names == [
            "c1.nii.gz", "c1.specialist.nii.gz", "c4.nii.gz", "c4.specialist.nii.gz", "cases.csv",
            "lesions.csv", "origin.json",
        ]  # fmt: skip
        labels = read_labelmap(data / "out" / "c4.nii.gz")
        np.testing.assert_array_equal(labels.labels, a_labelmap().labels)

    def test_a_label_map_is_not_replaced_unasked(self, a_run: RunFolder, data: Path) -> None:
        words = ("segment", a_run.path, data / "ct" / "c1.nii.gz", "-o", data / "seg")
        assert aslseg(*words).exit_code == 1
        assert aslseg(*words, "--force").exit_code == 0
        again = aslseg(*words)
        assert again.exit_code == 0
        assert "1 volumes were done already" in again.stderr

    def test_a_folder_is_segmented_but_for_what_is_damaged(
        self, a_run: RunFolder, data: Path
    ) -> None:
        (data / "ct" / "c2.nii.gz").write_bytes(b"no image")
        result = aslseg("segment", a_run.path, data / "ct", "-o", data / "out")
        assert result.exit_code == 1
        assert "1 volumes could not be segmented (c2: " in result.stderr
        assert [line.rpartition("/")[2] for line in result.stdout.splitlines()] == [
            "c1.nii.gz", "c3.nii.gz", "c4.nii.gz",
        ]  # fmt: skip

    def test_a_missing_image_is_named_before_any_work(self, a_run: RunFolder, data: Path) -> None:
        images = (data / "ct" / "c1.nii.gz", data / "missing.nii.gz")
        result = aslseg("segment", a_run.path, *images, "-o", data / "out")
        assert result.exit_code == 1
        assert "missing.nii.gz does not exist" in result.stderr
        assert not (data / "out").exists()


class TestSpaces:
    def test_commands_to_type_are_quoted_as_a_shell_asks(self, data: Path) -> None:
        project = data / "my project"
        words = ("init", project, data / "ct", "--labels", data / "seg", "--labelled", "c1,c2")
        assert f"Next: {as_typed_command('aslseg', 'train', project)}\n" in aslseg(*words).output
        (data / "ct").rename(data / "moved")
        told = " ".join(aslseg("status", project).stderr.split())
        line = told.partition("(aslseg relocate ")[2].partition(")")[0]
        assert line.replace('"', "'") == f"'{project}' {(data / 'ct').resolve()} NEW_FOLDER"


class TestRelocate:
    def test_status_says_what_was_moved_and_the_command_finds_it(
        self, project: Path, data: Path
    ) -> None:
        (data / "ct").rename(data / "moved")
        old = (data / "ct").resolve()
        assert f"aslseg relocate {project} {old} NEW_FOLDER" in aslseg("status", project).stderr
        result = aslseg("relocate", project, old, data / "moved")
        assert result.exit_code == 0, result.output
        assert "4 images" in result.output
        assert "Problem" not in aslseg("status", project).stderr
        again = aslseg("relocate", project, old, data / "moved")
        assert again.exit_code == 1
        assert "has no image in" in again.stderr


class TestExport:
    def test_people_s_labels_are_exported_alone(self, project: Path, data: Path) -> None:
        words = ("export", project, data / "Dataset501_Liver", "--format", "nnunet")
        result = aslseg(*words)
        assert result.exit_code == 0, result.output
        assert "label maps of 2 cases (2 given)" in result.output
        names = sorted(path.name for path in (data / "Dataset501_Liver" / "labelsTr").iterdir())
        assert names == ["c1.nii.gz", "c3.nii.gz"]

    def test_those_of_a_run_fill_the_gaps(self, project: Path, data: Path) -> None:
        run = create_run(project, RunConfig(), "one")
        run.write_status(best_round=1)
        for case in ("c2", "c4"):
            write_labelmap(a_labelmap(), run.predictions(1, case) / "refined.nii.gz")
        result = aslseg("export", project, data / "out", "--labels", "all", "--case", "c1,c2")
        assert result.exit_code == 0, result.output
        assert "(1 ai, 1 given)" in result.output
        assert sorted(path.name for path in (data / "out").iterdir()) == [
            "c1.nii.gz", "c2.nii.gz", "cases.csv", "lesions.csv", "origin.json",
        ]  # fmt: skip

    def test_what_is_left_out_is_told(self, project: Path, data: Path) -> None:
        result = aslseg("export", project, data / "out", "--labels", "all")
        assert "No run has a finished round" in result.stderr
        assert "Without a label map of those asked for: c2, c4." in result.stderr

    def test_what_is_measured_alone_is_not_said_to_be_written(
        self, project: Path, data: Path
    ) -> None:
        tables = aslseg("export", project, data / "tables", "--format", "tables")
        assert tables.exit_code == 0, tables.output
        assert "label maps of" not in tables.stdout
        assert "measured 2 cases (2 given)." in tables.stdout
        files = aslseg("export", project, data / "out")
        assert "label maps of 2 cases (2 given)." in files.stdout

    def test_no_dicom_image_is_no_dicom_segmentation(self, project: Path, data: Path) -> None:
        result = aslseg("export", project, data / "out", "--format", "dicom_seg")
        assert result.exit_code == 1
        assert "has an image that is a folder of DICOM slices" in result.stderr
        assert not (data / "out").exists()

    def test_another_file_is_replaced_by_force_alone(self, project: Path, data: Path) -> None:
        (data / "out").mkdir()
        (data / "out" / "c1.nii.gz").write_text("mine")
        refused = aslseg("export", project, data / "out")
        assert refused.exit_code == 1
        assert "--force" in refused.stderr
        assert (data / "out" / "c1.nii.gz").read_text() == "mine"
        assert aslseg("export", project, data / "out", "--force").exit_code == 0


class TestWeights:
    @pytest.fixture(autouse=True)
    def _none_of_a_persons_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ASLSEG_WEIGHTS", raising=False)

    def test_nothing_is_here_at_first(self) -> None:
        result = aslseg("weights", "list")
        assert "mobile_sam" in result.output
        assert "not here" in result.output
        assert "Apache-2.0" in result.output
        assert "No weights" in aslseg("weights", "verify").output
        assert "nothing" in aslseg("weights", "remove", "mobile_sam").output

    def test_absent_weights_cannot_be_verified(self) -> None:
        result = aslseg("weights", "verify", "mobile_sam")
        assert result.exit_code == 1
        assert "aslseg weights get mobile_sam" in result.stderr

    def test_an_unknown_name_is_refused(self) -> None:
        result = aslseg("weights", "get", "nonsense")
        assert result.exit_code == 1
        assert "mobile_sam" in result.stderr

    def test_weights_at_hand_are_verified(
        self, monkeypatch: pytest.MonkeyPatch, shared_folder: Path
    ) -> None:
        monkeypatch.setenv("ASLSEG_WEIGHTS", str(shared_folder / "weights"))
        assert "verified" in aslseg("weights", "verify", "mobile_sam").output
        assert "mobile_sam.pt" in aslseg("weights", "get", "vit_t").output


class TestProgressView:
    @pytest.fixture
    def console(self) -> Console:
        return Console(record=True, width=120, force_terminal=False)

    def test_a_log_gets_lines_now_and_then(
        self, console: Console, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter([0.0, 0.0, *range(10, 60, 10), 50.4, 50.4, 50.5])
        monkeypatch.setattr("aslseg.cli.progress.time.monotonic", lambda: next(clock))
        roi = ProgressView(console)
        for step in range(6):
            roi(Progress("train liver", step, 5, 30.0, round=2))
            roi(Metric("loss", 0.5, step, "train liver", round=2))
        roi(Progress("short", 0, 1))
        roi(Progress("short", 1, 1))
        roi(Notice("Something [odd]."))
        assert console.export_text().splitlines() == [
            "     Round 2: Train liver: 2 of 5, 30 s left",
            "     Round 2: Train liver: 4 of 5, 30 s left",
            "done Round 2: Train liver (50 s)",
            "Note: Something [odd].",
        ]

    @pytest.mark.parametrize(
        ("event", "expected"),
        [
            (Progress("sam", 0, 1), "Tuning SAM"),
            (Progress("specialist-x", 0, 1, round=2), "Round 2: Specialist network: x"),
        ],
    )
    def test_stages_are_named_for_people(self, event: Progress, expected: str) -> None:
        assert title(event) == expected

    def test_a_terminal_gets_a_bar_with_the_time_left(self) -> None:
        console = Console(record=True, width=120, force_terminal=True)
        roi = ProgressView(console)
        with roi.bars:
            roi(Progress("train", 1, 3, 125.0))
            console.print(roi.bars.get_renderable())
        text = console.export_text()
        assert "1/3" in text
        assert "2 min 05 s left" in text

    @pytest.mark.parametrize(
        ("seconds", "expected"),
        [(0.2, "0 s"), (59.4, "59 s"), (65, "1 min 05 s"), (7800, "2 h 10 min")],
    )
    def test_durations_read_as_people_say_them(self, seconds: float, expected: str) -> None:
        assert duration(seconds) == expected


class TestStopping:
    def test_ctrl_c_asks_first_and_interrupts_then(self, capfd: pytest.CaptureFixture[str]) -> None:
        console = Console(record=True, width=120)
        before = signal.getsignal(signal.SIGINT)
        with watched(console) as monitor:
            signal.raise_signal(signal.SIGINT)
            assert monitor.token.is_cancelled
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert "Stopping after this step" in capfd.readouterr().err
        assert signal.getsignal(signal.SIGINT) is before

    def test_ctrl_c_ends_a_process_with_130_and_no_traceback(self) -> None:
        script = textwrap.dedent("""
            import pathlib, sys, time
            import aslseg.runs, aslseg.project.project
            from aslseg.cli import main as cli

            class Opened:
                preset, folder = None, pathlib.Path("somewhere")

            def work(project, config, monitor, run_id=None):
                print("working", flush=True)
                for _ in monitor.track(range(1000), "work"):
                    time.sleep(0.02)

            aslseg.project.project.open_project = lambda folder: Opened()
            aslseg.runs.start_run = work
            sys.argv = ["aslseg", "train", "somewhere"]
            cli.main()
        """)
        folder = Path(__file__).resolve().parents[3] / "Logic"
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "aslseg train somewhere --resume" in errors
        assert "Traceback" not in errors

    def test_a_monitor_that_was_cancelled_stops_between_steps(self) -> None:
        monitor = Monitor(token=CancelToken())
        monitor.token.cancel()
        with pytest.raises(CancelledError):
            list(monitor.track([1], "work"))


def test_what_nobody_foresaw_is_a_sentence_and_a_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> None:
        msg = "unforeseen thing"
        raise KeyError(msg)

    monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("aslseg.project.project.open_project", fails)
    result = CliRunner().invoke(app, ["status", str(tmp_path)])
    log = tmp_path / "cache" / "logs" / "errors.log"
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "not foreseen (KeyError: 'unforeseen thing')" in result.output
    assert f"report this with the log {log}" in result.output
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert "aslseg status" in log.read_text(encoding="utf-8")
    debugged = CliRunner().invoke(app, ["--debug", "status", str(tmp_path)])
    assert isinstance(debugged.exception, KeyError)


def test_weights_without_a_published_checksum_are_not_called_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASLSEG_WEIGHTS", str(tmp_path))
    (tmp_path / "medsam_vit_b.pth").write_bytes(b"anything")
    shown = CliRunner().invoke(app, ["weights", "verify", "medsam"]).output
    assert "medsam: NOT verified" in shown
    assert "medsam: verified" not in shown
    listed = CliRunner().invoke(app, ["weights", "list"]).output
    assert "not verified" in next(line for line in listed.splitlines() if "medsam" in line)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b"])
def test_a_run_is_never_written_outside_of_the_project(tmp_path: Path, name: str) -> None:
    project = a_tiny_project(tmp_path / "p")
    before = sorted(tmp_path.rglob("*"))
    for more in ([], ["--resume"], ["--more", "1"]):
        result = CliRunner().invoke(app, ["train", str(project.folder), "--run", name, *more])
        assert result.exit_code == 1
        assert "cannot be the name of a run" in result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_replaced_image_is_told_and_taken_by_command(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    write_volume(a_patient(31)[0], project.image_path(project.case("c0")))
    result = CliRunner().invoke(app, ["train", str(project.folder)])
    assert f"aslseg renew {project.folder} c0" in result.output
    unsaid = CliRunner().invoke(app, ["renew", str(project.folder), "c0"])
    assert unsaid.exit_code == 1
    assert "made on the image of before" in unsaid.output
    said = CliRunner().invoke(app, ["renew", str(project.folder), "c0", "--set-aside"])
    assert said.exit_code == 0
    assert open_project(project.folder).case("c0").label is None
    check_images(project.folder, open_project(project.folder).cases)


def test_a_later_run_without_a_finished_round_blocks_neither_status_nor_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = a_tiny_project(tmp_path)
    one = write_run(project.folder / "runs" / "one", {"c5": a_patient(5)[1]})
    RunFolder(one).write_status(best_round=2)
    later = create_run(project.folder, tiny_config(), "two")
    later.write_status(state="failed", seconds_left=4321.0)
    said = "Run 'two' is later, and has no finished round yet: this is of run 'one'"
    shown = aslseg("status", project.folder)
    assert shown.exit_code == 0
    assert said in shown.stderr
    assert "Dice on validation volumes" in shown.output
    assert "1 h" not in shown.output  # nothing goes on
    used: list[Path] = []

    def segment_folder(run: RunFolder, images: Any, output: Path, *_: Any, **__: Any) -> Any:
        used.append(run.path)
        return FolderSummary(output, (), (), {})

    monkeypatch.setattr("aslseg.batch.segment_folder", segment_folder)
    assert said in aslseg("segment", project.folder, "ct.nii", "-o", tmp_path / "out").stderr
    assert used == [one]
    named = aslseg("status", project.folder, "--run", "two")
    assert "later" not in named.stderr
    assert "No validation volume has been scored" in named.output


@pytest.mark.parametrize("name", ["status.json", "config.json", "round-02/reliability.csv"])
def test_a_damaged_file_of_a_run_is_one_sentence(tmp_path: Path, name: str) -> None:
    project = a_tiny_project(tmp_path)
    path = write_run(project.folder / "runs" / "one", {"c5": a_patient(5)[1]})
    (path / name).write_text("[" * 100_000)
    result = CliRunner().invoke(app, ["status", str(project.folder)])
    assert result.exit_code == 1
    assert "Error: " in result.output
    assert Path(name).name in result.output
    assert "foreseen" not in result.output
