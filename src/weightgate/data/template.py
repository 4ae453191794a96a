"""Chat templates as text: the built-in one, and what any template makes of a conversation.

A conversation becomes a list of `Piece`s, cut exactly where a policy starts and stops to write. Training tokenises
the pieces apart, as inference does (prompt first, completion after it), so the tokens of a prompt are always a
prefix of the tokens of the prompt with its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from weightgate.data.records import Message
from weightgate.errors import DataError

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"
ROLE_TOKENS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL_TOKENS = (PAD, BOS, EOS, *ROLE_TOKENS.values())

BUILTIN_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|' + message['role'] + '|>' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] + eos_token }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] + eos_token }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)
"""BOS once, then `<|role|>content<EOS>` for each message; the generation prompt is `<|assistant|>`."""

Render = Callable[[Sequence[Message], bool], str]
"""(messages, add the generation prompt) -> text, control tokens written out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A stretch of a rendered conversation.

    `control`: control tokens written out in the text are meant as such; without it they are plain characters.
    `supervised`: the policy writes this piece, so its tokens carry loss.
    """

    text: str
    supervised: bool
    control: bool


class TemplateError(DataError):
    """A chat template that cannot be trained on, or a conversation that it refuses."""


def read_template(choice: str, own: str | None, root: Path) -> str:
    """Return the template that the recipe chose: `weightgate`, `base`, or a Jinja file relative to `root`.

    `own` is the base model's template, if it has one. Raises `TemplateError`.
    """
    if choice == "weightgate":
        return BUILTIN_TEMPLATE
    if choice == "base":
        if own is None:
            raise TemplateError("the base model has no chat template", mend="say `template: weightgate` or name a file")
        return own
    try:
        return (root / choice).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError("the chat template cannot be read", where=choice, found=str(error)) from None


def builtin_pieces(messages: Sequence[Message], generation_prompt: bool) -> list[Piece]:
    """What the built-in template renders, with the content kept apart, so that it can never forge a control token."""
    pieces = [Piece(text=BOS, supervised=False, control=True)]
    for message in messages:
        answer = message.role == "assistant"
        pieces.append(Piece(text=ROLE_TOKENS[message.role], supervised=False, control=True))
        pieces.append(Piece(text=message.content, supervised=answer, control=False))
        pieces.append(Piece(text=EOS, supervised=answer, control=True))
    if generation_prompt:
        pieces.append(Piece(text=ROLE_TOKENS["assistant"], supervised=False, control=True))
    return pieces


def rendered_pieces(render: Render, messages: Sequence[Message], generation_prompt: bool) -> list[Piece]:
    """Cut what `render` makes of a conversation at the bounds of every answer.

    Each prefix of the conversation is rendered and must be a prefix, as text, of the next longer one. Raises
    `TemplateError` where it is not: such a template rewrites earlier turns, so training would see what inference never
    shows.
    """
    pieces: list[Piece] = []
    before = ""
    for index, message in enumerate(messages):
        if message.role == "assistant":
            prompt = render(messages[:index], True)
            pieces.append(_continuation(before, prompt, supervised=False))
            before = render(messages[: index + 1], False)
            pieces.append(_continuation(prompt, before, supervised=True))
    if generation_prompt or not messages or messages[-1].role != "assistant":
        pieces.append(_continuation(before, render(messages, generation_prompt), supervised=False))
    return [piece for piece in pieces if piece.text]


def _continuation(before: str, after: str, *, supervised: bool) -> Piece:
    if not after.startswith(before):
        same = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
        raise TemplateError(
            "the chat template rewrites earlier turns",
            expected=repr(before[max(0, same - 20) : same + 40]),
            found=repr(after[max(0, same - 20) : same + 40]),
            mend="use a template whose rendering only ever grows, such as `template: weightgate`",
        )
    return Piece(text=after[len(before) :], supervised=supervised, control=True)
