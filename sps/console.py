"""How a command line ends: a mistake in one sentence, an interruption in another, each with its exit code."""

import sys
from collections.abc import Callable


def run(app: Callable[[], object], interrupted: str) -> None:
    """Run a Typer application: 1 for an error (its stack trace with --debug), 2 for a wrong flag, 130 interrupted."""
    try:
        app()
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted; {interrupted}\n")
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
