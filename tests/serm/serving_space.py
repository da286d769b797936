"""A small workspace whose versions answer differently, and `serm serve` on it as a process, for tests."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import polars as pl
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from serm import registry
from serm.relevance.cross_encoder import CrossEncoder
from serm.relevance.weights import resolve
from serm.workspace import Workspace

SETTINGS = """
labels: {{scale: {scale}, names: {{}}}}
relevance: {{base: "{base}", precision: fp32, max_tokens: 48, device: cpu}}
serving: {{watch_seconds: 0.1}}
"""
ANSWERS = re.compile(r"answers at (http://\S+)/rerank")


def make(root: Path, scale: list[int], versions: tuple[str, ...] = ("one", "two"), hidden: int = 32) -> Workspace:
    """A workspace with these versions, drawn at random with large heads; the first is champion."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=hidden, num_hidden_layers=2, num_attention_heads=2, intermediate_size=2 * hidden,
        initializer_range=0.3,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(root / "tiny")
    AutoTokenizer.from_pretrained(resolve("embedded:minilm")).save_pretrained(root / "tiny")
    workspace = Workspace.create(root / "space", SETTINGS.format(base=root / "tiny", scale=scale))
    for number, version in enumerate(versions):
        model = CrossEncoder.start(workspace.config.relevance, scale, seed=number)
        registry.publish(workspace, version, model.save, {"round": number, "family": "cross_encoder"})
    registry.promote(workspace, versions[0], "the first")
    documents = [(f"d{i}", f"{colour} shoe number {i}") for i, colour in enumerate(["red", "blue", "green"] * 4)]
    workspace.append("documents", pl.DataFrame(documents, schema=["doc_id", "text"], orient="row"))
    return workspace


def direct(workspace: Workspace, version: str) -> CrossEncoder:
    """The version, loaded by transformers' own rules."""
    config = workspace.config
    return CrossEncoder(registry.folder(workspace, version), config.relevance, config.labels.scale)


@dataclass
class Running:
    """A server's process, its address, and what it has said."""

    process: "subprocess.Popen[str]"
    url: str = ""
    said: list[str] = field(default_factory=list)

    def health(self) -> dict[str, object]:
        """What /health says."""
        told: dict[str, object] = httpx.get(f"{self.url}/health").json()
        return told

    def end(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        _, rest = self.process.communicate(timeout=60)
        self.said.append(rest)
        return self.process.returncode


@contextmanager
def serving(workspace: Workspace, *sets: str, key: str | None = None) -> Iterator[Running]:
    """`serm serve` on a free port of this machine, until the block ends."""
    command = [sys.executable, "-m", "serm.cli", "serve", "--port", "0", "-w", workspace.root]
    command += [part for item in sets for part in ("--set", item)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"SERM_API_KEY": key} if key else {})
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    running = Running(process)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            running.said.append(line)
            if found := ANSWERS.search(line):
                running.url = found[1]
                break
        assert running.url, "".join(running.said)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
