"""The command line: every verb is one plain function of this package, called with what a person typed."""

from serm.cli import (
    annotation,
    annotations,
    attacks,
    clicks,
    data,
    mining,
    models,
    online,
    operations,
    report,
    rounds,
    serving,
    shift,
    simulation,
)
from serm.cli.options import app
from sps.console import run

__all__ = ["app", "main"]

# in the order of --help
PARTS = (
    data, shift, mining, clicks, annotation, attacks, models, rounds, report, operations, serving, online, simulation,
)  # fmt: skip
for part in PARTS:
    app.add_typer(part.commands)
app.add_typer(annotations.commands, name="annotations")


def main() -> None:
    """Run the command line; a mistake ends in one sentence and exit code 1, a wrong flag in 2."""
    run(app, "the same command goes on where it stopped")
