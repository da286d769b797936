"""Rationales after the label, reasons before it, prompts through a chat template, and what no text can do."""

from pathlib import Path

import numpy as np
import pytest
import torch

from serm.config import RelevanceSettings
from serm.relevance.generative import GenerativeModel
from serm.relevance.prompts import PromptForm
from serm.relevance.reasoning import read_grade
from serm.relevance.writing import Written
from tests.serm import tiny_models
from tests.serm.test_generative_sharing import brute_force, softmax

SETTINGS = RelevanceSettings(
    family="generative", max_tokens=40, rationale_tokens=12, batch_tokens=9_000, device="cpu", precision="fp32"
)
QUERIES = ["red shoes", "red shoes", "", "hat"]
DOCUMENTS = ["Red running shoes", "", "nothing was asked", "A menu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with a chat template."""
    return tiny_models.save(tiny_models.network("llama"), tmp_path_factory.mktemp("llama"))


def greedy(model: GenerativeModel, ids: list[int], limit: int) -> list[int]:
    """The likeliest tokens after `ids`, one whole pass each, up to the end of the text."""
    start = len(ids)
    for _ in range(limit):
        with torch.inference_mode():
            token = int(model.network(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token == model.tokenizer.eos_token_id:
            break
        ids = [*ids, token]
    return ids[start:]


def test_a_rationale_is_the_likeliest_text_after_the_likeliest_label(folder: Path) -> None:
    model = GenerativeModel(folder, SETTINGS, [0, 1, 2])
    likeliest = model.probabilities(QUERIES, DOCUMENTS).argmax(axis=1)
    given = [0, 2, 1, 1]
    for columns, found in (
        (likeliest.tolist(), model.rationales(QUERIES, DOCUMENTS)),
        (given, model.rationales(QUERIES, DOCUMENTS, given)),
    ):
        prompts = model.prompts(QUERIES, DOCUMENTS)
        newline = model.tokenizer("\n", add_special_tokens=False).input_ids
        expected = [
            model.tokenizer.decode(greedy(model, [*prompt, *model.labels[column], *newline], 12)).strip()
            for prompt, column in zip(prompts, columns, strict=True)
        ]
        assert found == expected
    assert len(set(found)) > 1
    assert model.rationales([], []) == []


def test_a_reason_without_a_grade_has_one_drawn_after_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = GenerativeModel(folder, SETTINGS, [0, 1, 2])
    passes = 60
    with caplog.at_level("WARNING"):
        judged = model.reasoned(QUERIES[:2], DOCUMENTS[:2], passes, seed=4)
    assert judged.drawn.all()  # random bytes never spell "Grade: 1" at the beginning of a line
    assert "120 of 120 sampled judgments named no grade" in caplog.text
    assert set(np.unique(judged.grades)) <= {0.0, 1.0, 2.0}
    engine = model._engine()
    asked = [part.ids for part in model._reasoned_form.parts(QUERIES[:2], DOCUMENTS[:2])]
    texts = engine.write(asked, passes, 12, 1.0, 4)
    ask = model.tokenizer("\nGrade:", add_special_tokens=False).input_ids
    for row in range(2):
        likely = softmax(brute_force(model, [[*asked[row], *one.ids, *ask] for one in texts[row]]))
        few = judged.grades[row]
        frequency = np.array([(few == grade).mean() for grade in model.scale])
        error = np.sqrt((likely * (1 - likely)).sum(axis=0)) / passes
        assert (np.abs(frequency - likely.mean(axis=0)) <= 4.5 * error + 1e-3).all()
    again = model.reasoned(QUERIES[:2], DOCUMENTS[:2], passes, seed=4)
    np.testing.assert_array_equal(again.grades, judged.grades)
    assert again.reasons == judged.reasons
    assert model.reasoned(QUERIES[:2], DOCUMENTS[:2], passes, seed=5).reasons != judged.reasons


def test_a_grade_that_was_written_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS.model_copy(update={"sampled_judgments": "reason"})
    model = GenerativeModel(folder, settings, [0, 1, 2])
    texts = ["It fits.\nGrade: 2\nQuery: another\nGrade: 0", "Hardly. Grade: 1", "grade:0"]

    class Writes:
        label_logs = model._engine().label_logs

        def write(self, prompts: list[list[int]], *_: object) -> list[list[Written]]:
            return [[Written(model.tokenizer(text).input_ids, text, True) for text in texts] for _ in prompts]

    monkeypatch.setattr(model, "_engine", Writes)
    judged = model.reasoned(QUERIES, DOCUMENTS, 3, seed=0)
    assert judged.grades[:, 0].tolist() == [2.0] * 4
    assert judged.grades[:, 2].tolist() == [0.0] * 4
    assert judged.drawn.tolist() == [[False, True, False]] * 4
    assert judged.reasons[0] == ["It fits.", "Hardly. Grade: 1", ""]
    np.testing.assert_array_equal(model.judgments(QUERIES, DOCUMENTS, 3, seed=0), judged.grades)


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Good.\nGrade: 3", 3), ("Grade:2", 2), ("  grade :  1 \nmore", 1), ("Good.\nGrade: 3.", 3),
        ("", None), ("3", None), ("Good. Grade: 3", None), ("Grade: 7", None), ("Grade: 2-3", None),
        ("Grade: 2.5", None), ("Grade: 2/3", None), ("Grade: 2,3", None), ("Grade: two", None), ("Grade:\n2", None),
        ("Grade: 99999999999999999999", None), ("Grade: 3 or 2", 3), ("Grade: 31", None),
        ("Grade: -1", None),
    ],
)  # fmt: skip
def test_a_grade_is_a_line_of_its_own(text: str, grade: int | None) -> None:
    assert read_grade(text, [0, 1, 2, 3])[1] == grade


def test_a_chat_template_frames_the_prompt(folder: Path) -> None:
    model = GenerativeModel(folder, SETTINGS.model_copy(update={"chat_template": True}), [0, 1, 2])
    prompt = model.prompts(["red <s> shoes"], ["Running <s> shoes"])[0]
    message = (
        "Judge how well a document answers a search query.\n\nQuery: red <s> shoes\nDocument: Running <s> shoes\n\n"
        "Grade of the document, from 0 (worst) to 2 (best):"
    )
    assert model.tokenizer.decode(prompt) == f"<s>user: {message}\n<s>assistant: Grade:"
    assert prompt.count(0) == 2  # the texts' own <s> are letters
    whole = softmax(brute_force(model, model.prompts(QUERIES, DOCUMENTS)))
    np.testing.assert_allclose(model.probabilities(QUERIES, DOCUMENTS), whole, atol=1e-4)
    model.tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        PromptForm(model.tokenizer, model.settings, [0, 1], reasoned=False)
    model.tokenizer.chat_template = "{{ messages[0]['content'] | upper }}"
    with pytest.raises(ValueError, match="changes its messages"):
        PromptForm(model.tokenizer, model.settings, [0, 1], reasoned=False)


def test_instructions_are_the_users(folder: Path) -> None:
    model = GenerativeModel(folder, SETTINGS.model_copy(update={"instructions": "Beurteile streng."}), [0, 1])
    assert model.tokenizer.decode(model.prompts(["q"], ["d"])[0]).startswith("Beurteile streng.\n\nQuery: q\n")
