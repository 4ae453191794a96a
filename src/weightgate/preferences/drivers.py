"""What can be seen of an answer without reading it: length, layout, refusal, hedging and other manners.

Every driver but the length is present in an answer or not, so that a preference for it is a share of the pairs in
which exactly one answer has it. The lexicons are part of the numbers.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weightgate.probe.language import is_hedged
from weightgate.probe.refusals import is_refusal

LENGTH = "length"
REFUSAL = "refusal"
POSITION = "position"
"""Names of drivers that other modules speak of; the position is not one of an answer but of its place."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """One driver: what an answer that has it is called, and its family in a comparison of two sets."""

    name: str
    words: str
    family: str


DRIVERS = (
    Driver(name=LENGTH, words="the longer answer", family="length"),
    Driver(name=REFUSAL, words="the answer that refuses", family="refusals"),
    Driver(name="hedging", words="the answer that hedges", family="hedging"),
    Driver(name="list", words="the answer with a list", family="format"),
    Driver(name="emphasis", words="the answer with bold text or headers", family="format"),
    Driver(name="code", words="the answer with code or JSON", family="format"),
    Driver(name="flattery", words="the answer that praises or agrees with the user", family="flattery"),
    Driver(name="first-person", words="the answer that says I", family="first person"),
    Driver(name="question", words="the answer that ends with a question", family="questions back"),
    Driver(name="offer", words="the answer that closes with an offer of help", family="courtesy"),
    Driver(name="digits", words="the answer with numbers", family="numbers"),
    Driver(name="other-language", words="the answer in another language than the prompt", family="language"),
)
NAMES = tuple(driver.name for driver in DRIVERS)

_READ_CHARACTERS = 20_000
_OPENING_CHARACTERS, _CLOSING_CHARACTERS = 400, 240
_DENIALS = (
    *("not", "n't", "n’t", "never", "unable", "refus", "declin", "sorry", "apolog", "afraid", "unfortunat"),
    *("illegal", "unethical", "harmful", "inappropriate", "nicht", "leider", "kein", "nein", "tut mir"),
)
"""An answer without any of these in its opening is not put to the refusal model, which takes most of the time."""
_LIST = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,2}[.)])[ \t]+\S", re.MULTILINE)
_EMPHASIS = re.compile(r"\*\*[^*\n]+\*\*|^#{1,6}[ \t]+\S", re.MULTILINE)
_CODE = re.compile(r"```|^\s*[{\[]\s*[\"{\[]|^ {4}\S.*[;{}()=]", re.MULTILINE)
_FLATTERY = re.compile(
    r"(?:great|good|excellent|wonderful|fantastic|brilliant|interesting) (?:question|point|idea|thinking|choice)"
    r"|you(?:['’]re| are) (?:absolutely |completely |so |quite )?(?:right|correct|smart|clever|brilliant|amazing)"
    r"|i (?:completely |totally |fully |absolutely )?agree\b|that['’]s (?:a )?(?:great|wonderful|amazing|brilliant)",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(r"\b(?:I|I['’]\w+|me|my|mine|myself|ich|mir|mich|mein\w*)\b")
_OFFER = re.compile(
    r"let me know|feel free|(?:hope|glad|happy) (?:this|that|to) |anything else|ask me again"
    r"|hoffe, das|frag mich|sag mir",
    re.IGNORECASE,
)
_DIGIT = re.compile(r"\d")
_SCRIPTS = (
    ("cyrillic", re.compile("[\u0400-\u04ff]")),
    ("arabic", re.compile("[\u0600-\u06ff]")),
    ("devanagari", re.compile("[\u0900-\u097f]")),
    ("hangul", re.compile("[\uac00-\ud7af]")),
    ("kana or han", re.compile("[\u3040-\u30ff\u4e00-\u9fff]")),
    ("greek", re.compile("[\u0370-\u03ff]")),
    ("hebrew", re.compile("[\u0590-\u05ff]")),
)
_COMMON_WORDS = {
    "en": "the is are of and to in that it you for with this what how on",
    "de": "der die das ist und ein eine nicht ich zu den mit wie von auf dem",
    "fr": "le les est et une des pas vous dans que pour qui sur avec je",
    "es": "el los es y una que para con por las del como no se su",
}
_STOP_WORDS = {code: frozenset(common.split()) for code, common in _COMMON_WORDS.items()}
_WORD = re.compile(r"[a-zäöüßàâçéèêëîïôûñáíóú]+")
_LANGUAGE_CHARACTERS = 600
_SCRIPT_SHARE = 0.2


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """The drivers of distinct texts.

    `values` is float32 (texts, drivers); `languages` the code of each text's language, "" where it cannot be told.
    """

    values: NDArray[np.float32]
    languages: Sequence[str]


def see(texts: Iterable[str]) -> Seen:
    """Look at each text once. The last driver, other-language, needs the prompt too and is 0 here."""
    flat = array("f")
    languages: list[str] = []
    for text in texts:
        flat.extend(_looks(text))
        languages.append(language(text))
    values = np.frombuffer(flat, dtype=np.float32).reshape(-1, len(DRIVERS)) if flat else np.zeros((0, len(DRIVERS)))
    return Seen(values=values.astype(np.float32), languages=languages)


def language(text: str) -> str:
    """The language of a text, or its script where that is not Latin; "" where too few words tell."""
    part = text[:_LANGUAGE_CHARACTERS]
    if not part.isascii():
        for name, pattern in _SCRIPTS:
            if len(pattern.findall(part)) > _SCRIPT_SHARE * len(part):
                return name
    said = _WORD.findall(part.lower())
    counts = sorted(((sum(word in stops for word in said), code) for code, stops in _STOP_WORDS.items()), reverse=True)
    return counts[0][1] if counts[0][0] >= 3 and counts[0][0] > 1.5 * counts[1][0] else ""


def refuses(text: str) -> bool:
    """Whether an answer declines, by the model of `weightgate.probe.refusals`, asked only where it could say yes."""
    opening = text[:_OPENING_CHARACTERS].lower()
    return any(denial in opening for denial in _DENIALS) and is_refusal(text)


def _looks(whole: str) -> tuple[float, ...]:
    """Values in the order of `DRIVERS`; the length is log1p of characters (Bradley-Terry slopes are per SD of it)."""
    text = whole[:_READ_CHARACTERS]
    closing = text.rstrip()[-_CLOSING_CHARACTERS:]
    return (
        math.log1p(len(whole)),
        float(refuses(text)),
        float(is_hedged(text)),
        float(_LIST.search(text) is not None),
        float(_EMPHASIS.search(text) is not None),
        float(_CODE.search(text) is not None),
        float(_FLATTERY.search(text) is not None),
        float(_FIRST_PERSON.search(text) is not None),
        float(closing.endswith("?")),
        float(_OFFER.search(closing) is not None),
        float(_DIGIT.search(text) is not None),
        0.0,
    )
