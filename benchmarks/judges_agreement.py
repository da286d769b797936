"""Accuracy against coverage of the rules of agreement, on real LLM judges, cross-validated by query.

    python benchmarks/judges_agreement.py judges --data ../shared/data/judges/llmjudge_scores.parquet

Every query is labelled by what the others teach. A posterior rule keeps its surest pairs, as many as unanimity keeps;
intervals are of the paired difference, over resampled queries, with the combinations of judges held fixed. The guarded
rule is the posterior where, cross-validated once more inside the training queries, it beats unanimity by `GUARD`, and
otherwise puts unanimous pairs with their label first. The matched rule keeps as many pairs of every label as unanimity
does, by the posterior: what is gained without keeping easier grades.
"""

import argparse
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.annotation.consensus import majority
from serm.annotation.dawid_skene import NONE, fit

GRADES = 4
GOOD = 12  # judges with the highest accuracy on all queries: a choice of judges, the same for every rule
SMOOTHING = 5.0
GUARD = 0.02
RESAMPLES = 1_000
RULES = ("posterior", "guarded", "matched")
COVERAGES = np.arange(0.1, 1.001, 0.05)
Array = NDArray[np.float64]


class Judged:
    """Votes (n, judges), grades (n,) and query numbers (n,)."""

    def __init__(self, path: Path) -> None:
        frame = pl.read_parquet(path).sort("qid", "docid")
        self.names = [name for name in frame.columns if name.startswith("llm_")]
        votes = frame.select(self.names).to_numpy().astype(np.int64)
        self.votes = np.where((votes < 0) | (votes >= GRADES), NONE, votes)  # off the scale is no vote
        self.grades = frame["human_grade"].to_numpy().astype(np.int64)
        self.query = np.unique(frame["qid"].to_numpy(), return_inverse=True)[1]
        self.queries = int(self.query.max()) + 1


def posterior(data: Judged, votes: NDArray[np.int64], test: NDArray[np.bool_], out: NDArray[np.bool_]) -> Array:
    """Posteriors of the pairs in `test` from the grades of those not in `out`."""
    train = ~out
    model = fit(votes[train], GRADES, data.grades[train], SMOOTHING, ordinal=True)
    return model.posterior(votes[test])


def out_of_query(data: Judged, votes: NDArray[np.int64], left_out: int | None) -> Array:
    """Every query's posteriors from the other queries, `left_out` unused throughout."""
    found = np.zeros((len(votes), GRADES))
    never = data.query == left_out if left_out is not None else np.zeros(len(votes), bool)
    for query in range(data.queries):
        test = data.query == query
        if query != left_out:
            found[test] = posterior(data, votes, test, test | never)
    return found


def guarded(data: Judged, votes: NDArray[np.int64], outer: Array) -> tuple[Array, int]:
    """Confidence (n,) of the guarded rule, its labels' matrix, and in how many folds the posterior was trusted."""
    agreed = unanimous(votes)
    confidence, trusted = outer.copy(), 0
    for query in range(data.queries):
        inner = out_of_query(data, votes, query)
        train = data.query != query
        right = inner.argmax(axis=1) == data.grades
        kept = surest(np.where(train, inner.max(axis=1), -1.0), int((agreed & train).sum()))
        better = right[kept].mean() - (votes[agreed & train, 0] == data.grades[agreed & train]).mean()
        if better > GUARD:
            trusted += 1
        else:
            first = agreed & (data.query == query)
            confidence[first] = np.eye(GRADES)[votes[first, 0]] * (2 + outer[first])  # above every probability
    return confidence, trusted


def matched(scores: Array, agreed: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """The pairs kept and their labels (n,): of each label, rarest first, as many as in `agreed`, by its probability."""
    label = np.full(len(scores), NONE)
    wanted = np.bincount(agreed, minlength=GRADES)
    for grade in np.argsort(wanted, kind="stable"):
        free = np.where(label == NONE, scores[:, grade], -1.0)
        label[surest(free, int(wanted[grade]))] = grade
    return label != NONE, label


def unanimous(votes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pairs on which all voted, and for the same grade."""
    return np.asarray((votes == votes[:, :1]).all(axis=1) & (votes[:, 0] != NONE))


def surest(confidence: Array, count: int) -> NDArray[np.bool_]:
    """The `count` pairs with the highest confidence; ties go to the earlier row."""
    kept = np.zeros(len(confidence), bool)
    kept[np.argsort(-confidence, kind="stable")[:count]] = True
    return kept


def main() -> None:
    """Evaluate pairs, triples and fives of all and of good judges; write tables, JSON and plots into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/judges/llmjudge_scores.parquet"))
    parser.add_argument("--sample", type=int, default=60, help="Most combinations a size.")
    parser.add_argument("--seed", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    data = Judged(given.data)
    accuracy = (data.votes == data.grades[:, None]).mean(axis=0)
    print(f"{len(data.grades)} pairs, {data.queries} queries, best single judge {accuracy.max():.3f}")
    rng = np.random.default_rng(given.seed)
    results = []
    for pool, members in (("all", range(len(data.names))), ("good", np.argsort(-accuracy, kind="stable")[:GOOD])):
        for size in (2, 3, 5):
            every = list(combinations([int(member) for member in members], size))
            chosen = sorted(rng.choice(len(every), min(given.sample, len(every)), replace=False))
            results.append({"judges": pool, "size": size} | evaluate(data, [every[i] for i in chosen], given.seed))
            print(table(results[-1]), flush=True)
    (given.folder / "judges.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    plot(results, given.folder)


def evaluate(data: Judged, chosen: list[tuple[int, ...]], seed: int) -> dict[str, object]:
    """Means over combinations of each rule's point, and paired differences at unanimity's coverage."""
    n = len(data.grades)
    counts: dict[str, list[Array]] = {"unanimous": [], **{rule: [] for rule in RULES}}  # (2, queries): kept, right
    curves: dict[str, list[Array]] = {"posterior": [], "guarded": []}
    points: dict[str, list[tuple[float, float]]] = {"single": [], "majority": [], "unanimous": []}
    zeros: dict[str, list[float]] = {name: [] for name in counts}
    trusted = 0

    def count(kept: NDArray[np.bool_], right: NDArray[np.bool_]) -> Array:
        return np.stack([np.bincount(data.query, kept & good, data.queries) for good in (np.ones(n, bool), right)])

    for members in chosen:
        votes = data.votes[:, list(members)]
        agreed = unanimous(votes)
        most = [majority([None if v == NONE else v for v in row], ordinal=False) for row in votes.tolist()]
        voted = np.array([NONE if label is None else label for label in most])
        points["single"].append((1.0, float((votes == data.grades[:, None]).mean())))
        for name, kept, label in (("majority", voted != NONE, voted), ("unanimous", agreed, votes[:, 0])):
            points[name].append((float(kept.mean()), float((label == data.grades)[kept].mean())))
        counts["unanimous"].append(count(agreed, votes[:, 0] == data.grades))
        zeros["unanimous"].append(float((votes[agreed, 0] == 0).mean()))
        outer = out_of_query(data, votes, None)
        guard, folds = guarded(data, votes, outer)
        trusted += folds
        for rule, scores in (("posterior", outer), ("guarded", guard)):
            right, sure = scores.argmax(axis=1) == data.grades, scores.max(axis=1)
            kept = surest(sure, int(agreed.sum()))
            counts[rule].append(count(kept, right))
            zeros[rule].append(float((scores.argmax(axis=1)[kept] == 0).mean()))
            curves[rule].append(np.array([right[surest(sure, round(c * n))].mean() for c in COVERAGES]))
        kept, label = matched(outer, votes[agreed, 0])
        counts["matched"].append(count(kept, label == data.grades))
        zeros["matched"].append(float((label[kept] == 0).mean()))
    draws = np.random.default_rng(seed).multinomial(data.queries, np.full(data.queries, 1 / data.queries), RESAMPLES)
    found: dict[str, object] = {
        "combinations": len(chosen),
        "points": {name: np.mean(values, axis=0).tolist() for name, values in points.items()},
        "curves": {rule: np.mean(values, axis=0).tolist() for rule, values in curves.items()},
        "zeros": {name: float(np.mean(values)) for name, values in zeros.items()},
        "trusted": trusted / (len(chosen) * data.queries),
    }
    before = np.array(counts["unanimous"])
    for rule in RULES:
        after = np.array(counts[rule])
        each = share(after, np.ones((1, data.queries))) - share(before, np.ones((1, data.queries)))
        low, high = np.quantile((share(after, draws) - share(before, draws)).mean(axis=1), [0.025, 0.975])
        found[rule] = {"difference": float(each.mean()), "low": float(low), "high": float(high),
                       "worst": float(each.min()), "below": float((each < 0).mean())}  # fmt: skip
    return found


def share(counts: Array, draws: NDArray[np.float64] | NDArray[np.int64]) -> Array:
    """Accuracy (draws, combinations) of counts (combinations, 2, queries) under resampled queries."""
    return np.asarray((draws @ counts[:, 1].T) / np.maximum(draws @ counts[:, 0].T, 1))


def table(result: dict[str, object]) -> str:
    """One setting's figures as lines of text, in percent."""
    points: dict[str, list[float]] = result["points"]  # type: ignore[assignment]
    at = ", ".join(f"{name} {100 * y:.1f} at {100 * x:.1f}" for name, (x, y) in points.items())
    lines = [f"{result['judges']} judges, {result['size']} ({result['combinations']} combinations): {at}"]
    for rule in RULES:
        d: dict[str, float] = result[rule]  # type: ignore[assignment]
        lines.append(
            f"  {rule}: {100 * d['difference']:+.2f} [{100 * d['low']:+.2f}, {100 * d['high']:+.2f}], worst "
            f"{100 * d['worst']:+.1f}, below in {100 * d['below']:.0f}% of combinations"
        )
    zeros: dict[str, float] = result["zeros"]  # type: ignore[assignment]
    share_of_zero = ", ".join(f"{name} {100 * value:.1f}" for name, value in zeros.items())
    trusted: float = result["trusted"]  # type: ignore[assignment]
    lines.append(f"  grade 0 among kept: {share_of_zero}; posterior trusted in {100 * trusted:.0f}% of folds")
    return "\n".join(lines)


def plot(results: list[dict[str, object]], folder: Path) -> None:
    """Curves and points as HTML, and as PNG where matplotlib is installed."""
    from plotly.subplots import make_subplots

    titles = [f"{result['judges']} judges, {result['size']}" for result in results]
    figure = make_subplots(2, 3, subplot_titles=titles, shared_yaxes=True)
    colours = {"posterior": "#0072B2", "guarded": "#D55E00", "single": "#777777", "majority": "#009E73",
               "unanimous": "#000000"}  # fmt: skip
    for number, result in enumerate(results):
        where = {"row": number // 3 + 1, "col": number % 3 + 1}
        curves: dict[str, list[float]] = result["curves"]  # type: ignore[assignment]
        points: dict[str, list[float]] = result["points"]  # type: ignore[assignment]
        for name, curve in curves.items():
            figure.add_scatter(
                x=COVERAGES, y=curve, name=name, line_color=colours[name], showlegend=number == 0, **where
            )
        for name, (x, y) in points.items():
            figure.add_scatter(x=[x], y=[y], name=name, mode="markers", marker={"size": 10, "color": colours[name]},
                               showlegend=number == 0, **where)  # fmt: skip
    figure.update_xaxes(title="share of pairs kept", range=[0, 1.03])
    figure.update_yaxes(title="accuracy", col=1)
    figure.update_layout(template="plotly_white", height=760, width=1180, title="Accuracy against coverage")
    figure.write_html(folder / "judges.html", include_plotlyjs="inline")
    _png(results, folder / "judges.png", colours)


def _png(results: list[dict[str, object]], path: Path, colours: dict[str, str]) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no PNG: matplotlib is not installed; judges.html has the plot")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(13, 8), sharey=True, sharex=True, layout="constrained")
    for result, axis in zip(results, axes.flat, strict=True):
        axis.set_title(f"{result['judges']} judges, {result['size']}")
        axis.set_xlabel("share of pairs kept")
        curves: dict[str, list[float]] = result["curves"]  # type: ignore[assignment]
        points: dict[str, list[float]] = result["points"]  # type: ignore[assignment]
        for name, curve in curves.items():
            axis.plot(COVERAGES, curve, color=colours[name], label=name)
        for name, (x, y) in points.items():
            axis.plot([x], [y], "o", color=colours[name], label=name)
    axes[0, 0].legend()
    axes[0, 0].set_ylabel("accuracy")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
