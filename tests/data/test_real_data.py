"""Real data sets through the whole room; skipped where they are not on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from weightgate.contract.census import census_problems
from weightgate.data.packing import PairLoader, TokenLoader
from weightgate.data.prepare import prepare_conversations, prepare_documents, prepare_preferences, prepare_prompts
from weightgate.data.sources import read_conversations, read_preferences
from weightgate.errors import DataError
from weightgate.recipe import Source

SHAKESPEARE, WIKITEXT = "text/tinyshakespeare.txt", "text/wikitext2_valid.txt"
ALPACA, GSM8K = "instruct/alpaca_5000.jsonl", "instruct/gsm8k_train.jsonl"
HARMLESS = "preferences/hh_harmless_base_test.jsonl.gz"


def test_plain_text_becomes_full_rows(real_data: Path, request_for, tokenizer) -> None:
    prepared = prepare_documents(request_for(SHAKESPEARE, WIKITEXT, root=real_data, context=128, holdout=0.02))
    assert census_problems(prepared.census) == []
    assert prepared.train.domain_names == ("tinyshakespeare", "wikitext2_valid")
    loader = TokenLoader(rows=prepared.train, context=128, batch=32, seed=0, packing=True, pad_id=tokenizer.pad_id)
    batch = loader.batch(0)
    assert (batch.document_ids > 0).float().mean() > 0.98
    characters = sum((real_data / name).stat().st_size for name in (SHAKESPEARE, WIKITEXT))
    assert 0.9 * characters < prepared.train.num_bytes.sum() + prepared.holdout.num_bytes.sum() <= characters


@pytest.mark.parametrize(("name", "unusable", "records"), [(ALPACA, 2, 5000), (GSM8K, 0, 2000)])
def test_instructions_are_supervised_on_answers_alone(
    real_data: Path, request_for, name: str, unusable: int, records: int
) -> None:
    request = request_for(name, root=real_data, context=1024, holdout=0.02)
    prepared = prepare_conversations(replace(request, sources=[Source(path=name, limit=records)]))
    census = prepared.census
    assert census_problems(census) == []
    assert census.unusable == unusable
    assert census.records + len(prepared.holdout) + census.duplicates_removed + unusable == records
    assert 0.2 < census.share_supervised < 0.9


def test_alpaca_has_an_answer_missing_and_says_where(real_data: Path) -> None:
    with pytest.raises(DataError, match="answer is empty") as caught:
        list(read_conversations([Source(path=ALPACA)], real_data))
    assert str(caught.value.where).startswith(f"{ALPACA}:")


def test_dialogue_pairs_are_taken_apart(real_data: Path, request_for) -> None:
    request = request_for(HARMLESS, root=real_data, context=4096, holdout=0.02)
    prepared = prepare_preferences(request)
    census = prepared.census
    assert census_problems(census) == []
    assert census.unusable == 9  # four empty answers, five dialogues that part early
    assert len(prepared.train) > 0.9 * 2312
    batch = PairLoader(rows=prepared.train, batch=8, seed=0, pad_id=0).batch(0)
    assert (batch.chosen_mask.sum(1) > batch.prompt_lengths).all()
    assert len(prepare_prompts(request).train) > 0.9 * 2312


def test_preferences_name_the_first_pair_that_cannot_be_used(real_data: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(read_preferences([Source(path=HARMLESS)], real_data))
    assert str(caught.value.where).startswith(f"{HARMLESS}:")
