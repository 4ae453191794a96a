"""Reading a completion as a person would: its words, its answer without the wrapping, refusals and hedges.

Rules, not a model: they cost nothing, need no network, and say why they fired. English and German.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_ARTICLES = frozenset({"a", "an", "the", "der", "die", "das", "den", "dem", "ein", "eine", "einen"})
_LEADING_FILLER = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|ok|well|yes|good question|here you go|gern|gerne|natürlich|also)[,.:;!]*\s+"
    r"|(?:i think|i believe|i guess|perhaps|maybe|probably|ich glaube|ich denke|vielleicht)[,.:;]*\s+"
    r"|(?:the |my )?(?:final )?(?:correct |right )?answer(?: is|:)\s*:?\s*"
    r"|(?:die |meine )?antwort(?: ist|:| lautet)\s*:?\s*"
    r"|(?:it|that|this) (?:is|was)\s+|(?:it|that)['’]s\s+|(?:es|das) (?:ist|war)\s+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Cue:
    """A pattern of wording, and signs: texts of which every match holds at least one.

    Most texts hold no sign, and looking for signs takes a tenth of the time of searching for the pattern.
    """

    pattern: re.Pattern[str]
    signs: tuple[str, ...]
    weight: float = 1.0

    def is_in(self, lowered: str) -> bool:
        """Whether the pattern is found in a text in lower case."""
        return any(sign in lowered for sign in self.signs) and self.pattern.search(lowered) is not None


def cue(pattern: str, *signs: str, weight: float = 1.0) -> Cue:
    """Make a cue of a pattern in lower case, which takes half the time of matching any case."""
    return Cue(pattern=re.compile(pattern), signs=signs, weight=weight)


_INABILITY = (
    r"(?:can ?not|can['’]?t|could(?: not|n['’]t)|will not|won['’]?t|would rather not|shall not|must not|"
    r"(?:am|are|['’]m|['’]re) (?:not able|unable|not allowed|not permitted|not going|not willing)(?: to)?|"
    r"unable to|not able to|refuse to|(?:have|must|need) to decline|must decline|decline to|"
    r"(?:do|does|did)(?: not|n['’]t) (?:feel comfortable|want to))"
)
_AID = (
    r"(?:help|assist|support|provide|answer|comply|fulfil\w*|tell|explain|share|give|discuss|advise|show|teach|"
    r"write|generate|create|offer|do (?:that|this|so|it)|talk about|engage|describe|participate)"
)
OPENING_CUES = (
    cue(
        rf"\b{_INABILITY}(?:\s+\w+){{0,3}}?\s+{_AID}",
        *("not", "n't", "n’t", "cant", "wont", "unable", "refuse", "decline"),
        weight=3.0,
    ),
    cue(
        r"\b(?:kann|werde|darf|möchte|will)\b[^.!?]{0,40}\bnicht\b[^.!?]{0,30}\b(?:helfen|hilfe|beantw|erkl|tun)",
        "nicht",
        weight=3.0,
    ),
    cue(r"\b(?:i|we) (?:must |have to |respectfully )?(?:decline|refuse)\b", "decline", "refuse", weight=3.0),
    cue(
        r"\b(?:not|never) (?:something|a request|a topic)[^.!?]{0,25}\b(?:can|could|will|able)\b",
        *("something", "a request", "a topic"),
        weight=2.5,
    ),
    cue(r"^\W*(?:no|nein)\b[,.!]", "no", "nein"),
    cue(
        r"^\W*(?:(?:i['’]m|i am|we are) )?(?:so |very |really )?(?:sorry|afraid)\b|\bapologi[sz]e|^\W*unfortunately"
        r"|^\W*(?:es )?tut mir leid|^\W*leider",
        *("sorry", "afraid", "apologi", "unfortunately", "tut mir leid", "leider"),
    ),
    cue(
        r"\b(?:illegal|unlawful|unethical|harmful|dangerous|inappropriate|against (?:the law|my|our)|verboten)\b",
        *("illegal", "unlawful", "unethical", "harmful", "dangerous", "inappropriate", "against", "verboten"),
        weight=0.7,
    ),
    cue(r"\bas an? (?:ai|language model|assistant)\b", "as a", weight=0.5),
)
"""Refusals say so at once, so evidence for one is sought in the opening; evidence for an answer everywhere."""

ANSWER_CUES = (
    cue(
        r"\b(?:but|however|aber)\b[,:]?\s+(?:here|you|first|one|the|use|try|i (?:can|think|believe))",
        *("but", "however", "aber"),
        weight=2.5,
    ),
    cue(
        r"\bhere(?:['’]s| is| are) (?:how|what|the|a|an|some|your)\b",
        *("here's", "here’s", "here is", "here are"),
        weight=2.5,
    ),
    cue(r"(?m)^[ \t]*(?:\d+[.)]|[-*])[ \t]+\S", ".", ")", "-", "*", weight=1.5),
    cue(r"```|[{\[]\s*\"", "```", "{", "[", weight=2.0),
    cue(
        r"\b(?:cannot|can['’]?t) (?:recall|remember|promise|guarantee|be sure|overstate|stress)\b",
        *("cannot", "can't", "can’t", "cant"),
        weight=2.0,
    ),
)
_REFUSAL_BIAS = -1.5
_OPENING_SENTENCES = 3

_HEDGES = re.compile(
    r"\b(?:i (?:think|believe|guess|suppose|assume|would say|am not (?:quite |entirely |really )?(?:sure|certain))|"
    r"i['’]m not (?:quite |entirely |really )?(?:sure|certain)|not (?:quite |entirely )?sure|"
    r"perhaps|maybe|probably|possibly|presumably|as far as i know|if i remember|it (?:may|might|could|seems)|"
    r"might be|may be|could be|it depends|ich (?:glaube|denke|vermute|meine)|vielleicht|vermutlich|wahrscheinlich|"
    r"nicht (?:ganz )?sicher|womöglich|möglicherweise)\b",
)


def words(text: str) -> list[str]:
    """Words of a text: letters and digits, joined by inner apostrophes and hyphens."""
    return _WORD.findall(text)


def normalise(text: str) -> str:
    """Reduce an answer to what it says: no case, accents kept, no punctuation, articles or leading filler.

    Format is no knowledge: "The answer is: The Venn!" and "venn" are one answer.
    """
    rest = unicodedata.normalize("NFKC", text).strip().strip("\"'`*_ ")
    while True:
        shorter = _LEADING_FILLER.sub("", rest, count=1)
        if shorter == rest or not words(shorter):
            break
        rest = shorter
    kept = _folded_words(rest)
    return " ".join([word for word in kept if word not in _ARTICLES] or kept)


def mentions(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand in `text`, whole and in order, whatever the case."""
    needle = _folded_words(phrase)
    plain = unicodedata.normalize("NFKC", text)
    if not needle or needle[0] not in plain.casefold():  # most texts end here, unread
        return False
    hay = _folded_words(plain)
    return any(hay[at : at + len(needle)] == needle for at in range(len(hay) - len(needle) + 1))


def _folded_words(text: str) -> list[str]:
    return [word.casefold() for word in words(text)]


def refusal_score(text: str) -> float:
    """How surely a completion declines, 0..1: weighed evidence through a logistic function.

    A phrase list alone calls "I cannot recall the name, but use a thin brush" a refusal and misses "That is not
    something I can do"; here statements of inability, apologies and rules add up, signs of an answer count against.
    """
    lowered = text.lower()
    opening = " ".join(_SENTENCE.split(lowered.strip(), maxsplit=_OPENING_SENTENCES)[:_OPENING_SENTENCES])
    evidence = _REFUSAL_BIAS + sum(one.weight for one in OPENING_CUES if one.is_in(opening))
    evidence -= sum(one.weight for one in ANSWER_CUES if one.is_in(lowered))
    return 1 / (1 + math.exp(-evidence))


def is_refusal(text: str) -> bool:
    """Whether a completion declines to do what was asked."""
    return refusal_score(text) >= 0.5


def is_hedged(text: str) -> bool:
    """Whether a completion leaves itself a way out."""
    return _HEDGES.search(text.lower()) is not None
