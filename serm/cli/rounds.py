"""Commands that run all steps: a round, an experiment, the demo."""

import os
from typing import Annotated, Any

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace
from sps import display

commands = typer.Typer()


@commands.command()
def evolve(
    rounds: Annotated[int, typer.Option(help="How many rounds.")] = 1,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Run whole rounds; an unfinished one is finished first."""
    from serm.evolution.round import evolve as verb

    results = verb(open_workspace(where, sets), rounds)
    if json:
        display.show_json(results)
    else:
        _show_rounds(results)


@commands.command()
def backtest(
    seeds: Annotated[str | None, typer.Option(help="Comma-separated, such as 0,1,2.")] = None,
    strategies: Annotated[str | None, typer.Option(help="Comma-separated; all if absent.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Compare strategies offline, on the workspace's human judgments and a simulated stream of searches."""
    from serm.evolution.compare import backtest as verb

    overrides = list(sets or [])
    overrides += [f"backtest.seeds=[{seeds}]"] if seeds else []
    overrides += [f"backtest.strategies=[{strategies}]"] if strategies else []
    result = verb(open_workspace(where, overrides))
    if json:
        display.show_json(result)
        return
    display.show_rows("backtest", result["table"])
    display.show_facts("", {"page": result["page"], "json": result["json"]})


@commands.command()
def demo(
    where: Annotated[str, typer.Argument(help="Where to put the demo's workspace.")] = "demo",
    rounds: Annotated[int, typer.Option(help="How many rounds.")] = 2,
    json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """The whole loop on embedded data and models: some minutes on two cores, no network."""
    from serm.demo import demo as verb

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    result = verb(where, rounds)
    if json:
        display.show_json(result)
        return
    _show_rounds(result.rounds)
    display.show_rows("searches that the starting model had never seen", result.comparison)
    display.show_facts("where everything lies", result.places)


def _show_rounds(rounds: list[Any]) -> None:
    rows = [display.plain(summary) for summary in rounds]
    columns = ["round", "shift", "mined", "kept", "review", "calls", "before", "after", "promoted"]
    display.show_rows("rounds (before, after: the gate's measure on fresh human judgments)", rows, columns)
    for row in rows:
        display.show_facts("", {f"round {row['round']}": f"{row['candidate']}: {'; '.join(row['reasons'])}"})
