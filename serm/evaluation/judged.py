"""What a model says of human-judged pairs: label probabilities, asked once and kept on this machine under `scores/`.

The answers of a version or folder never change, so their file is named by everything that they depend on: a gate after
an evaluation, or a comparison after both, scores nothing twice.
"""

import hashlib
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from serm import registry
from serm.evaluation.scoring import human, with_probabilities, with_texts
from serm.fingerprint import fingerprint
from serm.workspace import Workspace, WorkspaceError


@dataclass(frozen=True)
class Subject:
    """A model to be judged: a version of the registry, or a folder that holds one."""

    name: str
    family: str
    identity: str  # changes when the weights do
    folder: Path | None  # None: the registry knows


@dataclass(frozen=True)
class Answers:
    """A model's answers on one split's human judgments.

    `pairs` has query, doc_id, grade, text, score (f(q, d)) and probabilities (a list, Pr(y | q, d) over the scale),
    one row a pair, by query and document. `without_document` counts judged pairs whose document is not there.
    """

    pairs: pl.DataFrame
    without_document: int


class UnaskedError(WorkspaceError):
    """The model's answers are not on this machine, and nobody wants it asked."""


def find(workspace: Workspace, name: str) -> Subject:
    """The model that a person means: a version in the registry, or else a model's folder.

    Raises:
        ValueError: it is neither, or a folder of another kind of network.
    """
    settings = workspace.config.relevance
    if registry.VERSION.fullmatch(name) and registry.exists(workspace, name):
        manifest = registry.read_manifest(workspace, name)
        return Subject(name, manifest.get("family", settings.family), str(manifest["created"]), None)
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        from serm.relevance.stored import family

        return Subject(name, family(folder), _content(folder), folder)
    if folder.is_dir():
        raise WorkspaceError(f"{name}: a folder without config.json; give a folder that save_pretrained wrote")
    known = ", ".join(registry.versions(workspace)) or "none yet"
    raise WorkspaceError(f"no model version {name!r}, and no such folder; versions are: {known}")


def answers(
    workspace: Workspace, subject: Subject, split: str, judgments_version: int | None = None, ask: bool = True
) -> Answers:
    """The subject's answers on a split as people judged it, from the file where they were asked for before.

    Raises:
        UnaskedError: there is no such file, and `ask` is false: no model may be loaded.
    """
    judged = human(workspace.read("judgments", judgments_version), split)
    documents = workspace.scan("documents").select("doc_id", "text")
    wanted = documents.join(judged.select("doc_id").unique().lazy(), on="doc_id", how="semi").collect()
    known, lost = with_texts(judged, wanted)
    said = _asked_once(workspace, subject, known, ask)
    joined = known.join(said, on=["query", "doc_id"], how="left", maintain_order="left")
    return Answers(joined, lost)


def _asked_once(workspace: Workspace, subject: Subject, pairs: pl.DataFrame, ask: bool) -> pl.DataFrame:
    """Score and probabilities of `pairs` [query, doc_id, text]."""
    config = workspace.config
    if pairs.is_empty():
        return with_probabilities(None, pairs).select("query", "doc_id", "score", "probabilities")
    settings = config.relevance.model_copy(update={"family": subject.family})
    asked: list[Any] = [
        "probabilities", subject.identity, subject.family, settings.max_tokens, settings.precision, config.labels.scale,
        settings.instructions, settings.chat_template,
    ]  # fmt: skip
    content = fingerprint(pairs.select("query", "doc_id", "text"))
    digest = hashlib.blake2b(f"{asked} {content}".encode(), digest_size=12).hexdigest()
    cache = workspace.local("scores", f"{file_name(subject.name)}-{digest}.parquet")
    if cache.exists():
        return pl.read_parquet(cache)
    if not ask:
        raise UnaskedError(f"{subject.name} was not asked on this machine; ask it with: serm evaluate")
    from serm.relevance import load

    folder = registry.folder(workspace, subject.name) if subject.folder is None else subject.folder
    said = with_probabilities(load(folder, settings, config.labels.scale), pairs)
    said = said.select("query", "doc_id", "score", "probabilities")
    scratch = cache.with_name(f".{uuid.uuid4().hex}")
    said.write_parquet(scratch)
    scratch.replace(cache)
    return said


def file_name(*names: str) -> str:
    """A file's name for these models: letters, digits, dots, dashes and underscores, short."""
    return "-vs-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:] for name in names)


def _content(folder: Path) -> str:
    """A digest of every file in a folder, with its name."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\x00{content}\x00".encode())
    return digest.hexdigest()
