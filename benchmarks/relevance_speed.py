"""Pairs per second and peak memory, side by side: our scoring of both families against what one would use without it.

    python benchmarks/relevance_speed.py cross-encoder --data ../shared/data
    python benchmarks/relevance_speed.py generative --model SMOLLM2_FOLDER --data ../shared/data

cross-encoder: `probabilities` and `sentence_transformers.CrossEncoder.predict` with the same weights, precision and
longest pair, on MSRD's pairs with movies' texts cut to mixed lengths, at sentence-transformers' own batch size of 32
and at others. generative: 20 candidates a query with shared beginnings, and each pair alone, which reads a prompt
whole by itself, as a caller of transformers would write it; padded batches without sharing are a third column.
Prompts come in kinds: short and long instructions, short and long documents.

The sides take turns within a round, in one process; scores are checked to agree. Each figure is processor seconds of
one thread, which other work on the machine disturbs little, and the best of the rounds. Peak memory is that of a
process that runs one side alone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from serm.config import RelevanceSettings

Scores = NDArray[np.float32]
Sides = dict[str, Callable[[], Scores]]
CANDIDATES = 20
GUIDELINES = (
    "Judge how well a movie answers a search query. The best grade is for a movie that the person who typed "
    "the query plainly looks for: its title, one of its actors or makers, or a plot that the query tells. A "
    "middling grade is for a movie that shares the query's subject, its setting or its makers, and that a "
    "patient person might watch instead. The worst grade is for a movie that has nothing to do with the query "
    "but for a word or two by chance. Judge what the movie is about, not how good or famous it is. A sequel "
    "of the movie that is meant is not the movie that is meant. Words of the query that the text repeats "
    "prove nothing by themselves: a text may be written to be found. Names may be misspelt, and a year may be "
    "off by one. Where a query is vague, such as a genre, all movies that clearly belong to it are answers, "
    "and those on its border are middling."
)
KINDS = {  # instructions, characters of a document
    "default instructions, titles": (None, 40),
    "default instructions, texts": (None, 400),
    "guidelines, titles": (GUIDELINES, 40),
    "guidelines, texts": (GUIDELINES, 400),
    "guidelines, long texts": (GUIDELINES, 1_600),
}


def main() -> None:
    """Measure a family and print a table with ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=["cross-encoder", "generative"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds msrd/")
    parser.add_argument("--model", default="embedded:minilm", help="weights; generative: a causal model's folder")
    parser.add_argument("--pairs", type=int, default=256, help="cross-encoder")
    parser.add_argument("--queries", type=int, default=2, help="generative; 20 candidates each")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="generative")
    parser.add_argument("--batches", type=int, nargs="*", default=[32, 8, 128], help="of sentence-transformers")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", help="internal: run this side once and tell its peak memory")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cases = cross_encoders(given) if given.family == "cross-encoder" else generatives(given)
    for name, build in cases.items():
        if given.side:
            case, side = given.side.split("|")
            if case == name:
                build()[1][side]()
                print(json.dumps(peak_memory()))
            continue
        pairs, sides = build()
        report(name, pairs, sides, given.rounds)


def peak_memory() -> float:
    """MiB of this process alone; what getrusage tells would begin with its parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024


def report(name: str, pairs: int, sides: Sides, rounds: int) -> None:
    """Run the sides in turn, check that they agree, and print a line each; ratios are to the first."""
    best = dict.fromkeys(sides, float("inf"))
    scores: dict[str, Scores] = {}
    for turn in range(rounds):
        order = list(sides) if turn % 2 == 0 else list(reversed(sides))
        for side in order:
            began = time.process_time()
            scores[side] = sides[side]()
            best[side] = min(best[side], time.process_time() - began)
    first = next(iter(sides))
    print(f"\n{name}\n{'':34} {'pairs/s':>8} {'ours is':>8} {'differs by':>11} {'peak MiB':>9}")
    for side in sides:
        command = [sys.executable, __file__, *sys.argv[1:], "--side", f"{name}|{side}"]
        shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        peak = json.loads(shown.splitlines()[-1])
        gap = np.abs(scores[side] - scores[first]).max()
        print(
            f"{side:34} {pairs / best[side]:8.1f} {best[side] / best[first]:7.2f}x {gap:11.1e} {peak:9.0f}", flush=True
        )


def msrd(folder: Path, queries: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Queries of MSRD with 20 judged movies each: aligned queries, titles and texts."""
    corpus = pl.read_parquet(folder / "msrd" / "corpus.parquet", columns=["id", "title", "overview"])
    judged = pl.read_parquet(folder / "msrd" / "judgments.parquet").join(corpus, left_on="doc_id", right_on="id")
    judged = judged.unique(["query", "doc_id"], keep="first", maintain_order=True)
    many = judged.filter(pl.len().over("query") >= CANDIDATES)
    chosen = many["query"].unique().sort().sample(queries, seed=seed, shuffle=True)
    rows = many.filter(pl.col("query").is_in(chosen.implode())).group_by("query", maintain_order=True).head(CANDIDATES)
    texts = rows["title"] + "\n" + rows["overview"].fill_null("")
    return rows["query"].to_list(), rows["title"].to_list(), texts.to_list()


def cross_encoders(given: argparse.Namespace) -> dict[str, Callable[[], tuple[int, Sides]]]:
    """Mixes of lengths, each against several batch sizes."""

    def case(lengths: list[int]) -> Callable[[], tuple[int, Sides]]:
        def build() -> tuple[int, Sides]:
            from serm.relevance.cross_encoder import CrossEncoder

            queries, _, texts = msrd(given.data, -(-given.pairs // CANDIDATES), 7)
            queries, texts = queries[: given.pairs], texts[: given.pairs]
            cuts = np.random.default_rng(0).choice(lengths, len(texts))
            texts = [text[:length] for text, length in zip(texts, cuts, strict=True)]
            settings = RelevanceSettings(
                base=given.model, max_tokens=given.max_tokens, precision=given.precision, device="cpu"
            )
            model = CrossEncoder.start(settings, [0, 1], seed=0)
            sides: Sides = {"ours": lambda: model.probabilities(queries, texts)}
            with tempfile.TemporaryDirectory() as folder:
                model.save(Path(folder))
                theirs = sentence_transformer(folder, given.precision)
            pairs = list(zip(queries, texts, strict=True))
            for size in given.batches:
                sides[f"predict, batch_size {size}"] = lambda size=size: theirs(pairs, size)
            return len(texts), sides

        return build

    return {
        "mixed lengths (30 to 900 characters)": case([30, 100, 300, 900]),
        "short alone (titles)": case([30]),
        "long alone (900 characters)": case([900]),
    }


def sentence_transformer(folder: str, precision: str) -> Callable[[list[tuple[str, str]], int], Scores]:
    """`CrossEncoder.predict` with softmax, in the same arithmetic as ours."""
    from sentence_transformers import CrossEncoder as Theirs

    from serm.relevance.device import autocast

    model = Theirs(folder, device="cpu")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def predict(pairs: list[tuple[str, str]], size: int) -> Scores:
        with autocast(torch.device("cpu"), dtype):
            scores: Scores = model.predict(pairs, batch_size=size, apply_softmax=True, show_progress_bar=False)
        return scores

    return predict


def generatives(given: argparse.Namespace) -> dict[str, Callable[[], tuple[int, Sides]]]:
    """Kinds of prompts, each with a shared beginning, in plain batches, and each pair alone."""

    def case(instructions: str | None, characters: int) -> Callable[[], tuple[int, Sides]]:
        def build() -> tuple[int, Sides]:
            from serm.relevance.generative import GenerativeModel

            more: dict[str, Any] = {} if instructions is None else {"instructions": instructions}
            settings = RelevanceSettings(
                family="generative", max_tokens=512, precision=given.precision, device="cpu", **more
            )
            model = GenerativeModel(given.model, settings, [0, 1])
            queries, titles, texts = msrd(given.data, given.queries, 7)
            documents = titles if characters < 100 else [text[:characters] for text in texts]
            parts = model._form.parts(queries, documents)
            print(
                f"\ntokens: shared {np.mean([len(part.shared) for part in parts]):.0f} (of them instructions "
                f"{parts[0].instructions}), own {np.mean([len(part.own) for part in parts]):.0f}",
                file=sys.stderr,
            )
            sides: Sides = {
                "ours, shared": lambda: model.probabilities(queries, documents),
                "plain batches": lambda: plain(model, queries, documents),
                "each pair alone": lambda: alone(model, queries, documents),
            }
            return len(documents), sides

        return build

    return {name: case(*KINDS[name]) for name in given.kinds}


def plain(model: Any, queries: list[str], documents: list[str]) -> Scores:
    """The same code with nothing shared."""
    from serm.relevance.prompts import Prompt
    from serm.relevance.shared_prefix import label_logs

    prompts = [Prompt((), ids, 0) for ids in model.prompts(queries, documents)]
    return torch.from_numpy(label_logs(model.network, prompts, model.labels, 8_192)).softmax(dim=1).numpy()


def alone(model: Any, queries: list[str], documents: list[str]) -> Scores:
    """One plain forward pass a pair: the prompt and what all labels begin with, then the last tokens' logits."""
    beginning, rows = model.labels[0][:-1], []
    assert all(label[:-1] == beginning for label in model.labels)
    last = torch.tensor([label[-1] for label in model.labels])
    with torch.inference_mode():
        for prompt in model.prompts(queries, documents):
            output = model.network(
                input_ids=torch.tensor([[*prompt, *beginning]]), logits_to_keep=1, use_cache=False
            )  # fmt: skip
            rows.append(output.logits[0, -1, last].float().softmax(dim=0).numpy())
    return np.stack(rows)


if __name__ == "__main__":
    main()
