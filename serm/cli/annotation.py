"""Commands about labels: what LLMs give and what people decide."""

from dataclasses import replace
from enum import StrEnum
from getpass import getuser
from pathlib import Path
from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, show
from sps import display, progress

commands = typer.Typer()


class Format(StrEnum):
    """Tools that the review queue can be taken to."""

    argilla = "argilla"
    label_studio = "label-studio"


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


review_commands = typer.Typer(invoke_without_command=True, help="Judge the pairs on which the LLMs did not agree.")
commands.add_typer(review_commands, name="review")
Reviewer = Annotated[str | None, typer.Option(help="The judge's name; your login name if absent.")]
Split = Annotated[str, typer.Option(help="Split of the decisions: train or dev.")]


@review_commands.callback()
def review(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port of the page on this machine; 0 takes a free one.")] = 8810,
    reviewer: Reviewer = None, split: Split = "train",
    round: Annotated[int | None, typer.Option(help="Only this round's pairs; all if absent.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    list: Annotated[bool, typer.Option("--list", help="Print the queue instead; --json does too.")] = False,
    limit: Annotated[int, typer.Option(help="With --list: most pairs shown.")] = 20,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Judge the pairs on which the LLMs did not agree, on a local web page by keyboard. Decisions are saved at once.

    They become judgments under your name, and the next serm update learns from them. Export and import take the queue
    to Argilla or Label Studio and back.
    """
    if context.invoked_subcommand is not None:
        early = [name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")]
        if early:
            raise typer.BadParameter(f"put the options behind {context.invoked_subcommand}")
        return
    workspace = open_workspace(where, sets)
    if list or json:
        from serm.review.queue import review_queue

        queue = review_queue(workspace, round)
        rows = queue.head(limit).to_dicts()
        if json:
            display.show_json(rows)
        else:
            display.show_rows(f"review: {queue.height:,} pairs", rows, ["round", "query", "doc_id", "reason"])
        return
    from serm.review.server import review as verb

    show("reviewed", verb(workspace, reviewer or getuser(), split, round, port, browser), json)


@review_commands.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="File to write (label-studio), or folder (argilla).")],
    format: Annotated[Format, typer.Option(help="For which tool.")],
    round: Annotated[int | None, typer.Option(help="Only this round's pairs; all if absent.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Write the queue for Argilla (rg.Dataset.from_disk) or Label Studio (tasks, and the labelling set-up beside)."""
    from serm.review.exchange import export_queue

    show("exported", export_queue(open_workspace(where, sets), format.value, file, round), json)


@review_commands.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Label Studio's JSON export, or Argilla's folder or records.json.")],
    reviewer: Annotated[str | None, typer.Option(help="Judge's name for all; else as the file says.")] = None,
    split: Split = "train",
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Read decisions back. Rows that do not fit are refused, each with its reason; the same file twice adds nothing."""
    from serm.review.exchange import import_decisions

    show("imported", import_decisions(open_workspace(where, sets), file, reviewer, split), json)
