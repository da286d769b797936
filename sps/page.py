"""The parts that pages are made of: one HTML file, light and dark, that asks nothing of the network."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from sps.display import word

Figure = dict[str, Any]  # Plotly's data and layout; colours are names of page.css, see page.js
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)


def document(title: str, body: str) -> str:
    """A whole page around `body` (HTML), with styles, Plotly and the script that draws the figures inside."""
    from plotly.offline import get_plotlyjs

    css, script = (resources.files("sps").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{css}</style></head><body>'
        f"<main>{body}<noscript><p>The figures need JavaScript; all of it is in this file.</p></noscript></main>"
        f"<script>{get_plotlyjs()}</script><script>{script}</script></body></html>"
    )


def chart(title: str, caption: str, figure: Figure, height: int = 260) -> str:
    """A card with a figure of `height` pixels; `caption` is HTML."""
    # "<" could end the script element early.
    content = json.dumps(figure, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<figure class="card"><figcaption><h3>{escape(title)}</h3><p>{caption}</p></figcaption>'
        f'<div class="plot" role="img" aria-label="{escape(title)}" style="height:{height}px">'
        f'<script type="application/json">{content}</script></div></figure>'
    )


def text_card(title: str, content: str) -> str:
    """A card with HTML in it."""
    return f'<div class="card text"><h3>{escape(title)}</h3>{content}</div>'


def term(name: str, colour: str, meaning: str, tag: str = "b") -> str:
    """A line of a caption that is legend and glossary in one (HTML); tag: b for words, code for a logged name."""
    swatch = f'<span class="swatch" style="background:var(--{colour})"></span>' if colour else ""
    return f'<span class="whole">{swatch}<{tag} class="term">{escape(name)}</{tag}></span> {escape(meaning)}'


def grid(cards: Sequence[str], columns: str = "") -> str:
    """Cards side by side: in "two" columns, or in three or four, whichever leaves fewer gaps. None without cards."""
    columns = columns or ("four" if -len(cards) % 4 < -len(cards) % 3 else "three")
    return f'<div class="grid {columns}">{"".join(cards)}</div>' if cards else ""


def section(anchor: str, title: str, lead: str, content: str) -> str:
    """A titled part of the page; `lead` is a sentence of text, `content` HTML. Empty content gives nothing."""
    if not content:
        return ""
    return f'<h2 id="{anchor}">{escape(title)}</h2><p class="lead">{escape(lead)}</p>{content}'


def tile(name: str, value: str, note: str, tone: str = "") -> str:
    """One figure in large type; value and note are HTML; tone of the note: "good", "bad" or none."""
    return (
        f'<div class="tile"><div class="name">{escape(name)}</div><div class="value">{value}</div>'
        f'<div class="note {tone}">{note}</div></div>'
    )


def table(rows: Sequence[Mapping[str, Any]], prose: bool = False) -> str:
    """Rows as a table; numbers to the right, or text to the left with `prose`. None without rows."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(str(name).replace('_', ' '))}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(word(v))}</td>" for v in row.values()) + "</tr>" for row in rows)
    kind = ' class="prose"' if prose else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def details(title: str, content: str) -> str:
    """HTML that is shown when asked for."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
