"""The command line of the trainer: every verb is one plain function, called with what a person typed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sps import display
from sps.console import run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Train reasoning models by reinforcement interleaved with inverse reinforcement, so that they keep exploring.

On a laptop, from nothing, in minutes:

  sps train                                      a tiny model learns arithmetic; ends with Pass@k and a page
  sps train --set steering.coefficient=0 --set output=runs/grpo
  sps compare runs/sps runs/grpo                 table, curves, and the Pass@1-Pass@k frontier

Configurations that come with it: tiny-arithmetic, tiny-countdown, smollm2-arithmetic, smollm2-gsm8k, qwen2.5-1.5b-math.
Several GPUs: [bold]accelerate launch -m sps.cli train --config ...[/bold]""",
)

Given = Annotated[str, typer.Option("--config", "-c", help="A YAML file, or the name of one that comes with sps.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: room.key=value. Repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the stack trace of an error.")]
DEFAULT = "tiny-arithmetic"


def main() -> None:
    """Run the command line; a mistake ends in one sentence and exit code 1, a wrong flag in 2."""
    run(app, "the same command goes on from the last checkpoint")


@app.command()
def train(config: Given = DEFAULT, sets: Sets = None, json: Json = False, debug: Debug = False) -> None:
    """Train a policy. A run that died goes on from its last checkpoint when the same command is given again."""
    from sps.configure import load
    from sps.train import train as verb

    result = verb(load(config, sets or []))
    if json:
        display.show_json(result)
        return
    _show_passk("Pass@k on held-out problems", result["passk"])
    display.show_facts("", {name: result[name] for name in ("model", "report")})


@app.command(name="eval")
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A run's folder, one of its checkpoints, or a Hugging Face folder or name.")
    ] = "tiny",
    config: Given = DEFAULT,
    sets: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Pass@1 to Pass@k of a model on a task's held-out problems, with intervals. A run brings its own settings."""
    from sps.evaluate_model import evaluate_model

    result = evaluate_model(model, config, sets or [])
    if json:
        display.show_json(result)
        return
    display.show_rows(f"{result['model']} on {result['task']}", [_interval(row) for row in result["passk"]])
    if result["levels"]:
        display.show_rows("by level", result["levels"])


@app.command()
def analyze(
    run: Annotated[Path, typer.Argument(help="A run's folder.")] = Path("runs/sps"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """A run's dynamics, what was squeezed out, and how near Pass@k comes to its ceiling."""
    from sps.analyze import analyze as verb
    from sps.analyze import tables

    result = verb(run)
    if json:
        display.show_json(result)
        return
    for title, rows in tables(result):
        display.show_rows(title, rows)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Runs' folders.")],
    page: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("comparison.html"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Several runs side by side: a table, paired differences, curves and the Pass@1-Pass@k frontier."""
    from sps.compare import compare as verb
    from sps.compare import tables

    result = verb(runs, page)
    if json:
        display.show_json(result)
        return
    for title, rows in tables(result):
        display.show_rows(title, rows)
    display.show_facts("", {"page": page})


def _show_passk(title: str, rows: list[dict[str, Any]]) -> None:
    display.show_rows(
        title, [{"k": row["k"], "before": _words(row["before"]), "after": _words(row["after"])} for row in rows]
    )


def _interval(row: dict[str, Any]) -> dict[str, Any]:
    return {"k": row["k"], "Pass@k": _words(row["passk"]), "problems": row["passk"].problems if row["passk"] else 0}


def _words(interval: Any) -> str:
    """Percent with the interval."""
    if interval is None:
        return "–"
    return f"{interval.mean:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


if __name__ == "__main__":
    main()
