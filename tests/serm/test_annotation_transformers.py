"""A transformers model in this process as an annotator: a small random Llama, its answers checked by a loop by hand."""

import asyncio
import json
import string
from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from serm.annotation.core import annotate_pairs
from serm.annotation.llm import ProviderError, Reply
from serm.annotation.local_transformers import TransformersLLM
from serm.annotation.verbs import configured_llms
from serm.config import AnnotationSettings, AnnotatorSettings, Config

LIMIT = 12
END = 1
MESSAGES = [{"role": "system", "content": "Grade."}, {"role": "user", "content": "whale 7?"}]
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One token a printable character, two layers of random weights, a chat template."""
    folder = tmp_path_factory.mktemp("llama")
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", *string.printable])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=4_096, bos_token_id=None, eos_token_id=END, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def annotator(folder: Path, temperature: float = 0.0) -> AnnotatorSettings:
    return AnnotatorSettings(name="local", provider="transformers", model=str(folder), temperature=temperature)


def ask(llm: TransformersLLM, key: str = "k", n: int = 1, path: str = "0") -> Reply:
    return asyncio.run(llm.complete(MESSAGES, n, key, {"annotator": "local", "path": path}))


def test_greedy_answers_are_the_most_likely_tokens(folder: Path) -> None:
    llm = TransformersLLM(annotator(folder), LIMIT)
    reply = ask(llm, n=3)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = "system: Grade.\nuser: whale 7?\nassistant: "
    ids = [tokenizer.convert_tokens_to_ids(character) for character in prompt]
    said: list[int] = []
    with torch.inference_mode():
        while len(said) < LIMIT and END not in said:
            said.append(int(model(torch.tensor([ids + said])).logits[0, -1].argmax()))
    finish = "stop" if said[-1] == END else "length"
    text = "".join(tokenizer.convert_ids_to_tokens([token for token in said if token > END]))
    assert [(answer.text, answer.finish_reason) for answer in reply.answers] == [(text, finish)] * 3
    assert reply.prompt_tokens == len(prompt)
    assert reply.completion_tokens == len(said)  # sampling nothing, it makes the answer once


def test_a_call_decides_its_answers_and_nothing_else_does(folder: Path) -> None:
    llm = TransformersLLM(annotator(folder, temperature=1.0), LIMIT)
    before = torch.get_rng_state()
    first = ask(llm, n=4)
    assert torch.equal(torch.get_rng_state(), before)
    others = [ask(llm, key="another"), ask(llm, path="4")]
    asyncio.run(llm.close())
    assert ask(llm, n=4) == first
    texts = {answer.text for answer in first.answers}
    assert len(texts) > 1
    assert not texts & {reply.answers[0].text for reply in others}


def test_a_prompt_that_does_not_fit_and_a_model_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ProviderError, match="do not fit into 4096") as long:
        ask(TransformersLLM(annotator(folder), 4_090))
    assert long.value.request_at_fault
    with pytest.raises(ProviderError, match="no such folder") as absent:
        ask(TransformersLLM(annotator(folder / "nowhere"), LIMIT))
    assert absent.value.fatal


def test_noise_is_no_label(folder: Path) -> None:
    """From configuration to table: what a random model says is unparseable or truncated, and a person's to judge."""
    config = Config(annotation=AnnotationSettings(annotators=[annotator(folder, temperature=1.0)], paths=3))
    config.annotation.max_completion_tokens = 16
    pairs = pl.DataFrame({"query": ["whale", "sea"], "doc_id": ["d1", "d2"]})
    documents = pl.DataFrame({"doc_id": ["d1", "d2"], "text": ["A whale.", "The sea."]})
    found = annotate_pairs(pairs, documents, configured_llms(config), config.annotation, config.labels.scale)
    assert found["status"].to_list() == ["review"] * 2
    outcomes = {path["outcome"] for votes in found["votes"] for path in json.loads(votes)["local"]["paths"]}
    assert outcomes <= {"unparseable", "truncated"}


def test_gguf_belongs_to_transformers() -> None:
    with pytest.raises(ValueError, match="gguf is read by provider transformers alone; vllm needs a saved folder"):
        AnnotatorSettings(name="a", provider="vllm", model="m", gguf="m.gguf")
