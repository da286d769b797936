"""The report's figures against the tables, and what it says in every state of a workspace."""

import json
import re
import shutil
from collections import Counter
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from serm import registry
from serm.annotation.quality import report_annotations
from serm.cli import app
from serm.evaluation import gate
from serm.evaluation.paired import mean_interval
from serm.evaluation.verbs import measure_split
from serm.report import gather, markdown
from serm.report.charts import nice_ticks
from serm.report.facts import Facts
from serm.report.page import page
from serm.verbs import report
from serm.workspace import Workspace
from tests.serm.report_space import ANNOTATORS, HOSTILE, asking, empty, evolved, first_model, model

TODAY = date(2026, 2, 20)
PAIR = ["query", "doc_id"]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two rounds; not to be written to."""
    return evolved(tmp_path_factory.mktemp("report") / "shop")


@pytest.fixture(scope="module")
def facts(space: Workspace) -> Facts:
    return gather(space)


class Page(HTMLParser):
    """The tags of a page, its text, and its tables' rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.cells and self.cells[-1]:
            self.cells[-1][-1] += data


def test_overlaps_and_agents_are_the_tables_own(space: Workspace, facts: Facts) -> None:
    mined, status = space.read("mined"), space.read("annotations")
    said = {tuple(row[:3]): row[3] for row in status.select("round", *PAIR, "status").iter_rows()}
    for found in facts.rounds:
        pairs, kept = Counter[frozenset[str]](), Counter[frozenset[str]]()
        for query, doc_id, agents in mined.filter(round=found.number).select(*PAIR, "agents").iter_rows():
            pairs[frozenset(agents)] += 1
            kept[frozenset(agents)] += said[found.number, query, doc_id] == "kept"
        assert {frozenset(row.agents): row.pairs for row in found.overlaps} == pairs
        assert {frozenset(row.agents): row.kept for row in found.overlaps} == kept
        for agent in found.agents:
            assert agent.pairs == sum(count for names, count in pairs.items() if agent.agent in names)
            assert agent.alone == pairs[frozenset([agent.agent])]
        scored = mined.filter(round=found.number).join(status.filter(status="kept"), on=["round", *PAIR])
        for agent in found.agents:
            own = scored.filter(pl.col("agents").list.contains(agent.agent))
            wrong = [abs(label - score) >= 1 for label, score in own.select("label", "score").iter_rows()]
            assert (agent.labelled, agent.precision) == (len(wrong), pytest.approx(np.mean(wrong)))


def test_labels_votes_and_cost_are_the_tables_own(space: Workspace, facts: Facts) -> None:
    for found in facts.rounds:
        rows = space.read("annotations").filter(round=found.number)
        own = report_annotations(space, found.number)  # reads every vote in Python
        assert found.labels.annotated == rows.height == own["pairs"]
        assert found.labels.kept / rows.height == pytest.approx(own["kept_rate"])
        assert found.labels.alpha == pytest.approx(own["alpha_ordinal"])
        assert found.labels.calls / found.labels.kept == pytest.approx(own["calls_per_kept_label"])
        assert found.labels.tokens / found.labels.kept == pytest.approx(own["tokens_per_kept_label"])
        stable = [[vote["stable"] for vote in json.loads(votes).values()] for votes in rows["votes"]]
        both = [votes for votes in stable if None not in votes]
        assert (found.labels.both, found.labels.same) == (len(both), sum(len(set(votes)) == 1 for votes in both))
        assert found.labels.by_label == dict(Counter(rows["label"].drop_nulls()))
        assert found.labels.cost == 1.25
    whole = report_annotations(space)
    assert facts.agreed == {key: pytest.approx(whole[key]) for key in ("judged", "accuracy", "bias")}
    for one, own in zip(facts.annotators, whole["annotators"], strict=True):
        assert (one.name, one.judged) == (own["annotator"], own["judged"])
        assert (one.accuracy, one.bias) == (pytest.approx(own["accuracy"]), pytest.approx(own["bias"]))
        assert one.labelled / one.pairs == pytest.approx(own["labelled"])


def test_levels_verdicts_and_the_way_since_the_first_model(space: Workspace, facts: Facts) -> None:
    assert [round.state for round in facts.rounds] == ["promoted", "refused"]
    assert facts.champion == "r001-candidate"
    assert [one.role for one in facts.models] == ["former champion", "champion", "not promoted"]
    per_query = {}
    for one in facts.models:
        for split in ("fresh", "anchor"):
            values, _ = measure_split(space, one.version, split, ["nDCG@10"])
            per_query[one.version, split] = values.values["nDCG@10"].to_numpy()
            found = mean_interval(per_query[one.version, split], 0.95, 200, 0)
            level = one.levels[split]
            assert (level.value, level.low, level.high) == pytest.approx((found.mean, found.low, found.high))
    assert facts.overall is not None
    assert facts.overall.fresh is not None
    difference = per_query["r001-candidate", "fresh"] - per_query["r000-first", "fresh"]
    assert facts.overall.fresh.difference.mean == pytest.approx(difference.mean())
    refused = facts.rounds[1].gate
    assert refused is not None
    assert refused.fresh is not None
    lost = per_query["r002-candidate", "fresh"] - per_query["r001-candidate", "fresh"]
    assert refused.fresh.difference.mean == pytest.approx(lost.mean())


def test_wins_and_losses_are_those_of_the_champion_and_no_model_is_asked(space: Workspace, facts: Facts) -> None:
    found = facts.reading
    assert found is not None
    assert (found.before, found.now, found.promoted) == ("r000-first", "r001-candidate", True)
    values = [measure_split(space, v, "fresh", ["nDCG@10"])[0].values for v in (found.before, found.now)]
    gains = values[0].join(values[1], on="query").select("query", gain=pl.col("nDCG@10_right") - pl.col("nDCG@10"))
    best = gains.sort("gain", descending=True)
    assert [c.difference for c in found.changes["fresh"].query_wins] == pytest.approx(best["gain"].head(5).to_list())
    assert found.changes["fresh"].query_losses[0].query == best["query"][-1]


def test_without_the_answers_on_this_machine_the_recorded_verdict_speaks(space: Workspace, tmp_path: Path) -> None:
    shutil.copytree(space.root, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "scores")
    found = gather(Workspace.open(tmp_path / "copy"))
    assert found.reading is None
    assert found.overall is not None
    assert found.overall.candidate == "r001-candidate"


def test_the_page_shows_these_figures(facts: Facts) -> None:
    html = page(facts, TODAY)
    shown = Page(html)
    text = " ".join(shown.text)
    level = facts.models[1].levels["fresh"]
    assert f"{100 * level.value:.1f}" in text
    assert level.low is not None
    assert level.high is not None
    assert f"{100 * level.low:.1f} to {100 * level.high:.1f}" in text
    kept, annotated = (sum(getattr(r.labels, name) for r in facts.rounds) for name in ("kept", "annotated"))
    assert f"{kept:,} of {annotated:,} pairs" in text
    totals = Counter[tuple[str, ...]]()
    for round in facts.rounds:
        totals.update({row.agents: row.pairs for row in round.overlaps})
    names = next(row for row in shown.cells if row[-1] == "Kept" and "feedback" in row)[:-4]
    start = shown.cells.index([*names, "", "Pairs", "Share", "Kept"])
    for row, (agents, pairs) in zip(
        shown.cells[start + 1 :], sorted(totals.items(), key=lambda item: (-item[1], item[0])), strict=False
    ):
        assert [cell for cell in row[: len(names)] if cell] == [name for name in names if name in agents]
        assert row[len(names) + 1] == str(pairs)
    for query in ("decke origami waschbar", "nimbo kestrova black sippo"):
        assert query in text


def test_equal_tables_give_the_same_page_but_for_its_date(space: Workspace, facts: Facts) -> None:
    assert page(gather(space), TODAY) == page(facts, TODAY)
    other = page(facts, date(2026, 3, 1))
    assert other.replace("1 March 2026", "20 February 2026") == page(facts, TODAY)


def test_texts_of_the_data_stay_texts_and_nothing_is_fetched(facts: Facts) -> None:
    html = page(facts, TODAY)
    shown = Page(html)
    assert [tag for tag, _ in shown.tags].count("script") == 1
    assert not any(tag in ("img", "b>") or "onerror" in attributes for tag, attributes in shown.tags)
    text = "".join(shown.text)
    for hostile in (*HOSTILE[:2], HOSTILE[3], ANNOTATORS[1]):
        assert hostile in text
    for _, attributes in shown.tags:
        for name in ("src", "href", "action", "srcset"):
            assert re.match(r"#|data:|$", attributes.get(name) or ""), attributes
    assert not re.search(r"url\(|@import|https?:", html)


def test_an_empty_workspace_says_what_to_do(tmp_path: Path) -> None:
    workspace = empty(tmp_path / "new")
    found = report(workspace)
    text = " ".join(Page(Path(found.path).read_text("utf-8")).text)
    assert found.headline == "Nothing to report yet"
    for command in ("serm ingest --kind documents FILE", "serm update", "serm evolve"):
        assert command in text
    assert "**What needs a decision?** There are no judgments" in markdown(gather(workspace))


def test_a_first_model_waits_for_its_first_round(tmp_path: Path) -> None:
    workspace = first_model(tmp_path / "first")
    found = gather(workspace)
    assert report(workspace, tmp_path / "out" / "page.html").headline == "The first model is in charge"
    assert (tmp_path / "out" / "page.html").exists()
    assert found.overall is None
    assert "No round has challenged it" in markdown(gather(workspace))


def test_decisions_name_what_is_unfinished_refused_or_broken(space: Workspace, tmp_path: Path) -> None:
    shutil.copytree(space.root, tmp_path / "w")
    workspace = Workspace.open(tmp_path / "w")
    assert [one.do for one in gather(workspace).decisions] == ["serm review"]
    rows = pl.DataFrame({"round": [3], "query": ["q"], "doc_id": ["p00001"], "agents": [["click"]], "reason": ["r"]})
    workspace.append("mined", rows)
    found = gather(workspace)
    assert (found.rounds[-1].state, found.rounds[-1].waiting) == ("unfinished", 1)
    assert found.decisions[0].what == "Round 3 stopped half-way."
    model(workspace, "r003-candidate", 3, "r001-candidate")
    assert gather(workspace).rounds[-1].state == "not judged"
    with asking(workspace):
        gate(workspace, "r003-candidate", "r001-candidate")
    assert gather(workspace).rounds[-1].state == "refused"
    registry.promote(workspace, "r003-candidate", "by hand")
    assert gather(workspace).rounds[-1].state == "promoted"
    registry.rollback(workspace)
    assert gather(workspace).rounds[-1].state == "rolled back"
    with pytest.raises(OSError, match="disk"), workspace.run("annotate", 3):
        raise OSError("no space on the disk <b>")
    found = gather(workspace)
    assert (found.decisions[0].what, found.decisions[0].why) == (
        "The last run (annotate) failed.", "OSError: no space on the disk <b>",
    )  # fmt: skip
    workspace.config.evaluation.minimum_queries = 50
    assert "37 anchor" in " ".join(one.what for one in gather(workspace).decisions)


def test_a_hundred_thousand_annotations_make_a_small_page(tmp_path: Path) -> None:
    workspace = evolved(tmp_path / "large", pairs=50_000)
    found = gather(workspace)
    html = page(found, TODAY)
    assert len(html.encode()) < 1_000_000
    assert sum(len(round.examples) for round in found.rounds) <= 2 * 18
    assert sum(row.pairs for row in found.rounds[0].overlaps) == 50_000
    assert "The pair that each combination of agents wanted most" in html


def test_the_command_writes_the_page_or_prints_what_it_says(space: Workspace, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", space.root, "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert "Search got better" in done.output
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
    done = CliRunner().invoke(app, ["report", "-w", space.root, "--json"])
    assert json.loads(done.output)["champion"] == "r001-candidate"


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (87.1, 93.4), (93.0, 93.0), (-3.0, 0.4), (0.001, 0.0012)])
def test_ticks_enclose_what_they_mark(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    steps = np.diff(ticks)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert np.allclose(steps, steps[0])
    assert len(ticks) <= 8
