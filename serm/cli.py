"""The command line: every verb is one plain function of this package, called with what a person typed."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from serm.workspace import Workspace
from sps import display, progress

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


def main() -> None:
    """Run the command line; a mistake ends in one sentence and exit code 1, a wrong flag in 2."""
    try:
        app()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on where it stopped\n")
        sys.exit(130)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        expected = isinstance(error, (ValueError, OSError, RuntimeError))
        prefix = "" if expected else f"unexpected {type(error).__name__}: "
        sys.stderr.write(
            f"error: {prefix}{error}\n" + ("" if expected else "run it again with --debug and report it\n")
        )
        sys.exit(1)


def _open(where: str, sets: list[str] | None) -> Workspace:
    return Workspace.open(where, sets)


def _show(title: str, result: Any, as_json: bool) -> None:
    if as_json:
        display.show_json(result)
    else:
        display.show_facts(title, display.plain(result))


@app.command()
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
    _show("workspace", {"workspace": workspace.root, "settings": workspace.url("config.yaml")}, json)


@app.command()
def status(where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False) -> None:
    """What the workspace holds and who is champion."""
    from serm.status import status as verb

    _show("status", verb(_open(where, sets)), json)


@app.command()
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

    columns = dict(_pair(item) for item in column or [])
    result = verb(
        _open(where, sets), sources, kind=kind, shape=shape, columns=columns, split=split, judge=judge, dry_run=dry_run  # type: ignore[arg-type]
    )  # fmt: skip
    _show("ingested" if not dry_run else "understood (nothing written)", result, json)


def _pair(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not equals:
        raise ValueError(f"--column {text}: expected ours=theirs, such as doc_id=product")
    return ours, theirs


@app.command()
def simulate(
    sessions: Annotated[int | None, typer.Option(help="How many sessions.")] = None,
    days: Annotated[float | None, typer.Option(help="Over how many days.")] = None,
    start: Annotated[str | None, typer.Option(help="First timestamp, ISO 8601.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Simulate users who search, look and click, over the workspace's judged collection."""
    from serm.simulate import simulate as verb

    _show("simulated", verb(_open(where, sets), sessions, days, start, seed), json)


@app.command("simulate-llm")
def simulate_llm(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 8808,
    where: Where = HERE, sets: Sets = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Serve a stand-in for strong LLMs that errs about known judgments as measured judges did."""
    from serm.simulate.llm_server import serve_llm

    workspace = _open(where, sets)
    progress.note(f"a stand-in for LLMs, no language model, listens at http://{host}:{port}/v1; stop it with Ctrl-C")
    serve_llm(workspace, host, port)


@app.command()
def mine(
    round: Annotated[int | None, typer.Option(help="Round number; the next one if absent.")] = None,
    budget: Annotated[int | None, typer.Option(help="Pairs to mine.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Look for shift and mine the pairs that the model most needs."""
    from serm.mining import mine as verb

    _show("mined", verb(_open(where, sets), round, budget), json)


@app.command()
def annotate(
    round: Annotated[int | None, typer.Option(help="Round number; the last mined if absent.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Let the LLMs label the mined pairs; kept where they agree. A killed run goes on and pays nothing twice."""
    from serm.annotation.verbs import annotate as verb

    summary = verb(_open(where, sets), round)
    _show("annotated", summary, json)
    if summary.failed:
        progress.note(f"{summary.failed} pairs failed and are not written; the same command tries them again")
        raise typer.Exit(1)


@app.command()
def review(
    limit: Annotated[int, typer.Option(help="Most pairs shown.")] = 20,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Pairs on which the LLMs did not agree, for a person to judge."""
    from serm.annotation.verbs import review_queue

    queue = review_queue(_open(where, sets))
    rows = queue.head(limit).to_dicts()
    if json:
        display.show_json(rows)
    else:
        display.show_rows(f"review: {queue.height:,} pairs", rows, ["round", "query", "doc_id", "reason"])


@app.command()
def update(
    round: Annotated[int | None, typer.Option(help="Round number; the newest annotated if absent.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Train the next candidate (the first model, if there is none). A killed run goes on from its checkpoint."""
    from serm.evolution.update import update as verb

    _show("candidate", verb(_open(where, sets), round), json)


@app.command()
def evaluate(
    version: Annotated[str | None, typer.Argument(help="Model version; the champion if absent.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Measure a version on human judgments, with 95% intervals over queries."""
    from serm.evaluation import evaluate as verb

    result = verb(_open(where, sets), version)
    if json:
        display.show_json(result)
        return
    rows = [
        {"split": split.split, "measure": name, "value": i.mean, "low": i.low, "high": i.high, "queries": i.queries}
        for split in result.splits
        for name, i in split.measures.items()
    ]
    display.show_rows(result.model, rows, ["split", "measure", "value", "low", "high", "queries"])


@app.command()
def gate(
    candidate: Annotated[str, typer.Argument(help="The version that wants to be champion.")],
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Ask whether a version may replace the champion. Exit code 3 if it may not."""
    from serm import registry
    from serm.evaluation import gate as verb

    workspace = _open(where, sets)
    verdict = verb(workspace, candidate, registry.champion(workspace))
    _show("accepted" if verdict.accepted else "refused", verdict, json)
    if not verdict.accepted:
        raise typer.Exit(3)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="A version in the registry.")],
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "asked for",
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Make a version the champion, in one atomic step and without asking the gate."""
    from serm import registry

    workspace = _open(where, sets)
    registry.promote(workspace, version, reason)
    _show("champion", {"champion": registry.champion(workspace)}, json)


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "asked for",
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Put the champion before this one back."""
    from serm import registry

    _show("champion", {"champion": registry.rollback(_open(where, sets), reason)}, json)


@app.command()
def evolve(
    rounds: Annotated[int, typer.Option(help="How many rounds.")] = 1,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Run whole rounds; an unfinished one is finished first."""
    from serm.evolution.round import evolve as verb

    results = verb(_open(where, sets), rounds)
    if json:
        display.show_json(results)
    else:
        _show_rounds(results)


@app.command()
def backtest(
    seeds: Annotated[str | None, typer.Option(help="Comma-separated, such as 0,1,2.")] = None,
    strategies: Annotated[str | None, typer.Option(help="Comma-separated; all if absent.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Compare strategies offline, on the workspace's human judgments and a simulated stream of searches."""
    from serm.evolution.compare import backtest as verb

    overrides = list(sets or [])
    overrides += [f"backtest.seeds=[{seeds}]"] if seeds else []
    overrides += [f"backtest.strategies=[{strategies}]"] if strategies else []
    result = verb(_open(where, overrides))
    if json:
        display.show_json(result)
        return
    display.show_rows("backtest", result["table"])
    display.show_facts("", {"page": result["page"], "json": result["json"]})


@app.command()
def demo(
    where: Annotated[str, typer.Argument(help="Where to put the demo's workspace.")] = "demo",
    rounds: Annotated[int, typer.Option(help="How many rounds.")] = 2,
    json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """The whole loop on embedded data and models: some minutes on two cores, no network."""
    from serm.demo import demo as verb

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    result = verb(where, rounds)
    if json:
        display.show_json(result)
        return
    _show_rounds(result.rounds)
    display.show_rows("searches that the starting model had never seen", result.comparison)
    display.show_facts("where everything lies", result.places)


def _show_rounds(rounds: list[Any]) -> None:
    rows = [display.plain(summary) for summary in rounds]
    columns = ["round", "shift", "mined", "kept", "review", "calls", "before", "after", "promoted"]
    display.show_rows("rounds (before, after: the gate's measure on fresh human judgments)", rows, columns)
    for row in rows:
        display.show_facts("", {f"round {row['round']}": f"{row['candidate']}: {'; '.join(row['reasons'])}"})


if __name__ == "__main__":
    main()
