"""The tiny policy: its tokenizer, that it learns, that it is the same for the same seed, and its cache."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sps import tiny
from sps.config import PolicySettings, TaskSettings
from sps.policy import Policy, collate, load_policy
from sps.records import Example, Verdict
from sps.tasks import load_task
from sps.tiny import build, character_tokenizer, pretrain, pretrained_tiny, worked_texts

SMALL = PolicySettings(model="tiny", precision="fp32", tiny_layers=1, tiny_width=32, tiny_steps=3)


@dataclass
class EitherWay:
    """ "ab=" is answered by "ba" or, as often, by "ab": two right solutions; a tenth of the pairs is held out."""

    name: str = "either way"
    vocabulary: str = "0123456789="
    terse: bool = True
    train: list[Example] = field(
        default_factory=lambda: [Example(f"{i}", f"{i:02d}=", f"{i:02d}") for i in range(100) if i % 10 != 7]
    )

    def examples(self, split: str) -> Sequence[Example]:
        return self.train if split == "train" else [Example(f"{i}", f"{i:02d}=", f"{i:02d}") for i in range(7, 100, 10)]

    def judge(self, completion: str, example: Example) -> Verdict:
        right = completion in (example.answer, example.answer[::-1])
        return Verdict(float(right), right, completion)

    def worked(self, example: Example, rng: random.Random) -> str:
        return str(example.answer[:: rng.choice([-1, 1])])


class Questions:
    """A task that cannot teach."""

    name = "questions"

    def examples(self, split: str) -> Sequence[Example]:
        return []

    def judge(self, completion: str, example: Example) -> Verdict:
        return Verdict(0.0, False)


def test_one_token_a_character_there_and_back(tmp_path: Path) -> None:
    tokenizer = character_tokenizer("01 +=\n<>é")
    text = "0 1+1=\n<é>  =="
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert len(ids) == 1 + len(text)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    specials = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    assert len(specials) == 4
    assert specials.isdisjoint(ids[1:])
    tokenizer.save_pretrained(tmp_path)
    build("01 +=\n<>é", 1, 16, 0)[0].save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(text).input_ids == ids
    assert loaded.decode(ids, skip_special_tokens=True) == text
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<bos>", "<eos>", "<pad>")


def test_unknown_characters_are_named(tmp_path: Path) -> None:
    policy = load_policy(SMALL, EitherWay(), 0, tmp_path)
    with pytest.raises(ValueError, match=r"does not know 'x' of the prompt '1x='"):
        policy.prompt_ids("1x=", TaskSettings())
    with pytest.raises(ValueError, match=r"'=' in '00=00' is not in the task's vocabulary"):
        load_policy(SMALL, EitherWay(vocabulary="0123456789", train=EitherWay().train[:1]), 0, tmp_path)


def test_it_learns_both_solutions_of_problems_it_never_saw() -> None:
    task = EitherWay()
    model, tokenizer = build(task.vocabulary, 2, 32, seed=0)
    pretrain(model, tokenizer, worked_texts(task, 250 * 64, seed=0), 250, seed=0)
    assert not model.training
    policy = Policy(model, tokenizer, 16)
    eos = tokenizer.eos_token_id
    for example in task.examples("test"):
        prompt = policy.prompt_ids(example.prompt, TaskSettings())
        texts = {example.answer, example.answer[::-1]}
        rows = [(prompt, [*tokenizer(text, add_special_tokens=False).input_ids, eos]) for text in texts]
        with torch.no_grad():
            logprobs = policy(*collate(rows, 0, "cpu"), 1.0, False).logprobs.view(len(texts), 3).sum(dim=1)
        assert logprobs.exp().sum() > 0.5  # untrained: about 0.0006
        assert logprobs.exp().min() > 0.02


def test_every_problem_is_worked_equally_often() -> None:
    texts = worked_texts(EitherWay(), 4 * 90 + 30, seed=1)
    counts = [sum(prompt == example.prompt for prompt, _ in texts) for example in EitherWay().train]
    assert set(counts) == {4, 5}
    assert sum(counts) == 390
    assert worked_texts(EitherWay(), 390, seed=1) == texts
    assert worked_texts(EitherWay(), 390, seed=2) != texts


def test_only_solutions_and_their_end_are_learnt() -> None:
    tokenizer = character_tokenizer("0123456789=")
    row = tiny._encode(tokenizer, "12=", "7")
    input_ids, labels = tiny._batch([row, tiny._encode(tokenizer, "1=", "")])
    assert tokenizer.convert_ids_to_tokens(input_ids[0].tolist()) == ["<bos>", "1", "2", "=", "7", "<eos>"]
    assert labels.tolist() == [
        [-100] * 4 + [*tokenizer("7", add_special_tokens=False).input_ids, tokenizer.eos_token_id],
        [-100] * 3 + [tokenizer.eos_token_id] + [-100] * 2,
    ]


def test_same_seed_same_weights_and_no_other_draws_disturbed(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = load_policy(SMALL, EitherWay(), 1, tmp_path / "a").state_dict()
    assert torch.equal(torch.rand(1), expected)
    again = load_policy(SMALL, EitherWay(), 1, tmp_path / "b").state_dict()
    other = load_policy(SMALL, EitherWay(), 2, tmp_path / "b").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_it_is_trained_once_and_anew_where_anything_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pretrained_tiny(SMALL, EitherWay(), 0, tmp_path)
    trained: list[int] = []
    monkeypatch.setattr(tiny, "pretrain", lambda *_: trained.append(1))
    assert pretrained_tiny(SMALL, EitherWay(), 0, tmp_path) == folder
    assert trained == []
    changed = EitherWay(train=[*EitherWay().train[:-1], Example("99", "99=", "98")])  # one answer of ninety
    for settings, task, seed in [
        (SMALL, EitherWay(), 1),
        (SMALL, changed, 0),
        (SMALL, EitherWay(vocabulary="0123456789=+"), 0),
        (SMALL.model_copy(update={"tiny_steps": 4}), EitherWay(), 0),
        (SMALL.model_copy(update={"tiny_width": 40}), EitherWay(), 0),
        (SMALL.model_copy(update={"tiny_layers": 2}), EitherWay(), 0),
    ]:
        before = len(trained)
        assert pretrained_tiny(settings, task, seed, tmp_path) != folder
        assert len(trained) == before + 1


def test_the_cache_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny.PreTrainedTokenizerFast, "save_pretrained", lambda _, folder: full_disk(folder))
    with pytest.raises(OSError, match="No space left"):
        pretrained_tiny(SMALL, EitherWay(), 0, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_the_first_wins_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = pretrained_tiny(SMALL, EitherWay(), 0, tmp_path / "other")
    target = tmp_path / "mine" / other.name

    def meanwhile(*_: object) -> None:
        other.rename(target)

    monkeypatch.setattr(tiny, "pretrain", meanwhile)  # and leaves this process's weights untrained
    trained = AutoModelForCausalLM.from_pretrained(other).state_dict()
    assert pretrained_tiny(SMALL, EitherWay(), 0, tmp_path / "mine") == target
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    found = AutoModelForCausalLM.from_pretrained(target).state_dict()
    assert all(torch.equal(found[name], trained[name]) for name in trained)


def test_what_tiny_cannot_do_is_said(tmp_path: Path) -> None:
    for task, settings, message in [
        (None, SMALL, "not none"),
        (Questions(), SMALL, "worked solutions.*not questions"),
        (EitherWay(terse=False), SMALL, "set task.style to terse"),
        (EitherWay(train=[]), SMALL, "either way has no training problems"),
        (EitherWay(train=[Example("0", [{"role": "user", "content": "1"}], "1")]), SMALL, "not chat messages"),
        (EitherWay(), SMALL.model_copy(update={"tiny_width": 20}), "multiple of 8"),
        (EitherWay(train=[Example("0", "1=", "1" * 600)]), SMALL, "longer than the tiny policy's 512"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_policy(settings, task, 0, tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_generated_tasks_can_be_learnt_from(name: str, level: int, tmp_path: Path) -> None:
    task = load_task(TaskSettings(name=name, style="terse", level=level, train_size=30, test_size=10))
    policy = load_policy(SMALL, task, 0, tmp_path)
    for example in task.examples("test"):
        ids = policy.prompt_ids(example.prompt, TaskSettings())
        assert policy.decode(ids) == example.prompt
