"""Where a round's labels come from, strategy by strategy, at equal label budgets.

static         no labels at all
self_training  random pairs, labelled by the model itself
random         random pairs, labelled by the annotators
feedback, click, disagreement, uncertainty
               what that agent alone mines, labelled by the annotators
serm           what all agents mine together, labelled by the annotators
oracle         the same pairs as serm, labelled by people
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from serm.annotation.core import annotate_pairs
from serm.annotation.stand_in import StandInLLM
from serm.config import Config
from serm.evolution.calibration import confusion, draw_calibration
from serm.evolution.scenario import Scenario
from serm.mining.history import labelled as labels_told
from serm.mining.mine import mine_window
from serm.records import AGENTS
from serm.relevance.model import RelevanceModel
from serm.shift import Embed
from serm.simulate.standin import StandIn

PAIR = ["query", "doc_id"]
CONTROL_PAIRS = 1_000  # random shown pairs, by which a round's base rate of wrong pairs is measured


@dataclass(frozen=True)
class Labelled:
    """A round's labelled pairs [query, doc_id, text, label], and what is known of them."""

    mined: pl.DataFrame  # query, doc_id: all that the budget was spent on
    pairs: pl.DataFrame
    facts: dict[str, Any]
    told: pl.DataFrame  # what the miner learns from it, columns as in serm.mining.history.SCHEMA


class Lab:
    """What every strategy shares: the truth, the annotators, and the documents."""

    def __init__(
        self,
        scenario: Scenario,
        judgments: pl.DataFrame,
        documents: pl.DataFrame,
        config: Config,
        embedder: Embed,
    ) -> None:
        """Bind the stand-in annotators to the human grades that they err about."""
        self.config = config
        self.documents = documents
        self.texts = documents.select("doc_id", "text")
        self.embed = embedder
        self.truth = pl.concat([era.select(*PAIR, truth="grade") for era in scenario.eras])
        stand_in = StandIn(judgments, config.labels.scale, config.simulate_llm, config.seed)
        self.llms = {a.name: StandInLLM(stand_in, a.model, config.seed) for a in config.annotation.annotators}
        judged = scenario.start.select(*PAIR, "grade")
        calibration = draw_calibration(judged, config.update.calibration_pairs, config.seed)
        known = agreed(self.annotate(calibration)).join(calibration, on=PAIR)
        self.errors = confusion(known["grade"].to_list(), known["label"].to_list(), config.labels.scale)

    def annotate(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """The annotations of pairs [query, doc_id], kept or not."""
        config = self.config
        scale, names = config.labels.scale, config.labels.names
        return annotate_pairs(pairs.select(PAIR), self.documents, self.llms, config.annotation, scale, names=names)


def agreed(annotations: pl.DataFrame) -> pl.DataFrame:
    """The labels that were kept: query, doc_id, label."""
    return annotations.filter(pl.col("status") == "kept").select(*PAIR, "label").sort(PAIR)


def gather_labels(
    strategy: str, lab: Lab, model: RelevanceModel, reference: pl.DataFrame, current: pl.DataFrame,
    gathered: list[Labelled], round: int,
) -> Labelled:  # fmt: skip
    """Spend the round's label budget by `strategy`."""
    config = lab.config
    seed = config.seed * 1_009 + round
    agents = {"serm": list(AGENTS), "oracle": list(AGENTS), "random": ["random"], "self_training": ["random"]}
    exclude = (
        pl.concat([batch.mined for batch in gathered])
        if gathered
        else pl.DataFrame(schema=dict.fromkeys(PAIR, pl.String))
    )
    mined = mine_window(
        reference, current, lab.documents, model, lab.embed, exclude, config, config.mining.budget, seed,
        agents.get(strategy, [strategy]), pl.concat([batch.told for batch in gathered]) if gathered else None,
    )  # fmt: skip
    chosen = mined.pairs.select(PAIR).join(lab.texts, on="doc_id")
    shown = current.select(PAIR).unique().join(exclude, on=PAIR, how="anti").sort(PAIR)
    control = shown.sample(min(CONTROL_PAIRS, shown.height), seed=seed).join(lab.texts, on="doc_id")
    facts: dict[str, Any] = {
        "mined": chosen.height, "candidates": mined.candidates, "shift": mined.shift.verdict,
        "by_agent": mined.by_agent,
        "precision": wrong_share(lab, model, chosen), "random_precision": wrong_share(lab, model, control),
    }  # fmt: skip
    if strategy == "self_training":
        probabilities = model.probabilities(chosen["query"].to_list(), chosen["text"].to_list())
        own = np.asarray(config.labels.scale)[probabilities.argmax(axis=1)]
        labelled = chosen.select(*PAIR, "text").with_columns(pl.Series("label", own, pl.Int32))
    elif strategy == "oracle":
        labelled = chosen.join(lab.truth, on=PAIR).select(*PAIR, "text", label=pl.col("truth").cast(pl.Int32))
    else:
        annotations = lab.annotate(chosen)
        facts["calls"] = int(annotations["calls"].sum())
        labelled = (
            agreed(annotations).join(lab.texts, on="doc_id", maintain_order="left").select(*PAIR, "text", "label")
        )
    right = labelled.join(lab.truth, on=PAIR).select((pl.col("label") == pl.col("truth")).mean()).item()
    facts |= {"kept": labelled.height, "label_accuracy": right, "positive": _positive(chosen, lab, config)}
    told = labels_told(mined.pairs, mined.considered, labelled, round, config.labels.scale)
    return Labelled(chosen.select(PAIR), labelled, facts, told)


def wrong_share(lab: Lab, model: RelevanceModel, pairs: pl.DataFrame) -> float:
    """The share of pairs [query, doc_id, text] whose most probable label is not the human one."""
    known = pairs.join(lab.truth, on=PAIR)
    probabilities = model.probabilities(known["query"].to_list(), known["text"].to_list())
    labels = np.asarray(lab.config.labels.scale)[probabilities.argmax(axis=1)]
    return float((labels != known["truth"].to_numpy()).mean())


def _positive(chosen: pl.DataFrame, lab: Lab, config: Config) -> float:
    """The share of mined pairs that people call better than the lowest grade."""
    grades = chosen.join(lab.truth, on=PAIR)["truth"]
    return float((grades > config.labels.scale[0]).mean() or 0.0)  # type: ignore[arg-type]
