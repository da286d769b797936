"""Commands about what leaves the workshop: serve, score, distill, export."""

from pathlib import Path
from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, pair, show

commands = typer.Typer()


@commands.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8800,
    where: Where = HERE, sets: Sets = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Answer POST /rerank with the champion, in the shape of other rerankers; /health and /metrics beside it.

    A promotion is taken up without a restart. Requests that wait are scored together (serving.wait_ms, batch_pairs).
    With SERM_API_KEY set, clients send it as Authorization: Bearer KEY.
    """
    from serm.serving.server import serve as verb

    verb(open_workspace(where, sets), host, port)


@commands.command()
def score(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet with query and text, or query and doc_id.")],
    out: Annotated[Path | None, typer.Option(help="File to write: .parquet, .csv or .jsonl; else beside FILE.")] = None,
    version: Annotated[str | None, typer.Option(help="Model version; the champion if absent.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="ours=theirs, for other column names. Repeatable.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Score the pairs of a file: f(q, d) and label probabilities for each. Rows that cannot be scored are set aside.

    The result appears whole or not at all; a killed run goes on where it stopped.
    """
    from serm.serving.score import score as verb

    columns = dict(pair(item) for item in column or [])
    show("scored", verb(open_workspace(where, sets), file, out, version, columns), json)
