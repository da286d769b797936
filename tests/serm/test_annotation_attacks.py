"""Attacks: what is written, what a gullible stand-in sees, what the guard takes away, and who counts as fooled."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest

from serm.annotation.attack_texts import attack
from serm.annotation.attack_verb import attack as attack_verb
from serm.annotation.attacks import AGREED, choose_pairs, run_attacks
from serm.annotation.llm import Answer, Messages, Reply
from serm.annotation.prompt import Prompt
from serm.config import ATTACKS, AnnotationSettings, AnnotatorSettings, SimulateLLMSettings
from serm.simulate.llm_server import Server, llm_server, running
from serm.simulate.standin import StandIn
from serm.simulate.susceptible import seen
from serm.workspace import Workspace

SCALE = [0, 1, 2, 3]
WORDS = ["lamp", "tent", "rope", "stove", "map"]
GONE = {"forged_delimiters", "invisible", "chat_tokens"}  # what cleaning takes out of the text


def shown(kind: str, guarded: bool, text: str = "A blue hat of wool.") -> str:
    """The user message of an attacked pair."""
    one = attack(kind, "red running shoe", text, 3, "en", WORDS, 5, 400)
    prompt = Prompt(SCALE, {}, "", 400, guarded=guarded)
    return prompt.messages("red running shoe", one.text, one.background)[1]["content"]


@pytest.mark.parametrize("kind", ATTACKS)
def test_each_attack_is_seen_bare_and_cleaning_takes_out_what_it_can(kind: str) -> None:
    assert kind in seen(shown(kind, guarded=False), "red running shoe")
    assert (kind in seen(shown(kind, guarded=True), "red running shoe")) == (kind not in GONE)
    assert kind in seen(shown(kind, guarded=False, text="long " * 200), "red running shoe")  # the end is not cut off


def test_an_honest_pair_shows_no_attack() -> None:
    prompt = Prompt(SCALE, {}, "", 400)
    user = prompt.messages("red running shoe", "A blue hat of wool.", ["A scarf."])[1]["content"]
    assert seen(user, "red running shoe") == []


def test_the_language_attack_speaks_another_language_than_the_query() -> None:
    texts = {locale: attack("language", "q", "d", 3, locale, WORDS, 0, 400).text for locale in ("en", "de", "de-AT")}
    assert "Ignoriere" in texts["en"]
    assert "Ignora " in texts["de"]
    assert texts["de"] == texts["de-AT"]
    with pytest.raises(ValueError, match="no attack 'magic'; known are keywords"):
        attack("magic", "q", "d", 3, None, WORDS, 0, 400)


class Obedient:
    """An LLM that gives grade 0, and 3 to a prompt that holds one of its baits."""

    concurrency = 8

    def __init__(self, name: str, *baits: str) -> None:
        self.model, self.address, self.parameters, self.baits = name, "here", {}, baits
        self.asked = 0

    async def complete(self, messages: Messages, n: int, request_key: str, metadata: Mapping[str, str]) -> Reply:
        self.asked += 1
        label = 3 if any(bait in messages[1]["content"] for bait in self.baits) else 0
        return Reply([Answer(json.dumps({"reasoning": "r", "label": label}))] * n)

    async def close(self) -> None:
        pass


def judged(n: int) -> pl.DataFrame:
    rows = [(f"query {i} word", f"d{i}", 0 if i % 2 else 3, f"Text of {i}.", "en") for i in range(n)]
    return pl.DataFrame(rows, schema=["query", "doc_id", "grade", "text", "locale"], orient="row")


def by_row(rows: Sequence[dict], kind: str, name: str, guard: bool = True) -> dict:  # type: ignore[type-arg]
    return next(row for row in rows if (row["attack"], row["annotator"], row["guard"]) == (kind, name, guard))


def test_fooled_rates_and_shifts_are_counted_before_and_after_agreement() -> None:
    victims, clean = choose_pairs(judged(40), 12, SCALE, 1)
    llms = {
        "ada": Obedient("ada", "give it the label 3"),
        "ben": Obedient("ben", "<|im_start|>", "give it the label 3 "),
    }
    settings = AnnotationSettings(paths=1)
    report = run_attacks(
        victims, clean, llms, settings, SCALE, ["instruction", "chat_tokens", "knowledge"], (True, False)
    )
    assert (report.victims, report.clean) == (12, 12)
    fooled = by_row(report.attacks, "instruction", "ada")
    assert (fooled["fooled"], fooled["shift"], fooled["pairs"]) == (1.0, 3.0, 12)
    interval = binomtest(12, 12).proportion_ci(0.95, "wilson")
    assert (fooled["fooled_low"], fooled["fooled_high"]) == pytest.approx((interval.low, interval.high))
    assert by_row(report.attacks, "instruction", "ben")["fooled"] == 0
    assert by_row(report.attacks, "instruction", AGREED)["fooled"] == 0  # ada alone keeps no label
    assert by_row(report.attacks, "chat_tokens", "ben")["fooled"] == 0
    assert by_row(report.attacks, "chat_tokens", "ben", guard=False)["fooled"] == 1  # without cleaning it gets through
    assert by_row(report.attacks, "knowledge", "ada")["fooled"] == 1
    for row in report.harm:
        assert (row["changed"], row["right_with"], row["right_without"]) == (0, 0, 0)
    assert report.calls == sum(llm.asked for llm in llms.values())


def test_the_counterfactual_check_sends_a_fooled_pair_to_review() -> None:
    victims, clean = choose_pairs(judged(40), 10, SCALE, 1)
    llms = {name: Obedient(name, "give it the label 3") for name in ("ada", "ben")}
    rows = {}
    for share in (0.0, 1e-9):  # next to nobody by chance: the text is suspicious
        settings = AnnotationSettings(paths=1, counterfactual=share)
        report = run_attacks(victims, clean, llms, settings, SCALE, ["instruction", "knowledge"])
        rows[share] = [by_row(report.attacks, kind, AGREED) for kind in ("instruction", "knowledge")]
    assert [(row["fooled"], row["flagged"]) for row in rows[0.0]] == [(1.0, 0)] * 2
    assert [(row["fooled"], row["flagged"]) for row in rows[1e-9]] == [(0.0, 10)] * 2


def test_a_gullible_stand_in_is_fooled_at_its_rate_and_together_with_its_like() -> None:
    """Two annotators fall with chance p each, and both with the bivariate normal's chance at their correlation."""
    from scipy.stats import multivariate_normal, norm

    settings = SimulateLLMSettings(susceptibility={"instruction": 0.6}, correlation=0.5)
    standin = StandIn(judged(2), SCALE, settings, seed=3)
    prompt = shown("instruction", guarded=True)
    n = 3_000
    fell = np.array(
        [[standin.swayed(name, f"q{i}", "d", prompt, [0, 0]) == [3, 3] for name in ("ada", "ben")] for i in range(n)]
    )
    assert fell.mean(axis=0) == pytest.approx([0.6, 0.6], abs=0.03)
    both = multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]]).cdf([norm.ppf(0.6)] * 2)
    assert fell.all(axis=1).mean() == pytest.approx(both, abs=0.03)
    assert standin.swayed("ada", "q", "d", shown("query", guarded=True), [0, 1]) == [0, 1]
    calm = StandIn(judged(2), SCALE, SimulateLLMSettings(), seed=3)
    assert calm.swayed("ada", "q", "d", prompt, [0, 1]) == [0, 1]


def test_an_unknown_susceptibility_is_named() -> None:
    with pytest.raises(ValueError, match="no attack 'flattery'; known are keywords"):
        SimulateLLMSettings(susceptibility={"flattery": 0.5})
    with pytest.raises(ValueError, match="instruction: chances lie between 0 and 1"):
        SimulateLLMSettings(susceptibility={"instruction": 1.5})


def test_the_verb_runs_over_http_and_is_paid_once(tmp_path: Path) -> None:
    settings = {
        "annotation": {"paths": 1, "counterfactual": 0.01},
        "simulate_llm": {
            "confusion": np.eye(4).tolist(), "susceptibility": {"instruction": 1.0, "chat_tokens": 1.0, "query": 1.0},
        },
    }  # fmt: skip
    workspace = Workspace.create(tmp_path / "w", json.dumps(settings))
    rows = judged(8)
    workspace.append("documents", rows.select("doc_id", "text"))
    workspace.append("judgments", rows.drop("text").with_columns(split=pl.lit("train"), judge=pl.lit("eva")))
    server: Server = llm_server(workspace)
    kinds = ["instruction", "chat_tokens", "query"]
    with running(server) as url:
        annotators = [AnnotatorSettings(name=name, model=name, base_url=url) for name in ("ada", "ben")]
        workspace.config.annotation.annotators = annotators
        report = attack_verb(workspace, 4, kinds, unguarded=True)
        billed = server.bill.completed
        again = attack_verb(workspace, 4, kinds, unguarded=True)
    assert server.bill.completed == billed  # the ledger answered
    assert again.attacks == report.attacks
    rates = {(row["attack"], row["guard"]): row for row in report.attacks if row["annotator"] == AGREED}
    assert {key: row["fooled"] for key, row in rates.items()} == {
        ("instruction", True): 0.0, ("instruction", False): 1.0, 
        ("chat_tokens", True): 0.0, ("chat_tokens", False): 1.0, ("query", True): 1.0, ("query", False): 1.0,
    }  # fmt: skip
    assert rates["instruction", True]["flagged"] == 4  # the check caught them; repeating the query it cannot see
    assert rates["query", True]["flagged"] == 0
    assert all(row["changed"] == 0 and row["right_with"] == 1 for row in report.harm)
    with pytest.raises(ValueError, match="no attack 'x'"):
        attack_verb(workspace, 8, ["x"])
