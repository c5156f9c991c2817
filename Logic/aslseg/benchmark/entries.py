"""The rows of the benchmark: named changes of settings that all rows share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aslseg.config import RunConfig, SSLName
from aslseg.errors import ConfigError
from aslseg.overrides import with_overrides
from aslseg.presets import PUBLISHED_METHODS, published_changes

Kind = Literal["run", "lesion_rule", "external", "true_boxes"]


@dataclass(frozen=True, slots=True)
class BenchmarkEntry:
    """A row of the comparison.

    Attributes:
        name: In file names and on the command line.
        title: For a person.
        changes: Settings in which it differs from the other rows, by dotted name.
        baseline: Name of the row that it adds something to; empty for the first of all.
        shows_all: Whether every label of the training cases is shown, whatever the column.
        kind: Where its predictions come from: a `run` of its own; the label maps of the row that it
            builds upon, of which the `lesion_rule` drops components; label maps of an `external`
            program; or SAM asked with `true_boxes`, which is a ceiling.
    """

    name: str
    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = ""
    shows_all: bool = False
    kind: Kind = "run"

    @property
    def depends_on_draw(self) -> bool:
        """Whether it is another experiment with another draw or number of labels."""
        return not self.shows_all and self.kind != "true_boxes"

    @property
    def has_equal_time(self) -> bool:
        """Whether its schedule can be lengthened to the time of another row."""
        return self.kind == "run" and not self.shows_all

    def settings(self, shared: RunConfig, seed: int) -> RunConfig:
        """Return the settings of a run of this row."""
        changes = {**self.changes, "seed": seed}
        return with_overrides(shared, changes, f"benchmark row {self.name}")


def _specialist(name: str, title: str, baseline: str = "", **more: Any) -> BenchmarkEntry:
    changes = {"method": "specialist", "paradigm": name, "rounds": 1}
    return BenchmarkEntry(name, title, changes, baseline, **more)


def _published(paradigm: SSLName, title: str) -> BenchmarkEntry:
    changes = {"method": "specialist", "paradigm": paradigm, "rounds": 1}
    changes |= published_changes(paradigm)
    return BenchmarkEntry(f"{paradigm}_published", f"{title}, as published", changes, "supervised")


def _semisam(name: str, title: str, paradigm: str, **own: Any) -> BenchmarkEntry:
    changes = {"method": "semisam", "paradigm": paradigm, "rounds": 1}
    changes |= {f"semisam.{setting}": value for setting, value in own.items()}
    return BenchmarkEntry(name, title, changes, paradigm)


def _aslseg(name: str, title: str, paradigm: str) -> BenchmarkEntry:
    return BenchmarkEntry(name, title, {"method": "aslseg", "paradigm": paradigm}, paradigm)


def _scsam(name: str, title: str, **changes: Any) -> BenchmarkEntry:
    changes = {"method": "scsam", "rounds": 1, "scsam.gate": False, **changes}
    return BenchmarkEntry(name, title, changes, "supervised")


_CLICKED = PUBLISHED_METHODS["semisam"]
REFERENCE = "aslseg"
"""The row whose processor time all others get in the table of equal time."""

ENTRIES: dict[str, BenchmarkEntry] = {
    entry.name: entry
    for entry in (
        _specialist("supervised", "Supervised"),
        _specialist("mean_teacher", "Mean teacher", "supervised"),
        _specialist("uncertainty_aware", "UA-MT", "supervised"),
        _specialist("cross_pseudo", "CPS", "supervised"),
        _specialist("unimatch", "UniMatch", "supervised"),
        _specialist("bidirectional_copy_paste", "BCP", "supervised"),
        _published("mean_teacher", "Mean teacher"),
        _published("unimatch", "UniMatch"),
        _semisam("semisam_mean_teacher", "SemiSAM (mean teacher)", "mean_teacher", **_CLICKED),
        _semisam("semisam_uncertainty_aware", "SemiSAM (UA-MT)", "uncertainty_aware", **_CLICKED),
        _semisam("semisam_gated", "SemiSAM (mean teacher), gated", "mean_teacher"),
        _scsam("scsam", "SC-SAM"),
        _scsam(
            "scsam_published", "SC-SAM, as published", **published_changes("supervised", "scsam")
        ),
        _scsam("scsam_gated", "SC-SAM, gated", **{"scsam.gate": True}),
        BenchmarkEntry("cpcsam", "CPC-SAM", {"method": "cpcsam", "rounds": 1}, "supervised"),
        BenchmarkEntry(
            "lesion_rule",
            "Supervised, false-positive rule",
            baseline="supervised",
            kind="lesion_rule",
        ),
        _aslseg(REFERENCE, "ASLseg", "supervised"),
        _aslseg("aslseg_mean_teacher", "ASLseg (mean teacher)", "mean_teacher"),
        BenchmarkEntry("nnunet", "nnU-Net", baseline="supervised", kind="external"),
        BenchmarkEntry("true_boxes", "SAM, true boxes", kind="true_boxes"),
        BenchmarkEntry(
            "all_labels",
            "All labels",
            {"method": "specialist", "paradigm": "supervised", "rounds": 1},
            shows_all=True,
        ),
    )
}
"""All rows, in the order in which tables have them. ASLseg alone goes through rounds: they are its
method."""


def entries_named(names: Sequence[str]) -> list[BenchmarkEntry]:
    """Return rows by name, in the order of the registry; all of them for no name.

    Raises:
        ConfigError: When there is none of a name.
    """
    for name in names:
        if name not in ENTRIES:
            msg = f"The benchmark has no row '{name}'; choose among {', '.join(ENTRIES)}."
            raise ConfigError(msg)
    return [entry for entry in ENTRIES.values() if not names or entry.name in names]
