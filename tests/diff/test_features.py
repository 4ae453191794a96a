"""Style features and agreement: what they must not see, and what they must."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.diff.agreement import AGREEMENT_FEATURES, agreement, said, thinned
from weightgate.diff.evidence import EVIDENCE, evidence
from weightgate.diff.features import STYLE_FEATURES, strip_special, style, style_matrix

TEXTS = st.text(max_size=400)


def named(text: str) -> dict[str, float]:
    return dict(zip(STYLE_FEATURES, style(text), strict=True))


@settings(deadline=None)
@given(TEXTS)
def test_every_feature_of_any_text_is_a_number(text: str) -> None:
    values = style(text)
    assert len(values) == len(STYLE_FEATURES)
    assert all(math.isfinite(value) for value in values)


@given(st.text(st.characters(codec="ascii"), max_size=80))
def test_capitals_and_digits_are_counted_alike_in_and_outside_ascii(text: str) -> None:
    text = strip_special(text)
    plain, wide = named(text), named("é" + text + "é")
    for name in ("capitals", "digits"):
        assert plain[name] * max(len(text), 1) == pytest.approx(wide[name] * (len(text) + 2))


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["</s>", "<|im_end|>", "<|endoftext|>", "<s>", " "]))
def test_special_tokens_at_the_ends_are_no_style(text: str, token: str) -> None:
    assert style(token + strip_special(text) + token) == style(strip_special(text))


def test_layout_and_tone_are_seen() -> None:
    plain = named("Walk every day. It helps.")
    rich = named(
        "Sure! Here is a plan:\n\n# Plan\n\n- **Walk** every day\n- Rest\n\n1. Start\n\nLet me know if I can help!"
    )
    for name in (
        "bullets",
        "numbered",
        "bold",
        "headers",
        "paragraphs",
        "polite_opening",
        "polite_closing",
        "exclamations",
    ):
        assert rich[name] > plain[name], name
    assert named("I cannot help with that.")["refusal"] == 1
    assert named("It stops in the middle of a")["cut_ending"] == 1
    assert named("")["empty"] == 1


@settings(deadline=None, max_examples=30)
@given(st.lists(TEXTS, min_size=2, max_size=6), st.lists(TEXTS, min_size=2, max_size=6))
def test_evidence_does_not_depend_on_the_order_of_the_sides(a: list[str], b: list[str]) -> None:
    size = min(len(a), len(b))
    left, right = [said(text, "") for text in a[:size]], [said(text, "") for text in b[:size]]
    one = evidence(style_matrix(a[:size]), style_matrix(b[:size]), agreement(left, right))
    other = evidence(style_matrix(b[:size]), style_matrix(a[:size]), agreement(right, left))
    assert tuple(one) == EVIDENCE
    assert all(math.isfinite(value) for value in one.values())
    assert one == pytest.approx(other, abs=1e-6)


def test_the_same_answers_agree_fully_and_unlike_ones_do_not() -> None:
    texts = ["red lamps hang in the hall", "nine boats left before noon", "cheese keeps best when wrapped in paper"]
    sides = [said(text, "") for text in texts]
    same = agreement(sides, sides)
    assert all(same[f"same.{name}"] == 1 for name in ("identical", "opening", "prefix", "content", "words", "bigrams"))
    assert same["openings.distance"] == same["phrasing.distance"] == 0
    unlike = agreement(sides, [said(text, "") for text in ("who", "what where", "why not")])
    assert unlike["same.words"] == 0
    assert set(unlike) == set(AGREEMENT_FEATURES)


def test_words_of_the_prompt_are_no_agreement() -> None:
    a, b = said("lamps are red", "which lamps are red?"), said("red lamps are", "which lamps are red?")
    assert agreement([a, a], [b, b])["same.content"] == 0


@given(st.integers(0, 3000))
def test_thinning_keeps_order_and_bounds(count: int) -> None:
    kept = thinned(count)
    assert len(kept) == min(count, 240)
    assert kept == sorted(set(kept))
    assert all(0 <= at < count for at in kept)


def test_sides_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        evidence(np.zeros((2, 3)), np.zeros((3, 3)), {})
