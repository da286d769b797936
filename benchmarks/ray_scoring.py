"""Scoring a round's candidates on two workers of a local Ray cluster against one process, side by side.

    python benchmarks/ray_scoring.py --data ../shared/data/msrd --pairs 8192

The champion is MiniLM with a fresh head: what it says does not matter here. Both sides have one thread a process, take
turns, and answer through no cache; the workers have loaded the model before the clock runs, as they have after a
round's first slices. It needs two free cores. Wall seconds, since the two workers are other processes.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from serm import registry
from serm.mining.asking import Ask, Question, Slice, Stored, here, on_ray
from serm.mining.cache import SLICE
from serm.relevance import load, start
from serm.workspace import Workspace

QUESTION = Question("probabilities")


def main() -> None:
    """Print each round's seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msrd"))
    parser.add_argument("--pairs", type=int, default=8_192)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    import ray

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    slices = cut(given.data, given.pairs)
    with tempfile.TemporaryDirectory() as folder:
        stored, alone = champion(Path(folder) / "w")
        spread = on_ray(stored, 0)
        warm = [Slice(i, each.queries[:64], each.documents[:64]) for i, each in enumerate(slices[:2] * 2)]
        collect(spread, warm)
        print("| round | one process, s | two workers, s | ratio | differs by |\n|---|---|---|---|---|")
        for number in range(1, given.rounds + 1):
            ours, one = collect(alone, slices)
            theirs, two = collect(spread, slices)
            gap = max(float(np.abs(ours[i] - theirs[i]).max()) for i in ours)
            print(f"| {number} | {one:.1f} | {two:.1f} | {one / two:.2f} | {gap:.0e} |", flush=True)


def cut(data: Path, amount: int) -> list[Slice]:
    """MSRD's pairs in slices of like length, longest first, as the miner cuts them."""
    corpus = pl.read_parquet(data / "corpus.parquet", columns=["id", "title", "overview"])
    judged = pl.read_parquet(data / "judgments.parquet", columns=["query", "doc_id"])
    pairs = judged.join(corpus, left_on="doc_id", right_on="id").sample(amount, seed=0)
    text = pl.concat_str("title", "overview", separator=". ", ignore_nulls=True)
    ordered = pairs.select("query", text=text).sort(pl.col("text").str.len_chars(), "query", descending=True)
    parts = [ordered[start : start + SLICE] for start in range(0, amount, SLICE)]
    return [Slice(i, part["query"].to_list(), part["text"].to_list()) for i, part in enumerate(parts)]


def champion(root: Path) -> tuple[Stored, Ask]:
    """A workspace's champion for workers to load, and the same model here."""
    workspace = Workspace.create(root)
    settings, scale = workspace.config.relevance, workspace.config.labels.scale
    registry.publish(workspace, "v1", start(settings, scale, 0).save, {"round": 0, "family": settings.family})
    stored = Stored(workspace.root, "v1", settings.model_dump_json(), tuple(scale))
    return stored, here(load(registry.folder(workspace, "v1"), settings, scale))


def collect(ask: Ask, slices: list[Slice]) -> tuple[dict[int, np.ndarray], float]:
    """Every slice's answers, and the wall seconds that they took."""
    began = time.perf_counter()
    found = {part.number: said for part, said in ask(QUESTION, slices)}
    return found, time.perf_counter() - began


if __name__ == "__main__":
    main()
