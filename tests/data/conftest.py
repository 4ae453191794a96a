"""A small tokenizer of ours, base tokenizers made on the spot, and the real data where it is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from public_data import public_data
from weightgate.data.prepare import Request
from weightgate.data.tokenizer import Tokenizer, train_tokenizer
from weightgate.recipe import Source

TEXTS = [f"Line {i}: the quick brown fox number {i % 7} says hello to the lazy dog, twice." for i in range(300)]

BaseTokenizer = Callable[..., Tokenizer]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(TEXTS), 400)


@pytest.fixture
def base_tokenizer(tmp_path: Path) -> BaseTokenizer:
    """Make a folder as a base model has it, byte-level BPE, and read the tokenizer from it."""

    def make(template: str | None, *, specials: tuple[str, ...], **config: object) -> Tokenizer:
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=list(specials),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(TEXTS, trainer)
        (tmp_path / "tokenizer.json").write_text(backend.to_str())
        (tmp_path / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config})
        )
        if template is not None:
            (tmp_path / "chat_template.jinja").write_text(template)
        return Tokenizer.from_folder(tmp_path)

    return make


@pytest.fixture
def request_for(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., Request]:
    """A request for the files in `tmp_path`."""

    def make(*names: str, context: int = 64, holdout: float = 0.2, root: Path | None = None) -> Request:
        return Request(
            sources=[Source(path=name) for name in names],
            root=root or tmp_path,
            tokenizer=tokenizer,
            context=context,
            holdout=holdout,
            cache=tmp_path / "cache",
        )

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    return public_data()
