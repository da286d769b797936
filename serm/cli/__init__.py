"""The command line: every verb is one plain function of this package, called with what a person typed."""

import sys

from serm.cli import annotation, annotations, attacks, clicks, data, mining, models, rounds, shift, simulation
from serm.cli.options import app

__all__ = ["app", "main"]

for part in (data, shift, mining, clicks, annotation, attacks, models, rounds, simulation):  # the order of --help
    app.add_typer(part.commands)
app.add_typer(annotations.commands, name="annotations")


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
