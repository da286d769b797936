"""Progress with an ETA on standard error, shown only where a person watches and only for work over two seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

QUIET_SECONDS = 2.0
_busy = ContextVar("busy", default=False)  # a bar of this thread counts already; the work inside it shows none


def note(text: str) -> None:
    """Say what begins now, on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def track(description: str, total: int | None = None, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yield `advance(n, words)`; a bar with count, time left and the latest words appears after two seconds of work.

    `done` of the total were done before. Words are optional, such as "reward 0.412".
    """
    if _busy.get() or not sys.stderr.isatty():
        yield lambda amount=1, words="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("eta"), TimeRemainingColumn(), TextColumn("{task.fields[words]}"),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    task = bar.add_task(description, total=total, completed=done, words="")
    began = time.monotonic()
    showing = False

    def advance(amount: int = 1, words: str = "") -> None:
        nonlocal showing
        bar.update(task, advance=amount, words=words)
        if not showing and time.monotonic() - began > QUIET_SECONDS:
            bar.start()
            showing = True

    outer = _busy.set(True)
    try:
        yield advance
    finally:
        _busy.reset(outer)
        if showing:
            bar.stop()
