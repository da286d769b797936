"""Commands that make, fill and look at a workspace."""

from pathlib import Path
from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, pair, show
from serm.workspace import Workspace

commands = typer.Typer()


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
    show("ingested" if not dry_run else "understood (nothing written)", result, json)
