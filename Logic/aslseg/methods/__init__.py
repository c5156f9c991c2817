"""The published methods, by name: adding one is one file and one line here.

A method says which parts a round trains, in which order; the parts are in `training`. Only `runs`
and the benchmark import it.
"""

from __future__ import annotations

from aslseg.errors import ConfigError
from aslseg.methods import aslseg, cpcsam, scsam, semisam
from aslseg.methods import baseline as specialist
from aslseg.training.rounds import Method

METHODS: dict[str, Method] = {
    "aslseg": Method(aslseg.run_round, aslseg.load_ensemble),
    "cpcsam": Method(cpcsam.run_round, cpcsam.load_ensemble),
    "scsam": Method(scsam.run_round, scsam.load_ensemble),
    "semisam": Method(semisam.run_round, semisam.load_ensemble),
    "specialist": Method(specialist.run_round, specialist.load_ensemble),
}


def method_named(name: str) -> Method:
    """Return a method of the registry.

    Raises:
        ConfigError: When there is none of that name.
    """
    if name not in METHODS:
        msg = f"There is no method '{name}'; choose one of {', '.join(METHODS)}."
        raise ConfigError(msg)
    return METHODS[name]
