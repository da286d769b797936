"""Commands about models: train, measure, judge, change the champion."""

from typing import Annotated, Literal

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, show
from sps import display

commands = typer.Typer()


@commands.command()
def update(
    round: Annotated[int | None, typer.Option(help="Round number; the newest annotated if absent.")] = None,
    method: Annotated[
        Literal["sft", "sps", "sft+sps"] | None,
        typer.Option(help="sft: supervised; sps: reinforced, agreed labels as reward; or both. Else update.method."),
    ] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Train the next candidate (the first model, if there is none). A killed run goes on from its checkpoint.

    sps needs a generative model; before the first annotated round it learns from the human train split.
    Its settings are update.sps.*, and the gate asks the same of every candidate.
    """
    from serm.evolution.update import update as verb

    show("candidate", verb(open_workspace(where, sets), round, method), json)


@commands.command()
def evaluate(
    version: Annotated[str | None, typer.Argument(help="Model version; the champion if absent.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Measure a version on human judgments, with 95% intervals over queries."""
    from serm.evaluation import evaluate as verb

    result = verb(open_workspace(where, sets), version)
    if json:
        display.show_json(result)
        return
    rows = [
        {"split": split.split, "measure": name, "value": i.mean, "low": i.low, "high": i.high, "queries": i.queries}
        for split in result.splits
        for name, i in split.measures.items()
    ]
    display.show_rows(result.model, rows, ["split", "measure", "value", "low", "high", "queries"])


@commands.command()
def gate(
    candidate: Annotated[str, typer.Argument(help="The version that wants to be champion.")],
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Ask whether a version may replace the champion. Exit code 3 if it may not."""
    from serm import registry
    from serm.evaluation import gate as verb

    workspace = open_workspace(where, sets)
    verdict = verb(workspace, candidate, registry.champion(workspace))
    show("accepted" if verdict.accepted else "refused", verdict, json)
    if not verdict.accepted:
        raise typer.Exit(3)


@commands.command()
def promote(
    version: Annotated[str, typer.Argument(help="A version in the registry.")],
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "asked for",
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Make a version the champion, in one atomic step and without asking the gate."""
    from serm import registry

    workspace = open_workspace(where, sets)
    registry.promote(workspace, version, reason)
    show("champion", {"champion": registry.champion(workspace)}, json)


@commands.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "asked for",
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Put the champion before this one back."""
    from serm import registry

    show("champion", {"champion": registry.rollback(open_workspace(where, sets), reason)}, json)
