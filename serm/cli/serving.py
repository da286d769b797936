"""Commands about what leaves the workshop: serve, score, distill, export."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, pair, show

commands = typer.Typer()


class Format(StrEnum):
    """What a version can be taken away as."""

    huggingface = "huggingface"
    sentence_transformers = "sentence-transformers"
    onnx = "onnx"


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


@commands.command()
def distill(
    teacher: Annotated[str | None, typer.Argument(help="A version or a model's folder; else the champion.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Train a small model (distillation.student) on a large one's label distributions; it becomes a candidate.

    The teacher labels pairs from the impressions, searched often and seldom; labelled pairs are mixed in. The gate
    decides about the student as about any other: serm gate VERSION, then serm promote VERSION. A killed run goes on.
    """
    from serm.distillation.verb import distill as verb

    show("student", verb(open_workspace(where, sets), teacher), json)


@commands.command()
def export(
    version: Annotated[str | None, typer.Argument(help="Model version; the champion if absent.")] = None,
    format: Annotated[Format, typer.Option(help="For which library.")] = Format.huggingface,
    out: Annotated[Path | None, typer.Option(help="Folder to make; else under exports/ in the workspace.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Write a version as a folder for Hugging Face, sentence-transformers or ONNX, checked to give the same scores."""
    from serm.serving.export import export as verb

    show("exported", verb(open_workspace(where, sets), format.value, version, out), json)
