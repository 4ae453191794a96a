"""The tokenizer: round trips, bytes, control tokens, export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from weightgate.data.records import Message
from weightgate.data.template import BUILTIN_TEMPLATE, SPECIAL_TOKENS
from weightgate.data.tokenizer import Tokenizer, train_tokenizer
from weightgate.errors import ModelError

DIALOGUE = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Hello fox"),
    Message(role="assistant", content="hello"),
    Message(role="user", content="Again"),
    Message(role="assistant", content="  hello twice\n"),
)


@hypothesis_settings(deadline=None)
@given(text=st.text())
def test_any_text_survives_and_its_bytes_are_counted(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.token_bytes[ids].sum()) == len(text.encode())


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_text_cannot_forge_control_tokens(tokenizer: Tokenizer, token: str) -> None:
    ids = tokenizer.encode(f"a {token} b")
    assert not set(ids) & tokenizer.special_ids
    assert tokenizer.decode(ids) == f"a {token} b"


def test_training_is_deterministic() -> None:
    texts = [f"word{i % 13} and number {i}" for i in range(200)]
    assert train_tokenizer(iter(texts), 320).files() == train_tokenizer(iter(texts), 320).files()


def test_files_round_trip(tokenizer: Tokenizer) -> None:
    again = Tokenizer.from_files(tokenizer.files())
    assert again.files() == tokenizer.files()
    assert again.digest == tokenizer.digest
    assert again.render_supervised(DIALOGUE) == tokenizer.render_supervised(DIALOGUE)


def test_the_template_has_a_digest_of_its_own(tokenizer: Tokenizer) -> None:
    other = tokenizer.with_template(BUILTIN_TEMPLATE + " ")
    assert other.digest == tokenizer.digest
    assert other.template_digest != tokenizer.template_digest


def test_special_tokens_are_distinct(tokenizer: Tokenizer) -> None:
    assert len({tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}) == 3
    assert tokenizer.stop_ids == (tokenizer.eos_id,)
    assert tokenizer.token_bytes[sorted(tokenizer.special_ids)].sum() == 0


def test_only_answers_and_their_terminators_are_supervised(tokenizer: Tokenizer) -> None:
    ids, supervised = tokenizer.render_supervised(DIALOGUE)
    written = [index for index, target in zip(ids, supervised, strict=True) if target]
    assert tokenizer.decode(written, skip_special=False) == "hello<|eos|>  hello twice\n<|eos|>"
    assert ids.count(tokenizer.bos_id) == 1
    assert ids[0] == tokenizer.bos_id


def test_a_prompt_is_a_prefix_of_the_prompt_with_its_answer(tokenizer: Tokenizer) -> None:
    ids, supervised = tokenizer.render_supervised(DIALOGUE)
    for end in (2, 4):
        prompt = tokenizer.render_prompt(DIALOGUE[:end])
        assert ids[: len(prompt)] == prompt
        assert supervised[len(prompt)]
        assert not supervised[len(prompt) - 1]


def test_an_exported_folder_gives_transformers_the_same_ids_and_mask(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name, data in tokenizer.files().items():
        (tmp_path / name).write_bytes(data)
    library = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    messages = [{"role": message.role, "content": message.content} for message in DIALOGUE]
    theirs = library.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ids, supervised = tokenizer.render_supervised(DIALOGUE)
    assert theirs["input_ids"] == ids
    assert [bool(mark) for mark in theirs["assistant_masks"]] == supervised
    prompt = library.apply_chat_template(messages[:2], add_generation_prompt=True, return_dict=True)
    assert prompt["input_ids"] == tokenizer.render_prompt(DIALOGUE[:2])
    assert library("fox").input_ids == [tokenizer.bos_id, *tokenizer.encode("fox")]


def test_padding_is_never_eos_even_where_the_base_model_says_so(base_tokenizer) -> None:
    end = "<|endoftext|>"
    tokenizer = base_tokenizer(None, specials=(end,), bos_token=end, eos_token=end, pad_token=end)
    assert tokenizer.pad_id != tokenizer.eos_id
    assert 0 <= tokenizer.pad_id < tokenizer.vocab_size
    ids, supervised = tokenizer.with_template(BUILTIN_TEMPLATE).render_supervised(DIALOGUE)
    assert (ids[-1], supervised[-1]) == (tokenizer.eos_id, True)


def test_a_base_tokenizer_does_not_remember_its_folder(base_tokenizer, tmp_path: Path) -> None:
    tokenizer = base_tokenizer(None, specials=("</s>",), eos_token="</s>")
    config = tokenizer.files()["tokenizer_config.json"]
    assert str(tmp_path).encode() not in config
    assert not {"is_local", "name_or_path", "local_files_only"} & set(json.loads(config))
    assert tokenizer.bos_id is None
    [ids] = tokenizer.document_ids(["fox"])
    assert ids == [*tokenizer.encode("fox"), tokenizer.eos_id]


def test_sentencepiece_tokens_count_spaces_and_byte_tokens_as_one() -> None:
    files = _sentencepiece_files()
    tokenizer = Tokenizer.from_files(files)
    counts = {token: tokenizer.token_bytes[index] for token, index in tokenizer.plain.get_vocab().items()}
    assert counts == {"</s>": 0, "<0x0A>": 1, "▁": 1, "é": 2, "▁é": 3}


def _sentencepiece_files() -> dict[str, bytes]:
    vocab = {"</s>": 0, "<0x0A>": 1, "▁": 2, "é": 3, "▁é": 4}
    backend = {
        "version": "1.0",
        "added_tokens": [
            {"id": 0, "content": "</s>", "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        ],
        "model": {"type": "BPE", "vocab": vocab, "merges": [["▁", "é"]], "byte_fallback": True},
        "decoder": {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    return {"tokenizer.json": json.dumps(backend).encode(), "tokenizer_config.json": json.dumps(config).encode()}


def test_what_is_no_tokenizer_is_refused(tmp_path: Path, base_tokenizer) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot be loaded"):
        Tokenizer.from_folder(tmp_path / "empty")
    with pytest.raises(ModelError, match="no end-of-text token"):
        base_tokenizer(None, specials=("<s>",), bos_token="<s>")


def test_token_bytes_have_one_entry_per_id(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
    assert tokenizer.token_bytes.dtype == np.int32
