"""What the server of forked children imports once, so that a child costs a moment, not seconds."""

from __future__ import annotations

from importlib import import_module

import torch

from aslseg.networks.device import choose_device

torch.set_num_threads(1)
for _name in (
    *(
        "aslseg.cli.main",
        "aslseg.report.report",
        "aslseg.project.review",
        "aslseg.project.case_reports",
        "aslseg.runs",
        "aslseg.engine.tasks",
    ),
    *("aslseg.methods", "matplotlib.pyplot"),
    *("faults.decisions", "faults.hooks", "support.whole_runs", "pytest"),
):
    import_module(_name)
choose_device("cpu")
torch.optim.AdamW(torch.nn.Linear(1, 1).parameters())  # imports the compiler, which takes a second
