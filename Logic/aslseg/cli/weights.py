"""The command `aslseg weights`: SAM's released weights on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aslseg.cli.console import examples, messages, show_table, tell
from aslseg.cli.progress import watched
from aslseg.errors import WeightsError

if TYPE_CHECKING:
    from aslseg.sam.weights import WeightStatus

app = typer.Typer(
    name="weights",
    help="Get, list, verify and remove the released weights of SAM.",
    epilog=examples("aslseg weights list", "aslseg weights get mobile_sam"),
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Name = Annotated[
    str, typer.Argument(help="Weights (mobile_sam) or a model for its default weights (vit_t).")
]


@app.command("list", epilog=examples("aslseg weights list"))
def list_() -> None:
    """List all known weights, their licence, and whether they are on this machine.

    Folders searched: the one that ASLSEG_WEIGHTS names, then the cache (ASLSEG_CACHE moves it).
    """
    from aslseg.sam.weights import list_weights

    head = ["Name", "Model", "Licence", "State", "File"]
    show_table("Weights", head, [_row(status) for status in list_weights()], words=5)


def _row(status: WeightStatus) -> list[str]:
    source = status.source
    state = "not here" if status.path is None else "here" if status.is_verified else "not verified"
    state = "damaged" if status.problem else state
    return [source.name, source.model, source.licence, state, str(status.path or "")]


@app.command(epilog=examples("aslseg weights get mobile_sam", "aslseg weights get vit_b"))
def get(name: Name) -> None:
    """Download weights, from whichever source works first, and verify them.

    An interrupted download goes on where it stopped. Nothing is kept that fails its checksum.
    """
    from aslseg.sam.weights import get_weights

    with watched(messages) as monitor:
        path = get_weights(name, monitor)
    tell(str(path))


@app.command(epilog=examples("aslseg weights verify", "aslseg weights verify mobile_sam"))
def verify(
    name: Annotated[str | None, typer.Argument(help="One set of weights; all by default.")] = None,
) -> None:
    """Compare the checksums of the weights on this machine; exit code 1 if one differs.

    Weights of which no checksum is published are named as not verified.
    """
    from aslseg.sam.weights import list_weights, verify_weights

    found = [verify_weights(name)] if name else [s for s in list_weights() if s.path]
    problems = [status.problem for status in found if status.problem]
    if name and found[0].path is None:
        problems = [
            f"The weights {name} are not on this machine; get them: aslseg weights get {name}"
        ]
    if problems:
        raise WeightsError(" ".join(problems))
    for status in found:
        if status.is_verified:
            tell(f"{status.source.name}: verified, {status.path}")
        else:
            tell(f"{status.source.name}: NOT verified, no checksum is published: {status.path}")
    if not found:
        tell("No weights are on this machine.")


@app.command(epilog=examples("aslseg weights remove mobile_sam"))
def remove(name: Name) -> None:
    """Delete weights that aslseg downloaded. Files in ASLSEG_WEIGHTS stay."""
    from aslseg.sam.weights import remove_weights

    removed = remove_weights(name)
    for path in removed:
        tell(f"removed {path}")
    if not removed:
        tell(f"There was nothing of {name} to remove.")
