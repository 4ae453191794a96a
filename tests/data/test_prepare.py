"""Preparation: split, census, cache, and memory that does not grow with the corpus."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from weightgate.data import hub, prepare, writing
from weightgate.data.prepare import (
    cache_key,
    prepare_conversations,
    prepare_documents,
    prepare_preferences,
    prepare_prompts,
    training_texts,
)
from weightgate.data.rows import RowWriter, TokenRows
from weightgate.data.template import BUILTIN_TEMPLATE, TemplateError
from weightgate.errors import CorruptError, DataError, StoreError
from weightgate.recipe import Source
from weightgate.store.fs import host_name


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_documents(path: Path, num: int) -> None:
    write_jsonl(path, [{"text": f"the fox number {i} is lazy"} for i in range(num)])


def texts_of(rows: TokenRows, tokenizer) -> list[str]:
    return [tokenizer.decode(rows.sample(index)[0].tolist(), False) for index in range(len(rows))]


def test_documents_are_split_framed_and_counted(tmp_path: Path, request_for, tokenizer) -> None:
    write_documents(tmp_path / "a.jsonl", 100)
    (tmp_path / "b.txt").write_text("the fox number 3 is lazy\n\nand a paragraph\n")
    prepared = prepare_documents(request_for("a.jsonl", "b.txt"))
    train, holdout = texts_of(prepared.train, tokenizer), texts_of(prepared.holdout, tokenizer)
    assert len(train) + len(holdout) == 101
    assert not set(train) & set(holdout)
    assert all(text.startswith("<|bos|>") and text.endswith("<|eos|>") and text.count("<|") == 2 for text in train)
    assert {*prepared.train.domain_names, *prepared.holdout.domain_names} == {"a", "b"}
    assert prepared.census.duplicates_removed == 1
    assert prepared.census.holdout_rows == len(holdout) > 5
    assert prepared.census.rows == prepared.census.records == len(train)
    assert prepared.census.tokens == prepared.train.num_tokens
    expected_bytes = [len(text.encode()) - len("<|bos|><|eos|>") for text in train]
    assert prepared.train.num_bytes.tolist() == expected_bytes


def test_the_split_does_not_depend_on_the_other_records(tmp_path: Path, request_for, tokenizer) -> None:
    write_documents(tmp_path / "few.jsonl", 50)
    write_documents(tmp_path / "many.jsonl", 100)
    few, many = (prepare_documents(request_for(name)).holdout for name in ("few.jsonl", "many.jsonl"))
    assert set(texts_of(few, tokenizer)) < set(texts_of(many, tokenizer))


def test_long_documents_lose_no_target(tmp_path: Path, request_for, tokenizer) -> None:
    text = "fox dog " * 40
    write_jsonl(tmp_path / "a.jsonl", [{"text": text}])
    rows = prepare_documents(request_for("a.jsonl", context=16, holdout=0.0)).train
    assert rows.lengths.max() == 16
    assert rows.lengths.min() >= 2
    targets = [token for i in range(len(rows)) for token in rows.sample(i)[0][rows.sample(i)[1] > 0].tolist()]
    assert targets == [*tokenizer.encode(text), tokenizer.eos_id]
    assert rows.num_bytes.sum() == len(text)
    assert set(rows.records.tolist()) == {0}


def test_conversations_are_truncated_and_counted(tmp_path: Path, request_for, tokenizer) -> None:
    rows = [
        {"prompt": "fox", "completion": "dog"},
        {"prompt": "fox", "completion": "dog " * 50},
        {"prompt": "fox " * 60, "completion": "dog"},
        {"prompt": "fox", "completion": "dog"},
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    prepared = prepare_conversations(request_for("a.jsonl", context=32, holdout=0.0))
    census = prepared.census
    assert (census.records, census.rows, census.duplicates_removed) == (3, 2, 1)
    assert (census.rows_truncated, census.answers_cut, census.rows_without_supervision) == (1, 1, 1)
    assert census.tokens_truncated > 0
    assert census.rows_with_terminator_supervised == 1
    assert census.answers == 3
    ids, supervised = prepared.train.sample(0)
    assert tokenizer.decode(ids[supervised > 0].tolist(), False) == "dog<|eos|>"


def test_pairs_too_long_or_identical_are_dropped_and_counted(tmp_path: Path, request_for, tokenizer) -> None:
    rows = [
        {"prompt": "fox", "chosen": "dog", "rejected": "lazy"},
        {"prompt": "fox", "chosen": "dog", "rejected": "dog"},
        {"prompt": "fox", "chosen": "dog " * 60, "rejected": "dog"},
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    prepared = prepare_preferences(request_for("a.jsonl", context=32, holdout=0.0))
    assert len(prepared.train) == prepared.census.rows == 1
    assert (prepared.census.pairs_identical, prepared.census.rows_too_long) == (1, 1)
    assert texts_of(prepared.train.prompt, tokenizer) == ["<|bos|><|user|>fox<|eos|><|assistant|>"]
    assert texts_of(prepared.train.chosen, tokenizer) == ["dog<|eos|>"]
    assert texts_of(prepared.train.rejected, tokenizer) == ["lazy<|eos|>"]


def test_prompts_too_long_are_dropped_and_counted(tmp_path: Path, request_for, tokenizer) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": "fox"}, {"prompt": "fox " * 60}])
    prepared = prepare_prompts(request_for("a.jsonl", context=32, holdout=0.0))
    assert texts_of(prepared.train, tokenizer) == ["<|bos|><|user|>fox<|eos|><|assistant|>"]
    assert prepared.census.rows_too_long == 1


def test_the_second_time_comes_from_the_cache(tmp_path: Path, request_for, monkeypatch: pytest.MonkeyPatch) -> None:
    write_documents(tmp_path / "a.jsonl", 30)
    first = prepare_documents(request_for("a.jsonl"))
    monkeypatch.setattr(prepare, "_write", None)
    again = prepare_documents(request_for("a.jsonl"))
    assert (again.digest, again.census) == (first.digest, first.census)
    assert np.array_equal(again.train.tokens, first.train.tokens)


def test_an_edited_file_is_never_served_from_the_cache(tmp_path: Path, request_for, tokenizer) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "old fox"}\n')
    before = path.stat()
    first = prepare_documents(request_for("a.jsonl", holdout=0.0))
    path.write_text('{"text": "new dog"}\n')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # same name, size and time
    second = prepare_documents(request_for("a.jsonl", holdout=0.0))
    assert texts_of(second.train, tokenizer) == ["<|bos|>new dog<|eos|>"]
    assert first.digest != second.digest


def test_everything_that_matters_is_in_the_key(tmp_path: Path, request_for, tokenizer, base_tokenizer) -> None:
    write_documents(tmp_path / "a.jsonl", 3)
    request = request_for("a.jsonl")
    other = base_tokenizer(None, specials=("</s>",), eos_token="</s>")
    variants = [
        request,
        dataclasses.replace(request, context=65),
        dataclasses.replace(request, holdout=0.21),
        dataclasses.replace(request, tokenizer=tokenizer.with_template(BUILTIN_TEMPLATE + " ")),
        dataclasses.replace(request, tokenizer=other),
        dataclasses.replace(request, sources=[Source(path="a.jsonl", limit=2)]),
        dataclasses.replace(request, sources=[Source(path="a.jsonl")] * 2),
    ]
    keys = [cache_key(variant, "documents") for variant in variants] + [cache_key(request, "prompts")]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "meta", "census"])
def test_a_torn_cache_is_made_again(tmp_path: Path, request_for, harm: str) -> None:
    write_documents(tmp_path / "a.jsonl", 30)
    first = prepare_documents(request_for("a.jsonl"))
    [folder] = (tmp_path / "cache").iterdir()
    tokens = folder / "train" / "tokens.bin"
    data = bytearray(tokens.read_bytes())
    if harm == "truncate":
        tokens.write_bytes(data[:-2])
    elif harm == "flip":
        data[5] ^= 1
        tokens.write_bytes(data)
    elif harm == "remove":
        (folder / "holdout" / "offsets.bin").unlink()
    elif harm == "census":
        told = (folder / "prepared.json").read_text()
        (folder / "prepared.json").write_text(told.replace('"records":', '"records":1', 1))
    else:
        (folder / "prepared.json").write_text("{")
    assert prepare_documents(request_for("a.jsonl")).census == first.census
    assert prepare_documents(request_for("a.jsonl")).digest == first.digest


def test_a_hub_data_set_is_prepared_in_place_of_a_missing_file(request_for, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_load", lambda source: [{"text": f"the fox number {i} is lazy"} for i in range(20)])
    request = request_for("gone.jsonl")
    request = dataclasses.replace(request, sources=[Source(path="gone.jsonl", hub="some/where")])
    assert prepare_documents(request).census.records > 10


def test_what_a_killed_process_left_is_swept(tmp_path: Path, request_for, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "cache" / f"{host_name()}-{2**22 + 1}-abc"
    left.mkdir(parents=True)
    write_documents(tmp_path / "a.jsonl", 30)
    prepare_documents(request_for("a.jsonl"))
    assert not left.exists()


def test_a_disk_that_fills_up_is_told(tmp_path: Path, request_for, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_documents(tmp_path / "a.jsonl", 30)
    monkeypatch.setattr(RowWriter, "_flush", full)
    with pytest.raises(StoreError, match="the disk is full"):
        prepare_documents(request_for("a.jsonl"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_error_leaves_nothing_behind(tmp_path: Path, request_for) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fox"}\nnot json\n')
    with pytest.raises(DataError) as caught:
        prepare_documents(request_for("a.jsonl"))
    assert caught.value.where == "a.jsonl:2"
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_source_that_changes_under_the_reader_is_refused(
    tmp_path: Path, request_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(tmp_path / "a.jsonl", 3)
    stamps = iter([[(1, 1)], [(2, 2)]])
    monkeypatch.setattr(prepare, "_stamps", lambda request: next(stamps))
    with pytest.raises(DataError, match="changed while it was read"):
        prepare_documents(request_for("a.jsonl"))


def test_a_conversation_that_the_template_refuses_is_named(tmp_path: Path, request_for, base_tokenizer) -> None:
    template = "{% if messages[0]['content'] == 'bad' %}{{ raise_exception('no') }}{% endif %}" + BUILTIN_TEMPLATE
    tokenizer = base_tokenizer(template, specials=("</s>",), eos_token="</s>")
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": text, "completion": "c"} for text in ("good", "bad", "fine")])
    with pytest.raises(TemplateError) as caught:
        prepare_conversations(dataclasses.replace(request_for("a.jsonl"), tokenizer=tokenizer))
    assert caught.value.where == "a.jsonl:2"


def test_the_tokenizer_never_sees_what_is_held_out(tmp_path: Path, request_for, tokenizer) -> None:
    write_documents(tmp_path / "a.jsonl", 60)
    request = request_for("a.jsonl")
    seen = {f"<|bos|>{text}<|eos|>" for text in training_texts(request.sources, request.root, request.holdout)}
    prepared = prepare_documents(request)
    assert seen == set(texts_of(prepared.train, tokenizer))


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, request_for, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 2 MB more of corpus, the peak of what Python and NumPy hold rises by less than 0.4 MB."""
    monkeypatch.setattr(writing, "_BATCH_CHARACTERS", 10_000)
    monkeypatch.setattr("weightgate.data.rows._BUFFER_ITEMS", 4096)
    monkeypatch.setattr("weightgate.store.digest.CHUNK_BYTES", 65_536)
    peaks, sizes = [], []
    for num in (50, 400):
        path = tmp_path / f"{num}.jsonl"
        write_jsonl(path, [{"text": f"{i} " + "the lazy fox " * 500} for i in range(num)])
        request = request_for(path.name, context=512)
        tracemalloc.start()
        prepare_documents(request)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(path.stat().st_size)
    assert sizes[1] - sizes[0] > 2_000_000
    assert peaks[1] - peaks[0] < 400_000


def test_wide_vocabularies_get_wide_tokens(tmp_path: Path) -> None:
    for size, kind in ((65_536, np.uint16), (65_537, np.uint32)):
        with RowWriter(tmp_path / str(size), size) as writer:
            writer.append([1, size - 1], [False, True], num_bytes=1, domain="t", record=0)
        rows = TokenRows.open(tmp_path / str(size))
        assert rows.tokens.dtype == kind
        assert rows.sample(0)[0].tolist() == [1, size - 1]


def test_a_first_token_is_never_a_target(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "rows", 100) as writer:
        for ids, supervised in (([1], [True]), ([], []), ([1, 2], [False])):
            with pytest.raises(ValueError, match="first token"):
                writer.append(ids, supervised, num_bytes=0, domain="t", record=0)


def test_rows_without_their_folder_are_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptError):
        TokenRows.open(tmp_path / "none")
