"""The parts that the report is made of: one HTML file that asks nothing of the network, its texts escaped."""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True)
class Cell:
    """A table's cell: HTML, what it sorts by, and whether it stands to the right."""

    html: str
    sort: str | float | None = None
    number: bool = False


def text(value: object) -> str:
    """Text as HTML; what no HTML file may hold becomes a question mark."""
    return escape(CONTROLS.sub("�", str(value)))


def foreign(value: str) -> str:
    """Text from the data: it keeps its own direction and breaks anywhere."""
    return f'<bdi class="data" dir="auto">{text(value)}</bdi>'


def words(value: object) -> Cell:
    """A cell of our own words."""
    return Cell(text(value), str(value))


def data(value: str) -> Cell:
    """A cell of a text from the data."""
    return Cell(foreign(value), value)


def number(value: float | None, form: str = ",", unit: str = "") -> Cell:
    """A cell with a number; a dash where there is none."""
    return Cell("–", None, True) if value is None else Cell(f"{value:{form}}{unit}".replace("-", "−"), value, True)


def table(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    sort: bool = True,
    find: bool = False,
    widths: Sequence[int] = (),
    keep: bool = False,
) -> str:
    """A table that a phone shows as one block a row.

    With `sort` its headings are buttons, with `find` it has a filter; `widths` of the columns are in percent. With
    `keep` it stays a table on a phone.
    """
    if not rows:
        return ""
    right = [all(row[i].number for row in rows) for i in range(len(columns))]
    sort = sort and len(rows) > 1
    heads = "".join(
        f'<th scope="col" role="columnheader"{_class("number", right[i])}>{_heading(column, sort)}</th>'
        for i, column in enumerate(columns)
    )
    body = "".join(
        f'<tr role="row">{"".join(_cell(columns[i], cell, right[i]) for i, cell in enumerate(row))}</tr>'
        for row in rows
    )
    search = (
        f'<div class="finder"><label>Find in this table <input type="search" autocomplete="off"></label>'
        f'<span class="found" role="status">{len(rows):,} rows</span></div>'
        if find
        else ""
    )
    kind, form = "kept" if keep else "table", _class("fixed", bool(widths))
    shape = "".join(f'<col style="width:{width}%">' for width in widths)
    return (
        f'<div class="{kind}">{search}<table role="table"{form}><caption>{text(name)}</caption>'
        f'<colgroup>{shape}</colgroup><thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table></div>'
    )


def details(title: str, content: str, anchor: str = "", note: str = "") -> str:
    """HTML that is shown when asked for; `title` and `note` are HTML too."""
    if not content:
        return ""
    name = f' id="{anchor}"' if anchor else ""
    aside = f'<span class="aside">{note}</span>' if note else ""
    return f'<details{name}><summary><span>{title}</span>{aside}</summary><div class="inside">{content}</div></details>'


def section(anchor: str, title: str, lead: str, content: str) -> str:
    """A titled part of the page; `lead` and `content` are HTML. Empty content gives nothing."""
    if not content:
        return ""
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-title"><h2 id="{anchor}-title">{text(title)}</h2>'
        f'<p class="lead">{lead}</p>{content}</section>'
    )


def figure(title: str, caption: str, content: str) -> str:
    """A card with a picture; `caption` and `content` are HTML."""
    note = f"<p>{caption}</p>" if caption else ""
    return f'<figure class="card"><figcaption><h3>{text(title)}</h3>{note}</figcaption>{content}</figure>'


def chip(word: str, tone: str = "") -> str:
    """A word in a frame; tone: "accent", "warn" or none."""
    return f'<span class="chip {tone}">{text(word)}</span>'


def document(title: str, name: str, anchors: Sequence[tuple[str, str]], body: str) -> str:
    """The whole file around `body`; `anchors` are (anchor, word) of its sections that the bar at the top names."""
    files = resources.files("serm.report")
    css, script = (files.joinpath(file).read_text("utf-8") for file in ("page.css", "page.js"))
    # Only this very script runs: a script that came in with the data would not, if one ever got past the escaping.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    links = "".join(f'<a href="#{anchor}">{text(word)}</a>' for anchor, word in anchors)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title><style>{css}</style></head><body>'
        '<a class="skip" href="#content">Skip to the report</a>'
        f'<header class="bar"><div><span class="brand">serm<span class="place"> {foreign(name)}</span></span>'
        f'<nav aria-label="Parts of the report">{links}</nav>'
        '<button type="button" id="theme" hidden>Dark</button></div></header>'
        f'<main id="content" tabindex="-1">{body}</main><script>{script}</script></body></html>'
    )


def _heading(column: str, sort: bool) -> str:
    if not sort:
        return text(column)
    return f'<button type="button" class="sort">{text(column)}<span class="arrow" aria-hidden="true"></span></button>'


def _cell(column: str, cell: Cell, right: bool) -> str:
    label = f' data-label="{text(column)}"' if column else ""
    return f'<td role="cell"{label}{_class("number", right)}{_sort(cell)}><div>{cell.html}</div></td>'


def _sort(cell: Cell) -> str:
    if cell.sort is None:
        return ""
    value = cell.sort if isinstance(cell.sort, str) else f"{cell.sort:.10g}"
    return f' data-sort="{text(value[:80])}"'


def _class(name: str, on: bool) -> str:
    return f' class="{name}"' if on else ""
