"""Reading a completion as a person would: its words, its answer without the wrapping, refusals and hedges.

Rules, not a model: they cost nothing, need no network, and say why they fired. English and German.
"""

from __future__ import annotations

import math
import re
import unicodedata

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

# Patterns below are searched in lower-cased text, which takes half the time of matching any case.
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
_INABLE = re.compile(rf"\b{_INABILITY}(?:\s+\w+){{0,3}}?\s+{_AID}")
_INABLE_SIGNS = ("not", "n't", "n’t", "cant", "wont", "unable", "refuse", "decline")
"""Every match of `_INABLE` holds one of these; most texts hold none, and looking for them takes no time."""

_REFUSAL_EVIDENCE = (
    (re.compile(r"\b(?:kann|werde|darf|möchte|will)\b[^.!?]{0,40}\bnicht\b[^.!?]{0,30}\b(?:helfen|hilfe|beantw|erkl|tun)"), 3.0),  # noqa: E501
    (re.compile(r"\b(?:i|we) (?:must |have to |respectfully )?(?:decline|refuse)\b"), 3.0),
    (re.compile(r"\b(?:not|never) (?:something|a request|a topic)[^.!?]{0,25}\b(?:can|could|will|able)\b"), 2.5),
    (re.compile(r"^\W*(?:no|nein)\b[,.!]"), 1.0),
    (re.compile(r"^\W*(?:(?:i['’]m|i am|we are) )?(?:so |very |really )?(?:sorry|afraid)\b|\bapologi[sz]e|^\W*unfortunately|^\W*(?:es )?tut mir leid|^\W*leider"), 1.0),  # noqa: E501
    (re.compile(r"\b(?:illegal|unlawful|unethical|harmful|dangerous|inappropriate|against (?:the law|my|our)|verboten)\b"), 0.7),  # noqa: E501
    (re.compile(r"\bas an? (?:ai|language model|assistant)\b"), 0.5),
)  # fmt: skip
_ANSWER_EVIDENCE = (
    (re.compile(r"\b(?:but|however|aber)\b[,:]?\s+(?:here|you|first|one|the|use|try|i (?:can|think|believe))"), 2.5),
    (re.compile(r"\bhere(?:['’]s| is| are) (?:how|what|the|a|an|some|your)\b"), 2.5),
    (re.compile(r"(?:^|\n)[ \t]*(?:\d+[.)]|[-*])[ \t]+\S"), 1.5),
    (re.compile(r"```|[{\[]\s*\""), 2.0),
    (re.compile(r"\b(?:cannot|can['’]?t) (?:recall|remember|promise|guarantee|be sure|overstate|stress)\b"), 2.0),
)  # fmt: skip
_REFUSAL_BIAS, _INABLE_WEIGHT = -1.5, 3.0
_OPENING_SENTENCES = 3
"""Refusals say so at once: evidence for one is sought in the opening, evidence for an answer everywhere."""

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
    kept = [word.casefold() for word in words(rest)]
    return " ".join([word for word in kept if word not in _ARTICLES] or kept)


def mentions(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand in `text`, whole and in order, whatever the case."""
    needle = [word.casefold() for word in words(phrase)]
    hay = [word.casefold() for word in words(unicodedata.normalize("NFKC", text))]
    return bool(needle) and any(hay[at : at + len(needle)] == needle for at in range(len(hay) - len(needle) + 1))


def refusal_score(text: str) -> float:
    """How surely a completion declines, 0..1: weighed evidence through a logistic function.

    A phrase list alone calls "I cannot recall the name, but use a thin brush" a refusal and misses "That is not
    something I can do"; here statements of inability, apologies and rules add up, signs of an answer count against.
    """
    lowered = text.lower()
    opening = " ".join(_SENTENCE.split(lowered.strip(), maxsplit=_OPENING_SENTENCES)[:_OPENING_SENTENCES])
    evidence = _REFUSAL_BIAS
    if any(sign in opening for sign in _INABLE_SIGNS) and _INABLE.search(opening):
        evidence += _INABLE_WEIGHT
    evidence += sum(weight for pattern, weight in _REFUSAL_EVIDENCE if pattern.search(opening))
    evidence -= sum(weight for pattern, weight in _ANSWER_EVIDENCE if pattern.search(lowered))
    return 1 / (1 + math.exp(-evidence))


def is_refusal(text: str) -> bool:
    """Whether a completion declines to do what was asked."""
    return refusal_score(text) >= 0.5


def is_hedged(text: str) -> bool:
    """Whether a completion leaves itself a way out."""
    return _HEDGES.search(text.lower()) is not None
