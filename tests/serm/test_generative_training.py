"""Training a generative model: its loss in float64 one token at a time, and gradients however a step is cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from serm.config import RelevanceSettings, UpdateSettings
from serm.evolution.mixture import mix
from serm.relevance.examples import examples_of
from serm.relevance.generative import GenerativeModel
from serm.relevance.generative_training import LabelsAndRationales, trainable
from serm.relevance.loop import Objective, micro_batches
from serm.relevance.pretraining import Blocks, pack, pretrain
from serm.relevance.training import Plan, TrainingError, train
from sps.config import LoraSettings
from tests.serm.tiny_generative import llama

SETTINGS = RelevanceSettings(
    family="generative", max_tokens=60, device="cpu", precision="fp32", rationale_weight=0.5, rationale_tokens=12
)
PAIRS = pl.DataFrame(
    {
        "query": ["red shoes", "blue", "hat", "red hat for the rain", "x"],
        "text": ["Red running shoes", "Blue hat", "Hat", "coat", "d" * 50],
        "label": [10, 0, 5, 0, 12],
        "weight": [1.0, 2.0, 0.5, 1.0, 3.0],
        "agreed": [True, True, False, True, True],
        "posterior": [[0.1, 0.2, 0.6, 0.1], None, None, None, [0.0, 0.0, 0.0, 1.0]],
        "rationale": ["same colour", None, "it is a hat", "", "far too long to be kept whole"],
    }
)
SCALE = [0, 5, 10, 12]  # " 0" and " 5" are two tokens, " 10" and " 12" three with another beginning
CONFUSION = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.1, 0.1, 0.6, 0.2], [0.1, 0.1, 0.1, 0.7]])
PLAN = Plan(
    epochs=3, batch_pairs=4, learning_rate=3e-3, weight_decay=0.01, warmup_share=0.1, evaluate_every=5, patience=99,
    checkpoint_every=2, seed=7, micro_batch_tokens=600,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))


def plain(run: Callable[[], Any]) -> Callable[[], Any]:
    return run


def objective(folder: Path, pairs: pl.DataFrame = PAIRS, **settings: Any) -> LabelsAndRationales:
    model = GenerativeModel(folder, SETTINGS.model_copy(update=settings), SCALE)
    return LabelsAndRationales(model, examples_of(pairs, SCALE, CONFUSION), plain)


def loss_and_gradient(objective: Objective, rows: list[int], tokens: int) -> tuple[float, np.ndarray]:
    objective.network.zero_grad()
    total, weight = 0.0, torch.tensor(objective.weight(rows), dtype=torch.float32).clamp_min(1e-9)
    for part in micro_batches(rows, objective.lengths, tokens):
        loss = (objective.sums(part) / weight).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total, np.concatenate([p.grad.flatten().double().numpy() for p in objective.network.parameters()])


def token_log_probability(network: torch.nn.Module, prompt: list[int], tokens: list[int]) -> float:
    """log Pr of `tokens` after `prompt`: float64, token after token, nothing padded."""
    total, ids = 0.0, list(prompt)
    for token in tokens:
        with torch.inference_mode():
            logits = network(input_ids=torch.tensor([ids])).logits[0, -1]
        total += float(torch.log_softmax(logits, dim=-1)[token])
        ids.append(token)
    return total


@pytest.mark.parametrize(("mass_weight", "ordinal_weight"), [(1.0, 0.0), (0.0, 0.7), (0.3, 0.2)])
def test_the_loss_equals_arithmetic_one_token_at_a_time(
    folder: Path, mass_weight: float, ordinal_weight: float
) -> None:
    trained = objective(folder, label_mass_weight=mass_weight, ordinal_weight=ordinal_weight)
    found, _ = loss_and_gradient(trained, list(range(5)), 10**9)
    model = GenerativeModel(folder, SETTINGS, SCALE)
    network = model.network.double()
    end = model.tokenizer.eos_token_id
    label_losses, rationale_losses, rationale_weights = [], [], []
    for row in PAIRS.iter_rows(named=True):
        (prompt,) = model.prompts([row["query"]], [row["text"]])
        logs = np.array([token_log_probability(network, prompt, label) for label in model.labels])
        mass = np.exp(logs).sum()
        chances = np.exp(logs) / mass
        place = SCALE.index(row["label"])
        if row["posterior"] is not None:
            target = np.array(row["posterior"])
            loss = -(target * np.log(chances)).sum()
        elif row["agreed"]:
            target = CONFUSION[:, place] / CONFUSION[:, place].sum()
            loss = -np.log((chances * CONFUSION[:, place]).sum())
        else:
            target = np.eye(4)[place]
            loss = -np.log(chances[place])
        gaps = np.array([5, 5, 2]) / 12
        emd = (gaps * (chances.cumsum() - target.cumsum())[:-1] ** 2).sum()
        label_losses.append(row["weight"] * (loss - mass_weight * np.log(mass) + ordinal_weight * emd))
        if row["rationale"]:
            tail = list(model.tokenizer("\n" + row["rationale"][:12]).input_ids)  # a byte is a token
            tail += [end] if len(row["rationale"]) <= 12 else []
            rationale_losses.append(-row["weight"] * token_log_probability(network, prompt + model.labels[place], tail))
            rationale_weights.append(row["weight"] * len(tail))
    expected = sum(label_losses) / 7.5 + 0.5 * sum(rationale_losses) / sum(rationale_weights)
    assert found == pytest.approx(expected, rel=1e-5)


def test_at_mass_weight_one_a_hard_label_costs_its_next_token_loss(folder: Path) -> None:
    pairs = PAIRS.drop("posterior", "rationale").with_columns(agreed=pl.lit(False))
    found, _ = loss_and_gradient(objective(folder, pairs), list(range(5)), 10**9)
    model = GenerativeModel(folder, SETTINGS, SCALE)
    prompts = model.prompts(pairs["query"].to_list(), pairs["text"].to_list())
    network = model.network.double()
    logs = [
        token_log_probability(network, prompt, model.labels[SCALE.index(label)])
        for prompt, label in zip(prompts, pairs["label"], strict=True)
    ]
    assert found == pytest.approx(-np.average(logs, weights=pairs["weight"]), rel=1e-5)


def test_the_gradient_is_the_same_however_the_step_is_cut(folder: Path) -> None:
    trained = objective(folder)
    rows = [3, 0, 4, 2, 1]
    whole_loss, whole = loss_and_gradient(trained, rows, 10**9)
    assert len(list(micro_batches(rows, trained.lengths, 10**9))) == 1
    for tokens in (1, 300, 450):
        cut = list(micro_batches(rows, trained.lengths, tokens))
        assert [row for part in cut for row in part] == rows
        assert all(len(part) == 1 or max(trained.lengths[part]) * len(part) <= tokens for part in cut)
        loss, gradient = loss_and_gradient(trained, rows, tokens)
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        np.testing.assert_allclose(gradient, whole, atol=1e-5 * np.abs(whole).max())


def test_a_one_hot_posterior_trains_as_the_label_does(folder: Path) -> None:
    hard = PAIRS.with_columns(agreed=pl.lit(False), posterior=pl.lit(None, pl.List(pl.Float64)))
    one_hot = [np.eye(4)[SCALE.index(label)].tolist() for label in PAIRS["label"]]
    soft = PAIRS.with_columns(posterior=pl.Series(one_hot))
    expected_loss, expected = loss_and_gradient(objective(folder, hard), list(range(5)), 10**9)
    loss, gradient = loss_and_gradient(objective(folder, soft), list(range(5)), 10**9)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    np.testing.assert_allclose(gradient, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4, alpha=8)])
def test_training_learns_labels_and_rationales(folder: Path, tmp_path: Path, lora: LoraSettings | None) -> None:
    """With all weights, and with adapters that are merged into a plain folder."""
    settings = SETTINGS.model_copy(update={"lora": lora, "gradient_checkpointing": lora is not None})
    model = GenerativeModel(folder, settings, [0, 1])
    colours = ["red", "blue"]
    pairs = pl.DataFrame(
        [
            (f"{q} {i}", f"{d} thing", int(q == d), 1.0, "same" if q == d else "other")
            for q in colours for d in colours for i in range(4)
        ],
        schema=["query", "text", "label", "weight", "rationale"], orient="row",
    )  # fmt: skip
    before = {name: weight.clone() for name, weight in model.network.state_dict().items()}
    plan = Plan(25, 16, 1e-2, 0.0, 0.1, 5, 99, 10**9, 0)
    trained = train(model, pairs, plan)
    assert trained.loss[-1] < 0.2 * trained.loss[0]
    probabilities = model.probabilities(pairs["query"].to_list(), pairs["text"].to_list())
    assert ((probabilities[:, 1] > 0.5) == (pairs["label"] == 1).to_numpy()).all()
    assert set(model.network.state_dict()) == set(before)
    embedded = "model.embed_tokens.weight"
    assert torch.equal(model.network.state_dict()[embedded], before[embedded]) == (lora is not None)
    model.save(tmp_path / "saved")
    again = GenerativeModel(tmp_path / "saved", settings, [0, 1])
    np.testing.assert_allclose(
        again.probabilities(pairs["query"].to_list(), pairs["text"].to_list()), probabilities, atol=1e-5
    )
    if lora is not None:
        return  # random frozen weights do not learn to spell
    (prompt,) = again.prompts(["red 1"], ["red thing"])
    ids = torch.tensor([prompt])
    written = again.network.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, len(prompt) :]
    assert again.tokenizer.decode(written, skip_special_tokens=True) == " 1\nsame"


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_a_killed_run_resumes_to_the_same_weights(folder: Path, tmp_path: Path, lora: LoraSettings | None) -> None:
    pairs = pl.concat([PAIRS] * 6)  # 23 steps, dev after every fifth

    def run(dies_at: int | None, checkpoint: Path) -> tuple[dict[str, torch.Tensor], Any]:
        model = GenerativeModel(folder, SETTINGS.model_copy(update={"lora": lora}), SCALE)
        calls = iter(range(1, 99))

        def dev() -> float:
            if next(calls) == dies_at:
                raise Killed
            return float(model.probabilities(["red shoes"], ["Red running shoes"])[0, 2])

        trained = train(model, pairs, PLAN, dev, checkpoint, CONFUSION)
        return model.network.state_dict(), trained

    straight, expected = run(None, tmp_path / "a.pt")
    with pytest.raises(Killed):
        run(3, tmp_path / "b.pt")
    resumed, trained = run(None, tmp_path / "b.pt")
    assert trained == expected
    assert all(torch.equal(weight, resumed[name]) for name, weight in straight.items())
    finished, again = run(1, tmp_path / "b.pt")  # nothing is left to do: dev is not asked
    assert again == expected
    assert all(torch.equal(weight, finished[name]) for name, weight in straight.items())


def test_a_truncated_checkpoint_begins_anew_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(checkpoint: Path) -> dict[str, torch.Tensor]:
        model = GenerativeModel(folder, SETTINGS, SCALE)
        train(model, PAIRS, PLAN, None, checkpoint)
        weights: dict[str, torch.Tensor] = model.network.state_dict()
        return weights

    straight = run(tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a checkpoint"):
        (tmp_path / "b.pt").write_bytes(damaged)
        again = run(tmp_path / "b.pt")
        assert "b.pt cannot be read" in capsys.readouterr().err
        assert all(torch.equal(weight, again[name]) for name, weight in straight.items())


def test_unusable_pairs_are_named(folder: Path) -> None:
    model = GenerativeModel(folder, SETTINGS, SCALE)
    for pairs, message in (
        (PAIRS.with_columns(label=pl.lit(7)), r"off the scale \[0, 5, 10, 12\]: \[7\]"),
        (PAIRS.with_columns(label=pl.lit(None, pl.Int64)), r"off the scale .* \[None\]"),
        (PAIRS.clear(), "no pairs"),
        (PAIRS.with_columns(weight=pl.lit(0.0)), "weights of all pairs are 0"),
        (PAIRS.with_columns(weight=pl.lit(float("nan"))), "weight nan of query 'red shoes'"),
        (PAIRS.with_columns(weight=pl.lit(-1.0)), r"weight -1\.0 of query 'red shoes'"),
        (PAIRS.with_columns(posterior=pl.lit([0.5, 0.5])), "no distribution over 4 labels"),
        (PAIRS.with_columns(posterior=pl.lit([0.5, 0.5, 0.5, 0.5])), "no distribution over 4 labels"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(model, pairs, PLAN)
    with torch.no_grad():
        model.network.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="nan at step 0; lower the learning rate"):
        train(model, PAIRS, PLAN)


def test_blocks_hold_every_token_of_every_text_in_a_drawn_order(folder: Path) -> None:
    model = GenerativeModel(folder, SETTINGS, SCALE)
    texts = [f"text {i}" for i in range(50)]
    blocks = pack(model, texts, 16, seed=3)
    read = model.tokenizer.decode(blocks.flatten().tolist())
    pieces = read.split("<s>")
    assert set(pieces[:-1]) <= set(texts)
    assert len(pieces) - 1 == len(set(pieces[:-1]))
    assert sum(len(text) + 1 for text in texts) - blocks.size in range(16)
    assert not np.array_equal(blocks, pack(model, texts, 16, seed=4))
    with pytest.raises(TrainingError, match="2 texts have 14 tokens, not one block"):
        pack(model, ["text 1", "text 2"], 16, seed=0)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_pretraining_lowers_the_loss_that_transformers_computes(folder: Path, lora: LoraSettings | None) -> None:
    settings = SETTINGS.model_copy(update={"pretrain_tokens": 32, "lora": lora})
    model = GenerativeModel(folder, settings, SCALE)
    texts = ["red shoes and blue hats"] * 20
    blocks = pack(model, texts, 32, seed=0)
    ids = torch.from_numpy(blocks.astype(np.int64))
    with torch.inference_mode():
        before = model.network(input_ids=ids, labels=ids).loss.item()
    with trainable(model, 0) as precision:
        found = Blocks(model, blocks, precision)
        rows = list(range(len(blocks)))
        assert found.sums(rows).item() / found.weight(rows).item() == pytest.approx(before, rel=1e-4)
    pretrain(model, texts, Plan(4, 2, 1e-2, 0.0, 0.1, 5, 1, 10**9, 0))
    with torch.inference_mode():
        assert model.network(input_ids=ids, labels=ids).loss.item() < 0.7 * before


def test_replay_keeps_what_was_learnt_before(folder: Path) -> None:
    """With the old pairs in the mixture what they taught stays; without them it fades."""

    def task(words: list[str]) -> pl.DataFrame:
        rows = [(q, d, int(q == d)) for q in words for d in words]
        return pl.DataFrame(rows, schema=["query", "text", "label"], orient="row")

    old, new = task(["red", "blue"]), task(["ab", "xy"])
    plan = Plan(30, 4, 2e-3, 0.0, 0.1, 99, 1, 10**9, 0)
    kept = {}
    for share in (1.0, 0.5):
        model = GenerativeModel(folder, SETTINGS, [0, 1])
        train(model, old.with_columns(weight=pl.lit(1.0)), plan)
        mixture = UpdateSettings(new_share=share, earlier_share=0, original_share=0.5, epochs=30)
        pairs = mix(new, new.clear(), old, mixture, seed=0)
        train(model, pairs, Plan(1, 4, 2e-3, 0.0, 0.1, 99, 1, 10**9, 0))
        right = []
        for known in (old, new):
            probabilities = model.probabilities(known["query"].to_list(), known["text"].to_list())
            right.append(probabilities[np.arange(4), known["label"].to_numpy()].mean())
        kept[share] = right
    assert kept[0.5][0] > kept[1.0][0] + 0.1  # old skill
    assert min(kept[0.5][1], kept[1.0][1]) > 0.7  # the new one was learnt in both
