"""The verb: mine a round from the workspace's newest impressions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import polars as pl

from serm import registry
from serm.mining.asking import Stored, here, on_ray
from serm.mining.cache import Remembering
from serm.mining.history import history
from serm.mining.partitions import Cache
from serm.mining.precision import by_round
from serm.mining.window import RANDOM, mine_window
from serm.records import AGENTS, UNMINED
from serm.workspace import Workspace, WorkspaceError


@dataclass(frozen=True)
class MineSummary:
    """What a round of mining did."""

    round: int
    mined: int
    candidates: int | None  # null when the round had been mined before
    verdict: str | None
    by_agent: dict[str, int]  # how many of the mined pairs each took; random: drawn uniformly
    shift: str  # in words
    already: bool = False  # the round was there; nothing was changed
    report: dict[str, Any] = field(default_factory=dict)  # the shift report as data
    shares: dict[str, float] = field(default_factory=dict)  # of the budget that each agent was given
    precision: list[dict[str, Any]] = field(default_factory=list)  # of the last labelled round (`precision.by_round`)


def mine(
    workspace: Workspace, round: int | None = None, budget: int | None = None, agents: Sequence[str] = AGENTS
) -> MineSummary:
    """Mine a round into the table `mined`, in one commit; a round that was mined before is returned unchanged.

    What became of every pair that the champion scored goes to the table `considered` first, under this run's id: a
    run that is killed in between is done again, and the round's last run counts.

    The window is the last `window.days` of impressions, compared with the `window.reference_days` before it; where
    there are none, with the queries of the human train split. Pairs of other rounds and pairs that people judged are
    left out. Without `round` it is the last round if some of its pairs wait for annotation, else the next one.

    Raises:
        WorkspaceError: there are no impressions, no documents, no champion, or no pairs left to mine.
        ValueError: an agent is unknown, or round or budget is below 1.
    """
    if round is not None and round < 1:
        raise ValueError(f"round {round}: rounds are numbered from 1")
    number = next_round(workspace) if round is None else round
    present = workspace.scan("mined").filter(round=number).collect()
    if not present.is_empty():
        return _summary_of(present, number)
    config = workspace.config
    with workspace.run("mine", number, budget=budget, agents=list(agents)) as run:
        reference, current = windows(workspace)
        labelled = history(workspace, number)
        logged = config.mining.scores == "logged" or tuple(agents) == RANDOM
        mined = mine_window(
            reference,
            current,
            workspace.scan("documents").select("doc_id", "title", "text"),
            None if logged else _champion(workspace),
            _embed(workspace),
            settled(workspace, number),
            config,
            config.mining.budget if budget is None else budget,
            config.seed + number,
            agents,
            labelled,
            _sums_cache(workspace),
        )
        if mined.pairs.is_empty():
            raise WorkspaceError(
                f"round {number}: none of {mined.candidates} candidate pairs is worth mining; lengthen window.days, or "
                "lower the thresholds under mining"
            )
        of_this = {"round": pl.lit(number, pl.Int32), "run": pl.lit(run.run_id)}
        workspace.append("considered", mined.considered.with_columns(**of_this))
        workspace.append("mined", mined.pairs.with_columns(round=pl.lit(number, pl.Int32)))
        summary = MineSummary(
            number, mined.pairs.height, mined.candidates, mined.shift.verdict, mined.by_agent,
            mined.shift.describe(), report=mined.shift.to_dict(), shares=mined.shares,
            precision=last_precision(labelled),
        )  # fmt: skip
        run.result = asdict(summary)
    return summary


def last_precision(labelled: pl.DataFrame) -> list[dict[str, Any]]:
    """Agents' and the random share's precision in the last round that has labels; see `precision.by_round`."""
    return by_round(labelled.filter(pl.col("round") == pl.col("round").max()), AGENTS)


def next_round(workspace: Workspace) -> int:
    """The last mined round if some of its pairs wait for annotation, else the one after it; 1 at first."""
    mined = workspace.scan("mined").filter(pl.col("round") > 0).select("round", "query", "doc_id")
    last = mined.select(pl.col("round").max()).collect().item()
    if last is None:
        return 1
    key = ["round", "query", "doc_id"]
    waiting = mined.filter(round=last).join(workspace.scan("annotations").select(key), on=key, how="anti")
    return int(last) + int(waiting.collect().is_empty())


def windows(workspace: Workspace) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """The reference and the current window of impressions, lazily.

    Searches whose queries people judged for early stopping or evaluation (dev, fresh and anchor) are left out of the
    current window: a label mined from them would leak there.

    Raises:
        WorkspaceError: there are no impressions.
    """
    impressions, settings = workspace.scan("impressions"), workspace.config.window
    newest = impressions.select(pl.col("ts").max()).collect().item()
    if newest is None:
        raise WorkspaceError("no impressions to mine; add a log with: serm ingest, or make one with: serm simulate")
    start = newest - timedelta(days=settings.days)
    earliest = start - timedelta(days=settings.reference_days)
    reference = impressions.filter((pl.col("ts") > earliest) & (pl.col("ts") <= start))
    if reference.head(1).collect().is_empty():
        reference = workspace.scan("judgments").filter(split="train").select("query").unique()
    held_out = workspace.scan("judgments").filter(pl.col("split").is_in(UNMINED)).select("query").unique()
    return reference, impressions.filter(pl.col("ts") > start).join(held_out, on="query", how="anti")


def settled(workspace: Workspace, round: int) -> pl.LazyFrame:
    """Pairs [query, doc_id] that were mined in another round or judged by people."""
    key = ["query", "doc_id"]
    mined = workspace.scan("mined").filter(pl.col("round") != round).select(key)
    judged = workspace.scan("judgments").filter(pl.col("split") != "hidden").select(key)
    return pl.concat([mined, judged]).unique()


def _champion(workspace: Workspace) -> Any:
    champion, config = registry.champion(workspace), workspace.config
    settings, scale = config.relevance, config.labels.scale
    asked = (settings.instructions, settings.chat_template, settings.sampled_judgments, settings.rationale_tokens)
    version = f"{champion} {settings.max_tokens} {settings.precision} {asked}"
    if config.mining.distribute == "ray":
        ask = on_ray(
            Stored(workspace.root, champion, settings.model_dump_json(), tuple(scale)), config.mining.scoring_gpus
        )
    else:
        from serm.relevance import load

        ask = here(load(registry.folder(workspace, champion), settings, scale))
    return Remembering(scale, ask, workspace.local("cache", "scores.sqlite"), version)


def _sums_cache(workspace: Workspace) -> Cache:
    """Where the window's sums are kept: what it holds depends on these tables' versions and on its length."""
    tables, window = ("impressions", "judgments"), workspace.config.window
    log = " ".join([*(f"{table}={workspace.version(table)}" for table in tables), window.model_dump_json()])
    return Cache(workspace.local("cache", "sums"), log)


def _embed(workspace: Workspace) -> Any:
    from serm.relevance.embedding import embed

    return partial(embed, settings=workspace.config.relevance)


def _summary_of(present: pl.DataFrame, round: int) -> MineSummary:
    counts = present["agents"].explode(empty_as_null=False).value_counts(sort=False)
    by_agent = dict(sorted(counts.iter_rows()))
    return MineSummary(round, present.height, None, None, by_agent, "Mined before; nothing changed.", already=True)
