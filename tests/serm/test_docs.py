"""The documentation says what the code does: every setting, every command, and every command line that it shows.

Every line for serm and sps that a page shows, after "$ " or four spaces, is read by the real command line, and run: in
order, with settings reduced by the environment. A server is at work while the page's other lines run; a block below
<!-- file: NAME --> becomes that file; a version's name stands for the workspace's newest of its kind.
What deploys is run on a real Prefect server, by tests/flows.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from pydantic import BaseModel
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from serm import reference, registry
from serm.cli import app
from serm.config import Config
from serm.configure import load
from serm.online import assign
from serm.simulate.experiment import experiment
from serm.workspace import Workspace
from sps.cli import app as trainer
from sps.config import Config as TrainerConfig
from sps.configure import load as load_trainer
from tests.flows.prefect_server import free_port, until
from tests.serm.chromium import chromium
from tests.sps.conftest import character_tokenizer, random_llama

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COLOURS = ("red", "blue", "green", "yellow")
THINGS = ("shoe", "hat", "coat", "scarf", "sock", "glove")


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
        for name, setting in room.model_fields.items():
            inner = reference._room(setting.annotation)
            if path or inner is None:
                yield f"{path}{name}", setting.description or ""
            if inner is not None:
                yield from settings(
                    inner, f"{path}{name}." if "list" not in str(setting.annotation) else f"{path}{name}[]."
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

DEPLOYED = ("serm deploy", "serm doctor")  # run by tests/flows/test_deployed.py
STAND_IN = "serm simulate-llm"
SERVERS = (STAND_IN, "serm serve")
EXITS = {"gate": {0, 3}}  # 3: refused
VERSION = re.compile(r"\b([rd])\d{3}-(?:[0-9a-f]{10}|…)")
FILE = re.compile(r"^<!-- file: (?P<name>\S+) -->\n```yaml\n(?P<content>.*?)^```$", re.M | re.S)
LINE = re.compile(r"^(?:\$ |    )(?P<line>(?:serm |sps |export SERM_|export OPENAI_).*)$", re.M)
LESS = {  # of a trainer's work
    "train": ["trainer.steps=2", "rollout.prompts=2", "rollout.group=4", "evaluation.problems=4", "evaluation.probes=2",
              "policy.tiny_steps=4", "policy.tiny_cache=cache"],
}  # fmt: skip


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
        "SHIFT__MINIMUM": "10", "SHIFT__CLUSTERS": "4", "DISTILLATION__STUDENT": str(tiny), "DISTILLATION__PAIRS": "60",
        "DISTILLATION__EPOCHS": "1",
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


@dataclass
class Reader:
    """Somebody who follows pages in a folder, line by line."""

    folder: Path
    patch: pytest.MonkeyPatch
    ran: list[str] = field(default_factory=list)

    def follow(self, name: str) -> None:
        """Write a page's files and run its lines; its servers stop where it ends."""
        self.patch.chdir(self.folder)
        text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
        found = sorted([*FILE.finditer(text), *LINE.finditer(text)], key=re.Match.start)
        with ExitStack() as servers:
            for step in found:
                if step.re is FILE:
                    (self.folder / step["name"]).write_text(step["content"], encoding="utf-8")
                    continue
                for line in re.split(r"\s(?:&&|;)\s", step["line"]):
                    if line.startswith(SERVERS):
                        address = servers.enter_context(server_of(line))
                        self.ran.append(line)
                        if line.startswith(STAND_IN):
                            self.annotators_at(address)
                    elif not line.startswith(DEPLOYED):
                        self.run(line)

    def run(self, line: str) -> None:
        """By the real command line, in this process."""
        if version := VERSION.search(line):
            space = Workspace.open(os.environ.get("SERM_WORKSPACE", "workspace"))
            known = [name for name in registry.versions(space) if name.startswith(version[1])]
            line = VERSION.sub(known[-1], line)
        program, *words = shlex.split(line, comments=True)
        if program == "export":
            self.patch.setenv(*words[0].split("=", 1))
            return
        less = [part for item in LESS.get(words[0], []) for part in ("--set", item)] if program == "sps" else []
        if "=ray" in line and find_spec("ray") is None:
            return  # an extra
        done = CliRunner().invoke(app if program == "serm" else trainer, words + less)
        assert done.exit_code in EXITS.get(words[0], {0}), f"{line}: {done.output} {done.exception!r}"
        self.ran.append(line)

    def annotators_at(self, address: str) -> None:
        """Let the annotators be a stand-in's."""
        both = [{"name": name, "model": f"stand-in-{name[0]}", "base_url": f"{address}/v1"} for name in ("ada", "ben")]
        self.patch.setenv("SERM_ANNOTATION__ANNOTATORS", json.dumps(both))


@contextmanager
def server_of(line: str) -> Iterator[str]:
    """A server as a process of its own, on a free port; its address."""
    port = free_port()
    words = [*shlex.split(line, comments=True)[1:], "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-m", "serm.cli", *words], stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, f"{line}: it ended with exit code {process.returncode}"
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, f"{line}: it ended with exit code {process.returncode}"
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.usefixtures("reduced")
def test_your_own_logs_and_every_page_about_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop(tmp_path)
    reader = Reader(tmp_path, monkeypatch)
    reader.follow("docs/own-logs.md")
    workspace = Workspace.open(tmp_path / "shop")
    assert workspace.read("quarantine").is_empty()
    assert workspace.read("impressions").height == 3_000
    assert workspace.read("annotations").filter(status="kept").height > 0
    assert registry.history(workspace)["action"].to_list()[-2:] == ["promote", "rollback"]
    monkeypatch.delenv("SERM_WORKSPACE")
    shutil.copytree(tmp_path / "shop", tmp_path / "workspace")
    shutil.copytree(ROOT / "serm" / "annotation" / "prompts" / "relevance", tmp_path / "prompts" / "shoes")
    pairs = pl.DataFrame({"query": ["red shoe", "blue hat"], "text": ["a red shoe", "a hat"]})
    pairs.write_csv(tmp_path / "pairs.csv")
    pairs.write_parquet(tmp_path / "pairs.parquet")
    with server_of(f"{STAND_IN} -w shop") as address:
        reader.annotators_at(address)
        for page in ("annotation", "capacity", "cost", "security", "serving"):
            reader.follow(f"docs/{page}.md")
    reader.follow("docs/stand-in.md")
    assert len(reader.ran) > 35


@pytest.mark.usefixtures("reduced")
def test_the_first_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(tmp_path, monkeypatch)
    reader.follow("docs/index.md")
    assert reader.ran == ["serm demo", "serm status -w demo", "serm shift -w demo", "serm evaluate -w demo"]


@pytest.mark.usefixtures("reduced")
def test_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop(tmp_path)
    pl.read_csv(tmp_path / "products.csv").rename({"sku": "doc_id"}).write_parquet(tmp_path / "products.parquet")
    names = {"sku": "doc_id", "search": "query", "rating": "grade"}
    lately = pl.read_csv(tmp_path / "judged-lately.csv").rename(names)
    lately.write_csv(tmp_path / "new.csv")
    pl.read_csv(tmp_path / "judged.csv").rename(names).write_csv(tmp_path / "judged.csv")
    log = {"when": "ts", "visitor": "user_id", "search": "query", "sku": "doc_id", "slot": "position",
           "was_clicked": "clicked", "seconds": "dwell"}  # fmt: skip
    (tmp_path / "logs").mkdir()
    pl.read_csv(tmp_path / "searches.csv").rename(log).write_parquet(tmp_path / "logs" / "march.parquet")
    random_llama().save_pretrained(tmp_path / "path" / "to" / "model")
    character_tokenizer().save_pretrained(tmp_path / "path" / "to" / "model")
    (tmp_path / "mymodule.py").write_text("def reward(completion, example):\n    return float(len(completion) % 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("train", "test"):
        rows = [json.dumps({"prompt": f"{i}+{i}="}) for i in range(8)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.setenv("OPENAI_API_KEY", "none-needed")
    known = lately.with_columns(split=pl.lit("hidden"), judge=pl.lit("human"))
    Workspace.create(tmp_path / "judges", "").append("judgments", known)
    reader = Reader(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    with server_of(f"{STAND_IN} -w judges") as address:
        reader.annotators_at(address)
        reader.follow("README.md")
    assert len(reader.ran) == 13


def test_the_page_of_online_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online(tmp_path)
    reader = Reader(tmp_path, monkeypatch)
    reader.follow("docs/online.md")
    assert len(reader.ran) == 5


def test_no_page_is_left_out() -> None:
    names = ("own-logs", "annotation", "capacity", "cost", "security", "serving", "stand-in", "index", "online")
    own = {"README.md", *(f"{name}.md" for name in names)}
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    showing = {page.name: page.read_text(encoding="utf-8") for page in pages}
    showing = {name: text for name, text in showing.items() if LINE.search(text)}
    assert set(showing) == own | {"operations.md"}  # whose commands deploy
    lines = [found["line"] for found in LINE.finditer(showing["operations.md"])]
    assert all(line.startswith((*DEPLOYED, "export")) for line in lines)
