"""What the server of forked children imports once, so that a child costs a moment, not seconds."""

from __future__ import annotations

from importlib import import_module

import torch

from aslseg.devices import choose_device
from aslseg.methods import method_named

torch.set_num_threads(1)
for _name in (
    *("aslseg.cli", "aslseg.report", "aslseg.review", "aslseg.runs", "aslseg.worker_tasks"),
    *("aslseg.crossfit", "aslseg.adapting", "matplotlib.pyplot"),
    *("faults.decisions", "faults.hooks", "sam_doubles", "pytest"),
):
    import_module(_name)
for _name in ("aslseg", "specialist", "semisam", "scsam", "cpcsam"):
    method_named(_name)
choose_device("cpu")
torch.optim.AdamW(torch.nn.Linear(1, 1).parameters())  # imports the compiler, which takes a second
