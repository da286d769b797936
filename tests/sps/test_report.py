"""The page: whole, self-contained and valid, with the run's own numbers, whatever the run lacks."""

import ast
import inspect
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sps import figures as logged
from sps import page as parts
from sps.analyze import analyze
from sps.logs import append_lines
from sps.metrics import METRICS, glossary
from sps.report import verdict, write_report
from sps.runs import read_log
from sps.traces import apart, running_mean, thinned
from sps.words import amount, duration, signed
from tests.sps.synthetic_run import make_run

EXTERNAL = re.compile(r"""(?:src|href|action|data)\s*=\s*["']?(?!#|data:)[^"'\s>]+|@import|url\((?!["']?data:)""")


class Page(HTMLParser):
    """Tags and figures of a page; scripts with code are not looked into."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[dict[str, Any]] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("type") or ""

    def handle_data(self, data: str) -> None:
        if self._inside == "application/json":
            self.figures.append(json.loads(data))
        self._inside = ""


def figures_of(text: str) -> list[dict[str, Any]]:
    return Page(text).figures


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A steered run with its page."""
    folder = make_run(
        tmp_path_factory.mktemp("runs") / "sps", coefficient=0.3, steps=60, every=20, problems=30, samples=16
    )
    evil = {"step": 60, "problem": "</script><b>", "prompt": [{"role": "user", "content": "1 < 2 & </script>"}]}
    append_lines(
        folder / "samples.jsonl",
        [
            evil
            | {"completion": "<script>alert(1)</script>", "finished": True, "reward": 1.0, "correct": True, "key": None}
        ],
    )
    append_lines(
        folder / "evaluations.jsonl",
        [{"step": step, "problem": "</script><script>", "n": 16, "c": 3} for step in (0, 20, 40, 60)],
    )
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def test_page_needs_no_network(text: str) -> None:
    page = Page(text)
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "srcset"):
            assert re.match(r"#|data:|$", attributes.get(name) or ""), (tag, attributes)
    style = text[text.index("<style>") : text.index("</style>")]
    assert not EXTERNAL.search(style)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_text_of_the_run_stays_text(text: str) -> None:
    tags = [tag for tag, _ in Page(text).tags]
    figures = len(figures_of(text))
    assert tags.count("script") == figures + 2  # a figure each, Plotly and ours
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 1
    assert "[user] 1 &lt; 2 &amp; &lt;/script&gt;" in text


def test_figures_are_valid_in_colours_that_both_schemes_have(text: str) -> None:
    css = (Path(parts.__file__).parent / "page.css").read_text(encoding="utf-8")
    schemes = css.split("prefers-color-scheme: dark")
    defined = [set(re.findall(r"--([\w-]+):", scheme)) for scheme in schemes]
    assert defined[0] == defined[1]
    used = set()
    for figure in figures_of(text):
        content = json.dumps(figure)
        used |= set(re.findall(r'"theme:([a-z]+)', content))
        go.Figure(json.loads(re.sub(r'"theme:[^"]*"', '"red"', content)))  # refuses unknown properties
    assert used - {"ramp"} <= defined[0]
    assert {"ramp-0", "ramp-1"} <= defined[0]
    assert len(figures_of(text)) > 15


def test_figures_hold_the_runs_numbers(run: Path, text: str) -> None:
    found = analyze(run)
    over_steps = figures_of(text)[0]
    line = next(trace for trace in over_steps["data"] if trace["name"] == "Pass@16" and "fill" not in trace)
    assert line["x"] == [0, 20, 40, 60]
    assert line["y"] == pytest.approx([100 * row["mean"] for row in found["passk"] if row["k"] == 16], rel=1e-6)
    reward = next(
        trace for figure in figures_of(text) for trace in figure["data"]
        if trace["name"] == "reward mean" and trace["line"]["width"] == 1
    )  # fmt: skip
    assert reward["y"] == pytest.approx([row["reward_mean"] for row in read_log(run)], rel=1e-6)
    assert verdict(found["changes"]) in text
    for name in ("top_share", "irl_kl", "gradient_norm"):
        assert f'<code class="term">{name}</code>' in text


def test_verdict_says_what_is_clear_and_what_is_not() -> None:
    def row(k: int, low: float, mean: float, high: float) -> dict[str, float]:
        return {"k": k, "before": 0.5, "after": 0.5 + mean, "mean": mean, "low": low, "high": high}

    assert verdict([row(1, 0.1, 0.2, 0.3), row(64, -0.3, -0.2, -0.1)]) == (
        "Pass@1 rose by 20.0 points (50.0 → 70.0%); Pass@64 fell by 20.0 points (50.0 → 30.0%)."
    )
    assert verdict([row(1, -0.1, 0.01, 0.1)]) == "Pass@1 did not clearly move (+1.0 points)."
    assert "Nothing could be compared" in verdict([])


@pytest.mark.parametrize("missing", ["log.jsonl", "probes.jsonl", "samples.jsonl", "versions.json"])
def test_a_page_is_made_whatever_the_run_lacks(tmp_path: Path, missing: str) -> None:
    folder = make_run(tmp_path / "run", steps=6, every=3, problems=8, samples=4)
    (folder / missing).unlink()
    text = write_report(folder).read_text()
    assert len(figures_of(text)) >= 2


def test_a_run_at_its_first_evaluation_and_figures_that_are_not_numbers(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=1, every=5, problems=8, samples=4)
    append_lines(
        folder / "log.jsonl",
        [
            {"step": 2, "reward_mean": float("nan"), "novel": 0.3},
            {"step": 3, "novel": 0.4, "reward_missing": {"raised": 2}},
        ],
    )
    text = write_report(folder).read_text()
    assert "Not in the glossary." in text
    titles = [a["aria-label"] for _, a in Page(text).tags if a.get("role") == "img"]
    assert "Novel" in titles
    assert "Rollouts without a reward" in titles
    assert "Every trajectory" not in titles  # it has no second evaluation


def test_a_failed_write_leaves_the_page_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "run", steps=1, every=1, problems=4, samples=4)
    (folder / "report.html").write_text("before")

    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(folder)
    assert (folder / "report.html").read_text() == "before"
    assert not list(folder.glob(".report*"))


def test_every_logged_figure_has_its_meaning(run: Path) -> None:
    tree = ast.parse(inspect.getsource(logged.of_step).replace("\\n", "\n"))
    written = {
        key.value for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)
        for key in node.value.keys if isinstance(key, ast.Constant)
    }  # fmt: skip
    assert len(written) > 10
    written |= set(logged.LOSSES) | set(logged.WEIGHTED.values()) | {name for row in read_log(run) for name in row}
    assert written <= METRICS.keys()
    assert all(meaning.endswith(".") for meaning in METRICS.values())
    assert glossary().count("\n") == len(METRICS) + 2


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_every_figure_without_complaint(run: Path, text: str, tmp_path: Path, dark: bool) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=8000",
            "--enable-logging=stderr", "--dump-dom", f"file://{run / 'report.html'}",
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    drawn = re.findall(r'<svg class="main-svg"[^>]*style="background: ?rgba?\(0, 0, 0, 0\)', done.stdout)
    assert len(drawn) == len(figures_of(text))
    blue, other = ("rgb(111, 179, 239)", "rgb(23, 105, 170)")[:: 1 if dark else -1]
    assert blue in done.stdout
    assert other not in done.stdout


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.floats(0.1, 20))
@settings(max_examples=80, deadline=None)
def test_labels_end_apart_and_in_order(values: list[float], gap: float) -> None:
    placed = apart(values, gap)
    order = sorted(range(len(values)), key=lambda i: values[i])
    for a, b in pairwise(order):
        assert placed[b] - placed[a] >= gap * (1 - 1e-9)
    if all(values[b] - values[a] >= gap for a, b in pairwise(order)):
        assert placed == pytest.approx(values)
    assert np.mean(placed) == pytest.approx(np.mean(values), abs=1e-6)


@given(st.lists(st.one_of(st.floats(-5, 5), st.just(float("nan"))), min_size=1, max_size=30), st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_running_mean_against_a_loop(values: list[float], window: int) -> None:
    array = np.array(values)
    expected: list[float] = []
    for i in range(len(values)):
        near = [v for v in values[max(0, i - window + 1) : i + window] if np.isfinite(v)]
        expected.append(float(np.mean(near)) if near else float("nan"))
    assert running_mean(array, window).tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_thinning_keeps_the_mean_and_short_lines() -> None:
    x, y = np.arange(1_000.0), np.random.default_rng(0).normal(size=1_000)
    few_x, few_y = thinned(x, y, 100)
    assert len(few_x) == 100
    assert few_y.mean() == pytest.approx(y.mean())
    assert few_x[0] == pytest.approx(4.5)
    same_x, _ = thinned(x[:50], y[:50], 100)
    assert len(same_x) == 50


def test_words() -> None:
    assert [amount(n) for n in (12, 1_234, 7_157_860, 2.5e9)] == ["12", "1.2 k", "7.2 M", "2.5 G"]
    assert [duration(s) for s in (5.62, 816, 7_260)] == ["5.6 s", "13.6 min", "2 h 1 min"]
    assert (signed(-0.075), signed(0.001)) == ("−7.5", "+0.1")
