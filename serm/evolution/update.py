"""The verb update: train the next candidate from the champion, or the first model from human judgments."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from serm import registry
from serm.evolution.calibration import measured_confusion
from serm.evolution.fitting import dev_measure, reinforce_on, round_seed, train_first, train_next
from serm.evolution.mixture import mix
from serm.evolution.pairs import domain_texts, human_texts, labelled_pairs, newest_round, original_pairs
from serm.fingerprint import fingerprint
from serm.workspace import Workspace, WorkspaceError

BEFORE_ROUNDS = 0  # the round of what is trained on human judgments alone
Method = Literal["sft", "sps", "sft+sps"]


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


def update(workspace: Workspace, round: int | None = None, method: Method = "sft") -> UpdateSummary:
    """Train a candidate and put it into the registry; it becomes champion only through the gate (or `promote`).

    Without a champion the first model is trained on the human train split, stopped early on dev, and promoted: there
    is nothing to compare it with. Afterwards the candidate of `round` (the newest annotated one) starts from the
    champion, or from base weights and human judgments where the champion is of another family than the configured one;
    before the first annotated round such a champion gets a candidate from human judgments alone. The same data,
    settings and parent give the same version, which is trained once; a killed run goes on from its last checkpoint.

    Args:
        method: sft trains on labels and rationales; sps reinforces with the labels as reward, on the same mixture of
            pairs (before the first annotated round: the human train split); sft+sps does one after the other.

    Raises:
        WorkspaceError: there is nothing to learn from, or the method does not fit the model.
    """
    family = workspace.config.relevance.family
    if method != "sft" and family != "generative":
        raise WorkspaceError(f"--method {method} samples answers: it needs relevance.family generative, not {family}")
    if registry.history(workspace).is_empty():
        summary = _first(workspace, method)
        registry.promote(workspace, summary.version, "the first model")
        return summary
    if round is None:
        round = newest_round(workspace)
    if round is not None:
        return _next(workspace, round, method)
    if registry.read_manifest(workspace, registry.champion(workspace))["family"] != family:
        return _first(workspace, method)
    if method == "sps":
        return _next(workspace, BEFORE_ROUNDS, method)
    raise WorkspaceError("no annotations to learn from yet; first: serm mine, then serm annotate")


def _first(workspace: Workspace, method: Method) -> UpdateSummary:
    config = workspace.config
    if method == "sps":
        raise WorkspaceError("--method sps goes on from a model that judges already; here: --method sft+sps")
    original, dev, texts = original_pairs(workspace), human_texts(workspace, "dev"), domain_texts(workspace)
    if original.is_empty():
        raise WorkspaceError("no human judgments in the train split; add some with: serm ingest --kind judgments FILE")
    inputs = {"original": fingerprint(original), "dev": fingerprint(dev), "texts": fingerprint(texts)}

    def fit(folder: Path) -> tuple[Any, dict[str, Any]]:
        model, trained = train_first(original, dev, config, folder / "first.pt", texts["text"].to_list())
        if method == "sft":
            return model, asdict(trained)
        return _reinforced(workspace, model, asdict(trained), original, BEFORE_ROUNDS, folder)

    return _train_version(workspace, BEFORE_ROUNDS, None, method, inputs, original.height, fit)


def _next(workspace: Workspace, round: int, method: Method) -> UpdateSummary:
    config = workspace.config
    kept, original = labelled_pairs(workspace), original_pairs(workspace)
    new, earlier = kept.filter(pl.col("round") == round), kept.filter(pl.col("round") < round)
    if round == BEFORE_ROUNDS:
        new, original = original, original.clear()
    if new.height < config.update.minimum_labels:
        raise WorkspaceError(
            f"round {round}: {new.height} kept labels, fewer than update.minimum_labels "
            f"({config.update.minimum_labels}); mine and annotate more, or judge pairs: serm review"
        )
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

    def fit(folder: Path) -> tuple[Any, dict[str, Any]]:
        from serm.relevance import load

        dev, trained = human_texts(workspace, "dev"), {"steps": 0, "dev": []}
        if registry.read_manifest(workspace, parent)["family"] == config.relevance.family:
            model = load(registry.folder(workspace, parent), config.relevance, config.labels.scale)
        else:
            texts = domain_texts(workspace)["text"].to_list()
            model, _ = train_first(original, dev, config, folder / "first.pt", texts)
        if method != "sps":
            checkpoint = folder / "next.pt"
            trained = asdict(train_next(model, new, earlier, original, config, round, errors, checkpoint, dev))
        if method == "sft":
            return model, trained
        mixture = mix(new, earlier, original, config.update, round_seed(config, round))
        return _reinforced(workspace, model, trained, mixture, round, folder)

    pairs = new.height + earlier.height + original.height
    return _train_version(workspace, round, parent, method, inputs, pairs, fit)


def _reinforced(
    workspace: Workspace, model: Any, trained: dict[str, Any], pairs: pl.DataFrame, round: int, folder: Path
) -> tuple[Any, dict[str, Any]]:
    """A model after sps, and what its training was, with the measure on dev at the end."""
    dev = human_texts(workspace, "dev")
    model, facts = reinforce_on(model, pairs, dev, workspace.config, round, folder)
    measure = dev_measure(model, dev, workspace.config)
    trained |= {"steps": trained["steps"] + facts["steps"], "sps": facts, "dev": [measure()] if measure else []}
    return model, trained


def _parent(workspace: Workspace, round: int) -> str:
    """The newest champion that was not made in this round or a later one, nor from another version before any round."""
    for version in reversed(registry.history(workspace)["version"].to_list()):
        manifest = registry.read_manifest(workspace, version)
        if int(manifest["round"]) < round or manifest["parent"] is None:
            return str(version)
    return registry.champion(workspace)


def _train_version(
    workspace: Workspace, round: int, parent: str | None, method: Method, inputs: dict[str, Any], pairs: int,
    fit: Callable[[Path], tuple[Any, dict[str, Any]]],
) -> UpdateSummary:  # fmt: skip
    config = workspace.config
    rooms = {room: getattr(config, room).model_dump(mode="json") for room in ("labels", "relevance", "update")}
    identity = json.dumps(
        {"round": round, "method": method, "inputs": inputs, "seed": config.seed, **rooms}, sort_keys=True
    )
    version = f"r{round:03d}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
    if registry.exists(workspace, version):
        return _summary(registry.read_manifest(workspace, version), reused=True)
    with workspace.run("update", round, version=version) as run:
        data_versions = workspace.versions()
        folder = workspace.local("checkpoints", version)
        folder.mkdir(exist_ok=True)
        model, trained = fit(folder)
        manifest = {
            "round": round, "parent": parent, "method": method, "family": model.settings.family,
            "pairs": pairs, "inputs": inputs,
            "data_versions": data_versions, "seed": config.seed, "config": rooms, "run": run.run_id,
            "training": trained, "metrics": {"dev": max(trained["dev"], default=None)},
            "versions": workspace.package_versions(),
        }  # fmt: skip
        registry.publish(workspace, version, model.save, manifest)
        shutil.rmtree(folder)
        summary = _summary(registry.read_manifest(workspace, version), reused=False)
        run.result.update(asdict(summary))
    return summary


def _summary(manifest: dict[str, Any], reused: bool) -> UpdateSummary:
    return UpdateSummary(
        manifest["version"], manifest["round"], manifest["parent"], manifest["pairs"],
        manifest["training"]["steps"], manifest["metrics"]["dev"], reused,
    )  # fmt: skip
