"""What each agent and each part of the selection is worth on MSRD, by human judgment.

    python benchmarks/mining_value.py run FOLDER [--seeds 10 11 12]      every variant -> FOLDER/pairs-SEED.parquet
    python benchmarks/mining_value.py run FOLDER --starts BACKTEST       the same with cross-encoders for champions
    python benchmarks/mining_value.py table FOLDER                       the tables of RESULTS.md

The scenario, the traffic and the annotators are the backtest's (configs/msrd.yaml), made smaller. The champion is a
logistic head on frozen features, trained on the same human grades in seconds; or, with --starts, the cross-encoder that
a backtest of configs/msrd.yaml trained for the seed on old searches (start-SEED in its folder). It stays the same over
the rounds: what changes from round to round is what the miner has learned. A variant leaves one part out; every variant
goes its own way, with the labels that it asked for.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from serm.config import Config
from serm.configure import load
from serm.evolution.scenario import Scenario, cut, windows
from serm.evolution.strategies import Lab
from serm.ingest import ingest
from serm.mining import Mined, mine_window
from serm.mining.history import SCHEMA, is_wrong, labelled
from serm.mining.precision import RANDOM, UNION
from serm.records import AGENTS
from serm.relevance.cross_encoder import CrossEncoder
from serm.relevance.embedding import embed
from serm.workspace import Workspace

HERE = Path(__file__).resolve().parent.parent
DATA = HERE.parent / "shared" / "data" / "msrd"
SMALLER = [
    "backtest.start_queries=500", "backtest.stream_queries=350", "backtest.sessions=2500",
    "mining.budget=300", "mining.candidates=2500", "mining.judged=400", "shift.scored=200",
]  # fmt: skip
PAIR = ["query", "doc_id"]
OFF: dict[str, dict[str, Any]] = {
    "all parts": {},
    "no cascade": {"candidates": 10**9},
    "no caps": {"per_query": 10**6, "per_cluster": 1.0, "duplicate_similarity": 1.0},
    "no calibration": {"calibration": False},
    "no coverage of clusters": {"coverage": 0.0},
    "and facility location": {"facility": 1.5},
    "no bandit": {"agent_floor": 1.0},
    "no random share": {"random_share": 0.0},
    "none of these": {
        "calibration": False, "coverage": 0.0, "agent_floor": 1.0, "random_share": 0.0,
        "per_query": 10**6, "per_cluster": 1.0, "duplicate_similarity": 1.0,
    },
}  # fmt: skip
DROPOUT = 0.1
RESAMPLES = 2_000


class Head:
    """A logistic head on frozen features of query and document: a champion that is trained in seconds."""

    def __init__(self, pairs: pl.DataFrame, documents: pl.DataFrame, vectors: Callable[[Sequence[str]], Any]) -> None:
        """Fit to [query, text, grade]; `vectors` embeds texts."""
        self.scale = [0, 1]
        self.vectors = vectors
        self.title = dict(documents.select("text", "title").iter_rows())
        self.words = TfidfVectorizer(sublinear_tf=True, dtype=np.float32).fit(documents["text"])
        self.scaler = StandardScaler()
        features = self.scaler.fit_transform(self._features(pairs["query"].to_list(), pairs["text"].to_list()))
        self.model = LogisticRegression(C=0.003, max_iter=300).fit(features, pairs["grade"].to_numpy())

    def _features(self, queries: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        query, title = self.vectors(queries), self.vectors([self.title[text] for text in texts])
        overlap = self.words.transform(queries).multiply(self.words.transform(texts)).sum(axis=1)
        cosine = (query * title).sum(axis=1, keepdims=True)
        return np.hstack([query * title, cosine, np.asarray(overlap), cosine * np.asarray(overlap)]).astype(np.float32)

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        """Pr(y | q, d): (n, 2)."""
        features = self.scaler.transform(self._features(queries, documents))
        return self.model.predict_proba(features).astype(np.float32)  # type: ignore[no-any-return]

    def judgments(
        self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int
    ) -> NDArray[np.float32]:
        """f of K passes with a tenth of the features dropped: (n, K)."""
        features = self.scaler.transform(self._features(queries, documents))
        rng = np.random.default_rng(seed)
        columns = []
        for _ in range(passes):
            kept = rng.random(features.shape) >= DROPOUT
            columns.append(self.model.predict_proba(features * kept / (1 - DROPOUT))[:, 1])
        return np.stack(columns, axis=1).astype(np.float32)


class Remembered:
    """A cross-encoder that scores no pair twice: every variant asks about the same ones."""

    def __init__(self, folder: Path, config: Config) -> None:
        """Load a backtest's starting model."""
        self.model = CrossEncoder(folder, config.relevance, config.labels.scale)
        self.scale = self.model.scale
        self.known: dict[tuple[str, str], NDArray[np.float32]] = {}

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        """Pr(y | q, d): (n, 2)."""
        pairs = list(zip(queries, documents, strict=True))
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self.known]
        if new:
            scores = self.model.probabilities([query for query, _ in new], [document for _, document in new])
            self.known.update(zip(new, scores, strict=True))
        return np.stack([self.known[pair] for pair in pairs]) if pairs else np.empty((0, 2), dtype=np.float32)

    def judgments(
        self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int
    ) -> NDArray[np.float32]:
        """f of K passes with dropout: (n, K)."""
        return self.model.judgments(queries, documents, passes, seed)


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
    judgments = workspace.read("judgments").select(*PAIR, "grade").sort(PAIR)
    return judgments, workspace.read("documents").select("doc_id", "title", "text", "attributes").sort("doc_id")


def scenario_of(seed: int, folder: Path) -> tuple[Scenario, Config]:
    """The seed's cut of the collection."""
    config = settings(seed)
    held_out = config.model_copy(update={"seed": config.backtest.split_seed})
    return cut(*collection(folder), held_out, seed), config


class Vectors:
    """Embeddings by text: the configured embedder's, kept in a file between runs, or cheap latent semantic ones."""

    def __init__(self, path: Path, config: Config, documents: pl.DataFrame, latent: bool) -> None:
        """Read what is there, or fit a truncated SVD of the documents' character n-grams (Deerwester et al., 1990)."""
        self.path, self.config, self.latent = path, config, latent
        self.known: dict[str, NDArray[np.float32]] = {}
        if latent:
            grams = TfidfVectorizer(
                sublinear_tf=True, min_df=2, dtype=np.float32, analyzer="char_wb", ngram_range=(3, 4),
                max_features=60_000,
            )  # fmt: skip
            self.reduce = make_pipeline(grams, TruncatedSVD(96, n_iter=3, random_state=0))
            self.reduce.fit(documents["text"].str.slice(0, 400))
        elif path.exists():
            stored = np.load(path)
            self.known = dict(zip(stored["texts"].tolist(), stored["vectors"], strict=True))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (n, d)."""
        new = sorted(set(texts) - self.known.keys())
        if new:
            self.known.update(zip(new, self._embed(new), strict=True))
        return np.stack([self.known[text] for text in texts]) if texts else self._embed([""])[:0]

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        if not self.latent:
            return embed(texts, self.config.relevance)
        vectors = self.reduce.transform(texts) + 1e-6  # a text of unknown n-grams points somewhere, too
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def save(self) -> None:
        """Keep all that the configured embedder said."""
        if not self.latent:
            np.savez(self.path, texts=np.array(list(self.known)), vectors=np.stack(list(self.known.values())))


class Bench:
    """One seed: its logs, champion, annotators, and the truth about every shown pair."""

    def __init__(self, seed: int, folder: Path, latent: bool, starts: Path | None) -> None:
        """Train or load the champion; ask the annotators about every pair once."""
        judgments, documents = collection(folder)
        self.scenario, self.config = scenario_of(seed, folder)
        self.seed = seed
        self.documents = documents.filter(pl.col("doc_id").is_in(judgments["doc_id"].unique().implode()))
        self.vectors = Vectors(folder / "vectors.npz", self.config, documents, latent)
        self.champion: Head | Remembered = (
            Remembered(starts / f"start-{seed}", self.config)
            if starts
            else Head(self.scenario.start, self.documents, self.vectors)
        )
        self.logs = windows(self.scenario, self.config.backtest, self.config, seed)
        self.lab = Lab(self.scenario, judgments, documents, self.config, self.vectors)
        self.asked: dict[tuple[str, str], int | None] = {}
        eras = pl.concat(self.scenario.eras).unique(PAIR)
        guess = self.champion.probabilities(eras["query"].to_list(), eras["text"].to_list())[:, 1]
        truth = eras.with_columns(pl.Series("score", guess, dtype=pl.Float64))
        self.truth = truth.select(*PAIR, wrong=is_wrong(pl.col("grade"), pl.col("score"), [0, 1]))

    def base(self, number: int) -> pl.DataFrame:
        """Every pair that a round's window showed, as if mined at random."""
        shown = self.logs[number].select(PAIR).unique().join(self.truth, on=PAIR).sort(PAIR)
        return shown.with_columns(agents=pl.lit(["all shown"]), cluster=pl.lit(None, pl.Int32))

    def rounds(self, changed: dict[str, Any], agents: Sequence[str]) -> list[pl.DataFrame]:
        """The pairs of each round with agents, cluster and whether people say that the champion had them wrong."""
        config = self.config.model_copy(update={"mining": self.config.mining.model_copy(update=changed)})
        told, found = pl.DataFrame(schema=SCHEMA), []
        for number in range(1, config.backtest.rounds + 1):
            mined = mine_window(
                self.logs[number - 1], self.logs[number], self.documents, self.champion, self.vectors,
                told.select(PAIR), config, config.mining.budget, self.seed * 1_009 + number, agents, told,
            )  # fmt: skip
            told = pl.concat([told, self._labelled(mined, number)])
            found.append(mined.pairs.join(self.truth, on=PAIR).select(*PAIR, "agents", "cluster", "wrong"))
        return found

    def _labelled(self, mined: Mined, number: int) -> pl.DataFrame:
        """What the annotators' labels say of mined pairs, as the next round's history."""
        new = [pair for pair in mined.pairs.select(PAIR).rows() if pair not in self.asked]
        if new:
            answers = self.lab.annotate(pl.DataFrame(new, schema=PAIR, orient="row"))
            kept = pl.when(pl.col("status") == "kept").then("label")
            self.asked.update({(q, d): label for q, d, label in answers.select(*PAIR, kept).rows()})
        pairs = mined.pairs.select(PAIR)
        labels = pairs.with_columns(pl.Series("label", [self.asked[pair] for pair in pairs.rows()], dtype=pl.Int32))
        return labelled(mined.pairs, mined.considered, labels, number, [0, 1])


def run(folder: Path, seeds: Sequence[int], latent: bool, starts: Path | None) -> None:
    """Every variant and every agent alone, seed by seed; a seed that is there is not run again."""
    for seed in seeds:
        path = folder / f"pairs-{seed}.parquet"
        if path.exists():
            continue
        bench = Bench(seed, folder, latent, starts)
        tried: dict[str, tuple[dict[str, Any], Sequence[str]]] = {name: (off, AGENTS) for name, off in OFF.items()}
        tried |= {f"{agent} alone": ({"random_share": 0.0}, (agent,)) for agent in AGENTS}
        tried[RANDOM] = ({}, (RANDOM,))
        parts = []
        for name, (changed, agents) in tried.items():
            for number, pairs in enumerate(bench.rounds(changed, agents), 1):
                parts.append(pairs.with_columns(seed=seed, round=number, variant=pl.lit(name)))
            print(seed, name, f"{parts[-1]['wrong'].mean():.3f}", flush=True)
        for number in range(1, bench.config.backtest.rounds + 1):
            parts.append(bench.base(number).with_columns(seed=seed, round=number, variant=pl.lit("all shown")))
        bench.vectors.save()
        pl.concat(parts, how="diagonal_relaxed").write_parquet(path)


# --- tables -------------------------------------------------------------------------------------------------------


def table(folder: Path) -> None:
    """Precision and lift of agents and union, and what is lost by leaving a part out; intervals over queries."""
    pairs = pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("pairs-*.parquet"))])
    base = pairs.filter(variant="all shown")
    whole = pairs.filter(variant="all parts")
    print(f"seeds {sorted(pairs['seed'].unique())}; base rate of wrong pairs {base['wrong'].mean():.3f}")
    print("\n| agent | pairs | precision | lift over random |\n|---|---|---|---|")
    groups = {agent: whole.filter(pl.col("agents").list.contains(agent)) for agent in (*AGENTS, RANDOM)}
    groups[UNION] = whole.filter(~pl.col("agents").list.contains(RANDOM))
    groups |= {f"{agent} alone": pairs.filter(variant=f"{agent} alone") for agent in AGENTS}
    groups["random alone"] = pairs.filter(variant=RANDOM)
    for name, group in groups.items():
        share, low, high = interval(group, None)
        lift, lift_low, lift_high = interval(group, base, ratio=True)
        print(f"| {name} | {group.height} | {_of(share, low, high)} | {_of(lift, lift_low, lift_high, 2)} |")
    print("\n| | precision | difference | rounds 2 and 3 | difference | queries a round | clusters a round |")
    print("|---|---|---|---|---|---|---|")
    later = pl.col("round") > 1
    for name in OFF:
        group = pairs.filter(variant=name)
        cells = []
        for part, reference in ((group, whole), (group.filter(later), whole.filter(later))):
            cells.append(_of(*interval(part, None)))
            cells.append("" if name == "all parts" else _of(*interval(part, reference)))
        kinds = group.group_by("seed", "round").agg(pl.col("query", "cluster").n_unique()).select("query", "cluster")
        cells += [f"{value:.0f}" if i == 0 else f"{value:.1f}" for i, value in enumerate(kinds.mean().row(0))]
        print(f"| {name} | {' | '.join(cells)} |")


def interval(group: pl.DataFrame, other: pl.DataFrame | None, ratio: bool = False) -> tuple[float, float, float]:
    """Share of wrong pairs, or its difference or ratio to another group's, with a 95% bootstrap over seeds' queries."""
    counts = [_counts(group, "a")] + ([] if other is None else [_counts(other, "b")])
    joined = counts[0]
    for frame in counts[1:]:
        joined = joined.join(frame, on=["seed", "query"], how="full", coalesce=True)
    figures = joined.sort("seed", "query").drop("seed", "query").fill_null(0).to_numpy().astype(np.float64)
    weights = np.random.default_rng(0).multinomial(len(figures), np.full(len(figures), 1 / len(figures)), RESAMPLES)
    totals = np.vstack([figures.sum(axis=0), weights @ figures])
    shares = totals[:, 0::2] / np.maximum(totals[:, 1::2], 1)
    values = shares[:, 0]
    if other is not None:
        values = shares[:, 0] / shares[:, 1] if ratio else shares[:, 0] - shares[:, 1]
    return float(values[0]), *(float(x) for x in np.percentile(values[1:], [2.5, 97.5]))


def _counts(group: pl.DataFrame, name: str) -> pl.DataFrame:
    return group.group_by("seed", "query").agg(
        pl.col("wrong").sum().alias(f"{name}_wrong"), pl.len().alias(f"{name}_pairs")
    )


def _of(value: float, low: float, high: float, digits: int = 3) -> str:
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    """Run or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--embedder", choices=["configured", "latent"], default="configured", help="latent: cheap")
    parser.add_argument("--starts", type=Path, help="a backtest's folder of start-SEED, for cross-encoders")
    parser.add_argument("--set", nargs="*", default=[], metavar="ROOM.KEY=VALUE", help="over the settings here")
    given = parser.parse_args()
    SMALLER.extend(given.set)
    if given.what == "run":
        run(given.folder, given.seeds, given.embedder == "latent", given.starts)
    else:
        table(given.folder)


if __name__ == "__main__":
    main()
