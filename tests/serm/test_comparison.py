"""Corrected paired tests against definitions and null data; wins and losses by hand; the verb and its page."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats
from typer.testing import CliRunner

from serm import registry
from serm.cli import app
from serm.config import EvaluationSettings
from serm.evaluation import compare, evaluate
from serm.evaluation.changes import both, changes
from serm.evaluation.comparison import compare_slices
from serm.evaluation.paired import adjusted, sign_flip_p, two_sided_p
from serm.evaluation.slices import build
from serm.workspace import Workspace, WorkspaceError
from tests.serm.chromium import chromium

SETTINGS = EvaluationSettings(resamples=400, slice_minimum=5)


def test_two_sided_p_matches_full_enumeration() -> None:
    differences = np.array([0.5, 0.25, -0.125, 0.0, 0.3, -0.05, 0.2, 0.1, -0.3, 0.4])
    flips = np.array(list(itertools.product([-1, 1], repeat=10))) @ differences
    exact = (np.abs(flips) >= abs(differences.sum()) - 1e-12).mean()
    assert two_sided_p(differences, 20_000, seed=0) == pytest.approx(exact, abs=0.01)
    assert two_sided_p(-differences, 20_000, seed=0) == pytest.approx(exact, abs=0.01)
    one_sided = sign_flip_p(differences, 20_000, seed=0)
    assert two_sided_p(differences, 20_000, seed=0) == pytest.approx(2 * one_sided, abs=0.02)
    assert two_sided_p(np.zeros(9), 100, seed=0) == 1.0


def test_corrections_follow_their_definitions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.uniform(size=rng.integers(1, 9)) ** 3
        order = np.argsort(p)
        for level in (0.01, 0.05, 0.3):
            # Holm: go up from the smallest, stop at the first p above level / (how many are left).
            kept = set()
            for step, place in enumerate(order):
                if p[place] >= level / (len(p) - step):
                    break
                kept.add(int(place))
            assert {i for i, value in enumerate(adjusted(p.tolist(), "holm")) if value < level} == kept
            # Benjamini and Hochberg: all up to the last p at or below level * rank / n.
            passed = [rank for rank, place in enumerate(order, 1) if p[place] <= level * rank / len(p)]
            wanted = {int(place) for place in order[: max(passed, default=0)]}
            assert {i for i, value in enumerate(adjusted(p.tolist(), "bh")) if value <= level} == wanted
    assert adjusted([], "holm") == adjusted([], "bh") == []


def world(queries: int, seed: int) -> tuple[pl.DataFrame, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "query": [f"q{i:03}" for i in range(queries)],
            "locale": rng.choice(["en", "de", "fr", "ja"], queries),
            "band": rng.choice(["head", "torso", "tail"], queries),
            "dated": rng.uniform(0, 9, queries),
            "date_label": ["day"] * queries,
        }
    ), rng


@pytest.mark.parametrize(("correction", "most"), [("holm", 0.05), ("bh", 0.05)])
def test_equal_models_seldom_differ_anywhere(correction: str, most: float) -> None:
    settings = SETTINGS.model_copy(update={"correction": correction})
    repeats, found, raw, whole = 100, 0, 0, 0
    for seed in range(repeats):
        frame, rng = world(120, seed)
        a = frame.select("query").with_columns(RR=pl.Series(rng.uniform(size=120)))
        moved = rng.uniform(size=120) < 0.4
        b = a.with_columns(RR=pl.col("RR") + pl.Series(np.where(moved, rng.normal(0, 0.2, 120), 0.0)))
        rows = compare_slices({"fresh": a}, {"fresh": b}, {"fresh": build(frame, settings)}, ["RR"], settings, seed)
        whole += rows[0].significant
        found += any(row.significant for row in rows[1:])
        raw += any(row.p_value is not None and row.p_value < settings.alpha for row in rows[1:])
    # A true rate of 5% gives more than this in one of a thousand test runs.
    assert whole <= stats.binom.ppf(0.999, repeats, most)
    assert found <= stats.binom.ppf(0.999, repeats, most)
    assert raw > found + 10  # without the correction there are many


def test_a_real_difference_in_one_slice_is_found_there() -> None:
    frame, rng = world(200, 5)
    a = frame.select("query").with_columns(RR=pl.Series(rng.uniform(size=200)))
    french = pl.Series((frame["locale"] == "fr").to_numpy() * 0.3)
    b = a.with_columns(RR=pl.col("RR") + french + pl.Series(rng.normal(0, 0.1, 200)))
    settings = EvaluationSettings(resamples=5_000, slice_minimum=5)
    rows = compare_slices({"fresh": a}, {"fresh": b}, {"fresh": build(frame, settings)}, ["RR"], settings, 0)
    found = {(row.dimension, row.value): row for row in rows}
    assert found["locale", "fr"].significant
    assert not found["locale", "de"].significant
    own = (b["RR"] - a["RR"]).to_numpy()[(frame["locale"] == "fr").to_numpy()]
    difference = found["family", "Romance"].difference
    assert difference is not None
    assert difference.mean == pytest.approx(own.mean())
    assert rows[0].adjusted == rows[0].p_value  # the only overall test
    tested = [row for row in rows[1:] if row.p_value is not None]
    # A hundred flips could never give a p that survives the correction; the comparison draws as many as it takes.
    few = settings.model_copy(update={"resamples": 100})
    again = compare_slices({"fresh": a}, {"fresh": b}, {"fresh": build(frame, few)}, ["RR"], few, 0)
    assert next(row for row in again if row.value == "fr").significant
    assert [row.adjusted for row in tested] == adjusted([row.p_value for row in tested], "holm")  # type: ignore[misc]


def test_different_queries_are_refused_and_broken_scores_are_named() -> None:
    frame, _ = world(20, 0)
    a = frame.select("query").with_columns(RR=pl.lit(0.5))
    slices = {"fresh": build(frame, SETTINGS)}
    with pytest.raises(ValueError, match="different queries"):
        compare_slices({"fresh": a}, {"fresh": a[1:]}, slices, ["RR"], SETTINGS, 0)
    b = a.with_columns(RR=pl.when(query="q003").then(math.nan).otherwise("RR"))
    whole = compare_slices({"fresh": a}, {"fresh": b}, slices, ["RR"], SETTINGS, 0)[0]
    assert (whole.p_value, whole.significant) == (None, False)
    assert whole.note == "B: scores that are not finite numbers on 1 queries"


def test_wins_and_losses_by_hand() -> None:
    rows = [
        ("up", "x", 1, [0.9, 0.1], [0.2, 0.8]), ("up", "y", 0, [0.4, 0.6], [0.7, 0.3]),
        ("down", "x", 1, [0.1, 0.9], [0.8, 0.2]), ("down", "y", 0, [0.7, 0.3], [0.6, 0.4]),
        ("same", "x", 1, [0.5, 0.5], [0.5, 0.5]), ("same", "y", 0, [0.6, 0.4], [0.6, 0.4]),
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema=["query", "doc_id", "grade", "pa", "pb"], orient="row")
    a, b = (
        frame.select("query", "doc_id", "grade", score=pl.col(p).list.get(1), probabilities=pl.col(p))
        for p in ("pa", "pb")
    )
    known = frame.select("query", "doc_id", title=pl.lit("T"), rationale=pl.when(query="up").then(pl.lit("because")))
    pairs = both(a, b, known, [0, 1])
    values = [pl.DataFrame({"query": ["up", "down", "same"], "RR": rr}) for rr in ([0.5, 1.0, 1.0], [1.0, 0.5, 1.0])]
    locales = pl.DataFrame({"query": ["up"], "locale": ["en"]})
    found = changes("fresh", values[0], values[1], pairs, locales, "RR", 5)
    assert [(one.query, one.difference, one.locale) for one in found.query_wins] == [("up", 0.5, "en")]
    assert [(one.query, one.difference, one.locale) for one in found.query_losses] == [("down", -0.5, None)]
    assert [(d.doc_id, d.rank_a, d.rank_b, d.rationale) for d in found.query_wins[0].documents] == [
        ("y", 1, 2, "because"), ("x", 2, 1, "because"),
    ]  # fmt: skip
    assert [(p.query, p.doc_id) for p in found.pair_wins] == [("up", "x"), ("up", "y")]
    assert [p.difference for p in found.pair_wins] == pytest.approx([0.7, 0.3])
    assert [(p.query, p.doc_id) for p in found.pair_losses] == [("down", "x"), ("down", "y")]
    assert found.pair_losses[0].difference == pytest.approx(-0.7)
    assert changes("fresh", values[0], values[1], pairs, locales, "RR", 0).query_wins == []


class Shout:
    """A stand-in model: P(top label) rises with the digit at the end of the text, times the number in its folder."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.scale = [0, 1, 2, 3]

    def probabilities(self, queries: list[str], documents: list[str]) -> np.ndarray:
        belief = np.array([[1.0, 0, 0, 1 + float(text[-1]) * self.factor] for text in documents], np.float32)
        return belief / belief.sum(axis=1, keepdims=True)


@pytest.fixture
def judged(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> tuple[Workspace, list[str]]:
    """Forty queries a split, half English, half French; `good` ranks all right, `poor` all wrong."""
    loads: list[str] = []

    def load(folder: Path, settings: object, scale: object) -> Shout:
        loads.append(folder.name)
        return Shout(float((folder / "factor").read_text()))

    monkeypatch.setattr("serm.relevance.load", load)
    for name, factor in (("good", 1.0), ("poor", -0.5)):
        registry.publish(workspace, name, lambda to, f=factor: (to / "factor").write_text(str(f)) and None, {})
    workspace.append("documents", pl.DataFrame({"doc_id": ["yes", "no"], "title": "T", "text": ["text 1", "text 0"]}))
    rows = [
        {
            "query": f"{split} {i}", "doc_id": doc, "grade": 3 * (doc == "yes"), "split": split, "judge": "ann",
            "locale": "en-GB" if i % 2 else "fr",
        }
        for split in ("fresh", "anchor", "dev") for i in range(40) for doc in ("yes", "no")
    ]  # fmt: skip
    workspace.append("judgments", pl.DataFrame(rows))
    seen = [
        {"ts": f"2026-01-{1 + i // 2:02}T00:00:00Z", "session": f"s{i} {j}", "query": f"fresh {i}", "doc_id": "yes",
         "position": 1, "clicked": False}
        for i in range(30) for j in range(1 + 20 * (i < 3))
    ]  # fmt: skip
    log = pl.DataFrame(seen).with_columns(pl.col("ts").str.to_datetime("%FT%TZ", time_unit="us", time_zone="UTC"))
    workspace.append("impressions", log)
    annotation = {"round": 1, "query": "fresh 1", "doc_id": "yes", "status": "kept", "label": 3, "votes": "{}",
                  "rationale": "The text says so.", "calls": 1}  # fmt: skip
    workspace.append("annotations", pl.DataFrame([annotation]))
    return workspace, loads


def test_evaluate_slices_and_calibrates(judged: tuple[Workspace, list[str]]) -> None:
    workspace, loads = judged
    summary = evaluate(workspace, "good")
    found = {(f.split, f.dimension, f.value, f.measure): f for f in summary.slices}
    assert found["fresh", "family", "Germanic", "RR"].queries == 20
    assert found["fresh", "locale", "fr", "nDCG@1"].interval.mean == 1.0  # type: ignore[union-attr]
    # 90 impressions: the three frequent queries have 21 each; the first two begin below a third of them.
    assert {v: found["fresh", "traffic", v, "RR"].queries for v in ("head", "torso", "tail", "unknown")} == {
        "head": 2, "torso": 1, "tail": 27, "unknown": 10,
    }  # fmt: skip
    assert "2 judged queries, 10 needed" in found["fresh", "traffic", "head", "RR"].note
    assert found["fresh", "era", "2026-01-01 to 2026-01-05", "RR"].queries == 10
    assert any(note.startswith("anchor, by traffic") for note in summary.notes)
    fresh = summary.calibration[0]
    assert (fresh.split, fresh.pairs, fresh.queries) == ("fresh", 80, 40)
    assert fresh.figures is not None
    # "yes" is given 2/3, "no" 1/2 each way: numpy takes the first, which is right.
    assert fresh.figures.ece.mean == pytest.approx((1 / 3 + 1 / 2) / 2, abs=1e-6)
    assert fresh.temperature == pytest.approx(0.05, rel=0.01)  # always right: the sharpest allowed
    assert loads == ["good"] * 3  # fresh, anchor and dev
    assert evaluate(workspace, "good") == summary
    assert loads == ["good"] * 3
    kept = json.loads(Path(summary.json).read_text("utf-8"))
    assert len(kept["slices"]) == len(summary.slices)


def test_compare_versions_and_folders(judged: tuple[Workspace, list[str]], tmp_path: Path) -> None:
    workspace, loads = judged
    result = compare(workspace, "poor", "good")
    whole = next(row for row in result.tests if (row.split, row.dimension, row.measure) == ("fresh", "all", "RR"))
    assert (whole.a, whole.b, whole.significant) == (0.5, 1.0, True)
    win = next(one for one in result.changes["fresh"].query_wins if one.query == "fresh 1")
    assert [(d.doc_id, d.rank_a, d.rank_b, d.rationale) for d in win.documents] == [
        ("no", 1, 2, None), ("yes", 2, 1, "The text says so."),
    ]  # fmt: skip
    assert result.changes["fresh"].query_losses == []
    assert sorted(loads) == ["good", "good", "poor", "poor"]
    back = compare(workspace, "good", "poor")
    assert {-row.difference.mean for row in back.tests if row.difference} == {
        row.difference.mean for row in result.tests if row.difference
    }
    assert len(loads) == 4
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "factor").write_text("1.0")
    with pytest.raises(WorkspaceError, match=r"without config\.json"):
        compare(workspace, "good", str(folder))
    (folder / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    same = compare(workspace, "good", str(folder))
    assert all(row.difference.mean == 0 for row in same.tests if row.difference)
    (folder / "factor").write_text("-0.5")  # other weights under the same name are asked again
    assert compare(workspace, "poor", str(folder)).changes["fresh"].query_wins == []
    with pytest.raises(WorkspaceError, match="no model version 'nowhere'"):
        compare(workspace, "good", "nowhere")
    with pytest.raises(WorkspaceError, match="the same model"):
        compare(workspace, "good", "good")
    with pytest.raises(WorkspaceError, match="no human-judged query"):
        compare(workspace, "good", "poor", splits=("hidden",))


def test_a_broken_model_is_named_not_crashed_on(judged: tuple[Workspace, list[str]]) -> None:
    workspace, _ = judged
    registry.publish(workspace, "broken", lambda to: (to / "factor").write_text("nan") and None, {})
    result = compare(workspace, "good", "broken")
    whole = result.tests[0]
    assert (whole.queries, whole.difference, whole.significant) == (40, None, False)
    assert whole.note == "B: scores that are not finite numbers on 40 queries"
    assert result.changes["fresh"].query_wins == result.changes["fresh"].pair_losses == []
    json.loads(Path(result.json).read_text("utf-8"), parse_constant=pytest.fail)
    summary = evaluate(workspace, "broken")
    assert "probabilities of 80 pairs are not numbers" in summary.calibration[0].note
    assert any(note.startswith("no temperature") for note in summary.notes)
    json.loads(Path(summary.json).read_text("utf-8"), parse_constant=pytest.fail)


def test_the_commands_print_tables_and_json(judged: tuple[Workspace, list[str]]) -> None:
    workspace, _ = judged
    told = CliRunner().invoke(app, ["compare", "poor", "good", "-w", workspace.root])
    assert told.exit_code == 0
    assert "good against poor" in told.stdout
    assert "queries that B wins" in told.stdout
    told = CliRunner().invoke(app, ["compare", "poor", "good", "-w", workspace.root, "--json"])
    assert json.loads(told.stdout)["tests"][0]["dimension"] == "all"
    told = CliRunner().invoke(app, ["evaluate", "good", "-w", workspace.root, "--json"])
    assert json.loads(told.stdout)["calibration"][0]["split"] == "fresh"


def test_the_pages_draw_in_light_and_dark(judged: tuple[Workspace, list[str]], tmp_path: Path) -> None:
    workspace, _ = judged
    pages = [evaluate(workspace, "good").page, compare(workspace, "poor", "good").page]
    with chromium(tmp_path / "profile") as browser:
        for path in pages:
            browser.screen(1280, 900)
            browser.open(f"file://{path}")
            assert browser.evaluate("document.querySelectorAll('.plot').length") >= 2
            for dark in (False, True):
                browser.screen(1280, 900, dark)
                assert browser.wait("[...document.querySelectorAll('.plot')].every(n => n.querySelector('.main-svg'))")
                assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert browser.errors == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.requests)
