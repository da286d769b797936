"""The cross-encoder against sentence-transformers, and training that resumes exactly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from serm.config import RelevanceSettings
from serm.relevance.cross_encoder import CrossEncoder
from serm.relevance.examples import examples_of
from serm.relevance.loop import plan_batches
from serm.relevance.losses import label_losses
from serm.relevance.training import Plan, Trained, TrainingError, train
from serm.relevance.weights import resolve

QUERIES = ["red shoes", "x", "a much longer query about red shoes for running in the rain at night", "red shoes"]
TEXTS = ["Red running shoes", "word " * 200, "Blue hat", ""]
PLAN = Plan(
    epochs=2, batch_pairs=4, learning_rate=1e-3, weight_decay=0.01, warmup_share=0.1, evaluate_every=5, patience=99,
    checkpoint_every=3, seed=7,
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> RelevanceSettings:
    """Settings whose base is a tiny random BERT with MiniLM's tokenizer."""
    folder = tmp_path / "tiny"
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=30522
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("embedded:minilm")).save_pretrained(folder)
    return RelevanceSettings(base=str(folder), precision="fp32", max_tokens=32, batch_tokens=64, device="cpu")


def make_pairs(rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    words = np.array(["red", "blue", "shoes", "hat", "rain", "night", "run", "cheap", "warm"])
    return pl.DataFrame(
        {
            "query": [" ".join(rng.choice(words, 2)) for _ in range(rows)],
            "text": [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(rows)],
            "label": rng.integers(0, 3, rows),
            "weight": np.ones(rows),
        }
    )


def test_scores_equal_sentence_transformers_on_the_saved_folder(settings: RelevanceSettings, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder as Theirs

    ours = CrossEncoder.start(settings, [0, 1, 2], seed=3)
    ours.save(tmp_path / "saved")
    theirs = Theirs(str(tmp_path / "saved"), device="cpu")
    expected = theirs.predict(list(zip(QUERIES, TEXTS, strict=True)), apply_softmax=True)
    np.testing.assert_allclose(ours.probabilities(QUERIES, TEXTS), expected, atol=1e-5)


def test_batching_and_padding_change_no_score(settings: RelevanceSettings) -> None:
    model = CrossEncoder.start(settings, [0, 1], seed=3)
    together = model.probabilities(QUERIES, TEXTS)
    alone = np.concatenate([model.probabilities([q], [t]) for q, t in zip(QUERIES, TEXTS, strict=True)])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)


def test_judgments_differ_between_passes_and_repeat_with_the_seed(settings: RelevanceSettings) -> None:
    model = CrossEncoder.start(settings, [0, 1], seed=3)
    first = model.judgments(QUERIES, TEXTS, 4, seed=5)
    assert first.shape == (4, 4)
    assert (first.std(axis=1) > 0).all()
    np.testing.assert_array_equal(first, model.judgments(QUERIES, TEXTS, 4, seed=5))
    assert not np.array_equal(first, model.judgments(QUERIES, TEXTS, 4, seed=6))


def test_every_pair_is_seen_once_an_epoch() -> None:
    lengths = np.random.default_rng(0).integers(3, 50, 103)
    batches = plan_batches(lengths, PLAN)
    counts = np.bincount(np.concatenate(batches), minlength=103)
    assert (counts == 2).all()
    assert max(len(batch) for batch in batches) == 4
    assert plan_batches(lengths, PLAN) == batches


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_killed_run_resumes_to_the_same_weights(settings: RelevanceSettings, tmp_path: Path) -> None:
    pairs = make_pairs(40)  # 20 steps, dev after 5, 10, 15, 20; checkpoints after 3, 6, 9, ...

    def run(dies_at: int | None, checkpoint: Path) -> tuple[dict[str, torch.Tensor], Trained]:
        model = CrossEncoder.start(settings, [0, 1, 2], seed=3)
        calls = iter(range(1, 99))

        def dev() -> float:
            if next(calls) == dies_at:
                raise Killed
            return -float(model.network.classifier.weight.abs().sum())

        trained = train(model, pairs, PLAN, dev, checkpoint)
        return model.network.state_dict(), trained

    straight, expected = run(None, tmp_path / "a.pt")
    with pytest.raises(Killed):
        run(3, tmp_path / "b.pt")
    assert (tmp_path / "b.pt").exists()
    resumed, trained = run(None, tmp_path / "b.pt")
    assert trained == expected
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name


def test_training_learns_and_keeps_the_best_weights(settings: RelevanceSettings) -> None:
    pairs = make_pairs(60).with_columns(label=pl.col("text").str.contains("red").cast(pl.Int64))
    model = CrossEncoder.start(settings, [0, 1], seed=3)
    seen: list[dict[str, torch.Tensor]] = []
    values = iter([0.1, 0.9, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])

    def dev() -> float:
        seen.append({k: v.clone() for k, v in model.network.state_dict().items()})
        return next(values)

    plan = Plan(10, 8, 2e-3, 0.0, 0.1, 10, 2, 10**9, 0)
    trained = train(model, pairs, plan, dev)
    assert trained.best_step == 20
    assert trained.steps == 40  # two evaluations without a better one
    assert all(torch.equal(v, seen[1][k]) for k, v in model.network.state_dict().items())
    assert trained.loss[-1] < trained.loss[0]


def test_labels_off_the_scale_and_no_pairs_are_refused(settings: RelevanceSettings) -> None:
    model = CrossEncoder.start(settings, [0, 1], seed=3)
    with pytest.raises(TrainingError, match="off the scale"):
        train(model, make_pairs(20), PLAN)
    with pytest.raises(TrainingError, match="no pairs"):
        train(model, make_pairs(20).clear(), PLAN)


def test_a_loss_that_is_not_a_number_stops_the_run(settings: RelevanceSettings) -> None:
    model = CrossEncoder.start(settings, [0, 1, 2], seed=3)
    with torch.no_grad():
        model.network.classifier.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="nan"):
        train(model, make_pairs(20), PLAN)


def test_unknown_weights_are_named() -> None:
    with pytest.raises(ValueError, match="embedded:minilm"):
        resolve("embedded:nothing")
    with pytest.raises(ValueError, match=r"no config\.json"):
        resolve("./nowhere")


def test_the_loss_of_an_agreed_label_is_its_likelihood_under_the_confusion() -> None:
    confusion = np.array([[0.8, 0.2], [0.3, 0.7]])
    pairs = make_pairs(3).with_columns(label=pl.Series([1, 1, 0]), agreed=pl.Series([False, True, True]))
    targets, seen, _ = examples_of(pairs, [0, 1], confusion).tensors([0, 1, 2], torch.device("cpu"))
    model = torch.tensor([0.9, 0.1])  # Pr(y | q, d)
    losses = label_losses(model.log().expand(3, 2), targets, seen).numpy()
    np.testing.assert_allclose(losses[0], -np.log(0.1), rtol=1e-5)  # a person's label is certain
    np.testing.assert_allclose(losses[1], -np.log(0.9 * 0.2 + 0.1 * 0.7), rtol=1e-5)
    np.testing.assert_allclose(losses[2], -np.log(0.9 * 0.8 + 0.1 * 0.3), rtol=1e-5)


def test_human_labels_alone_train_as_cross_entropy_does(settings: RelevanceSettings) -> None:
    pairs = make_pairs(16).with_columns(label=pl.col("label") % 2, agreed=pl.lit(False))
    plan = Plan(1, 16, 1e-9, 0.0, 0.1, 10, 1, 10**9, 0)
    model = CrossEncoder.start(settings, [0, 1], seed=3)
    model.network.config.hidden_dropout_prob = 0.0
    for module in model.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    probabilities = model.probabilities(pairs["query"].to_list(), pairs["text"].to_list())
    expected = -np.log(probabilities[np.arange(16), pairs["label"].to_numpy()]).mean()
    assert train(model, pairs, plan, confusion=np.eye(2) * 0.6 + 0.2).loss[0] == pytest.approx(expected, rel=1e-4)


def test_with_the_ordinal_loss_near_misses_cost_less(settings: RelevanceSettings) -> None:
    """The loss of one step is the arithmetic on the model's own probabilities."""
    pairs = make_pairs(16)
    plan = Plan(1, 16, 1e-9, 0.0, 0.1, 10, 1, 10**9, 0)
    model = CrossEncoder.start(settings.model_copy(update={"ordinal_weight": 0.5}), [0, 1, 2], seed=3)
    for module in model.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    probabilities = model.probabilities(pairs["query"].to_list(), pairs["text"].to_list())
    labels = pairs["label"].to_numpy()
    truth = np.eye(3)[labels].cumsum(axis=1)
    squares = ((probabilities.cumsum(axis=1) - truth) ** 2)[:, :2].sum(axis=1) / 2
    expected = (-np.log(probabilities[np.arange(16), labels]) + 0.5 * squares).mean()
    assert train(model, pairs, plan).loss[0] == pytest.approx(expected, rel=1e-4)


def test_micro_batches_change_no_weight(settings: RelevanceSettings) -> None:
    found = []
    for tokens in (10**9, 40):
        model = CrossEncoder.start(settings, [0, 1, 2], seed=3)
        for module in model.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        train(model, make_pairs(24), replace(PLAN, micro_batch_tokens=tokens))
        found.append(model.network.state_dict())
    for name, weight in found[0].items():
        torch.testing.assert_close(weight, found[1][name], atol=2e-5, rtol=1e-3)
