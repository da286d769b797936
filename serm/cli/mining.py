"""Commands that watch the stream and mine it."""

from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, show

commands = typer.Typer()


@commands.command()
def mine(
    round: Annotated[int | None, typer.Option(help="Round number; the next one if absent.")] = None,
    budget: Annotated[int | None, typer.Option(help="Pairs to mine.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Look for shift and mine the pairs that the model most needs."""
    from serm.mining import mine as verb

    show("mined", verb(open_workspace(where, sets), round, budget), json)
