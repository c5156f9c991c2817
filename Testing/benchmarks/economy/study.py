"""Label a data set in a way: the first cases, then rounds of review and training.

In the work folder lie `starts/` (first label maps and the run trained on them, which several ways
share), `ways/<way>/` with the way's project and its log, and `grown/` and `embeddings/`: what took
long is there, and is not done again. A way that was broken off goes on at the case where it was.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from study_runs import finished_run, print_event

from aslseg import run_names
from aslseg.config import RunConfig
from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.orientation import to_slices
from aslseg.data.volume import Geometry, Labelmap, Labels
from aslseg.events import Monitor
from aslseg.inference.cascade import Specialist
from aslseg.inference.interactive.propagation import SliceSam
from aslseg.inference.loading import context_of, load_ensemble, load_round
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.lesion_decisions import set_lesions_aside
from aslseg.project.project import Project, open_project
from aslseg.project.review_order import review_queue
from aslseg.project.run_folder import RunFolder, open_run
from aslseg.runs import continue_run, resume_run, train_on
from aslseg.targets import lesion_targets, region_mask
from economy.data import DataSet
from economy.desk import Desk, ReviewDesk
from economy.filling import Filler, NewFiller, RunFiller
from economy.growing import Grower
from economy.log import CaseState, CaseWork, Log
from economy.person import label_case, label_slices
from economy.prices import Act
from economy.sight import Quality, Standard, quality_of
from economy.ways import Start, Way

RUN = "study"
SPARSE_SLICES = 5
WEIGHTS = ("*.safetensors", *run_names.FOR_TRAINING, run_names.LOCK)
"""What is left behind when a finished run is only read."""


@dataclass
class Study:
    """A data set, a person, and a place for what they make.

    Attributes:
        data: What is labelled.
        work: Folder of all that is made.
        config: How is trained.
        sam: Lets lesions grow; None where that is not offered.
        standard: What a label map has to be.
        batch: So many cases are reviewed before the run learns from them.
        seed: Of random orders.
        finished: A run of these first cases that is finished: it is copied, not trained.
    """

    data: DataSet
    work: Path
    config: RunConfig
    sam: SliceSam | None
    standard: Standard = field(default_factory=Standard)
    batch: int = 4
    seed: int = 0
    finished: RunFolder | None = None
    _scores: dict[str, Quality] = field(default_factory=dict)

    # -- ways ----------------------------------------------------------------------------------

    def follow(self, name: str, way: Way) -> Log:
        """Label the data set in a way, or go on with it, and return its log."""
        log = Log(self.work / "ways" / name)
        if log.is_done:
            return log
        folder = log.folder / "project"
        if way.shown == "nothing":
            self._by_hand(folder, way, log)
        else:
            self._with_run(folder, way, log)
        missing = set(self.data.images) - {one.case for one in log.work()}
        if missing:
            msg = f"{log.folder} was broken off while {min(missing)} was saved; delete it."
            raise ValueError(msg)
        log.finish()
        return log

    def _by_hand(self, folder: Path, way: Way, log: Log) -> None:
        project = self._project(folder, way.start)
        names = [case.id for case in project.cases]
        if not log.states():
            log.note_states(self._state(name, self._nothing(name), 1) for name in names)
        done = {one.case for one in log.work()}
        for name in self._random(names):
            if name not in done:
                self._work(log, 1, Desk(open_project(folder), name, None, self._grower(way)))

    def _with_run(self, folder: Path, way: Way, log: Log) -> None:
        start = self._started(way.start)
        log.begin_as(start)
        if not (folder / "project.json").exists():
            begun, ignored = start.folder / "project", shutil.ignore_patterns("lock", "cache")
            shutil.copytree(begun, folder, ignore=ignored)
            (folder / "cache").symlink_to((begun / "cache").resolve())
            if self.finished is not None and way.trains_on:
                self._copy_finished(folder, leave=("lock",))
        run = open_run(folder, RUN)
        if way.round and not any(one.round for one in log.states()):
            run.write_status(best_round=way.round)
        elif run.state != "done":
            resume_run(open_project(folder), RUN, Monitor(listener=print_event))
        while self._review_round(folder, way, log):
            self._train_on(open_project(folder), way)
        for name in self.data.first if way.start == "sparse" else ():
            self._complete(folder, name, way, log)

    def _review_round(self, folder: Path, way: Way, log: Log) -> bool:
        """Review a batch of cases; return whether cases are left, after training on them."""
        project, run = open_project(folder), open_run(folder, RUN)
        number = run.best_round
        states = log.states()
        waiting = [case.id for case in project.unlabelled]
        if not any(one.round == number and not one.final for one in states):
            log.note_states(
                self._state(name, self._predicted(run, name, way), number) for name in waiting
            )
        done = [one for one in log.work() if one.round == number]
        order = self._random(waiting)
        if way.order != "random":
            needed = [one.case_id for one in review_queue(project, run, way.order)]
            order = [*needed, *(name for name in order if name not in needed)]
        at_once = len(waiting) if not way.trains_on else max(0, self.batch - len(done))
        for name in order[:at_once]:
            self._work(log, number, self._desk(open_project(folder), run, name, way))
        return way.trains_on and len(waiting) > at_once

    def _desk(self, project: Project, run: RunFolder, name: str, way: Way) -> Desk:
        grower = self._grower(way)
        filler = self._filler(way, run)
        has_lesions = lesion_targets(project.targets)
        if way.shown == "specialist" or not has_lesions:
            labels = read_labelmap(self._prediction(run, name, way))
            return Desk(project, name, labels, grower, filler)
        return ReviewDesk(project, name, run, rejected=way.rejected, grower=grower, filler=filler)

    def _complete(self, folder: Path, name: str, way: Way, log: Log) -> None:
        """Complete a case of which some slices were drawn, from what the run makes of it."""
        project, run = open_project(folder), open_run(folder, RUN)
        if project.case(name).complete_slices is not None:
            volume = project.load_image(project.case(name))
            labels = load_ensemble(run).segment(volume).refined
            number = run.best_round
            grower, filler = self._grower(way), self._filler(way, run)
            self._work(log, number, Desk(project, name, labels, grower, filler))

    def _train_on(self, project: Project, way: Way) -> None:
        monitor = Monitor(listener=print_event)
        has_lesions = lesion_targets(project.targets) and self.config.method == "aslseg"
        if has_lesions and not way.whole:
            train_on(project, RUN, monitor)
        else:
            continue_run(project, RUN, 1, monitor)

    def _work(self, log: Log, number: int, desk: Desk) -> None:
        """Let the person label a case, and note what was done and what has become of it."""
        set_lesions_aside(desk.project.folder, desk.case_id)  # of a time that was broken off
        acts = label_case(desk, self._truth(desk.case_id, desk.geometry), self.standard)
        self._note(log, number, desk, acts)

    def _note(self, log: Log, number: int, desk: Desk, acts: Sequence[Act]) -> None:
        log.note_states([self._state(desk.case_id, desk.shown, number, final=True)])
        log.note_work(CaseWork(number, desk.case_id, tuple(acts)))

    # -- starts --------------------------------------------------------------------------------

    def _started(self, start: Start) -> Log:
        """Return the log of the first label maps, in whose project a run is trained on them."""
        log = Log(self.work / "starts" / start)
        if log.is_done:
            return log
        folder = log.folder / "project"
        project = self._project(folder, start)
        done = {one.case for one in log.work()}
        for name in self.data.first:
            if name not in done:
                desk = Desk(open_project(folder), name)
                if start == "filled":
                    desk.filler = NewFiller(self.data.targets, self.work / "filled")
                self._first(log, desk, start)
        if self.finished is None:
            finished_run(open_project(folder), self.config, RUN)
        else:
            self._copy_finished(project.folder, leave=WEIGHTS)
        log.finish()
        return log

    def _copy_finished(self, folder: Path, leave: Sequence[str]) -> None:
        """Copy the finished run to a project, but for files that are named so."""
        if self.finished is not None:
            ignored = shutil.ignore_patterns(*leave)
            place = folder / "runs" / RUN
            shutil.copytree(self.finished.path, place, ignore=ignored, dirs_exist_ok=True)

    def _first(self, log: Log, desk: Desk, start: Start) -> None:
        truth = self._truth(desk.case_id, desk.geometry)
        if start == "sparse":
            acts = label_slices(desk, truth, self.standard, SPARSE_SLICES)
        else:
            acts = label_case(desk, truth, self.standard)
        self._note(log, 0, desk, acts)

    def _project(self, folder: Path, start: Start) -> Project:
        if (folder / "project.json").exists():
            return open_project(folder)
        organs = self.data.organs if start == "given" else ()
        files = [
            CaseFiles(
                id=name,
                image=image,
                patient=self.data.patients[name],
                masks={organ: self._organ_mask(name, organ) for organ in organs},
            )
            for name, image in self.data.images.items()
        ]
        return create_project(folder, files, self.data.targets)

    def _organ_mask(self, name: str, organ: str) -> Path:
        path = self.work / "organs" / f"{name}-{organ}.nii.gz"
        if not path.exists():
            truth = read_labelmap(self.data.truths[name])
            target = next(one for one in self.data.targets if one.name == organ)
            mask = region_mask(truth.labels, target, self.data.targets).astype(np.uint8)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_labelmap(Labelmap(mask, truth.geometry), path)
        return path

    # -- what is shown, and what it is worth ---------------------------------------------------

    def _prediction(self, run: RunFolder, name: str, way: Way) -> Path:
        folder = run.predictions(run.best_round, name)
        return folder / f"{way.shown}.nii.gz"

    def _predicted(self, run: RunFolder, name: str, way: Way) -> Labels:
        labels = read_labelmap(self._prediction(run, name, way))
        return to_slices(labels.geometry).array(labels.labels)

    def _nothing(self, name: str) -> Labels:
        truth = read_labelmap(self.data.truths[name])
        return np.zeros_like(to_slices(truth.geometry).array(truth.labels))

    def _truth(self, name: str, on: Geometry) -> Labels:
        truth = read_labelmap(self.data.truths[name])
        seen = to_slices(truth.geometry).labelmap(truth)
        if not seen.geometry.matches(on):
            msg = f"The truth of {name} does not lie on its image."
            raise ValueError(msg)
        return seen.labels

    def _state(self, name: str, labels: Labels, number: int, *, final: bool = False) -> CaseState:
        key = name + hashlib.sha256(np.ascontiguousarray(labels)).hexdigest()
        if key not in self._scores:
            truth = read_labelmap(self.data.truths[name])
            seen = to_slices(truth.geometry).labelmap(truth)
            self._scores[key] = quality_of(
                labels, seen.labels, tuple(self.data.targets), seen.geometry, self.standard
            )
        quality = self._scores[key]
        return CaseState(number, name, final, quality.meets(self.standard), quality)

    def _grower(self, way: Way) -> Grower | None:
        if not way.grows or self.sam is None:
            return None
        return Grower(self.sam, self.work / "grown")

    def _filler(self, way: Way, run: RunFolder) -> Filler | None:
        """Return what fills organs by the networks of a run's round."""
        if not way.fills:
            return None
        number = run.best_round
        trained = run if self.finished is None or way.trains_on else self.finished

        def load() -> Specialist:
            context = context_of(open_project(trained.path.parents[1]), trained, Monitor())
            return load_round(context, trained.round(number)).specialist

        filler = RunFiller(load, f"{trained.path.resolve()}{number}", self.work / "filled")
        filler.fills_lesions = way.fills_lesions
        return filler

    def _random(self, names: Sequence[str]) -> list[str]:
        """Return names in an order that is the same for all ways, and after a break."""
        order = {name: hashlib.sha256(f"{self.seed}{name}".encode()).digest() for name in names}
        return sorted(names, key=order.__getitem__)
