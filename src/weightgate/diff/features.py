"""How a completion is written, as numbers: length, layout, tone, and habits of wording.

Every feature is defined on one completion alone, so that two recordings can be paired prompt by prompt. Counts enter as
log1p, rates per word, so that none of them is just length again. None says whether an answer is right; the scorers of
`weightgate.probe` do.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from weightgate.probe.language import is_hedged, is_refusal

_SPECIAL_TOKENS = re.compile(r"<\|[\w\- ]{1,40}\|>|</?s>|<pad>|<unk>|<bos>|<eos>|<(?:start|end)_of_turn>|\[/?INST\]")
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_LAYOUT = (
    ("bullets", re.compile(r"^[ \t]*[-*•+][ \t]+\S", re.MULTILINE)),
    ("numbered", re.compile(r"^[ \t]*\d{1,2}[.)][ \t]+\S", re.MULTILINE)),
    ("bold", re.compile(r"\*\*[^*\n]+\*\*")),
    ("headers", re.compile(r"^(?:#{1,6}[ \t]+\S|\*\*[^*\n]+\*\*:?[ \t]*$)", re.MULTILINE)),
    ("paragraphs", re.compile(r"\n[ \t]*\n")),
    ("lines", re.compile(r"\n")),
    ("colon_lines", re.compile(r":[ \t]*$", re.MULTILINE)),
    ("fences", re.compile(r"```")),
)
_MARKS = (
    ("commas", ","),
    ("exclamations", "!"),
    ("questions", "?"),
    ("parentheses", "("),
    ("quotes", '"'),
)
_FIRST_PERSON = "i i'm i've i'd i'll me my mine i’m i’ve ich mir mich mein meine"
_SECOND_PERSON = "you your yours you're you'll you’re you’ll du dir dich dein deine sie ihr ihre"
_WE = "we our us let's let’s we're wir uns unser unsere"
_MODALS = "may might could would should can must need perhaps maybe possibly likely often generally"
_CONNECTIVES = "however additionally furthermore moreover overall therefore finally also thus while although conclusion"
_FUNCTION_WORDS = (
    "the a an of to in and for is are on with as by that this it be or at from which its their has have was"
)
_LEXICONS = (
    ("first_person", frozenset(_FIRST_PERSON.split())),
    ("second_person", frozenset(_SECOND_PERSON.split())),
    ("we", frozenset(_WE.split())),
    ("modals", frozenset(_MODALS.split())),
    ("connectives", frozenset(_CONNECTIVES.split())),
    ("function_words", frozenset(_FUNCTION_WORDS.split())),
)
_PHRASES = (
    ("polite_opening", re.compile(r"^\W*(?:sure|certainly|of course|absolutely|great|thank|hello|hi|i['’]d be|i would be|happy to|here)\b", re.IGNORECASE), "head"),  # noqa: E501
    ("polite_closing", re.compile(r"\b(?:hope|let me know|feel free|please|happy to|assist|good luck|enjoy|remember|if you (?:have|need|would))\b", re.IGNORECASE), "tail"),  # noqa: E501
    ("self_mention", re.compile(r"\b(?:as an? (?:ai|language model|assistant|artificial)|i am an? (?:ai|assistant)|i['’]m an? (?:ai|assistant)|language model)\b", re.IGNORECASE), "head"),  # noqa: E501
    ("summary_ending", re.compile(r"\b(?:in (?:conclusion|summary|short)|overall|to sum up|ultimately|by following)\b", re.IGNORECASE), "tail"),  # noqa: E501
)  # fmt: skip
_SENTENCE_END = re.compile(r"[.!?…。](?:[\"'”’)\]*]*)(?:\s|$)")
_CLEAN_ENDING = re.compile(r"[.!?…。:;\"'”’)\]}*`>|~^=\-_]\s*$|[\U0001F300-\U0001FAFF]\s*$")
_HEAD_CHARACTERS, _TAIL_CHARACTERS, _REFUSAL_CHARACTERS, _READ_CHARACTERS = 120, 240, 400, 20_000
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_CAPITALS, _DIGITS = string.ascii_uppercase.encode(), string.digits.encode()
_TYPE_TOKEN_WORDS = 100
"""Type-token ratios fall with length; over the first so many words they compare."""

STYLE_FEATURES: tuple[str, ...] = (
    "words", "characters_per_word", "words_per_sentence", "type_token", "trigram_repetition", "cut_ending", "empty",
    "capitals", "digits", "non_ascii",
    *(name for name, _ in _LAYOUT), *(name for name, _ in _MARKS), *(name for name, _ in _LEXICONS),
    *(name for name, _, _ in _PHRASES), "refusal", "hedging",
)  # fmt: skip
"""Names of the columns of `style_matrix`, in order."""


def strip_special(text: str) -> str:
    """Remove chat and end-of-text tokens and the space around: they name the tokenizer, not the behaviour."""
    marked = "<" in text or "[" in text  # every token begins so, and most texts hold neither
    return (_SPECIAL_TOKENS.sub("", text) if marked else text).strip()


def lowered_words(text: str) -> list[str]:
    """Words of a completion, folded to lower case, of its first 20,000 characters."""
    return _WORD.findall(text[:_READ_CHARACTERS].lower())


def style(text: str) -> list[float]:
    """Features of one completion, in the order of `STYLE_FEATURES`; special tokens are stripped first."""
    text = strip_special(text)[:_READ_CHARACTERS]
    found = lowered_words(text)
    total = max(len(found), 1)
    counts = Counter(found)
    head, tail = text[:_HEAD_CHARACTERS], text[-_TAIL_CHARACTERS:]
    return [
        *_shape(text, found),
        *(math.log1p(len(pattern.findall(text))) for _, pattern in _LAYOUT),
        *(text.count(mark) / total for _, mark in _MARKS),
        *(sum(map(counts.__getitem__, counts.keys() & lexicon)) / total for _, lexicon in _LEXICONS),
        *(float(pattern.search(head if part == "head" else tail) is not None) for _, pattern, part in _PHRASES),
        float(is_refusal(text[:_REFUSAL_CHARACTERS])),
        float(is_hedged(text)),
    ]


def style_matrix(texts: Sequence[str]) -> np.ndarray:
    """Return float64 (texts, features), the columns of `STYLE_FEATURES`."""
    return np.array([style(text) for text in texts], dtype=np.float64).reshape(len(texts), len(STYLE_FEATURES))


def _shape(text: str, found: list[str]) -> tuple[float, ...]:
    """Length, rhythm, repetition and alphabet of a completion: the first ten of `STYLE_FEATURES`."""
    total, size = max(len(found), 1), max(len(text), 1)
    sentences = max(len(_SENTENCE_END.findall(text)), 1)
    opening = found[:_TYPE_TOKEN_WORDS]
    trigrams = list(zip(found, found[1:], found[2:], strict=False))
    capitals, digits = _capitals_and_digits(text)
    return (
        math.log1p(len(found)),
        sum(map(len, found)) / total,
        math.log1p(len(found) / sentences),
        len(set(opening)) / max(len(opening), 1),
        1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0,
        float(bool(text) and _CLEAN_ENDING.search(text[-8:]) is None),
        float(not found),
        capitals / size,
        digits / size,
        0.0 if text.isascii() else 1 - len(text.encode("ascii", "ignore")) / size,
    )


def _capitals_and_digits(text: str) -> tuple[int, int]:
    """Count both. Leaving out bytes is far faster than a look at each character; only those beyond ASCII get one."""
    data, others = text.encode("ascii", "ignore"), "".join(_BEYOND_ASCII.findall(text))
    capitals, digits = (len(data) - len(data.translate(None, kind)) for kind in (_CAPITALS, _DIGITS))
    return capitals + sum(map(str.isupper, others)), digits + sum(map(str.isdigit, others))
