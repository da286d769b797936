"""The verb update: train the next candidate from the champion, or the first model from human judgments."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm import registry
from serm.config import Config
from serm.evaluation.metrics import per_query
from serm.evaluation.scoring import LLM_JUDGE, human, score_judged, with_texts
from serm.evolution.calibration import CALIBRATION, measured_confusion
from serm.evolution.mixture import mix
from serm.fingerprint import fingerprint
from serm.workspace import Workspace, WorkspaceError

DEV_MEASURE = "nDCG@10"


@dataclass(frozen=True)
class UpdateSummary:
    """The version that is now in the registry, and what made it."""

    version: str
    round: int
    parent: str | None
    pairs: int  # distinct labelled pairs it learned from
    steps: int
    dev: float | None  # nDCG@10 on the dev queries, where there are any
    reused: bool  # it was there already


def update(workspace: Workspace, round: int | None = None) -> UpdateSummary:
    """Train a candidate and put it into the registry; it becomes champion only through the gate (or `promote`).

    Without a champion the first model is trained on the human train split, stopped early on dev, and promoted: there
    is nothing to compare it with. Afterwards the candidate of `round` (the newest annotated one) starts from the
    champion, or from base weights and human judgments where the champion is of another family than the configured one;
    before the first annotated round such a champion gets a candidate from human judgments alone. The same data,
    settings and parent give the same version, which is trained once; a killed run goes on from its last checkpoint.

    Raises:
        WorkspaceError: there is nothing to learn from.
    """
    if registry.history(workspace).is_empty():
        summary = _first(workspace)
        registry.promote(workspace, summary.version, "the first model")
        return summary
    if round is None:
        round = _newest_round(workspace)
    if round is None:
        champion = registry.read_manifest(workspace, registry.champion(workspace))
        if champion["family"] == workspace.config.relevance.family:
            raise WorkspaceError("no annotations to learn from yet; first: serm mine, then serm annotate")
        return _first(workspace)
    return _next(workspace, round)


def _first(workspace: Workspace) -> UpdateSummary:
    config = workspace.config
    original = original_pairs(workspace)
    if original.is_empty():
        raise WorkspaceError("no human judgments in the train split; add some with: serm ingest --kind judgments FILE")
    inputs = {"original": fingerprint(original), "dev": fingerprint(_human_texts(workspace, "dev"))}

    def fit(checkpoint: Path) -> tuple[Any, Any]:
        return train_first(original, _human_texts(workspace, "dev"), config, checkpoint)

    return _train_version(workspace, 0, None, inputs, original.height, fit)


def _next(workspace: Workspace, round: int) -> UpdateSummary:
    config = workspace.config
    kept = labelled_pairs(workspace)
    new = kept.filter(pl.col("round") == round)
    if new.height < config.update.minimum_labels:
        raise WorkspaceError(
            f"round {round}: {new.height} kept labels, fewer than update.minimum_labels "
            f"({config.update.minimum_labels}); mine and annotate more, or judge pairs: serm review"
        )
    earlier = kept.filter(pl.col("round") < round)
    original = original_pairs(workspace)
    # A rerun after the gate has promoted this round's own candidate must find that candidate, not train on top of it.
    parent = _parent(workspace, round)
    errors = measured_confusion(workspace)
    inputs = {
        "new": fingerprint(new),
        "earlier": fingerprint(earlier),
        "original": fingerprint(original),
        "parent": parent,
        "confusion": "none" if errors is None else str(errors.round(6).tolist()),
    }

    def fit(checkpoint: Path) -> tuple[Any, Any]:
        from serm.relevance import load

        if registry.read_manifest(workspace, parent)["family"] == config.relevance.family:
            model = load(registry.folder(workspace, parent), config.relevance, config.labels.scale)
        else:
            start = checkpoint.with_suffix(".start.pt")
            model, _ = train_first(original, _human_texts(workspace, "dev"), config, start)
        return model, train_next(model, new, earlier, original, config, round, errors, checkpoint)

    return _train_version(workspace, round, parent, inputs, new.height + earlier.height + original.height, fit)


def _parent(workspace: Workspace, round: int) -> str:
    """The newest champion that was not made in this round or a later one."""
    for version in reversed(registry.history(workspace)["version"].to_list()):
        if int(registry.read_manifest(workspace, version)["round"]) < round:
            return str(version)
    return registry.champion(workspace)


def _train_version(
    workspace: Workspace, round: int, parent: str | None, inputs: dict[str, Any], pairs: int,
    fit: Callable[[Path], tuple[Any, Any]],
) -> UpdateSummary:  # fmt: skip
    config = workspace.config
    rooms = {room: getattr(config, room).model_dump(mode="json") for room in ("labels", "relevance", "update")}
    identity = json.dumps({"round": round, "inputs": inputs, "seed": config.seed, **rooms}, sort_keys=True)
    version = f"r{round:03d}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
    if registry.exists(workspace, version):
        return _summary(registry.read_manifest(workspace, version), reused=True)
    with workspace.run("update", round, version=version) as run:
        data_versions = workspace.versions()
        checkpoint = workspace.local("checkpoints", f"{version}.pt")
        model, trained = fit(checkpoint)
        manifest = {
            "round": round, "parent": parent, "family": model.settings.family, "pairs": pairs, "inputs": inputs,
            "data_versions": data_versions, "seed": config.seed, "config": rooms, "run": run.run_id,
            "training": asdict(trained), "metrics": {"dev": max(trained.dev) if trained.dev else None},
            "versions": workspace.package_versions(),
        }  # fmt: skip
        registry.publish(workspace, version, model.save, manifest)
        for file in checkpoint.parent.glob(f"{version}*.pt"):
            file.unlink()
        summary = _summary(registry.read_manifest(workspace, version), reused=False)
        run.result.update(asdict(summary))
    return summary


def _summary(manifest: dict[str, Any], reused: bool) -> UpdateSummary:
    return UpdateSummary(
        manifest["version"], manifest["round"], manifest["parent"], manifest["pairs"],
        manifest["training"]["steps"], manifest["metrics"]["dev"], reused,
    )  # fmt: skip


# --- training without a workspace, as the backtest does it -------------------------------------------------------


def train_first(
    original: pl.DataFrame, dev: pl.DataFrame, config: Config, checkpoint: Path | None = None
) -> tuple[Any, Any]:
    """The starting model: base weights trained on human pairs [query, text, label], stopped early on `dev`.

    `dev` has query, doc_id, text, grade and may be empty. Returns (model, Trained).
    """
    from serm.relevance import start
    from serm.relevance.training import Plan, train

    relevance = config.relevance
    model = start(relevance, config.labels.scale, config.seed)

    def measure() -> float:
        scores = score_judged(model, dev, dev.select("doc_id", "text").unique("doc_id"))
        values = per_query(dev.select("query", "doc_id", "grade"), scores, [DEV_MEASURE]).values[DEV_MEASURE]
        return float(values.to_numpy().mean())

    plan = Plan(
        relevance.max_epochs, relevance.batch_pairs, relevance.learning_rate, relevance.weight_decay,
        relevance.warmup_share, relevance.evaluate_every, relevance.patience, relevance.checkpoint_every, config.seed,
        relevance.micro_batch_tokens,
    )  # fmt: skip
    pairs = original.select("query", "text", "label").with_columns(pl.lit(1.0).alias("weight"))
    positive = dev.filter(pl.col("grade") > config.labels.scale[0])
    return model, train(model, pairs, plan, None if positive.is_empty() else measure, checkpoint)


def train_next(
    model: Any, new: pl.DataFrame, earlier: pl.DataFrame, original: pl.DataFrame, config: Config, round: int,
    errors: NDArray[np.float64] | None = None, checkpoint: Path | None = None,
) -> Any:  # fmt: skip
    """Continue `model` in place on the mixture of three frames [query, text, label]; returns Trained.

    `errors` is the confusion of the annotators who labelled `new` and `earlier`; None takes their labels for true.
    """
    from serm.relevance.training import Plan, train

    relevance = config.relevance
    seed = config.seed * 1_009 + round
    plan = Plan(
        1.0, relevance.batch_pairs, config.update.learning_rate, relevance.weight_decay, relevance.warmup_share,
        relevance.evaluate_every, relevance.patience, relevance.checkpoint_every, seed, relevance.micro_batch_tokens,
    )  # fmt: skip
    return train(model, mix(new, earlier, original, config.update, seed), plan, None, checkpoint, errors)


# --- reading ---------------------------------------------------------------------------------------------------


def original_pairs(workspace: Workspace) -> pl.DataFrame:
    """The human train split as [query, doc_id, text, label]."""
    return _human_texts(workspace, "train").rename({"grade": "label"})


def labelled_pairs(workspace: Workspace) -> pl.DataFrame:
    """Every label of the rounds as [round, query, doc_id, text, label, agreed, posterior, rationale]: what was kept, or
    what a person said.

    A person's judgment wins over the annotators', and one of the train split labels a pair that went to review; it is
    not `agreed`, so it trains as truth. The annotators' rationale stays where they said the same.
    """
    of_a_round = pl.col("status").is_in(["kept", "review"]) & (pl.col("round") > CALIBRATION)
    kept = (
        workspace.scan("annotations")
        .filter(of_a_round)
        .select("round", "query", "doc_id", "label", "status", "posterior", "rationale")
    )
    people = (
        workspace.scan("judgments")
        .filter(pl.col("split").is_in(["train", "dev"]) & ~pl.col("judge").str.starts_with(LLM_JUDGE))
        .group_by("query", "doc_id")
        .agg(pl.col("grade").median().floor().cast(pl.Int32), train=(pl.col("split") == "train").any())
    )
    documents = workspace.scan("documents").select("doc_id", "text")
    return (
        kept.join(people, on=["query", "doc_id"], how="left")
        .filter((pl.col("status") == "kept") | pl.col("train"))
        .with_columns(
            label=pl.coalesce("grade", "label"),
            agreed=pl.col("grade").is_null(),
            posterior=pl.when(pl.col("grade").is_null()).then("posterior"),
            rationale=pl.when(pl.col("grade").is_null() | (pl.col("grade") == pl.col("label"))).then("rationale"),
        )
        .join(documents, on="doc_id", how="inner")
        .select("round", "query", "doc_id", "text", "label", "agreed", "posterior", "rationale")
        .sort("round", "query", "doc_id")
        .collect()
    )


def _human_texts(workspace: Workspace, split: str) -> pl.DataFrame:
    return with_texts(human(workspace.read("judgments"), split), workspace.read("documents"))[0]


def _newest_round(workspace: Workspace) -> int | None:
    newest = workspace.scan("annotations").select(pl.col("round").max()).collect().item()
    return None if newest is None or newest == CALIBRATION else int(newest)
