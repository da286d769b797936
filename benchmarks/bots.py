"""Bots that push 50 documents: the share of the mined pairs that those capture, with and without the defences.

    python benchmarks/bots.py

Honest traffic is simulated over MSRD's judged movies (../shared/data/msrd), ranked and scored by the share of the
query's words that a document holds. Bots copy result lists that people were shown and click a pushed document there:

    many    ten searches a session, the pushed document clicked in each and read for a minute or two
    hasty   ten searches a session, the pushed document and most others clicked and left at once
    single  one search a session, the pushed document alone clicked and read for a minute or two
    people  one search a session, the person's own clicks kept, the pushed document clicked too and read like others

Mining is a round on logged scores: shortlist, feedback and click agents, union, turns, budget with a cap per query.
Without defences every click counts: of any session, as often as it came, however short it was.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl

from serm.config import ClickSettings, MiningSettings, SimulateSettings
from serm.mining.agents import OPINIONS
from serm.mining.attraction import attractiveness
from serm.mining.candidates import PAIR, SCHEMA, shortlist
from serm.mining.pairs import UNKNOWN_ENGAGEMENT
from serm.mining.scoring import with_logged_scores
from serm.mining.selection import Basket, pick
from serm.mining.traffic import believable
from serm.mining.union import turns, unite
from serm.simulate.ranker import lexical_overlap
from serm.simulate.traffic import stream

ROOT = Path(__file__).resolve().parents[1]
MSRD = ROOT.parent / "shared" / "data" / "msrd"
SCALE = [0, 1]
PUSHED, BUDGET = 50, 1_000
SEARCHES = {"many": 10, "hasty": 10, "single": 1, "people": 1}  # a session
AGENTS = ["feedback", "click"]
OFF = {"bot_clicks": 1_000_000, "bot_dwell": 0.0}  # no visit is a bot's, no click a bounce
LIST = ["session", "query", "ts"]
DEFENCES = {
    "all": MiningSettings(budget=BUDGET),
    "no bot rule": MiningSettings(budget=BUDGET, **OFF),
    "no cap per session": MiningSettings(budget=BUDGET, per_session=1_000_000),
    "no cap per document": MiningSettings(budget=BUDGET, per_document=1e9),
    "no spread rule": MiningSettings(budget=BUDGET, spread=1e9),
}


def main() -> None:
    """Print a line of JSON for every kind of bot, share of clicks and set of defences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=40_000, help="honest sessions")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    if not MSRD.is_dir():
        raise SystemExit("bots.py needs MSRD under ../shared/data, which is not there")
    for seed in arguments.seeds:
        log, documents = honest(arguments.sessions, seed)
        pushed = choose(log, seed)
        for kind in ("mixed", *SEARCHES):
            for share in (0.0, 0.01, 0.05, 0.2) if kind == "mixed" else (0.05,):
                attacked = pl.concat([log, *attack(log, pushed, kind, share, seed)])
                row = {"seed": seed, "bots": kind, "share_of_clicks": share}
                row |= {name: captured(attacked, documents, pushed, rules) for name, rules in DEFENCES.items()}
                print(json.dumps(row | {"none": captured(attacked, documents, pushed, None)}), flush=True)


def honest(sessions: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two weeks of people over MSRD's judged pairs, with logged scores; and the documents."""
    documents = pl.read_parquet(MSRD / "corpus.parquet").select(
        doc_id=pl.col("id").cast(pl.String), title="title", text=pl.concat_str("title", "overview", separator=" ")
    )
    judgments = (
        pl.read_parquet(MSRD / "judgments.parquet")
        .select("query", pl.col("doc_id").cast(pl.String), pl.col("grade").cast(pl.Int32))
        .unique(PAIR, keep="first", maintain_order=True)
        .join(documents.select("doc_id"), on="doc_id", how="semi")
        .with_columns(locale=pl.lit("en"))
    )
    settings = SimulateSettings(sessions=sessions, days=14, bots=0.0)
    scores = lexical_overlap(judgments, documents)
    return stream(judgments, None, scores, settings, SCALE, seed)[0], documents


def choose(log: pl.DataFrame, seed: int) -> list[str]:
    """50 documents that were shown, drawn at random."""
    shown = log["doc_id"].unique().sort()
    return np.random.default_rng(seed).choice(shown.to_numpy(), PUSHED, replace=False).tolist()


def attack(log: pl.DataFrame, pushed: list[str], kind: str, share: float, seed: int) -> list[pl.DataFrame]:
    """Bots' impressions, so many that their clicks are `share` of all; of "mixed" a quarter of the clicks each."""
    clicks = log["clicked"].sum() * share / (1 - share)
    if kind == "mixed":
        return [one_kind(log, pushed, name, round(clicks / len(SEARCHES)), seed) for name in SEARCHES]
    return [one_kind(log, pushed, kind, round(clicks), seed)]


def one_kind(log: pl.DataFrame, pushed: list[str], kind: str, clicks: int, seed: int) -> pl.DataFrame:
    """Lists that show a pushed document, drawn anew as sessions of one kind of bot, with about `clicks` clicks."""
    rng = np.random.default_rng([seed, list(SEARCHES).index(kind)])
    target = pl.col("doc_id").is_in(pushed)
    lists = log.filter(target).select(LIST).unique().sort(LIST).with_row_index("list")
    # of "hasty" bots half the clicks are on other results, and "people" keep their own
    drawn = rng.integers(0, lists.height, max(1, clicks)) if clicks else np.zeros(0, dtype=np.int64)
    copies = pl.DataFrame({"list": drawn.astype(np.uint32), "copy": np.arange(drawn.size)})
    copies = copies.join(lists, on="list").sort("copy")
    rows = copies.join(log, on=LIST, maintain_order="left")
    hasty = rng.random(rows.height) < (0.5 if kind == "hasty" else 0.0)
    own = pl.col("clicked") if kind == "people" else pl.lit(False)
    long = {"many": (90, 0.3), "hasty": (0.5, 0.3), "single": (90, 0.3), "people": (40, 0.8)}[kind]
    read = long[0] * np.exp(long[1] * rng.standard_normal(rows.height))
    rows = rows.with_columns(
        clicked=target | own | pl.Series(hasty),
        dwell=pl.when(own).then("dwell").otherwise(pl.Series(read)),
        session=pl.format("{}-{}", pl.lit(f"bot-{kind}"), pl.col("copy") // SEARCHES[kind]),
        ts=pl.col("ts").first().over(pl.col("copy") // SEARCHES[kind]) + pl.duration(seconds=3 * pl.col("copy") % 30),
    ).with_columns(dwell=pl.when("clicked").then("dwell"))
    upto = rows["clicked"].cum_sum() <= clicks
    whole = rows.filter(upto)["copy"].max() if clicks else -1
    return rows.filter(pl.col("copy") <= whole).select(log.columns)


def captured(log: pl.DataFrame, documents: pl.DataFrame, pushed: list[str], rules: MiningSettings | None) -> float:
    """The share of a mined round whose document is pushed, percent; `rules` None: without any defence."""
    settings = rules or MiningSettings(budget=BUDGET, **OFF)
    nothing = pl.LazyFrame(schema={"query": pl.String, "doc_id": pl.String})
    if rules is None:
        candidates, read = naive(log, settings), log.lazy()
    else:
        candidates = shortlist(log.lazy(), documents.lazy(), nothing, settings, SCALE, 0)[0]
        read = believable(log.lazy(), settings)
    scored = with_logged_scores(candidates, SCALE)
    scored = scored.with_columns(
        attractiveness(read, scored.select(PAIR), ClickSettings(iterations=10), settings.dwell)
    )
    opinions = {agent: OPINIONS[agent](scored, settings, SCALE) for agent in AGENTS}
    united = unite(scored, opinions, settings, 1 - settings.quantile)
    apart = [np.zeros(0, dtype=np.int64)] * united.height
    basket = Basket(united["query"].to_list(), None, apart, settings.per_query, BUDGET)
    pick(basket, turns(united, dict.fromkeys(AGENTS, 1 / len(AGENTS))).to_list(), BUDGET, {})
    return round(100 * float(united[basket.taken]["doc_id"].is_in(pushed).mean() or 0.0), 2)


def naive(log: pl.DataFrame, settings: MiningSettings) -> pl.DataFrame:
    """Candidates from raw counts: every row a session, every click a clicking session."""
    engaged = (pl.col("dwell") / settings.dwell).clip(0, 1).fill_null(UNKNOWN_ENGAGEMENT)
    found = log.group_by(PAIR).agg(
        pl.col("locale").min(), pl.col("position").mean(), pl.col("dwell").median(),
        impressions=pl.len(), sessions=pl.len(), logged=pl.col("score").mean(),
        click_sessions=pl.col("clicked").sum(), engagement=engaged.filter("clicked").sum(),
    )  # fmt: skip
    return found.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()).sort(PAIR)


if __name__ == "__main__":
    main()
