"""The command that watches the stream between rounds."""

from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace
from sps import display

commands = typer.Typer()


@commands.command()
def shift(
    check: Annotated[bool, typer.Option("--check", help="Exit code 3 if a round is due early, 0 if not.")] = False,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Did the query stream shift? Tables here, a page in the workspace; nothing is mined.

    The newest window.days of searches are compared with the window.reference_days before, hour of the week by hour
    of the week. To look at the last day alone: --set window.days=1. For a daily job:

      serm shift --check; test $? -eq 3 && serm evolve

    With --check the exit code is 3 when a round is due before its time (shift.trigger, shift.trigger_days) and 0 when
    all is quiet; a mistake ends in 1, as everywhere.
    """
    from serm.shift.page import cluster_rows, view_rows
    from serm.shift.report import HEADLINES
    from serm.shift.verb import shift as verb

    found = verb(open_workspace(where, sets))
    if json:
        display.show_json(found.to_dict())
    else:
        report = found.report
        if report.views:
            display.show_rows("views (effect: at least this share of searches is of another kind)", view_rows(report))
        if report.changed:
            display.show_rows("query clusters that changed", cluster_rows(list(report.changed)))
        display.show_facts(
            f"{HEADLINES[report.verdict]} {report.note}".strip(),
            {"early round": f"{'due' if found.trigger else 'not due'}. {found.reason}", "page": found.page},
        )
    if check and found.trigger:
        raise typer.Exit(3)
