"""How results look to a person: small tables on standard output; and to a machine: JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

SHORT = 24  # characters; cells up to this length are not broken over lines


def show_json(result: Any) -> None:
    """Print a result as one JSON document."""
    Console(soft_wrap=True, highlight=False, markup=False).print(json.dumps(plain(result), indent=2, default=str))


def plain(result: Any) -> Any:
    """A result as dictionaries and lists."""
    if is_dataclass(result) and not isinstance(result, type):
        return asdict(result)
    if isinstance(result, Mapping):
        return {str(key): plain(value) for key, value in result.items()}
    if isinstance(result, Sequence) and not isinstance(result, str):
        return [plain(value) for value in result]
    return result


def show_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print names and values, one a line."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), escape(word(value)))
    Console().print(table)


def show_rows(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Print rows as a table; numbers to the right."""
    names = list(columns or (rows[0] if rows else ()))
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        numeric = any(isinstance(row.get(name), (int, float)) for row in rows)
        short = max((len(word(row.get(name))) for row in rows), default=0) <= SHORT
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(name.replace("_", " "), justify=justify, no_wrap=short, overflow="fold")
    for row in rows:
        table.add_row(*(escape(word(row.get(name))) for name in names))
    Console().print(table)


def word(value: Any) -> str:
    """A value as a person writes it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {word(item)}" for key, item in value.items()) or "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(word(item) for item in value) or "–"
    return str(value)
