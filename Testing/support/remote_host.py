"""A host for tests: this computer, reached through a program that stands for ssh.

Its engine is the library's, with tasks that need no networks (`ENGINE`); a "training" there writes
a file and a metric for each step, and waits for `allow_steps` before it goes on, and filling is one
step. No engine outlives its test for long, also if that is killed.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from aslseg.engine.session import REQUESTS
from aslseg.remote.hosts import Host, remember_host
from aslseg.remote.station import CLOSE
from aslseg.storage import write_text_atomic

LIBRARY = Path(__file__).resolve().parents[2] / "Logic"
STEPS = 4
SCRATCH = ("rois", "rois-second-pass", "samples", "sam-samples", "crossfit", "gate")
"""Folders of a round that a training fills for itself, and that nothing else needs."""
PATIENCE_S = 60.0
SSH = """#!/bin/sh
# Runs its last argument in the shell of another home, as sshd does.
for command; do :; done
printf '%s ' "$@" >> '{log}'
{first}
cd '{home}' && HOME='{home}' PYTHONPATH='{path}' exec sh -c "$command"
"""
ENGINE = """
import json, time
from pathlib import Path
import aslseg.engine.server as server

def train(arguments, monitor):
    from filelock import FileLock
    from aslseg.engine.facts import RunFacts
    from aslseg.engine.protocol import Done
    from aslseg.project.run_folder import create_run
    from aslseg.project.running import running
    from aslseg.config import RunConfig
    run = create_run(Path(arguments["project"]), RunConfig(), arguments["run"])
    for name in {scratch}:
        (run.path / "round-01" / name / "c1").mkdir(parents=True)
        (run.path / "round-01" / name / "c1" / "image.npy").write_text("voxels")
    predicted = run.path / "round-01" / "predictions" / "samples"
    predicted.mkdir(parents=True)
    (predicted / "prediction.json").write_text("{{}}")
    monitor.artifact("run", run.path)
    with running(run, monitor) as recording:
        for step in recording.track(range(1, {steps} + 1), "training"):
            until = time.monotonic() + {patience}
            while int(Path.home().joinpath("steps").read_text()) < step:
                assert time.monotonic() < until
                recording.check()
                time.sleep(0.01)
            (run.path / f"step-{{step}}.csv").write_text(str(step))
            recording.metric("loss", 1 / step, step)
    (run.path / "round-01" / "sam.safetensors").write_text("weights")
    (run.path / "round-01" / "sam.training.safetensors").write_text("state")
    (run.path / "round-01" / "round.json").write_text("{{}}")
    report = run.path / "report.html"
    report.write_text("report")
    return Done(facts=RunFacts(run=run.run_id), files={{"report": str(report)}})

def refine(arguments, monitor):
    from aslseg.data.images import read_volume
    from aslseg.engine.facts import PredictionFacts
    from aslseg.engine.protocol import Done
    voxels = read_volume(Path(arguments["image"])).voxels
    output = Path(arguments["output"])
    output.mkdir(exist_ok=True)
    path = output / "refined.nii.gz"
    path.write_text(str(voxels.shape))
    run = arguments.get("run")
    if arguments.get("project"):
        Path(arguments["project"], "runs", run, "config.json").read_text()
    facts = PredictionFacts(run=run, method="sam", round=0, weights="", note="", device="cpu",
                            slice_index=None, targets=arguments.get("targets") or [],
                            unmet_clicks=[])
    return Done(facts=facts, files={{"refined": str(path)}})

def fill_between(arguments, monitor):
    from aslseg.data.images import read_labelmap, write_labelmap
    from aslseg.engine.facts import FillFacts
    from aslseg.engine.protocol import Done
    run = arguments["run"]
    if run is not None:
        Path(arguments["project"], "runs", run, "config.json").read_text()
    monitor.metric("loss", 1.0, 1)
    until = time.monotonic() + {patience}
    while int(Path.home().joinpath("steps").read_text()) < 1:
        assert time.monotonic() < until
        time.sleep(0.01)
    path = Path(arguments["output"]) / "filled.nii.gz"
    write_labelmap(read_labelmap(Path(arguments["lesion"] or arguments["labels"])), path)
    facts = FillFacts(run=run, method="aslseg", round=1, weights="", device="cuda",
                      filled_slices=arguments["slices"])
    return Done(facts=facts, files={{"filled": str(path)}})

def describe(arguments, monitor):
    from aslseg.engine.facts import ComputerFacts, DeviceFacts
    from aslseg.engine.protocol import Done
    device = DeviceFacts(name="cuda", reason="of the host", problem="")
    return Done(facts=ComputerFacts(device=device, weights=[]))

def estimate(arguments, monitor):
    from aslseg.engine.facts import EstimateFacts
    from aslseg.engine.protocol import Done
    return Done(facts=EstimateFacts(rounds=2, steps=900, seconds=7200.0))

server.load_tasks = lambda: {{
    "train": train, "refine": refine, "fill_between": fill_between, "describe": describe,
    "estimate": estimate
}}

import aslseg.engine.session as session
session.IDLE_S = {patience}
serve = session.serve_session

def serve_late(folder):
    late = Path.home() / "late"
    time.sleep(float(late.read_text()) if late.exists() else 0.0)
    serve(folder)

session.serve_session = serve_late
"""


def a_host(folder: Path, monkeypatch: pytest.MonkeyPatch, first: str = "") -> Host:
    """Make a host whose home is `folder/home`, and remember it.

    Args:
        folder: For its home and what belongs to it.
        monkeypatch: Sets the variables that name it.
        first: Shell commands that run before the one that is asked for.
    """
    (folder / "home").mkdir(parents=True, exist_ok=True)
    site = folder / "site" / "sitecustomize.py"
    site.parent.mkdir(exist_ok=True)
    site.write_text(
        ENGINE.format(steps=STEPS, patience=PATIENCE_S, scratch=SCRATCH), encoding="utf-8"
    )
    allow_steps(folder, STEPS)
    values = {
        "home": folder / "home",
        "log": folder / "ssh.log",
        "path": os.pathsep.join([str(site.parent), str(LIBRARY)]),
        "first": first,
    }
    (folder / "ssh.sh").write_text(SSH.format(**values), encoding="utf-8")
    monkeypatch.setenv("ASLSEG_SSH", shlex.join(["sh", str(folder / "ssh.sh")]))
    monkeypatch.setenv("ASLSEG_HOSTS", str(folder / "hosts.json"))
    monkeypatch.setenv("ASLSEG_CACHE", str(folder / "cache"))
    host = Host(name="gpu1", python=(sys.executable,))
    remember_host(host)
    return host


def allow_steps(folder: Path, count: int) -> None:
    """Let trainings at the host do so many steps."""
    write_text_atomic(folder / "home" / "steps", str(count))


def start_late(folder: Path, seconds: float) -> None:
    """Let engines of the host begin so many seconds after they are started."""
    write_text_atomic(folder / "home" / "late", str(seconds))


def end_engines(folder: Path) -> None:
    """End the engines of a host."""
    for session in (station_of(folder) / "sessions").glob("*"):
        with (session / REQUESTS).open("ab") as file:
            file.write(CLOSE)


def station_of(folder: Path) -> Path:
    """Return the station's folder of a host."""
    return folder / "home" / "aslseg-remote"
