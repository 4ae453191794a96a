"""Refuse a chat template that would train the wrong thing, before any data is read.

Each fault here was seen in the field and none of them shows in a loss curve: a mask that covers the prompt, an end of
turn that is never learnt, two BOS, earlier turns that are rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from transformers.utils.chat_template_utils import render_jinja_template

from weightgate.data.records import Message
from weightgate.data.template import Piece, TemplateError
from weightgate.data.tokenizer import Tokenizer

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MEND = "mend the template's Jinja file, or say `template: weightgate`"

_DIALOGUE = (
    Message(role="user", content="Prompt one?"),
    Message(role="assistant", content="Answer one."),
    Message(role="user", content="Prompt two?"),
    Message(role="assistant", content="Answer two."),
)


def check_template(tokenizer: Tokenizer) -> None:
    """Try the tokenizer's chat template on a dialogue of two turns. Raises `TemplateError` naming the fault."""
    pieces = tokenizer.pieces(_DIALOGUE, False)
    answers = [piece for piece in pieces if piece.supervised]
    prompts = [piece for piece in pieces if not piece.supervised]
    _check_who_writes_what(answers, prompts)
    _check_generation_prompt(tokenizer, answers[0])
    _check_terminators(tokenizer)
    _check_bos(tokenizer)
    if tokenizer.template is not None and _GENERATION_MARK.search(tokenizer.template):
        _check_marks(tokenizer)


def _check_who_writes_what(answers: Sequence[Piece], prompts: Sequence[Piece]) -> None:
    written, given = "".join(piece.text for piece in answers), "".join(piece.text for piece in prompts)
    for message in _DIALOGUE:
        expected, other = (written, given) if message.role == "assistant" else (given, written)
        if message.content in other:
            raise TemplateError(
                "the chat template supervises the prompt",
                expected=f"the {message.role}'s message outside the {'prompt' if other is given else 'answer'}",
                found=repr(other),
                mend=_MEND,
            )
        if message.content not in expected:
            raise TemplateError(f"the chat template leaves out the {message.role}'s message", mend=_MEND)


def _check_generation_prompt(tokenizer: Tokenizer, first_answer: Piece) -> None:
    """Some templates need no generation prompt, because the user's turn ends with all that comes before an answer."""
    opened = tokenizer.render_text(_DIALOGUE[:1], True) != tokenizer.render_text(_DIALOGUE[:1], False)
    header = first_answer.text.partition(_DIALOGUE[1].content)[0]
    if header.strip() and not opened:
        raise TemplateError(
            "the chat template has no generation prompt, so the header of the answer would be supervised",
            expected="`add_generation_prompt` to open the assistant's turn",
            found=repr(header),
            mend=_MEND,
        )


def _check_terminators(tokenizer: Tokenizer) -> None:
    """Every answer must end with one supervised stop token: the model learns to stop from nothing else."""
    ids, supervised = tokenizer.render_supervised(_DIALOGUE)
    ends = sum(target and index in tokenizer.stop_ids for index, target in zip(ids, supervised, strict=True))
    if ends != 2:
        raise TemplateError(
            "the chat template never supervises the end-of-turn token",
            expected=f"one of {', '.join(repr(tokenizer.decode([index], False)) for index in tokenizer.stop_ids)} "
            "at the end of each answer",
            found=repr(tokenizer.decode([i for i, target in zip(ids, supervised, strict=True) if target], False)),
            mend=_MEND,
        )


def _check_bos(tokenizer: Tokenizer) -> None:
    ids = tokenizer.render_prompt(_DIALOGUE[:1])
    bos = tokenizer.bos_id
    count = 0 if bos is None or bos in tokenizer.stop_ids else ids.count(bos)
    if count > 1 or ids[:2] == [tokenizer.bos_id] * 2:
        raise TemplateError(
            "the chat template writes BOS more than once",
            expected="at most one, at the start",
            found=repr(tokenizer.decode(ids, False)),
            mend=_MEND,
        )


def _check_marks(tokenizer: Tokenizer) -> None:
    """Where the template says itself what the assistant writes, that must be what is supervised here."""
    text, marks = _rendered_with_marks(tokenizer)
    for start, piece in _with_starts(tokenizer.pieces(_DIALOGUE, False)):
        marked = "".join(text[max(a, start) : min(b, start + len(piece.text))] for a, b in marks)
        if not piece.supervised and marked.strip():
            raise TemplateError(
                "the chat template supervises the prompt",
                expected="{% generation %} around answers only",
                found=repr(marked),
                mend=_MEND,
            )
        if piece.supervised and piece.text.strip() and not _ends_turn(tokenizer, piece, marked):
            raise TemplateError(
                "the chat template never supervises the end-of-turn token",
                expected="{% generation %} around the answer and its terminator: " + repr(piece.text),
                found=repr(marked),
                mend=_MEND,
            )


def _rendered_with_marks(tokenizer: Tokenizer) -> tuple[str, list[tuple[int, int]]]:
    messages = [{"role": message.role, "content": message.content} for message in _DIALOGUE]
    texts, marks = render_jinja_template(
        conversations=[messages],
        chat_template=tokenizer.template,
        return_assistant_tokens_mask=True,
        **tokenizer.pretrained.special_tokens_map,
    )
    return texts[0], marks[0]


def _with_starts(pieces: Sequence[Piece]) -> Iterator[tuple[int, Piece]]:
    start = 0
    for piece in pieces:
        yield start, piece
        start += len(piece.text)


def _ends_turn(tokenizer: Tokenizer, piece: Piece, marked: str) -> bool:
    """Whether the marked part of an answer reaches its terminator."""
    if not piece.control:
        return marked == piece.text  # the content alone; its terminator is a piece of its own
    return any(index in tokenizer.stop_ids for index in tokenizer.encode_control(marked))
