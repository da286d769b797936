"""What every command shares: the application, its common options, opening a workspace, showing a result."""

from typing import Annotated, Any

import typer

from serm.workspace import Workspace
from sps import display

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""A search-relevance model that keeps itself current.

A first evolution, from nothing:

  serm init                                      a workspace in ./workspace
  serm ingest --kind documents docs.parquet      then judgments, then impressions
  serm update                                    the first model, from human judgments
  serm evolve                                    mine, annotate, update, evaluate, gate, promote

Or see it all on embedded data: [bold]serm demo[/bold].
Verbs that work in a workspace take --set room.key=value; --json and --debug too.""",
)

Where = Annotated[str, typer.Option("--workspace", "-w", envvar="SERM_WORKSPACE", help="Folder or object-store URL.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: room.key=value. Repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the stack trace of an error.")]
HERE = "workspace"


def open_workspace(where: str, sets: list[str] | None) -> Workspace:
    """The workspace that a person named, with their overrides."""
    return Workspace.open(where, sets)


def pair(text: str) -> tuple[str, str]:
    """A --column option as (our field, their column)."""
    ours, equals, theirs = text.partition("=")
    if not equals:
        raise ValueError(f"--column {text}: expected ours=theirs, such as doc_id=product")
    return ours, theirs


def show(title: str, result: Any, as_json: bool) -> None:
    """A verb's result as a table, or as JSON."""
    if as_json:
        display.show_json(result)
    else:
        display.show_facts(title, display.plain(result))
