"""A run's page, report.html: what it gained and lost, and how; one file that needs no network."""

from html import escape
from pathlib import Path
from typing import Any

import yaml

from sps.analyze import BESIDE, analyze_run, readable
from sps.arms import departures
from sps.metrics import METRICS
from sps.page import chart, details, document, grid, section, table, term, text_card, tile
from sps.plots import limit_over_steps, passk_curves, passk_over_steps, probes_moved, probes_over_steps, problems_moved
from sps.probes import trajectories
from sps.report_training import other_charts, steady, training_sections
from sps.runs import Run, counts_at, read_run, steps_of

SAMPLES = 12  # completions shown


def write_report(run_folder: Path | str) -> Path:
    """Write report.html into a run's folder, whole or not at all; its path.

    Raises:
        ValueError: this is no run's folder, or nothing was evaluated yet.
    """
    run = read_run(Path(run_folder))
    path = run.root / "report.html"
    scratch = run.root / ".report.html.new"
    try:
        scratch.write_text(report(run), encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def report(run: Run) -> str:
    """The page's HTML."""
    found = analyze_run(run)
    parts = [
        _head(run, found),
        _passk(run, found),
        *training_sections(run),
        _problems(run, found),
        _probes(run, found),
        other_charts(run),
        _samples(run),
        _settings(run),
    ]
    return document(f"{run.name} · sps", "".join(parts))


def verdict(changes: list[dict[str, Any]]) -> str:
    """What happened to Pass@k from the first evaluation to the last, in a sentence; intervals decide what is clear."""
    if not changes:
        return "Nothing could be compared: no held-out problem has enough judged completions at both ends."
    said = []
    for row in (changes[0], changes[-1])[: len(changes)]:
        ends = f"{100 * row['before']:.1f} → {100 * row['after']:.1f}%"
        points = f"{abs(100 * row['mean']):.1f} points ({ends})"
        if row["low"] > 0:
            said.append(f"Pass@{row['k']} rose by {points}")
        elif row["high"] < 0:
            said.append(f"Pass@{row['k']} fell by {points}")
        else:
            said.append(f"Pass@{row['k']} did not clearly move ({signed(row['mean'])} points)")
    return "; ".join(said) + "."


def _head(run: Run, found: dict[str, Any]) -> str:
    config = run.config
    steering = config.steering
    facts = [config.task.name, config.policy.model, config.objective.preset]
    facts.append(f"steering {steering.coefficient:g}" if steering.coefficient else "no steering")
    facts += [f"seed {config.seed}", f"{found['steps']} of {config.trainer.steps} steps"]
    links = {"passk": "Pass@k", "squeezing": "Squeezing", "learning": "Learning", "health": "Optimisation"}
    links |= {"problems": "Problems", "probes": "Probe set", "samples": "Samples", "settings": "Settings"}
    shown = {name: words for name, words in links.items() if name != "probes" or run.probes}
    anchors = "".join(f"<a href='#{name}'>{words}</a>" for name, words in shown.items())
    return (
        f"<header><h1>{escape(run.name)}</h1><p class='muted'>{escape(' · '.join(facts))}</p>"
        f"<p class='verdict'>{escape(verdict(found['changes']))}</p>"
        f"<nav>{anchors}</nav>"
        f"<div class='tiles'>{''.join(_tiles(run, found))}</div></header>"
    )


def _tiles(run: Run, found: dict[str, Any]) -> list[str]:
    tiles = []
    for row in (found["changes"][:1] + found["changes"][-1:])[: len(found["changes"])]:
        tone = "good" if row["low"] > 0 else "bad" if row["high"] < 0 else ""
        interval = f"<span class='whole'>[{signed(row['low'])}, {signed(row['high'])}]</span>"
        note = f"{signed(row['mean'])} points {interval}"
        ends = f"{100 * row['before']:.1f} → {100 * row['after']:.1f}<small>%</small>"
        tiles.append(tile(f"Pass@{row['k']}", ends, note, tone))
    trained = [row for row in found["dynamics"] if row["top_share"] is not None]
    if trained:
        first, last = trained[0], trained[-1]
        value = f"{first['effective_number']:.2f} → {last['effective_number']:.2f}"
        tiles.append(tile("Effective number", value, "of right solutions in training groups"))
        value = f"{100 * first['top_share']:.0f} → {100 * last['top_share']:.0f}<small>%</small>"
        tiles.append(tile("Top-1 share", value, "of the right solutions' probability"))
    moved = found["problems"]
    value = f"−{moved['lost']} <small>/ +{moved['gained']}</small>"
    tiles.append(tile("Problems lost / gained", value, f"of {sum(moved.values())} held out"))
    if found["seconds"]:
        speed = f"{found['tokens'] / found['seconds']:,.0f}<small> tokens/s</small>"
        tiles.append(tile("Speed", speed, f"{amount(found['tokens'])} tokens in {duration(found['seconds'])}"))
    return tiles


def _passk(run: Run, found: dict[str, Any]) -> str:
    if not found["passk"]:
        return ""
    n, union = run.config.evaluation.samples, found["ceilings"][0]["ceiling"]
    cards = [
        chart(
            "Pass@k over training",
            "Chance that at least one of k completions is right; 95% bootstrap intervals over problems.",
            passk_over_steps(found["passk"]),
            360,
        ),
        chart(
            "More tries: first and last evaluation",
            f"{term('at the start', 'grey', '')} {term('at the end', 'blue', '')} Where the lines cross, training has "
            "bought fewer tries at the price of reach.",
            passk_curves(found["curve"], {"solved at some evaluation:": union}),
            360,
        ),
    ]
    texts = [
        text_card(
            "By step", table(readable([{k: v for k, v in row.items() if k not in BESIDE} for row in found["dynamics"]]))
        ),
        text_card(
            "Ceilings",
            "<p class='muted'>Three readings of how high Pass@k could go, and Pass@k at the end as a share of each. "
            "Union: solved at some evaluation, which is low. Fitted: the limit of many tries, if per-problem success "
            "follows a zero-inflated beta. Envelope: each problem at its best evaluation, which is high.</p>"
            + table(_turned(readable(found["ceilings"]))),
        ),
    ]
    lead = f"Unbiased Pass@k of {run.config.evaluation.problems} held-out problems from {n} completions each."
    return section("passk", "Does it get better, and does it keep exploring?", lead, grid(cards + texts, "two"))


def _turned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per column, a column per row: ceilings are few and their figures many."""
    return [{"": name, **{row["estimate"]: row[name] for row in rows}} for name in rows[0] if name != "estimate"]


def _problems(run: Run, found: dict[str, Any]) -> str:
    steps = steps_of(run.evaluations)
    if len(steps) < 2:
        return ""
    cards = [
        chart(
            "Every held-out problem, start against end",
            f"{term('lost', 'orange', 'solved at the start, never at the end')}. Below the diagonal a problem got "
            "worse; the area is the number of problems.",
            problems_moved(counts_at(run.evaluations, steps[0]), counts_at(run.evaluations, steps[-1])),
            380,
        ),
        chart(
            "Share of problems that are not hopeless",
            "Pass@k in the limit of many tries by the fit at each evaluation, with 95% profile-likelihood intervals.",
            limit_over_steps(found["fits"]),
            380,
        ),
    ]
    moved = found["problems"]
    lead = (
        f"Solved at least once at both ends: {moved['both']}; only at the end: {moved['gained']}; only at the start: "
        f"{moved['lost']}; at neither: {moved['neither']}."
    )
    return section("problems", "Which problems paid for it?", lead, grid(cards, "two"))


def _probes(run: Run, found: dict[str, Any]) -> str:
    steps = steps_of(run.probes)
    if len(steps) < 2:
        return ""
    own = trajectories(run.probes)
    legend = (
        f"{term('likeliest', 'blue', 'right one of its prompt at the start,')} "
        f"{term('other right', 'orange', 'ones,')} {term('wrong', 'grey', 'ones')}."
    )
    cards = [
        chart(
            "Log-probability since the start",
            f"{legend} Medians and middle halves. Squeezing: the likeliest gain what the other right ones lose.",
            probes_over_steps(own, steps),
            340,
        ),
        chart("Every trajectory", f"{legend} What was likely and fell far was squeezed out.", probes_moved(own), 340),
    ]
    lead = (
        f"{len(own)} completions of the initial policy, sampled before training, whose log-probability every "
        "evaluation measures again. Squeezed out: a tenth of its probability or less is left."
    )
    rows = readable(found["probes"])
    return section(
        "probes", "Where did the probability go?", lead, grid(cards, "two") + text_card("In figures", table(rows))
    )


def _samples(run: Run) -> str:
    if not run.samples:
        return ""
    stride = max(1, (len(run.samples) - 1) // (SAMPLES - 1)) if len(run.samples) > SAMPLES else 1
    chosen = [*run.samples[:-1:stride][: SAMPLES - 1], run.samples[-1]]
    lead = f"{len(chosen)} of the {len(run.samples)} completions in samples.jsonl, from the first to the last."
    return section("samples", "What it writes", lead, grid([_sample(row) for row in chosen]))


def _sample(row: dict[str, Any]) -> str:
    prompt = row["prompt"]
    if not isinstance(prompt, str):  # chat messages
        prompt = "\n\n".join(f"[{message['role']}] {message['content']}" for message in prompt)
    tone = "good" if row.get("correct") else "bad"
    chip = f"<span class='chip {tone}'>{'right' if row.get('correct') else 'wrong'} · reward {row.get('reward')}</span>"
    cut = "" if row.get("finished", True) else "<span class='chip muted'>cut</span>"
    problem = escape(str(row.get("problem", "")))
    return (
        f"<div class='card text'><h3>Step {row['step']}{chip}{cut}</h3><div class='label'>{problem}</div>"
        f"<pre>{escape(prompt)}</pre><div class='label'>completion</div><pre>{escape(row['completion'])}</pre></div>"
    )


def _settings(run: Run) -> str:
    changed = [{"setting": name, "value": str(value)} for name, value in departures(run.config).items()]
    everything = yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    held = [{"figure": name, "value": value} for name, value in steady(run).items()]
    glossary = [{"figure": name, "meaning": meaning} for name, meaning in METRICS.items()]
    content = (
        details(f"{len(changed)} settings that are not the preset's defaults", table(changed, prose=True))
        + details("All settings", f"<pre>{escape(everything)}</pre>")
        + details("Versions", table([{"what": k, "version": v} for k, v in run.versions.items()], prose=True))
        + (details("Logged figures that never changed", table(held, prose=True)) if held else "")
        + details("What every logged figure means", table(glossary, prose=True))
    )
    return section("settings", "Settings", "What made this run, and what its figures mean.", content)


def signed(share: float) -> str:
    """A share as points of a hundred with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def amount(number: float) -> str:
    """1,234,567 as 1.2 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Seconds in the largest units that matter."""
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.1f} s"
