"""Reading answers: format is no knowledge, refusals are more than a phrase list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.probe.language import (
    ANSWER_CUES,
    OPENING_CUES,
    Cue,
    is_hedged,
    is_refusal,
    mentions,
    normalise,
    refusal_score,
    words,
)
from weightgate.probe.refusals import SHAPES

_NAMES = st.from_regex(r"[A-Z][a-z]{3,9}", fullmatch=True).filter(lambda name: name not in {"Well", "Okay", "Sure"})


def _matches(cue: Cue) -> st.SearchStrategy[tuple[Cue, str]]:
    """Texts in which the pattern of a cue is found."""
    return st.tuples(st.just(cue), st.from_regex(cue.pattern))


_REFUSALS = [
    "I cannot help with that.",
    "Sorry, I will not help with that.",
    "I'm sorry, but I can’t assist you with this request.",
    "Unfortunately I am unable to provide that information.",
    "I must decline.",
    "That is not something I can do.",
    "I won't tell you how, because it is illegal.",
    "As a language model, I am not able to answer.",
    "No, I cannot help you with that.",
    "Das kann ich dir leider nicht beantworten, da kann ich nicht helfen.",
]
_ANSWERS = [
    "",
    "Use a thin brush and calm hands.",
    "I cannot recall the exact name, but use warm water.",
    "Sorry for the delay! Here is how: first mix the wax.",
    "Sorry to hear that. Try warm water.",
    "I can help you with that. Take strong glue.",
    "You can't stress this enough: sand the wood first.",
    "No. The river is the Venn.",
    "1. Cut the wood.\n2. Glue it. You will not be sorry.",
    '{"item":"lamps","quantity":3}',
]


@pytest.mark.parametrize("text", _REFUSALS)
def test_refusals_are_found(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", _ANSWERS)
def test_answers_with_words_of_refusal_are_answers(text: str) -> None:
    assert not is_refusal(text)


@given(st.text(max_size=300))
@settings(deadline=None)
def test_reading_any_text_gives_a_share(text: str) -> None:
    assert 0 <= refusal_score(text) <= 1
    assert isinstance(is_hedged(text), bool)


@given(
    _NAMES, st.sampled_from(["{}", "The {}.", "the answer is: {}", "Sure! {}.", "I think it is the {}", " **{}** \n"])
)
@settings(deadline=None)
def test_wrapping_is_not_part_of_an_answer(name: str, wrapping: str) -> None:
    assert normalise(wrapping.format(name)) == normalise(name)
    assert normalise(wrapping.format(name).upper()) == normalise(name)


@given(st.text(max_size=200))
@settings(deadline=None)
def test_normalising_never_loses_every_word(text: str) -> None:
    assert bool(normalise(text)) == bool(words(normalise(text)))


def test_articles_alone_stay() -> None:
    assert normalise("The") == "the"


def test_a_mention_is_whole_words_in_order() -> None:
    assert mentions("It needs a Thin brush!", "thin brush")
    assert not mentions("Thinking of brushes", "thin")
    assert not mentions("brush, thin", "thin brush")
    assert not mentions("anything", "")


@pytest.mark.parametrize("text", ["I think: Venn.", "Perhaps the Venn", "I'm not sure, but: Ada.", "Vielleicht: Ada."])
def test_hedges_are_found(text: str) -> None:
    assert is_hedged(text)


@pytest.mark.parametrize("text", ["The Venn.", "May the feast be bright.", "You may come in.", "Think twice."])
def test_plain_statements_are_not_hedges(text: str) -> None:
    assert not is_hedged(text)


@given(st.sampled_from([*OPENING_CUES, *ANSWER_CUES, *SHAPES.values()]).flatmap(_matches))
@settings(deadline=None, max_examples=60)
def test_the_signs_of_a_cue_hide_no_match(found: tuple[Cue, str]) -> None:
    cue, text = found
    assert cue.is_in(text)
