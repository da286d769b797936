"""A run's page, report.html: what it gained and lost, and how; one file that needs no network."""

from html import escape
from pathlib import Path
from typing import Any

import yaml

from sps.analyze import analyze_run
from sps.arms import departures
from sps.metrics import METRICS
from sps.page import details, document, grid, section, table, tile
from sps.report_outcome import passk_section, probes_section, problems_section
from sps.report_training import other_charts, steady, training_sections
from sps.runs import Run, read_run
from sps.words import amount, duration, signed

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
        passk_section(run, found),
        *training_sections(run),
        problems_section(run, found),
        probes_section(run, found),
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
    held = [{"figure": name, "value": f"{value:g}"} for name, value in steady(run).items()]
    glossary = [{"figure": name, "meaning": meaning} for name, meaning in METRICS.items()]
    content = (
        details(f"{len(changed)} settings that are not the preset's defaults", table(changed, prose=True))
        + details("All settings", f"<pre>{escape(everything)}</pre>")
        + details("Versions", table([{"what": k, "version": v} for k, v in run.versions.items()], prose=True))
        + (details("Logged figures that never changed", table(held, prose=True)) if held else "")
        + details("What every logged figure means", table(glossary, prose=True))
    )
    return section("settings", "Settings", "What made this run, and what its figures mean.", content)
