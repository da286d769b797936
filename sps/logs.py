"""The run folder's JSONL files: lines that are whole or absent, and forgotten after a step when a run goes back to it.

A figure that is not finite is written as null: JSON has no NaN.
"""

import json
import math
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sps.config import LogSettings
from sps.trackers import Close, Send, flat, open_tracker

TORN = 1 << 16  # bytes looked at together when searching for the last whole line


class Log:
    """One JSONL file of a run, written by the main process alone; the step's figures go to trackers too."""

    def __init__(self, path: Path, settings: LogSettings | None, folder: Path) -> None:
        """settings: whose trackers get every line as well, under the name of `folder`; None: no tracker does.

        Trackers start with the first line, and show the settings in the folder's config.yaml.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.folder = path, folder
        self._settings = settings
        self._first = 0
        self._trackers: list[tuple[Send, Close]] | None = None

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line, with "step"; see `extend`."""
        self.extend([line])

    def extend(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, each with "step": all of them, or none and an error.

        Raises:
            OSError: the disk is full or not writable; the file is as it was.
            ValueError: a tracker that is asked for is not installed.
        """
        append_lines(self.path, lines)
        for line in lines:
            self.track(int(line["step"]), line)

    def track(self, step: int, figures: Mapping[str, Any]) -> None:
        """Figures for the trackers alone, such as the Pass@k of an evaluation whose rows are in a file of their own."""
        if self._settings is None:
            return
        if self._trackers is None:
            self._trackers = [open_tracker(to, self.folder, self._settings, self._first) for to in self._settings.to]
        numbers = flat(figures)
        for send, _ in self._trackers:
            send(step, numbers)

    def truncate(self, step: int) -> None:
        """Drop the lines written after `step`; -1 drops all. Call it before the first line of a resumed run."""
        self._first = step + 1
        if self.path.exists():
            keep_lines(self.path, step)

    def close(self) -> None:
        """End the trackers' runs."""
        for _, close in self._trackers or []:
            close()
        self._trackers = None


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a JSONL file, all or none; see `Log.extend`."""
    text = "".join(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    if not text:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        start = _whole_end(descriptor)
        os.ftruncate(descriptor, start)
        os.lseek(descriptor, start, os.SEEK_SET)
        try:
            rest = memoryview(text.encode())
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError as error:
            os.ftruncate(descriptor, start)
            raise OSError(
                error.errno, f"{error.strerror}; the run's figures could not be written", str(path)
            ) from error
    finally:
        os.close(descriptor)


def keep_lines(path: Path, step: int) -> None:
    """Rewrite a JSONL file with its lines up to and with `step`; it is replaced whole or not at all.

    Raises:
        ValueError: a line is not a JSON object with a step.
    """
    kept = [line for row, line in parse_lines(path) if _step(row, path) <= step]
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        scratch.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def parse_lines(path: Path) -> list[tuple[dict[str, Any], str]]:
    """Every line's object and text; a last line without its end, as a killed writer leaves it, is not there.

    Raises:
        ValueError: a line is not a JSON object.
    """
    rows = []
    *lines, _ = path.read_bytes().split(b"\n")
    for number, encoded in enumerate(lines, 1):
        line = encoded.decode("utf-8", errors="replace")
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error.msg}); remove the line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected an object, found {type(row).__name__}; remove the line")
        rows.append((row, line))
    return rows


def finite(value: Any) -> Any:
    """The same with None for every float that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(item) for item in value]
    return value


def _step(row: Mapping[str, Any], path: Path) -> int:
    if not isinstance(row.get("step"), int):
        raise ValueError(
            f"{path}: a line has no whole step, but {row.get('step')!r}; it was not written by this trainer"
        )
    return int(row["step"])


def _whole_end(descriptor: int) -> int:
    """Where the last whole line of an open file ends."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - TORN)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
