"""The verb distill: a student learns what a teacher says of the stream, and becomes a candidate like any other."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm import registry
from serm.config import Config
from serm.distillation.pairs import stream_pairs
from serm.evolution.fitting import dev_measure
from serm.evolution.mixture import draw
from serm.evolution.pairs import human_texts, labelled_pairs, original_pairs
from serm.fingerprint import fingerprint
from serm.records import UNMINED
from serm.traffic import BANDS
from serm.workspace import Workspace, WorkspaceError

HELD_OUT = 20  # every so many-th unlabelled pair is not learned from: on these the student is compared with its teacher


@dataclass(frozen=True)
class DistillSummary:
    """The student that is now in the registry, what it learned from, and how near it came to its teacher."""

    version: str
    teacher: str
    family: str
    taught: dict[str, int]  # stratum -> pairs that the teacher labelled
    labelled: int  # rows with labels in one pass
    steps: int
    dev: float | None  # nDCG@10 on the dev queries, where there are any
    divergence: float | None  # mean KL(teacher || student) on pairs held out, in nats
    agreement: float | None  # share of them with the same likeliest label
    reused: bool  # it was there already


def distill(workspace: Workspace, teacher: str | None = None) -> DistillSummary:
    """Train a student of `distillation.student` on a teacher's label distributions, and put it into the registry.

    `teacher` is a version (the champion if none is named) or a model's folder. It labels unlabelled pairs from the
    impressions; what it said is kept, so that a killed run asks it nothing twice. Queries of the dev, anchor and fresh
    splits are left out. The same teacher, data and settings give the same version, which is trained once.

    Raises:
        ValueError: the teacher is not there or not whole, or there is nothing to learn from.
    """
    config, settings = workspace.config, workspace.config.distillation
    name, folder, round = _teacher(workspace, teacher)
    pairs = _unlabelled(workspace)
    columns = ("query", "text", "label")
    labelled = pl.concat([rows(workspace).select(columns) for rows in (original_pairs, labelled_pairs)])
    dev = human_texts(workspace, "dev")
    if settings.labelled_share == 1:
        pairs = pairs.clear()
    if pairs.is_empty() and (settings.labelled_share < 1 or labelled.is_empty()):
        raise WorkspaceError(
            "no pairs for a teacher: there is no impression of a known document whose query is outside the dev, anchor "
            "and fresh splits; add a log with: serm ingest, and documents with: serm ingest --kind documents"
        )
    inputs = {"teacher": name, "stream": fingerprint(pairs), "labelled": fingerprint(labelled), "dev": fingerprint(dev)}
    rooms = {room: getattr(config, room).model_dump(mode="json") for room in ("labels", "relevance", "distillation")}
    identity = json.dumps({"inputs": inputs, "seed": config.seed, **rooms}, sort_keys=True)
    version = f"d{round:03d}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
    if registry.exists(workspace, version):
        return DistillSummary(**registry.read_manifest(workspace, version)["distillation"], reused=True)
    with workspace.run("distill", round, version=version, teacher=name) as run:
        said = _ask(workspace, folder, name, pairs)
        checkpoint = workspace.local("checkpoints", f"{version}.pt")
        student, found = _teach(pairs, said, labelled, dev, config, checkpoint)
        counts = {stratum: pairs.filter(stratum=stratum).height for stratum in BANDS}
        told = {"version": version, "teacher": name, "family": settings.family, "taught": counts, **found}
        manifest = {
            "round": round, "parent": name, "family": settings.family, "pairs": pairs.height + labelled.height,
            "inputs": inputs, "data_versions": workspace.versions(), "seed": config.seed, "config": rooms,
            "run": run.run_id, "training": told.pop("training"), "metrics": {"dev": told["dev"]},
            "versions": workspace.package_versions(), "distillation": told,
        }  # fmt: skip
        registry.publish(workspace, version, student.save, manifest)
        checkpoint.unlink(missing_ok=True)
        run.result.update(told)
    return DistillSummary(**told, reused=False)


def _teacher(workspace: Workspace, teacher: str | None) -> tuple[str, Path, int]:
    """The teacher's name (a folder's says what its files hold), its folder, and the round that it belongs to."""
    history = registry.history(workspace)
    if teacher is not None and not registry.exists(workspace, teacher) and Path(teacher).expanduser().is_dir():
        folder = Path(teacher).expanduser()
        digest = hashlib.sha256()
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        champion = None if history.is_empty() else str(history["version"][-1])
        rounds = 0 if champion is None else int(registry.read_manifest(workspace, champion)["round"])
        return f"{folder.name}@{digest.hexdigest()[:12]}", folder, rounds
    name = teacher or registry.champion(workspace)
    return name, registry.folder(workspace, name), int(registry.read_manifest(workspace, name)["round"])


def _unlabelled(workspace: Workspace) -> pl.DataFrame:
    """Pairs of the stream whose queries evaluate nothing."""
    held_out = workspace.scan("judgments").filter(pl.col("split").is_in(UNMINED)).select("query").unique()
    impressions = workspace.scan("impressions").join(held_out, on="query", how="anti")
    return stream_pairs(impressions, workspace.scan("documents"), workspace.config.distillation, workspace.config.seed)


def _ask(workspace: Workspace, folder: Path, name: str, pairs: pl.DataFrame) -> NDArray[np.float32]:
    """Pr(y | q, d) by the teacher: (n, |Y|); what it said before is not asked again."""
    from serm.mining.asking import here
    from serm.mining.cache import Remembering
    from serm.relevance.stored import load_whole

    config = workspace.config
    if pairs.is_empty():
        return np.zeros((0, len(config.labels.scale)), dtype=np.float32)
    model = load_whole(folder, config.relevance, config.labels.scale)
    said_by = f"{name} {config.relevance.max_tokens} {config.relevance.precision}"
    remembering = Remembering(model.scale, here(model), workspace.local("cache", "teachers.sqlite"), said_by)
    return remembering.probabilities(pairs["query"].to_list(), pairs["text"].to_list())


def _teach(
    pairs: pl.DataFrame, said: NDArray[np.float32], labelled: pl.DataFrame, dev: pl.DataFrame, config: Config,
    checkpoint: Path,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """The student, and what its training found, without a workspace."""
    from serm.distillation.losses import fit
    from serm.relevance import start
    from serm.relevance.examples import Examples
    from serm.relevance.loop import Plan

    settings, scale = config.distillation, config.labels.scale
    relevance = config.relevance.model_copy(update={"base": settings.student, "family": settings.family})
    kept = np.arange(pairs.height) % HELD_OUT != HELD_OUT - 1
    share, taught_rows = settings.labelled_share, int(kept.sum())
    amount = labelled.height if share == 1 else round(taught_rows * share / (1 - share))
    drawn = draw(labelled.sort(labelled.columns), amount, np.random.default_rng(config.seed))
    labels = np.eye(len(scale), dtype=np.float32)[[scale.index(label) for label in drawn["label"]]]
    rows = pl.concat([pairs.filter(pl.Series(kept)).select("query", "text"), drawn.select("query", "text")])
    taught = np.arange(rows.height) < taught_rows
    examples = Examples(
        rows["query"].to_list(), rows["text"].to_list(), np.concatenate([said[kept], labels.reshape(-1, len(scale))]),
        np.ones(rows.height, dtype=np.float32), np.zeros(rows.height, dtype=bool), [""] * rows.height,
    )  # fmt: skip
    student = start(relevance, scale, config.seed)

    plan = Plan(
        settings.epochs, relevance.batch_pairs, settings.learning_rate, relevance.weight_decay, relevance.warmup_share,
        relevance.evaluate_every, relevance.patience, relevance.checkpoint_every, config.seed,
        relevance.micro_batch_tokens,
    )  # fmt: skip
    measure = dev_measure(student, dev, config)
    trained = fit(student, examples, taught, settings.temperature, plan, measure, checkpoint)
    divergence, agreement = _nearness(student, pairs.filter(pl.Series(~kept)), said[~kept])
    return student, {
        "labelled": drawn.height, "steps": trained.steps, "dev": max(trained.dev) if trained.dev else None,
        "divergence": divergence, "agreement": agreement, "training": asdict(trained),
    }  # fmt: skip


def _nearness(student: Any, pairs: pl.DataFrame, said: NDArray[np.float32]) -> tuple[float | None, float | None]:
    """Mean KL(teacher || student) in nats, and the share of pairs with the same likeliest label."""
    if pairs.is_empty():
        return None, None
    given = student.probabilities(pairs["query"].to_list(), pairs["text"].to_list()).astype(np.float64)
    wanted = said.astype(np.float64)
    terms = wanted * (np.log(np.maximum(wanted, 1e-30)) - np.log(np.maximum(given, 1e-30)))
    return float(terms.sum(axis=1).mean()), float((given.argmax(axis=1) == wanted.argmax(axis=1)).mean())
