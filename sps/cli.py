"""The command line of the trainer, which is not built yet and says so."""

import sys


def main() -> None:
    """Say what sps will do and that it cannot yet; exit code 1."""
    sys.stderr.write(
        "sps trains reasoning models by reinforcement interleaved with inverse reinforcement learning.\n"
        "The trainer is not built yet; this command will be: sps train, eval, analyze, compare.\n"
    )
    sys.exit(1)
