"""One function a format: write the model into a folder, load it with the format's own library, and score pairs.

Each returns f(q, d) as that library computes it, (n,), for `export` to compare.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serm.relevance.model import expected_label
from serm.relevance.stored import load_whole

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
EXAMPLE_SHAPE = (2, 16)  # of the pairs that the network is traced with; both are free afterwards

Writer = Callable[[Any, Path, list[str], list[str]], NDArray[np.float32]]


def huggingface(model: Any, folder: Path, queries: list[str], documents: list[str]) -> NDArray[np.float32]:
    """Weights, configuration and tokenizer, for AutoModelForSequenceClassification or AutoModelForCausalLM."""
    model.save(folder)
    again = load_whole(folder, model.settings, model.scale)
    return expected_label(again.probabilities(queries, documents), model.scale)


def sentence_transformers(model: Any, folder: Path, queries: list[str], documents: list[str]) -> NDArray[np.float32]:
    """A folder for CrossEncoder(path), whose predict and rank give f(q, d) itself, one number a pair.

    Behind the classifier stand two layers without training: a softmax over the labels, and the labels' values as
    weights (ours: CrossEncoder.rank refuses models with several outputs). Older releases, which do not know such
    layers, load the same folder as a classifier with |Y| logits.
    """
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense

    plain = folder / "plain"
    model.save(plain)
    labels = len(model.scale)
    softmax = Dense(
        labels, labels, bias=False, activation_function=torch.nn.Softmax(dim=1), init_weight=torch.eye(labels),
        module_input_name="scores",
    )  # fmt: skip
    values = torch.tensor([model.scale], dtype=torch.float32)
    expectation = Dense(
        labels, 1, bias=False, activation_function=torch.nn.Identity(), init_weight=values, module_input_name="scores"
    )
    network = CrossEncoder(str(plain), device="cpu")[0]
    whole = CrossEncoder(modules=[network, softmax, expectation], activation_fn=torch.nn.Identity(), device="cpu")
    whole.save_pretrained(str(folder), create_model_card=False)
    for path in plain.iterdir():
        path.unlink()
    plain.rmdir()
    loaded = CrossEncoder(str(folder), device="cpu")
    pairs = list(zip(queries, documents, strict=True))
    return np.asarray(loaded.predict(pairs, show_progress_bar=False), dtype=np.float32)


def onnx(model: Any, folder: Path, queries: list[str], documents: list[str]) -> NDArray[np.float32]:
    """model.onnx with outputs probabilities (B, |Y|) and score (B,), for any batch and length, and the tokenizer.

    Raises:
        ValueError: the extra is not installed.
    """
    if absent := [name for name in ONNX_PACKAGES if find_spec(name) is None]:
        raise ValueError(f"onnx needs the package {absent[0]}; install it with: pip install 'serm[onnx]'")
    import onnxruntime

    model.tokenizer.save_pretrained(folder)
    model.network.config.save_pretrained(folder)
    network = _WithScore(model.network, model.scale).eval()
    names = ["input_ids", "attention_mask"]
    if model.network.config.to_dict().get("type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    example = tuple(torch.ones(EXAMPLE_SHAPE, dtype=torch.long) for _ in names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own making; the scores are compared below
        torch.onnx.export(
            network, example, folder / "model.onnx", input_names=names, output_names=["probabilities", "score"],
            dynamic_shapes=tuple(shape for _ in names), dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    scores: list[NDArray[np.float32]] = []
    for start in range(0, len(queries), 5):  # batches of several sizes and lengths
        batch = model.tokenizer(
            queries[start : start + 5], documents[start : start + 5], truncation="longest_first", padding=True,
            max_length=model.settings.max_tokens, return_token_type_ids=True, return_tensors="np",
        )  # fmt: skip
        scores.append(session.run(["score"], {name: batch[name].astype(np.int64) for name in names})[0])
    return np.concatenate(scores)


class _WithScore(torch.nn.Module):
    """A classifier that ends in Pr(y | q, d) and f(q, d)."""

    def __init__(self, network: Any, scale: list[int]) -> None:
        super().__init__()
        self.network = network
        self.values: torch.Tensor
        self.register_buffer("values", torch.tensor(scale, dtype=torch.float32))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rest = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits = self.network(input_ids=input_ids, attention_mask=attention_mask, **rest).logits
        probabilities = torch.softmax(logits, dim=-1)
        return probabilities, probabilities @ self.values


WRITERS: dict[str, Writer] = {
    "huggingface": huggingface, "sentence-transformers": sentence_transformers, "onnx": onnx,
}  # fmt: skip
