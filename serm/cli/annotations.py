"""Commands about the annotations there are: serm annotations report."""

from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace
from sps import display

commands = typer.Typer(no_args_is_help=True, help="What the LLMs' labels are worth.")


@commands.callback()
def annotations() -> None:
    """What the LLMs' labels are worth."""


@commands.command()
def report(
    round: Annotated[int | None, typer.Option(help="Round number; all rounds if absent.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Kept rate, accuracy against people's grades, bias, kappa, alpha and cost of the annotators' labels."""
    from serm.annotation.quality import report_annotations

    result = report_annotations(open_workspace(where, sets), round)
    if json:
        display.show_json(result)
        return
    display.show_facts("annotations", {k: v for k, v in result.items() if not isinstance(v, list)})
    for title in ("annotators", "groups"):
        display.show_rows(title, result[title])
