"""`audit --reward-model FOLDER`: a sequence classifier as transformers saves it, and folders that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from written import audited, pair, run, write

from weightgate.data.records import Message
from weightgate.data.tokenizer import Tokenizer, train_tokenizer

TEXTS = [f"question {n}? an answer of {n} words, or none" for n in range(40)]
CONTEXT_TOKENS = 96


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 300)


def save(folder: Path, tokenizer: Tokenizer, kind: Any = LlamaForSequenceClassification, **more: Any) -> Any:
    """Save a tiny random network and the tokenizer as transformers would; return the network."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    positions = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": CONTEXT_TOKENS}
    model = kind(LlamaConfig(**sizes, **positions, pad_token_id=tokenizer.pad_id, **more)).eval()
    model.save_pretrained(folder)
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    return model


def votes(folder: Path, **more: Any) -> Path:
    rows = [pair(f"question {n}?", f"an answer of {n} words", "or none" + ", or none" * (n % 5)) for n in range(40)]
    return write(folder / "votes.jsonl", [*rows, *more.get("rows", [])])


def alone(model: Any, tokenizer: Tokenizer, prompt: str, answer: str) -> float:
    """The classifier's score of one conversation, without padding."""
    talk = [Message(role="user", content=prompt), Message(role="assistant", content=answer)]
    ids, _ = tokenizer.render_conversations([talk])[0]
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits[0, 0])


def test_a_folder_is_asked_as_transformers_would_score_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = save(tmp_path / "reward", tokenizer, num_labels=1)
    long = pair("question?", "words " * CONTEXT_TOKENS, "none")
    told = audited(votes(tmp_path, rows=[long]), "--reward-model", tmp_path / "reward")["reward_model"]
    sides = [
        alone(model, tokenizer, f"question {n}?", f"an answer of {n} words")
        > alone(model, tokenizer, f"question {n}?", "or none" + ", or none" * (n % 5))
        for n in range(40)
    ]
    assert 0 < sum(sides) < 40, "a model that always sides with one of them would prove nothing"
    assert told["agreement"]["value"] == pytest.approx(sum(sides) / 40)
    assert (told["agreement"]["n"], told["unasked"]) == (40, 1), "the pair that is too long is counted, not cut"
    assert {line["votes"]["pairs"] for line in told["lines"] if line["votes"]["driver"] == "length"} == {40}


def refused(folder: Path, reward: Path) -> str:
    result = run("audit", votes(folder), "--reward-model", reward, "--recipe", folder / "none.yaml")
    assert result.exit_code == 2
    return " ".join(result.output.split())


def test_folders_that_hold_no_reward_model_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save(tmp_path / "causal", tokenizer, LlamaForCausalLM)
    assert "no weights for score.weight" in refused(tmp_path, tmp_path / "causal"), "a random head must not judge"
    save(tmp_path / "labels", tokenizer, num_labels=3)
    assert "3 labels" in refused(tmp_path, tmp_path / "labels")
    (tmp_path / "empty").mkdir()
    assert "is no reward model" in refused(tmp_path, tmp_path / "empty")
    assert "no recipe" in refused(tmp_path, tmp_path / "missing")
    (tmp_path / "labels" / "config.json").write_text("{}")
    assert "cannot be loaded" in refused(tmp_path, tmp_path / "labels")


def test_a_model_that_no_pair_fits_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save(tmp_path / "reward", tokenizer, num_labels=1)
    rows = [pair(f"question {n}", "words " * CONTEXT_TOKENS, "none") for n in range(3)]
    result = run("audit", write(tmp_path / "long.jsonl", rows), "--reward-model", tmp_path / "reward")
    assert result.exit_code == 2
    assert "none of the pairs can be put to the reward model" in " ".join(result.output.split())
