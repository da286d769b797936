"""Both families of relevance model on MSRD, side by side: quality, forgetting and what training cost.

    python benchmarks/model_quality.py list                                   the cells, and what each is made from
    python benchmarks/model_quality.py run OUT ce:base ce:replay --seed 0     cells, after those they are made from
    python benchmarks/model_quality.py run OUT all --smol FOLDER              FOLDER holds SmolLM2-135M-Instruct
    python benchmarks/model_quality.py run OUT ce:replay/half --unlabelled 6000   students of more pairs
    python benchmarks/model_quality.py table                                  the tables of RESULTS.md

Searches for movies up to 2012 are old, later ones fresh; train, unlabelled and held-out searches are disjoint. `base`
is trained on people's grades of old searches; `replay` and `fresh-only` go on from it with grades of fresh ones, with
and without old ones among them, `sps` by reinforcement with the fresh grades as reward; `/` is a student that saw no
grade, only what its teacher says of other fresh pairs. Schedules are fixed: no early stopping, nothing tuned on what
is reported. A cell's figures are a line of benchmarks/model_quality.jsonl, under a digest of its settings; a cell that
is there is not run again.
"""

import argparse
import hashlib
import json
import platform
import resource
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from serm.config import Config
from serm.configure import load as load_config
from serm.evaluation.metrics import per_query
from serm.evaluation.paired import mean_interval
from serm.evaluation.scoring import score_judged
from serm.evolution.fitting import reinforce_on, train_first, train_next
from serm.evolution.scenario import cut
from serm.ingest import ingest
from serm.relevance import load
from serm.workspace import Workspace

HERE = Path(__file__).resolve().parent.parent
DATA = HERE.parent / "shared" / "data" / "msrd"
KEPT = Path(__file__).with_suffix(".jsonl")
PRESET = (HERE / "configs" / "msrd.yaml").read_text(encoding="utf-8")
MEASURES = ("nDCG@1", "nDCG@10")
RESAMPLES = 2_000
PER_GRADE = 2  # pairs of each grade that a training search gives at most
FAMILIES = {
    "ce": ["relevance.family=cross_encoder", "relevance.max_epochs=3", "update.epochs=3"],
    "smol": [
        "relevance.family=generative", "relevance.batch_pairs=8", "relevance.learning_rate=5e-5",
        "relevance.max_epochs=1", "update.epochs=1", "update.learning_rate=3e-5",
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One trained model: its family, what is done, and the cell whose model it goes on from (or learns from)."""

    family: str
    stage: str
    parent: str | None


STAGES = (("zero", None), ("base", None), ("replay", "base"), ("fresh-only", "base"))
CELLS = {
    f"{family}:{stage}": Cell(family, stage, parent and f"{family}:{parent}")
    for family in FAMILIES
    for stage, parent in STAGES
} | {
    "smol:sps": Cell("smol", "sps", "smol:base"),
    "smol:replay+sps": Cell("smol", "sps", "smol:replay"),
    "ce:replay/half": Cell("ce", "half", "ce:replay"),  # MiniLM without every second layer
    "smol:replay/ce": Cell("ce", "distilled", "smol:replay"),
    "smol:sps/ce": Cell("ce", "distilled", "smol:sps"),
    "smol:replay+sps/ce": Cell("ce", "distilled", "smol:replay+sps"),
}
SPS = ["update.sps.steps=20", "update.sps.prompts=8", "update.sps.group=4", "update.sps.learning_rate=5e-6"]
DISTILLATION = {"temperature": 2.0, "epochs": 3.0, "learning_rate": 1e-4}


@dataclass(frozen=True)
class Sizes:
    """How much is trained on and measured; what a free core does in a quarter of an hour a SmolLM2 cell."""

    pairs: int = 320  # graded pairs of old searches, and as many of fresh ones
    queries: int = 30  # held-out searches of each kind, some 24 documents each
    unlabelled: int = 320  # pairs of other fresh searches that a student reads
    precision: str = "bf16"  # fp32 is three times as fast on processors that have no bf16


@dataclass(frozen=True)
class Data:
    """Disjoint searches: old and fresh to train on [query, text, label], held-out ones [query, doc_id, grade, text]."""

    old_train: pl.DataFrame
    fresh_train: pl.DataFrame
    unlabelled: pl.DataFrame
    old: pl.DataFrame
    fresh: pl.DataFrame


def main() -> None:
    """List, run what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["list", "run", "table"])
    parser.add_argument("out", nargs="?", type=Path, help="run: folder of models and of the collection")
    parser.add_argument("cells", nargs="*", default=["all"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smol", default="", help="folder of SmolLM2-135M-Instruct, de-quantised")
    for name, value in asdict(Sizes()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    given = parser.parse_args()
    sizes = Sizes(given.pairs, given.queries, given.unlabelled, given.precision)
    if given.verb == "list":
        for name, cell in CELLS.items():
            print(f"{name:24} {cell.parent or 'base weights'}")
    elif given.verb == "table":
        table()
    elif given.out is None:
        parser.error("run: name a folder for models and the collection")
    else:
        names = list(CELLS) if given.cells == ["all"] else given.cells
        unknown = [name for name in names if name not in CELLS]
        if unknown:
            parser.error(f"no cell {unknown[0]!r}; there are: {', '.join(CELLS)}")
        for name in with_parents(names):
            # A process each: its peak of memory is the cell's own.
            process = get_context("spawn").Process(target=run, args=(given.out, name, sizes, given.seed, given.smol))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)


def with_parents(names: list[str]) -> list[str]:
    """The cells, each after what it is made from."""
    found: list[str] = []
    for name in names:
        line = [name]
        while parent := CELLS[line[0]].parent:
            line.insert(0, parent)
        found += [each for each in line if each not in found]
    return found


def overrides(cell: Cell, sizes: Sizes, seed: int) -> list[str]:
    """What a cell's settings differ in from configs/msrd.yaml."""
    queries = -(-sizes.pairs // PER_GRADE)  # many a search has few of the better grade
    own = [
        f"seed={seed}", f"backtest.start_queries={queries}", "backtest.dev_queries=1", "backtest.rounds=2",
        f"backtest.stream_queries={max(queries, -(-sizes.unlabelled // 8))}",
        f"backtest.old_queries={sizes.queries}", f"backtest.fresh_queries={sizes.queries}",
        "relevance.evaluate_every=1000000", "update.new_share=0.5", "update.earlier_share=0",
    ]  # fmt: skip
    own += FAMILIES[cell.family]
    own += ["update.new_share=1.0"] if cell.stage == "fresh-only" else []
    own += [f"relevance.precision={sizes.precision}"] if sizes.precision != "bf16" else []
    return own + (SPS if cell.stage == "sps" else [])


def settings(cell: Cell, sizes: Sizes, seed: int, base: str) -> Config:
    """The settings of one cell; `base` names other starting weights than MiniLM's."""
    return load_config(PRESET, overrides(cell, sizes, seed) + ([f"relevance.base={base}"] if base else []))


def digest(name: str, sizes: Sizes, seed: int) -> str:
    """What names a cell's settings, and those of the cell it is made from, wherever the weights lie."""
    cell = CELLS[name]
    parent = digest(cell.parent, sizes, seed) if cell.parent else ""
    taught = DISTILLATION if "/" in name else {}
    content = [name, PRESET, overrides(cell, sizes, seed), taught, counts(sizes), seed, parent]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def counts(sizes: Sizes) -> dict[str, Any]:
    """The sizes as they are written down: bf16, in which the first cells were run, goes without saying."""
    return {name: value for name, value in asdict(sizes).items() if value != "bf16"}


def folder_of(out: Path, name: str, sizes: Sizes, seed: int) -> Path:
    """Where a cell's model lies."""
    return out / "models" / f"{name.replace(':', '-').replace('/', '-to-')}-{digest(name, sizes, seed)}"


def run(out: Path, name: str, sizes: Sizes, seed: int, smol: str) -> None:
    """Train and measure one cell, unless that is done; what it is made from must be done."""
    cell, key = CELLS[name], digest(name, sizes, seed)
    folder = folder_of(out, name, sizes, seed)
    done = key in {row["settings"] for row in kept()}
    if done and (folder.exists() or not any(other.parent == name for other in CELLS.values())):
        return
    if cell.family == "smol" and not smol:
        raise SystemExit(f"{name}: give --smol FOLDER with SmolLM2-135M-Instruct")
    print(f"{name}, seed {seed}: {folder}", flush=True)
    config, data = settings(cell, sizes, seed, smol if cell.family == "smol" else ""), data_of(out, sizes, seed)
    began, busy = time.time(), time.process_time()
    model, seen, tokens = make(out, name, config, data, sizes, seed)
    cost = {"seconds": time.time() - began, "cpu_seconds": time.process_time() - busy, "pairs": seen, "tokens": tokens}
    if not folder.exists():
        scratch = folder.with_name(f".{folder.name}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        model.save(scratch)
        scratch.rename(folder)
    row = {
        "settings": key, "cell": name, "seed": seed, "sizes": counts(sizes),
        **{f"train_{field}": round(value) for field, value in cost.items()},
        "gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
        **measured(model, data), "commit": commit(), "machine": platform.processor() or platform.machine(),
    }  # fmt: skip
    if not done:
        with KEPT.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def make(out: Path, name: str, config: Config, data: Data, sizes: Sizes, seed: int) -> tuple[Any, int, int]:
    """The cell's model, the pairs it was trained on (each as often as it was read), and their tokens."""
    cell = CELLS[name]
    nothing = data.old_train.clear()
    if cell.stage == "zero":
        from serm.relevance import start

        return start(config.relevance, config.labels.scale, seed), 0, 0
    if cell.stage == "base":
        model, _ = train_first(data.old_train, data.old.clear(), config)
        return model, *read(model, data.old_train, config.relevance.max_epochs)
    parent = folder_of(out, str(cell.parent), sizes, seed)
    if "/" in name:
        taught_by = settings(CELLS[str(cell.parent)], sizes, seed, "")
        return distil(load(parent, taught_by.relevance, config.labels.scale), cell, config, data, out, sizes, seed)
    model = load(parent, config.relevance, config.labels.scale)
    if cell.stage == "sps":
        drawn = config.update.sps
        run_folder = out / "runs" / folder_of(out, name, sizes, seed).name
        run_folder.mkdir(parents=True, exist_ok=True)
        model, _ = reinforce_on(model, data.fresh_train, data.old.clear(), config, 1, run_folder)
        passes = drawn.steps * drawn.prompts * drawn.group / data.fresh_train.height
        return model, *read(model, data.fresh_train, passes)
    people = data.fresh_train.with_columns(agreed=pl.lit(False))
    train_next(model, people, nothing, data.old_train, config, 1)
    return model, *read(model, data.fresh_train, config.update.epochs / config.update.new_share)


def distil(
    teacher: Any, cell: Cell, config: Config, data: Data, out: Path, sizes: Sizes, seed: int
) -> tuple[Any, int, int]:
    """A MiniLM cross-encoder, whole or half, taught on unlabelled fresh pairs alone."""
    from serm.distillation.losses import fit
    from serm.relevance import start
    from serm.relevance.examples import Examples
    from serm.relevance.loop import Plan

    queries, texts = data.unlabelled["query"].to_list(), data.unlabelled["text"].to_list()
    said = teacher.probabilities(queries, texts)
    if cell.stage == "half":
        config = settings(cell, sizes, seed, str(half_minilm(out)))
    student = start(config.relevance, config.labels.scale, seed)
    rows = len(queries)
    examples = Examples(queries, texts, said, np.ones(rows, np.float32), np.zeros(rows, dtype=bool), [""] * rows)
    plan = Plan(
        DISTILLATION["epochs"], config.relevance.batch_pairs, DISTILLATION["learning_rate"],
        config.relevance.weight_decay, config.relevance.warmup_share, config.relevance.evaluate_every,
        config.relevance.patience, config.relevance.checkpoint_every, seed, config.relevance.micro_batch_tokens,
    )  # fmt: skip
    fit(student, examples, np.ones(rows, dtype=bool), DISTILLATION["temperature"], plan)
    return student, *read(student, data.unlabelled, DISTILLATION["epochs"])


def half_minilm(out: Path) -> Path:
    """MiniLM's folder without every second layer, made once."""
    from transformers import AutoModel, AutoTokenizer

    from serm.relevance.weights import resolve

    folder = out / "half-minilm"
    if not folder.exists():
        network: Any = AutoModel.from_pretrained(resolve("embedded:minilm"))
        network.encoder.layer = network.encoder.layer[::2]
        network.config.num_hidden_layers = len(network.encoder.layer)
        scratch = out / ".half-minilm"
        network.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(resolve("embedded:minilm")).save_pretrained(scratch)
        scratch.rename(folder)
    return folder


def read(model: Any, pairs: pl.DataFrame, epochs: float) -> tuple[int, int]:
    """How many pairs, and tokens of prompts, so many passes over `pairs` (or as many alike) are."""
    queries, texts = pairs["query"].to_list(), pairs["text"].to_list()
    if model.settings.family == "generative":
        lengths = [len(prompt) for prompt in model.prompts(queries, texts)]
    else:
        lengths = [len(ids) for ids, _ in model.encode(queries, texts)]
    return round(pairs.height * epochs), round(sum(lengths) * epochs)


def data_of(out: Path, sizes: Sizes, seed: int) -> Data:
    """The seed's searches; the held-out ones are the same for every seed."""
    where = out / "collection"
    if not where.exists():
        ingest(Workspace.create(where, PRESET), [str(DATA)])
    workspace = Workspace.open(where)
    judgments = workspace.read("judgments").select("query", "doc_id", "grade").sort("query", "doc_id")
    documents = workspace.read("documents").select("doc_id", "title", "text", "attributes").sort("doc_id")
    config = settings(CELLS["ce:base"], sizes, 0, "")
    scenario = cut(judgments, documents, config, seed)
    unlabelled = scenario.eras[1].sort("query", "doc_id").sample(fraction=1.0, shuffle=True, seed=seed)
    return Data(
        chosen(scenario.start, sizes.pairs, seed), chosen(scenario.eras[0], sizes.pairs, seed),
        unlabelled.head(sizes.unlabelled).select("query", "text"), scenario.old, scenario.fresh,
    )  # fmt: skip


def chosen(judged: pl.DataFrame, amount: int, seed: int) -> pl.DataFrame:
    """`amount` pairs [query, text, label], a few of each grade from every search."""
    rows = judged.sort("query", "doc_id").sample(fraction=1.0, shuffle=True, seed=seed)
    few = rows.filter(pl.int_range(pl.len()).over("query", "grade") < PER_GRADE)
    return few.head(amount).select("query", "text", label="grade")


def measured(model: Any, data: Data) -> dict[str, Any]:
    """Measures of every held-out search, in order of their texts, and the pairs scored a second."""
    result: dict[str, Any] = {}
    began = time.time()
    for kind, judged in (("old", data.old), ("fresh", data.fresh)):
        scores = score_judged(model, judged, judged.select("doc_id", "text").unique("doc_id"))
        values = per_query(judged.select("query", "doc_id", "grade"), scores, list(MEASURES)).values
        result[kind] = {name: [round(value, 4) for value in values[name]] for name in MEASURES}
    result["scored_per_second"] = round((data.old.height + data.fresh.height) / (time.time() - began), 1)
    return result


def kept() -> list[dict[str, Any]]:
    """The figures of all cells that were run."""
    return [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()] if KEPT.is_file() else []


def commit() -> str:
    """The commit that is checked out."""
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=False
    ).stdout.strip()


def table() -> None:
    """Quality and cost of every cell, a table a size; then each cell's difference from what it is made from."""
    rows = kept()
    for size in sorted({json.dumps(row["sizes"]) for row in rows}):
        own = [row for row in rows if json.dumps(row["sizes"]) == size]
        names = [name for name in CELLS if any(row["cell"] == name for row in own)]
        print(f"\n{size}: percent, means over searches and seeds with 95% intervals over searches\n")
        titles = [f"{kind} {measure}" for kind in ("fresh", "old") for measure in MEASURES]
        print(f"| model | seeds | {' | '.join(titles)} | pairs | tokens | CPU s | GiB |")
        print("|---" * (len(titles) + 6) + "|")
        for name in names:
            cells = [row for row in own if row["cell"] == name]
            figures = [words(values(cells, kind, m)) for kind in ("fresh", "old") for m in MEASURES]
            cost = [round(np.mean([row[f"train_{f}"] for row in cells])) for f in ("pairs", "tokens", "cpu_seconds")]
            gib = max(row["gib"] for row in cells)
            print(f"| {name} | {len(cells)} | {' | '.join(figures)} | {' | '.join(f'{c:,}' for c in cost)} | {gib} |")
        print("\nminus the model it goes on from, points, paired by search\n")
        print(f"| model | from | {' | '.join(titles)} |\n" + "|---" * (len(titles) + 2) + "|")
        for name in names:
            parent = CELLS[name].parent
            cells = [row for row in own if row["cell"] == name]
            before = [row for row in own if row["cell"] == parent and row["seed"] in {r["seed"] for r in cells}]
            if len(before) == len(cells) and parent:
                differences = [
                    words(values(cells, kind, m) - values(before, kind, m), signed=True)
                    for kind in ("fresh", "old") for m in MEASURES
                ]  # fmt: skip
                print(f"| {name} | {parent} | {' | '.join(differences)} |")
    missing = [name for name in CELLS if not any(row["cell"] == name for row in rows)]
    if missing:
        print(f"\nnot run yet: python benchmarks/model_quality.py run OUT {' '.join(missing)} --smol FOLDER")


def values(cells: list[dict[str, Any]], kind: str, measure: str) -> Any:
    """A value a search, the mean over seeds: (searches,), in percent."""
    ordered = sorted(cells, key=lambda row: row["seed"])
    return 100 * np.mean([row[kind][measure] for row in ordered], axis=0)


def words(points: Any, signed: bool = False) -> str:
    """A mean with its interval."""
    interval = mean_interval(np.asarray(points), 0.95, RESAMPLES, 0)
    sign = "+" if signed else ""
    return f"{interval.mean:{sign}.1f} [{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


if __name__ == "__main__":
    main()
