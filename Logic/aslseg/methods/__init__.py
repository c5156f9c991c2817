"""How the published methods are trained, by name: a file for each, and a line here.

A method says which parts a round trains, in which order; the parts are in `training`, and
`inference.loading` reads them again. Only `runs` and the benchmark import it.
"""

from __future__ import annotations

from aslseg.errors import entry_of
from aslseg.methods import aslseg, baseline, cpcsam, scsam, semisam
from aslseg.training.rounds import RunRound

METHODS: dict[str, RunRound] = {
    "aslseg": aslseg.run_round,
    "cpcsam": cpcsam.run_round,
    "scsam": scsam.run_round,
    "semisam": semisam.run_round,
    "specialist": baseline.run_round,
}


def training_of(method: str) -> RunRound:
    """Return the function that runs a round of a method.

    Raises:
        ConfigError: When there is none of that name.
    """
    return entry_of(METHODS, method, "There is no method")
