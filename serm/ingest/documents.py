"""Foreign document records as one text and its attributes.

`text` is what models and annotators read: the title as its first line, then `field: value` lines; a field that is
itself called `text` is the body and has no label. White space and control characters inside a value become single
spaces, so that no value can pass for another line. Every other field goes into `attributes`, a JSON object (ours).
"""

import re
from collections.abc import Mapping, Sequence

import polars as pl

from serm.ingest.checks import Check, Plan, has_fault, identity
from serm.ingest.read import BROKEN, FAULTS, NESTED, ROW

_ID_NAME = re.compile(r"(^|_)(id|ids|uuid|asin|sku|ean|gtin|isbn)$", re.IGNORECASE)


class Layout:
    """Which columns are text and which are attributes, decided where a column is first seen with values."""

    def __init__(self, columns: Mapping[str, str], text_fields: Sequence[str], untyped: bool) -> None:
        """`untyped`: all columns come as text (CSV), so those that hold only numbers are attributes."""
        self.mapped = set(columns.values())
        self.wanted = list(text_fields)
        self.untyped = untyped
        self.kinds: dict[str, str] = {}  # column -> text, integer, number or other

    def learn(self, frame: pl.DataFrame) -> None:
        """Decide about the columns that are new, or had no values so far."""
        for name in frame.columns:
            if name in (ROW, FAULTS) or name in self.mapped or name in self.kinds:
                continue
            filled = frame[name].drop_nulls()
            if filled.dtype == pl.String:
                filled = filled.filter(filled.str.strip_chars() != "")
            if not filled.is_empty() or name in self.wanted:
                self.kinds[name] = self._kind(name, filled, frame)

    def _kind(self, name: str, filled: pl.Series, frame: pl.DataFrame) -> str:
        if self.wanted:
            if name in self.wanted:
                return "text"
        elif filled.dtype == pl.List(pl.String):
            return "text"
        if self.untyped:
            for dtype, kind in ((pl.Int64, "integer"), (pl.Float64, "number")):
                if filled.cast(dtype, strict=False).null_count() == 0:
                    return kind
        nested = frame.select(has_fault(name, NESTED).any()).item()
        plain = filled.dtype == pl.String and not nested and not _ID_NAME.search(name)
        return "text" if plain and not self.wanted else "other"

    def texts(self) -> list[str]:
        """The text columns in reading order."""
        names = [name for name, kind in self.kinds.items() if kind == "text"]
        return sorted(names, key=self.wanted.index) if self.wanted else names

    def plan(self, schema: pl.Schema, columns: Mapping[str, str]) -> Plan:
        """Values and checks of documents."""
        plain = identity(schema, columns)
        texts = [name for name in self.texts() if name in schema]
        attributes = [
            name
            for name, kind in self.kinds.items()
            if name in schema and (kind != "text" or schema[name].is_numeric())  # a year read as text is a number still
        ]
        lines = [_line(name, schema[name]) for name in texts]
        if columns.get("title") in schema:
            plain.values["title"] = _squeeze(plain.values["title"])
            lines.insert(0, plain.values["title"])
        joined = pl.concat_str(lines, separator="\n", ignore_nulls=True) if lines else pl.lit(None, pl.String)
        text = pl.when(joined != "").then(joined)
        used = [*texts, *([columns["title"]] if columns.get("title") in schema else [])]
        broken = [Check(name, BROKEN, has_fault(name, BROKEN)) for name in used]
        casts = {"integer": pl.Int64, "number": pl.Float64}
        record = [
            pl.col(name).cast(casts[kind], strict=False) if (kind := self.kinds[name]) in casts else pl.col(name)
            for name in attributes
        ]
        encoded = pl.struct(record).struct.json_encode() if record else pl.lit("{}")
        values = {**plain.values, "text": text, "attributes": encoded}
        return Plan(values, [*plain.checks, *broken, Check("text", "missing", text.is_null())])


def _squeeze(text: pl.Expr) -> pl.Expr:
    squeezed = text.str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars()
    return pl.when(squeezed != "").then(squeezed)


def _line(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.List):
        column = column.cast(pl.List(pl.String)).list.drop_nulls().list.join(", ")
    value = _squeeze(column.cast(pl.String))
    return value if name.lower() == "text" else pl.lit(f"{name}: ") + value
