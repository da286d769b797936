"""The nouns and their checks: the schema, key and required columns of every table, written here once."""

from dataclasses import dataclass
from typing import Any

import polars as pl

Strings: Any = pl.List(pl.String)
Floats: Any = pl.List(pl.Float64)
Timestamp: Any = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Table:
    """A workspace table.

    `key` names the columns that identify a row: appending a row whose key is already there adds nothing.
    `required` names the columns that may not be null.
    """

    name: str
    schema: pl.Schema
    key: tuple[str, ...]
    required: tuple[str, ...]

    def empty(self) -> pl.DataFrame:
        """A frame of this table's schema with no rows."""
        return pl.DataFrame(schema=self.schema)

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Cast `frame` to this table's schema, filling absent optional columns with null.

        Raises:
            ValueError: a column is unknown, a required one is absent or holds nulls, or a value does not cast.
        """
        unknown = [c for c in frame.columns if c not in self.schema]
        if unknown:
            raise ValueError(f"{self.name}: no such column {unknown[0]!r}; known are {', '.join(self.schema)}")
        for column in self.required:
            if column not in frame.columns:
                raise ValueError(f"{self.name}: column {column!r} is required and absent")
            if frame[column].null_count():
                raise ValueError(
                    f"{self.name}: column {column!r} holds {frame[column].null_count()} nulls; none allowed"
                )
        columns = [
            (pl.col(name) if name in frame.columns else pl.lit(None, dtype).alias(name)).cast(dtype)
            for name, dtype in self.schema.items()
        ]
        try:
            return frame.select(columns)
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{self.name}: {error}") from error


# One shown result: who saw which document where for which query, and what they did.
IMPRESSIONS = Table(
    "impressions",
    pl.Schema(
        {
            "ts": Timestamp,
            "session": pl.String,
            "query": pl.String,
            "doc_id": pl.String,
            "position": pl.Int32,  # 1 = top
            "clicked": pl.Boolean,
            "dwell": pl.Float64,  # seconds on the document; null when not clicked or not logged
            "locale": pl.String,
            "score": pl.Float64,  # f(q, d) that the serving model logged, if it did
            "user": pl.String,  # who came back under other sessions; the unit of an online test
            "variant": pl.String,  # of an online test
            "negative": pl.Boolean,  # said that the result was bad
        }
    ),
    key=("ts", "session", "query", "doc_id", "position"),
    required=("ts", "session", "query", "doc_id", "position", "clicked"),
)

DOCUMENTS = Table(
    "documents",
    pl.Schema(
        {
            "doc_id": pl.String,
            "title": pl.String,
            "text": pl.String,  # all text fields in reading order, as the model and the annotators see it
            "locale": pl.String,
            "attributes": pl.String,  # the remaining fields, as a JSON object
        }
    ),
    key=("doc_id",),
    required=("doc_id", "text"),
)

# Splits of human judgments: train (supervised start), dev (early stopping), anchor (old held-out), fresh (new
# held-out), and hidden: truth that only simulated users and stand-in annotators may know, never training or evaluation.
SPLITS = ("train", "dev", "anchor", "fresh", "hidden")
EVALUATED = ("anchor", "fresh")  # what the gate measures on
UNMINED = ("dev", *EVALUATED)  # queries that no mined label may train on: it would leak into stopping or the gate

JUDGMENTS = Table(
    "judgments",
    pl.Schema(
        {
            "query": pl.String,
            "doc_id": pl.String,
            "grade": pl.Int32,
            "split": pl.String,
            "judge": pl.String,
            "locale": pl.String,
        }
    ),
    key=("query", "doc_id", "judge"),
    required=("query", "doc_id", "grade", "split", "judge"),
)

AGENTS = ("feedback", "click", "disagreement", "uncertainty")

MINED = Table(
    "mined",
    pl.Schema(
        {
            "round": pl.Int32,
            "query": pl.String,
            "doc_id": pl.String,
            "locale": pl.String,
            "agents": Strings,  # who took it, among AGENTS (or "random")
            **dict.fromkeys(AGENTS, pl.Float64),  # each agent's own score; null where it had none
            "score": pl.Float64,  # f(q, d) of the champion at mining time
            "priority": pl.Float64,  # 0..1, what selection ranked by
            "cluster": pl.Int32,
            "reason": pl.String,  # why, in words
        }
    ),
    key=("round", "query", "doc_id"),
    required=("round", "query", "doc_id", "agents", "reason"),
)

# How far a pair that the champion scored came, and what held it back.
STAGES = ("taken", "random", "no agent", "query cap", "cluster cap", "duplicate", "budget")

# What mining looked at closely, at most `mining.candidates` pairs a round and the random share. A run that was killed
# leaves its rows; those of a round's last run count.
CONSIDERED = Table(
    "considered",
    pl.Schema(
        {
            "round": pl.Int32,
            "run": pl.String,  # run_id of the run that mined
            "query": pl.String,
            "doc_id": pl.String,
            "stage": pl.String,  # one of STAGES
            "agents": Strings,  # who would take it
            **dict.fromkeys(AGENTS, pl.Float64),  # each agent's own score; null where it had none
            **{f"{agent}_value": pl.Float64 for agent in AGENTS},  # what the agent ranks by, 0..1
            **{f"{agent}_chance": pl.Float64 for agent in AGENTS},  # P(champion wrong), where it would take it
            "score": pl.Float64,  # f(q, d) of the champion
            "priority": pl.Float64,
            "cluster": pl.Int32,
            "duplicate_query": pl.String,  # the taken pair that it is a near-duplicate of
            "duplicate_doc_id": pl.String,
        }
    ),
    key=("round", "run", "query", "doc_id"),
    required=("round", "run", "query", "doc_id", "stage"),
)

STATUSES = ("kept", "review", "failed")

ANNOTATIONS = Table(
    "annotations",
    pl.Schema(
        {
            "round": pl.Int32,
            "query": pl.String,
            "doc_id": pl.String,
            "status": pl.String,  # one of STATUSES
            "label": pl.Int32,  # null unless kept
            "rationale": pl.String,
            "votes": pl.String,  # JSON: annotator -> its paths' labels, outcomes and stable label
            "reason": pl.String,  # why it went to review or failed
            "calls": pl.Int32,
            "prompt_tokens": pl.Int64,
            "completion_tokens": pl.Int64,
            "posterior": Floats,  # P(label) over the scale; null while the annotators are not measured
            "unfounded": pl.Int32,  # sentences left out of the rationale because their quotes occur nowhere
            "prompt": pl.String,  # name/language@version of the prompt file
            "knowledge": pl.String,  # JSON: the background's sources and a hash of its texts; null where none is used
        }
    ),
    key=("round", "query", "doc_id"),
    required=("round", "query", "doc_id", "status", "votes", "calls"),
)

QUARANTINE = Table(
    "quarantine",
    pl.Schema(
        {
            "table": pl.String,
            "source": pl.String,
            "row": pl.Int64,  # 1-based row in the source
            "field": pl.String,
            "reason": pl.String,
            "raw": pl.String,  # the row as JSON, cut at 1,000 characters
        }
    ),
    key=("table", "source", "row", "field", "reason"),
    required=("table", "source", "row", "field", "reason"),
)

METRICS = Table(
    "metrics",
    pl.Schema(
        {
            "model": pl.String,
            "round": pl.Int32,
            "split": pl.String,
            "measure": pl.String,
            "value": pl.Float64,
            "low": pl.Float64,  # 95% interval
            "high": pl.Float64,
            "queries": pl.Int64,
            "judgments_version": pl.Int64,
        }
    ),
    key=("model", "split", "measure", "judgments_version"),
    required=("model", "split", "measure", "value", "queries"),
)

RUNS = Table(
    "runs",
    pl.Schema(
        {
            "run_id": pl.String,
            "verb": pl.String,
            "round": pl.Int32,
            "status": pl.String,  # started, finished, failed
            "ts": Timestamp,
            "seed": pl.Int64,
            "config": pl.String,  # JSON
            "versions": pl.String,  # JSON: package -> version
            "data_versions": pl.String,  # JSON: table -> Delta version at the start
            "result": pl.String,  # JSON
        }
    ),
    key=("run_id", "status"),
    required=("run_id", "verb", "status", "ts"),
)

# The champion is the last row: promotion is one atomic commit on any store, and the history comes free.
CHAMPIONS = Table(
    "champions",
    pl.Schema(
        {
            "version": pl.String,
            "previous": pl.String,
            "action": pl.String,  # promote or rollback
            "reason": pl.String,
            "ts": Timestamp,
            "sequence": pl.Int64,
        }
    ),
    key=("sequence",),
    required=("version", "action", "ts", "sequence"),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        IMPRESSIONS, DOCUMENTS, JUDGMENTS, MINED, CONSIDERED, ANNOTATIONS, QUARANTINE, METRICS, RUNS, CHAMPIONS,
    )
}  # fmt: skip
