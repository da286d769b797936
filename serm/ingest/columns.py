"""Which of a source's columns is which field of ours: given, configured, or guessed from common names."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

Kind = Literal["impressions", "documents", "judgments"]
KINDS: tuple[Kind, ...] = ("impressions", "documents", "judgments")

_DOCUMENT = ("doc_id", "document_id", "product_id", "item_id", "docid", "doc", "document", "did", "asin", "docno")
_QUERY = ("query", "query_text", "search_term", "search_query", "search", "keywords", "q")
_LOCALE = ("locale", "language", "lang", "product_locale", "market")

# Each field's usual names, best first; the first of them is our own.
SYNONYMS: dict[Kind, dict[str, tuple[str, ...]]] = {
    "impressions": {
        "ts": ("ts", "timestamp", "time", "datetime", "event_time", "date"),
        "session": ("session", "session_id", "sessionid", "user", "user_id", "userid", "visitor_id", "sid"),
        "query": _QUERY,
        "doc_id": _DOCUMENT,
        "position": ("position", "rank", "pos", "slot"),
        "clicked": ("clicked", "click", "is_click", "is_clicked", "clicks"),
        "dwell": ("dwell", "dwell_seconds", "dwell_time", "dwelltime", "time_on_page", "seconds"),
        "locale": _LOCALE,
        "score": ("score", "model_score", "relevance_score"),
        "user": ("user", "user_id", "userid", "visitor_id"),
        "variant": ("variant", "variant_id", "arm", "bucket", "experiment_group", "ab_group"),
        "negative": ("negative", "negative_feedback", "is_negative", "disliked"),
    },
    "documents": {
        "doc_id": (*_DOCUMENT, "id", "_id"),
        "title": ("title", "name", "product_title", "headline"),
        "locale": _LOCALE,
    },
    "judgments": {
        "query": _QUERY,
        "doc_id": _DOCUMENT,
        "grade": ("grade", "label", "relevance", "rel", "rating", "judgment"),
        "split": ("split", "fold"),
        "judge": ("judge", "annotator", "assessor"),
        "locale": _LOCALE,
    },
}  # fmt: skip

REQUIRED: dict[Kind, tuple[str, ...]] = {
    "impressions": ("ts", "session", "query", "doc_id", "position", "clicked"),
    "documents": ("doc_id",),
    "judgments": ("query", "doc_id", "grade"),
}


def check_fields(columns: Mapping[str, str], kinds: Sequence[Kind], where: str) -> None:
    """Refuse a mapping from a field that no table in `kinds` has.

    Raises:
        ValueError: names the field and those that exist.
    """
    known = dict.fromkeys(field for kind in kinds for field in SYNONYMS[kind])
    for field in columns:
        if field not in known:
            raise ValueError(
                f"{where}: no such field {field!r}; the fields of {', '.join(kinds)} are {', '.join(known)}"
            )


def understand(
    kind: Kind, names: Sequence[str], given: Mapping[str, str], configured: Mapping[str, str], label: str
) -> dict[str, str]:
    """Our field -> the source's column.

    `given` must hold; `configured` holds where the source has that column (one configuration serves many files); the
    rest is guessed from SYNONYMS, ignoring case, spaces and hyphens.

    Raises:
        ValueError: a given column is absent, or a required field has none; names file, column and the mend.
    """
    mapping: dict[str, str] = {}
    have = ", ".join(names) or "no columns"
    for field in SYNONYMS[kind]:
        if field in given:
            if given[field] not in names:
                raise ValueError(f"{label}: no column {given[field]!r} (given for {field}); there are: {have}")
            mapping[field] = given[field]
        elif configured.get(field) in names:
            mapping[field] = configured[field]
    for field, theirs in guess(kind, names, mapping).items():
        mapping.setdefault(field, theirs)
    for field in REQUIRED[kind]:
        if field not in mapping:
            raise ValueError(
                f"{label}: no column for {field!r} ({kind} need it); there are: {have}. Say which one it is with "
                f"--column {field}=NAME, or under ingest.columns in config.yaml"
            )
    return mapping


def guess(kind: Kind, names: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """Columns for the fields that `mapping` lacks; no column is taken for two fields."""
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(re.sub(r"[\s\-.]+", "_", name.strip().lower()), name)
    taken = set(mapping.values())
    found: dict[str, str] = {}
    for field, synonyms in SYNONYMS[kind].items():
        if field in mapping:
            continue
        for synonym in synonyms:
            if synonym in plain and plain[synonym] not in taken:
                found[field] = plain[synonym]
                taken.add(plain[synonym])
                break
    return found
