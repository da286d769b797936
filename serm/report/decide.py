"""What needs a person: unfinished rounds, refusals for want of judgments, waiting reviews, failed runs. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from serm.config import Config
from serm.report.facts import Decision, Round

REFUSALS_IN_A_ROW = 3  # after which the loop is looked at
MANY_REVIEWS = 50  # pairs; fewer wait without being told


def decisions(
    config: Config,
    champion: str | None,
    rounds: Sequence[Round],
    review: int,
    runs: Sequence[dict[str, Any]],
    judged: Mapping[str, int],
    watch: dict[str, Any] | None,
) -> list[Decision]:
    """The most pressing first; `watch` is the last shift check's result where no round came after it."""
    found = [*_last_run(runs), *_first_steps(champion, judged)]
    if rounds and not (runs and runs[-1]["status"] == "cut off"):  # the round may be at work
        found += _last_round(rounds[-1])
    found += _judgments(config, champion, judged)
    if watch and watch.get("trigger"):
        found.append(Decision("A round is due before its time.", str(watch.get("reason", "")), "serm evolve"))
    refused = 0
    for round in reversed(rounds):
        if round.state != "refused":
            break
        refused += 1
    if refused >= REFUSALS_IN_A_ROW:
        found.append(
            Decision(
                f"The gate refused the last {refused} rounds.",
                "Either the model has learnt what these annotators can teach it, or their labels are too weak.",
                "serm annotations report",
            )
        )
    if review >= MANY_REVIEWS:
        found.append(
            Decision(
                f"{review:,} pairs wait for a person.",
                "The annotators could not agree on them; what people decide trains the next model.",
                "serm review",
            )
        )
    return found


def _first_steps(champion: str | None, judged: Mapping[str, int]) -> list[Decision]:
    if champion is not None:
        return []
    if not judged.get("train"):
        return [
            Decision(
                "There are no judgments to learn from.",
                "A first model needs searches whose results people have graded.",
                "serm ingest --kind judgments FILE",
            )
        ]
    return [Decision("There is no model yet.", "People's judgments are there; a first model can learn.", "serm update")]


def _last_round(round: Round) -> list[Decision]:
    if round.state == "unfinished":
        what, why = f"Round {round.number} stopped half-way.", "What was paid for is kept; the same command goes on."
        if round.waiting:
            why = f"{round.waiting:,} of {round.mined:,} mined pairs have no label yet. {why}"
        return [Decision(what, why, "serm evolve")]
    if round.state == "not judged":
        return [
            Decision(
                f"Round {round.number}'s model has no verdict.",
                "It was trained, but the gate has not compared it with the champion.",
                f"serm gate {round.model}",
            )
        ]
    if round.state == "no candidate":
        return [
            Decision(
                f"Round {round.number} made no model.",
                f"Only {round.labels.kept:,} labels were kept, too few to train on.",
                "serm review",
            )
        ]
    return []


def _judgments(config: Config, champion: str | None, judged: Mapping[str, int]) -> list[Decision]:
    """The gate refuses everything without enough judged searches."""
    least = config.evaluation.minimum_queries
    few = [split for split in ("fresh", "anchor") if judged.get(split, 0) < least]
    if champion is None or not few:
        return []
    have = " and ".join(f"{judged.get(split, 0):,} {split}" for split in few)
    return [
        Decision(
            f"Too few searches are judged for the gate: {have}.",
            f"It needs {least:,} of each and refuses every candidate until then.",
            f"serm ingest --kind judgments FILE --split {few[0]}",
        )
    ]


def _last_run(runs: Sequence[dict[str, Any]]) -> list[Decision]:
    if not runs or runs[-1]["status"] == "finished":
        return []
    last = runs[-1]
    if last["status"] == "cut off":
        why = f"It began on {last['started']} UTC and has not ended; it is still at work, or was killed."
        return [Decision(f"The last run ({last['verb']}) has no end.", why, "serm status")]
    return [Decision(f"The last run ({last['verb']}) failed.", last["error"], f"serm {last['verb']}")]
