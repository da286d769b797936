"""Grounding: a sentence that quotes what stands in none of the pair's texts is left out of the rationale. Pure."""

import re
from collections.abc import Sequence

from serm.annotation.agreement import SENTENCE_END

# “x”, „x“, «x», 「x」, "x"; single quotes are left alone: they are apostrophes too often.
_QUOTE = re.compile(r"[“„]([^“”„]+)[”“]|«([^«»]+)»|「([^「」]+)」|\"([^\"]+)\"")
_ELLIPSIS = re.compile(r"\.\.\.|…|\[\.\.\.\]|\[…\]")
_EDGES = " .,;:!?"


def grounded(reasonings: Sequence[Sequence[str]], texts: Sequence[str]) -> tuple[list[list[str]], int]:
    """The reasonings (annotator by annotator, path by path) without unfounded sentences, and how many those were.

    A quote is founded if one of `texts` holds it, whitespace and case aside; of a quote with an ellipsis, each part
    must be there. A quotation mark that is never closed quotes nothing.
    """
    sources = [_normal(text) for text in texts]
    dropped = 0
    kept: list[list[str]] = []
    for paths in reasonings:
        kept.append([])
        for reasoning in paths:
            sentences = _sentences(reasoning)
            good = [sentence for sentence in sentences if _founded(sentence, sources)]
            dropped += len(sentences) - len(good)
            kept[-1].append(" ".join(good))
    return kept, dropped


def _sentences(text: str) -> list[str]:
    """Sentences, none of which ends inside a quote: a quoted passage may hold full stops."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    quotes = [match.span() for match in _QUOTE.finditer(text)]
    cuts = [end for end in ends if not any(start < end < stop for start, stop in quotes)]
    parts = (text[start:stop].strip() for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True))
    return [part for part in parts if part]


def _founded(sentence: str, sources: Sequence[str]) -> bool:
    quotes = ("".join(groups) for groups in _QUOTE.findall(sentence))
    parts = (_normal(part).strip(_EDGES) for quote in quotes for part in _ELLIPSIS.split(quote))
    return all(any(part in source for source in sources) for part in parts if part)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
