"""The only door to disk: Delta tables, the run log, and where models, ledgers and pages live.

Every write is one atomic Delta commit. A writer reads the table at version v, drops the rows whose key is already
there, and may only commit v + 1; when another process was faster it reads again. So appends are idempotent and safe
for any number of processes, on any store with put-if-absent, without locks (ours).
"""

import json
import random
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import fsspec
import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from serm.config import Config
from serm.configure import load
from serm.records import TABLES, Table

RECORDED_PACKAGES = ("serm", "torch", "transformers", "sentence-transformers", "polars", "deltalake", "langgraph")
COMMIT_ATTEMPTS = 60
UNADDRESSABLE = "%[]^|\\"  # Delta cannot address a local folder with these in its name
ONCE = CommitProperties(max_commit_retries=0)  # v + 1 or nothing: a rebased commit would not have seen v + 1's rows


class WorkspaceError(ValueError):
    """The workspace is missing, already there, or asked for something it does not hold."""


@dataclass
class Run:
    """One verb at work; `result` is stored with the run when it finishes."""

    run_id: str
    verb: str
    result: dict[str, Any] = field(default_factory=dict)


class Workspace:
    """A folder or object-store URL that holds one evolving relevance model and all that it was made from."""

    def __init__(self, root: str | Path, config: Config, storage_options: dict[str, str] | None = None) -> None:
        """Use `open` or `create`; this only binds the parts together."""
        self.root = _absolute(str(root))
        self.config = config
        self.storage_options = storage_options or {}

    # --- life ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, root: str | Path, config_text: str = "", storage_options: dict[str, str] | None = None
    ) -> "Workspace":
        """Make a new workspace with this configuration; a second call with the same text does no harm.

        Raises:
            WorkspaceError: a workspace with another configuration is already there.
        """
        workspace = cls(root, load(config_text), storage_options)
        existing = workspace._read_config()
        if existing is not None and existing != config_text:
            raise WorkspaceError(f"{root}: already a workspace; edit its config.yaml, or choose another folder")
        if existing is None:
            workspace.write_text("config.yaml", config_text)
            if workspace._read_config() != config_text:
                raise WorkspaceError(f"{root}: another process made a workspace with other settings here just now")
        return workspace

    @classmethod
    def open(
        cls, root: str | Path, overrides: list[str] | None = None, storage_options: dict[str, str] | None = None
    ) -> "Workspace":
        """Open an existing workspace, with `room.key=value` overrides for this call.

        Raises:
            WorkspaceError: there is none at `root`.
        """
        text = cls(root, Config.model_construct(), storage_options)._read_config()
        if text is None:
            raise WorkspaceError(f"{root}: no workspace here; make one with: serm init {root}")
        return cls(root, load(text, overrides, f"{root}/config.yaml"), storage_options)

    def _read_config(self) -> str | None:
        return self.read_text("config.yaml") if self.exists("config.yaml") else None

    # --- plain files --------------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        """Whether the workspace is a folder on this machine."""
        return "://" not in self.root

    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The file system that `root` is on, with no memory of earlier listings: other processes write there too."""
        filesystem = fsspec.core.url_to_fs(self.root, **self.storage_options)[0]
        filesystem.invalidate_cache()
        return filesystem

    def url(self, *parts: str) -> str:
        """The address of something inside the workspace."""
        return "/".join((self.root, *parts))

    def local(self, *parts: str) -> Path:
        """A folder or file on this machine that belongs to this workspace (its parent folder is made).

        For a workspace in an object store it lies in the user's cache: what is kept there is per machine.
        """
        if self.is_local:
            base = Path(self.root)
        else:
            base = Path.home() / ".cache" / "serm" / uuid.uuid5(uuid.NAMESPACE_URL, self.root).hex
        path = base.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def exists(self, *parts: str) -> bool:
        """Whether a file or folder is there."""
        return bool(self.filesystem().exists(self.url(*parts)))

    def read_text(self, *parts: str) -> str:
        """The text of a file inside the workspace."""
        with self.filesystem().open(self.url(*parts), "r", encoding="utf-8") as file:
            return str(file.read())

    def write_text(self, *parts_and_text: str) -> None:
        """Write a small file whole or not at all; the last argument is its text."""
        *parts, text = parts_and_text
        if self.is_local:
            path = self.local(*parts)
            scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            scratch.write_text(text, encoding="utf-8")
            scratch.replace(path)
        else:
            self.filesystem().pipe_file(self.url(*parts), text.encode())

    # --- tables -------------------------------------------------------------------------------------------------

    def _delta(self, table: str) -> DeltaTable | None:
        if table not in TABLES:
            raise WorkspaceError(f"no table {table!r}; known are {', '.join(TABLES)}")
        try:
            return DeltaTable(self.url("tables", table), storage_options=self.storage_options)
        except TableNotFoundError:
            return None

    def version(self, table: str) -> int:
        """The Delta version of a table; -1 before its first row."""
        delta = self._delta(table)
        return -1 if delta is None else int(delta.version())

    def versions(self) -> dict[str, int]:
        """Every table's Delta version, as recorded with results."""
        return {table: self.version(table) for table in TABLES}

    @staticmethod
    def package_versions() -> dict[str, str]:
        """The versions of the packages that results depend on."""
        return {name: package_version(name) for name in RECORDED_PACKAGES}

    def scan(self, table: str, version: int | None = None) -> pl.LazyFrame:
        """A lazy frame over a table, now or as it was at `version` (-1: before its first row).

        Raises:
            WorkspaceError: the table has no such version.
        """
        delta = self._delta(table)
        if version is not None and version >= 0:
            newest = -1 if delta is None else delta.version()
            if delta is None or version > newest:
                raise WorkspaceError(f"{table}: there is no version {version}; the newest is {newest}")
            delta.load_as_version(version)
        if delta is None or (version is not None and version < 0):
            return TABLES[table].empty().lazy()
        return _lazy(delta, TABLES[table])

    def read(self, table: str, version: int | None = None) -> pl.DataFrame:
        """A table in memory."""
        return self.scan(table, version).collect()

    def append(self, table: str, frame: pl.DataFrame) -> int:
        """Add the rows whose key is not there yet, in one atomic commit; returns how many were new.

        Raises:
            ValueError: the frame does not fit the table's schema.
        """
        return self._write(table, frame, replace=False)

    def upsert(self, table: str, frame: pl.DataFrame) -> int:
        """Add new rows and replace changed ones by key, atomically; returns how many were new or changed."""
        return self._write(table, frame, replace=True)

    def remove(self, table: str, keys: pl.DataFrame) -> int:
        """Take the rows with these keys out in one atomic commit; returns how many. Earlier versions hold them."""
        return 0 if self._delta(table) is None else self._commit(table, keys.select(TABLES[table].key), self._remove)

    def _write(self, table: str, frame: pl.DataFrame, replace: bool) -> int:
        spec = TABLES[table]
        rows = spec.conform(frame).unique(list(spec.key), keep="last" if replace else "first", maintain_order=True)
        return self._commit(table, rows, self._replace if replace else self._append)

    def _commit(self, table: str, rows: pl.DataFrame, change: Callable[[DeltaTable, pl.DataFrame, Table], int]) -> int:
        spec = TABLES[table]
        if rows.is_empty():
            return 0
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                delta = self._delta(table)
                if delta is None:
                    # Created empty: of two creators one loses, and neither has written rows that count twice.
                    delta = DeltaTable.create(
                        self.url("tables", table), rows.to_arrow().schema, storage_options=self.storage_options
                    )
                return change(delta, rows, spec)
            except DeltaError as error:
                if not isinstance(error, CommitFailedError) and "already exists" not in str(error):
                    raise
                if attempt == COMMIT_ATTEMPTS - 1:
                    raise WorkspaceError(f"{table}: could not commit, other writers kept winning; try again") from error
            time.sleep(random.uniform(0.01, 0.05) * (attempt + 1))
        raise AssertionError("unreachable")

    @staticmethod
    def _append(delta: DeltaTable, rows: pl.DataFrame, spec: Table) -> int:
        key = list(spec.key)
        present = _sharing_a_key(delta, rows, spec).select(key).collect(engine="streaming")
        fresh = rows.join(present, on=key, how="anti", nulls_equal=True, maintain_order="left")
        if not fresh.is_empty():
            new = len(delta.schema().fields) < len(spec.schema)  # the table was made before a column was added
            write_deltalake(
                delta, fresh.to_arrow(), mode="append", schema_mode="merge" if new else None, commit_properties=ONCE
            )
        return fresh.height

    @staticmethod
    def _replace(delta: DeltaTable, rows: pl.DataFrame, spec: Table) -> int:
        present = _sharing_a_key(delta, rows, spec).collect(engine="streaming")
        changed = rows.join(present, on=rows.columns, how="anti", nulls_equal=True)
        if changed.is_empty():
            return 0
        merge = delta.merge(
            changed.to_arrow(), _same_key(spec), source_alias="new", target_alias="old", commit_properties=ONCE
        )
        merge.when_matched_update_all().when_not_matched_insert_all().execute()
        return changed.height

    @staticmethod
    def _remove(delta: DeltaTable, rows: pl.DataFrame, spec: Table) -> int:
        present = _sharing_a_key(delta, rows, spec).select(spec.key).collect(engine="streaming")
        if present.is_empty():
            return 0
        merge = delta.merge(
            present.to_arrow(), _same_key(spec), source_alias="new", target_alias="old", commit_properties=ONCE
        )
        merge.when_matched_delete().execute()
        return present.height

    # --- runs ---------------------------------------------------------------------------------------------------

    @contextmanager
    def run(self, verb: str, round: int | None = None, **parameters: Any) -> Iterator[Run]:
        """Record a verb with its seed, configuration, package and data versions, and how it ended."""
        run = Run(f"{verb}-{uuid.uuid4().hex[:12]}", verb)
        start = self._run_row(run, "started", round) | {
            "config": json.dumps(self.config.model_dump(mode="json") | {"parameters": parameters}, default=str),
            "versions": json.dumps(self.package_versions()),
            "data_versions": json.dumps(self.versions()),
        }
        self.append("runs", pl.DataFrame([start], infer_schema_length=None))
        try:
            yield run
        except BaseException as error:
            run.result["error"] = "".join(traceback.format_exception_only(error)).strip()
            self._finish(run, "failed", round)
            raise
        self._finish(run, "finished", round)

    def _finish(self, run: Run, status: str, round: int | None) -> None:
        row = self._run_row(run, status, round) | {"result": json.dumps(run.result, default=str)}
        self.append("runs", pl.DataFrame([row], infer_schema_length=None))

    def _run_row(self, run: Run, status: str, round: int | None) -> dict[str, Any]:
        return {
            "run_id": run.run_id, "verb": run.verb, "round": round, "status": status,
            "ts": datetime.now(UTC), "seed": self.config.seed,
        }  # fmt: skip


def _absolute(root: str) -> str:
    """A folder as an absolute path, whatever the working folder becomes later; any other URL as it is."""
    if root.startswith("file://"):
        root = url2pathname(urlsplit(root).path)
    if "://" in root:
        return root.rstrip("/")
    path = str(Path(root).expanduser().absolute())
    if wrong := [letter for letter in path if letter in UNADDRESSABLE]:
        raise WorkspaceError(f"{path}: a workspace's path may not contain {wrong[0]!r}; choose another folder")
    return path


def _same_key(spec: Table) -> str:
    """The merge condition: the row `new` is the row `old`."""
    return " AND ".join(
        f"old.{name} = new.{name}"
        if name in spec.required
        else f"(old.{name} = new.{name} OR (old.{name} IS NULL AND new.{name} IS NULL))"
        for name in spec.key
    )


def _lazy(delta: DeltaTable, spec: Table) -> pl.LazyFrame:
    """A lazy frame over an open table.

    Polars takes a local table's address, in which a space or an umlaut is escaped, for the folder's name; such a table
    is read as the Parquet files that it consists of.
    """
    if not (delta.table_uri.startswith("file://") and "%" in delta.table_uri):
        present = {field.name for field in delta.schema().fields}
        added = [pl.lit(None, dtype).alias(name) for name, dtype in spec.schema.items() if name not in present]
        return pl.scan_delta(delta).with_columns(added) if added else pl.scan_delta(delta)
    paths = [unquote(uri.removeprefix("file://")) for uri in delta.file_uris()]
    if not paths:
        return spec.empty().lazy()
    return pl.scan_parquet(paths, schema=spec.schema, missing_columns="insert", glob=False)


def _sharing_a_key(delta: DeltaTable, rows: pl.DataFrame, spec: Table) -> pl.LazyFrame:
    """The rows already there whose key is among those of `rows`.

    The range of the first key column comes first: whole files outside it are never opened (their statistics say so).
    """
    key, first = list(spec.key), spec.key[0]
    low, high = rows[first].min(), rows[first].max()
    within = _lazy(delta, spec).filter(pl.col(first).is_between(pl.lit(low), pl.lit(high)))
    return within.join(rows.lazy().select(key), on=key, how="semi", nulls_equal=True)
