"""What each part of the miner's selection is worth on MSRD, by human judgment.

python benchmarks/mining_value.py starts FOLDER [--seeds 10 11 12]   one starting model a seed, kept in FOLDER
python benchmarks/mining_value.py run FOLDER [--seeds 10 11 12]      rounds by every variant -> FOLDER/result.json
python benchmarks/mining_value.py table FOLDER                       the tables of RESULTS.md
"""

import argparse
from pathlib import Path

import polars as pl

from serm.config import Config
from serm.configure import load
from serm.evolution.scenario import Scenario, cut
from serm.evolution.update import train_first
from serm.ingest import ingest
from serm.workspace import Workspace

HERE = Path(__file__).resolve().parent.parent
DATA = HERE.parent / "shared" / "data" / "msrd"
# Smaller than configs/msrd.yaml, so that three starts and all variants fit into an hour of two cores.
SMALLER = [
    "backtest.start_queries=500", "backtest.dev_queries=60", "backtest.stream_queries=350", "backtest.sessions=2500",
    "relevance.max_epochs=2", "relevance.evaluate_every=150", "mining.budget=500", "mining.candidates=3000",
    "mining.judged=400", "shift.scored=200",
]  # fmt: skip


def settings(seed: int) -> Config:
    """The backtest's settings on MSRD, made smaller."""
    text = (HERE / "configs" / "msrd.yaml").read_text(encoding="utf-8")
    return load(text, [*SMALLER, f"seed={seed}"])


def collection(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """People's judgments and documents, ingested once into a workspace under `folder`."""
    where = folder / "collection"
    if not where.exists():
        workspace = Workspace.create(where, (HERE / "configs" / "msrd.yaml").read_text(encoding="utf-8"))
        ingest(workspace, [str(DATA)])
    workspace = Workspace.open(where)
    judgments = workspace.read("judgments").select("query", "doc_id", "grade").sort("query", "doc_id")
    return judgments, workspace.read("documents").select("doc_id", "title", "text", "attributes").sort("doc_id")


def scenario_of(seed: int, folder: Path) -> tuple[Scenario, Config]:
    """The seed's cut of the collection."""
    config = settings(seed)
    held_out = config.model_copy(update={"seed": config.backtest.split_seed})
    return cut(*collection(folder), held_out, seed), config


def start(seed: int, folder: Path) -> Path:
    """The seed's starting model, trained once."""
    target = folder / f"start-{seed}"
    if not target.exists():
        scenario, config = scenario_of(seed, folder)
        original = scenario.start.select("query", "text", label="grade")
        checkpoint = folder / f"start-{seed}.pt"
        model, trained = train_first(original, scenario.dev, config, checkpoint)
        model.save(target)
        checkpoint.unlink(missing_ok=True)
        print(f"seed {seed}: {trained.steps} steps, dev nDCG@10 {max(trained.dev):.3f}")
    return target


def main() -> None:
    """Train, run or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["starts", "run", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    given = parser.parse_args()
    if given.what == "starts":
        for seed in given.seeds:
            start(seed, given.folder)


if __name__ == "__main__":
    main()
