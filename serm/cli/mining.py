"""Commands that watch the stream and mine it."""

from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace
from serm.workspace import Workspace
from sps import display

commands = typer.Typer()


@commands.command()
def mine(
    round: Annotated[int | None, typer.Option(help="Round number; the next one if absent.")] = None,
    budget: Annotated[int | None, typer.Option(help="Pairs to mine.")] = None,
    explain: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="QUERY DOC", help="Mine nothing; say why this pair was or was not mined in the round."),
    ] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Look for shift and mine the pairs that the model most needs.

    A part of them is drawn at random, so that each agent's precision has something to be compared with. --explain
    "some query" some-document tells what became of one pair in the newest round (or --round).
    """
    if explain is not None:
        _explain(open_workspace(where, sets), *explain, round, json)
        return
    from serm.mining import mine as verb

    result = verb(open_workspace(where, sets), round, budget)
    if json:
        display.show_json(result)
        return
    display.show_facts("mined", {name: value for name, value in vars(result).items() if name != "precision"})
    if result.precision:
        display.show_rows("precision of the last labelled round", result.precision)


def _explain(workspace: Workspace, query: str, doc_id: str, round: int | None, json: bool) -> None:
    from serm.mining import explain as verb

    result = verb(workspace, query, doc_id, round)
    if json:
        display.show_json(result)
        return
    facts = {"taken": result.taken, "stage": result.stage, "why": result.why, **result.facts}
    display.show_facts(f"round {result.round}: {query} | {doc_id}", facts)
    if result.agents:
        display.show_rows("what each agent says", [{"agent": name} | row for name, row in result.agents.items()])
