"""The verb attack: the suite on a workspace's judged pairs and its configured annotators."""

from collections.abc import Mapping, Sequence

import polars as pl

from serm.annotation.attacks import AttackReport, choose_pairs, run_attacks
from serm.annotation.ledger import Ledger
from serm.annotation.llm import LLM
from serm.annotation.verbs import configured_llms
from serm.config import ATTACKS
from serm.workspace import Workspace

SPLIT = "train"


def attack(
    workspace: Workspace,
    pairs: int = 20,
    kinds: Sequence[str] | None = None,
    unguarded: bool = False,
    llms: Mapping[str, LLM] | None = None,
) -> AttackReport:
    """Attack `pairs` irrelevant judged pairs in every way, and ask about as many relevant ones for the guard's harm.

    Pairs come from the train split. A second call with the same settings is answered by the ledger.

    Raises:
        ValueError: a kind is unknown, there are no such judged pairs, or an API key's variable is not set.
    """
    config = workspace.config
    if unknown := [kind for kind in kinds or () if kind not in ATTACKS]:
        raise ValueError(f"no attack {unknown[0]!r}; known are {', '.join(ATTACKS)}")
    judged = (
        workspace.scan("judgments")
        .filter(pl.col("split") == SPLIT)
        .group_by("query", "doc_id")
        .agg(pl.col("grade").median().round().cast(pl.Int32), pl.col("locale").drop_nulls().min())
        .join(workspace.scan("documents").select("doc_id", "text"), on="doc_id")
        .collect()
    )
    victims, clean = choose_pairs(judged, pairs, config.labels.scale, config.seed)
    chosen = dict(llms) if llms is not None else configured_llms(config)
    ledger = Ledger(config.annotation.ledger or workspace.local("ledger.sqlite"))
    with workspace.run("attack", None, pairs=pairs, kinds=kinds, unguarded=unguarded) as record:
        try:
            report = run_attacks(
                victims, clean, chosen, config.annotation, config.labels.scale, kinds or ATTACKS,
                (True, False) if unguarded else (True,), ledger, config.labels.names, config.seed,
            )  # fmt: skip
        finally:
            ledger.close()
        record.result.update(vars(report))
    return report
