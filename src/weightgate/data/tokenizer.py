"""The tokenizer with its chat template: text and messages -> ids, and the files a `transformers` folder needs."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from weightgate.data.records import Message
from weightgate.data.template import (
    BOS,
    BUILTIN_TEMPLATE,
    EOS,
    PAD,
    SPECIAL_TOKENS,
    Piece,
    TemplateError,
    builtin_pieces,
    rendered_pieces,
)
from weightgate.errors import ModelError
from weightgate.store.digest import digest_bytes, digest_json

TOKENIZER_FILE, CONFIG_FILE, TEMPLATE_FILE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"

Supervised = tuple[list[int], list[bool]]
"""(ids, supervised): for each id, whether it is to be predicted."""

_GENERIC_CLASS = "PreTrainedTokenizerFast"
_LOAD_KEYS = ("is_local", "local_files_only", "name_or_path")

_MARK = "qxz7"
"""Content that occurs in no template, to find where a turn ends."""

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer (Sennrich et al. 2016; bytes as in Radford et al. 2019) with our template.

    Digits stand alone, so that numbers are not cut at places that depend on their frequency. The result depends on
    the texts and `vocab_size` alone. A small corpus may end with fewer than `vocab_size` tokens.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(iter(texts), trainer)
    # Engines that complete raw text rely on the tokenizer to put BOS before it, as every training document has it.
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return Tokenizer.from_files(_own_files(backend))


def _own_files(backend: tokenizers.Tokenizer) -> dict[str, bytes]:
    config = {
        "tokenizer_class": _GENERIC_CLASS,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
    }
    return {
        TOKENIZER_FILE: backend.to_str(pretty=False).encode(),
        CONFIG_FILE: json.dumps(config, indent=2, sort_keys=True).encode(),
        TEMPLATE_FILE: BUILTIN_TEMPLATE.encode(),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokenizer:
    """A tokenizer of ours or of a base model. Build it with `from_files`, `from_folder` or `train_tokenizer`.

    Args:
        contents: file name -> bytes, as exported.
        pretrained: the `transformers` tokenizer; it renders templates.
        plain: the backend that takes control tokens in a text for the characters they are.
        control: the same backend, but control tokens become themselves.
        template: the chat template; None: the base model has none.
    """

    contents: Mapping[str, bytes]
    pretrained: Any
    plain: tokenizers.Tokenizer
    control: tokenizers.Tokenizer
    template: str | None

    @staticmethod
    def from_files(files: Mapping[str, bytes]) -> Tokenizer:
        """Read a tokenizer from the bytes that `files()` gave. Raises `ModelError`."""
        with tempfile.TemporaryDirectory() as name:
            for file, data in files.items():
                (Path(name) / file).write_bytes(data)
            pretrained = _load(name, None)
        return _wrap(pretrained, files)

    @staticmethod
    def from_folder(path: str | Path, revision: str | None = None) -> Tokenizer:
        """Read the tokenizer of a `transformers` folder, or of a hub id. Never runs the folder's code.

        Raises `ModelError`.
        """
        pretrained = _load(str(path), revision)
        with tempfile.TemporaryDirectory() as name:
            pretrained.save_pretrained(name)
            files = {file.name: file.read_bytes() for file in sorted(Path(name).iterdir()) if file.is_file()}
        files[CONFIG_FILE] = _portable_config(files[CONFIG_FILE])
        return _wrap(pretrained, files)

    def files(self) -> dict[str, bytes]:
        """The files of an exported folder: tokenizer.json, tokenizer_config.json, chat_template.jinja and the like."""
        return dict(self.contents)

    def with_template(self, template: str) -> Tokenizer:
        """The same tokenizer with another chat template."""
        return replace(self, template=template, contents={**self.contents, TEMPLATE_FILE: template.encode()})

    @cached_property
    def digest(self) -> str:
        """Digest of everything but the chat template, which has a digest of its own."""
        return digest_json({n: digest_bytes(data) for n, data in self.contents.items() if n != TEMPLATE_FILE})

    @cached_property
    def template_digest(self) -> str:
        """Digest of the chat template; of nothing where there is none."""
        return digest_bytes((self.template or "").encode())

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.plain.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def bos_id(self) -> int | None:
        """Id of the token that starts a document; None where the base model has none."""
        return _optional_id(self.pretrained.bos_token_id)

    @property
    def eos_id(self) -> int:
        """Id of the token that ends a document."""
        return int(self.pretrained.eos_token_id)

    @cached_property
    def pad_id(self) -> int:
        """An id to fill rows with, never EOS. What is padding is said by position, so any other id serves."""
        names = ("pad_token_id", "unk_token_id", "bos_token_id")
        candidates = [_optional_id(getattr(self.pretrained, name, None)) for name in names]
        return next(i for i in (*candidates, *sorted(self.special_ids), 0, 1) if i is not None and i != self.eos_id)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of all control tokens."""
        added = self.control.get_added_tokens_decoder()
        return frozenset(self.pretrained.all_special_ids) | {i for i, token in added.items() if token.special}

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a completion: EOS, and the template's end of turn where it is another token."""
        turn = self._end_of_turn()
        return (self.eos_id,) if turn in (None, self.eos_id) else (self.eos_id, turn)

    @cached_property
    def template_bos(self) -> int:
        """How many BOS the chat template writes at the start of a conversation: 1, or 0 where it has none."""
        ids = self.render_prompt([Message(role="user", content="a")])
        return int(ids[0] == self.bos_id)

    def encode(self, text: str) -> list[int]:
        """Tokenise plain text: no token is added, and control tokens in the text are taken as characters."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise many texts at once; see `encode`."""
        return [encoding.ids for encoding in self.plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_control(self, text: str) -> list[int]:
        """Tokenise text in which control tokens are written out and meant as such; no token is added."""
        known = self._control_ids.get(text)
        return [known] if known is not None else self.control.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Turn ids into text; bytes that are not UTF-8 become U+FFFD."""
        return self.control.decode(list(ids), skip_special_tokens=skip_special)

    def document_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise documents: BOS (where there is one), text, EOS."""
        start = [] if self.bos_id is None else [self.bos_id]
        return [[*start, *ids, self.eos_id] for ids in self.encode_batch(texts)]

    def render_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Render messages for the policy to answer: with the generation prompt, BOS at most once."""
        return self.render_prompts([messages])[0]

    def render_supervised(self, messages: Sequence[Message]) -> Supervised:
        """Render a whole conversation; supervised are each answer's content and its terminator, nothing else."""
        return self.render_conversations([messages])[0]

    def render_prompts(self, batch: Sequence[Sequence[Message]]) -> list[list[int]]:
        """`render_prompt` for many conversations at once. Raises `TemplateError`."""
        return [ids for ids, _ in self._encode_pieces([self.pieces(messages, True) for messages in batch])]

    def render_conversations(self, batch: Sequence[Sequence[Message]]) -> list[Supervised]:
        """`render_supervised` for many conversations at once. Raises `TemplateError`."""
        return self._encode_pieces([self.pieces(messages, False) for messages in batch])

    def pieces(self, messages: Sequence[Message], generation_prompt: bool) -> list[Piece]:
        """Cut a rendered conversation at the bounds of its answers. Raises `TemplateError`."""
        if self._writes_control_tokens_itself:
            return builtin_pieces(messages, generation_prompt)
        self._refuse_control_tokens(messages)
        return rendered_pieces(self.render_text, messages, generation_prompt)

    def render_text(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        """What the Jinja template makes of the messages. Raises `TemplateError` where it refuses them."""
        if self.template is None:
            raise TemplateError("the base model has no chat template", mend="say `template: weightgate` or name a file")
        plain = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(
                self.pretrained.apply_chat_template(
                    plain, chat_template=self.template, tokenize=False, add_generation_prompt=generation_prompt
                )
            )
        except (jinja2.TemplateError, TypeError, ValueError, IndexError, KeyError) as error:
            roles = ", ".join(message.role for message in messages)
            raise TemplateError("the chat template refuses the conversation", found=f"{error}; roles {roles}") from None

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes that each id stands for, int32, shape (vocab_size,); control tokens stand for none.

        Their sum over the tokens of a text is the text's length in bytes, which makes bits per byte comparable
        between tokenizers.
        """
        counts = np.zeros(self.vocab_size, dtype=np.int32)
        added = self.control.get_added_tokens_decoder()
        count = _byte_level_length if self._is_byte_level else _sentencepiece_length
        for token, index in self.plain.get_vocab(with_added_tokens=True).items():
            if index not in self.special_ids:
                counts[index] = len(token.encode()) if index in added else count(token)
        return counts

    @property
    def _is_byte_level(self) -> bool:
        return "ByteLevel" in json.dumps(json.loads(self.control.to_str())["decoder"])

    @cached_property
    def _control_ids(self) -> dict[str, int]:
        tokens = {self.control.id_to_token(index): index for index in sorted(self.special_ids)}
        return {token: index for token, index in tokens.items() if token}

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._control_ids)))

    @cached_property
    def _writes_control_tokens_itself(self) -> bool:
        return self.template == BUILTIN_TEMPLATE and all(token in self._control_ids for token in SPECIAL_TOKENS)

    def _refuse_control_tokens(self, messages: Sequence[Message]) -> None:
        """After rendering by Jinja, nobody can tell a token that the content forged from one of the template."""
        for message in messages:
            found = self._control_pattern.search(message.content)
            if found:
                raise TemplateError(
                    "a message holds a control token of the base model",
                    expected="plain text",
                    found=found.group(),
                    mend="remove it from the record",
                )

    def _end_of_turn(self) -> int | None:
        """The first control token after the content of an answer."""
        if self.template is None:
            return None
        messages = [Message(role="user", content=_MARK), Message(role="assistant", content=_MARK)]
        written = "".join(piece.text for piece in self.pieces(messages, False) if piece.supervised)
        after = self.encode_control(written.partition(_MARK)[2])
        return next((index for index in after if index in self.special_ids), None)

    def _encode_pieces(self, batch: Sequence[Sequence[Piece]]) -> list[Supervised]:
        texts = [piece.text for pieces in batch for piece in pieces if not piece.control]
        plain = iter(self.encode_batch(texts))
        rendered = []
        for pieces in batch:
            ids: list[int] = []
            supervised: list[bool] = []
            for piece in pieces:
                new = self.encode_control(piece.text) if piece.control else next(plain)
                ids += new
                supervised += self._supervision(piece, new)
            rendered.append((ids, supervised))
        return rendered

    def _supervision(self, piece: Piece, ids: list[int]) -> list[bool]:
        """A supervised piece counts up to its terminator; white space that a template adds after it does not."""
        if not piece.supervised:
            return [False] * len(ids)
        if not piece.control:
            return [True] * len(ids)
        end = next((i + 1 for i, index in enumerate(ids) if index in self.stop_ids), len(ids))
        return [True] * end + [False] * (len(ids) - end)


def _load(name: str, revision: str | None) -> Any:
    try:
        pretrained = AutoTokenizer.from_pretrained(
            name, revision=revision, local_files_only=Path(name).is_dir(), trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(
            "the tokenizer cannot be loaded", where=name, found=(str(error).splitlines() or [type(error).__name__])[0]
        ) from None
    if not getattr(pretrained, "is_fast", False):
        raise ModelError("the tokenizer has no fast form", where=name, expected="a tokenizer.json")
    if pretrained.eos_token_id is None:
        raise ModelError("the tokenizer has no end-of-text token", where=name, expected="an eos_token")
    return pretrained


def _portable_config(data: bytes) -> bytes:
    """Drop what says where the tokenizer was loaded from, and name the class as every version knows it."""
    config = {key: value for key, value in json.loads(data).items() if key not in _LOAD_KEYS}
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = _GENERIC_CLASS
    return json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False).encode()


def _wrap(pretrained: Any, files: Mapping[str, bytes]) -> Tokenizer:
    template = pretrained.chat_template
    if isinstance(template, dict):  # several named templates
        template = template.get("default")
    return Tokenizer(
        contents=dict(files),
        pretrained=pretrained,
        plain=_backend(pretrained, encode_special_tokens=True),
        control=_backend(pretrained, encode_special_tokens=False),
        template=template,
    )


def _backend(pretrained: Any, *, encode_special_tokens: bool) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer.from_str(pretrained.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = encode_special_tokens
    return backend


def _optional_id(value: int | None) -> int | None:
    return None if value is None else int(value)


def _byte_level_length(token: str) -> int:
    return len(token)  # each character of a byte-level token stands for one byte


def _sentencepiece_length(token: str) -> int:
    """Bytes of a SentencePiece token: `<0x0A>` is one byte, U+2581 is a space."""
    return 1 if _BYTE_TOKEN.fullmatch(token) else len(token.replace("▁", " ").encode())
