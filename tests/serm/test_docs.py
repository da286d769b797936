"""The documentation says what the code does: every setting, every command, and every command line that it shows.

A block fenced as console holds lines that begin with "$ ". Lines for serm and sps are read by the real command line.
A block below <!-- run --> is also run, in order, in one folder a page, with settings reduced by the environment; the
server of a block below <!-- background --> is at work meanwhile; a block below <!-- file: NAME --> becomes that file.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from pydantic import BaseModel
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from serm import reference
from serm.cli import app
from serm.config import Config
from serm.configure import load
from serm.online import assign
from serm.simulate.experiment import experiment
from serm.workspace import Workspace
from sps.cli import app as trainer
from sps.config import Config as TrainerConfig
from sps.configure import load as load_trainer
from tests.serm.chromium import chromium

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^>]+?) -->\n)?^```(?P<kind>console|yaml)\n(?P<text>.*?)^```$", re.M | re.S)
COLOURS = ("red", "blue", "green", "yellow")
THINGS = ("shoe", "hat", "coat", "scarf", "sock", "glove")


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Every block's mark, kind and text."""
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield found["mark"] or "", found["kind"], found["text"]


def lines(text: str) -> list[str]:
    """The command lines of a console block."""
    joined = text.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def shown() -> Iterator[tuple[str, str]]:
    """Every command line for serm or sps that a page or the README shows, in blocks of either kind."""
    for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^(?:\$ |    )((?:serm|sps) .*)$", text, re.M):
            for part in re.split(r"\s(?:&&|;)\s", line):
                yield f"{page.name}: {part}", part


@pytest.mark.parametrize("line", [pytest.param(line, id=name) for name, line in shown()])
def test_every_command_line_is_one_that_the_program_takes(line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    command = get_command(app if program == "serm" else trainer)
    path = program
    while isinstance(command, TyperGroup) and words and words[0] in command.commands:
        command = command.commands[words[0]]
        path += f" {words.pop(0)}"
    if isinstance(command, TyperGroup) and not command.invoke_without_command:
        assert path == "serm abtest", f"{line}: no such command"
        command = command.commands["read"]
    context = command.make_context(path, words)  # a wrong flag, value or number of arguments raises
    sets = context.params.get("sets") or []
    if sets:
        assert isinstance(load("", sets) if program == "serm" else load_trainer("tiny-arithmetic", sets), BaseModel)


@pytest.mark.parametrize("model", [Config, TrainerConfig])
def test_every_setting_stands_in_the_reference_with_its_meaning(model: type[BaseModel]) -> None:
    page = reference.configuration().split("\n## sps\n")[model is TrainerConfig]

    def settings(room: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
        for name, field in room.model_fields.items():
            inner = reference._room(field.annotation)
            if path or inner is None:
                yield f"{path}{name}", field.description or ""
            if inner is not None:
                yield from settings(
                    inner, f"{path}{name}." if "list" not in str(field.annotation) else f"{path}{name}[]."
                )

    found = list(settings(model, ""))
    assert len(found) > 40
    for name, description in found:
        row = next((row for row in page.splitlines() if row.startswith(f"| `{name}` |")), None)
        assert row is not None, name
        assert reference._cell(description) in row
    if model is Config:
        assert [name for name, description in found if not description] == []


def test_every_command_and_option_stands_in_the_reference() -> None:
    page = reference.commands()
    for path, command in [*reference.leaves(app, "serm"), *reference.leaves(trainer, "sps")]:
        assert f"### {path}\n" in page
        own = page.split(f"### {path}\n")[1].split("\n### ")[0]
        flags = {option for p in command.params for option in p.opts if option.startswith("--")}
        assert {flag for flag in flags - {f"--{name}" for name in reference.COMMON} if f"`{flag}`" not in own} == set()


def test_every_page_is_in_the_navigation() -> None:
    def pages(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from pages(inner)

    named = set(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert named == {page.name for page in DOCS.glob("*.md")} | {"reference/commands.md", "reference/configuration.md"}


def test_the_site_builds_without_warnings_and_needs_no_network(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="pip install '.[docs]' to build the site")
    pytest.importorskip("latex2mathml")
    done = subprocess.run(
        [sys.executable, str(DOCS / "build.py")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = ROOT / "build" / "site"
    concepts = (site / "concepts.html").read_text(encoding="utf-8")
    assert concepts.count("<math") > 10
    assert "$`" not in concepts
    with chromium(tmp_path) as browser:
        for name in ("index", "concepts", "reference/configuration"):
            browser.screen(390, 800)
            browser.open((site / f"{name}.html").as_uri())
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), name
        assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []


# --- running what is shown -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a second's training."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from serm.relevance.weights import resolve

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    shape = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertForSequenceClassification(shape).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("embedded:minilm")).save_pretrained(folder)
    return folder


@pytest.fixture
def reduced(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small settings for every command that is run."""
    small = {
        "RELEVANCE__BASE": str(tiny), "RELEVANCE__MAX_EPOCHS": "1", "RELEVANCE__MAX_TOKENS": "24",
        "RELEVANCE__PRECISION": "fp32", "MINING__BUDGET": "30", "MINING__JUDGED": "40", "MINING__QUIET_SHARE": "1",
        "UPDATE__MINIMUM_LABELS": "1", "UPDATE__CALIBRATION_PAIRS": "10", "ANNOTATION__PATHS": "1",
        "ANNOTATION__KNOWLEDGE": "false", "EVALUATION__MINIMUM_QUERIES": "2", "EVALUATION__RESAMPLES": "200",
        "CLICKS__ITERATIONS": "3", "SHIFT__SAMPLE": "100", "SHIFT__WORDS_SAMPLE": "200", "SHIFT__KERNEL_SAMPLE": "60",
        "SHIFT__MINIMUM": "10", "SHIFT__CLUSTERS": "4",
    }  # fmt: skip
    for name, value in small.items():
        monkeypatch.setenv(f"SERM_{name}", value)


def shop(folder: Path) -> None:
    """The three tables of a small shop, with the column names that the page speaks of."""
    goods = [(f"sku-{i}", f"{c} {t}", f"a {c} {t} for all seasons", "acme") for i, (c, t) in
             enumerate((c, t) for c in COLOURS for t in THINGS)]  # fmt: skip
    names = ["sku", "name", "description", "brand"]
    pl.DataFrame(goods, schema=names, orient="row").write_csv(folder / "products.csv")

    def rating(query: str, name: str) -> int:
        same = [a == b for a, b in zip(query.split(), name.split(), strict=False)]
        return 3 if all(same) else 2 if same[1] else 1 if same[0] else 0

    for file, words in (("judged.csv", ("cheap", "now")), ("judged-lately.csv", ("new",))):
        rows = [(f"{c} {t} {w}", sku, rating(f"{c} {t}", name)) for c in COLOURS for t in THINGS for w in words
                for sku, name, _, _ in goods[::3]]  # fmt: skip
        pl.DataFrame(rows, schema=["search", "sku", "rating"], orient="row").write_csv(folder / file)
    rng, start = np.random.default_rng(0), datetime(2026, 3, 2, tzinfo=UTC)
    searches = []
    for visit in range(500):
        query = f"{rng.choice(COLOURS)} {rng.choice(THINGS)} {rng.choice(['today', 'sale', 'now'])}"
        when = start + timedelta(days=float(rng.random() * 27))
        for slot, i in enumerate(rng.permutation(len(goods))[:6], start=1):
            clicked = rng.random() < 0.15 * rating(query, goods[i][1])
            searches.append(
                (when.isoformat(), f"v{visit}", query, goods[i][0], slot, int(clicked), 40.0 if clicked else None)
            )
    names = ["when", "visitor", "search", "sku", "slot", "was_clicked", "seconds"]
    pl.DataFrame(searches, schema=names, orient="row").write_csv(folder / "searches.csv")


def online(folder: Path) -> None:
    """A log of an A/B test and one of interleaved lists."""
    start = datetime(2026, 3, 2, tzinfo=UTC)
    log = experiment(600, 8, start, 0, lift=0.1, pre_days=4)
    log.rename({"user": "visitor", "variant": "arm"}).write_csv(folder / "test.csv")
    rng, rows = np.random.default_rng(0), []
    for search in range(60):
        docs = [f"d{i}" for i in rng.permutation(6)]
        for slot, each in enumerate(assign(docs, docs[::-1], str(search)), start=1):
            rows.append((start, f"s{search}", f"q{search}", each.doc_id, slot, bool(rng.random() < 0.3), each.team))
    names = ["ts", "session", "query", "doc_id", "position", "clicked", "team"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(folder / "interleaved.csv")


def run_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a page's marked blocks in `folder`; returns how many commands ran."""
    from serm.simulate.llm_server import llm_server, running

    runner, ran = CliRunner(), 0
    monkeypatch.chdir(folder)
    servers: list[object] = []
    try:
        for mark, _, text in blocks(page):
            if mark.startswith("file: "):
                (folder / mark.removeprefix("file: ")).write_text(text, encoding="utf-8")
            elif mark == "background":
                assert lines(text) == ["serm simulate-llm"]
                server = running(llm_server(Workspace.open(folder / "shop")), "127.0.0.1", 0)
                address = server.__enter__()
                servers.append(server)
                both = [{"name": name, "model": f"stand-in-{name[0]}", "base_url": address} for name in ("ada", "ben")]
                monkeypatch.setenv("SERM_ANNOTATION__ANNOTATORS", json.dumps(both))
            elif mark == "run":
                for line in lines(text):
                    program, *words = shlex.split(line)
                    if program == "export":
                        monkeypatch.setenv(*words[0].split("=", 1))
                        continue
                    assert program == "serm", f"{page.name}: {line}: only serm is run here"
                    done = runner.invoke(app, words)
                    assert done.exit_code == 0, f"{page.name}: {line}: {done.output} {done.exception!r}"
                    ran += 1
    finally:
        for server in servers:
            server.__exit__(None, None, None)  # type: ignore[attr-defined]
    return ran


@pytest.mark.usefixtures("reduced")
def test_your_own_logs_in_fifteen_minutes_and_the_pages_that_look_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop(tmp_path)
    assert run_page(DOCS / "own-logs.md", tmp_path, monkeypatch) == 18
    workspace = Workspace.open(tmp_path / "shop")
    assert workspace.read("quarantine").is_empty()
    assert workspace.read("impressions").height == 3_000
    assert workspace.read("annotations").filter(status="kept").height > 0
    assert workspace.read("champions").height >= 1
    monkeypatch.delenv("SERM_WORKSPACE")
    shutil.copytree(tmp_path / "shop", tmp_path / "demo")
    assert run_page(DOCS / "index.md", tmp_path, monkeypatch) == 3
    assert run_page(DOCS / "cost.md", tmp_path, monkeypatch) == 1


def test_the_page_of_online_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online(tmp_path)
    assert run_page(DOCS / "online.md", tmp_path, monkeypatch) == 5


def test_no_marked_block_is_left_out() -> None:
    marked = {page.name for page in DOCS.rglob("*.md") for mark, _, _ in blocks(page) if mark == "run"}
    assert marked == {"own-logs.md", "index.md", "cost.md", "online.md"}
