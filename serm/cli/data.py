"""Commands that make, fill and look at a workspace."""

from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, pair, show
from serm.workspace import Workspace
from sps import display

if TYPE_CHECKING:
    from serm.ingest import IngestSummary, SourceSummary

commands = typer.Typer()
SHOWN_ROWS, SHOWN_LETTERS = 2, 60  # of a dry run


@commands.command()
def init(
    where: Annotated[str, typer.Argument(help="Folder or object-store URL.")] = HERE,
    config: Annotated[Path | None, typer.Option(help="A YAML file; configs/ has commented ones.")] = None,
    json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Make a workspace. Its config.yaml is yours to edit."""
    from serm.configure import load_file

    text = "# Settings of this workspace; see configs/serm.yaml for all of them.\nseed: 0\n"
    if config is not None:
        load_file(config)
        text = config.read_text(encoding="utf-8")
    workspace = Workspace.create(where, text)
    show("workspace", {"workspace": workspace.root, "settings": workspace.url("config.yaml")}, json)


@commands.command()
def status(where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False) -> None:
    """What the workspace holds and who is champion."""
    from serm.status import status as verb

    show("status", verb(open_workspace(where, sets)), json)


@commands.command()
def ingest(
    sources: Annotated[list[str], typer.Argument(help="Files, globs, a collection's folder, or - for standard input.")],
    kind: Annotated[str, typer.Option(help="impressions, documents or judgments.")] = "impressions",
    shape: Annotated[str, typer.Option(help="auto, table, msrd, beir, trec or esci.")] = "auto",
    column: Annotated[list[str] | None, typer.Option(help="ours=theirs, for other column names. Repeatable.")] = None,
    split: Annotated[str | None, typer.Option(help="train, dev, anchor, fresh or hidden; else by query.")] = None,
    judge: Annotated[str | None, typer.Option(help="Who judged.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is understood; write nothing.")] = False,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Read logs, documents or judgments. Bad rows go to quarantine with a reason; the same input twice adds nothing."""
    from serm.ingest import ingest as verb

    columns = dict(pair(item) for item in column or [])
    workspace = open_workspace(where, sets)
    result = verb(
        workspace, sources, kind=kind, shape=shape, columns=columns, split=split, judge=judge, dry_run=dry_run  # type: ignore[arg-type]
    )  # fmt: skip
    if json:
        display.show_json(result)
    else:
        _show_ingested(result)


def _show_ingested(result: "IngestSummary") -> None:
    """A row a source; of a dry run every source's fields too, where they come from, and what they hold."""
    counts = ["rows_read", "added", "already_there", "quarantined"]
    title = "understood; nothing was written" if result.dry_run else "ingested"
    display.show_rows(title, [vars(source) for source in result.sources], ["source", "table", *counts])
    if result.reasons:
        display.show_rows("quarantine", [{"rows": rows, "why": why} for why, rows in result.reasons.items()])
    for source in result.sources:
        if result.dry_run:
            display.show_rows(f"{source.source}, first rows", _fields(source))
        if source.ignored:
            display.show_facts("", {"columns that were not used": source.ignored})
        for note in source.notes:
            display.show_facts("", {"note": note})


def _fields(source: "SourceSummary") -> list[dict[str, str | None]]:
    """A row a field: the source's column, and its values in the first rows, side by side."""
    rows = source.first_rows[:SHOWN_ROWS]
    filled = [name for name in (rows[0] if rows else {}) if any(row[name] is not None for row in rows)]
    values = {name: [shorten(display.word(row.get(name)), SHOWN_LETTERS) for row in rows] for name in filled}
    return [
        {"field": name, "comes from": source.columns.get(name)}
        | {f"row {i}": value for i, value in enumerate(values.get(name, []), 1)}
        for name in dict.fromkeys([*source.columns, *filled])
    ]
