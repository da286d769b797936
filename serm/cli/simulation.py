"""Commands that stand in for users and LLMs."""

from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, show
from sps import progress

commands = typer.Typer()


@commands.command()
def simulate(
    sessions: Annotated[int | None, typer.Option(help="How many sessions.")] = None,
    days: Annotated[float | None, typer.Option(help="Over how many days.")] = None,
    start: Annotated[str | None, typer.Option(help="First timestamp, ISO 8601.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Simulate users who search, look and click, over the workspace's judged collection."""
    from serm.simulate import simulate as verb

    show("simulated", verb(open_workspace(where, sets), sessions, days, start, seed), json)


@commands.command("simulate-llm")
def simulate_llm(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 8808,
    where: Where = HERE, sets: Sets = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Serve a stand-in for strong LLMs that errs about known judgments as measured judges did."""
    from serm.simulate.llm_server import serve_llm

    workspace = open_workspace(where, sets)
    progress.note(f"a stand-in for LLMs, no language model, listens at http://{host}:{port}/v1; stop it with Ctrl-C")
    serve_llm(workspace, host, port)
