"""Commands about labels: what LLMs give and what people decide."""

from dataclasses import replace
from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, show
from sps import display, progress

commands = typer.Typer()


@commands.command()
def annotate(
    round: Annotated[int | None, typer.Option(help="Round number; the last mined if absent.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Let the LLMs label the mined pairs; kept where they agree. A killed run goes on and pays nothing twice."""
    from serm.annotation.verbs import annotate as verb

    summary = verb(open_workspace(where, sets), round)
    show("annotated", summary if json else replace(summary, failures=[]), json)
    if summary.failed:
        progress.note(f"{summary.failed} pairs failed and are not written; the same command tries them again")
        raise typer.Exit(1)


@commands.command()
def review(
    limit: Annotated[int, typer.Option(help="Most pairs shown.")] = 20,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Pairs on which the LLMs did not agree, for a person to judge."""
    from serm.annotation.verbs import review_queue

    queue = review_queue(open_workspace(where, sets))
    rows = queue.head(limit).to_dicts()
    if json:
        display.show_json(rows)
    else:
        display.show_rows(f"review: {queue.height:,} pairs", rows, ["round", "query", "doc_id", "reason"])
