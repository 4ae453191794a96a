"""Hostile characters are shown, never sent on."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_payloads import FORBIDDEN

from weightgate.report.text import one_line, visible

_ANY_TEXT = st.text(st.characters(), max_size=40)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb", "a\\u202eb"),
        ("\x00", "\\x00"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("back\rspace", "back\\x0dspace"),
    ],
)
def test_hidden_characters_are_spelt_out(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["naïve 日本語 مرحبا", "👩‍💻", "می‌خواهم", "a\ufffdb", "plain\n\ttext"])
def test_ordinary_text_is_left_alone(text):
    assert visible(text) == text


@settings(deadline=None)
@given(_ANY_TEXT)
def test_nothing_forbidden_is_left_and_a_second_pass_changes_nothing(text):
    shown = visible(text)
    assert not set(shown) & set(FORBIDDEN)
    assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in shown if character not in "\n\t")
    assert not any(unicodedata.bidirectional(c) in {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI"} for c in shown)
    assert visible(shown) == shown
    shown.encode()


@settings(deadline=None)
@given(_ANY_TEXT)
def test_one_line_is_one_line(text):
    assert len(one_line(text).splitlines()) <= 1
