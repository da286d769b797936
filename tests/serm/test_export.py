"""Exports: loaded by their own libraries they score as the version does, and nothing half-written is ever in place."""

import json
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from serm import registry
from serm.relevance.model import expected_label
from serm.serving import export as export_module
from serm.serving.export import export
from serm.workspace import Workspace
from tests.serm.serving_space import direct, make
from tests.serm.tiny_generative import llama

SCALE = [0, 1, 3]
QUERIES = ["red shoe"] * 4 + ["été"] * 3
DOCUMENTS = ["Red shoe", "", "word " * 500, "blue hat", "靴", "shoe " * 20, "x"]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make(tmp_path_factory.mktemp("export"), SCALE, ("one", "two", "broken"))


@pytest.fixture(scope="module")
def want(space: Workspace) -> np.ndarray:
    """Pr(y | q, d) of the pairs by the champion."""
    return direct(space, "one").probabilities(QUERIES, DOCUMENTS)


def test_a_hugging_face_folder_holds_the_label_distribution(space: Workspace, want: np.ndarray) -> None:
    summary = export(space, "huggingface")
    network = AutoModelForSequenceClassification.from_pretrained(summary.out)
    tokenizer = AutoTokenizer.from_pretrained(summary.out)
    batch = tokenizer(QUERIES, DOCUMENTS, padding=True, truncation="longest_first", return_tensors="pt")
    with torch.inference_mode():
        found = network(**batch).logits.softmax(dim=-1).numpy()
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert network.config.label_scale == SCALE
    assert json.loads((Path(summary.out) / "serm.json").read_text())["version"] == "one"
    with pytest.raises(ValueError, match="already there"):
        export(space, "huggingface")


def test_sentence_transformers_predicts_and_ranks_by_the_expected_label(space: Workspace, want: np.ndarray) -> None:
    from sentence_transformers import CrossEncoder

    summary = export(space, "sentence-transformers")
    theirs = CrossEncoder(summary.out, device="cpu")
    expected = expected_label(want, SCALE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = theirs.predict(list(zip(QUERIES, DOCUMENTS, strict=True)))
        ranks = theirs.rank("red shoe", DOCUMENTS[:4])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert theirs.num_labels == 1
    assert [rank["corpus_id"] for rank in ranks] == np.argsort(-expected[:4]).tolist()


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs serm[onnx]")
def test_onnx_scores_any_batch_and_length(space: Workspace, want: np.ndarray, tmp_path: Path) -> None:
    import onnxruntime

    summary = export(space, "onnx", "one", tmp_path / "onnx")
    assert summary.largest_difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "onnx")
    for rows in (slice(0, 1), slice(0, 7), slice(3, 6)):
        batch = tokenizer(
            QUERIES[rows], DOCUMENTS[rows], padding=True, truncation="longest_first", return_tensors="np"
        )  # fmt: skip
        probabilities, score = session.run(["probabilities", "score"], dict(batch))
        np.testing.assert_allclose(probabilities, want[rows], atol=1e-4)
        np.testing.assert_allclose(score, expected_label(want[rows], SCALE), atol=1e-4)


def test_a_generative_model_goes_out_as_a_hugging_face_folder(space: Workspace, tmp_path: Path) -> None:
    from serm.relevance.generative import GenerativeModel

    settings = space.config.relevance.model_copy(
        update={"base": str(llama(tmp_path / "llama")), "family": "generative"}
    )
    model = GenerativeModel.start(settings, SCALE, 0)
    registry.publish(space, "writer", model.save, {"round": 0, "family": "generative"})
    summary = export(space, "huggingface", "writer", tmp_path / "out")
    theirs, ours = AutoModelForCausalLM.from_pretrained(summary.out), model.network
    for name, weight in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], weight)
    for format in ("onnx", "sentence-transformers"):
        with pytest.raises(ValueError, match="serm distill writer"):
            export(space, format, "writer", tmp_path / "never")


def test_scores_that_differ_and_broken_versions_leave_nothing(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*of: object) -> np.ndarray:
        return writer(*of) + 0.01  # type: ignore[arg-type]

    writer = export_module.formats.WRITERS["huggingface"]
    monkeypatch.setitem(export_module.formats.WRITERS, "huggingface", wrong)
    with pytest.raises(ValueError, match=r"scores differ by 0\.01"):
        export(space, "huggingface", "two", tmp_path / "out")
    weights = registry.folder(space, "broken") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:9_000])
    with pytest.raises(ValueError, match="broken"):
        export(space, "huggingface", "broken", tmp_path / "out")
    assert not list(tmp_path.iterdir())
