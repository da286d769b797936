"""The command that writes the page for a lead: serm report."""

from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace
from sps import display

commands = typer.Typer()


@commands.command()
def report(
    workspace: Annotated[str | None, typer.Argument(help="The workspace; the same as --workspace.")] = None,
    out: Annotated[str | None, typer.Option(help="HTML file to write; reports/report.html there if absent.")] = None,
    backtest: Annotated[
        str | None, typer.Option(help="Report on a backtest instead: the folder that serm backtest filled.")
    ] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """One self-contained page: is search better, what changed, what needs a decision; then the evidence.

    The page opens without a network, in light and dark, on a phone and on paper. It only reads; run it whenever you
    like. --json prints what was gathered instead of writing the page.
    """
    from serm.report import gather, gather_backtest, report_backtest
    from serm.report import report as verb

    if backtest:
        if json:
            display.show_json(gather_backtest(backtest))
        else:
            display.show_facts("backtest", display.plain(report_backtest(backtest, out)))
        return

    opened = open_workspace(workspace or where, sets)
    if json:
        display.show_json(gather(opened))
    else:
        display.show_facts("report", display.plain(verb(opened, out)))
